"""Nothing acts before the caches are full, and no ghost stays after a gap of the watch."""

from __future__ import annotations

import asyncio
import random

import pytest

from searchops.runtime.barrier import Barrier
from searchops.runtime.ghost_sweep import GhostSweep, SweepReport
from searchops.runtime.key import Key
from unit.runtime.objects import FakeApi, make_cache

pytestmark = pytest.mark.looptime


async def test_the_barrier_opens_only_when_every_listed_object_of_every_kind_is_cached() -> None:
    apis, caches = [FakeApi(), FakeApi()], [make_cache(), make_cache()]
    for api in apis:
        for number in range(20):
            api.put(f"o{number}")
    barrier = Barrier([api.source(cache) for api, cache in zip(apis, caches, strict=True)])
    running = asyncio.create_task(barrier.run())
    events = [(which, raw) for which, api in enumerate(apis) for raw in api.objects.values()]
    random.Random(5).shuffle(events)
    for which, raw in events:
        await asyncio.sleep(0.3)
        assert not barrier.is_open
        caches[which].apply(None, raw)
    await running
    assert barrier.is_open
    assert [len(cache) for cache in caches] == [20, 20]


async def test_a_list_that_fails_never_opens_the_barrier() -> None:
    api, cache = FakeApi(), make_cache()
    api.fail_lists = 5
    barrier = Barrier([api.source(cache)], recheck_seconds=5)
    running = asyncio.create_task(barrier.run())
    await asyncio.sleep(22)
    assert barrier.missing() == {"things": None}
    assert not running.done()
    await asyncio.wait_for(running, 5)
    assert barrier.is_open, "an empty list that succeeded is a full cache"


async def test_an_object_deleted_before_the_watch_came_is_not_waited_for() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("stays")
    api.put("goes")
    barrier = Barrier([api.source(cache)], recheck_seconds=5)
    running = asyncio.create_task(barrier.run())
    await asyncio.sleep(1)
    api.delete("goes")
    cache.apply(None, api.objects[Key("shop", "stays")])
    await asyncio.sleep(1)
    assert not barrier.is_open
    assert barrier.missing() == {"things": 1}
    await asyncio.wait_for(running, 10)


async def test_objects_made_after_the_first_list_do_not_hold_the_barrier() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("old")
    barrier = Barrier([api.source(cache)], recheck_seconds=5)
    running = asyncio.create_task(barrier.run())
    await asyncio.sleep(1)
    api.put("new")
    await asyncio.sleep(10)
    assert not barrier.is_open
    cache.apply(None, api.objects[Key("shop", "old")])
    await asyncio.wait_for(running, 1)


async def test_after_a_gap_with_deletions_no_ghost_stays_and_each_is_enqueued() -> None:
    """The watch was closed by 410; half of the objects went meanwhile; the relist shows only those that are left."""
    api, cache = FakeApi(), make_cache()
    for number in range(100):
        cache.apply("ADDED", api.put(f"o{number}"))
    for number in range(0, 100, 2):
        api.delete(f"o{number}")
    for raw in api.objects.values():
        cache.apply(None, raw)
    assert len(cache) == 100
    report = await GhostSweep([]).sweep(api.source(cache))
    assert report == SweepReport("things", ghosts=50)
    assert set(cache.keys()) == set(api.objects)
    assert sorted(key.name for key in api.enqueued) == sorted(f"o{number}" for number in range(0, 100, 2))


async def test_a_ghost_is_kept_while_the_live_read_fails() -> None:
    api, cache = FakeApi(), make_cache()
    cache.apply("ADDED", api.put("a"))
    api.delete("a")
    key = Key("shop", "a")
    api.fail_reads.add(key)
    sweep = GhostSweep([])
    assert await sweep.sweep(api.source(cache)) == SweepReport("things", unknown=1)
    assert key in cache
    api.fail_reads.clear()
    assert (await sweep.sweep(api.source(cache))).ghosts == 1
    assert key not in cache


async def test_a_list_that_fails_or_lacks_a_living_object_drops_nothing() -> None:
    api, cache = FakeApi(), make_cache()
    cache.apply("ADDED", api.put("a"))
    api.fail_lists = 1
    report = await GhostSweep([]).sweep(api.source(cache))
    assert (report.listed, report.complete) == (False, False)
    source = api.source(cache)

    async def nothing() -> list[object]:
        return []

    short = type(source)(cache, nothing, api.read, api.enqueued.append)  # type: ignore[arg-type]
    assert await GhostSweep([]).sweep(short) == SweepReport("things")
    assert len(cache) == 1
    assert api.enqueued == []


async def test_a_namesake_made_in_the_gap_takes_the_place_of_the_ghost() -> None:
    api, cache = FakeApi(), make_cache()
    cache.apply("ADDED", api.put("a", uid="old"))
    api.delete("a")
    api.put("a", uid="new")
    report = await GhostSweep([]).sweep(api.source(cache))
    assert report.ghosts == 1
    found = cache.get(Key("shop", "a"))
    assert found is not None
    assert found.uid == "new"
    assert api.enqueued == [Key("shop", "a")]


async def test_missed_objects_and_versions_are_read_and_enqueued() -> None:
    api, cache = FakeApi(), make_cache()
    cache.apply("ADDED", api.put("old"))
    api.put("old")
    api.put("never-seen")
    assert await GhostSweep([]).sweep(api.source(cache)) == SweepReport("things", refreshed=2)
    assert {found.key.name: found.resource_version for found in cache} == {
        key.name: raw["metadata"]["resourceVersion"] for key, raw in api.objects.items()
    }
    assert len(api.enqueued) == 2


async def test_a_sweep_with_nothing_missed_reads_nothing_live() -> None:
    api, cache = FakeApi(), make_cache()
    for number in range(50):
        cache.apply("ADDED", api.put(f"o{number}"))
    assert await GhostSweep([]).sweep(api.source(cache)) == SweepReport("things")
    assert api.reads == 0


async def test_live_reads_are_bounded_and_the_rest_follows_soon() -> None:
    api, cache = FakeApi(), make_cache()
    for number in range(50):
        cache.apply("ADDED", api.put(f"o{number}"))
        api.delete(f"o{number}")
    sweep = GhostSweep([api.source(cache)], interval=3600, retry_seconds=60, settle_seconds=5, max_reads=20)
    task = asyncio.create_task(sweep.run())
    await asyncio.sleep(100)
    assert len(cache) == 50, "no sweep was due yet"
    sweep.kick()
    await asyncio.sleep(6)
    assert len(cache) == 30
    await asyncio.sleep(130)
    assert len(cache) == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
