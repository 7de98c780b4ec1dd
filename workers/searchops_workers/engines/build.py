"""Checkpoint to served revision, in stages: read, export, engine, accuracy, manifest, artifacts, publish.

A library call with everything given: no environment, no Kubernetes, no clock. Whatever stops it is a `BuildError` whose
stage is the Job's exit code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Protocol

from searchops_workers.digests import directory_digest, file_digest
from searchops_workers.encoders.errors import EncoderError
from searchops_workers.encoders.reference import ReferenceEncoder
from searchops_workers.encoders.settings import MODEL_FILE, TOKENIZER_FILE, EncoderSettings
from searchops_workers.encoders.tokenise import TextTokeniser
from searchops_workers.engines.accuracy import check_finite, choose_texts, measure, run_texts, special_texts
from searchops_workers.engines.anchors import Anchors, choose_anchor_texts, generated_texts, min_cosine
from searchops_workers.engines.backend import EngineRequest
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.fingerprint import EXPORTER_VERSION, content_fingerprint, tokenizer_digest
from searchops_workers.engines.manifest import AccuracySummary, Manifest
from searchops_workers.engines.onnxruntime import OnnxRuntimeBackend
from searchops_workers.engines.reference import kept_reference
from searchops_workers.engines.repository import PLAN_FILE, EngineFiles, publish
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.tensorrt import TensorRtBackend
from searchops_workers.engines.triton_config import ServedRevision

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors
    from searchops_workers.engines.accuracy import GraphRunner
    from searchops_workers.engines.backend import Backend, Progress
    from searchops_workers.engines.checkpoint import Checkpoint
    from searchops_workers.engines.export import GraphPrecision
    from searchops_workers.engines.triton_config import ServingBackend

PRECISION_ORDER: tuple[GraphPrecision, ...] = ("FP16", "Mixed", "BF16", "FP32")
"""Narrow before wide: the first that builds and is exact enough is taken."""
CPU = "cpu"
_PROBES = 24
_FEWEST_TEXTS = 64
_NEXT_PRECISION = (BuildStage.EXPORT, BuildStage.PARSE, BuildStage.ENGINE, BuildStage.ACCURACY)
_NEXT_BACKEND = (*_NEXT_PRECISION, BuildStage.NO_GPU)
_EXPORTERS = ("torch", "onnx", "onnxscript", "transformers", "sentence-transformers", "tokenizers")


class Artifacts(Protocol):
    """Where a revision's files and shared engines are kept."""

    def read(self, name: str) -> bytes | None:
        """A file of the revision, or None."""
        ...

    def keep(self, name: str, source: Path | bytes) -> None:
        """Keep a file of the revision."""
        ...

    def find_engine(self, recipe: str, into: Path) -> dict[str, Any] | None:
        """Copy an engine's files into a folder; its description, or None."""
        ...

    def keep_engine(self, recipe: str, description: dict[str, Any], files: tuple[Path, ...]) -> None:
        """Keep an engine under its recipe."""
        ...


@dataclass(frozen=True, slots=True)
class Founder:
    """A known space with the vectors of the revision that founded it."""

    space: str
    anchors: Anchors


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build.

    Attributes:
        revision: name of the text model; the others are derived from it.
        checkpoint: a sentence-transformers folder.
        expected_digest: `directory_digest` of it.
        backend: what is wanted; Auto takes TensorRT where a plan can be built and served.
        precision: what is wanted; Auto tries `PRECISION_ORDER`.
        max_batch: most texts of one call.
        buckets: padded lengths.
        accelerator: of the pool: ``cpu``, or the product of its GPUs.
        work: scratch folder.
        repositories: model repositories to publish into.
        queries: texts for accuracy and anchors.
        documents: likewise.
        founders: spaces that this revision may prove to be the same as.
    """

    revision: str
    checkpoint: Path
    expected_digest: str
    backend: Literal["TensorRT", "ONNXRuntime", "Auto"]
    precision: Literal["Auto", "FP16", "Mixed", "BF16", "FP32"]
    max_batch: int
    buckets: tuple[int, ...]
    accelerator: str
    work: Path
    repositories: tuple[Path, ...] = ()
    queries: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    founders: tuple[Founder, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """What was built.

    Attributes:
        anchor_cosine: for each founder's space, the smallest cosine of any anchor; 0 where dimensions differ.
        published: names of the models that were not there before.
        reused: whether the engine was found under its key.
    """

    manifest: Manifest
    anchor_cosine: dict[str, float]
    published: tuple[str, ...]
    reused: bool


@dataclass(frozen=True, slots=True)
class _Engine:
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


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _EXPORTERS}


@dataclass(frozen=True, slots=True)
class _Subject:
    """The checkpoint with everything that is measured against it."""

    request: BuildRequest
    checkpoint: Checkpoint
    digest: str
    settings: EncoderSettings
    tokeniser: TextTokeniser
    texts: tuple[str, ...]
    reference: Vectors
    artifacts: Artifacts
    progress: Progress
    versions: dict[str, str] = field(default_factory=_versions)


def build(
    request: BuildRequest,
    artifacts: Artifacts,
    progress: Progress,
    *,
    onnx_runtime: Backend | None = None,
    tensorrt: Backend | None = None,
) -> BuildOutcome:
    """Build a revision, keep its artifacts and publish it.

    Raises:
        BuildError: at any stage; nothing is published then, or only whole models that a retry finds equal.
    """
    subject = _examine(request, artifacts, progress)
    engine = _choose_engine(subject, onnx_runtime or OnnxRuntimeBackend(), tensorrt or TensorRtBackend())
    progress(f"engine: {engine.backend.name} {engine.precision}, smallest cosine {engine.accuracy.min_cosine:.6f}")
    manifest = _settle_manifest(subject, engine)
    own, cosines = _anchor(subject, engine.runner)
    _keep(subject, engine, manifest, own)
    published = _publish(subject, engine, manifest)
    return BuildOutcome(manifest, cosines, published, engine.reused)


def served_settings(checkpoint: Checkpoint, buckets: tuple[int, ...], max_batch: int) -> EncoderSettings:
    """Cut and buckets of the served model: never longer than the checkpoint allows or the widest bucket holds."""
    cut = min(checkpoint.max_tokens, max(buckets))
    return EncoderSettings(
        dimension=checkpoint.dimension,
        max_tokens=cut,
        buckets=(*sorted({bucket for bucket in buckets if bucket < cut}), cut),
        max_batch=max_batch,
        pad_token_id=checkpoint.pad_token_id,
        prompt=checkpoint.default_prompt,
    )


def _examine(request: BuildRequest, artifacts: Artifacts, progress: Progress) -> _Subject:
    progress(f"reading {request.checkpoint}")
    try:
        digest = directory_digest(request.checkpoint)
    except (OSError, ValueError) as error:
        raise BuildError(BuildStage.BAD_CHECKPOINT, f"{error}; check source.uri") from error
    if digest != request.expected_digest:
        raise BuildError(
            BuildStage.DIGEST_MISMATCH,
            f"source.digest: seen {digest} at {request.checkpoint}, wanted {request.expected_digest}; the checkpoint "
            "was changed or copied in part: correct the digest or the files",
        )
    checkpoint = read_checkpoint(request.checkpoint)
    settings = served_settings(checkpoint, request.buckets, request.max_batch)
    try:
        tokeniser = TextTokeniser(checkpoint.tokenizer, settings)
        _check_segments(checkpoint, tokeniser)
        given = [*request.queries, *request.documents]
        texts = choose_texts(given if len(given) >= _FEWEST_TEXTS else [*given, *generated_texts()[:_FEWEST_TEXTS]])
        reference = _reference(request, checkpoint, settings, texts, artifacts, progress)
    except EncoderError as error:
        raise BuildError(BuildStage.BAD_CHECKPOINT, str(error)) from error
    check_finite("the checkpoint under FP32 torch", texts, reference)
    return _Subject(request, checkpoint, digest, settings, tokeniser, texts, reference, artifacts, progress)


def _reference(
    request: BuildRequest,
    checkpoint: Checkpoint,
    settings: EncoderSettings,
    texts: tuple[str, ...],
    artifacts: Artifacts,
    progress: Progress,
) -> Vectors:
    """Under FP32 torch; a kept one follows from the same checkpoint, texts, cut and versions."""

    def encode() -> Vectors:
        progress(f"encoding {len(texts)} texts with FP32 torch as the reference")
        return ReferenceEncoder(checkpoint.folder, max_tokens=settings.max_tokens).encode_raw(texts)

    recipe = _hash(["reference", request.expected_digest, texts, settings.max_tokens, _versions()])
    vectors, found = kept_reference(artifacts, recipe, request.work / "reference", texts, encode)
    if found:
        progress(f"found the FP32 reference of {len(texts)} texts under its key")
    return vectors


def _check_segments(checkpoint: Checkpoint, tokeniser: TextTokeniser) -> None:
    segments = tokeniser.segments("a hexagon bolt")
    if segments != {0}:
        raise BuildError(
            BuildStage.BAD_CHECKPOINT,
            f"{checkpoint.tokenizer}: seen token types {sorted(segments)} for a single text, wanted 0 alone, because "
            "token types are no input of the exported model; choose a checkpoint of the BERT, RoBERTa or MPNet kind",
        )


def _choose_engine(subject: _Subject, onnx_runtime: Backend, tensorrt: Backend) -> _Engine:
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


def _build_engine(subject: _Subject, backend: Backend, reason: str) -> _Engine:
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
    subject: _Subject, backend: Backend, reason: str, precision: GraphPrecision, why: str, hardware: str
) -> _Engine:
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
                timing_cache=request.work / f"timing-{_hash([hardware, runtimes])}.cache",
                progress=subject.progress,
            )
        )
    subject.progress(f"measuring {len(subject.texts)} texts against FP32 torch")
    runner = backend.runner(file)
    accuracy = measure(runner, subject.tokeniser, subject.settings, subject.texts, subject.reference)
    key = _hash([subject.digest, file_digest(onnx), runtimes, hardware, _profile(subject), precision])
    if not found:
        names = sorted({onnx.name, file.name})
        digests = {name: file_digest(folder / name) for name in names}
        subject.artifacts.keep_engine(
            recipe, {"files": digests, "engine": file.name, "key": key}, tuple(folder / name for name in names)
        )
    return _Engine(
        backend, reason, precision, why, hardware, onnx, file, key, accuracy, runner, reused=found is not None
    )


def _recipe(
    subject: _Subject, backend: Backend, precision: GraphPrecision, hardware: str, runtimes: dict[str, str]
) -> str:
    """Everything that the engine's bytes follow from; known before the export, so that a hit saves it too."""
    return _hash(
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


def _profile(subject: _Subject) -> list[object]:
    return [subject.request.max_batch, list(subject.settings.buckets)]


def _reuse(subject: _Subject, recipe: str, folder: Path) -> tuple[Path, Path] | None:
    description = subject.artifacts.find_engine(recipe, folder)
    if description is None:
        return None
    for name, digest in description["files"].items():
        if file_digest(folder / name) != digest:
            subject.progress(f"the kept {name} does not match its digest and is built again")
            return None
    return folder / MODEL_FILE, folder / str(description["engine"])


def _settle_manifest(subject: _Subject, engine: _Engine) -> Manifest:
    """The manifest; the one kept by an earlier try where only the measured figures differ in their last digits."""
    checkpoint = subject.checkpoint
    manifest = Manifest(
        checkpoint_digest=subject.digest,
        fingerprint=content_fingerprint(checkpoint),
        tokenizer_digest=tokenizer_digest(checkpoint.tokenizer),
        onnx_digest=file_digest(engine.onnx),
        engine_digest=file_digest(engine.file),
        engine_key=engine.key,
        backend="TensorRT" if engine.backend.name == "TensorRT" else "ONNXRuntime",
        backend_reason=engine.backend_reason,
        precision=engine.precision,
        precision_reason=engine.precision_reason,
        pooling=checkpoint.pooling,
        normalise=checkpoint.normalise,
        prompts=checkpoint.prompts,
        runtimes={**subject.versions, **engine.backend.runtimes()},
        hardware=engine.hardware,
        encoder=subject.settings,
        accuracy=engine.accuracy,
    )
    kept = subject.artifacts.read("manifest.json")
    if kept is not None:
        try:
            earlier = Manifest.model_validate_json(kept)
        except ValueError:
            return manifest
        measured = {"accuracy": earlier.accuracy, "backend_reason": earlier.backend_reason}
        measured["precision_reason"] = earlier.precision_reason
        if manifest.model_copy(update=measured) == earlier:
            return earlier
    return manifest


def _anchor(subject: _Subject, runner: GraphRunner) -> tuple[Anchors, dict[str, float]]:
    subject.progress("encoding the anchors")
    dimension = subject.settings.dimension
    texts = choose_anchor_texts(subject.request.queries, subject.request.documents)
    own = Anchors(texts, run_texts(runner, subject.tokeniser, texts, dimension))
    cosines = {}
    for founder in subject.request.founders:
        vectors = run_texts(runner, subject.tokeniser, founder.anchors.texts, dimension)
        cosines[founder.space] = min_cosine(founder.anchors, Anchors(founder.anchors.texts, vectors))
    return own, cosines


def _keep(subject: _Subject, engine: _Engine, manifest: Manifest, anchors: Anchors) -> None:
    """The ONNX graph is kept beside a plan: it is the fallback, and the source of a rebuild on another GPU."""
    subject.progress("keeping the artifacts")
    artifacts = subject.artifacts
    artifacts.keep(MODEL_FILE, engine.onnx)
    if engine.file != engine.onnx:
        artifacts.keep(engine.file.name, engine.file)
    artifacts.keep(TOKENIZER_FILE, subject.checkpoint.tokenizer)
    artifacts.keep("anchors.npz", anchors.to_bytes())
    rows = range(min(len(subject.texts), len(special_texts()) + _PROBES))
    probes = {
        "texts": [subject.texts[row] for row in rows],
        "vectors": [[float(f"{value:.8g}") for value in subject.reference[row]] for row in rows],
    }
    artifacts.keep("probes.json", json.dumps(probes, ensure_ascii=False).encode())
    artifacts.keep("manifest.json", manifest.to_bytes())


def _publish(subject: _Subject, engine: _Engine, manifest: Manifest) -> tuple[str, ...]:
    request = subject.request
    path = request.work / "manifest.json"
    path.write_bytes(manifest.to_bytes())
    serving: ServingBackend = "tensorrt_plan"
    if manifest.backend == "ONNXRuntime":
        serving = "python" if request.accelerator == CPU else "onnxruntime"
    served = ServedRevision(request.revision, manifest.digest, subject.settings, serving)
    files = EngineFiles(path, subject.checkpoint.tokenizer, engine.file)
    made: list[str] = []
    for repository in dict.fromkeys(folder.resolve() for folder in request.repositories):
        subject.progress(f"publishing into {repository}")
        made.extend(publish(repository, served, files))
    return tuple(made)


def _hash(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
