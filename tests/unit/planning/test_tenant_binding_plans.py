"""Whole plans of bindings that need no filling: kept, flipped, taken back, cleaned up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import format_time
from searchops.planning.names import KEY_BINDING, KEY_PENDING, KEY_PREVIOUS, KEY_RELEASED_AT
from searchops.planning.tenant_facts import (
    DeleteReindexJob,
    DropCollection,
    EmitEvent,
    PatchCollection,
    PointAlias,
    RemoveVector,
    TenantFacts,
    TenantPlan,
)
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.retrieval import Binding

ALIAS, NOW, SETTINGS = case.ALIAS, case.NOW, case.SETTINGS
A, B = f"{ALIAS}@a", f"{ALIAS}@b"
REBUILD = {"reindexJob": "acme-old", "reason": "SpaceChanged", "attempt": 1, "targetSpace": "d-s2/x"}
R1, R2 = case.revision(1).revision, case.revision(2).revision


def plan(tenant: Any, facts: TenantFacts) -> TenantPlan:
    return case.plan_once_foreseen(tenant, facts)


def patch(collection: str, **bindings: Binding | None) -> PatchCollection:
    """The one patch that moves these values; every such patch says when it un-named something."""
    names = {"binding": KEY_BINDING, "pending": KEY_PENDING, "previous": KEY_PREVIOUS}
    values: dict[str, str | None] = {
        names[name]: None if item is None else item.to_metadata() for name, item in bindings.items()
    }
    return PatchCollection(collection, tuple(sorted({**values, KEY_RELEASED_AT: case.STAMP}.items())))


def test_bound_as_wanted_is_ready_and_waits_for_a_change() -> None:
    bound = case.dense(1)
    facts = case.make_facts(case.make_collection(bound), model=case.make_model(case.revision(1)))
    assert plan(case.make_tenant(), facts) == TenantPlan((), case.expected_status(bound))


def test_the_same_space_flips_in_one_patch_without_filling() -> None:
    old, new = case.dense(1), case.dense(2, space="s1", at=NOW)
    live = case.make_collection(old)
    facts = case.make_facts(live, model=case.make_model(case.revision(2, "s1")))
    expected = (
        patch(live.name, binding=new, previous=old, pending=None),
        EmitEvent("BindingSwitched", f"{R1} → {R2} without re-embedding"),
    )
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


def test_a_flip_within_a_space_keeps_the_other_space_that_a_rollback_needs() -> None:
    first, old, new = case.dense(1), case.dense(2), case.dense(3, space="s2", at=NOW)
    live = case.make_collection(old, previous=first)
    facts = case.make_facts(
        live, model=case.make_model(case.revision(1), candidate=case.revision(3, "s2"), fraction="1")
    )
    assert plan(case.make_tenant(), facts).actions[0] == patch(live.name, binding=new, previous=first, pending=None)


def test_a_candidate_whose_waves_have_not_come_binds_nobody() -> None:
    bound = case.dense(1)
    for fraction in (None, "0"):
        model = case.make_model(case.revision(1), candidate=case.revision(2, "s1"), fraction=fraction)
        facts = case.make_facts(case.make_collection(bound), model=model)
        assert plan(case.make_tenant(), facts) == TenantPlan((), case.expected_status(bound))


def test_rolling_back_to_a_fresh_previous_vector_is_one_patch() -> None:
    old, new = case.dense(1), case.dense(2, at=NOW - timedelta(hours=1))
    live = case.make_collection(new, previous=old)
    facts = case.make_facts(live, model=case.make_model(case.revision(1)), lacking={(B, "d-s1"): 0})
    expected = (
        patch(live.name, binding=case.dense(1, at=NOW), previous=new, pending=None),
        EmitEvent("BindingSwitched", f"{R2} → {R1} without re-embedding"),
    )
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


@pytest.mark.parametrize("lacking", [{}, {(B, "d-s1"): 1}, {(A, "d-s1"): 0}])
def test_a_previous_vector_that_is_not_known_to_be_complete_is_filled_again(
    lacking: dict[tuple[str, str], int],
) -> None:
    new = case.dense(2, at=NOW - timedelta(hours=1))
    live = case.make_collection(new, previous=case.dense(1))
    facts = case.make_facts(live, model=case.make_model(case.revision(1)), lacking=lacking)
    expected = (patch(live.name, pending=case.dense(1, at=NOW)),)
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


def test_rolling_back_to_a_fresh_previous_generation_is_one_alias_action() -> None:
    old, new = case.dense(1), case.dense(2, 2, at=NOW - timedelta(hours=1))
    live = case.make_collection(new, 2, previous=old)
    kept = case.make_collection(old, pending=case.dense(2, 2))
    facts = case.make_facts(live, kept, model=case.make_model(case.revision(1)), lacking={(B, "d-s1"): 0})
    expected = (
        patch(kept.name, binding=case.dense(1, at=NOW), previous=new, pending=None),
        PointAlias(ALIAS, kept.name),
        EmitEvent("BindingSwitched", f"{R2} → {R1} on the side that was kept, without re-embedding"),
    )
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


def test_a_schema_change_that_is_reverted_goes_back_to_the_kept_generation() -> None:
    german = case.make_tenant({"languages": ["de"]})
    old, new = case.dense(1), case.dense(1, 2, tenant=german)
    live = case.make_collection(new, 2, previous=old, tenant=german)
    kept = case.make_collection(old)
    facts = case.make_facts(live, kept, model=case.make_model(case.revision(1)), lacking={(B, "d-s1"): 0})
    found = plan(case.make_tenant(), facts)
    assert found.actions[:2] == (
        patch(kept.name, binding=case.dense(1, at=NOW), previous=new, pending=None),
        PointAlias(ALIAS, kept.name),
    )


@pytest.mark.parametrize("count", [None, 3])
def test_a_previous_generation_that_missed_writes_is_not_gone_back_to(count: int | None) -> None:
    new = case.dense(2, 2, at=NOW - timedelta(hours=1))
    live = case.make_collection(new, 2, previous=case.dense(1), points=20_000)
    kept = case.make_collection(case.dense(1))
    lacking = {} if count is None else {(B, "d-s1"): count}
    facts = case.make_facts(live, kept, model=case.make_model(case.revision(1)), lacking=lacking)
    assert not any(isinstance(action, PointAlias) for action in plan(case.make_tenant(), facts).actions)


def test_rolling_back_to_the_lexical_legs_is_one_patch_and_cancels_a_rebuild() -> None:
    old, new = case.dense(1), case.lexical(at=NOW)
    live = case.make_collection(old, pending=case.dense(2))
    expected = (
        DeleteReindexJob("acme-old"),
        patch(live.name, binding=new, previous=old, pending=None),
        EmitEvent("BindingSwitched", f"{R1} → lexical legs without re-embedding"),
    )
    tenant = case.make_tenant(status={"rebuild": REBUILD})
    assert plan(tenant, case.make_facts(live)) == TenantPlan(expected, None, 0.0)


def test_a_model_that_has_not_spoken_takes_no_binding_away() -> None:
    """A re-created model, or one whose status and ConfigMap are lost."""
    bound = case.dense(1)
    facts = case.make_facts(case.make_collection(bound), model=case.make_model(spoken=False))
    said = f"EmbeddingModel enc does not say yet what is active; the tenant keeps {R1}"
    conditions = {
        "ModelBound": ("Unknown", "Waiting", said),
        "Ready": ("False", "Waiting", f"ModelBound: {said}"),
    }
    expected = case.expected_status(bound, conditions=conditions, phase="Progressing")
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected)


def test_a_missing_model_takes_no_binding_away() -> None:
    bound = case.dense(1)
    facts = replace(case.make_facts(case.make_collection(bound)), model=None)
    said = f"spec.model.name: there is no EmbeddingModel 'enc'; create it; the tenant keeps {R1}"
    conditions = {
        "ModelBound": ("False", "ModelNotFound", said),
        "Ready": ("False", "ModelNotFound", f"ModelBound: {said}"),
    }
    expected = case.expected_status(bound, conditions=conditions, phase="Progressing")
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected)


def test_another_models_binding_is_kept_until_the_new_model_has_something() -> None:
    bound = case.dense(1).model_copy(update={"model": "older"})
    facts = case.make_facts(case.make_collection(bound))
    said = f"EmbeddingModel enc has no active revision yet; the tenant keeps {R1} until it has"
    expected = case.expected_status(bound, conditions={"ModelBound": ("False", "NoActiveRevision", said)})
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected)


@pytest.mark.parametrize("fraction", [None, "0"])
def test_a_pin_serves_a_candidate_only_once_its_waves_have_started(fraction: str | None) -> None:
    bound, tenant = case.dense(1), case.make_tenant({"model": {"name": "enc", "revision": R2}})
    model = case.make_model(case.revision(1), candidate=case.revision(2, "s1"), fraction=fraction)
    found = plan(tenant, case.make_facts(case.make_collection(bound), model=model))
    if fraction is None:
        assert found.actions == ()
        assert found.status is not None
        reasons = {item.type: item.reason for item in found.status.conditions}
        assert reasons["ModelBound"] == "ModelNotFound"
    else:
        assert found.actions[-1] == EmitEvent("BindingSwitched", f"{R1} → {R2} without re-embedding")


def test_a_profile_moves_by_one_patch_and_keeps_the_time_of_the_binding() -> None:
    old, tenant = case.dense(1), case.make_tenant({"retrieval": {"profile": "plain"}})
    facts = case.make_facts(case.make_collection(old), model=case.make_model(case.revision(1)))
    found = plan(tenant, facts)
    assert len(found.actions) == 1
    action = found.actions[0]
    assert isinstance(action, PatchCollection)
    moved = dict(action.metadata)[KEY_BINDING]
    assert moved is not None
    assert type(old).from_metadata(moved).profile.name == "plain"
    assert type(old).from_metadata(moved).since == old.since


def test_a_candidate_that_is_taken_back_mid_rebuild_is_cancelled_and_its_side_un_named() -> None:
    bound = case.dense(1)
    live = case.make_collection(bound, pending=case.dense(2))
    facts = case.make_facts(live, model=case.make_model(case.revision(1)))
    expected = (DeleteReindexJob("acme-old"), patch(live.name, pending=None))
    tenant = case.make_tenant(status={"rebuild": REBUILD})
    assert plan(tenant, facts) == TenantPlan(expected, None, 0.0)


def test_leftovers_wait_until_no_gateway_writes_them_any_more() -> None:
    bound = case.dense(1)
    dense = {"d-s1": 8, "d-s2": 8}
    live = case.make_collection(bound, released=NOW - timedelta(seconds=10), dense=dense)
    facts = case.make_facts(live, model=case.make_model(case.revision(1)))
    tenant = case.make_tenant(status={"rebuild": REBUILD})
    assert plan(tenant, facts) == TenantPlan((), case.expected_status(bound), 20.0)


def test_leftovers_are_removed_and_what_anything_names_is_kept() -> None:
    bound, previous = case.dense(1, 3), case.dense(2, 2)
    dense = {"d-s1": 8, "d-s9": 8}
    live = case.make_collection(
        bound.model_copy(update={"since": format_time(NOW)}), 3, previous=previous, dense=dense, released=case.LONG_AGO
    )
    kept = case.make_collection(previous, 2)
    left = case.make_collection(case.dense(4, 1), 1)
    noted = case.rebind(case.make_collection(case.dense(4, 5), 5), deleted_at=case.STAMP, uid="uid-before")
    foreign = case.rebind(case.make_collection(case.dense(4, 7), 7), uid="somebody-else")
    named = case.make_facts(live, kept, left, noted, foreign, model=case.make_model(case.revision(1)))
    assert named.cell is not None
    aliases = {ALIAS: live.name, B: live.name, A: kept.name}
    facts = replace(named, cell=replace(named.cell, aliases=aliases))
    expected = (RemoveVector(live.name, "d-s9"), DropCollection(left.name))
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


def test_inside_the_rollback_window_the_old_side_stays_and_the_end_is_waited_for() -> None:
    since = NOW - timedelta(hours=71)
    bound, old = case.dense(2, at=since), case.dense(1)
    live = case.make_collection(bound, previous=old)
    facts = case.make_facts(live, model=case.make_model(case.revision(2)), lacking={(B, "d-s1"): 0})
    expected = case.expected_status(
        bound,
        conditions={"ModelBound": ("True", "Bound", f"bound to {R2} (active)")},
        previous=case.previous_status(old, since + timedelta(hours=72)).model_copy(update={"lacking": 0}),
    )
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected, 3600.0)


def test_at_the_end_of_the_rollback_window_previous_is_un_named_first() -> None:
    bound = case.dense(2, at=NOW - timedelta(hours=72))
    live = case.make_collection(bound, previous=case.dense(1))
    facts = case.make_facts(live, model=case.make_model(case.revision(2)), lacking={(B, "d-s1"): 0})
    assert plan(case.make_tenant(), facts) == TenantPlan((patch(live.name, previous=None),), None, 0.0)
