"""The cache: events in any order, the read-your-writes guard, indices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.runtime.cache import LAST_APPLIED, SHARED_TEXT, CachedObject, Change, Freshness, compare_versions
from searchops.runtime.key import Key
from unit.runtime.objects import make_cache, raw_object

if TYPE_CHECKING:
    from collections.abc import Iterable

A = Key("shop", "a")


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ("9", "10", -1),
        ("10", "9", 1),
        ("10", "10", 0),
        ("99999999999999999999999", "100000000000000000000000", -1),
        ("abc", "abc", 0),
        ("abc", "abd", None),
        ("010", "9", None),
        ("", "9", None),
        ("-1", "9", None),
    ],
)
def test_versions_are_ordered_only_where_both_are_plain_numbers(one: str, other: str, order: int | None) -> None:
    assert compare_versions(one, other) == order


def test_events_change_the_cache_and_say_how() -> None:
    cache = make_cache()
    assert cache.apply(None, raw_object("a", version="5")) is Change.ADDED
    assert cache.apply("ADDED", raw_object("a", version="5")) is Change.UNCHANGED
    assert cache.apply("MODIFIED", raw_object("a", version="7")) is Change.MODIFIED
    assert cache.apply("MODIFIED", raw_object("a", version="6")) is Change.OUTDATED
    assert cache.typed(A) == "a"
    assert cache.apply("DELETED", raw_object("a", version="8")) is Change.DELETED
    assert cache.get(A) is None
    assert cache.typed(A) is None


def test_what_comes_late_of_a_deleted_object_does_not_bring_it_back() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="5"))
    cache.apply("DELETED", raw_object("a", version="8"))
    assert cache.apply("MODIFIED", raw_object("a", version="7")) is Change.OUTDATED
    assert A not in cache


def test_the_deletion_of_an_earlier_namesake_leaves_the_new_object() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", uid="old", version="5"))
    assert cache.apply("ADDED", raw_object("a", uid="new", version="9")) is Change.ADDED
    assert cache.apply("DELETED", raw_object("a", uid="old", version="8")) is Change.OUTDATED
    found = cache.get(A)
    assert found is not None
    assert found.uid == "new"


@given(st.permutations(list(range(6))), st.integers(0, 5))
def test_the_cache_ends_at_the_newest_state_in_whatever_order_events_come(order: list[int], deleted: int) -> None:
    """One object through versions 1 to 6, the version after `deleted` being a new object of the same name."""
    cache = make_cache()
    for step in order:
        uid = "first" if step <= deleted else "second"
        kind = "DELETED" if step == deleted else "MODIFIED"
        cache.apply(kind, raw_object("a", uid=uid, version=str(step + 1)))
    found = cache.get(A)
    if deleted == 5:
        assert found is None
    else:
        assert found is not None
        assert (found.uid, found.resource_version) == ("second", "6")


def test_what_no_controller_reads_is_not_kept_and_the_event_is_not_changed() -> None:
    raw = raw_object("a", managedFields=[{"manager": "x"}], annotations={LAST_APPLIED: "{}", "mine": "1"})
    cache = make_cache()
    cache.apply("ADDED", raw)
    found = cache.get(A)
    assert found is not None
    assert "managedFields" not in found.metadata
    assert found.annotations == {"mine": "1"}
    assert raw["metadata"]["managedFields"]
    assert LAST_APPLIED in raw["metadata"]["annotations"]


def test_the_guard_waits_for_our_write_and_then_asks_for_a_live_read() -> None:
    clock = [0.0]
    cache = make_cache(guard_seconds=10, now=lambda: clock[0])
    cache.apply("ADDED", raw_object("a", version="5"))
    assert not cache.is_stale(A)
    cache.note_write(A, "9")
    assert cache.freshness(A) is Freshness.BEHIND
    cache.apply("MODIFIED", raw_object("a", version="7"))
    assert cache.is_stale(A), "a version between is still older than our write"
    clock[0] = 10.5
    assert cache.freshness(A) is Freshness.OVERDUE
    cache.accept_live(A, "uid-a", raw_object("a", version="12"))
    assert not cache.is_stale(A)
    found = cache.get(A)
    assert found is not None
    assert found.resource_version == "12"


@pytest.mark.parametrize(("noted", "seen", "stale"), [("9", "8", True), ("9", "9", False), ("9", "11", False)])
def test_a_version_at_or_past_our_write_ends_the_wait(noted: str, seen: str, stale: bool) -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="5"))
    cache.note_write(A, noted)
    cache.apply("MODIFIED", raw_object("a", version=seen))
    assert cache.is_stale(A) is stale


def test_opaque_versions_are_fresh_only_when_equal() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="x1"))
    cache.note_write(A, "x9")
    cache.apply("MODIFIED", raw_object("a", version="x5"))
    assert cache.is_stale(A)
    cache.apply("MODIFIED", raw_object("a", version="x9"))
    assert not cache.is_stale(A)


def test_a_write_that_came_back_before_its_answer_is_not_waited_for() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="9"))
    cache.note_write(A, "9")
    cache.note_write(A, "8")
    assert not cache.is_stale(A)


def test_the_echo_of_our_write_is_told_apart_unless_somebody_waits_for_it() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="5"))
    cache.note_write(A, "9")
    assert cache.apply("MODIFIED", raw_object("a", version="9")) is Change.ECHO
    cache.note_write(A, "12")
    assert cache.is_stale(A)
    assert cache.apply("MODIFIED", raw_object("a", version="12")) is Change.MODIFIED
    cache.note_write(A, "14")
    assert cache.apply("MODIFIED", raw_object("a", version="15")) is Change.MODIFIED


def test_a_deletion_ends_the_guard() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", version="5"))
    cache.note_write(A, "9")
    cache.apply("DELETED", raw_object("a", version="10"))
    assert not cache.is_stale(A)
    cache.note_write(A, "11")
    assert not cache.is_stale(A), "there is nothing left to be behind"


def test_drop_takes_only_the_object_that_was_read() -> None:
    cache = make_cache()
    cache.apply("ADDED", raw_object("a", uid="new", version="9"))
    assert not cache.drop(A, "old")
    assert A in cache
    assert cache.drop(A, "new")
    assert A not in cache


def test_an_index_follows_labels_through_changes_and_deletions() -> None:
    def owner(found: CachedObject) -> Iterable[str]:
        return [found.labels["owner"]] if "owner" in found.labels else []

    cache = make_cache()
    cache.apply("ADDED", raw_object("early", version="1", labels={"owner": "x"}))
    cache.add_index("owner", owner)
    cache.apply("ADDED", raw_object("a", version="2", labels={"owner": "x"}))
    cache.apply("ADDED", raw_object("b", version="3"))

    def names(value: str) -> list[str]:
        return sorted(found.key.name for found in cache.by_index("owner", value))

    assert names("x") == ["a", "early"]
    cache.apply("MODIFIED", raw_object("a", version="4", labels={"owner": "y"}))
    assert (names("x"), names("y")) == (["early"], ["a"])
    cache.apply("DELETED", raw_object("a", version="5"))
    assert names("y") == []


def test_listeners_hear_of_every_event_until_they_stop() -> None:
    cache = make_cache()
    heard: list[tuple[Change, Any]] = []
    stop = cache.subscribe(lambda change, seen: heard.append((change, seen.uid)))
    cache.apply("ADDED", raw_object("a", version="5"))
    cache.drop(A, "uid-a")
    stop()
    cache.apply("ADDED", raw_object("b", version="6"))
    assert heard == [(Change.ADDED, "uid-a"), (Change.DELETED, "uid-a")]


def test_an_arrival_is_that_of_the_very_object() -> None:
    cache = make_cache()
    cache.apply(None, raw_object("a", uid="1", version="5"))
    before = cache.arrivals
    assert cache.arrival(A) <= before
    cache.apply("MODIFIED", raw_object("a", uid="1", version="6"))
    assert cache.arrival(A) <= before, "a change is no arrival"
    cache.apply("MODIFIED", raw_object("a", uid="2", version="7"))
    assert cache.arrival(A) > before, "another object under the same name"
    cache.apply("DELETED", raw_object("a", uid="2", version="8"))
    assert cache.arrival(A) > cache.arrivals, "what is not here has arrived before nothing"


def test_objects_have_their_names_and_short_texts_in_common_and_are_what_they_were() -> None:
    texts = {"reason": "Provi" + "sioned", "message": "m" * (SHARED_TEXT + 1), "count": 3, "ready": True, "none": None}
    status = {"conditions": [texts, {**texts, "ratio": 0.5}]}
    cache = make_cache()
    for name, version in (("a", "1"), ("b", "2")):
        cache.apply("ADDED", json.loads(json.dumps({**raw_object(name, version=version), "status": status})))
    one, other = (found.raw["status"]["conditions"][0] for found in cache)
    assert [found.raw["status"] for found in cache] == [status, status]
    assert one is not other
    assert one["reason"] is other["reason"]
    assert [id(name) for name in one] == [id(name) for name in other]
    assert one["message"] is not other["message"], "what is long is hardly the same twice"
