"""Which hours are asked about for each tenant that switched, and what is made of the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.live_signals import Share, Window
from searchops.api.meta import format_time
from searchops.planning.signal_evidence import (
    ALPHA,
    MIN_SEARCHES,
    Asked,
    Evidence,
    counted,
    differences,
    weigh,
)
from searchops.planning.signal_windows import LAG, MAX_WINDOWS, asked_of, hours_of, switched_by_hour, windows_of
from searchops.planning.waves import position
from unit.planning import rollout_cases as case

NEW = case.built("b", 2)
SIGNAL = {"name": "ZeroResults", "margin": "0.02"}


def model_of(*signals: dict[str, Any], **status: Any) -> Any:
    return case.make_model("b", case.rolling(**status), rollout={"signals": list(signals or (SIGNAL,))})


def windows(now: datetime, *tenants: Any, **signal: Any) -> tuple[dict[Window, tuple[str, ...]], int]:
    model = model_of({**SIGNAL, **signal})
    declared = model.spec.rollout.signals[0]
    asked = asked_of(model, declared, case.at())
    assert asked is not None
    switched, pending = switched_by_hour(asked, tenants, hours_of(declared), now)
    found = windows_of(declared, switched)
    return {window: tuple(item.removeprefix("shops.") for item in inside) for window, inside in found.items()}, pending


def flipped(name: str, since: datetime | None, **update: Any) -> Any:
    return case.tenant(name, NEW, since=format_time(since) if since else None, **update)


@pytest.mark.parametrize(
    ("since", "hour"),
    [
        ("10:00:00", 11),
        ("09:59:00", 10),
        ("09:59:01", 11),
        ("09:12:30", 10),
    ],
)
def test_the_first_whole_hour_after_the_switch_has_settled(since: str, hour: int) -> None:
    moment = datetime.fromisoformat(f"2026-11-24T{since}+00:00")
    start = case.NOW.replace(hour=hour)
    assert windows(case.later(days=1), flipped("acme", moment)) == (
        {Window("ZeroResults", None, start, 1): ("acme",)},
        0,
    )


def test_the_window_before_is_that_of_the_same_weekday_and_hour_and_lies_before_the_switch() -> None:
    window = Window("SlowSearches", "250ms", case.NOW, 6)
    before = window.before
    assert before == Window("SlowSearches", "250ms", case.later(days=-7), 6)
    assert (before.start.weekday(), before.start.hour) == (window.start.weekday(), window.start.hour)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.sampled_from(["1h", "6h", "24h"]))
def test_no_window_holds_the_switch(naive: datetime, length: str) -> None:
    since = naive.replace(microsecond=0, tzinfo=UTC)
    found, pending = windows(since + timedelta(days=3), flipped("acme", since), window=length)
    (window,) = found
    assert pending == 0
    assert since < window.start <= since + timedelta(minutes=61)
    assert window.before.end <= since
    assert window.end - window.start == timedelta(hours=window.hours)


def test_a_window_is_asked_for_once_it_is_over_and_scraped() -> None:
    tenant = flipped("acme", case.later(minutes=-30))
    end = case.later(hours=1) + LAG
    assert windows(end - timedelta(seconds=1), tenant) == ({}, 1)
    assert windows(end, tenant) == ({Window("ZeroResults", None, case.NOW, 1): ("acme",)}, 0)


def test_only_tenants_of_the_wave_that_switched_are_asked_about_in_the_order_of_their_places() -> None:
    since = case.later(hours=-2)
    found, pending = windows(
        case.later(hours=2),
        *(flipped(f"t{number}", since) for number in range(4)),
        flipped("early", case.later(hours=-5)),
        flipped("t4", since, held=True),
        flipped("unknown", None),
        case.tenant("garbled", NEW, since="yesterday"),
        case.tenant("waits", case.promoted(), since=case.at(hours=-2)),
    )
    hour = case.NOW - timedelta(hours=1)
    assert list(found) == [
        Window("ZeroResults", None, hour - timedelta(hours=3), 1),
        Window("ZeroResults", None, hour, 1),
    ]
    places = sorted((position("shops", f"t{number}"), f"t{number}") for number in range(5))
    assert found[Window("ZeroResults", None, hour, 1)] == tuple(name for _, name in places)
    assert pending == 0
    again, _ = windows(case.later(hours=2), *(flipped(f"t{number}", since) for number in (3, 1, 4, 0, 2)))
    assert again[Window("ZeroResults", None, hour, 1)] == found[Window("ZeroResults", None, hour, 1)]


def test_the_hours_asked_about_are_bounded_and_the_earliest_stay() -> None:
    tenants = [flipped(f"t{number}", case.later(hours=number)) for number in range(MAX_WINDOWS + 20)]
    found, _ = windows(case.later(days=30), *tenants)
    assert len(found) == MAX_WINDOWS
    assert min(window.start for window in found) == case.later(hours=1)


@pytest.mark.parametrize("status", [{"wave": None}, {"candidate": None, "wave": None}])
def test_nothing_is_asked_while_no_wave_runs(status: dict[str, Any]) -> None:
    model = model_of(**status)
    assert asked_of(model, model.spec.rollout.signals[0], case.at()) is None


def test_the_question_is_the_signal_but_for_what_follows_from_it() -> None:
    def question(**update: Any) -> str:
        model = model_of({**SIGNAL, **update})
        asked = asked_of(model, model.spec.rollout.signals[0], case.at())
        assert asked is not None
        return asked.question

    assert question() == question(onUnknown="Hold") == question(window="1h")
    assert len({question(), question(margin="0.03"), question(window="6h")}) == 3


def test_a_tenant_counts_where_both_windows_tell() -> None:
    enough, few = float(MIN_SEARCHES), MIN_SEARCHES - 0.5
    before = {"a": Share(enough, 2), "b": Share(few, 0), "c": Share(100, 0), "d": Share(100, 0), "e": Share(50, 50.4)}
    now = {"a": Share(40, 12), "b": Share(100, 0), "c": Share(few, 0), "e": Share(50, 0), "f": Share(100, 0)}
    assert differences(before, now) == {"a": pytest.approx(0.2), "e": -1.0}


def test_evidence_ends_at_the_first_window_that_is_not_read() -> None:
    one, two, three = (Window("Errors", None, case.later(hours=hour), 1) for hour in range(3))
    tenants = {one: ("shops.a", "shops.b"), two: ("shops.c",), three: ("shops.d",)}
    read = {one: {"shops.b": 0.1, "shops.a": 0.2}, three: {"shops.d": 0.3}}
    found, number = counted(tenants, read)
    assert (list(found.items()), number) == ([("shops.a", 0.2), ("shops.b", 0.1)], 1)
    found, number = counted(tenants, {**read, two: {}})
    assert (list(found.values()), number) == ([0.2, 0.1, 0.3], 3)
    assert counted({}, {}) == ({}, 0)


def test_evidence_is_bounds_where_there_is_anything() -> None:
    asked = Asked("r2", "q", "", None)
    assert weigh(asked, (), pending=3, unread="no answer") == Evidence(asked, 0, None, 3, "no answer")
    found = weigh(asked, (0.0,) * 100)
    assert found.interval is not None
    assert found.interval.lower < 0 < found.interval.upper
    assert (found.tenants, ALPHA) == (100, 0.05)
