"""Cells whose shared collections, or records in them, cannot be read: who waits, what is said, and who goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.v1alpha1.search_tenant_status import IsolationStatus
from searchops.planning import tenant_facts as act
from searchops.planning.names import KEY_DELETED_AT, KEY_DROPPING
from searchops.planning.tenant import plan_tenant
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CellState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.tenant_facts import TenantPlan

ALIAS, NOW = case.ALIAS, case.NOW
SHARED = "prod@shared-0a1b2c3d-0"
UNREAD = (
    f"{SHARED} on cell eu-1 cannot be read, and the tenant's points may stand there; nothing is changed until it can"
)
LOST = "the tenant's record, metadata key searchops.dev/t.uid-1 of a shared collection on cell eu-1"


def cell(**changes: Any) -> CellState:
    return replace(case.make_cell({}, (SHARED,), shared=frozenset({SHARED})), **changes)


def plan(tenant: SearchTenant, found: CellState, *collections: Any) -> TenantPlan:
    facts = case.make_facts(*collections, cell=found, model=case.make_model(case.revision(1)))
    return plan_tenant(tenant, facts, case.SETTINGS, NOW)


def standing(mode: str, **more: Any) -> dict[str, Any]:
    isolation = IsolationStatus(mode=mode, enforced_by="Database" if mode == "Collection" else "Gateway")
    return {"isolation": isolation.to_wire(), **more}


@pytest.mark.parametrize("isolation", ["Collection", "Shared", "ShardKey"])
def test_a_record_that_cannot_be_read_is_a_conflict_whatever_the_tenant_wishes(isolation: str) -> None:
    tenant = case.make_tenant({"isolation": isolation}, status={"collection": f"{ALIAS}@g1"})
    found = plan(tenant, cell(unreadable=frozenset({"uid-1", "uid-7"})))
    assert found.actions == ()
    assert found.requeue_after == 10.0
    assert found.status is not None
    said = {item.type: item for item in found.status.conditions}
    assert {kind: (item.status, item.reason) for kind, item in said.items()} == {
        "Placed": ("True", "Placed"),
        "Provisioned": ("Unknown", "Conflict"),
        "Searchable": ("Unknown", "Conflict"),
        "Ready": ("False", "Conflict"),
    }
    assert said["Ready"].message.startswith(LOST)
    assert "do not delete the tenant to start empty" in said["Ready"].message


def test_another_tenants_unreadable_record_keeps_nobody_else_waiting() -> None:
    found = plan(case.make_tenant({"isolation": "Shared"}), cell(unreadable=frozenset({"uid-7"})))
    assert any(isinstance(action, act.CreateCollection) for action in found.actions)


@pytest.mark.parametrize(
    ("isolation", "status"),
    [
        ("Shared", {}),
        ("Shared", standing("Shared")),
        ("Shared", standing("Collection")),
        ("Collection", standing("Shared")),
        ("Collection", {}),
        ("Collection", standing("Collection", rebuild={"reindexJob": "j", "target": "t", "reason": "tier"})),
    ],
)
def test_who_may_stand_in_a_collection_that_cannot_be_read_waits_for_it(isolation: str, status: dict[str, Any]) -> None:
    tenant = case.make_tenant({"isolation": isolation}, status=status)
    found = plan(tenant, cell(unread=frozenset({SHARED})))
    assert found.actions == ()
    assert found.status is not None
    ready = next(item for item in found.status.conditions if item.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "CellUnreachable")
    assert ready.message.startswith(UNREAD)


def test_who_has_a_collection_of_its_own_goes_on_beside_it() -> None:
    tenant = case.make_tenant(status=standing("Collection"))
    live = case.make_collection(case.dense(1))
    found = case.make_cell({ALIAS: live.name, f"{ALIAS}@b": live.name}, (live.name, SHARED), shared=frozenset({SHARED}))
    healthy = plan(tenant, found, live)
    assert plan(tenant, replace(found, unread=frozenset({SHARED})), live) == healthy
    assert healthy.status is not None
    assert healthy.status.phase == "Ready"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"unread": frozenset({SHARED})}, f"where {SHARED} on cell eu-1 cannot be read"),
        ({"unreadable": frozenset({"uid-1"})}, f"where {LOST}"),
        ({"aliases": {ALIAS: SHARED}}, f"where alias {ALIAS} points to the shared collection {SHARED}"),
    ],
)
def test_a_deletion_waits_and_a_person_can_end_it(changes: dict[str, Any], why: str) -> None:
    tenant = case.make_tenant({"isolation": "Shared"}, deletionTimestamp=case.STAMP)
    found = plan(tenant, cell(**changes))
    assert found.actions == ()
    assert found.status is not None
    (ready,) = found.status.conditions
    assert ready.message.startswith(f"deletion waits for cell eu-1, {why}")
    annotations = {"searchops.dev/cell": "eu-1", "searchops.dev/abandon": "true"}
    let_go = plan(
        tenant.model_copy(update={"metadata": tenant.metadata.model_copy(update={"annotations": annotations})}),
        cell(**changes),
    )
    assert let_go.actions[-1] == act.RemoveFinalizer()
    assert not any(isinstance(item, act.PatchCollection | act.RemoveAlias) for item in let_go.actions)


def test_what_is_half_gone_is_not_taken_back() -> None:
    note = {"deleted_at": "2026-11-24T11:00:00Z", "policy": "Delete", "uid": "uid-0"}
    left = case.rebind(case.make_collection(case.dense(1)), **note)
    half = replace(left, metadata={**left.metadata, KEY_DROPPING: "true"})
    for item, taken in ((left, True), (half, False)):
        found = plan(case.make_tenant(), case.make_cell({}, (item.name,)), item)
        noted = [dict(action.metadata) for action in found.actions if isinstance(action, act.PatchCollection)]
        assert any(KEY_DELETED_AT in values for values in noted) is taken
        assert any(isinstance(action, act.CreateCollection) for action in found.actions) is not taken
