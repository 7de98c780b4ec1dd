"""What ``make gpu-check`` compares on a GPU: torch in FP16, ONNX Runtime on CUDA, and a TensorRT plan.

Each takes token ids and a mask in the host's memory and gives vectors in the host's memory, as a server does: the
copies to the GPU and back are part of what is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops_workers.encoders.settings import ATTENTION_MASK, INPUT_IDS, OUTPUT
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from searchops_workers.engines.accuracy import GraphRunner
    from searchops_workers.engines.checkpoint import Checkpoint

CUDA_PROVIDER = "CUDAExecutionProvider"


class NotInstalledError(RuntimeError):
    """A runtime that is to be compared is not on this machine; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A runtime that is ready to run.

    Attributes:
        runner: runs one padded batch.
        versions: of what decides the figures.
    """

    runner: GraphRunner
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Runtime:
    """One row of the comparison.

    Attributes:
        name: as figures name it, with its precision.
        key: as ``--require`` names it.
        open: builds and loads; raises `NotInstalledError` or `BuildError`.
    """

    name: str
    key: str
    open: Callable[[], Opened]


class TorchHalf:
    """The transformer in FP16 on the GPU, pooling and normalisation in FP32: what the exported graph says, in torch."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch

        from searchops_workers.engines.export import load_module

        self._torch = torch
        module: Any = load_module(checkpoint)
        module.transformer.half()
        self._module = module.to("cuda")

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[Any]:
        """One row a text."""
        torch = self._torch
        with torch.inference_mode():
            ids, mask = torch.from_numpy(input_ids).cuda(), torch.from_numpy(attention_mask).cuda()
            answer: NDArray[Any] = self._module(ids, mask).cpu().numpy()
        return answer


class OnnxCuda:
    """A session of ONNX Runtime whose first provider is CUDA.

    Raises:
        NotInstalledError: where the installed ONNX Runtime has no CUDA provider, or it cannot be loaded.
        BuildError: stage PARSE, where the graph cannot be loaded.
    """

    def __init__(self, graph: Path) -> None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if CUDA_PROVIDER not in available:
            raise NotInstalledError(
                f"onnxruntime {onnxruntime.__version__} has {', '.join(available)}, wanted {CUDA_PROVIDER}: install "
                "onnxruntime-gpu in its place"
            )
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=[CUDA_PROVIDER])
        except Exception as error:  # onnxruntime raises its own classes, all plain Exceptions
            raise BuildError(BuildStage.PARSE, f"{graph.name} cannot be loaded on CUDA: {error}") from error
        first = self._session.get_providers()[0]
        if first != CUDA_PROVIDER:  # it falls back to the CPU without an error where a library is missing
            raise NotInstalledError(
                f"onnxruntime fell back to {first}: a library of CUDA or cuDNN that it needs is missing"
            )

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[Any]:
        """One row a text; raises `BuildError` (ENGINE) where the GPU fails."""
        try:
            answer: NDArray[Any] = self._session.run([OUTPUT], {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask})[
                0
            ]
        except Exception as error:  # as above
            raise BuildError(BuildStage.ENGINE, f"CUDA failed on tokens {input_ids.shape}: {error}") from error
        return answer
