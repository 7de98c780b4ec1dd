"""Checkpoint to served revision, in stages: read, export, engine, accuracy, manifest, artifacts, publish.

A library call with everything given: no environment, no Kubernetes, no clock. Whatever stops it is a `BuildError` whose
stage is the Job's exit code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops_workers.digests import file_digest
from searchops_workers.encoders.settings import MODEL_FILE, TOKENIZER_FILE
from searchops_workers.engines.accuracy import run_texts, special_texts
from searchops_workers.engines.anchors import Anchors, choose_anchor_texts, min_cosine
from searchops_workers.engines.fingerprint import content_fingerprint, tokenizer_digest
from searchops_workers.engines.manifest import Manifest
from searchops_workers.engines.onnxruntime import OnnxRuntimeBackend
from searchops_workers.engines.repository import EngineFiles, publish
from searchops_workers.engines.selection import CPU, PRECISION_ORDER, choose_engine
from searchops_workers.engines.subject import Artifacts, BuildRequest, Founder, examine, served_settings
from searchops_workers.engines.tensorrt import TensorRtBackend
from searchops_workers.engines.triton_config import ServedRevision

if TYPE_CHECKING:
    from searchops_workers.engines.accuracy import GraphRunner
    from searchops_workers.engines.backend import Backend, Progress
    from searchops_workers.engines.selection import Engine
    from searchops_workers.engines.subject import Subject
    from searchops_workers.engines.triton_config import ServingBackend

__all__ = [
    "CPU",
    "PRECISION_ORDER",
    "Artifacts",
    "BuildOutcome",
    "BuildRequest",
    "Founder",
    "build",
    "served_settings",
]

_PROBES = 24


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
    subject = examine(request, artifacts, progress)
    engine = choose_engine(subject, onnx_runtime or OnnxRuntimeBackend(), tensorrt or TensorRtBackend())
    progress(f"engine: {engine.backend.name} {engine.precision}, smallest cosine {engine.accuracy.min_cosine:.6f}")
    manifest = _settle_manifest(subject, engine)
    own, cosines = _anchor(subject, engine.runner)
    _keep(subject, engine, manifest, own)
    published = _publish(subject, engine, manifest)
    return BuildOutcome(manifest, cosines, published, engine.reused)


def _settle_manifest(subject: Subject, engine: Engine) -> Manifest:
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


def _anchor(subject: Subject, runner: GraphRunner) -> tuple[Anchors, dict[str, float]]:
    subject.progress("encoding the anchors")
    dimension = subject.settings.dimension
    texts = choose_anchor_texts(subject.request.queries, subject.request.documents)
    own = Anchors(texts, run_texts(runner, subject.tokeniser, texts, dimension))
    cosines = {}
    for founder in subject.request.founders:
        vectors = run_texts(runner, subject.tokeniser, founder.anchors.texts, dimension)
        cosines[founder.space] = min_cosine(founder.anchors, Anchors(founder.anchors.texts, vectors))
    return own, cosines


def _keep(subject: Subject, engine: Engine, manifest: Manifest, anchors: Anchors) -> None:
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


def _publish(subject: Subject, engine: Engine, manifest: Manifest) -> tuple[str, ...]:
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
