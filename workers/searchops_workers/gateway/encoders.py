"""The bound encoders, by name, over the serving pool; connections are made when first asked for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from searchops_workers.encoders.errors import EncoderError, EncoderUnavailable
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.encoders.protocol import Vectors

PAUSE_SECONDS = 2.0
MAX_ENCODERS = 64


class EncoderPool:
    """One encoder per revision name. A pool that failed is asked again after a pause, so that searches do not queue."""

    def __init__(self, servers: Sequence[str], *, deadline: float) -> None:
        self._servers = tuple(servers)
        self._deadline = deadline
        self._encoders: dict[str, PooledEncoder] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._lock = asyncio.Lock()

    async def encode(self, name: str, texts: Sequence[str]) -> Vectors:
        """Vectors of some texts under a revision.

        Raises:
            EncoderError: no server of the pool serves it.
        """
        encoder = await self._encoder(name)
        try:
            return await encoder.encode(texts)
        except EncoderError as error:
            await self._forget(name, str(error))
            raise

    async def _encoder(self, name: str) -> PooledEncoder:
        async with self._lock:
            found = self._encoders.get(name)
            if found is not None:
                return found
            failed = self._failed.get(name)
            if failed is not None and time.monotonic() - failed[0] < PAUSE_SECONDS:
                raise EncoderUnavailable(failed[1])
            members = []
            problems = []
            for url in self._servers:
                try:
                    members.append(await TritonTextEncoder.connect(url, name, deadline=self._deadline))
                except EncoderError as error:
                    problems.append(str(error))
            if not members:
                said = problems[0] if problems else "the gateway knows no Triton server: set SEARCHOPS_GATEWAY_SERVERS"
                self._failed[name] = (time.monotonic(), said)
                raise EncoderUnavailable(said)
            while len(self._encoders) >= MAX_ENCODERS:
                oldest = next(iter(self._encoders))
                await self._encoders.pop(oldest).close()
            made = self._encoders[name] = PooledEncoder(members)
            return made

    async def _forget(self, name: str, said: str) -> None:
        async with self._lock:
            self._failed[name] = (time.monotonic(), said)
            gone = self._encoders.pop(name, None)
        if gone is not None:
            await gone.close()

    async def close(self) -> None:
        """Close every connection."""
        for encoder in self._encoders.values():
            await encoder.close()
        self._encoders.clear()
