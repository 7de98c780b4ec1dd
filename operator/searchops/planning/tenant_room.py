"""A tenant on a cell that is out of disk or memory: what does not begin there, and how that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning import tenant_binding
from searchops.planning.cell_room import full_finding, held_message
from searchops.planning.conditions import find, no
from searchops.planning.tenant_facts import AddVector, CreateCollection, CreateReindexJob, TenantPlan
from searchops.planning.tenant_report import placed, status_with

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CellState
    from searchops.api.room import CellHold
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
    from searchops.planning.binding_state import BindingContext, BindingStep

RETRY_SECONDS = 30.0
ROOM_POLL_SECONDS = 60.0
NEED_ROOM = (CreateCollection, AddVector, CreateReindexJob)
"""What a cell without disk or memory would refuse, or fill further."""


def waits_for_room(tenant: SearchTenant, cell: CellState, hold: CellHold, now: datetime) -> TenantPlan:
    """Nothing is made there; the tenant stays with its cell: a lost answer may have made its collection already."""
    message = held_message(cell.name, hold)
    findings = (placed(cell), full_finding(cell.name, hold), no("Ready", TenantReason.CELL_FULL, message))
    return TenantPlan((), status_with(tenant, findings, now, phase="Pending"), RETRY_SECONDS)


def plan_binding(context: BindingContext, schema_rebuild: tuple[str, ...]) -> BindingStep:
    """The next step of the tenant's binding, as far as its cell has room for it.

    Nothing that needs room begins on a held cell; what is made already stays, and a verified side is switched to.
    """
    step = tenant_binding.plan_binding(context, schema_rebuild)
    hold = context.facts.holds.get(context.cell.name)
    if hold is None or not any(isinstance(action, NEED_ROOM) for action in step.actions):
        return step
    message = f"a rebuild waits, and the old side serves meanwhile: {held_message(context.cell.name, hold)}"
    return replace(
        step,
        actions=(),
        findings=(no("ModelBound", TenantReason.CELL_FULL, message),),
        rebuild=step.rebuild or context.tenant.status.rebuild,
        previous=context.previous_status(),
        requeue_after=ROOM_POLL_SECONDS,
    )


def held(tenant: SearchTenant, cell: str, hold: CellHold, now: datetime) -> SearchTenantStatus:
    """The status after a pass that a full cell ended: what serves is Ready as before."""
    findings = [full_finding(cell, hold)]
    ready = find(tenant.status.conditions, "Ready")
    if ready is None or ready.status != "True":
        findings.append(no("Ready", TenantReason.CELL_FULL, held_message(cell, hold)))
    return status_with(tenant, findings, now, phase=tenant.status.phase or "Pending")
