from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from searchops_sandbox.tiny_checkpoint import HIDDEN, MAX_TOKENS, write_tiny_checkpoint
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.fingerprint import content_fingerprint
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "checkpoint", dense=12, prompt="query: ")


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_everything_that_decides_a_vector_is_read(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.pooling == ("mean",)
    assert checkpoint.normalise
    assert (checkpoint.hidden, checkpoint.dimension, checkpoint.max_tokens) == (HIDDEN, 12, MAX_TOKENS)
    assert checkpoint.default_prompt == "query: "
    assert [(layer.in_features, layer.out_features, layer.activation) for layer in checkpoint.dense] == [
        (32, 12, "Tanh")
    ]


def test_the_older_form_of_the_pooling_is_read(folder: Path) -> None:
    legacy = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(legacy))
    assert read_checkpoint(folder).pooling == ("cls",)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "modules.json").unlink(),
            "modules.json: seen no such file, wanted a sentence-transformers checkpoint",
        ),
        (lambda f: (f / "modules.json").write_text("{"), "modules.json: seen unreadable JSON"),
        (lambda f: (f / "modules.json").write_text("{}"), "modules.json: seen a dict, wanted a list of modules"),
        (
            lambda f: _edit(f / "modules.json", lambda m: [*m[:1], {**m[1], "type": "custom_code.Pooling"}]),
            "module type 'custom_code.Pooling', wanted one of Transformer, Pooling, Dense, Normalize",
        ),
        (
            lambda f: _edit(f / "modules.json", lambda m: [{**m[0], "path": "../other"}, *m[1:]]),
            "module path '../other', wanted a folder inside the checkpoint",
        ),
        (lambda f: _edit(f / "modules.json", lambda m: [m[1], m[0]]), "wanted Transformer, Pooling, then any Dense"),
        (
            lambda f: _edit(f / "1_Pooling" / "config.json", lambda c: {**c, "pooling_mode": "lasttoken"}),
            "seen pooling ['lasttoken'], wanted one or more of cls, max, mean",
        ),
        (lambda f: _edit(f / "config.json", lambda c: {**c, "auto_map": {}}), "it is never run"),
        (
            lambda f: _edit(f / "2_Dense" / "config.json", lambda c: {**c, "in_features": 31}),
            "seen in_features 31, wanted 32",
        ),
        (
            lambda f: _edit(f / "config_sentence_transformers.json", lambda c: {**c, "truncate_dim": 13}),
            "seen truncate_dim 13, wanted a whole number from 1 to 12",
        ),
        (
            lambda f: _edit(f / "config_sentence_transformers.json", lambda c: {**c, "default_prompt_name": "passage"}),
            "default_prompt_name 'passage'",
        ),
        (_pickle, "seen no *.safetensors but ['pytorch_model.bin'], wanted weights as safetensors"),
        (_cut, "copy the file again: it is cut"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: seen no such file, wanted a fast tokeniser"),
    ],
)
def test_what_is_no_checkpoint_says_file_seen_wanted_and_next(
    folder: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(folder)
    with pytest.raises(BuildError) as caught:
        read_checkpoint(folder)
    assert caught.value.stage is BuildStage.BAD_CHECKPOINT
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "; " in str(caught.value)


def test_a_missing_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"seen no folder there, wanted .*; check source\.uri"):
        read_checkpoint(tmp_path / "nowhere")


def test_the_fingerprint_sees_content_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = content_fingerprint(read_checkpoint(folder))
    (folder / "README.md").write_text("a card")
    _edit(folder / "tokenizer.json", lambda c: {**c, "truncation": None, "padding": None})
    assert content_fingerprint(read_checkpoint(folder)) == first
    others = [
        write_tiny_checkpoint(tmp_path / "seed", dense=12, prompt="query: ", seed=8),
        write_tiny_checkpoint(tmp_path / "pooling", dense=12, prompt="query: ", pooling="cls"),
        write_tiny_checkpoint(tmp_path / "prompt", dense=12),
        write_tiny_checkpoint(tmp_path / "cut", dense=12, prompt="query: ", truncate_dim=8),
    ]
    prints = {content_fingerprint(read_checkpoint(other)) for other in others}
    assert len(prints | {first}) == 5
