"""The status of a tenant: what was found, as conditions, and the fields that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.api.v1alpha1.search_tenant_status import IsolationStatus, SearchTenantStatus
from searchops.planning.conditions import Finding, find, no, stamp, unknown, yes
from searchops.planning.quotas import room_finding, usage
from searchops.planning.tenant_facts import TenantFacts, TenantPlan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.observed import CellState, CollectionState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.api.v1alpha1.search_tenant_status import PlanStatus
    from searchops.planning.binding_state import BindingState
    from searchops.planning.schema import Owner

CELL_RETRY_SECONDS = 10.0


def report(
    tenant: SearchTenant,
    facts: TenantFacts,
    owner: Owner,
    cell: CellState,
    current: CollectionState,
    state: BindingState,
    extra: Sequence[Finding],
    now: datetime,
    *,
    paused: bool = False,
    foreseen: PlanStatus | None = None,
) -> TenantPlan:
    """The status of a provisioned tenant; Ready is the conjunction of what a merchant needs.

    Of a paused one `foreseen` is the rebuild that it would need.
    """
    findings = {finding.type: finding for finding in extra}
    findings["Placed"] = placed(cell)
    findings["Provisioned"] = yes("Provisioned", TenantReason.PROVISIONED, _standing(current, owner))
    findings.setdefault("SchemaInSync", yes("SchemaInSync", TenantReason.IN_SYNC, "declared fields are as they should"))
    findings["QuotaOK"] = room_finding(tenant, current, cell.name, facts.holds.get(cell.name))
    findings["Searchable"] = _searchable(tenant, facts, current)
    findings["BackupFresh"] = unknown("BackupFresh", TenantReason.NOT_CONFIGURED, "spec.backup is not set")
    if paused:
        message = "spec.paused: the binding is left as it is"
        message += "; status.plan foresees the rebuild that waits" if foreseen is not None else ""
        findings["ModelBound"] = unknown("ModelBound", TenantReason.PAUSED, message)
    canary = _isolated(tenant, facts)
    if canary is not None:
        findings["Isolated"] = canary
    findings["Ready"] = _ready(findings, paused=paused)
    phase = "Paused" if paused else "Ready" if findings["Ready"].status == "True" else "Progressing"
    status = status_with(tenant, tuple(findings.values()), now, phase=phase).model_copy(
        update={
            "cell": cell.name,
            "alias": owner.alias,
            "collection": current.name,
            "binding": state.to_status(),
            "isolation": IsolationStatus(
                mode=current.tier, enforced_by="Database" if current.tier == "Collection" else "Gateway"
            ),
            "usage": usage(tenant, current),
            "plan": foreseen,
        }
    )
    asked = findings["Searchable"]
    requeue = None if asked.status == "True" or asked.reason == TenantReason.NOT_CONFIGURED else CELL_RETRY_SECONDS
    requeue = None if paused else requeue
    return TenantPlan((), status, requeue)


def _standing(current: CollectionState, owner: Owner) -> str:
    if current.slice is None:
        return f"{current.name} behind {owner.alias}"
    return f"{current.name} behind {owner.alias}: slice {current.slice.key} of {current.slice.collection}"


def _ready(findings: dict[str, Finding], *, paused: bool) -> Finding:
    for kind in ("Isolated", "Provisioned", "AccessReady", "SchemaInSync", "ModelBound", "Searchable"):
        finding = findings.get(kind)
        if finding is None or finding.status == "True":
            continue
        if kind == "Searchable" and finding.reason == TenantReason.NOT_CONFIGURED:
            continue
        lexical = kind == "ModelBound" and finding.reason == TenantReason.NO_ACTIVE_REVISION
        if not lexical and not (paused and kind == "ModelBound"):
            return no("Ready", TenantReason(finding.reason), f"{kind}: {finding.message}")
    return yes("Ready", TenantReason.READY, "provisioned, searchable with its own token, bound as its model wants")


def _isolated(tenant: SearchTenant, facts: TenantFacts) -> Finding | None:
    """What the canary saw; while it has not spoken again, what it saw before holds, a breach above all."""
    if facts.canary is None:
        before = find(tenant.status.conditions, "Isolated")
        if before is None:
            return None
        return Finding("Isolated", before.status, TenantReason(before.reason), before.message)
    if facts.canary.broken:
        return no("Isolated", TenantReason.ISOLATION_BROKEN, facts.canary.broken)
    return yes("Isolated", TenantReason.ISOLATION_HELD, "a foreign token was refused wherever the canary tried it")


def placed(cell: CellState) -> Finding:
    """The condition Placed."""
    return yes("Placed", TenantReason.PLACED, f"on cell {cell.name}")


def _searchable(tenant: SearchTenant, facts: TenantFacts, current: CollectionState) -> Finding:
    if current.slice is not None and not tenant.spec.access:
        message = "spec.access is empty: nobody may search, and the gateway is not asked with a token that nobody has"
        return unknown("Searchable", TenantReason.NOT_CONFIGURED, message)
    before = find(tenant.status.conditions, "Searchable")
    if facts.probe is not None and facts.probe.silent and before is not None and before.status == "True":
        return Finding("Searchable", before.status, TenantReason(before.reason), before.message)
    if facts.probe is None:
        return unknown("Searchable", TenantReason.WAITING, "no query was sent yet")
    if facts.probe.ok:
        return yes(
            "Searchable", TenantReason.SEARCHABLE, "a real query through the alias with the tenant's token answered"
        )
    message = f"a real query through the alias with the tenant's token failed: {facts.probe.error}"
    return no("Searchable", TenantReason.SEARCH_FAILED, message)


def unready(
    tenant: SearchTenant,
    now: datetime,
    reason: TenantReason,
    message: str,
    *,
    phase: str,
    requeue: float | None = None,
) -> TenantPlan:
    """A plan that only says why the tenant is not Ready."""
    return TenantPlan((), status_with(tenant, (no("Ready", reason, message),), now, phase=phase), requeue)


def status_with(tenant: SearchTenant, findings: Sequence[Finding], now: datetime, *, phase: str) -> SearchTenantStatus:
    """The previous status with these findings; what was not looked at this time keeps its condition."""
    generation = tenant.metadata.generation
    stamped = stamp(findings, tenant.status.conditions, generation, now)
    seen = {condition.type for condition in stamped}
    kept = [condition for condition in tenant.status.conditions if condition.type not in seen]
    conditions = tuple(sorted((*stamped, *kept), key=lambda condition: condition.type))
    return tenant.status.model_copy(
        update={"observed_generation": generation, "phase": phase, "conditions": conditions}
    )


def failed(tenant: SearchTenant, reason: str, message: str, now: datetime) -> SearchTenantStatus:
    """The status after a pass that an adapter's error ended: nothing is claimed that was not seen."""
    known = set(TenantReason)
    named = TenantReason(reason) if reason in known else TenantReason.CELL_UNREACHABLE
    return status_with(tenant, (no("Ready", named, f"{message} (seen at {format_time(now)})"),), now, phase="Degraded")
