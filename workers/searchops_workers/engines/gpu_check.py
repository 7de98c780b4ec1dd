"""``make gpu-check``: what this machine's GPU serves a checkpoint with, how exactly, and how fast.

For every bucket that serving pads to: the smallest cosine with FP32 torch on the CPU, and the time of one text and of
a full batch. Compared are torch in FP16, ONNX Runtime on CUDA and a TensorRT plan of this GPU; one that is not
installed is named and has no value. One JSON line a figure goes to standard output, and is appended to ``--out``.

Exit codes: 0 every runtime that is there is exact; 1 one is not or fails, or a required one is missing; 2 wrong
arguments; and a `BuildStage`, as 46 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchops_workers.engines.backend import EngineRequest
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.gpu import find_gpu
from searchops_workers.engines.gpu_figures import Machine, bucket_batch, failed, figure, missing, runtime_figures
from searchops_workers.engines.gpu_runners import NotInstalledError, OnnxCuda, Opened, Runtime, TorchHalf
from searchops_workers.engines.stages import BuildError
from searchops_workers.engines.subject import served_settings
from searchops_workers.engines.tensorrt import TensorRtBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from searchops_workers.encoders.protocol import Vectors
    from searchops_workers.encoders.settings import EncoderSettings
    from searchops_workers.encoders.tokenise import TokenBatch
    from searchops_workers.engines.checkpoint import Checkpoint

BUCKETS = (16, 32, 64, 128, 256)
MAX_BATCH = 64
KEYS = ("torch", "onnxruntime", "tensorrt")


def main(arguments: Sequence[str]) -> int:
    """Check this machine's GPU; see the module for what is written and how it ends."""
    parser = argparse.ArgumentParser(prog="gpu-check", description="Accuracy and speed of a checkpoint on this GPU.")
    parser.add_argument("checkpoint", type=Path, help="folder of a sentence-transformers checkpoint")
    parser.add_argument("--out", type=Path, help="file that the figures are appended to, one JSON line each")
    parser.add_argument("--max-batch", type=int, default=MAX_BATCH, help="texts of a full batch (%(default)s)")
    parser.add_argument("--require", nargs="*", choices=KEYS, default=["torch"], help="runtimes that must be there")
    asked = parser.parse_args(arguments)
    try:
        gpu = find_gpu().label
        with tempfile.TemporaryDirectory(prefix="searchops-gpu-") as work:
            checkpoint = read_checkpoint(asked.checkpoint)
            settings = served_settings(checkpoint, BUCKETS, asked.max_batch)
            _say(f"{gpu}; encoding a batch for each of the buckets {settings.buckets} in FP32 as the reference")
            batches = reference_batches(checkpoint, settings)
            lines = check(gpu, batches, runtimes(checkpoint, settings, Path(work)))
    except BuildError as error:
        _say(f"{error.stage.name}: {error}")
        return int(error.stage)
    return report(lines, asked.require, asked.out)


def reference_batches(checkpoint: Checkpoint, settings: EncoderSettings) -> dict[int, tuple[TokenBatch, Vectors]]:
    """Bucket → a full batch, and what FP32 torch on the CPU says of it."""
    import torch

    from searchops_workers.engines.export import load_module

    module = load_module(checkpoint)
    found = {}
    for bucket in settings.buckets:
        batch = bucket_batch(checkpoint.tokenizer, settings, bucket)
        with torch.inference_mode():
            vectors = module(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)).numpy()
        found[bucket] = (batch, np.asarray(vectors, dtype=np.float32))
    return found


def runtimes(checkpoint: Checkpoint, settings: EncoderSettings, work: Path) -> tuple[Runtime, ...]:
    """What is compared, in this order; the first is what the others are compared with."""
    from importlib.metadata import version

    from searchops_workers.engines.export import export_onnx

    graph: list[Path] = []

    def exported() -> Path:
        if not graph:
            graph.append(export_onnx(checkpoint, "FP16", work / "model.onnx"))
        return graph[0]

    def torch_half() -> Opened:
        return Opened(TorchHalf(checkpoint), {"torch": version("torch")})

    def onnx_cuda() -> Opened:
        try:
            import onnxruntime
        except ImportError as error:
            raise NotInstalledError(f"onnxruntime is not installed ({error}): install onnxruntime-gpu") from error
        return Opened(OnnxCuda(exported()), {"onnxruntime": onnxruntime.__version__})

    def tensorrt() -> Opened:
        backend = TensorRtBackend()
        try:
            versions = backend.runtimes()
        except BuildError as error:
            raise NotInstalledError(str(error)) from error
        request = EngineRequest(
            exported(), work / "model.plan", settings.max_batch, settings.buckets, work / "timing.cache", _say
        )
        return Opened(backend.runner(backend.build(request)), versions)

    return (
        Runtime("torch FP16", "torch", torch_half),
        Runtime("ONNX Runtime CUDA FP16", "onnxruntime", onnx_cuda),
        Runtime("TensorRT FP16", "tensorrt", tensorrt),
    )


def check(
    gpu: str,
    batches: dict[int, tuple[TokenBatch, Vectors]],
    compared: Sequence[Runtime],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """The lines of every runtime; one that fails has a line that says so, and takes no other's figures away."""
    lines: list[dict[str, Any]] = []
    of_torch: dict[int, float] | None = None
    for runtime in compared:
        _say(f"{runtime.name}: opening")
        started = clock()
        try:
            opened = runtime.open()
        except NotInstalledError as error:
            _say(f"{runtime.name}: not here: {error}")
            lines.append({**missing(runtime.name, str(error), gpu), "key": runtime.key})
            continue
        except BuildError as error:
            lines.append(_fails(runtime, error, gpu))
            continue
        took = clock() - started
        machine = Machine(gpu, opened.versions)
        made = [figure(f"{runtime.name}: exported, built and loaded", [took], "s", machine)]
        try:
            measured, rates = runtime_figures(runtime.name, opened.runner, batches, machine, of_torch)
        except BuildError as error:
            lines.append(_fails(runtime, error, gpu))
            continue
        of_torch = rates if runtime.key == "torch" else of_torch
        lines += [{**line, "key": runtime.key} for line in (*made, *measured)]
    return lines


def _fails(runtime: Runtime, error: BuildError, gpu: str) -> dict[str, Any]:
    _say(f"{runtime.name}: fails: {error.stage.name}: {error}")
    return {**failed(runtime.name, f"{error.stage.name}: {error}", gpu), "key": runtime.key}


def report(lines: Sequence[dict[str, Any]], required: Sequence[str], out: Path | None) -> int:
    """Write the lines; 1 where a vector is not exact or a required runtime is missing."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    sys.stdout.write(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(text)
    wrong = [line for line in lines if line["holds"] is False]
    there = {line["key"] for line in lines if line["value"] is not None}
    absent = [key for key in required if key not in there]
    for line in wrong:
        _say(f"{'failed' if line['value'] is None else 'not exact'}: {line['figure']}")
    for key in absent:
        _say(f"missing: {key}, which was required")
    return 1 if wrong or absent else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
