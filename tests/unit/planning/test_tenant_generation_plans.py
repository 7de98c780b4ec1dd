"""Whole plans of a rebuild into another generation: build, fill, one alias action, and what becomes of the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.planning.tenant_facts import (
    CreateCollection,
    CreateIndex,
    CreateReindexJob,
    DropCollection,
    EmitEvent,
    PointAlias,
    TenantPlan,
)
from unit.planning import tenant_cases as case
from unit.planning.tenant_rebuild_cases import (
    ALIAS,
    G1,
    G2,
    MODEL,
    NOW,
    R1,
    R2,
    SETTLED,
    A,
    B,
    job_name,
    named_vector,
    patch,
    plan,
    rebuild_status,
    rebuilding,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.search_tenant import SearchTenant


GERMAN = case.make_tenant({"languages": ["de"]})
WHY = f"analyser {case.lexical().analyser_id} → {case.lexical(tenant=GERMAN).analyser_id} (spec.languages)"
BOUND = case.make_model(case.revision(1))
REQUIRED = (
    "False",
    "RebuildRequired",
    f"{G1} cannot be changed in place: {WHY}; a rebuild mends it",
)
READY_NO = ("False", "RebuildRequired", f"SchemaInSync: {REQUIRED[2]}")


def other_side(since: datetime = SETTLED, **changes: Any) -> Any:
    """Generation 2 with the German analyser, being filled."""
    made = case.make_collection(case.dense(1, 2, at=since, tenant=GERMAN), 2, tenant=GERMAN, **changes)
    lifted = case.design_of(case.dense(1, 2, tenant=GERMAN), 2, tenant=GERMAN, lifted=True, filling=True)
    return replace(made, strict=lifted.strict)


def live_side(since: datetime = SETTLED) -> Any:
    return case.make_collection(case.dense(1), pending=case.dense(1, 2, at=since, tenant=GERMAN))


def test_a_schema_change_builds_the_next_generation_with_its_side() -> None:
    live = case.make_collection(case.dense(1))
    design = case.design_of(case.dense(1, 2, at=NOW, tenant=GERMAN), 2, tenant=GERMAN, lifted=True, filling=True)
    expected = (
        CreateCollection(design),
        CreateIndex(G2, "_deleted", "integer"),
        CreateIndex(G2, "_missed", "keyword"),
        CreateIndex(G2, "_version", "integer"),
        CreateIndex(G2, "price", "float"),
        CreateIndex(G2, "sku", "keyword"),
        PointAlias(A, G2),
    )
    assert plan(GERMAN, case.make_facts(live, model=BOUND)) == TenantPlan(expected, None, 0.0)


def test_pending_is_written_once_the_generation_is_all_there() -> None:
    live = case.make_collection(case.dense(1))
    facts = case.make_facts(live, other_side(points=0), model=BOUND)
    pending = case.dense(1, 2, at=NOW, tenant=GERMAN)
    assert plan(GERMAN, facts) == TenantPlan((patch(G1, pending=pending),), None, 0.0)


def test_a_generation_without_an_index_or_side_is_completed_first() -> None:
    half = other_side(
        points=0, indexes={"_deleted": "integer", "_missed": "keyword", "_version": "integer", "price": "float"}
    )
    facts = case.make_facts(case.make_collection(case.dense(1)), half, model=BOUND)
    assert facts.cell is not None
    facts = replace(facts, cell=replace(facts.cell, aliases={ALIAS: G1, B: G1}))
    expected = (CreateIndex(G2, "sku", "keyword"), PointAlias(A, G2))
    assert plan(GERMAN, facts) == TenantPlan(expected, None, 0.0)


def test_the_schema_rebuild_is_said_and_filled_by_one_job() -> None:
    facts = case.make_facts(live_side(), other_side(), model=BOUND)
    name = job_name("d-s1", R1, SETTLED, tenant=GERMAN)
    status = case.expected_status(
        case.dense(1),
        phase="Progressing",
        conditions=rebuilding(WHY, SchemaInSync=REQUIRED, Ready=READY_NO),
        rebuild=rebuild_status(name, reason=WHY, vector="d-s1", revision=R1, tenant=GERMAN),
    )
    create = CreateReindexJob(name, R1, "BlueGreen", 2, "gpu")
    assert plan(GERMAN, facts) == TenantPlan((create,), status, 15.0)


def german_waiting(name: str, vector: str = "d-s1", revision: str | None = R1) -> SearchTenant:
    rebuild = rebuild_status(name, reason=WHY, vector=vector, revision=revision, tenant=GERMAN)
    return case.make_tenant({"languages": ["de"]}, status={"rebuild": rebuild.to_wire()})


def test_the_blue_green_switch_is_one_alias_action() -> None:
    name = job_name("d-s1", R1, SETTLED, tenant=GERMAN)
    job = case.make_job(name, phase="Verified", verified=True)
    facts = case.make_facts(live_side(), other_side(), model=BOUND, reindex=job, lacking={(A, "d-s1"): 0})
    expected = (
        patch(G2, binding=case.dense(1, 2, at=NOW, tenant=GERMAN), previous=case.dense(1), pending=None),
        PointAlias(ALIAS, G2),
        EmitEvent("BindingSwitched", f"{R1} → {R1}"),
    )
    assert plan(german_waiting(name), facts) == TenantPlan(expected, None, 0.0)


def test_a_lexical_generation_is_counted_too_before_it_is_switched_to() -> None:
    pending = case.lexical(2, at=SETTLED, tenant=GERMAN)
    live = case.make_collection(case.lexical(), pending=pending)
    other = case.make_collection(pending, 2, tenant=GERMAN)
    name = job_name(None, None, SETTLED, tenant=GERMAN)
    job = case.make_job(name, phase="Verified", verified=True)
    tenant = german_waiting(name, "lexical", None)
    for lacking, switched in (({}, False), ({(A, ""): 5}, False), ({(A, ""): 0}, True)):
        found = plan(tenant, case.make_facts(live, other, reindex=job, lacking=lacking))
        assert (PointAlias(ALIAS, G2) in found.actions) is switched


def test_after_the_switch_the_old_generation_is_kept_for_the_window_and_then_dropped() -> None:
    bound = case.dense(1, 2, at=NOW - timedelta(hours=1), tenant=GERMAN)
    live = case.make_collection(bound, 2, previous=case.dense(1), tenant=GERMAN)
    old = case.make_collection(case.dense(1))
    facts = case.make_facts(live, old, model=BOUND, lacking={(B, "d-s1"): 0})
    found = plan(GERMAN, facts)
    assert (found.actions, found.requeue_after) == ((), 71 * 3600.0)
    ended = case.make_collection(case.dense(1, 2, tenant=GERMAN), 2, tenant=GERMAN, released=case.LONG_AGO)
    expected = TenantPlan((DropCollection(G1),), None, 0.0)
    assert plan(GERMAN, case.make_facts(ended, old, model=BOUND)) == expected


def test_the_strategy_is_chosen_by_size_once_and_kept_while_the_collection_grows() -> None:
    large = case.make_collection(case.dense(1), points=20_000)
    first = plan(case.make_tenant(), case.make_facts(large, model=MODEL)).actions[0]
    assert isinstance(first, CreateCollection)
    grown = named_vector(points=50_000)
    found = plan(case.make_tenant(), case.make_facts(grown, model=MODEL))
    assert found.actions == (CreateReindexJob(job_name("d-s2", R2, SETTLED), R2, "NamedVector", 2, "gpu"),)


def test_what_another_rebuild_left_half_filled_is_un_named_then_dropped_never_filled_on() -> None:
    half = case.make_collection(case.dense(9, 2), 2)
    tenant = case.make_tenant()
    live = case.make_collection(case.dense(1), pending=case.dense(9, 2), points=20_000)
    facts = case.make_facts(live, half, model=MODEL)
    assert plan(tenant, facts) == TenantPlan((patch(G1, pending=None),), None, 0.0)
    released = case.make_collection(case.dense(1), points=20_000, released=NOW - timedelta(seconds=5))
    waiting = plan(tenant, case.make_facts(released, half, model=MODEL))
    assert (waiting.actions, waiting.requeue_after) == ((), 25.0)
    settled = case.make_collection(case.dense(1), points=20_000, released=case.LONG_AGO)
    assert plan(tenant, case.make_facts(settled, half, model=MODEL)) == TenantPlan((DropCollection(G2),), None, 0.0)


def test_a_generation_with_documents_that_nothing_names_is_dropped_though_it_has_the_right_vectors() -> None:
    """The same candidate again: what was changed or deleted meanwhile would stay as it was when the filling stopped."""
    live = case.make_collection(case.dense(1), released=case.LONG_AGO)
    assert plan(GERMAN, case.make_facts(live, other_side(points=1), model=BOUND)).actions == (DropCollection(G2),)
    strange = plan(GERMAN, case.make_facts(live, other_side(points=0, dense={"d-s9": 8}), model=BOUND)).actions
    assert strange == (DropCollection(G2),)
    empty = plan(GERMAN, case.make_facts(live, other_side(points=0), model=BOUND)).actions
    assert empty == (patch(G1, pending=case.dense(1, 2, at=NOW, tenant=GERMAN)),)


def test_a_side_that_previous_names_is_given_up_before_it_is_pointed_elsewhere() -> None:
    live = case.make_collection(case.dense(2, 2), 2, previous=case.dense(1), points=20_000)
    old = case.make_collection(case.dense(1), 1)
    facts = case.make_facts(live, old, model=case.make_model(case.revision(3)), lacking={(B, "d-s1"): 0})
    first = plan(case.make_tenant(), facts)
    assert first == TenantPlan((patch(G2, previous=None),), None, 0.0)


@pytest.mark.parametrize("held", ["collection", "alias", "tombstone"])
def test_a_stranger_on_the_next_name_is_a_conflict_and_the_old_side_serves(held: str) -> None:
    stranger = case.make_collection(case.dense(1, 2), 2)
    live = case.make_collection(case.dense(1))
    if held == "tombstone":
        stranger = case.rebind(stranger, deleted_at=case.STAMP, uid="uid-before")
    else:
        stranger = case.rebind(stranger, uid="somebody-else")
    facts = case.make_facts(live, stranger, model=BOUND)
    assert facts.cell is not None
    aliases = {ALIAS: G1, B: G1, **({A: "elsewhere"} if held == "alias" else {})}
    facts = replace(facts, cell=replace(facts.cell, aliases=aliases))
    found = plan(GERMAN, facts)
    assert found.actions == ()
    assert found.status is not None
    reasons = {item.type: item.reason for item in found.status.conditions}
    assert "Conflict" in (reasons.get("ModelBound"), reasons["Ready"])


def test_a_generation_that_vanished_while_it_was_filled_is_begun_anew() -> None:
    facts = case.make_facts(live_side(), model=BOUND)
    assert plan(GERMAN, facts) == TenantPlan((patch(G1, pending=None),), None, 0.0)


def test_a_vector_of_the_binding_that_is_gone_needs_a_rebuild() -> None:
    live = case.make_collection(case.dense(1), dense={})
    first = plan(case.make_tenant(), case.make_facts(live, model=BOUND)).actions[0]
    assert isinstance(first, CreateCollection)
