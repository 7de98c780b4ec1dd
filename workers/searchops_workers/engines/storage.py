"""Reading sources and keeping artifacts at ``file://``, ``s3://`` and ``gs://`` URIs."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import fsspec

from searchops_workers.engines.stages import BuildError, BuildStage

_URI = re.compile(r"^(s3|gs|file)://(?!.*::)")


def open_uri(uri: str) -> tuple[Any, str]:
    """The file system and the path of a URI.

    Raises:
        BuildError: stage RETRY, where the scheme is not served here; nothing is known about the content then.
    """
    if not _URI.match(uri):
        raise BuildError(
            BuildStage.RETRY, f"{uri}: wanted a URI that begins with s3://, gs:// or file:// and has no ::"
        )
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise BuildError(
            BuildStage.RETRY, f"{uri}: {error}; install the file system's package into the worker image"
        ) from error
    return system, str(path)


def fetch_directory(uri: str, into: Path, *, absent: BuildStage) -> Path:
    """A local folder with the content of a URI: the folder itself for ``file://``, else a copy under `into`.

    Raises:
        BuildError: stage `absent` where nothing is there, RETRY where the store does not answer.
    """
    system, path = open_uri(uri)
    try:
        if not system.isdir(path):
            raise BuildError(
                absent,
                f"{uri}: seen no folder there, wanted a directory of files; check the URI and the worker's access",
            )
        if uri.startswith("file://"):
            return Path(path)
        shutil.rmtree(into, ignore_errors=True)
        system.get(path.rstrip("/") + "/", str(into) + "/", recursive=True)
    except OSError as error:
        raise BuildError(BuildStage.RETRY, f"{uri} cannot be read: {error}; the build is tried again") from error
    return into


def read_bytes(uri: str) -> bytes:
    """The content of a URI.

    Raises:
        BuildError: stage RETRY, where it cannot be read.
    """
    system, path = open_uri(uri)
    try:
        content = system.cat_file(path)
    except OSError as error:
        raise BuildError(BuildStage.RETRY, f"{uri} cannot be read: {error}; restore it, or try again") from error
    return bytes(content)


def write_bytes(uri: str, content: bytes) -> None:
    """Write a URI; a reader sees the old or the new content, never half of it.

    Raises:
        BuildError: stage RETRY, where it cannot be written.
    """
    system, path = open_uri(uri)
    try:
        if uri.startswith("file://"):
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            with fresh.open("wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
            fresh.replace(target)
        else:
            system.pipe_file(path, content)
    except OSError as error:
        raise BuildError(BuildStage.RETRY, f"{uri} cannot be written: {error}; check the artifact store") from error


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
        system, path = open_uri(self.uri(name))
        return read_bytes(self.uri(name)) if system.exists(path) else None

    def keep(self, name: str, source: Path | bytes) -> None:
        """Keep a file of the revision."""
        _put(self.uri(name), source)

    def find_engine(self, recipe: str, into: Path) -> dict[str, Any] | None:
        """Copy a built engine's files into a folder; its description, or None where there is no whole one."""
        base = f"{self._engines}/{recipe}"
        system, path = open_uri(f"{base}/engine.json")
        if not system.exists(path):
            return None
        try:
            description: dict[str, Any] = json.loads(read_bytes(f"{base}/engine.json"))
            for name in description["files"]:
                system, path = open_uri(f"{base}/{name}")
                system.get_file(path, str(into / name))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return description

    def keep_engine(self, recipe: str, description: dict[str, Any], files: tuple[Path, ...]) -> None:
        """Keep a built engine; its description is written last."""
        base = f"{self._engines}/{recipe}"
        for file in files:
            _put(f"{base}/{file.name}", file)
        write_bytes(f"{base}/engine.json", json.dumps(description, indent=2, sort_keys=True).encode())


def _put(uri: str, source: Path | bytes) -> None:
    if isinstance(source, bytes):
        write_bytes(uri, source)
        return
    system, path = open_uri(uri)
    try:
        if uri.startswith("file://"):
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            shutil.copyfile(source, fresh)
            fresh.replace(target)
        else:
            system.put_file(str(source), path)
    except OSError as error:
        raise BuildError(BuildStage.RETRY, f"{uri} cannot be written: {error}; check the artifact store") from error
