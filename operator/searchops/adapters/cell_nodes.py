"""One way to a cell over all of its nodes: a read goes on at the next node, a write never moves by itself.

Any node of a cell answers for the whole of it. What was not answered and may have happened is not sent again: the
caller reads it back, at the next node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from searchops.adapters.aiohttp_transport import AiohttpTransport, response_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

    from searchops.adapters.aiohttp_transport import Answer

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
        self._writing = AiohttpTransport(context, once=True)
        self.current = 0
        self.answering = True

    def __len__(self) -> int:
        return len(self._bases)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """A request of httpx; see `ask`."""
        headers = [item for item in request.headers.multi_items() if item[0] != "host"]
        path = request.url.raw_path.decode("ascii")
        return response_of(await self.ask(request.method, path, headers, await request.aread()))

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> Answer:
        """Send to the current node; a read that gets no answer goes on at the next ones.

        Args:
            method: HTTP method.
            path: quoted, with its query if it has one.
            headers: all but the host's.
            body: may be empty.

        Raises:
            httpx.TransportError: no node has answered.
        """
        reads = method == "GET" or (method == "POST" and path.partition("?")[0].endswith(READS))
        nodes = list(self._order())[: NODES_A_READ if reads else 1]
        way, seconds = self._reading if reads else self._writing, self._timeout / len(nodes)
        for number, node in enumerate(nodes, start=1):
            try:
                async with asyncio.timeout(seconds):
                    answer = await way.ask(
                        method, self._bases[node] + path, headers, body, connect=min(CONNECT_SECONDS, seconds)
                    )
            except (httpx.TransportError, TimeoutError) as error:
                self._leave(node)
                if number < len(nodes):
                    continue
                self.answering = self.answering and not reads
                raise self._failure(error, seconds, node, len(nodes)) from error
            if number > 1:
                self.current = node
            self.answering = True
            return answer
        raise httpx.ConnectError("the cell has no node")

    async def ask_each(self, path: str, headers: Sequence[tuple[str, str]]) -> list[Answer | httpx.TransportError]:
        """GET from every node at once: for what is each node's own.

        Where requests go otherwise does not change, so that nothing is written to a node which no survey has seen.

        Args:
            path: quoted, with its query if it has one.
            headers: all but the host's.

        Returns:
            Each node's answer, or why there is none.
        """
        seconds = self._timeout / min(len(self), NODES_A_READ)
        asked = (self._ask_one(node, path, headers, seconds) for node in range(len(self)))
        found = await asyncio.gather(*asked)
        self.answering = any(not isinstance(item, httpx.TransportError) for item in found)
        return found

    async def _ask_one(
        self, node: int, path: str, headers: Sequence[tuple[str, str]], seconds: float
    ) -> Answer | httpx.TransportError:
        try:
            async with asyncio.timeout(seconds):
                connect = min(CONNECT_SECONDS, seconds)
                return await self._reading.ask("GET", self._bases[node] + path, headers, b"", connect=connect)
        except (httpx.TransportError, TimeoutError) as error:
            return self._failure(error, seconds, node, len(self))

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

    def _failure(self, error: Exception, seconds: float, node: int, asked: int) -> httpx.TransportError:
        """What is raised; of several nodes it says which was asked last."""
        kind: type[httpx.TransportError] = httpx.ReadTimeout
        said = f"no answer within {seconds:.1f} s"
        if isinstance(error, httpx.TransportError):
            kind, said = type(error), str(error)
        if len(self._bases) > 1:
            said = f"{said} at {self._bases[node]}, {asked} of {len(self._bases)} nodes asked".lstrip()
        return kind(said)


def _base(url: str) -> str:
    """The URL with the database's own port where it names none, and without a slash at its end."""
    parsed = httpx.URL(url)
    whole = parsed.copy_with(port=DEFAULT_PORT) if urlsplit(url).port is None else parsed
    return str(whole).rstrip("/")
