"""One status write or none, and finalizers, both guarded by resourceVersion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.runtime.errors import Conflict
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.key import Key
from searchops.runtime.status import StatusWriter, keep_transition_times, merge_patch, without_none
from unit.runtime.objects import FakeApi, apply_merge_patch, make_cache

if TYPE_CHECKING:
    from searchops.runtime.cache import CachedObject, ObjectCache

A = Key("shop", "a")
OURS = "example.dev/ours"
SCALARS = st.one_of(st.booleans(), st.integers(-5, 5), st.text("xyz", max_size=3))
NAMES = st.sampled_from(["a", "b", "c"])
OBJECTS = st.recursive(
    st.dictionaries(NAMES, SCALARS, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=2), inner), max_size=3),
    max_leaves=12,
)


def condition(kind: str, status: str, time: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": time, **more}


def stored(api: FakeApi, cache: ObjectCache[str]) -> CachedObject:
    cache.apply("MODIFIED", api.objects[A])
    found = cache.get(A)
    assert found is not None
    return found


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_makes_the_new_out_of_the_old_and_is_empty_only_where_nothing_differs(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    patch = merge_patch(old, new)
    assert apply_merge_patch(old, patch) == new
    assert (not patch) == (old == new)


def test_removed_keys_become_null() -> None:
    assert merge_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2}}) == {"a": None, "b": {"c": None}}


def test_values_of_none_are_as_if_they_were_not_there() -> None:
    assert without_none({"a": None, "b": [{"c": None, "d": (1, None)}]}) == {"b": [{"d": [1, None]}]}


async def test_a_new_status_is_one_write_and_the_same_again_is_none() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a")
    writer = StatusWriter(api, cache)
    status = {"phase": "Ready", "conditions": [condition("Ready", "True", "2026-01-01T00:00:00Z")]}
    assert await writer.write_if_changed(stored(api, cache), status)
    assert cache.is_stale(A), "the guard knows of the write"
    later = {"phase": "Ready", "conditions": [condition("Ready", "True", "2026-02-02T00:00:00Z")]}
    assert not await writer.write_if_changed(stored(api, cache), later)
    assert not cache.is_stale(A)
    assert len(api.writes) == 1
    plural, body = api.writes[0]
    assert plural == "things/status"
    assert body["metadata"] == {"resourceVersion": "101"}


@pytest.mark.parametrize(
    "same",
    [
        {"conditions": [condition("B", "False", "t9"), condition("A", "True", "t9")], "n": 1},
        {"conditions": (condition("A", "True", ""), condition("B", "False", "t2")), "n": 1, "gone": None},
        {"n": 1, "conditions": [condition("A", "True", "t1"), condition("B", "False", "t2")]},
    ],
)
async def test_a_status_of_the_same_meaning_is_not_written(same: dict[str, Any]) -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a", status={"n": 1, "conditions": [condition("A", "True", "t1"), condition("B", "False", "t2")]})
    assert not await StatusWriter(api, cache).write_if_changed(stored(api, cache), same)
    assert api.writes == []


async def test_a_transition_time_moves_only_with_its_own_status() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a", status={"conditions": [condition("A", "True", "t1"), condition("B", "True", "t1")], "old": 1})
    new = {"conditions": [condition("A", "True", "t2", message="new"), condition("B", "False", "t2")]}
    assert await StatusWriter(api, cache).write_if_changed(stored(api, cache), new)
    written = api.objects[A]["status"]
    assert [found["lastTransitionTime"] for found in written["conditions"]] == ["t1", "t2"]
    assert written["conditions"][0]["message"] == "new"
    assert "old" not in written


def test_conditions_that_are_new_come_last_and_dropped_ones_go() -> None:
    old = [condition("A", "True", "t1"), condition("B", "True", "t1")]
    new = [condition("C", "True", "t2"), condition("B", "True", "t2")]
    assert [(c["type"], c["lastTransitionTime"]) for c in keep_transition_times(old, new)] == [("B", "t1"), ("C", "t2")]


async def test_a_write_over_a_newer_object_is_a_conflict_and_is_not_noted() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a")
    cached = stored(api, cache)
    api.put("a", labels={"somebody": "else"})
    with pytest.raises(Conflict, match="wanted 101"):
        await StatusWriter(api, cache).write_if_changed(cached, {"phase": "Ready"})
    with pytest.raises(Conflict, match="wanted 101"):
        await Finalizer(OURS, api, cache).add(cached)
    assert not cache.is_stale(A)
    assert "status" not in api.objects[A]


async def test_a_status_that_the_api_server_prunes_is_said_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    class Pruning(FakeApi):
        async def patch_status(self, plural: str, namespace: str, name: str, body: Any) -> str:
            self.writes.append((plural, body))
            return str(body["metadata"]["resourceVersion"])

    api, cache = Pruning(), make_cache()
    api.put("a")
    assert not await StatusWriter(api, cache).write_if_changed(stored(api, cache), {"unknown": 1})
    assert not cache.is_stale(A)
    assert "pruned" in caplog.text


async def test_writes_wait_for_the_throttle_and_unchanged_ones_do_not() -> None:
    taken: list[str] = []

    async def throttle() -> None:
        taken.append("token")

    api, cache = FakeApi(), make_cache()
    api.put("a")
    writer = StatusWriter(api, cache, throttle=throttle)
    await writer.write_if_changed(stored(api, cache), {"n": 1})
    await writer.write_if_changed(stored(api, cache), {"n": 1})
    await Finalizer(OURS, api, cache, throttle=throttle).add(stored(api, cache))
    await Finalizer(OURS, api, cache, throttle=throttle).add(stored(api, cache))
    assert len(taken) == 2


async def test_a_finalizer_and_its_annotation_go_in_one_write_beside_those_of_others() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a", finalizers=["others"], annotations={"keep": "1"})
    finalizer = Finalizer(OURS, api, cache)
    assert await finalizer.add(stored(api, cache), {"example.dev/cell": "eu-1"})
    assert len(api.writes) == 1
    found = stored(api, cache)
    assert found.finalizers == ("others", OURS)
    assert found.annotations == {"keep": "1", "example.dev/cell": "eu-1"}
    assert not await finalizer.add(found, {"example.dev/cell": "eu-1"})
    assert await finalizer.remove(found)
    assert stored(api, cache).finalizers == ("others",)
    assert not await finalizer.remove(stored(api, cache))
    assert len(api.writes) == 2


async def test_an_object_that_is_being_deleted_takes_no_finalizer() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a", deletionTimestamp="2026-01-01T00:00:00Z")
    assert not await Finalizer(OURS, api, cache).add(stored(api, cache))
    assert api.writes == []


async def test_annotations_are_set_and_removed_and_left_where_equal() -> None:
    api, cache = FakeApi(), make_cache()
    api.put("a", annotations={"x": "1", "y": "2"})
    finalizer = Finalizer(OURS, api, cache)
    assert await finalizer.annotate(stored(api, cache), {"x": None, "z": "3"})
    assert stored(api, cache).annotations == {"y": "2", "z": "3"}
    assert not await finalizer.annotate(stored(api, cache), {"x": None, "y": "2"})
