"""Where a tenant goes: the cell it is known to be on, one that holds what it may take back, or one with room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import no
from searchops.planning.names import KEY_DELETED_AT
from searchops.planning.placement import NotPlaced, place
from searchops.planning.tenant_adoption import adoptable_on
from searchops.planning.tenant_facts import AddFinalizer, TenantFacts, TenantPlan, TenantSettings
from searchops.planning.tenant_reclaim import reclaimable
from searchops.planning.tenant_report import status_with

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.schema import Owner

PLACEMENT_RETRY_SECONDS = 30.0


def plan_placement(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    claimed: str | None,
    now: datetime,
) -> TenantPlan:
    """Its cell as the finalizer's annotation: the one that is known, that holds what comes back to it, or has room.

    Args:
        tenant: that has no cell, or no finalizer.
        facts: of every cell.
        settings: the operator's.
        owner: the tenant.
        claimed: the cell of its annotation, where only the finalizer is missing.
        now: the time of the pass.
    """
    known = claimed or tenant.status.cell
    if known is not None:
        return TenantPlan((AddFinalizer(known),), None, 0.0)
    ours = {cell.name: cell.identity in (None, facts.identity.at(cell.name)) for cell in facts.cells}
    outcome = place(
        tenant.spec.placement.cell_selector,
        facts.cells,
        alias=owner.alias,
        grants=facts.grants,
        identity_ok=ours,
        holders=_holders(tenant, facts, settings, owner, ours, now),
        holds=facts.holds,
    )
    if isinstance(outcome, NotPlaced):
        reason = TenantReason.NO_MATCHING_CELL if outcome.no_match else TenantReason.NO_CAPACITY
        if outcome.waiting:
            reason = TenantReason.CELL_UNREACHABLE
        findings = (no("Placed", reason, outcome.message), no("Ready", reason, outcome.message))
        status = status_with(tenant, findings, now, phase="Pending")
        return TenantPlan((), status, PLACEMENT_RETRY_SECONDS)
    return TenantPlan((AddFinalizer(outcome.cell),), None, 0.0)


def _holders(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    ours: dict[str, bool],
    now: datetime,
) -> tuple[str, ...]:
    """Cells of ours with data that the tenant may take back, the latest first, then one whose collection it adopts."""
    found = []
    for name, collections in facts.held.items():
        mine = tuple(item for item in collections if owner.owns(item))
        back = mine or reclaimable(tenant, owner, collections, settings, now)
        if back and ours.get(name, False):
            found.append((max(item.metadata.get(KEY_DELETED_AT, "~") for item in back), name))
    holders = [name for _, name in sorted(found, reverse=True)]
    return (*holders, *(cell.name for cell in facts.cells if ours[cell.name] and adoptable_on(tenant, cell)))
