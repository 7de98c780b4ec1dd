"""Metadata that somebody else wrote: whatever it says, a plan never fails on it and never writes on its strength."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchops.adapters.qdrant_shapes import flat_metadata
from searchops.api.meta import format_time
from searchops.planning import names
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_deletion import tombstones_due
from searchops.planning.tenant_facts import EmitEvent, PatchCollection, RemoveFinalizer
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.planning.tenant_facts import TenantFacts

NAME = f"{case.ALIAS}@g1"
BINDING = case.dense(1)
OWNERSHIP = (names.KEY_FLEET, names.KEY_NAMESPACE, names.KEY_NAMESPACE_UID, names.KEY_NAME)
BINDINGS = (names.KEY_BINDING, names.KEY_PENDING, names.KEY_PREVIOUS)
OURS = tuple(getattr(names, name) for name in dir(names) if name.startswith("KEY_"))
NO_TEXT: tuple[Any, ...] = (7, 1.5, True, ["prod"], {"searchops.dev/fleet": "prod"}, [], {})
RUNS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def edited(**changes: Any) -> str:
    """The tenant's own binding with fields that another hand has set."""
    return json.dumps({**json.loads(BINDING.to_metadata()), **changes})


UNREADABLE = {
    "empty": "",
    "cut short": BINDING.to_metadata()[:-1],
    "half": BINDING.to_metadata()[: len(BINDING.to_metadata()) // 2],
    "a list": "[]",
    "null": "null",
    "a text": '"d-s1"',
    "no profile": "{}",
    "no time": edited(since="yesterday"),
    "without a time": edited(since=""),
    "before all time": edited(since="0001-01-01T00:00:00+14:00"),
    "after all time": edited(since="9999-12-31T23:59:59Z"),
    "a model that no status holds": edited(model="m" * 257),
    "a vector that no status holds": edited(vector="v" * 257),
    "a side that no status holds": edited(side="s" * 257),
    "another tenant's side": edited(side="prod.shop.other@a"),
    "a bare alias for a side": edited(side=case.ALIAS),
    "half a surrogate": edited(model="\ud800"),
    "a dimension that is none": edited(dimension="eight"),
}


def facts_of(metadata: dict[str, Any], **more: Any) -> TenantFacts:
    """A provisioned tenant whose collection's metadata another hand has written, as the adapter reads it."""
    whole = case.make_collection(BINDING)
    return case.make_facts(
        replace(whole, metadata=flat_metadata(metadata)), model=case.make_model(case.revision(1)), **more
    )


def good() -> dict[str, Any]:
    return dict(case.make_collection(BINDING).metadata)


def conflict(facts: TenantFacts) -> str:
    """The message of a plan that does nothing but say Conflict."""
    plan = plan_tenant(case.make_tenant(), facts, case.SETTINGS, case.NOW)
    assert (plan.actions, plan.requeue_after) == ((), 60.0)
    assert plan.status is not None
    ready = next(item for item in plan.status.conditions if item.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "Conflict")
    return ready.message


@pytest.mark.parametrize("value", [None, "else", *NO_TEXT], ids=repr)
@pytest.mark.parametrize("key", OWNERSHIP)
def test_an_owner_that_is_not_this_one_is_said_and_nothing_is_written(key: str, value: Any) -> None:
    """Missing, another's, or of another type: even where every other key is this tenant's own."""
    message = conflict(facts_of({**good(), key: value}))
    assert NAME in message
    if key != names.KEY_FLEET:
        assert f"{key} is " in message


@pytest.mark.parametrize("value", [None, *NO_TEXT], ids=repr)
def test_a_uid_that_is_none_is_nobodys(value: Any) -> None:
    assert NAME in conflict(facts_of({**good(), names.KEY_UID: value}))


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("key", BINDINGS)
def test_a_binding_that_cannot_be_read_is_named_and_never_written_over(key: str, what: str) -> None:
    message = conflict(facts_of({**good(), key: UNREADABLE[what]}))
    assert message.startswith(f"{key} in the metadata of {NAME} cannot be read; nothing is written there")


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
@pytest.mark.parametrize("key", BINDINGS)
def test_a_binding_that_is_no_text_is_not_taken_for_an_absent_one(key: str, value: Any) -> None:
    nested = {**json.loads(BINDING.to_metadata())} if value == {} else value
    assert conflict(facts_of({**good(), key: nested})).startswith(f"{key} in the metadata of {NAME} cannot be read")


WORDS = st.one_of(
    st.sampled_from(
        [
            *UNREADABLE.values(),
            BINDING.to_metadata(),
            case.dense(2).to_metadata(),
            case.dense(2, 2).to_metadata(),
            case.lexical(2).to_metadata(),
            edited(document="d" * 5000),
            edited(dimension=-(10**30)),
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59Z",
            "2026-11-24",
            format_time(case.NOW - timedelta(hours=90)),
            "9" * 5000,
            "../../../../api/v1/secrets",
        ]
    ),
    st.sampled_from(NO_TEXT),
    st.none(),
    st.text(max_size=40),
)


@st.composite
def damaged(draw: st.DrawFn, number: int) -> CollectionState:
    """A generation of the tenant in whose metadata some keys of ours are another hand's."""
    whole = case.make_collection(case.dense(1, number), number)
    metadata: dict[str, Any] = {**whole.metadata, **draw(st.dictionaries(st.sampled_from(OURS), WORDS, max_size=4))}
    return replace(whole, metadata=flat_metadata(metadata))


@RUNS
@given(first=damaged(1), second=damaged(2), live=st.sampled_from([1, 2]), deleting=st.booleans(), window=st.booleans())
def test_no_metadata_makes_a_plan_fail_or_write_to_what_is_not_ours(
    first: CollectionState, second: CollectionState, live: int, deleting: bool, window: bool
) -> None:
    facts = case.make_facts(first, second, live=live, model=case.make_model(case.revision(1)))
    metadata: dict[str, Any] = {"deletionTimestamp": case.STAMP} if deleting else {}
    tenant = case.make_tenant({"undeleteWindow": "999999h" if window else "0s"}, **metadata)
    plan = plan_tenant(tenant, facts, case.SETTINGS, case.NOW)
    ours = {item.name for item in (first, second) if case.OWNER.owns(item)}
    if not ours and deleting:
        assert {type(action) for action in plan.actions} <= {EmitEvent, RemoveFinalizer}
    handed = [item for item in plan.actions if isinstance(item, PatchCollection) and item.collection not in ours]
    assert all((names.KEY_UID, "uid-1") in item.metadata for item in handed), "only what it takes back by its name"


@RUNS
@given(found=damaged(1), policy=st.sampled_from(["Delete", "Snapshot"]))
def test_the_sweep_drops_only_what_says_all_of_itself(found: CollectionState, policy: str) -> None:
    past = format_time(case.NOW - timedelta(hours=1))
    noted = {names.KEY_POLICY: policy, names.KEY_DELETED_AT: past, names.KEY_DROP_AFTER: past, **found.metadata}
    due = tombstones_due("prod", (replace(found, metadata=noted),), case.NOW)
    if due:
        said = {key: noted.get(key) for key in (names.KEY_FLEET, names.KEY_NAMESPACE, names.KEY_NAME)}
        assert list(said.values()) == ["prod", "shop", "acme"], (
            "the name that is asked for live is the collection's own"
        )
        assert noted[names.KEY_UID]
        assert names.KEY_ADOPTED not in noted


def test_the_sweep_survives_a_note_of_another_hand_beside_one_that_is_due() -> None:
    """One collection's note must not keep the whole round from the others."""
    past = format_time(case.NOW - timedelta(hours=1))
    due = case.rebind(case.make_collection(BINDING), policy="Delete", deleted_at=past, drop_after=past)
    for key in ("deleted_at", "drop_after"):
        for text in ("0001-01-01T00:00:00+14:00", "yesterday", ""):
            bad = replace(case.rebind(due, **{key: text}), name=f"{case.ALIAS}@g7")
            assert tombstones_due("prod", (bad, due), case.NOW) == (due,)
