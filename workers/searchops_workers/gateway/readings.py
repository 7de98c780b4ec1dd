"""Readings that are kept for seconds: one at a time of each thing, for all who ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Readings(Generic[K, V]):
    """What was read, by what it was asked for; it is never None. A reading that failed is not kept.

    Args:
        seconds: how long one may be used, counted from when it began.
        clock: monotonic seconds.
        kept: readings in memory at most; beyond it the one that was read longest ago is forgotten.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float], kept: int) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept = kept
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._running: dict[K, asyncio.Task[V]] = {}
        self._next: dict[K, asyncio.Task[V]] = {}

    async def read(self, key: K, reader: Callable[[], Awaitable[V]], *, fresh: bool = False) -> V:
        """What is known, or a reading shared by all who wait for it.

        Args:
            key: what is asked for.
            reader: reads it.
            fresh: take only what began after this call; all who say so while a reading is under way share the next one.
        """
        held = None if fresh else self.held(key)
        if held is not None:
            return held
        running = self._running.get(key)
        if running is None:
            task = self._next.get(key) or self._begin(key, reader)
        elif fresh:
            task = self._next.get(key) or self._queue(key, reader, running)
        else:
            task = running
        return await asyncio.shield(task)

    def held(self, key: K) -> V | None:
        """What is known and may still be used."""
        found = self._known.get(key)
        return found[1] if found is not None and self._clock() - found[0] < self._seconds else None

    def _begin(self, key: K, reader: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        task = asyncio.create_task(self._read(key, reader))
        self._running[key] = task
        task.add_done_callback(lambda done: _forget(self._running, key, done))
        return task

    def _queue(self, key: K, reader: Callable[[], Awaitable[V]], before: asyncio.Task[V]) -> asyncio.Task[V]:
        async def after() -> V:
            await asyncio.wait([before])
            self._running[key] = task
            _forget(self._next, key, task)
            return await self._read(key, reader)

        task = asyncio.create_task(after())
        self._next[key] = task
        task.add_done_callback(lambda done: _forget(self._running, key, done))
        return task

    async def _read(self, key: K, reader: Callable[[], Awaitable[V]]) -> V:
        started = self._clock()
        value = await reader()
        self._known[key] = (started, value)
        self._known.move_to_end(key)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return value


def _forget(tasks: dict[K, asyncio.Task[V]], key: K, task: asyncio.Task[V]) -> None:
    if tasks.get(key) is task:
        del tasks[key]
    if task.done() and not task.cancelled():
        task.exception()  # a reader that has gone away leaves nobody to look at it
