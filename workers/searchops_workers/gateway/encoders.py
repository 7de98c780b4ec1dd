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

REVISIONS = 128
COOL_DOWN = 5.0


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
        self._open: OrderedDict[tuple[str, str | None, str], Encoder] = OrderedDict()
        self._failed: OrderedDict[tuple[str, str | None, str], float] = OrderedDict()
        self._opening = asyncio.Lock()
        self._turn = 0

    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, from the first server that can."""
        if binding.encoder is None:
            raise EncoderRefused("the binding names no encoder")
        failure: EncoderError | None = None
        for url in self._servers(binding.encoder, binding.manifest_digest):
            key = (binding.encoder, binding.manifest_digest, url)
            try:
                encoder = await self._encoder(key)
                rows = await encoder.encode(texts)
            except (EncoderUnavailable, ModelNotLoaded) as error:
                await self._set_aside(key)
                failure = error
                continue
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

    async def _encoder(self, key: tuple[str, str | None, str]) -> Encoder:
        async with self._opening:
            found = self._open.get(key)
            if found is None:
                encoder, digest, url = key
                found = await self._connect(url, encoder, digest)
                self._open[key] = found
                while len(self._open) > REVISIONS:
                    _, oldest = self._open.popitem(last=False)
                    await oldest.close()
            self._open.move_to_end(key)
            self._failed.pop(key, None)
            return found

    async def _set_aside(self, key: tuple[str, str | None, str]) -> None:
        self._failed[key] = self._clock()
        while len(self._failed) > REVISIONS * 8:
            self._failed.popitem(last=False)
        found = self._open.pop(key, None)
        if found is not None:
            await found.close()

    async def close(self) -> None:
        """Close every connection."""
        for encoder in self._open.values():
            await encoder.close()
        self._open.clear()
