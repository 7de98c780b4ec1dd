"""One pass over one SearchTenant as a pure function: where it lives, what it lacks, what it is bound to.

Create, update, resume and repair are this one path. A plan with side effects carries no status: the next pass reads
what they made and says so, which is how a tenant is created with two writes to the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity
from searchops.api.v1alpha1.search_tenant import (
    IsolationStatus,
    SearchTenantStatus,
    TenantReason,
    UsageStatus,
)
from searchops.planning.conditions import Finding, holds, no, stamp, unknown, yes
from searchops.planning.names import CELL_ANNOTATION, FINALIZER, KEY_DELETED_AT, collection_name, generation_of
from searchops.planning.placement import NotPlaced, place
from searchops.planning.schema import (
    Owner,
    collection_design,
    compare_schema,
    indexes_of,
    lexical_binding,
    profile_of,
    side_of,
)
from searchops.planning.tenant_access import plan_access
from searchops.planning.tenant_binding import BindingState, plan_binding, read_bindings
from searchops.planning.tenant_deletion import plan_deletion
from searchops.planning.tenant_facts import (
    AddFinalizer,
    ClaimCell,
    CreateCollection,
    CreateIndex,
    EmitEvent,
    PatchCollection,
    PointAlias,
    TenantAction,
    TenantFacts,
    TenantPlan,
    TenantSettings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.observed import CellState, CollectionState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.v1alpha1.search_tenant import SearchTenant, SearchTenantSpec

CELL_RETRY_SECONDS = 10.0
PLACEMENT_RETRY_SECONDS = 30.0


def plan_tenant(tenant: SearchTenant, facts: TenantFacts, settings: TenantSettings, now: datetime) -> TenantPlan:
    """Decide what a tenant needs.

    Args:
        tenant: the object as cached.
        facts: everything that was read for it.
        settings: the operator's settings.
        now: the time of the pass.
    """
    owner = owner_of(tenant, facts, settings)
    if tenant.metadata.deletion_timestamp is not None:
        return plan_deletion(tenant, facts, owner, now)
    unsupported = unsupported_fields(tenant.spec)
    if unsupported:
        message = f"{'; '.join(unsupported)}; nothing was changed"
        return _unready(tenant, now, TenantReason.NOT_SUPPORTED, message, phase="NotSupported")
    profile = profile_of(tenant.spec)
    if profile is None:
        message = (
            f"spec.retrieval.profile {tenant.spec.retrieval.profile!r} is not built in; name one or give it inline"
        )
        return _unready(tenant, now, TenantReason.INVALID_SPEC, message, phase="InvalidSpec")
    cell = facts.cell
    claimed = cell_of(tenant)
    if claimed is None or FINALIZER not in tenant.metadata.finalizers:
        return _place(tenant, facts, owner, claimed, now)
    if cell is None:
        message = f"cell {claimed!r} is not registered any more; restore its Secret, or delete the tenant to give it up"
        return _unready(
            tenant, now, TenantReason.CELL_MISSING, message, phase="Degraded", requeue=PLACEMENT_RETRY_SECONDS
        )
    trouble = _cell_trouble(tenant, cell, facts.identity, now)
    if trouble is not None:
        return trouble
    return _on_cell(tenant, facts, settings, owner, cell, profile, now)


def owner_of(tenant: SearchTenant, facts: TenantFacts, settings: TenantSettings) -> Owner:
    """The ownership record that the tenant's collections carry."""
    return Owner(
        fleet=settings.fleet,
        uid=tenant.metadata.uid,
        namespace=tenant.metadata.namespace,
        namespace_uid=facts.namespace_uid,
        name=tenant.metadata.name,
    )


def cell_of(tenant: SearchTenant) -> str | None:
    """The tenant's cell: the annotation is the record, the status only shows it."""
    return tenant.metadata.annotations.get(CELL_ANNOTATION)


def unsupported_fields(spec: SearchTenantSpec) -> tuple[str, ...]:
    """Fields that are declared in the API and not served by this version: said, never passed over."""
    found = []
    if spec.isolation != "Collection":
        found.append(f"spec.isolation {spec.isolation} is not supported by this version: use Collection")
    if spec.deletion_policy == "Snapshot":
        found.append("spec.deletionPolicy Snapshot is not supported by this version: use Retain or Delete")
    if spec.backup is not None:
        found.append("spec.backup is not supported by this version: remove it")
    if spec.gate is not None and spec.gate.pinned is not None:
        found.append("spec.gate.pinned is not supported by this version: put pinned queries into the model's holdout")
    direct = [entry.name for entry in spec.access if entry.direct]
    if direct:
        found.append(
            f"spec.access[name={direct[0]}].direct is not supported by this version: write through the gateway"
        )
    return tuple(found)


def _place(tenant: SearchTenant, facts: TenantFacts, owner: Owner, claimed: str | None, now: datetime) -> TenantPlan:
    if claimed is not None:
        return TenantPlan((AddFinalizer(claimed),), None, 0.0)
    ours = {cell.name: cell.identity in (None, _expected(cell, facts.identity)) for cell in facts.cells}
    outcome = place(
        tenant.spec.placement.cell_selector, facts.cells, alias=owner.alias, grants=facts.grants, identity_ok=ours
    )
    if isinstance(outcome, NotPlaced):
        reason = TenantReason.NO_MATCHING_CELL if outcome.no_match else TenantReason.NO_CAPACITY
        if outcome.waiting:
            reason = TenantReason.CELL_UNREACHABLE
        findings = (no("Placed", reason, outcome.message), no("Ready", reason, outcome.message))
        status = _status(tenant, findings, now, phase="Pending")
        return TenantPlan((), status, PLACEMENT_RETRY_SECONDS)
    return TenantPlan((AddFinalizer(outcome.cell),), None, 0.0)


def _expected(cell: CellState, identity: CellIdentity) -> CellIdentity:
    return CellIdentity(identity.fleet, cell.name, identity.cluster)


def _cell_trouble(tenant: SearchTenant, cell: CellState, identity: CellIdentity, now: datetime) -> TenantPlan | None:
    expected = _expected(cell, identity)
    if not cell.reachable:
        message = f"cell {cell.name} does not answer ({cell.error}); nothing is changed until it does"
        kept = [unknown(kind, TenantReason.CELL_UNREACHABLE, message) for kind in ("Provisioned", "Searchable")]
        findings = (*kept, _placed(cell), no("Ready", TenantReason.CELL_UNREACHABLE, message))
        return TenantPlan((), _status(tenant, findings, now, phase="Degraded"), CELL_RETRY_SECONDS)
    if not cell.registration.key_is_strong:
        message = (
            f"the apiKey of cell {cell.name} is shorter than 32 bytes: every tenant would hold a MAC of it; set a "
            "longer one on the server and in the cell's Secret"
        )
        return _unready(tenant, now, TenantReason.CELL_KEY_TOO_WEAK, message, phase="Degraded", requeue=60.0)
    if cell.identity is None:
        return TenantPlan((ClaimCell(expected),), None, 0.0)
    if cell.identity != expected:
        seen, want = cell.identity, expected
        message = (
            f"cell {cell.name} says it is cell {seen.cell!r} of fleet {seen.fleet!r} in cluster {seen.cluster}, wanted "
            f"{want.cell!r}, {want.fleet!r}, {want.cluster}; correct the URL in the cell's Secret; nothing is written"
        )
        return _unready(tenant, now, TenantReason.CELL_IDENTITY_MISMATCH, message, phase="Degraded", requeue=60.0)
    return None


def _on_cell(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    cell: CellState,
    profile: RetrievalProfile,
    now: datetime,
) -> TenantPlan:
    target = cell.aliases.get(owner.alias)
    current = next((item for item in facts.collections if item.name == target), None)
    if target is not None and (current is None or not owner.owns(current)):
        message = (
            f"alias {owner.alias} on cell {cell.name} points to {target}, whose metadata is not this tenant's; it is "
            "neither written, re-pointed nor dropped; rename the tenant or remove that alias by hand"
        )
        return _unready(tenant, now, TenantReason.CONFLICT, message, phase="Degraded", requeue=60.0)
    if current is None:
        return _provision(tenant, facts, owner, profile, now)
    state = read_bindings(current)
    if state is None:
        message = (
            f"the binding in the metadata of {current.name} cannot be read; restore the key searchops.dev/binding from "
            "a backup; searches go on as the gateway has them cached"
        )
        return _unready(tenant, now, TenantReason.CONFLICT, message, phase="Degraded", requeue=60.0)
    if tenant.spec.paused:
        return _report(tenant, facts, owner, cell, current, state, (), now, paused=True)
    lifted = state.pending is not None or state.previous is not None
    difference = compare_schema(tenant.spec, current, state.binding, lifted=lifted)
    actions: list[TenantAction] = [CreateIndex(current.name, field, kind) for field, kind in difference.missing_indexes]
    generation = generation_of(owner.alias, current.name) or 1
    side = side_of(owner.alias, generation)
    if cell.aliases.get(side) != current.name:
        actions.append(PointAlias(side, current.name))
    if difference.strict is not None:
        actions.append(PatchCollection(current.name, (), difference.strict))
    access_actions, access_findings, access_status = plan_access(tenant, facts, settings, owner, cell, now)
    if access_actions:
        actions += access_actions
    if actions:
        return TenantPlan(tuple(actions), None, 0.0)
    step = plan_binding(tenant, facts, settings, owner, cell, current, state, difference.rebuild, profile, now)
    if step.actions and step.rebuild is None:
        return TenantPlan(step.actions, None, step.requeue_after if step.requeue_after is not None else 0.0)
    findings = (*access_findings, *step.findings)
    plan = _report(tenant, facts, owner, cell, current, state, findings, now)
    assert plan.status is not None  # noqa: S101 - a report always has a status
    status = plan.status.model_copy(update={**access_status, "rebuild": step.rebuild, "previous": step.previous})
    return TenantPlan(
        step.actions, status, step.requeue_after if step.requeue_after is not None else plan.requeue_after
    )


def _provision(
    tenant: SearchTenant, facts: TenantFacts, owner: Owner, profile: RetrievalProfile, now: datetime
) -> TenantPlan:
    """Create what is missing; a collection that was there and is gone is never silently created empty."""
    generations = {generation_of(owner.alias, item.name): item for item in facts.collections}
    mine = [
        (number, item)
        for number, item in generations.items()
        if number is not None and owner.owns(item) and KEY_DELETED_AT not in item.metadata
    ]
    if not mine and holds(tenant.status.conditions, "Provisioned"):
        message = (
            f"collection {tenant.status.collection} was there and is gone from cell {tenant.status.cell}; restore "
            "it from a snapshot, or delete and re-create the tenant to start empty; nothing is created by itself"
        )
        findings = (
            no("Provisioned", TenantReason.COLLECTION_LOST, message),
            no("Ready", TenantReason.COLLECTION_LOST, message),
        )
        return TenantPlan((), _status(tenant, findings, now, phase="Degraded"), 60.0)
    if mine:
        number, found = max(mine, key=lambda pair: pair[0])
        missing = [
            CreateIndex(found.name, field, kind)
            for field, kind in indexes_of(tenant.spec)
            if found.indexes.get(field) != kind
        ]
        aliases = (PointAlias(side_of(owner.alias, number), found.name), PointAlias(owner.alias, found.name))
        return TenantPlan((*missing, *aliases), None, 0.0)
    number = 1 + max((n for n in generations if n is not None), default=0)
    side = side_of(owner.alias, number)
    binding = lexical_binding(tenant.spec, profile, side, now)
    design = collection_design(tenant, owner, number, binding)
    name = collection_name(owner.alias, number)
    actions: list[TenantAction] = [CreateCollection(design)]
    actions += [CreateIndex(name, field, kind) for field, kind in design.indexes]
    actions += [PointAlias(side, name), PointAlias(owner.alias, name)]
    actions.append(EmitEvent("Provisioned", f"{name} on cell {facts.cell.name if facts.cell else '?'}"))
    return TenantPlan(tuple(actions), None, 0.0)


def _report(
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
) -> TenantPlan:
    """The status of a provisioned tenant; Ready is the conjunction of what a merchant needs."""
    findings = {finding.type: finding for finding in extra}
    findings["Placed"] = _placed(cell)
    findings["Provisioned"] = yes("Provisioned", TenantReason.PROVISIONED, f"{current.name} behind {owner.alias}")
    findings.setdefault("SchemaInSync", yes("SchemaInSync", TenantReason.IN_SYNC, "declared fields are as they should"))
    findings["QuotaOK"] = _quota(tenant, current)
    findings["Searchable"] = _searchable(facts)
    findings["BackupFresh"] = unknown("BackupFresh", TenantReason.NOT_CONFIGURED, "spec.backup is not set")
    if paused:
        findings["ModelBound"] = unknown("ModelBound", TenantReason.PAUSED, "spec.paused: the binding is left as it is")
    findings["Ready"] = _ready(findings, paused=paused)
    phase = "Paused" if paused else "Ready" if findings["Ready"].status == "True" else "Progressing"
    status = _status(tenant, tuple(findings.values()), now, phase=phase).model_copy(
        update={
            "cell": cell.name,
            "alias": owner.alias,
            "collection": current.name,
            "binding": state.to_status(),
            "isolation": IsolationStatus(mode="Collection", enforced_by="Database"),
            "usage": _usage(tenant, current),
        }
    )
    requeue = None if findings["Searchable"].status == "True" or paused else CELL_RETRY_SECONDS
    return TenantPlan((), status, requeue)


def _ready(findings: dict[str, Finding], *, paused: bool) -> Finding:
    for kind in ("Provisioned", "AccessReady", "SchemaInSync", "ModelBound", "Searchable"):
        finding = findings.get(kind)
        if finding is None or finding.status == "True":
            continue
        lexical = kind == "ModelBound" and finding.reason == TenantReason.NO_ACTIVE_REVISION
        if not lexical and not (paused and kind == "ModelBound"):
            return no("Ready", TenantReason(finding.reason), f"{kind}: {finding.message}")
    return yes("Ready", TenantReason.READY, "provisioned, searchable with its own token, bound as its model wants")


def _placed(cell: CellState) -> Finding:
    return yes("Placed", TenantReason.PLACED, f"on cell {cell.name}")


def _searchable(facts: TenantFacts) -> Finding:
    if facts.probe is None:
        return unknown("Searchable", TenantReason.WAITING, "no query was sent yet")
    if facts.probe.ok:
        return yes(
            "Searchable", TenantReason.SEARCHABLE, "a real query through the alias with the tenant's token answered"
        )
    message = f"a real query through the alias with the tenant's token failed: {facts.probe.error}"
    return no("Searchable", TenantReason.SEARCH_FAILED, message)


def _quota(tenant: SearchTenant, current: CollectionState) -> Finding:
    limit = tenant.spec.quotas.max_points
    if limit and current.points >= limit:
        message = (
            f"{current.points} points (estimated), spec.quotas.maxPoints allows {limit}: writes are refused; raise it"
        )
        return no("QuotaOK", TenantReason.QUOTA_EXCEEDED, message)
    return yes("QuotaOK", TenantReason.WITHIN_QUOTA, "within spec.quotas")


def _usage(tenant: SearchTenant, current: CollectionState) -> UsageStatus:
    """Points, moved only by 1 % or more: a status must not change on every pass."""
    before = tenant.status.usage
    points = current.points
    if before is not None and abs(points - before.points) * 100 < max(before.points, 1):
        points = before.points
    limit = tenant.spec.quotas.max_points
    return UsageStatus(points=points, points_quota_percent=points * 100 // limit if limit else None, estimated=True)


def _unready(
    tenant: SearchTenant,
    now: datetime,
    reason: TenantReason,
    message: str,
    *,
    phase: str,
    requeue: float | None = None,
) -> TenantPlan:
    return TenantPlan((), _status(tenant, (no("Ready", reason, message),), now, phase=phase), requeue)


def _status(tenant: SearchTenant, findings: Sequence[Finding], now: datetime, *, phase: str) -> SearchTenantStatus:
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
    return _status(tenant, (no("Ready", named, f"{message} (seen at {format_time(now)})"),), now, phase="Degraded")
