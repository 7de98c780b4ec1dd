from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from searchops_sandbox.tiny_checkpoint import MAX_TOKENS, write_tiny_checkpoint
from searchops_workers.encoders.reference import ReferenceEncoder
from searchops_workers.encoders.tokenise import TextTokeniser
from searchops_workers.engines.accuracy import measure, run_texts, special_texts
from searchops_workers.engines.build import served_settings
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.export import export_onnx
from searchops_workers.engines.onnxruntime import OnnxGraph
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors
    from searchops_workers.engines.export import GraphPrecision

TEXTS = (*special_texts(), "m8 hex bolt", "stainless washer 8 mm", "talvitakki")
BUCKETS = (8, 16, 32, 64)


def _cosines(folder: Path, precision: GraphPrecision, target: Path) -> Vectors:
    checkpoint = read_checkpoint(folder)
    settings = served_settings(checkpoint, BUCKETS, 4)
    graph = OnnxGraph(export_onnx(checkpoint, precision, target))
    tokeniser = TextTokeniser(checkpoint.tokenizer, settings)
    reference = ReferenceEncoder(folder, max_tokens=settings.max_tokens).encode_raw(TEXTS)
    assert reference.shape == (len(TEXTS), settings.dimension)
    measure(graph, tokeniser, settings, TEXTS, reference)
    served = run_texts(graph, tokeniser, TEXTS, settings.dimension)
    cosines: Vectors = np.einsum("ij,ij->i", served.astype(np.float64), reference.astype(np.float64))
    return cosines


@pytest.mark.parametrize(
    ("shape", "dimension"),
    [
        ({"pooling": "mean"}, 32),
        ({"pooling": "cls"}, 32),
        ({"pooling": "max"}, 32),
        ({"pooling": "mean_sqrt_len_tokens"}, 32),
        ({"layers": 1}, 32),
        ({"dense": 12}, 12),
        ({"truncate_dim": 10}, 10),
        ({"prompt": "query "}, 32),
    ],
    ids=lambda value: str(value),
)
def test_the_graph_equals_sentence_transformers(tmp_path: Path, shape: dict[str, Any], dimension: int) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    assert read_checkpoint(folder).dimension == dimension
    assert _cosines(folder, "FP32", tmp_path / "model.onnx").min() >= 0.9999


@pytest.mark.parametrize("precision", ["FP16", "Mixed"])
def test_narrow_precisions_stay_exact(tmp_path: Path, precision: GraphPrecision) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint")
    cosines = _cosines(folder, precision, tmp_path / "model.onnx")
    assert cosines.min() >= 0.9999
    assert cosines.min() < 1.0 - 1e-9, "nothing was rounded: the graph is still FP32"


def test_equal_checkpoints_give_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        checkpoint = read_checkpoint(write_tiny_checkpoint(tmp_path / name))
        contents.append(export_onnx(checkpoint, "FP32", tmp_path / f"{name}.onnx").read_bytes())
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in contents[0]


def test_the_cut_is_the_checkpoints_or_the_widest_bucket(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_tiny_checkpoint(tmp_path / "checkpoint"))
    assert served_settings(checkpoint, (8, 16, 64), 4).buckets == (8, 16, MAX_TOKENS)
    assert served_settings(checkpoint, (8, 16), 4).max_tokens == 16


def test_another_pooling_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    mean = write_tiny_checkpoint(tmp_path / "mean")
    other = read_checkpoint(write_tiny_checkpoint(tmp_path / "max", pooling="max"))
    settings = served_settings(other, BUCKETS, 4)
    graph = OnnxGraph(export_onnx(other, "FP32", tmp_path / "model.onnx"))
    reference = ReferenceEncoder(mean).encode_raw(TEXTS)
    with pytest.raises(BuildError, match=r"smallest cosine with FP32 torch is .* wanted at least 0\.999") as caught:
        measure(graph, TextTokeniser(other.tokenizer, settings), settings, TEXTS, reference)
    assert caught.value.stage is BuildStage.ACCURACY


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", layers=1)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(BuildError, match="weights are missing") as caught:
        export_onnx(read_checkpoint(folder), "FP32", tmp_path / "model.onnx")
    assert caught.value.stage is BuildStage.BAD_CHECKPOINT
