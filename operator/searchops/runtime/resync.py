"""One task that asks for every key once a period, each at its own phase, so that they never come all at once."""

from __future__ import annotations

import asyncio
import time
import zlib
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from searchops.runtime.queue import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from searchops.runtime.cache import ObjectCache
    from searchops.runtime.key import Key
    from searchops.runtime.queue import WorkQueue


def phase(uid: str, period: float) -> float:
    """The second of the period at which an object is looked at: the same in every process, spread over all of it."""
    return zlib.crc32(uid.encode()) / 2**32 * period


class Resync:
    """Walks the keys of one cache every `period` seconds of wall-clock time.

    Args:
        cache: whose keys.
        queue: where they are asked for, at the resync priority.
        period: seconds of one walk.
        tick: seconds between steps.
        now: wall-clock seconds, so that a restart goes on at the same phase.
    """

    def __init__(
        self,
        cache: ObjectCache[Any],
        queue: WorkQueue[Key],
        *,
        period: float,
        tick: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < tick <= period:
            raise ValueError(f"resync with period {period} s and tick {tick} s: wanted 0 < tick <= period")
        self._cache = cache
        self._queue = queue
        self._period = period
        self._tick = tick
        self._now = now
        self._last = now()
        self._lap: list[tuple[float, Key]] = []
        self._lap_number: int | None = None

    async def run(self) -> None:
        """Walk for ever."""
        while True:
            await asyncio.sleep(self._tick)
            self.step()

    def step(self) -> int:
        """Ask for every key whose phase has passed since the last step; returns how many.

        A gap of more than a period (a suspended machine) asks for each key once; a clock that went back asks for none.
        """
        start, end = self._last, self._now()
        self._last = end
        start = max(start, end - self._period)
        asked = 0
        while start < end:
            lap = int(start // self._period)
            lap += (lap + 1) * self._period <= start  # Rounding must not make a step of no length.
            stop = min(end, (lap + 1) * self._period)
            asked += self._ask(lap, start - lap * self._period, stop - lap * self._period)
            start = stop
        return asked

    def _ask(self, lap: int, after: float, until: float) -> int:
        """Ask for the keys with a phase in [after, until)."""
        if lap != self._lap_number:
            self._lap_number = lap
            self._lap = sorted((phase(cached.uid, self._period), cached.key) for cached in self._cache)
        first = _position(self._lap, after)
        due = [key for _, key in self._lap[first : _position(self._lap, until)]]
        return self._add(due)

    def _add(self, keys: Iterable[Key]) -> int:
        return sum(key in self._cache and self._queue.add(key, Priority.RESYNC) for key in keys)


def _position(lap: list[tuple[float, Key]], moment: float) -> int:
    """Index of the first entry whose phase is not before the moment."""
    return bisect_left(lap, moment, key=lambda entry: entry[0])
