"""Bounded work: so many requests at once, so many waiting, and an honest 503 for the rest."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RETRY_SECONDS = 1.0


class Admission:
    """A counting gate.

    Args:
        kind: named in the refusal.
        in_flight: worked on at once.
        waiting: more that may wait.
    """

    def __init__(self, kind: str, *, in_flight: int, waiting: int) -> None:
        self._kind = kind
        self._slots = asyncio.Semaphore(in_flight)
        self._limit = in_flight + waiting
        self.present = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Hold a place while the request is worked on.

        Raises:
            Problem: 503 with Retry-After, where as many are here as may be.
        """
        if self.present >= self._limit:
            raise Problem(
                503,
                f"{self.present} {self._kind} are under way or waiting, which is the bound; come back later",
                code="overloaded",
                retry_after=RETRY_SECONDS,
            )
        self.present += 1
        try:
            async with self._slots:
                yield
        finally:
            self.present -= 1
