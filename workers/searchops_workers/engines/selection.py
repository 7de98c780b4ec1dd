"""Which engine a revision gets: backends and precisions in their order, the first that builds and is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops_workers.digests import file_digest
from searchops_workers.encoders.settings import MODEL_FILE
from searchops_workers.engines.accuracy import measure
from searchops_workers.engines.backend import EngineRequest
from searchops_workers.engines.fingerprint import EXPORTER_VERSION
from searchops_workers.engines.repository import PLAN_FILE
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.subject import recipe_of

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.engines.accuracy import GraphRunner
    from searchops_workers.engines.backend import Backend
    from searchops_workers.engines.export import GraphPrecision
    from searchops_workers.engines.manifest import AccuracySummary
    from searchops_workers.engines.subject import BuildRequest, Subject

PRECISION_ORDER: tuple[GraphPrecision, ...] = ("FP16", "Mixed", "BF16", "FP32")
"""Narrow before wide: the first that builds and is exact enough is taken."""
CPU = "cpu"
_NEXT_PRECISION = (BuildStage.EXPORT, BuildStage.PARSE, BuildStage.ENGINE, BuildStage.ACCURACY)
_NEXT_BACKEND = (*_NEXT_PRECISION, BuildStage.NO_GPU)


@dataclass(frozen=True, slots=True)
class Engine:
    """A finished engine on disk."""

    backend: Backend
    backend_reason: str
    precision: str
    precision_reason: str
    hardware: str
    onnx: Path
    file: Path
    key: str
    accuracy: AccuracySummary
    runner: GraphRunner
    reused: bool


def choose_engine(subject: Subject, onnx_runtime: Backend, tensorrt: Backend) -> Engine:
    """The engine that the request asks for; Auto takes TensorRT where a plan can be built, and says why not.

    Raises:
        BuildError: no precision and no backend that may be tried gives an exact engine.
    """
    wanted, accelerator = subject.request.backend, subject.request.accelerator
    if wanted == "ONNXRuntime":
        return _build_engine(subject, onnx_runtime, "engine.backend asks for it")
    if accelerator == CPU:
        if wanted == "TensorRT":
            raise BuildError(
                BuildStage.NO_GPU,
                "engine.backend: seen TensorRT for a pool whose accelerator is cpu, wanted a pool with GPUs; set the "
                "backend to ONNXRuntime or Auto, or choose another serving.pool",
            )
        return _build_engine(subject, onnx_runtime, "Auto: the pool's accelerator is cpu, so no TensorRT plan can run")
    if wanted == "TensorRT":
        return _build_engine(subject, tensorrt, "engine.backend asks for it")
    try:
        return _build_engine(subject, tensorrt, f"Auto: a plan was built for {accelerator}")
    except BuildError as error:
        if error.stage not in _NEXT_BACKEND:
            raise
        reason = f"Auto: no TensorRT plan ({error.stage.name}: {error})"
        subject.progress(f"{reason}; going on with ONNX Runtime")
        return _build_engine(subject, onnx_runtime, reason)


def _build_engine(subject: Subject, backend: Backend, reason: str) -> Engine:
    hardware = backend.preflight()
    candidates, preface = _precisions(subject.request, backend)
    refusals: list[str] = []
    for precision in candidates:
        why = "; ".join([preface, *refusals]) if refusals else preface
        try:
            return _attempt(subject, backend, reason, precision, why, hardware)
        except BuildError as error:
            if error.stage not in _NEXT_PRECISION or precision == candidates[-1]:
                raise
            subject.progress(f"{precision} is out ({error.stage.name}): {error}")
            refusals.append(f"not {precision} ({error.stage.name}: {error})")
    raise AssertionError("there is always a last precision")


def _precisions(request: BuildRequest, backend: Backend) -> tuple[tuple[GraphPrecision, ...], str]:
    if request.precision != "Auto":
        return (request.precision,), "engine.precision asks for it"
    if backend.name == "ONNXRuntime" and request.accelerator == CPU:
        return ("FP32",), "Auto: FP16 brings nothing on a CPU, which computes in FP32"
    return PRECISION_ORDER, "Auto: the first of FP16, Mixed, BF16, FP32 that builds and is exact"


def _attempt(
    subject: Subject, backend: Backend, reason: str, precision: GraphPrecision, why: str, hardware: str
) -> Engine:
    request = subject.request
    runtimes = backend.runtimes()
    recipe = _recipe(subject, backend, precision, hardware, runtimes)
    folder = request.work / f"{backend.name}-{precision}"
    folder.mkdir(parents=True, exist_ok=True)
    found = _reuse(subject, recipe, folder)
    if found:
        subject.progress(f"found {backend.name} {precision} under its key")
        onnx, file = found
    else:
        from searchops_workers.engines.export import export_onnx  # torch: seconds that a found engine does not need

        subject.progress(f"exporting to ONNX in {precision}")
        onnx = export_onnx(subject.checkpoint, precision, folder / MODEL_FILE)
        subject.progress(f"building with {backend.name}")
        file = backend.build(
            EngineRequest(
                onnx=onnx,
                target=folder / PLAN_FILE,
                max_batch=request.max_batch,
                buckets=subject.settings.buckets,
                timing_cache=request.work / f"timing-{recipe_of([hardware, runtimes])}.cache",
                progress=subject.progress,
            )
        )
    subject.progress(f"measuring {len(subject.texts)} texts against FP32 torch")
    runner = backend.runner(file)
    accuracy = measure(runner, subject.tokeniser, subject.settings, subject.texts, subject.reference)
    key = recipe_of([subject.digest, file_digest(onnx), runtimes, hardware, _profile(subject), precision])
    if not found:
        names = sorted({onnx.name, file.name})
        digests = {name: file_digest(folder / name) for name in names}
        subject.artifacts.keep_engine(
            recipe, {"files": digests, "engine": file.name, "key": key}, tuple(folder / name for name in names)
        )
    return Engine(
        backend, reason, precision, why, hardware, onnx, file, key, accuracy, runner, reused=found is not None
    )


def _recipe(
    subject: Subject, backend: Backend, precision: GraphPrecision, hardware: str, runtimes: dict[str, str]
) -> str:
    """Everything that the engine's bytes follow from; known before the export, so that a hit saves it too."""
    return recipe_of(
        [
            subject.digest,
            EXPORTER_VERSION,
            subject.versions,
            backend.name,
            runtimes,
            hardware,
            _profile(subject),
            precision,
        ]
    )


def _profile(subject: Subject) -> list[object]:
    return [subject.request.max_batch, list(subject.settings.buckets)]


def _reuse(subject: Subject, recipe: str, folder: Path) -> tuple[Path, Path] | None:
    description = subject.artifacts.find_engine(recipe, folder)
    if description is None:
        return None
    for name, digest in description["files"].items():
        if file_digest(folder / name) != digest:
            subject.progress(f"the kept {name} does not match its digest and is built again")
            return None
    return folder / MODEL_FILE, folder / str(description["engine"])
