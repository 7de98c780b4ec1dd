"""A cell of several nodes: one that gives no answer is left for the next one, where the next try goes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PORT = 6333
CONNECT_SECONDS = 5.0
ANY_NODE = "http://cell"
"""Stands in for the address in the client; the node's is put in its place."""


class NextNode(httpx.AsyncBaseTransport):
    """A transport that keeps to one node until it gives no answer.

    It sends nothing twice: what was lost is raised, and `patiently` tries again, which any node may answer.

    Args:
        urls: base URL of each node, at least one.
        inner: sends to the address that a request carries.
    """

    def __init__(self, urls: Sequence[str], inner: httpx.AsyncBaseTransport) -> None:
        self._bases = [_base(url) for url in urls]
        self._inner = inner
        self._current = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send to the current node."""
        node = self._current
        base = self._bases[node]
        request.url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + request.url.raw_path)
        request.headers["host"] = request.url.netloc.decode("ascii")
        limits = request.extensions.get("timeout", {})
        request.extensions = {**request.extensions, "timeout": {**limits, "connect": CONNECT_SECONDS}}
        try:
            return await self._inner.handle_async_request(request)
        except httpx.TransportError:
            if self._current == node:
                self._current = (node + 1) % len(self._bases)
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _base(url: str) -> httpx.URL:
    """The URL with the database's own port where it names none."""
    parsed = httpx.URL(url)
    return parsed.copy_with(port=DEFAULT_PORT) if urlsplit(url).port is None else parsed
