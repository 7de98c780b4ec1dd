"""``make gpu-check``: a real TensorRT plan, built and run on this machine's GPU, compared with ONNX Runtime.

It needs a GPU and NVIDIA's TensorRT libraries, which are not on PyPI; without them it says so and ends with 46.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from searchops_workers.engines.backend import EngineRequest
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.export import export_onnx
from searchops_workers.engines.onnxruntime import OnnxRuntimeBackend
from searchops_workers.engines.stages import BuildError
from searchops_workers.engines.tensorrt import TensorRtBackend

LEAST_COSINE = 0.999
BUCKETS = (16, 64)
MAX_BATCH = 8


def main(arguments: list[str]) -> int:
    """Build, run, compare; the last line is JSON. The argument is a sentence-transformers checkpoint."""
    if len(arguments) != 1:
        sys.stderr.write("wanted one argument: the folder of a sentence-transformers checkpoint\n")
        return 2
    try:
        outcome = _check(Path(arguments[0]))
    except BuildError as error:
        sys.stderr.write(f"{error.stage.name}: {error}\n")
        return int(error.stage)
    sys.stdout.write(json.dumps(outcome) + "\n")
    return 0 if float(outcome["min_cosine"]) >= LEAST_COSINE else 1


def _check(folder: Path) -> dict[str, float | str]:
    backend = TensorRtBackend()
    hardware = backend.preflight()
    checkpoint = read_checkpoint(folder)
    with tempfile.TemporaryDirectory(prefix="searchops-gpu-") as work:
        onnx = export_onnx(checkpoint, "FP16", Path(work) / "model.onnx")
        request = EngineRequest(onnx, Path(work) / "model.plan", MAX_BATCH, BUCKETS, None, _say)
        started = time.monotonic()
        plan = backend.build(request)
        seconds = time.monotonic() - started
        tokens = np.random.default_rng(7).integers(1000, 20000, (MAX_BATCH, BUCKETS[0]), dtype=np.int64)
        mask = np.ones_like(tokens)
        mine = np.asarray(backend.runner(plan).run(tokens, mask), dtype=np.float64)
        reference = OnnxRuntimeBackend().runner(export_onnx(checkpoint, "FP32", Path(work) / "reference.onnx"))
        theirs = np.asarray(reference.run(tokens, mask), dtype=np.float64)
    cosine = (mine * theirs).sum(axis=1) / (np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1))
    return {"hardware": hardware, "build_seconds": round(seconds, 2), "min_cosine": float(cosine.min())}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
