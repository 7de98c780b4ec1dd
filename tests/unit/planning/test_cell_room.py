"""A cell without room: where nothing begins, what goes on, and what its tenants say of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import parse_time
from searchops.api.room import CellHold
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.cell_room import (
    AGAIN_WITHIN,
    FIRST_TRY,
    LONGEST_WAIT,
    begun,
    held_message,
    is_due,
    still_held,
    tries_of_earlier,
)
from searchops.planning.conditions import Finding
from searchops.planning.placement import NotPlaced, Placed, place
from searchops.planning.quotas import room_finding
from searchops.planning.tenant import held, plan_tenant
from searchops.planning.tenant_facts import (
    AddFinalizer,
    AddVector,
    CreateCollection,
    CreateReindexJob,
    PatchCollection,
    TenantPlan,
)
from unit.planning import tenant_cases as case
from unit.planning.tenant_rebuild_cases import named_vector, rebuild_status

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1 import EmbeddingModel, SearchTenant

SAID = "cell eu-1 answered 507 to create x: disk"
HOLD = begun(SAID, 12, case.NOW)
HELD = {"eu-1": HOLD}


def plan_of(
    holds: dict[str, CellHold],
    *collections: CollectionState,
    model: EmbeddingModel | None = None,
    tenant: SearchTenant | None = None,
) -> TenantPlan:
    facts = case.make_facts(*collections, model=model, holds=holds)
    return case.plan_once_foreseen(tenant or case.make_tenant(), facts)


def test_a_hold_says_since_when_how_many_and_what_to_do() -> None:
    said = held_message("eu-1", HOLD)
    for part in ("eu-1", case.STAMP, "12 tenants", "searches go on", "add a cell", "ends by itself", SAID):
        assert part in said


@given(tries=st.integers(0, 200), seconds=st.integers(0, 10**6))
def test_a_proof_is_tried_ever_more_rarely_within_bounds_and_the_message_stays(tries: int, seconds: int) -> None:
    hold = HOLD.model_copy(update={"tries": tries})
    now = case.NOW + timedelta(seconds=seconds)
    after = still_held(hold, now)
    wait = parse_time(after.next_try) - now
    assert FIRST_TRY <= wait <= LONGEST_WAIT
    assert not is_due(after, now)
    assert is_due(after, now + LONGEST_WAIT)
    assert held_message("eu-1", after) == held_message("eu-1", hold)
    assert CellHold.model_validate_json(after.model_dump_json()) == after


@pytest.mark.parametrize("text", ["", "soon", "2026-13-41T00:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01"])
def test_a_record_that_tells_no_time_is_due_and_the_next_proof_mends_it(text: str) -> None:
    broken = HOLD.model_copy(update={"next_try": text})
    assert is_due(broken, case.NOW)
    mended = still_held(broken, case.NOW)
    assert parse_time(mended.next_try) > case.NOW
    assert not is_due(mended, case.NOW)


def test_a_hold_that_begins_again_soon_goes_on_at_its_pace() -> None:
    assert tries_of_earlier(None, case.NOW) == 0
    assert tries_of_earlier((case.NOW - AGAIN_WITHIN, 3), case.NOW) == 4
    assert tries_of_earlier((case.NOW - AGAIN_WITHIN - timedelta(seconds=1), 3), case.NOW) == 0
    again = begun(SAID, 1, case.NOW, tries=4)
    assert parse_time(again.next_try) == case.NOW + LONGEST_WAIT


def test_nothing_is_placed_on_a_held_cell() -> None:
    cells = (case.make_cell(), case.make_cell(cell=case.registration("eu-2"), collections=("a", "b")))
    chosen = place(
        case.make_tenant().spec.placement.cell_selector,
        cells,
        alias=case.ALIAS,
        grants={},
        identity_ok={"eu-1": True, "eu-2": True},
        holds=HELD,
    )
    assert chosen == Placed("eu-2"), "the emptier one is out of disk"
    none_left = place(
        case.make_tenant().spec.placement.cell_selector,
        cells[:1],
        alias=case.ALIAS,
        grants={},
        identity_ok={"eu-1": True},
        holds=HELD,
    )
    assert isinstance(none_left, NotPlaced)
    assert f"out of disk or memory since {case.STAMP}" in none_left.message


def test_the_cell_of_a_tenant_stays_its_cell_where_its_alias_is_there() -> None:
    cell = case.make_cell(aliases={case.ALIAS: f"{case.ALIAS}@g1"})
    tenant = case.make_tenant(annotations={}, finalizers=[])
    facts = case.make_facts(cell=cell, holds=HELD)
    assert plan_tenant(tenant, facts, case.SETTINGS, case.NOW) == TenantPlan((AddFinalizer("eu-1"),), None, 0.0)


def test_nothing_is_created_there_and_the_tenant_says_why_and_keeps_its_cell() -> None:
    said = held_message("eu-1", HOLD)
    others = {"Placed": case.GOOD["Placed"], "QuotaOK": ("False", "CellFull", said)}
    assert plan_of(HELD) == TenantPlan((), case.unready_status("CellFull", said, phase="Pending", others=others), 30.0)
    other = plan_of({"eu-2": HOLD})
    assert other == plan_of({}), "another cell's hold is none of its business"
    assert any(isinstance(action, CreateCollection) for action in other.actions)


SERVED = case.make_collection(case.dense(1))
FULL = ("False", "CellFull", f"this tenant has 100 points there (estimated); {held_message('eu-1', HOLD)}")


def test_a_tenant_that_serves_is_ready_and_says_that_its_writes_are_refused() -> None:
    tenant, model = case.make_tenant(), case.make_model(case.revision(1))
    status = case.expected_status(case.dense(1), conditions={"QuotaOK": FULL})
    assert plan_of(HELD, SERVED, model=model) == TenantPlan((), status, None)
    after = case.make_tenant(status=status.to_wire())
    assert plan_of({}, SERVED, model=model, tenant=after) == plan_of({}, SERVED, model=model, tenant=tenant)


def test_the_tenants_own_quota_is_never_called_the_cells_and_both_are_said_where_both_bind() -> None:
    tenant = case.make_tenant({"quotas": {"maxPoints": 100}})
    own = room_finding(tenant, SERVED, "eu-1", None)
    assert (own.status, own.reason) == ("False", "QuotaExceeded")
    both = room_finding(tenant, SERVED, "eu-1", HOLD)
    assert both == Finding("QuotaOK", "False", TenantReason.CELL_FULL, f"{FULL[2]}. Besides: {own.message}")


@pytest.mark.parametrize(("points", "wanted"), [(100, AddVector), (30_000, CreateCollection)])
def test_no_rebuild_begins_there_and_the_old_side_serves(points: int, wanted: type) -> None:
    live, model = replace(SERVED, points=points), case.make_model(case.revision(2))
    assert any(isinstance(action, wanted) for action in plan_of({}, live, model=model).actions)
    said = f"a rebuild waits, and the old side serves meanwhile: {held_message('eu-1', HOLD)}"
    conditions = {
        "QuotaOK": (*FULL[:2], FULL[2].replace("100 points", f"{points} points")),
        "ModelBound": ("False", "CellFull", said),
        "Ready": ("False", "CellFull", f"ModelBound: {said}"),
    }
    status = case.expected_status(case.dense(1), conditions=conditions, points=points, phase="Progressing")
    assert plan_of(HELD, live, model=model) == TenantPlan((), status, 60.0)


def test_a_prepared_side_is_not_filled_and_a_verified_one_is_switched_to() -> None:
    model, live = case.make_model(case.revision(2)), named_vector()
    (create,) = plan_of({}, live, model=model).actions
    assert isinstance(create, CreateReindexJob)
    waiting = plan_of(HELD, live, model=model)
    assert (waiting.actions, waiting.requeue_after) == ((), 60.0)
    assert waiting.status is not None
    assert waiting.status.rebuild == rebuild_status(create.name), "named, so that it begins as soon as it may"
    tenant = case.make_tenant(status=waiting.status.to_wire())
    job, lacking = case.make_job(create.name, verified=True), {(f"{case.ALIAS}@b", "d-s2"): 0}
    facts = replace(case.make_facts(live, model=model), reindex=job, lacking=lacking)
    switched = plan_tenant(tenant, facts, case.SETTINGS, case.NOW)
    assert any(isinstance(action, PatchCollection) for action in switched.actions)
    assert plan_tenant(tenant, replace(facts, holds=HELD), case.SETTINGS, case.NOW) == switched


def test_after_a_refused_write_what_serves_stays_ready() -> None:
    said = held_message("eu-1", HOLD)
    ready = case.expected_status(case.dense(1))
    full = {"QuotaOK": ("False", "CellFull", said)}
    assert held(case.make_tenant(status=ready.to_wire()), "eu-1", HOLD, case.NOW) == case.expected_status(
        case.dense(1), conditions=full
    )
    assert held(case.make_tenant(), "eu-1", HOLD, case.NOW) == case.unready_status(
        "CellFull", said, phase="Pending", others=full
    )
