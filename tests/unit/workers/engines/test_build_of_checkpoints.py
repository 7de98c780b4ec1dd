"""The whole build on checkpoints of different kinds: what is served says what sentence-transformers says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from searchops.api.tasks import EXIT_ACCURACY, EXIT_BAD_CHECKPOINT, BuildResult
from searchops_sandbox.fixtures.products import catalogue
from searchops_sandbox.tiny_checkpoint import HIDDEN, write_tiny_checkpoint
from searchops_workers.digests import directory_digest
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.encoders.reference import ReferenceEncoder
from searchops_workers.engines import commands
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.fingerprint import content_fingerprint
from searchops_workers.engines.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TITLES = tuple(str(product.line()["title"]) for product in catalogue())[:40]
WISHES = ("m8 bolt", "edelstahlschraube m8x40 din 933", "talvitakki miehille", "", "🔩", "pump 2 hp " * 30)


def run_build(folder: Path, tmp_path: Path) -> tuple[int, BuildResult]:
    """Run the Job's command on a checkpoint."""
    task = {
        "kind": "build",
        "model": "shop",
        "revision": "shop-r1-aaaaaaaa",
        "number": 1,
        "source": {"uri": f"file://{folder}", "digest": directory_digest(folder)},
        "engine": {"backend": "ONNXRuntime", "precision": "FP32", "maxBatch": 8, "buckets": [8, 16, 64]},
        "repositories": [f"{tmp_path}/pool/repository"],
        "artifacts": f"file://{tmp_path}/artifacts/models/shop/shop-r1-aaaaaaaa",
        "resultUri": f"file://{tmp_path}/results/build.json",
    }
    code = commands.run_build(json.dumps(task))
    return code, BuildResult.model_validate_json((tmp_path / "results" / "build.json").read_bytes())


@pytest.fixture(autouse=True)
def _own_termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHOPS_TERMINATION_LOG", str(tmp_path / "termination"))


@pytest.mark.parametrize(
    ("shape", "pooling", "dimension"),
    [
        ({"architecture": "bert", "pooling": "cls"}, ("cls",), HIDDEN),
        ({"architecture": "distilbert", "pooling": "mean"}, ("mean",), HIDDEN),
        ({"architecture": "roberta", "pooling": "cls"}, ("cls",), HIDDEN),
        ({"architecture": "mpnet", "pooling": "mean"}, ("mean",), HIDDEN),
        ({"architecture": "bert", "prompt": "query: "}, ("mean",), HIDDEN),
        ({"architecture": "bert", "prompts": {"query": "query: ", "passage": "passage: "}}, ("mean",), HIDDEN),
        ({"architecture": "mpnet", "dense": 12}, ("mean",), 12),
    ],
    ids=["cls", "distilbert", "roberta", "mpnet", "default-prompt", "mean-named-prompts", "dense"],
)
def test_what_is_built_says_what_sentence_transformers_says(
    tmp_path: Path, shape: dict[str, Any], pooling: tuple[str, ...], dimension: int
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    code, result = run_build(folder, tmp_path)
    assert (code, result.exit_code, result.dimension) == (0, 0, dimension)
    kept = tmp_path / "artifacts/models/shop/shop-r1-aaaaaaaa"
    manifest = read_manifest(kept / "manifest.json")
    assert (manifest.backend, manifest.precision, manifest.pooling) == ("ONNXRuntime", "FP32", pooling)
    assert manifest.accuracy is not None
    assert manifest.accuracy.min_cosine >= 0.9999
    texts = [*WISHES, *TITLES]
    served = OnnxEncoder.open(kept).encode_now(texts)
    library = SentenceTransformer(str(folder), device="cpu")
    wanted = library.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert served.shape == wanted.shape == (len(texts), dimension)
    assert np.einsum("ij,ij->i", served.astype(np.float64), wanted.astype(np.float64)).min() >= 0.9999


def test_prompts_alone_make_another_revision_of_another_content(tmp_path: Path) -> None:
    """A prompt moves every vector: its checkpoint has another digest, another fingerprint and other vectors."""
    plain = write_tiny_checkpoint(tmp_path / "plain")
    prompted = write_tiny_checkpoint(tmp_path / "prompted", prompt="query: ")
    assert (plain / "model.safetensors").read_bytes() == (prompted / "model.safetensors").read_bytes()
    assert directory_digest(plain) != directory_digest(prompted)
    assert content_fingerprint(read_checkpoint(plain)) != content_fingerprint(read_checkpoint(prompted))
    vectors = [ReferenceEncoder(folder).encode_now(TITLES) for folder in (plain, prompted)]
    assert np.einsum("ij,ij->i", *vectors).min() < 0.999


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def _one_token_more(content: dict[str, Any]) -> dict[str, Any]:
    vocabulary = content["model"]["vocab"]
    return {**content, "model": {**content["model"], "vocab": {**vocabulary, "schraube": len(vocabulary)}}}


@pytest.mark.parametrize(
    ("shape", "damage", "code", "said"),
    [
        (
            {},
            lambda f: _edit(
                f / "modules.json",
                lambda m: [*m[:2], {**m[2], "type": "sentence_transformers.models.WeightedLayerPooling"}],
            ),
            EXIT_BAD_CHECKPOINT,
            "module type 'sentence_transformers.models.WeightedLayerPooling', wanted one of Transformer, Pooling, ",
        ),
        (
            {},
            lambda f: _edit(f / "1_Pooling/config.json", lambda c: {**c, "pooling_mode": "lasttoken"}),
            EXIT_BAD_CHECKPOINT,
            "pooling ['lasttoken'], wanted one or more of cls, max, mean, mean_sqrt_len_tokens; choose one",
        ),
        (
            {},
            lambda f: _edit(f / "tokenizer.json", _one_token_more),
            EXIT_BAD_CHECKPOINT,
            "tokenizer.json: seen token 77, wanted tokens below 77, the rows of the embedding table; copy the ",
        ),
        (
            {},
            lambda f: _edit(f / "1_Pooling/config.json", lambda c: {**c, "embedding_dimension": 64}),
            EXIT_BAD_CHECKPOINT,
            "embedding_dimension 64, wanted 32, the width of the transformer",
        ),
        (
            {"dense": 12},
            lambda f: _edit(f / "2_Dense/config.json", lambda c: {**c, "in_features": 64}),
            EXIT_BAD_CHECKPOINT,
            "in_features 64, wanted 32, the width of what comes before",
        ),
        ({"nan": True}, lambda f: None, EXIT_ACCURACY, "gives values that are not finite"),
        ({"nan": True, "architecture": "mpnet"}, lambda f: None, EXIT_ACCURACY, "gives values that are not finite"),
    ],
    ids=["module", "last-token", "tokeniser", "pooling-width", "dense-width", "nan", "nan-mpnet"],
)
def test_what_cannot_be_served_is_refused_by_name_with_its_exit_code(
    tmp_path: Path, shape: dict[str, Any], damage: Callable[[Path], Any], code: int, said: str
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    damage(folder)
    seen, result = run_build(folder, tmp_path)
    assert (seen, result.exit_code) == (code, code)
    assert said in result.message
    assert not (tmp_path / "pool").exists()
