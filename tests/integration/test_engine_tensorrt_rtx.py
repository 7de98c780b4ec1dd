"""TensorRT's build code, proven without a GPU: TensorRT-RTX has the same API and compiles on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.engines.backend import EngineRequest
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.export import export_onnx
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.tensorrt import TensorRtRtxBackend

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.engines.export import GraphPrecision

pytestmark = pytest.mark.integration
pytest.importorskip("tensorrt_rtx_bindings", reason="the wheel exists for Linux on x86_64 only")


def _request(onnx: Path, target: Path, lines: list[str]) -> EngineRequest:
    return EngineRequest(onnx, target, 8, (8, 16, 48), None, lines.append)


@pytest.mark.parametrize("precision", ["FP16", "Mixed", "BF16", "FP32"])
def test_every_precision_compiles_to_a_plan(tmp_path: Path, precision: GraphPrecision) -> None:
    checkpoint = read_checkpoint(write_tiny_checkpoint(tmp_path / "checkpoint"))
    onnx = export_onnx(checkpoint, precision, tmp_path / "model.onnx")
    lines: list[str] = []
    plan = TensorRtRtxBackend().build(_request(onnx, tmp_path / "model.plan", lines))
    assert plan.stat().st_size > 10_000
    assert any(line.startswith("TensorRT: ") for line in lines), "progress is reported"


def test_what_the_parser_says_reaches_the_person(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_tiny_checkpoint(tmp_path / "checkpoint"))
    onnx = export_onnx(checkpoint, "FP32", tmp_path / "model.onnx")
    onnx.write_bytes(onnx.read_bytes()[:5000])
    with pytest.raises(BuildError, match=r"TensorRT cannot parse model\.onnx: .*Failed to parse") as caught:
        TensorRtRtxBackend().build(_request(onnx, tmp_path / "model.plan", []))
    assert caught.value.stage is BuildStage.PARSE
    assert not (tmp_path / "model.plan").exists()


def test_an_operator_that_no_engine_has_is_named(tmp_path: Path) -> None:
    import onnx

    node = onnx.helper.make_node("NoSuchOperator", ["input_ids"], ["sentence_embedding"])
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8])
        for name in ("input_ids", "sentence_embedding")
    ]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(BuildError, match="NoSuchOperator") as caught:
        TensorRtRtxBackend().build(_request(path, tmp_path / "model.plan", []))
    assert caught.value.stage is BuildStage.PARSE
