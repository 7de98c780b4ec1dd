"""Slots, parked lines and circuit breakers, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from searchops.runtime.backoff import BackOff
from searchops.runtime.dependency import BreakerState, Dependencies, DependencyBusy, Limits, current_holder
from searchops.runtime.errors import NotReady, Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.looptime


def make(concurrency: int = 1, failures: int = 3) -> Dependencies:
    limits = Limits(concurrency, failures, BackOff(base=10.0, cap=40.0, jitter=0.0))
    return Dependencies(lambda _: limits, rng=random.Random(1), now=asyncio.get_running_loop().time)


@contextmanager
def acting_as(holder: str) -> Iterator[None]:
    token = current_holder.set(holder)
    try:
        yield
    finally:
        current_holder.reset(token)


async def fail(dependencies: Dependencies, holder: str, error: BaseException) -> None:
    with acting_as(holder), pytest.raises(type(error)):
        async with dependencies.slot("cell"):
            raise error


async def test_a_busy_slot_parks_and_is_kept_for_the_first_in_line() -> None:
    dependencies = make()
    woken: list[str] = []
    with acting_as("one"):
        async with dependencies.slot("cell"):
            for holder in ("two", "three"):
                with acting_as(holder), pytest.raises(DependencyBusy) as busy:
                    async with dependencies.slot("cell"):
                        pytest.fail("two held the only slot")
                dependencies.enlist(busy.value.dependency, holder, lambda holder=holder: woken.append(holder))  # type: ignore[misc]
            assert woken == []
    assert woken == ["two"]
    with acting_as("late"), pytest.raises(DependencyBusy):
        async with dependencies.slot("cell"):
            pytest.fail("somebody else took the slot that was kept for two")
    with acting_as("two"):
        async with dependencies.slot("cell"):
            assert woken == ["two"]
    assert woken == ["two", "three"]


async def test_a_kept_slot_that_is_not_needed_goes_to_the_next() -> None:
    dependencies = make()
    woken: list[str] = []
    with acting_as("one"):
        async with dependencies.slot("cell"):
            cell = dependencies.get("cell")
            dependencies.enlist(cell, "two", lambda: woken.append("two"))
            dependencies.enlist(cell, "three", lambda: woken.append("three"))
    dependencies.withdraw("two")
    assert woken == ["two", "three"]
    dependencies.withdraw("three")
    assert cell.idle


async def test_enlisting_elsewhere_leaves_the_other_line() -> None:
    dependencies = make()
    with acting_as("one"):
        async with dependencies.slot("a"), dependencies.slot("b"):
            dependencies.enlist(dependencies.get("a"), "two", lambda: pytest.fail("two waits for b now"))
            dependencies.enlist(dependencies.get("b"), "two", lambda: None)
    assert dependencies.get("a").idle
    assert not dependencies.get("b").idle


async def test_the_breaker_opens_rests_longer_each_time_and_closes_on_an_answer() -> None:
    dependencies = make()
    cell = dependencies.get("cell")

    def state() -> BreakerState:
        return cell.state

    for number in range(3):
        assert state() is BreakerState.CLOSED
        await fail(dependencies, str(number), Transient("no answer"))
    assert state() is BreakerState.OPEN
    with acting_as("x"), pytest.raises(DependencyBusy):
        async with dependencies.slot("cell"):
            pytest.fail("an open breaker let somebody through")
    await asyncio.sleep(10.1)
    assert state() is BreakerState.HALF_OPEN
    await fail(dependencies, "probe", TimeoutError())
    await asyncio.sleep(10.1)
    assert state() is BreakerState.OPEN, "the second rest is twice as long"
    await asyncio.sleep(10.1)
    with acting_as("probe"):
        async with dependencies.slot("cell"):
            pass
    assert state() is BreakerState.CLOSED


async def test_an_open_breaker_wakes_one_parked_holder_to_probe_and_the_rest_after_it() -> None:
    dependencies = make(concurrency=2, failures=1)
    cell = dependencies.get("cell")
    await fail(dependencies, "first", Transient("no answer"))
    woken: list[int] = []
    for number in range(4):
        dependencies.enlist(cell, number, lambda number=number: woken.append(number))  # type: ignore[misc]
    await asyncio.sleep(9)
    assert woken == []
    await asyncio.sleep(2)
    assert woken == [0]
    token = current_holder.set(0)
    async with dependencies.slot("cell"):
        await asyncio.sleep(1)
        assert woken == [0]
    current_holder.reset(token)
    assert woken == [0, 1, 2]


async def test_an_answer_that_is_an_error_is_an_answer() -> None:
    dependencies = make(failures=2)
    await fail(dependencies, "one", Transient("no answer"))
    await fail(dependencies, "two", Terminal("Refused", "no such thing"))
    await fail(dependencies, "three", Transient("no answer"))
    assert dependencies.get("cell").state is BreakerState.CLOSED


async def test_a_call_that_was_not_made_tells_the_breaker_nothing() -> None:
    """As where too little of the lease is left to begin: that is no fault of the cell, and no sign of life either."""
    dependencies = make(failures=2)
    not_made, silent = Transient("only 3 s of the lease are left", answered=None), Transient("no answer")
    await fail(dependencies, "one", silent)
    for _ in range(5):
        await fail(dependencies, "one", not_made)
    assert dependencies.get("cell").state is BreakerState.CLOSED
    await fail(dependencies, "one", silent)
    assert dependencies.get("cell").state is BreakerState.OPEN, "what was counted before counts still"


async def test_a_call_cut_off_by_a_deadline_counts_as_no_answer() -> None:
    dependencies = make(failures=1)
    with acting_as("one"), pytest.raises(TimeoutError):
        async with asyncio.timeout(5), dependencies.slot("cell"):
            await asyncio.sleep(60)
    assert dependencies.get("cell").state is BreakerState.OPEN


async def test_outside_a_reconcile_a_slot_is_waited_for_in_place_and_in_turn() -> None:
    dependencies = make()
    order: list[int] = []

    async def use(number: int) -> None:
        async with dependencies.slot("cell", patience=100):
            order.append(number)
            await asyncio.sleep(10)

    await asyncio.gather(*(use(number) for number in range(4)))
    assert order == [0, 1, 2, 3]
    assert dependencies.get("cell").idle


async def test_waiting_in_place_ends_with_what_was_seen() -> None:
    dependencies = make()
    async with dependencies.slot("cell"):
        with pytest.raises(NotReady, match="cell had no slot free for 5 s"):
            async with dependencies.slot("cell", patience=5):
                pytest.fail("two held the only slot")
    assert dependencies.get("cell").idle


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    dependencies = make()
    async with dependencies.slot("cell"):
        waiter = asyncio.create_task(dependencies.get("cell")._wait_in_place(100))
        await asyncio.sleep(1)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    assert dependencies.get("cell").idle


async def test_one_dead_dependency_holds_back_nobody_else() -> None:
    dependencies = make(failures=1)
    await fail(dependencies, "one", Transient("no answer"))
    with acting_as("two"):
        async with dependencies.slot("another"):
            pass
    assert {at.name: at.state.value for at in dependencies.snapshots()} == {"cell": "open", "another": "closed"}
    dependencies.retain(lambda name: name == "another")
    assert [at.name for at in dependencies.snapshots()] == ["another"]


async def test_never_more_in_use_than_the_limit() -> None:
    dependencies = make(concurrency=3, failures=1000)
    rng = random.Random(3)
    in_use = most = 0

    async def worker(name: str) -> None:
        nonlocal in_use, most
        token = current_holder.set(name)
        turn = asyncio.Event()
        try:
            for _ in range(20):
                while True:
                    try:
                        async with dependencies.slot("cell"):
                            in_use += 1
                            most = max(most, in_use)
                            await asyncio.sleep(rng.random())
                            in_use -= 1
                        break
                    except DependencyBusy as busy:
                        turn.clear()
                        dependencies.enlist(busy.dependency, name, turn.set)
                        await turn.wait()
        finally:
            current_holder.reset(token)

    await asyncio.gather(*(worker(f"w{number}") for number in range(12)))
    assert most == 3
    assert dependencies.get("cell").idle
