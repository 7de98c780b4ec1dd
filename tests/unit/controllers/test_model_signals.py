"""When live signals are read, how many at once, what is kept, and that silence costs a bounded wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.live_signals import Share, Window
from searchops.api.meta import format_time
from searchops.controllers import model_signals
from searchops.controllers.model_signals import WINDOWS_PER_TURN, ModelSignals
from searchops.planning.signal_evidence import SignalFacts
from searchops.runtime.errors import Transient
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

NEW = case.built("b", 2)
ZERO = {"name": "ZeroResults", "margin": "0.02"}
SLOW = {"name": "SlowSearches", "margin": "0.05", "slowerThan": "1s"}


class Source:
    """Prometheus: answers, is silent for some windows, or hangs."""

    def __init__(self) -> None:
        self.asked: list[tuple[Window, tuple[str, ...]]] = []
        self.silent: set[Window] = set()
        self.hanging = False
        self.unknown: set[str] = set()
        self.worse: set[str] = set()

    async def shares(self, window: Window, tenants: Sequence[str]) -> dict[str, Share]:
        self.asked.append((window, tuple(tenants)))
        if self.hanging:
            await asyncio.Event().wait()
        if window in self.silent:
            raise Transient("no answer")
        part = 3 if window.start < case.later(days=-1) else 7
        added = 0 if part == 3 else 60
        return {
            name: Share(100, part + (added if name in self.worse else 0))
            for name in tenants
            if name not in self.unknown
        }


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def model_of(*signals: dict[str, Any], **status: Any) -> Any:
    return case.make_model("b", case.rolling(**status), rollout={"signals": list(signals or (ZERO,))})


def switched(name: str, **since: float) -> Any:
    return case.tenant(name, NEW, since=format_time(case.later(**since)))


def window(hours: float, signal: str = "ZeroResults", slower: Any = None) -> Window:
    return Window(signal, slower, case.later(hours=hours), 1)  # type: ignore[arg-type]


def signals(**later: float) -> tuple[ModelSignals, Source, Clock]:
    source, clock = Source(), Clock(case.later(**later))
    return ModelSignals(source, clock), source, clock


def told(facts: SignalFacts, name: Any = "ZeroResults") -> tuple[int, int, str]:
    found = facts.evidence[name]
    return found.tenants, found.pending, found.unread


async def test_a_window_is_asked_for_once_with_the_one_before_it_and_nothing_within_a_minute() -> None:
    reader, source, clock = signals(hours=2)
    tenants = (switched("a", minutes=-10), switched("b", minutes=-20), switched("c", hours=1.9))
    facts = await reader.of(model_of(), tenants)
    assert told(facts) == (2, 1, "")
    assert source.asked == [
        (window(0).before, ("shops.a", "shops.b")),
        (window(0), ("shops.a", "shops.b")),
    ]
    interval = facts.evidence["ZeroResults"].interval
    assert interval is not None
    assert interval.lower < 0.04 < interval.upper
    for seconds in (59, 60, 600):
        clock.now = case.later(hours=2, seconds=seconds)
        again = await reader.of(model_of(), tenants)
        assert (again is facts) is (seconds < 60)
        assert again == facts
    assert len(source.asked) == 2


async def test_nothing_is_asked_without_a_wave_a_signal_or_a_source() -> None:
    reader, source, clock = signals(hours=2)
    tenants = (switched("a", minutes=-10),)
    bare = case.make_model("b", case.rolling())
    deleted = model_of()
    gone = deleted.metadata.model_copy(update={"deletion_timestamp": case.at()})
    for model in (bare, model_of(wave=None), deleted.model_copy(update={"metadata": gone})):
        assert await reader.of(model, tenants) == SignalFacts(True, {})
    assert source.asked == []
    assert await ModelSignals(None, clock).of(model_of(), tenants) == SignalFacts(False, {})


async def test_what_is_not_read_is_said_and_asked_again_while_the_rest_is_kept() -> None:
    reader, source, clock = signals(hours=3)
    tenants = (switched("a", minutes=-10), switched("b", minutes=50), switched("c", minutes=55))
    source.silent = {window(0).before}
    assert told(await reader.of(model_of(), tenants)) == (0, 0, "0 of 2 windows are read: no answer")
    source.silent, before = set(), len(source.asked)
    clock.now += timedelta(minutes=1)
    assert told(await reader.of(model_of(), tenants)) == (3, 0, "")
    assert [asked for asked, _ in source.asked[before:]] == [window(0).before, window(0)]


async def test_who_switches_within_the_minute_is_pending_at_once_and_nothing_is_asked() -> None:
    reader, source, clock = signals(hours=2)
    first = (switched("a", minutes=-10),)
    assert told(await reader.of(model_of(), first)) == (1, 0, "")
    before = len(source.asked)
    clock.now += timedelta(seconds=20)
    both = (*first, switched("b", hours=2, seconds=10))
    assert told(await reader.of(model_of(), both)) == (1, 1, "")
    assert len(source.asked) == before


async def test_hours_of_which_nothing_is_known_are_asked_about_again_for_an_hour() -> None:
    reader, source, clock = signals(hours=1.5)
    source.unknown = {"shops.a"}
    tenants = (switched("a", minutes=-10),)
    began = format_time(case.later())
    unread = f"0 of 1 windows are read: no search is known of yet of the hours from {began} on"
    assert told(await reader.of(model_of(), tenants)) == (0, 0, unread)
    source.unknown = set()
    clock.now += timedelta(minutes=1)
    assert told(await reader.of(model_of(), tenants)) == (1, 0, "")
    reader, source, clock = signals(hours=2)
    source.unknown = {"shops.a"}
    assert told(await reader.of(model_of(), tenants)) == (0, 0, ""), "then it is taken for what it is: nobody searched"


async def test_a_source_that_hangs_costs_one_wait_and_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_signals, "TURN_SECONDS", 0.05)
    reader, source, clock = signals(hours=2)
    source.hanging = True
    tenants = (switched("a", minutes=-10),)
    async with asyncio.timeout(5):
        facts = await reader.of(model_of(), tenants)
    assert told(facts) == (0, 0, "0 of 1 windows are read: the signals were not all read within 0.05 s")
    source.hanging = False
    clock.now += timedelta(minutes=1)
    assert told(await reader.of(model_of(), tenants)) == (1, 0, "")


async def test_few_windows_are_asked_for_in_a_turn_the_earliest_of_every_signal_first() -> None:
    reader, source, clock = signals(hours=40)
    tenants = tuple(switched(f"t{number}", hours=number, minutes=-10) for number in range(20))
    facts = await reader.of(model_of(ZERO, SLOW), tenants)
    assert len(source.asked) == 2 * WINDOWS_PER_TURN
    half = WINDOWS_PER_TURN // 2
    assert {asked.start for asked, _ in source.asked if asked.start >= case.NOW} == {
        case.later(hours=number) for number in range(half)
    }
    assert told(facts) == told(facts, "SlowSearches") == (half, 0, f"{half} of 20 windows are read")
    turns = 1
    while facts.evidence["SlowSearches"].unread:
        clock.now += timedelta(minutes=1)
        facts = await reader.of(model_of(ZERO, SLOW), tenants)
        turns += 1
    assert (turns, len(source.asked)) == (4, 2 * 2 * 20)
    assert told(facts) == (20, 0, "")


async def test_a_tenant_that_nothing_is_known_of_is_not_counted_and_not_asked_about_again() -> None:
    reader, source, clock = signals(hours=2)
    tenants = (switched("a", minutes=-10), switched("b", minutes=-10))
    source.unknown = {"shops.b"}
    assert told(await reader.of(model_of(), tenants)) == (1, 0, "")
    clock.now += timedelta(hours=1)
    assert told(await reader.of(model_of(), tenants)) == (1, 0, "")
    assert len(source.asked) == 2


async def test_a_tenant_that_comes_into_a_window_later_has_it_asked_for_again() -> None:
    reader, source, clock = signals(hours=2)
    await reader.of(model_of(), (switched("a", minutes=-10),))
    clock.now += timedelta(minutes=1)
    facts = await reader.of(model_of(), (switched("a", minutes=-10), switched("b", minutes=-10)))
    assert told(facts) == (2, 0, "")
    assert source.asked[-1] == (window(0), ("shops.a", "shops.b"))


async def test_another_question_is_asked_at_once_and_another_process_asks_again() -> None:
    reader, source, clock = signals(hours=2)
    tenants = (switched("a", minutes=-10),)
    await reader.of(model_of(), tenants)
    wider = await reader.of(model_of({**ZERO, "margin": "0.5"}), tenants)
    assert told(wider) == (1, 0, "")
    assert len(source.asked) == 2, "the windows are the same"
    longer = await reader.of(model_of({**ZERO, "window": "6h"}), tenants)
    assert told(longer) == (0, 1, "")
    await ModelSignals(source, clock).of(model_of(), tenants)
    assert len(source.asked) == 4


async def test_what_is_known_of_a_tenant_is_only_ever_added_to() -> None:
    reader, source, clock = signals(hours=2)
    names = [f"t{number}" for number in range(30)]
    harmed = set(names[:10])
    source.worse = {f"shops.{name}" for name in harmed}
    tenants = tuple(switched(name, minutes=-10) for name in names)
    first = (await reader.of(model_of(), tenants)).evidence["ZeroResults"]
    assert first.interval is not None
    held = tuple(replace(one, held=one.name in harmed) for one in tenants)
    gone = tuple(one for one in tenants if one.name not in harmed)
    late = (*gone, *(switched(f"late{number}", minutes=-10) for number in range(3)))
    for seen, count in ((held, 30), (gone, 30), (late, 33)):
        clock.now += timedelta(minutes=1)
        then = (await reader.of(model_of(), seen)).evidence["ZeroResults"]
        assert (then.tenants, then.unread) == (count, "")
        assert then.interval is not None
        assert then.interval.lower >= first.interval.lower, "who goes takes no harm that was seen along"
    fresh = (await reader.of(model_of({**ZERO, "margin": "0.5"}), gone)).evidence["ZeroResults"]
    assert fresh.tenants == 20, "another question counts who is there"
