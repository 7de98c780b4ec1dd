"""The work queue's waiting, bounds and back-off."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from searchops.runtime.backoff import BackOff
from searchops.runtime.queue import Priority, QueueClosed, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable

virtual_time = pytest.mark.looptime


def loop_time() -> Callable[[], float]:
    return asyncio.get_running_loop().time


@virtual_time
async def test_a_delayed_key_is_handed_out_when_it_is_due_and_not_before() -> None:
    now = loop_time()
    queue: WorkQueue[str] = WorkQueue("q", now=now)
    queue.add_after("late", 30)
    queue.add_after("early", 10)
    assert await queue.get() == "early"
    assert now() == pytest.approx(10, abs=0.1)
    assert await queue.get() == "late"
    assert now() == pytest.approx(30, abs=0.1)


@virtual_time
async def test_a_waiting_worker_wakes_for_a_wish_earlier_than_the_one_it_waits_for() -> None:
    now = loop_time()
    queue: WorkQueue[str] = WorkQueue("q", now=now)
    queue.add_after("late", 100)
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add_after("early", 5)
    assert await getter == "early"
    assert now() == pytest.approx(6, abs=0.1)


@virtual_time
async def test_a_cancelled_worker_passes_its_wake_up_on() -> None:
    queue: WorkQueue[str] = WorkQueue("q", now=loop_time())
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("key")
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == "key"


@virtual_time
async def test_closing_ends_every_get_and_keeps_what_runs() -> None:
    queue: WorkQueue[str] = WorkQueue("q", now=loop_time())
    queue.add("running")
    assert await queue.get() == "running"
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    results: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, QueueClosed) for result in results)
    assert queue.add("running"), "a key that runs may be given back"
    assert not queue.add("new")
    queue.done("running")
    assert queue.pending("running")


def test_back_off_doubles_from_half_a_second_to_five_minutes() -> None:
    exact = BackOff(jitter=0.0)
    rng = random.Random(1)
    assert [exact.delay(failures, rng) for failures in (1, 2, 3, 10, 11, 500)] == [0.5, 1, 2, 256, 300, 300]
    delays = {BackOff().delay(20, rng) for _ in range(50)}
    assert len(delays) > 40
    assert all(240 <= delay <= 300 for delay in delays)


def test_forget_starts_the_back_off_anew_and_retry_after_only_lengthens_it() -> None:
    queue: WorkQueue[str] = WorkQueue("q", back_off=BackOff(jitter=0.0), now=lambda: 0.0)
    queue.add("key")
    assert queue.try_get() == "key"
    assert [queue.retry("key"), queue.retry("key"), queue.retry("key", 60), queue.retry("key", 1)] == [0.5, 1, 60, 4]
    queue.forget("key")
    assert queue.retry("key", first=0.1) == 0.1
    assert queue.retry("key", first=0.1) == 1.0


def test_a_key_beyond_the_capacity_is_refused_and_counted() -> None:
    queue: WorkQueue[int] = WorkQueue("q", capacity=2, now=lambda: 0.0)
    assert queue.add(1)
    assert queue.add(2)
    assert not queue.add(3)
    assert not queue.add_after(3, 5)
    assert queue.add(2, Priority.CHANGE), "a known key needs no room"
    assert queue.snapshot().refused == 2
    assert queue.try_get() == 1
    queue.done(1)
    assert queue.add(3)


def test_steady_changes_do_not_starve_a_resync() -> None:
    clock = [0.0]
    queue: WorkQueue[str] = WorkQueue("q", patience=300, now=lambda: clock[0])
    queue.add("resync", Priority.RESYNC)
    for second in range(400):
        clock[0] = float(second)
        queue.add(f"change-{second}")
        key = queue.try_get()
        assert key is not None
        queue.done(key)
        if key == "resync":
            assert second == 301
            return
    pytest.fail("the resync never ran")


def test_wishes_that_replace_each_other_do_not_pile_up() -> None:
    clock = [0.0]
    queue: WorkQueue[str] = WorkQueue("q", now=lambda: clock[0])
    for step in range(10_000):
        queue.add_after("key", 10_000 - step * 0.5)
    assert len(queue._due) < 200


def test_giving_back_a_key_that_was_not_handed_out_is_refused() -> None:
    queue: WorkQueue[str] = WorkQueue("q", now=lambda: 0.0)
    queue.add("key")
    with pytest.raises(ValueError, match="key is not running"):
        queue.done("key")
    assert queue.try_get() == "key"
    queue.done("key")
    with pytest.raises(ValueError, match="once"):
        queue.done("key")


def test_an_unparked_key_goes_to_the_head_of_its_line() -> None:
    queue: WorkQueue[str] = WorkQueue("q", now=lambda: 0.0)
    queue.add("parked")
    assert queue.try_get() == "parked"
    queue.park("parked")
    queue.add("other")
    queue.add("parked", Priority.RESYNC)
    assert queue.snapshot().parked == 1, "a resync does not bring a parked key back"
    queue.unpark("parked")
    assert [queue.try_get(), queue.try_get(), queue.try_get()] == ["parked", "other", None]


def test_a_change_brings_a_parked_key_back() -> None:
    queue: WorkQueue[str] = WorkQueue("q", now=lambda: 0.0)
    queue.add("key", Priority.RESYNC)
    assert queue.try_get() == "key"
    queue.park("key")
    assert queue.try_get() is None
    queue.add("key")
    assert queue.try_get() == "key"
    queue.add("key")
    queue.park("key")
    assert queue.try_get() == "key", "a change that came while the key ran is not parked with it"
