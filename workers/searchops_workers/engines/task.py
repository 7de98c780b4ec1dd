"""A BuildTask as it comes in, turned into a build, and its outcome turned into a BuildResult."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchops.api.tasks import FINAL_EXIT_CODES, AccuracyReport, BuildResult, BuildTask
from searchops_workers.digests import bytes_digest, directory_digest
from searchops_workers.engines.anchors import read_anchors
from searchops_workers.engines.build import BuildOutcome, BuildRequest, Founder, build
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.storage import UriArtifacts, fetch_directory, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from searchops_workers.engines.backend import Progress

MOST_MESSAGE = 2000
"""Characters of a message: the whole answer must fit a termination message of 4 KiB."""
_MOST_REASON = 400


def run_task(task: BuildTask, work: Path, progress: Progress) -> BuildResult:
    """Build what the task asks for; a build that stops for good is an answer, not an exception.

    Raises:
        BuildError: a stage that a second try can mend: nothing is known about the model yet.
    """
    artifacts = UriArtifacts(task.artifacts, engines_prefix(task))
    try:
        outcome = build(_request(task, work), artifacts, progress)
    except BuildError as error:
        if error.stage not in FINAL_EXIT_CODES:
            raise
        return failure(task, error)
    return _result(task, outcome, artifacts)


def failure(task: BuildTask, error: BuildError) -> BuildResult:
    """The answer of a build that stopped."""
    return BuildResult(revision=task.revision, exit_code=int(error.stage), message=_cut(str(error), MOST_MESSAGE))


def engines_prefix(task: BuildTask) -> str:
    """Where engines are shared: by all models where the prefix ends as the operator forms it, else beside it."""
    prefix = task.artifacts.rstrip("/")
    usual = f"/models/{task.model}/{task.revision}"
    return f"{prefix.removesuffix(usual) if prefix.endswith(usual) else prefix.rsplit('/', 1)[0]}/engines"


def _request(task: BuildTask, work: Path) -> BuildRequest:
    checkpoint = fetch_directory(task.source.uri, work / "checkpoint", absent=BuildStage.BAD_CHECKPOINT)
    queries: list[str] = []
    documents: list[str] = []
    for index, reference in enumerate(task.holdouts):
        folder = fetch_directory(reference.uri, work / f"holdout-{index}", absent=BuildStage.DIGEST_MISMATCH)
        texts, catalogue = _holdout_texts(reference.name, reference.uri, folder, reference.digest)
        queries.extend(texts)
        documents.extend(catalogue)
    return BuildRequest(
        revision=task.revision,
        checkpoint=checkpoint,
        expected_digest=task.source.digest,
        backend=task.engine.backend,
        precision=task.engine.precision,
        max_batch=task.engine.max_batch,
        buckets=task.engine.buckets,
        accelerator=task.accelerator,
        work=work,
        repositories=tuple(Path(folder) for folder in task.repositories),
        queries=tuple(queries),
        documents=tuple(documents),
        founders=tuple(
            Founder(founder.space, read_anchors(read_bytes(founder.anchors), source=founder.anchors))
            for founder in task.founders
        ),
    )


def _holdout_texts(name: str, uri: str, folder: Path, digest: str) -> tuple[list[str], list[str]]:
    from searchops_workers.holdout.format import HoldoutError, load

    if (seen := directory_digest(folder)) != digest:
        raise BuildError(
            BuildStage.DIGEST_MISMATCH,
            f"gate.holdouts[{name}].digest: seen {seen} at {folder}, wanted {digest}; a holdout never changes under "
            "its version: correct the digest, or restore the files",
        )
    try:
        holdout = load(folder)
    except HoldoutError as error:
        raise BuildError(BuildStage.DIGEST_MISMATCH, f"gate.holdouts[{name}]: {error}") from error
    content = read_bytes(catalogue_uri(holdout.catalogue.uri, uri))
    if (seen := bytes_digest(content)) != holdout.catalogue.sha256:
        raise BuildError(
            BuildStage.DIGEST_MISMATCH,
            f"gate.holdouts[{name}] catalogue {holdout.catalogue.uri}: seen {seen}, wanted {holdout.catalogue.sha256}; "
            "restore the catalogue that was labelled",
        )
    return [query.text for query in holdout.queries], list(_documents(content, holdout.catalogue.uri))


def catalogue_uri(uri: str, holdout: str) -> str:
    """The catalogue's own URI; a relative one is resolved against the holdout's."""
    if "://" in uri:
        return uri
    scheme, _, path = holdout.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, uri))}"


def _documents(content: bytes, uri: str) -> Iterator[str]:
    """What a product says, every text of it; close enough to any document template for measuring and anchoring."""
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            product = json.loads(line)
        except ValueError as error:
            raise BuildError(
                BuildStage.DIGEST_MISMATCH,
                f"{uri} line {number}: seen {line[:60]!r} ({error}), wanted one JSON object a line; correct the file",
            ) from error
        yield ". ".join(text for text in _leaves(product) if text)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in value:
            if not str(key).startswith("_"):
                yield from _leaves(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)


def _result(task: BuildTask, outcome: BuildOutcome, artifacts: UriArtifacts) -> BuildResult:
    manifest = outcome.manifest
    measured = manifest.accuracy
    return BuildResult(
        revision=task.revision,
        message=_cut(
            f"{manifest.backend} {manifest.precision} {'found under its key' if outcome.reused else 'built'}; "
            f"{len(outcome.published)} Triton models were published by this run",
            MOST_MESSAGE,
        ),
        backend=manifest.backend,
        backend_reason=_cut(manifest.backend_reason, _MOST_REASON),
        precision=manifest.precision,
        precision_reason=_cut(manifest.precision_reason, _MOST_REASON),
        engine_key=manifest.engine_key,
        manifest_digest=manifest.digest,
        fingerprint=manifest.fingerprint,
        dimension=manifest.encoder.dimension,
        max_tokens=manifest.encoder.max_tokens,
        anchors=artifacts.uri("anchors.npz"),
        probes=artifacts.uri("probes.json"),
        anchor_cosine={space: round(cosine, 6) for space, cosine in outcome.anchor_cosine.items()},
        accuracy=AccuracyReport(texts=measured.texts, min_cosine=measured.min_cosine, mean_cosine=measured.mean_cosine)
        if measured
        else None,
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
