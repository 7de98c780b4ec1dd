"""`make gpu-check` without a GPU: what it runs, what it writes and how it ends; the runtimes' part runs on a GPU."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.engines import gpu_check
from searchops_workers.engines.checkpoint import Checkpoint, read_checkpoint
from searchops_workers.engines.export import export_onnx
from searchops_workers.engines.gpu import Gpu, find_gpu
from searchops_workers.engines.gpu_figures import (
    CALLS,
    ROUNDS,
    WARM_UP,
    bucket_batch,
    least_cosine,
    longest_rows,
    time_calls,
)
from searchops_workers.engines.gpu_runners import NotInstalledError, OnnxCuda, Opened, Runtime
from searchops_workers.engines.onnxruntime import OnnxGraph
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.subject import served_settings
from searchops_workers.engines.tensorrt import TensorRtBackend

if TYPE_CHECKING:
    from pathlib import Path

BUCKETS = (8, 16)
GPU = Gpu("NVIDIA H100 80GB HBM3", (9, 0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("source") / "checkpoint"))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(checkpoint, "FP32", tmp_path_factory.mktemp("graph") / "model.onnx")


class Turned:
    """A runtime whose vectors are those of another, turned away from them."""

    def __init__(self, inner: OnnxGraph) -> None:
        self._inner = inner

    def run(self, input_ids: Any, attention_mask: Any) -> Any:
        return np.roll(self._inner.run(input_ids, attention_mask), 1, axis=1)


class Clock:
    """Each look costs a millisecond more than the one before."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.now += 1e-3 * self.looks
        self.looks += 1
        return self.now


def _lines(checkpoint: Checkpoint, *compared: Runtime) -> list[dict[str, Any]]:
    settings = served_settings(checkpoint, BUCKETS, 12)
    return gpu_check.check(GPU.label, gpu_check.reference_batches(checkpoint, settings), compared)


def test_a_batch_has_padded_rows_full_rows_and_the_texts_that_break_encoders(checkpoint: Checkpoint) -> None:
    settings = served_settings(checkpoint, BUCKETS, 12)
    for bucket in BUCKETS:
        batch = bucket_batch(checkpoint.tokenizer, settings, bucket)
        lengths = batch.attention_mask.sum(axis=1)
        assert batch.input_ids.shape == (12, bucket)
        assert lengths.max() == bucket
        assert 2 <= lengths.min() < bucket
        assert (batch.input_ids[batch.attention_mask == 0] == settings.pad_token_id).all()
        assert longest_rows(batch, 1).attention_mask.sum() == bucket


def test_only_calls_after_the_warm_up_are_timed_and_each_round_is_told(checkpoint: Checkpoint) -> None:
    asked = []

    class Counted:
        def run(self, input_ids: Any, attention_mask: Any) -> Any:
            asked.append(input_ids.shape)
            return input_ids

    batch = bucket_batch(checkpoint.tokenizer, served_settings(checkpoint, BUCKETS, 12), 8)
    clock = Clock()
    timing = time_calls(Counted(), batch, clock=clock)
    assert asked == [(12, 8)] * (WARM_UP + ROUNDS * CALLS)
    assert clock.looks == 2 * ROUNDS * CALLS
    assert len(timing.p50) == len(timing.p99) == ROUNDS
    # The k-th call takes 2k + 1 looks' worth of milliseconds, so a round's median is that of its middle calls.
    assert timing.p50[0] == pytest.approx(CALLS, abs=1e-6)
    assert list(timing.p50) == sorted(timing.p50)
    assert timing.p99[0] > timing.p50[0]


def test_every_bucket_has_its_accuracy_times_and_rate_and_the_rate_of_torch(
    checkpoint: Checkpoint, graph: Path
) -> None:
    def opened() -> Opened:
        return Opened(OnnxGraph(graph, threads=1), {"onnxruntime": "1"})

    lines = _lines(checkpoint, Runtime("torch FP16", "torch", opened), Runtime("other", "onnxruntime", opened))
    assert [line["figure"] for line in lines if line["key"] == "onnxruntime"] == [
        "other: exported, built and loaded",
        *(
            f"other, {bucket} tokens{what}"
            for bucket in BUCKETS
            for what in (
                ": smallest cosine with FP32",
                ", one text: p50",
                ", one text: p99",
                ", 12 texts: p50",
                ", 12 texts: rate",
            )
        ),
    ]
    by_name = {line["figure"]: line for line in lines}
    exact = by_name["other, 16 tokens: smallest cosine with FP32"]
    assert (exact["holds"], exact["target"], exact["value"] > 0.99999) == (True, ">= 0.999", True)
    rate, torch = by_name["other, 16 tokens, 12 texts: rate"], by_name["torch FP16, 16 tokens, 12 texts: rate"]
    assert rate["details"]["times_of_torch"] == pytest.approx(rate["value"] / torch["value"], rel=0.01)
    assert rate["spread"][0] <= rate["value"] <= rate["spread"][1]
    assert "details" not in torch
    assert {line["machine"]["gpu"] for line in lines} == {GPU.label}
    assert gpu_check.report(lines, ["torch", "onnxruntime"], None) == 0


def test_vectors_that_are_not_exact_are_named_and_end_with_1(
    checkpoint: Checkpoint, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(checkpoint, Runtime("torch FP16", "torch", lambda: Opened(Turned(OnnxGraph(graph)), {})))
    assert gpu_check.report(lines, ["torch"], None) == 1
    assert "not exact: torch FP16, 8 tokens: smallest cosine with FP32" in capsys.readouterr().err


def test_what_is_not_installed_claims_no_value_and_is_an_error_only_where_it_is_required(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> Opened:
        raise NotInstalledError("none of the modules tensorrt is installed")

    lines = _lines(checkpoint, Runtime("TensorRT FP16", "tensorrt", absent))
    (line,) = lines
    assert (line["value"], line["holds"]) == (None, None)
    assert line["details"] == {"missing": "none of the modules tensorrt is installed"}
    out = tmp_path / "bench" / "gpu.jsonl"
    assert gpu_check.report(lines, [], out) == 0
    assert gpu_check.report(lines, ["tensorrt"], out) == 1
    assert "missing: tensorrt, which was required" in capsys.readouterr().err
    assert [json.loads(text) for text in out.read_text().splitlines()] == [line, line]


def test_a_value_that_is_not_finite_has_no_cosine() -> None:
    one = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    assert least_cosine(one, one) == pytest.approx(1.0)
    assert least_cosine(one, one[:, ::-1].copy()) == pytest.approx(0.0, abs=1e-6)
    assert least_cosine(one, np.full_like(one, np.nan)) == 0.0
    assert least_cosine(one, one[:1]) == 0.0


def test_an_onnx_runtime_without_cuda_is_named_with_what_it_has(graph: Path) -> None:
    """The locked onnxruntime is the one for CPUs."""
    with pytest.raises(NotInstalledError, match=r"CPUExecutionProvider.*install onnxruntime-gpu"):
        OnnxCuda(graph)


def test_an_onnx_runtime_that_is_not_there_at_all_is_named_and_takes_no_figure_away(
    checkpoint: Checkpoint, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = gpu_check.runtimes(checkpoint, served_settings(checkpoint, BUCKETS, 4), tmp_path)
    opened = Opened(OnnxGraph(graph, threads=1), {})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    lines = _lines(checkpoint, Runtime("torch FP16", "torch", lambda: opened), compared[1])
    assert {line["key"] for line in lines if line["value"] is not None} == {"torch"}
    assert "onnxruntime is not installed" in lines[-1]["details"]["missing"]
    assert gpu_check.report(lines, ["torch"], None) == 0


def test_a_runtime_that_fails_is_no_missing_one_and_takes_no_figure_away(
    checkpoint: Checkpoint, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Opened:
        raise BuildError(BuildStage.ENGINE, "no engine was built")

    class Breaks:
        def run(self, input_ids: Any, attention_mask: Any) -> Any:
            raise BuildError(BuildStage.ENGINE, "the GPU failed")

    good = Runtime("torch FP16", "torch", lambda: Opened(OnnxGraph(graph, threads=1), {}))
    later = Runtime("ONNX Runtime CUDA FP16", "onnxruntime", lambda: Opened(Breaks(), {}))
    lines = _lines(checkpoint, good, Runtime("TensorRT FP16", "tensorrt", fails), later)
    assert sum(line["key"] == "torch" for line in lines) == 1 + 5 * len(BUCKETS)
    assert [(line["key"], line["holds"], line["details"]) for line in lines if line["key"] != "torch"] == [
        ("tensorrt", False, {"failed": "ENGINE: no engine was built"}),
        ("onnxruntime", False, {"failed": "ENGINE: the GPU failed"}),
    ]
    assert gpu_check.report(lines, ["torch"], None) == 1
    assert "failed: TensorRT FP16" in capsys.readouterr().err


def test_tensorrt_that_is_not_installed_is_not_here(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "TensorRtBackend", lambda: TensorRtBackend(find=lambda: GPU))
    compared = gpu_check.runtimes(checkpoint, served_settings(checkpoint, BUCKETS, 4), tmp_path)
    assert [runtime.key for runtime in compared] == list(gpu_check.KEYS)
    with pytest.raises(NotInstalledError, match="none of the modules tensorrt"):
        compared[2].open()


def test_a_machine_without_a_gpu_ends_with_46_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: find_gpu("libcuda-of-nowhere.so"))
    assert gpu_check.main(["nowhere"]) == 46
    assert "wanted a GPU of Turing or newer" in capsys.readouterr().err
