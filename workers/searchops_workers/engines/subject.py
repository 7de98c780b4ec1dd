"""What a build is asked for, and the checkpoint with everything that is measured against it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Protocol

from searchops_workers.digests import directory_digest
from searchops_workers.encoders.errors import EncoderError
from searchops_workers.encoders.reference import ReferenceEncoder
from searchops_workers.encoders.settings import EncoderSettings
from searchops_workers.encoders.tokenise import TextTokeniser
from searchops_workers.engines.accuracy import check_finite, choose_texts
from searchops_workers.engines.anchors import Anchors, generated_texts
from searchops_workers.engines.checkpoint import read_checkpoint
from searchops_workers.engines.reference import kept_reference
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors
    from searchops_workers.engines.backend import Progress
    from searchops_workers.engines.checkpoint import Checkpoint

_FEWEST_TEXTS = 64
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


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _EXPORTERS}


@dataclass(frozen=True, slots=True)
class Subject:
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


def examine(request: BuildRequest, artifacts: Artifacts, progress: Progress) -> Subject:
    """Read the checkpoint and encode the texts with FP32 torch: the reference of every later measurement.

    Raises:
        BuildError: the digest is another one, or the checkpoint cannot be served.
    """
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
    return Subject(request, checkpoint, digest, settings, tokeniser, texts, reference, artifacts, progress)


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

    recipe = recipe_of(["reference", request.expected_digest, texts, settings.max_tokens, _versions()])
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


def recipe_of(parts: list[object]) -> str:
    """The key of something that follows from these parts alone."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
