"""Events, token buckets, results, errors, and the resync's phases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.runtime.errors import NotReady, Terminal, Transient, describe
from searchops.runtime.key import Key
from searchops.runtime.queue import Priority, WorkQueue
from searchops.runtime.recorder import Event, EventRecorder, RecorderLimits
from searchops.runtime.result import Result
from searchops.runtime.resync import Resync, phase
from searchops.runtime.token_bucket import TokenBucket
from unit.runtime.objects import make_cache, raw_object

virtual_time = pytest.mark.looptime
REASONS = ("Created", "Failed")


class FakeSink:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.errors: list[Exception] = []
        self.slow = 0.0

    async def publish(self, event: Event) -> None:
        await asyncio.sleep(self.slow)
        if self.errors:
            raise self.errors.pop(0)
        self.events.append(event)


class Drops:
    def __init__(self) -> None:
        self.causes: list[str] = []

    def dropped(self, cause: str) -> None:
        self.causes.append(cause)


def reference(name: str) -> dict[str, str]:
    return {"kind": "Thing", "namespace": "shop", "name": name, "uid": f"uid-{name}"}


async def drain(recorder: EventRecorder, seconds: float) -> None:
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def make_recorder(sink: FakeSink, drops: Drops, **options: Any) -> EventRecorder:
    limits = RecorderLimits(**options.pop("limits", {}))
    return EventRecorder(sink, REASONS, limits=limits, metrics=drops, now=asyncio.get_running_loop().time, **options)


@virtual_time
async def test_events_are_written_in_order_and_repeats_are_not() -> None:
    sink, drops = FakeSink(), Drops()
    recorder = make_recorder(sink, drops)
    for message in ("one", "one", "two", "one"):
        recorder.record(reference("a"), "Created", message)
    recorder.record(reference("b"), "Created", "one", warning=True)
    await drain(recorder, 1)
    assert [(e.reference["name"], e.message, e.warning) for e in sink.events] == [
        ("a", "one", False),
        ("a", "two", False),
        ("a", "one", False),
        ("b", "one", True),
    ]
    assert drops.causes == ["repeated"]
    await asyncio.sleep(301)
    recorder.record(reference("b"), "Created", "one")
    await drain(recorder, 1)
    assert len(sink.events) == 5


@virtual_time
async def test_a_reason_outside_the_closed_list_is_refused() -> None:
    recorder = make_recorder(FakeSink(), Drops())
    with pytest.raises(ValueError, match="'Surprise'; wanted one of the list"):
        recorder.record(reference("a"), "Surprise", "x")


@virtual_time
async def test_one_noisy_object_takes_nothing_from_the_others() -> None:
    sink, drops = FakeSink(), Drops()
    recorder = make_recorder(sink, drops, limits={"object_burst": 5})
    for number in range(100):
        recorder.record(reference("noisy"), "Failed", f"{number}")
    recorder.record(reference("quiet"), "Failed", "x")
    await drain(recorder, 30)
    assert [e.reference["name"] for e in sink.events] == ["noisy"] * 5 + ["quiet"]
    assert drops.causes == ["rate"] * 95


@virtual_time
async def test_the_queue_is_bounded_and_record_never_waits() -> None:
    sink, drops = FakeSink(), Drops()
    recorder = make_recorder(sink, drops, limits={"queue": 10})
    for number in range(15):
        recorder.record(reference(f"o{number}"), "Failed", "x")
    await drain(recorder, 5)
    assert len(sink.events) == 10
    assert drops.causes == ["full"] * 5


@virtual_time
async def test_all_events_together_keep_to_the_rate() -> None:
    sink = FakeSink()
    recorder = make_recorder(sink, Drops(), limits={"rate": 2.0, "burst": 3})
    for number in range(50):
        recorder.record(reference(f"o{number}"), "Failed", "x")
    await drain(recorder, 10.2)
    assert len(sink.events) == 3 + 20


@virtual_time
async def test_an_event_that_cannot_be_written_is_dropped_and_the_next_is_written() -> None:
    sink, drops = FakeSink(), Drops()
    sink.errors = [Transient("503"), Terminal("Forbidden", "403")]
    recorder = make_recorder(sink, drops)
    for number in range(3):
        recorder.record(reference(f"o{number}"), "Failed", "x")
    await drain(recorder, 5)
    assert [e.reference["name"] for e in sink.events] == ["o2"]
    assert drops.causes == ["refused", "refused"]


@virtual_time
async def test_messages_are_redacted_and_cut() -> None:
    sink = FakeSink()
    recorder = make_recorder(sink, Drops(), redact=lambda text: text.replace("hush", "[redacted]"))
    recorder.record(reference("a"), "Failed", "the key is hush" + "." * 5000)
    await recorder.flush(1)
    assert "hush" not in sink.events[0].message
    assert len(sink.events[0].message) == 1024


@virtual_time
async def test_a_flush_ends_in_time() -> None:
    sink = FakeSink()
    sink.slow = 3
    recorder = make_recorder(sink, Drops())
    for number in range(10):
        recorder.record(reference(f"o{number}"), "Failed", "x")
    await recorder.flush(10)
    assert len(sink.events) == 3
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)


@virtual_time
async def test_a_bucket_lets_a_burst_through_and_then_its_rate_in_order() -> None:
    now = asyncio.get_running_loop().time
    bucket = TokenBucket(10, 5, now=now)
    served: list[tuple[int, float]] = []

    async def take(number: int) -> None:
        await bucket.acquire()
        served.append((number, round(now(), 1)))

    await asyncio.gather(*(take(number) for number in range(8)))
    assert served == [(number, at) for number, at in enumerate([0, 0, 0, 0, 0, 0.1, 0.2, 0.3])]


@virtual_time
async def test_a_cancelled_caller_gives_its_token_back() -> None:
    bucket = TokenBucket(1, 1, now=asyncio.get_running_loop().time)
    await bucket.acquire()
    waiting = asyncio.create_task(bucket.acquire())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(1)
    assert bucket.try_acquire()


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.5, 20), st.integers(1, 10))
def test_no_window_ever_gets_more_than_burst_and_rate(gaps: list[float], rate: float, burst: int) -> None:
    clock = 0.0
    bucket = TokenBucket(rate, burst, now=lambda: clock)
    taken: list[float] = []
    for gap in gaps:
        clock += gap
        while bucket.try_acquire():
            taken.append(clock)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-6


@given(st.integers(2, 60), st.integers(1, 400))
def test_one_period_asks_for_every_key_exactly_once_whatever_the_steps(objects: int, step: int) -> None:
    clock = [1_700_000_123.4]
    cache = make_cache()
    for number in range(objects):
        cache.apply("ADDED", raw_object(f"o{number}", version=str(number + 1)))
    queue: WorkQueue[Key] = WorkQueue("q", now=lambda: 0.0)
    resync = Resync(cache, queue, period=600, now=lambda: clock[0])
    asked: list[Key] = []
    elapsed = 0
    while elapsed < 600:
        move = min(step, 600 - elapsed)
        elapsed += move
        clock[0] += move
        resync.step()
        while (key := queue.try_get()) is not None:
            asked.append(key)
            queue.done(key)
    assert sorted(asked) == sorted(cache.keys())


def test_phases_are_stable_and_spread() -> None:
    assert phase("uid-1", 600) == phase("uid-1", 600)
    slots = [int(phase(f"3f2a{number}-uid", 600) // 60) for number in range(10_000)]
    assert all(800 < slots.count(slot) < 1200 for slot in range(10))


def test_resyncs_come_at_their_priority_and_not_for_what_is_gone() -> None:
    clock = [1000.0]
    cache = make_cache()
    for name in ("a", "b"):
        cache.apply("ADDED", raw_object(name, version="5"))
    queue: WorkQueue[Key] = WorkQueue("q", now=lambda: 0.0)
    resync = Resync(cache, queue, period=100, now=lambda: clock[0])
    clock[0] = 1000.5
    resync.step()
    cache.drop(Key("shop", "b"), "uid-b")
    clock[0] += 1_000_000
    assert resync.step() == 1, "a gap of many periods asks for each key once"
    queue.add(Key("shop", "change"))
    assert queue.snapshot().resyncs == 1
    assert queue.try_get() == Key("shop", "change")
    clock[0] -= 500
    assert resync.step() == 0


@virtual_time
async def test_the_resync_task_walks_by_itself() -> None:
    now = asyncio.get_running_loop().time
    cache = make_cache()
    for number in range(30):
        cache.apply("ADDED", raw_object(f"o{number}", version="5"))
    queue: WorkQueue[Key] = WorkQueue("q", now=now)
    task = asyncio.create_task(Resync(cache, queue, period=60, tick=1, now=lambda: 5000 + now()).run())
    await asyncio.sleep(30)
    assert 5 < queue.snapshot().resyncs < 25
    await asyncio.sleep(31.5)
    assert queue.snapshot().resyncs == 30
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_results_and_errors_say_what_they_mean() -> None:
    assert Result.done().requeue_after is None
    assert Result.after(5).earliest(Result.done()) == Result.done().earliest(Result.after(5)) == Result.after(5)
    assert Result.after(5).earliest(Result.after(3)) == Result.after(3)
    with pytest.raises(ValueError, match="-1 s: wanted"):
        Result.after(-1)
    assert str(Terminal("NoCapacity", "full")) == "NoCapacity: full"
    assert str(NotReady("Building", "the Job runs")) == "Building: the Job runs"
    assert Transient("x", retry_after=3).retry_after == 3
    assert describe("spec.x is 7.", wanted="at most 5", next_step="Lower it.") == (
        "spec.x is 7; wanted at most 5. Lower it."
    )
    assert describe("spec.x is 7") == "spec.x is 7"
    assert Priority.CHANGE < Priority.RESYNC
    assert (str(Key("ns", "a")), str(Key("", "a"))) == ("ns/a", "a")
