"""Reading sources and keeping artifacts at ``file://``, ``s3://`` and ``gs://`` URIs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from searchops.api.stores import absence, next_step, options, problem_with, said, without_secrets
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECT, _READ, _ATTEMPTS = 10.0, 60.0, 5
"""Seconds and tries of one request: a worker waits longer than the operator, since it has nothing else to do."""


def open_uri(uri: str) -> tuple[Any, str]:
    """The file system and the path of a URI.

    Raises:
        BuildError: stage RETRY, where the scheme is not served here; nothing is known about the content then.
    """
    if problem := problem_with(uri):
        raise BuildError(BuildStage.RETRY, problem)
    with _reaching(uri, "opened"):
        system, path = fsspec.core.url_to_fs(uri, **options(uri, connect=_CONNECT, read=_READ, attempts=_ATTEMPTS))
    return system, str(path)


def fetch_directory(uri: str, into: Path, *, absent: BuildStage) -> Path:
    """A local folder with the content of a URI: the folder itself for ``file://``, else a copy under `into`.

    Raises:
        BuildError: stage `absent` where nothing is there, RETRY where the store does not answer.
    """
    system, path = open_uri(uri)
    with _reaching(uri, "read"):
        # Not `isdir`: it calls a store that refuses, or that is down, "no folder", which would be a verdict.
        try:
            folder = system.info(path)["type"] == "directory"
        except FileNotFoundError as error:
            if lost := absence(uri, system, error):
                raise lost from None
            folder = False
        if not folder:
            raise BuildError(
                absent,
                f"{uri}: seen no folder there, wanted a directory of files; check the URI and the worker's access",
            )
        if uri.startswith("file://"):
            return Path(path)
        shutil.rmtree(into, ignore_errors=True)
        system.get(path.rstrip("/") + "/", str(into) + "/", recursive=True)
    return into


def stored_bytes(uri: str) -> int:
    """Bytes of what is at a URI, of everything under it where that is a folder; 0 where nothing is there.

    Raises:
        BuildError: stage RETRY, where the store does not answer.
    """
    system, path = open_uri(uri)
    with _reaching(uri, "read"):
        return int(system.du(path)) if system.exists(path) else 0


def read_bytes(uri: str) -> bytes:
    """The content of a URI.

    Raises:
        BuildError: stage RETRY, where it cannot be read.
    """
    system, path = open_uri(uri)
    with _reaching(uri, "read"):
        return bytes(system.cat_file(path))


def write_bytes(uri: str, content: bytes) -> None:
    """Write a URI; a reader sees the old or the new content, never half of it.

    Raises:
        BuildError: stage RETRY, where it cannot be written.
    """
    system, path = open_uri(uri)
    with _reaching(uri, "written"):
        if uri.startswith("file://"):
            with _replacing(Path(path)) as fresh:
                fresh.write_bytes(content)
        else:
            # An object store has no rename and needs none: an object appears whole, when its upload is complete.
            system.pipe_file(path, content)


@contextlib.contextmanager
def _reaching(uri: str, done: str) -> Iterator[None]:
    """Whatever a store's client raises becomes RETRY; S3, Cloud Storage and HTTP errors share no base but Exception."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        message = f"{without_secrets(uri)} cannot be {done}: {said(error)}. {next_step(uri, error)}"
        # Only its words go on: the cause holds requests and responses, credentials included.
        raise BuildError(BuildStage.RETRY, message) from None


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A fresh file beside `target` that takes its place, on disk first, when the block ends; gone where it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield fresh
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


class UriArtifacts:
    """The artifacts of one revision, and the engines that revisions share.

    Args:
        prefix: URI prefix of the revision.
        engines: URI prefix of built engines; a folder a recipe, never changed once its ``engine.json`` is there.
    """

    def __init__(self, prefix: str, engines: str) -> None:
        self._prefix = prefix.rstrip("/")
        self._engines = engines.rstrip("/")

    def uri(self, name: str) -> str:
        """The URI of one of the revision's files."""
        return f"{self._prefix}/{name}"

    def read(self, name: str) -> bytes | None:
        """One of the revision's files, or None."""
        return read_if_there(self.uri(name))

    def keep(self, name: str, source: Path | bytes) -> None:
        """Keep a file of the revision."""
        _put(self.uri(name), source)

    def find_engine(self, recipe: str, into: Path) -> dict[str, Any] | None:
        """Copy a built engine's files into a folder; its description, or None where there is no whole one.

        Raises:
            BuildError: stage RETRY, where the store does not say: an hour's build is not begun over a blip.
        """
        base = f"{self._engines}/{recipe}"
        content = read_if_there(f"{base}/engine.json")
        if content is None:
            return None
        try:
            description: dict[str, Any] = json.loads(content)
            names = [str(name) for name in description["files"]]
        except (ValueError, KeyError, TypeError):
            return None
        for name in names:
            system, path = open_uri(f"{base}/{name}")
            with _reaching(f"{base}/{name}", "read"):
                try:
                    system.get_file(path, str(into / name))
                except FileNotFoundError as error:
                    if lost := absence(f"{base}/{name}", system, error):
                        raise lost from None
                    return None
        return description

    def keep_engine(self, recipe: str, description: dict[str, Any], files: tuple[Path, ...]) -> None:
        """Keep a built engine; its description is written last."""
        base = f"{self._engines}/{recipe}"
        for file in files:
            _put(f"{base}/{file.name}", file)
        write_bytes(f"{base}/engine.json", json.dumps(description, indent=2, sort_keys=True).encode())


def read_if_there(uri: str) -> bytes | None:
    """The content of a URI, or None where nothing is there; raises as `read_bytes` where that cannot be told."""
    system, path = open_uri(uri)
    with _reaching(uri, "read"):
        try:
            return bytes(system.cat_file(path))
        except FileNotFoundError as error:
            if lost := absence(uri, system, error):
                raise lost from None
            return None


def _put(uri: str, source: Path | bytes) -> None:
    if isinstance(source, bytes):
        write_bytes(uri, source)
        return
    system, path = open_uri(uri)
    with _reaching(uri, "written"):
        if uri.startswith("file://"):
            with _replacing(Path(path)) as fresh:
                shutil.copyfile(source, fresh)
        else:
            system.put_file(str(source), path)
