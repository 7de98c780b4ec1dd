"""Readings are shared by all who wait, kept for their seconds, and begun anew for who wants a fresh one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from searchops_workers.gateway.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class World:
    """What is read: the number of the reading; those in `failing` fail, and all wait at a gate."""

    def __init__(self, *, seconds: float = 2.0, kept: int = 10) -> None:
        self.now = 0.0
        self.begun = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing: set[int] = set()
        self.readings: Readings[str, int] = Readings(seconds=seconds, clock=lambda: self.now, kept=kept)

    async def reader(self) -> int:
        self.begun += 1
        number = self.begun
        await self.gate.wait()
        if number in self.failing:
            raise RuntimeError("not read")
        return number

    async def read(self, key: str = "k", *, fresh: bool = False) -> int:
        reader: Callable[[], Awaitable[int]] = self.reader
        return await self.readings.read(key, reader, fresh=fresh)


async def settled(*tasks: asyncio.Task[int]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_a_reading_is_used_for_its_seconds_from_when_it_began() -> None:
    world = World()
    world.gate.clear()
    first = asyncio.create_task(world.read())
    await settled(first)
    world.now = 1.9
    world.gate.set()
    assert await first == 1
    assert await world.read() == 1
    world.now = 2.0
    assert await world.read() == 2


async def test_a_reading_that_failed_is_not_kept_and_tells_all_who_waited() -> None:
    world = World()
    world.failing = {1}
    results = await asyncio.gather(*(world.read() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3
    assert world.begun == 1
    assert await world.read() == 2


async def test_all_who_want_a_fresh_one_while_one_is_under_way_share_the_next() -> None:
    world = World()
    world.gate.clear()
    first = asyncio.create_task(world.read())
    await settled(first)
    fresh = [asyncio.create_task(world.read(fresh=True)) for _ in range(5)]
    await settled(first, *fresh)
    assert world.begun == 1, "one reading at a time"
    world.gate.set()
    assert await first == 1
    assert await asyncio.gather(*fresh) == [2] * 5
    assert await world.read() == 2
    assert await world.read(fresh=True) == 3


async def test_one_who_goes_away_takes_no_reading_from_the_others() -> None:
    world = World()
    world.gate.clear()
    one, other = asyncio.create_task(world.read()), asyncio.create_task(world.read())
    queued = asyncio.create_task(world.read(fresh=True))
    await settled(one, other, queued)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    world.gate.set()
    assert await other == 1
    assert await queued == 2


async def test_a_failed_reading_before_it_does_not_fail_a_fresh_one() -> None:
    world = World()
    world.gate.clear()
    world.failing = {1}
    first = asyncio.create_task(world.read())
    await settled(first)
    fresh = asyncio.create_task(world.read(fresh=True))
    await settled(first, fresh)
    world.gate.set()
    with pytest.raises(RuntimeError):
        await first
    assert await fresh == 2


async def test_no_more_are_kept_than_the_bound() -> None:
    world = World(kept=2)
    for key in "abc":
        await world.read(key)
    assert await world.read("b") == 2
    assert await world.read("a") == 4
