"""The TensorRT backend (API of TensorRT 11): strongly typed networks, one optimisation profile a bucket.

TensorRT 11 has no switch for FP16: the precision is in the ONNX graph. A plan runs only on the GPU architecture and the
TensorRT build that made it, so both are part of the engine key. TensorRT-RTX has the same API and builds without a GPU;
its plans do not load in Triton, so it proves this code and a graph's parse in CI, and serves nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from searchops_workers.encoders.settings import ATTENTION_MASK, INPUT_IDS, OUTPUT
from searchops_workers.engines.gpu import find_gpu
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from searchops_workers.engines.backend import EngineRequest, Progress
    from searchops_workers.engines.gpu import Gpu

_WORKSPACE_BYTES = 2 << 30
_SHOWN_ERRORS = 5
_RTX_CAPABILITIES = ("SM80", "SM86", "SM89")


class TensorRtBackend:
    """Builds plans for the GPU in this machine.

    Args:
        find: how the GPU is found; it runs before TensorRT is imported.
    """

    def __init__(self, find: Callable[[], Gpu] = find_gpu) -> None:
        self._find = find

    @property
    def name(self) -> str:
        """As the status names it."""
        return "TensorRT"

    def preflight(self) -> str:
        """The GPU's product and compute capability; raises `BuildError` (NO_GPU)."""
        return self._find().label

    def runtimes(self) -> dict[str, str]:
        """The TensorRT version; raises `BuildError` (NO_GPU or ENGINE)."""
        self._find()
        return {"tensorrt": str(_import("tensorrt", "tensorrt_bindings").__version__)}

    def build(self, request: EngineRequest) -> Path:
        """Compile the plan; raises `BuildError` (NO_GPU, PARSE or ENGINE)."""
        self._find()
        return compile_plan(_import("tensorrt", "tensorrt_bindings"), request)

    def runner(self, engine: Path) -> PlanRunner:
        """The plan on the GPU; raises `BuildError` (NO_GPU or ENGINE)."""
        self._find()
        return PlanRunner(_import("tensorrt", "tensorrt_bindings"), engine)


class TensorRtRtxBackend:
    """Builds TensorRT-RTX plans, which needs no GPU; for continuous integration."""

    @property
    def name(self) -> str:
        """As reports name it."""
        return "TensorRT-RTX"

    def preflight(self) -> str:
        """The architectures that plans are compiled for."""
        return "+".join(_RTX_CAPABILITIES)

    def runtimes(self) -> dict[str, str]:
        """The TensorRT-RTX version."""
        return {"tensorrt-rtx": str(_import("tensorrt_rtx", "tensorrt_rtx_bindings").__version__)}

    def build(self, request: EngineRequest) -> Path:
        """Compile the plan; raises `BuildError` (PARSE or ENGINE)."""
        trt = _import("tensorrt_rtx", "tensorrt_rtx_bindings")
        return compile_plan(trt, request, capabilities=_RTX_CAPABILITIES)

    def runner(self, engine: Path) -> PlanRunner:
        """The plan on a GPU; raises `BuildError` (NO_GPU where there is none: the runtime would crash)."""
        find_gpu()
        return PlanRunner(_import("tensorrt_rtx", "tensorrt_rtx_bindings"), engine)


def compile_plan(trt: Any, request: EngineRequest, *, capabilities: tuple[str, ...] = ()) -> Path:
    """Parse, set profiles and build; the plan is written to the request's target.

    Args:
        trt: the module `tensorrt`, or `tensorrt_rtx`.
        request: what to build.
        capabilities: architectures to compile for without a GPU (TensorRT-RTX only).

    Raises:
        BuildError: stage PARSE with the parser's errors, or ENGINE with what the builder logged.
    """
    logger = _recording_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(request.onnx)):
        reasons = "; ".join(_parser_error(parser.get_error(i)) for i in range(min(parser.num_errors, _SHOWN_ERRORS)))
        raise BuildError(
            BuildStage.PARSE,
            f"TensorRT cannot parse {request.onnx.name}: {reasons or logger.last()}; try another engine.precision, or "
            "set engine.backend to ONNXRuntime",
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = _monitor(trt, request.progress)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    cache = None if capabilities else _load_timing_cache(config, request.timing_cache)
    for bucket in request.buckets:
        _add_profile(builder, config, bucket, request.max_batch)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            BuildStage.ENGINE,
            f"TensorRT built no engine from {request.onnx.name}: {logger.last()}; check the GPU's free memory, lower "
            "engine.maxBatch, or set engine.backend to ONNXRuntime",
        )
    request.target.write_bytes(bytes(plan))
    if cache is not None and request.timing_cache is not None:
        request.timing_cache.write_bytes(bytes(cache.serialize()))
    return request.target


class PlanRunner:
    """Runs a plan on the GPU with torch's memory; `run` is what `accuracy.GraphRunner` asks for.

    Raises:
        BuildError: stage ENGINE, where the plan does not load.
    """

    def __init__(self, trt: Any, engine: Path) -> None:
        import torch

        self._torch = torch
        logger = _recording_logger(trt)
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise BuildError(
                BuildStage.ENGINE,
                f"{engine} does not load: {logger.last()}; a plan fits only the TensorRT build and GPU that made it",
            )
        self._context = self._engine.create_execution_context()
        cuda: Any = torch.cuda
        self._stream = cuda.Stream()

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[Any]:
        """One row a text; raises `BuildError` (ENGINE) where the GPU fails."""
        torch, stream = self._torch, self._stream.cuda_stream
        self._context.set_optimization_profile_async(self._profile(*input_ids.shape), stream)
        held = {
            INPUT_IDS: torch.from_numpy(input_ids).cuda(),
            ATTENTION_MASK: torch.from_numpy(attention_mask).cuda(),
        }
        for name, tensor in held.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        out = torch.empty(tuple(self._context.get_tensor_shape(OUTPUT)), dtype=torch.float32, device="cuda")
        self._context.set_tensor_address(OUTPUT, out.data_ptr())
        torch.cuda.current_stream().synchronize()
        done = self._context.execute_async_v3(stream)
        self._stream.synchronize()
        if not done:
            raise BuildError(BuildStage.ENGINE, f"the plan failed on tokens {input_ids.shape}; see the log")
        answer: NDArray[Any] = out.cpu().numpy()
        return answer

    def _profile(self, rows: int, width: int) -> int:
        for index in range(self._engine.num_optimization_profiles):
            low, _, high = self._engine.get_tensor_profile_shape(INPUT_IDS, index)
            if low[0] <= rows <= high[0] and low[1] <= width <= high[1]:
                return index
        raise BuildError(BuildStage.ENGINE, f"no profile of the plan takes {rows} texts of {width} tokens")


def _import(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise BuildError(
        BuildStage.ENGINE,
        f"none of the modules {', '.join(names)} is installed; use the worker-gpu image, or set engine.backend to "
        "ONNXRuntime",
    )


def _recording_logger(trt: Any) -> Any:
    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.lines.append(message.strip())

        def last(self) -> str:
            return "; ".join(self.lines[-_SHOWN_ERRORS:]) or "no reason was logged"

    return Recorder()


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                progress(f"TensorRT: {phase} ({steps} steps)")

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            return True

    return Monitor()


def _add_profile(builder: Any, config: Any, bucket: int, max_batch: int) -> None:
    """Texts are padded to exactly a bucket, so the profile's length is fixed; only the batch varies."""
    profile = builder.create_optimization_profile()
    for name in (INPUT_IDS, ATTENTION_MASK):
        profile.set_shape(name, (1, bucket), (max(1, max_batch // 4), bucket), (max_batch, bucket))
    config.add_optimization_profile(profile)


def _load_timing_cache(config: Any, path: Path | None) -> Any:
    """Bound to device and versions; the file's name carries them, and a mismatch is refused, not merged."""
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _parser_error(error: Any) -> str:
    return f"node {error.node()} ({error.node_operator() if hasattr(error, 'node_operator') else '?'}): {error.desc()}"
