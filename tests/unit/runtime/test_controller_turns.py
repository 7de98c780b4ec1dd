"""The worker loop: what each outcome of a reconcile does to its key, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from searchops.runtime.barrier import Barrier
from searchops.runtime.errors import Conflict, NotReady, Terminal, Transient
from searchops.runtime.key import Key
from searchops.runtime.queue import Priority
from searchops.runtime.result import Result
from unit.runtime.controller_rig import Rig
from unit.runtime.objects import FakeApi, make_cache, raw_object

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.looptime
A = Key("shop", "a")


def raising(*errors: BaseException | Result) -> Callable[[Key], Awaitable[Result]]:
    """Each pass takes the next outcome; then all is done."""
    left = list(errors)

    async def reconcile(key: Key) -> Result:
        del key
        outcome = left.pop(0) if left else Result.done()
        if isinstance(outcome, Result):
            return outcome
        raise outcome

    return reconcile


@pytest.mark.parametrize(
    ("outcomes", "times"),
    [
        ([Result.done()], [0]),
        ([Result.after(20), Result.after(5)], [0, 20, 25]),
        ([Transient("x"), Transient("x"), Transient("x")], [0, 0.5, 1.5, 3.5]),
        ([Transient("x", retry_after=30)], [0, 30]),
        ([NotReady("Waiting", "x", retry_after=7), NotReady("Waiting", "x", retry_after=7)], [0, 7, 14]),
        ([Conflict("x"), Conflict("x"), Conflict("x")], [0, 0.1, 1.1, 3.1]),
        ([ValueError("a bug"), KeyError("another")], [0, 0.5, 1.5]),
        ([TimeoutError()], [0, 0.5]),
        ([Transient("x"), Result.done()], [0, 0.5]),
        ([Terminal("Bad", "x")], [0]),
    ],
)
async def test_each_outcome_decides_when_the_key_comes_back(outcomes: list[Any], times: list[float]) -> None:
    rig = Rig(raising(*outcomes))
    rig.seen()
    rig.queue.add(A)
    await rig.run(100)
    assert rig.times == pytest.approx(times, abs=0.05)
    assert rig.fatal == []


async def test_success_starts_the_back_off_anew() -> None:
    rig = Rig(raising(Transient("x"), Transient("x"), Result.after(10), Transient("x")))
    rig.seen()
    rig.queue.add(A)
    await rig.run(100)
    assert rig.times == pytest.approx([0, 0.5, 1.5, 11.5, 12.0], abs=0.05)


async def test_a_terminal_error_is_written_down_and_waits_for_a_new_generation() -> None:
    rig = Rig(raising(Terminal("Bad", "x"), Result.done(), Result.done()))
    rig.seen(generation=1)
    rig.queue.add(A)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(1)
    assert rig.terminal == [(A, "Bad")]
    rig.seen(generation=1, status={"phase": "Failed"})
    rig.queue.add(A)
    rig.queue.add_after(A, 5, Priority.RESYNC)
    await asyncio.sleep(100)
    assert len(rig.times) == 1, "neither a status nor a resync is a reason to try again"
    rig.seen(generation=2)
    rig.queue.add(A)
    await asyncio.sleep(1)
    assert len(rig.times) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "change", [{"annotations": {"retry": "now"}}, {"labels": {"x": "y"}}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}]
)
async def test_what_a_person_may_do_beside_the_spec_ends_the_wait_as_well(change: dict[str, Any]) -> None:
    rig = Rig(raising(Terminal("Bad", "x")))
    rig.seen()
    rig.queue.add(A)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(1)
    rig.seen(**change)
    rig.queue.add(A)
    await asyncio.sleep(1)
    assert len(rig.times) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_terminal_error_that_could_not_be_written_down_is_tried_again() -> None:
    answers = [Conflict("409"), Transient("503")]
    written: list[str] = []

    async def on_terminal(key: Key, error: Terminal) -> None:
        del key
        if answers:
            raise answers.pop(0)
        written.append(error.reason)

    bad = [Terminal("Bad", "x") for _ in range(10)]
    rig = Rig(raising(*bad), on_terminal=on_terminal)
    rig.seen()
    rig.queue.add(A)
    await rig.run(100)
    assert written == ["Bad"]
    assert len(rig.times) == 3


async def test_a_deadline_ends_a_reconcile_that_hangs() -> None:
    async def hang(key: Key) -> Result:
        del key
        await asyncio.sleep(10_000)
        return Result.done()

    rig = Rig(hang, deadline=20)
    rig.queue.add(A)
    await rig.run(50)
    assert rig.times == pytest.approx([0, 20.5, 41.5], abs=0.05)


async def test_nothing_runs_before_the_barrier_is_open() -> None:
    source_api, cache = FakeApi(), make_cache()
    for name in ("a", "b"):
        source_api.put(name)
    barrier = Barrier([source_api.source(cache)])
    rig = Rig(raising(), gate=barrier)
    rig.queue.add(A)
    filling = asyncio.create_task(barrier.run())
    task = asyncio.create_task(rig.controller.run())
    cache.apply(None, source_api.objects[A])
    await asyncio.sleep(30)
    assert rig.times == []
    cache.apply(None, source_api.objects[Key("shop", "b")])
    await asyncio.sleep(1)
    assert rig.times == pytest.approx([30], abs=0.1)
    await filling
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_key_is_skipped_while_the_cache_is_behind_our_write() -> None:
    rig = Rig(raising())
    rig.seen()
    rig.cache.note_write(A, "500")
    rig.queue.add(A)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(4)
    assert rig.times == []
    rig.cache.apply("MODIFIED", raw_object("a", version="500"))
    rig.queue.add(A)
    await asyncio.sleep(0.5)
    assert rig.times == pytest.approx([4], abs=0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_guard_that_waited_too_long_reads_live_and_goes_on() -> None:
    rig = Rig(raising())
    rig.seen()
    rig.cache.note_write(A, "500")
    rig.api.version = 600
    live = rig.api.put("a")
    rig.queue.add(A)
    await rig.run(30)
    assert len(rig.times) == 1
    assert 10 <= rig.times[0] < 12
    found = rig.cache.get(A)
    assert found is not None
    assert found.resource_version == live["metadata"]["resourceVersion"]


async def test_while_the_live_read_fails_the_key_backs_off_and_nothing_acts() -> None:
    rig = Rig(raising())
    rig.seen()
    rig.cache.note_write(A, "500")
    rig.api.fail_reads.add(A)
    rig.queue.add(A)
    await rig.run(60)
    assert rig.times == []
    assert rig.queue.failures(A) >= 3


async def test_a_conflict_reads_the_object_again_before_the_next_pass() -> None:
    versions: list[str] = []

    async def reconcile(key: Key) -> Result:
        found = rig.cache.get(key)
        assert found is not None
        versions.append(found.resource_version)
        if len(versions) == 1:
            raise Conflict("409")
        return Result.done()

    rig = Rig(reconcile)
    rig.seen()
    rig.api.put("a")
    rig.queue.add(A)
    await rig.run(5)
    assert versions == ["101", "102"]


class PanicError(BaseException):
    """What a native library may raise past every `except Exception`."""


async def test_a_worker_that_dies_is_fatal_and_its_key_and_all_others_stay_in_the_queue() -> None:
    async def reconcile(key: Key) -> Result:
        if key.name == "k3":
            raise PanicError("boom")
        await asyncio.sleep(100)
        return Result.done()

    rig = Rig(reconcile, workers=5)
    keys = [Key("shop", f"k{number}") for number in range(10)]
    for key in keys:
        rig.queue.add(key)
    with pytest.raises(PanicError):
        await rig.controller.run()
    assert [type(error) for error in rig.fatal] == [PanicError]
    assert all(rig.queue.pending(key) for key in keys)
    assert not any(rig.queue.is_running(key) for key in keys)


async def test_cancelling_gives_every_key_back() -> None:
    async def reconcile(key: Key) -> Result:
        del key
        await asyncio.sleep(100)
        return Result.done()

    rig = Rig(reconcile, workers=4)
    keys = [Key("shop", f"k{number}") for number in range(6)]
    for key in keys:
        rig.queue.add(key)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(rig.queue.pending(key) and not rig.queue.is_running(key) for key in keys)
    assert rig.fatal == []


async def test_stopping_lets_running_reconciles_finish_within_the_grace() -> None:
    finished: list[str] = []

    async def reconcile(key: Key) -> Result:
        await asyncio.sleep(3 if key.name == "short" else 100)
        finished.append(key.name)
        return Result.done()

    rig = Rig(reconcile)
    for name in ("short", "long"):
        rig.queue.add(Key("shop", name))
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(1)
    rig.controller.stop()
    await task
    assert finished == ["short"]
    assert rig.now() == pytest.approx(6, abs=0.1)
    assert rig.queue.pending(Key("shop", "long"))
    assert rig.fatal == []
