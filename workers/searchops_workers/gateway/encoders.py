"""Encoders by revision over every Triton server that serves them; what does not answer is left alone for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from searchops_workers.encoders.errors import EncoderError, EncoderRefused, EncoderUnavailable, ModelNotLoaded
from searchops_workers.encoders.triton import TritonTextEncoder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from searchops.api.retrieval import Binding
    from searchops_workers.encoders.protocol import Encoder
    from searchops_workers.gateway.settings import EndpointSource

    Connect = Callable[[str, str, str | None], Awaitable[Encoder]]
    Key = tuple[str, str | None, str]

REVISIONS = 128
COOL_DOWN = 5.0
"""Seconds for which a server that failed is not asked."""
CONNECT_SECONDS = 2.0
SLOW_SECONDS = 1.0
"""A call that its caller gives up after this long counts against the server, not against the caller."""


class BindingEncoder(Protocol):
    """Texts to vectors of a binding's space."""

    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text.

        Raises:
            EncoderError: nothing was encoded.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


async def connect_triton(url: str, model: str, manifest_digest: str | None) -> Encoder:
    """A revision's text model on one server, if it is the build that the binding names."""
    return await TritonTextEncoder.connect(url, model, manifest_digest=manifest_digest)


class TritonEncoders:
    """`BindingEncoder` over the servers of all pools: turn by turn, going on to the next where one fails.

    Args:
        endpoints: where the servers are.
        clock: monotonic seconds.
        connect: opens a revision on a server.
    """

    def __init__(
        self, endpoints: EndpointSource, *, clock: Callable[[], float], connect: Connect = connect_triton
    ) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._connect = connect
        self._open: OrderedDict[Key, Encoder] = OrderedDict()
        self._failed: OrderedDict[Key, float] = OrderedDict()
        self._opening: dict[Key, asyncio.Task[Encoder]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, from the first server that can."""
        if binding.encoder is None:
            raise EncoderRefused("the binding names no encoder")
        failure: EncoderError | None = None
        for url in self._servers(binding.encoder, binding.manifest_digest):
            key = (binding.encoder, binding.manifest_digest, url)
            started = self._clock()
            try:
                encoder = await self._encoder(key)
                rows = await encoder.encode(texts)
            except (EncoderUnavailable, ModelNotLoaded) as error:
                self._set_aside(key)
                failure = error
                continue
            except asyncio.CancelledError:
                if self._clock() - started >= SLOW_SECONDS:
                    self._set_aside(key)
                raise
            if binding.dimension is not None and encoder.dimension != binding.dimension:
                raise EncoderRefused(
                    f"{binding.encoder} gives {encoder.dimension} dimensions, the binding wants {binding.dimension}"
                )
            return [[float(value) for value in row] for row in rows]
        raise failure or EncoderUnavailable(
            f"no server of {len(self._endpoints.current().servers)} serves {binding.encoder} now; "
            f"those that failed are asked again after {COOL_DOWN:g} s"
        )

    def _servers(self, encoder: str, digest: str | None) -> list[str]:
        """Servers that did not fail lately, each call beginning with another one."""
        now = self._clock()
        servers = [
            url
            for url in self._endpoints.current().servers
            if now - self._failed.get((encoder, digest, url), now - COOL_DOWN) >= COOL_DOWN
        ]
        if not servers:
            return []
        self._turn += 1
        start = self._turn % len(servers)
        return servers[start:] + servers[:start]

    async def _encoder(self, key: Key) -> Encoder:
        """The open encoder, or one that is opened once for all who wait; a slow server holds up nobody else."""
        found = self._open.get(key)
        if found is not None:
            self._open.move_to_end(key)
            return found
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._connected(key))
            task.add_done_callback(lambda done: self._opened(key, done))
        return await asyncio.shield(task)

    async def _connected(self, key: Key) -> Encoder:
        encoder, digest, url = key
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect(url, encoder, digest)
        except TimeoutError as error:
            raise EncoderUnavailable(f"{url} did not describe {encoder} within {CONNECT_SECONDS:g} s") from error

    def _opened(self, key: Key, task: asyncio.Task[Encoder]) -> None:
        self._opening.pop(key, None)
        if task.cancelled():
            return
        if task.exception() is not None:
            self._set_aside(key)
            return
        self._open[key] = task.result()
        if len(self._open) > REVISIONS:
            _, oldest = self._open.popitem(last=False)
            self._closing.add(closing := asyncio.create_task(oldest.close()))
            closing.add_done_callback(self._closing.discard)

    def _set_aside(self, key: Key) -> None:
        self._failed[key] = self._clock()
        self._failed.move_to_end(key)
        while len(self._failed) > REVISIONS * 8:
            self._failed.popitem(last=False)

    async def close(self) -> None:
        """Close every connection."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, *self._closing, return_exceptions=True)
        for encoder in self._open.values():
            await encoder.close()
        self._open.clear()
