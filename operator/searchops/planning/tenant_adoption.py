"""Adoption: a collection that was there before the tenant, by two people's word.

The tenant names it in an annotation, and whoever keeps the cell lists the name under ``adoptable`` in the cell's
Secret. It keeps its name, gets owner, binding and aliases, and is retained whatever the policy says. What does not fit
is said and rebuilt beside it: nothing is ever taken out of an adopted collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import no
from searchops.planning.names import ADOPT_ANNOTATION, KEY_ADOPTED, KEY_BINDING, KEY_RATES, alias_of
from searchops.planning.schema import lexical_binding, rates_of, side_of
from searchops.planning.tenant_facts import EmitEvent, PatchCollection, PointAlias, TenantPlan
from searchops.planning.tenant_report import status_with

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CellState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts

ADOPTED_GENERATION = 1
OWNERSHIP_PREFIX = "searchops.dev/"


def adoption_of(tenant: SearchTenant) -> str | None:
    """The collection that the tenant asks for; an empty annotation asks for nothing."""
    return tenant.metadata.annotations.get(ADOPT_ANNOTATION) or None


def adoptable_on(tenant: SearchTenant, cell: CellState) -> bool:
    """Whether a cell that answered holds what the tenant asks for, and its Secret allows it."""
    wanted = adoption_of(tenant)
    return wanted is not None and wanted in cell.registration.adoptable and wanted in cell.collections


def plan_adoption(
    tenant: SearchTenant,
    facts: TenantFacts,
    owner: Owner,
    cell: CellState,
    profile: RetrievalProfile,
    now: datetime,
) -> TenantPlan | None:
    """Take over the collection that the annotation names, or say why not; None where none is named."""
    wanted = adoption_of(tenant)
    if wanted is None:
        return None
    refusal = _refusal(wanted, facts, owner, cell)
    if refusal:
        message = f"annotation {ADOPT_ANNOTATION}: {refusal}; nothing is created or changed"
        findings = (
            no("Provisioned", TenantReason.ADOPTION_REFUSED, message),
            no("Ready", TenantReason.ADOPTION_REFUSED, message),
        )
        return TenantPlan((), status_with(tenant, findings, now, phase="Degraded"), 60.0)
    side = side_of(owner.alias, ADOPTED_GENERATION)
    binding = lexical_binding(tenant.spec, profile, side, now)
    values: dict[str, str | None] = {
        **owner.metadata(ADOPTED_GENERATION),
        KEY_ADOPTED: "true",
        KEY_BINDING: binding.to_metadata(),
        KEY_RATES: rates_of(tenant.spec).to_metadata(),
    }
    actions = (
        PatchCollection(wanted, tuple(sorted(values.items())), None),
        PointAlias(side, wanted),
        PointAlias(owner.alias, wanted),
        EmitEvent("Adopted", f"{wanted} on cell {cell.name} is this tenant's now; it is kept whatever the policy"),
    )
    return TenantPlan(actions, None, 0.0)


def _refusal(wanted: str, facts: TenantFacts, owner: Owner, cell: CellState) -> str:
    if wanted not in cell.registration.adoptable:
        return (
            f"{wanted} is not under adoptable in the Secret of cell {cell.name}; whoever keeps the cell adds it there, "
            "or remove the annotation to start empty"
        )
    if alias_of(wanted) is not None:
        return f"{wanted} is named like a generation of a tenant, which is never adopted; remove the annotation"
    found = next((item for item in facts.collections if item.name == wanted), None)
    if found is None:
        return f"there is no collection {wanted} on cell {cell.name}; correct the name, or remove the annotation"
    marks = sorted(key for key in found.metadata if key.startswith(OWNERSHIP_PREFIX))
    if marks:
        said = ", ".join(f"{key.removeprefix(OWNERSHIP_PREFIX)} {found.metadata[key][:63]!r}" for key in marks[:3])
        return f"the metadata of {wanted} names an owner already ({said}); such a collection is never adopted"
    names = (owner.alias, side_of(owner.alias, 0), side_of(owner.alias, 1))
    others = sorted(
        alias
        for alias, target in cell.aliases.items()
        if target == wanted and alias.startswith(f"{owner.fleet}.") and alias not in names
    )
    if others:
        return f"alias {others[0]} of another tenant points to {wanted}; remove that alias first"
    return ""
