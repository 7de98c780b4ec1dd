"""One way to a cell over all of its nodes: a read goes on at the next node, a write never moves by itself.

Any node of a cell answers for the whole of it. What was not answered and may have happened is not sent again: the
caller reads it back, at the next node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from searchops.adapters.aiohttp_transport import AiohttpTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

DEFAULT_PORT = 6333
NODES_A_READ = 3
"""Nodes that one read may be sent to, one after another; each gets its share of the deadline."""
CONNECT_SECONDS = 2.0
"""A node that is there accepts sooner; one that is not must not use up what its peers need."""
READS = ("/points/count", "/points/query", "/points/query/batch", "/points/scroll", "/points")
"""Ends of paths that read although they are POSTed."""


class CellNodes(httpx.AsyncBaseTransport):
    """A transport for `httpx` whose requests go to the last node that answered.

    Args:
        urls: base URL of each node, at least one.
        verify: how certificates are checked.
        timeout: seconds that one request may take, whatever the number of nodes.

    Attributes:
        current: place in `urls` of the node that is asked first.
        answering: whether the last read was answered by any node.
    """

    def __init__(self, urls: Sequence[str], *, verify: ssl.SSLContext | bool, timeout: float) -> None:
        self._bases = [_base(url) for url in urls]
        self._timeout = timeout
        context = httpx.create_ssl_context(verify)
        self._reading = AiohttpTransport(context)
        self._writing = httpx.AsyncHTTPTransport(verify=context)
        self.current = 0
        self.answering = True

    def __len__(self) -> int:
        return len(self._bases)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send to the current node; a read that gets no answer goes on at the next ones."""
        reads = request.method == "GET" or (request.method == "POST" and request.url.path.endswith(READS))
        nodes = list(self._order())[: NODES_A_READ if reads else 1]
        for number, node in enumerate(nodes, start=1):
            try:
                way = self._reading if reads else self._writing
                response = await self._ask(way, node, request, self._timeout / len(nodes))
            except httpx.TransportError as error:
                self._leave(node)
                if number < len(nodes):
                    continue
                self.answering = self.answering and not reads
                raise type(error)(self._said(error, node, len(nodes))) from error
            if number > 1:
                self.current = node
            self.answering = True
            return response
        raise httpx.ConnectError("the cell has no node")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._reading.aclose()
        await self._writing.aclose()

    def _order(self) -> Iterator[int]:
        """Every node, the last good one first."""
        return ((self.current + step) % len(self._bases) for step in range(len(self._bases)))

    def _leave(self, node: int) -> None:
        if self.current == node:
            self.current = (node + 1) % len(self._bases)

    def _said(self, error: httpx.TransportError, node: int, asked: int) -> str:
        if len(self._bases) == 1:
            return str(error)
        return f"{error} at {self._bases[node]}, {asked} of {len(self._bases)} nodes asked".lstrip()

    async def _ask(
        self, way: httpx.AsyncBaseTransport, node: int, request: httpx.Request, seconds: float
    ) -> httpx.Response:
        """One node's answer, whole: one that breaks off is none."""
        base = self._bases[node]
        url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + request.url.raw_path)
        headers = httpx.Headers(request.headers)
        headers["host"] = url.netloc.decode("ascii")
        limits = dict.fromkeys(("read", "write", "pool"), seconds)
        extensions = {**request.extensions, "timeout": {"connect": min(CONNECT_SECONDS, seconds), **limits}}
        sent = httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)
        try:
            async with asyncio.timeout(seconds):
                answer = await way.handle_async_request(sent)
                try:
                    body = b"".join([part async for part in answer.aiter_raw()])
                finally:
                    await answer.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no answer within {seconds:.1f} s") from error
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))


def _base(url: str) -> httpx.URL:
    """The URL with the database's own port where it names none."""
    parsed = httpx.URL(url)
    return parsed.copy_with(port=DEFAULT_PORT) if urlsplit(url).port is None else parsed
