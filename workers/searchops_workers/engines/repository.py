"""Publishing a revision into a Triton model repository: whole directories, by one rename each, never edited again.

Triton lists everything inside a repository as a model, half-written directories too, and can hang on them. So the
three models are staged *beside* the repository on the same volume, synced to disk, and renamed in the order encoder,
tokeniser, text: whoever sees the text model finds what it calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchops_workers.digests import file_digest, lines_digest
from searchops_workers.encoders.settings import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKEN_SUFFIX,
    TOKENISER_SUFFIX,
    TOKENIZER_FILE,
)
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from searchops_workers.engines.triton_config import ServedRevision

PLAN_FILE = "model.plan"
_MODELS = Path(__file__).with_name("triton_models")
_PYTHON_FILE = "model.py"


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """The files that a revision is served from: ``manifest.json``, ``tokenizer.json`` and the engine."""

    manifest: Path
    tokenizer: Path
    engine: Path


def model_names(revision: str) -> tuple[str, str, str]:
    """The three models of a revision in the order of publishing and loading; unloading goes in reverse."""
    return revision + TOKEN_SUFFIX, revision + TOKENISER_SUFFIX, revision


def staging_folder(repository: Path) -> Path:
    """Where models are staged: beside the repository, on the same volume."""
    return repository.parent / f".{repository.name}.staging"


def wanted_file(repository: Path) -> Path:
    """The list of revisions that every server of the repository should serve."""
    return repository.parent / f".{repository.name}.wanted.json"


def publish(repository: Path, served: ServedRevision, files: EngineFiles) -> tuple[str, ...]:
    """Publish the three models; what is there already and equal is left alone.

    Returns:
        The names of the models that this call made; empty where all were there.

    Raises:
        BuildError: stage PUBLISH; where another directory has a name of ours nothing is overwritten.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        staging = staging_folder(repository)
        staging.mkdir(exist_ok=True)
        _same_volume(repository, staging)
        with _locked(staging / f"{served.revision}.lock"):
            return _publish_locked(repository, staging, served, files)
    except OSError as error:
        raise BuildError(
            BuildStage.PUBLISH, f"cannot publish {served.revision} into {repository}: {error}; check the volume"
        ) from error


def remove(repository: Path, revision: str) -> tuple[str, ...]:
    """Remove a revision's models, text first; a missing one is no error.

    The caller has made sure that no server serves them. Each directory leaves the repository by one rename before its
    files are deleted, so that no server ever sees half of it.

    Returns:
        The names of the models that were there.
    """
    remove_wanted(repository, revision)
    staging = staging_folder(repository)
    staging.mkdir(exist_ok=True)
    removed = []
    with _locked(staging / f"{revision}.lock"):
        for name in reversed(model_names(revision)):
            grave = staging / f"{name}.removed-{uuid.uuid4().hex[:8]}"
            with contextlib.suppress(FileNotFoundError):
                (repository / name).rename(grave)
                removed.append(name)
            shutil.rmtree(grave, ignore_errors=True)
        _sync_folder(repository)
    return tuple(removed)


def read_wanted(repository: Path) -> tuple[str, ...]:
    """The revisions in the wanted list, sorted."""
    try:
        return tuple(sorted(json.loads(wanted_file(repository).read_text())["revisions"]))
    except FileNotFoundError:
        return ()


def add_wanted(repository: Path, revision: str) -> None:
    """Put a revision on the wanted list."""
    _change_wanted(repository, add={revision}, drop=set())


def remove_wanted(repository: Path, revision: str) -> None:
    """Take a revision off the wanted list."""
    _change_wanted(repository, add=set(), drop={revision})


def published_digest(folder: Path) -> str:
    """The digest of a directory without what Python adds to it when it imports a model."""
    return lines_digest(
        {
            path.relative_to(folder).as_posix(): (path.stat().st_size, file_digest(path))
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    )


def _publish_locked(repository: Path, staging: Path, served: ServedRevision, files: EngineFiles) -> tuple[str, ...]:
    for left in staging.glob(f"{served.revision}.stage-*"):
        shutil.rmtree(left, ignore_errors=True)
    stage = staging / f"{served.revision}.stage-{uuid.uuid4().hex[:8]}"
    stage.mkdir()
    made = []
    try:
        _stage_models(stage, served, files)
        for name in model_names(served.revision):
            _sync_tree(stage / name)
        if conflict := _conflict(repository, stage, served.revision):
            raise BuildError(BuildStage.PUBLISH, conflict)
        for name in model_names(served.revision):
            if not (repository / name).exists():
                (stage / name).rename(repository / name)
                _sync_folder(repository)
                made.append(name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    add_wanted(repository, served.revision)
    return tuple(made)


def _conflict(repository: Path, stage: Path, revision: str) -> str:
    for name in model_names(revision):
        there = repository / name
        if there.exists() and (found := published_digest(there)) != (wanted := published_digest(stage / name)):
            return (
                f"{there} exists with other content ({found}, wanted {wanted}) and is not overwritten: a published "
                "model is never edited. If no server serves it, remove it; else retry under a new revision number"
            )
    return ""


def _stage_models(stage: Path, served: ServedRevision, files: EngineFiles) -> None:
    encoder, tokeniser, text = (stage / name for name in model_names(served.revision))
    for folder, config in ((encoder, served.encoder()), (tokeniser, served.tokeniser()), (text, served.text())):
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    if served.backend == "python":
        shutil.copyfile(_MODELS / "encoder.py", encoder / "1" / _PYTHON_FILE)
    engine_name = PLAN_FILE if served.backend == "tensorrt_plan" else MODEL_FILE
    shutil.copyfile(files.engine, encoder / "1" / engine_name)
    shutil.copyfile(_MODELS / "tokeniser.py", tokeniser / "1" / _PYTHON_FILE)
    shutil.copyfile(files.tokenizer, tokeniser / "1" / TOKENIZER_FILE)
    shutil.copyfile(_MODELS / "text.py", text / "1" / _PYTHON_FILE)
    shutil.copyfile(files.manifest, text / "1" / MANIFEST_FILE)


def _same_volume(repository: Path, staging: Path) -> None:
    if repository.stat().st_dev != staging.stat().st_dev:
        raise BuildError(
            BuildStage.PUBLISH,
            f"{repository} is a mount point of its own, so {staging} is on another volume and a rename between them is "
            "not atomic; let the pool's repository be a folder inside the volume, such as /models/repository",
        )


def _change_wanted(repository: Path, *, add: set[str], drop: set[str]) -> None:
    path = wanted_file(repository)
    with _locked(path.with_suffix(".lock")):
        revisions = sorted((set(read_wanted(repository)) | add) - drop)
        fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        with fresh.open("w") as sink:
            json.dump({"revisions": revisions}, sink)
            sink.flush()
            os.fsync(sink.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
