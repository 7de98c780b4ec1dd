"""The artifact store: answers of worker Jobs, evidence, probes. `file://` here, object stores by fsspec."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from searchops.api.stores import absence, next_step, options, problem_with, said, without_secrets
from searchops.runtime.errors import Terminal, Transient, describe

_THREADS = 8


class ArtifactStore:
    """Reads by URI in one of a few threads, within a time and a size.

    Args:
        timeout: seconds that one read may take.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = timeout
        # Threads of its own: a store that hangs must not use up the loop's, which resolve names for every other client.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        """The bytes at a URI, or None where nothing is there.

        Raises:
            Terminal: InvalidSpec; the URI is of no scheme that is served.
            Transient: the store did not answer, refused, has no such bucket, its package is missing, or the object is
                larger than `limit` bytes: nothing is known about the object then.
        """
        if problem := problem_with(uri):
            raise Terminal("InvalidSpec", problem)
        try:
            async with asyncio.timeout(self._timeout):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, _read, uri, limit, self._timeout)
        except _TooLargeError:
            raise Transient(f"artifact {without_secrets(uri)} is larger than the {limit} bytes that are read") from None
        # S3, Cloud Storage and HTTP clients raise errors of their own that share no base but Exception.
        except Exception as error:
            if isinstance(error, FileNotFoundError):
                return None
            # Only its words go on: the cause holds requests and responses, credentials included.
            raise Transient(self._failed(uri, error)) from None

    def _failed(self, uri: str, error: Exception) -> str:
        given_up = isinstance(error, TimeoutError) and not str(error)
        seen = f"timed out after {self._timeout:g} s" if given_up else said(error)
        return describe(
            f"artifact {without_secrets(uri)} could not be read: {seen}",
            wanted=f"an answer from the store behind {urlsplit(uri).scheme}://",
            next_step=next_step(uri, error),
        )


class _TooLargeError(Exception):
    """The object has more bytes than are read."""


def _read(uri: str, limit: int, timeout: float) -> bytes:
    """The whole object, or nothing of it."""
    parsed = urlsplit(uri)
    if parsed.scheme == "file":
        with Path(unquote(parsed.path)).open("rb") as source:
            content = source.read(limit + 1)
    else:
        import fsspec

        system, path = fsspec.core.url_to_fs(uri, **options(uri, connect=timeout / 2, read=timeout, attempts=1))
        try:
            content = _whole(system, path, limit)
        except FileNotFoundError as error:
            if lost := absence(uri, system, error):
                raise lost from None
            raise
    if len(content) > limit:
        raise _TooLargeError
    return bytes(content)


def _whole(system: Any, path: str, limit: int) -> bytes:
    # A `size` first: what is too large is not fetched to find that out.
    facts: dict[str, Any] = system.info(path)
    if facts["type"] == "directory":
        raise FileNotFoundError(path)
    if (facts["size"] or 0) > limit:
        raise _TooLargeError
    return bytes(system.cat_file(path))
