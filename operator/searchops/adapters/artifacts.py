"""The artifact store: answers of worker Jobs, evidence, probes. `file://` here, object stores by fsspec."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import unquote, urlparse

from searchops.runtime.errors import Transient


class ArtifactStore:
    """Reads by URI in a thread, within a time and a size.

    Args:
        timeout: seconds that one read may take.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = timeout

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        """The bytes at a URI, or None where nothing is there.

        Raises:
            Transient: the store did not answer, or the object is larger than `limit` bytes.
        """
        try:
            async with asyncio.timeout(self._timeout):
                data = await asyncio.to_thread(_read, uri, limit)
        except FileNotFoundError:
            return None
        except (OSError, TimeoutError, ImportError, ValueError) as error:
            raise Transient(f"artifact {uri} could not be read: {str(error) or 'timed out'}") from error
        if data is not None and len(data) > limit:
            raise Transient(f"artifact {uri} is larger than the {limit} bytes that are read")
        return data


def _read(uri: str, limit: int) -> bytes | None:
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        path = Path(unquote(parsed.path))
        with path.open("rb") as source:
            return source.read(limit + 1)
    import fsspec

    with fsspec.open(uri, "rb") as source:
        data: bytes = source.read(limit + 1)
    return data
