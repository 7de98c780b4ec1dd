"""Conditions: a transition time moves only with the status; what is cut is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import Condition, format_time
from searchops.planning.conditions import Finding, Truth, clip, find, holds, no, stamp, unknown, yes

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Why(StrEnum):
    GOOD = "Good"
    BAD = "Bad"


def test_the_same_status_keeps_its_time_whatever_else_changes() -> None:
    first = stamp((yes("Ready", Why.GOOD, "a"),), (), 1, NOW)
    later = NOW + timedelta(hours=1)
    kept = stamp((yes("Ready", Why.BAD, "b"),), first, 2, later)
    assert kept == (
        Condition(
            type="Ready",
            status="True",
            reason="Bad",
            message="b",
            observed_generation=2,
            last_transition_time=format_time(NOW),
        ),
    )
    moved = stamp((no("Ready", Why.BAD, "b"),), kept, 2, later)
    assert moved[0].last_transition_time == format_time(later)


TRUTHS: st.SearchStrategy[Truth] = st.sampled_from(("True", "False", "Unknown"))
FINDINGS = st.dictionaries(st.sampled_from(["Ready", "Placed", "Bound"]), TRUTHS).map(
    lambda found: tuple(Finding(kind, status, Why.GOOD) for kind, status in found.items())
)


@given(before=FINDINGS, after=FINDINGS, minutes=st.integers(1, 99))
def test_stamping_is_sorted_stable_and_moves_only_what_moved(
    before: tuple[Finding, ...], after: tuple[Finding, ...], minutes: int
) -> None:
    later = NOW + timedelta(minutes=minutes)
    old = stamp(before, (), 1, NOW)
    new = stamp(after, old, 1, later)
    assert [item.type for item in new] == sorted(finding.type for finding in after)
    for item in new:
        was = find(old, item.type)
        same = was is not None and was.status == item.status
        assert item.last_transition_time == format_time(NOW if same else later)
    assert stamp(reversed(after), new, 1, later + timedelta(days=1)) == new


@given(text=st.text(max_size=3000))
def test_a_message_fits_and_says_where_it_was_cut(text: str) -> None:
    short = clip(text)
    assert len(short) <= 1024
    assert short == text if len(text) <= 1024 else short.endswith("… (shortened)")


def test_unknown_holds_nothing() -> None:
    stamped = stamp((unknown("Ready", Why.BAD, "x"), yes("Placed", Why.GOOD)), (), 1, NOW)
    assert not holds(stamped, "Ready")
    assert holds(stamped, "Placed")
    assert not holds(stamped, "Bound")
    assert find(stamped, "Bound") is None
