"""One pass over one SearchTenant as a pure function: where it lives, what it lacks, what it is bound to.

Create, update, resume and repair are this one path. A plan with side effects carries no status: the next pass reads
what they made and says so, which is how a tenant is created with two writes to the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.backup_report import with_backups
from searchops.planning.binding_state import BindingContext, read_bindings, unreadable
from searchops.planning.capabilities import lacking, oldest
from searchops.planning.conditions import Finding, no, unknown
from searchops.planning.kept_access import plan_kept_access
from searchops.planning.names import (
    CELL_ANNOTATION,
    FINALIZER,
    KEY_ADOPTED,
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_RATES,
    KEY_WAS_LIVE,
    collection_name,
    generation_of,
)
from searchops.planning.pinned_trial import dropped_trial, recorded
from searchops.planning.schema import (
    Owner,
    SchemaDifference,
    collection_design,
    compare_schema,
    indexes_of,
    lexical_binding,
    profile_of,
    side_of,
)
from searchops.planning.shared_trouble import shared_trouble
from searchops.planning.tenant_access import plan_access
from searchops.planning.tenant_adoption import plan_adoption
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
from searchops.planning.tenant_placement import PLACEMENT_RETRY_SECONDS, plan_placement
from searchops.planning.tenant_reclaim import live_generation, named_sides, number_of, plan_reclaim
from searchops.planning.tenant_report import CELL_RETRY_SECONDS, failed, placed, report, status_with, unready
from searchops.planning.tenant_room import held, plan_binding, waits_for_room

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CellIdentity, CellState, CollectionState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.v1alpha1.search_tenant import SearchTenant, SearchTenantSpec

__all__ = ["cell_of", "failed", "held", "owner_of", "plan_tenant", "unsupported_fields"]


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
    unsupported = unsupported_fields(tenant.spec, settings)
    if unsupported:
        message = f"{'; '.join(unsupported)}; nothing was changed"
        return unready(tenant, now, TenantReason.NOT_SUPPORTED, message, phase="NotSupported")
    profile = profile_of(tenant.spec)
    if profile is None:
        message = (
            f"spec.retrieval.profile {tenant.spec.retrieval.profile!r} is not built in; name one or give it inline"
        )
        return unready(tenant, now, TenantReason.INVALID_SPEC, message, phase="InvalidSpec")
    cell = facts.cell
    claimed = cell_of(tenant)
    if claimed is None or FINALIZER not in tenant.metadata.finalizers:
        if tenant.spec.paused:
            return _paused_before(tenant, "the tenant is not placed", now)
        return plan_placement(tenant, facts, settings, owner, claimed, now)
    if facts.restored is not None and not tenant.spec.paused:
        message = (
            f"{owner.alias} was restored onto cell {facts.restored}, which is its cell from now on; it was {claimed}"
        )
        return TenantPlan((AddFinalizer(facts.restored), EmitEvent("Restored", message)), None, 0.0)
    if cell is None:
        message = f"cell {claimed!r} is not registered any more; restore its Secret, or delete the tenant to give it up"
        return unready(
            tenant, now, TenantReason.CELL_MISSING, message, phase="Degraded", requeue=PLACEMENT_RETRY_SECONDS
        )
    trouble = _cell_trouble(tenant, cell, facts.identity, now)
    if trouble is not None:
        return trouble
    unsure = shared_trouble(tenant, owner, cell)
    if unsure is not None:
        return _unknown_there(tenant, cell, *unsure, now)
    plan = _on_cell(tenant, facts, settings, owner, cell, profile, now)
    return with_backups(plan, tenant, facts, settings, now)


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


def unsupported_fields(spec: SearchTenantSpec, settings: TenantSettings) -> tuple[str, ...]:
    """Fields that are declared in the API and not served by this version or here: said, never passed over.

    What admission refuses is refused here too: objects may be older than a rule.
    """
    found = []
    if spec.isolation != "Collection":
        said = f"with spec.isolation {spec.isolation} is not supported"
        if not settings.gateway_url:
            found.append(
                f"spec.isolation {spec.isolation} needs the gateway: set SEARCHOPS_GATEWAY_URL or use Collection"
            )
        if spec.sharding.shards > 1:
            found.append(f"spec.sharding.shards {spec.sharding.shards} {said}: remove it")
        if spec.backup is not None:
            found.append(f"spec.backup {said}: snapshots are of whole collections; remove it")
        if spec.deletion_policy == "Snapshot":
            found.append(
                f"spec.deletionPolicy Snapshot {said}: snapshots are of whole collections; use Retain or Delete"
            )
        if any(entry.direct for entry in spec.access):
            found.append(f"spec.access: direct {said}: only the gateway writes to a shared collection; remove it")
    return tuple(found)


def _paused_before(tenant: SearchTenant, what: str, now: datetime) -> TenantPlan:
    message = f"spec.paused: {what}, and nothing is made until it is lifted"
    return unready(tenant, now, TenantReason.PAUSED, message, phase="Paused")


def _unknown_there(
    tenant: SearchTenant, cell: CellState, reason: TenantReason, message: str, now: datetime
) -> TenantPlan:
    kept = [unknown(kind, reason, message) for kind in ("Provisioned", "Searchable")]
    findings = (*kept, placed(cell), no("Ready", reason, message))
    return TenantPlan((), status_with(tenant, findings, now, phase="Degraded"), CELL_RETRY_SECONDS)


def _cell_trouble(tenant: SearchTenant, cell: CellState, identity: CellIdentity, now: datetime) -> TenantPlan | None:
    expected = identity.at(cell.name)
    if not cell.reachable:
        message = f"cell {cell.name} does not answer ({cell.error}); nothing is changed until it does"
        return _unknown_there(tenant, cell, TenantReason.CELL_UNREACHABLE, message, now)
    if not cell.registration.key_is_strong:
        message = (
            f"the apiKey of cell {cell.name} is shorter than 32 bytes: every tenant would hold a MAC of it; set a "
            "longer one on the server and in the cell's Secret"
        )
        return unready(tenant, now, TenantReason.CELL_KEY_TOO_WEAK, message, phase="Degraded", requeue=60.0)
    lack = lacking(cell.version)
    if lack:
        message = f"cell {cell.name}: its {lack}; update it to {oldest()} or later; nothing is provisioned there"
        return unready(tenant, now, TenantReason.CELL_TOO_OLD, message, phase="Degraded", requeue=60.0)
    if cell.identity is None and tenant.spec.paused:
        return _paused_before(tenant, f"cell {cell.name} is not claimed yet", now)
    if cell.identity is None:
        return TenantPlan((ClaimCell(expected),), None, 0.0)
    if cell.identity != expected:
        seen, want = cell.identity, expected
        message = (
            f"cell {cell.name} says it is cell {seen.cell!r} of fleet {seen.fleet!r} in cluster {seen.cluster}, wanted "
            f"{want.cell!r}, {want.fleet!r}, {want.cluster}; correct the URL in the cell's Secret; nothing is written"
        )
        return unready(tenant, now, TenantReason.CELL_IDENTITY_MISMATCH, message, phase="Degraded", requeue=60.0)
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
    taken = plan_reclaim(tenant, facts, settings, owner, cell, now)
    if taken is not None:
        return _paused_before(tenant, "its data is not taken back", now) if tenant.spec.paused else taken
    target = cell.aliases.get(owner.alias)
    current = next((item for item in facts.collections if item.name == target), None)
    conflict = _foreign_alias(facts, owner, cell)
    if conflict is not None:
        return unready(tenant, now, TenantReason.CONFLICT, conflict, phase="Degraded", requeue=60.0)
    if current is None:
        return _provision(tenant, facts, owner, cell, profile, now)
    contradicted = owner.contradicted(current)
    if contradicted:
        message = (
            f"the metadata of {current.name} has this tenant's uid and another's name: {'; '.join(contradicted)}; "
            "nothing is written there; correct those keys on the cell"
        )
        return unready(tenant, now, TenantReason.CONFLICT, message, phase="Degraded", requeue=60.0)
    state = read_bindings(current)
    if state is None:
        message = (
            f"{', '.join(unreadable(current)) or KEY_BINDING} in the metadata of {current.name} cannot be read; "
            "nothing is written there; restore it from a backup; searches go on as the gateway has them cached"
        )
        return unready(tenant, now, TenantReason.CONFLICT, message, phase="Degraded", requeue=60.0)
    difference = compare_schema(tenant.spec, current, state)
    schema = _schema_findings(current, difference)
    context = BindingContext(tenant, facts, settings, owner, cell, current, state, profile, now)
    if tenant.spec.paused:
        kept = plan_kept_access(tenant, facts, settings, owner, cell, now, tier=current.tier)
        if kept:
            return TenantPlan(kept, None, 0.0)
        foreseen = plan_binding(context, difference.rebuild).plan
        return report(tenant, facts, owner, cell, current, state, schema, now, paused=True, foreseen=foreseen)
    actions = _mend(facts, owner, cell, current, difference)
    access_actions, access_findings, access_status = plan_access(
        tenant, facts, settings, owner, cell, now, tier=current.tier
    )
    if actions or access_actions:
        return TenantPlan((*actions, *access_actions), None, 0.0)
    step = plan_binding(context, difference.rebuild)
    if step.actions and not step.findings:
        return TenantPlan(step.actions, None, 0.0)
    plan = report(tenant, facts, owner, cell, current, state, (*schema, *access_findings, *step.findings), now)
    assert plan.status is not None  # noqa: S101 - a report always has a status
    pinned = step.pinned or recorded(tenant)
    own = {"rebuild": step.rebuild, "previous": step.previous, "plan": step.plan, "pinned": pinned}
    status = plan.status.model_copy(update={**access_status, **own})
    waits = [seconds for seconds in (step.requeue_after, plan.requeue_after) if seconds is not None]
    return TenantPlan((*dropped_trial(context, pinned), *step.actions), status, min(waits) if waits else None)


def _foreign_alias(facts: TenantFacts, owner: Owner, cell: CellState) -> str | None:
    """Whether a name of ours stands on what is not ours; such an alias is neither written, re-pointed nor dropped."""
    mine = {item.name for item in facts.collections if owner.owns(item)}
    for alias in (owner.alias, side_of(owner.alias, 0), side_of(owner.alias, 1)):
        target = cell.aliases.get(alias)
        if target is not None and target not in mine:
            return (
                f"alias {alias} on cell {cell.name} points to {target}, whose metadata is not this tenant's; it is "
                "neither written, re-pointed nor dropped; rename the tenant or remove that alias by hand"
            )
    return None


def _mend(
    facts: TenantFacts, owner: Owner, cell: CellState, current: CollectionState, difference: SchemaDifference
) -> tuple[TenantAction, ...]:
    """What can be put right in place; an adopted collection that does not fit gets its side and nothing else."""
    actions: list[TenantAction] = []
    foreign = KEY_ADOPTED in current.metadata and bool(difference.rebuild)
    if not foreign:
        actions += [CreateIndex(current.name, field, kind) for field, kind in difference.missing_indexes]
    side = side_of(owner.alias, generation_of(owner.alias, current.name) or 1)
    if cell.aliases.get(side) != current.name:
        actions.append(PointAlias(side, current.name))
    mine = _mine(facts, owner)
    live = next((number for number, item in mine.items() if item.name == current.name), None)
    if live is not None:
        actions += [action for action in named_sides(owner, live, mine) if action.alias not in cell.aliases]
    values: dict[str, str | None] = {KEY_RATES: difference.rates} if difference.rates is not None else {}
    if KEY_WAS_LIVE in current.metadata:
        values[KEY_WAS_LIVE] = None
    strict = None if foreign else difference.strict
    if strict is not None or values:
        actions.append(PatchCollection(current.name, tuple(sorted(values.items())), strict))
    return tuple(actions)


def _schema_findings(current: CollectionState, difference: SchemaDifference) -> tuple[Finding, ...]:
    if not difference.rebuild:
        return ()
    message = f"{current.name} cannot be changed in place: {'; '.join(difference.rebuild)}; a rebuild mends it"
    return (no("SchemaInSync", TenantReason.REBUILD_REQUIRED, message),)


def _mine(facts: TenantFacts, owner: Owner) -> dict[int, CollectionState]:
    """The tenant's own generations that carry no note of a deletion."""
    own = [item for item in facts.collections if owner.owns(item) and KEY_DELETED_AT not in item.metadata]
    numbered = {number_of(owner, item): item for item in own}
    return {number: item for number, item in numbered.items() if number is not None}


def _provision(
    tenant: SearchTenant, facts: TenantFacts, owner: Owner, cell: CellState, profile: RetrievalProfile, now: datetime
) -> TenantPlan:
    """Create what is missing; a collection that was there and is gone is never silently created empty."""
    mine = _mine(facts, owner)
    if not mine and tenant.status.collection is not None:
        message = (
            f"collection {tenant.status.collection} was there and is gone from cell {tenant.status.cell}; restore "
            "it from a snapshot, or delete and re-create the tenant to start empty; nothing is created by itself"
        )
        findings = (
            no("Provisioned", TenantReason.COLLECTION_LOST, message),
            no("Ready", TenantReason.COLLECTION_LOST, message),
        )
        return TenantPlan((), status_with(tenant, findings, now, phase="Degraded"), 60.0)
    if tenant.spec.paused:
        return _paused_before(tenant, "its collection is not there or not published", now)
    if mine:
        number = live_generation(tenant.status.collection, mine)
        found = mine[number]
        missing = [
            CreateIndex(found.name, field, kind)
            for field, kind in indexes_of(tenant.spec)
            if found.indexes.get(field) != kind and KEY_ADOPTED not in found.metadata
        ]
        sides = (PointAlias(side_of(owner.alias, number), found.name), *named_sides(owner, number, mine))
        return TenantPlan((*missing, *sides, PointAlias(owner.alias, found.name)), None, 0.0)
    adopted = plan_adoption(tenant, facts, owner, cell, profile, now)
    if adopted is not None:
        return adopted
    hold = facts.holds.get(cell.name)
    if hold is not None:
        return waits_for_room(tenant, cell, hold, now)
    taken = [generation_of(owner.alias, item.name) for item in facts.collections]
    number = 1 + max((n for n in taken if n is not None), default=0)
    side = side_of(owner.alias, number)
    binding = lexical_binding(tenant.spec, profile, side, now)
    design = collection_design(tenant, owner, number, binding)
    name = collection_name(owner.alias, number)
    actions: list[TenantAction] = [CreateCollection(design)]
    actions += [CreateIndex(name, field, kind) for field, kind in design.indexes]
    actions += [PointAlias(side, name), PointAlias(owner.alias, name)]
    actions.append(EmitEvent("Provisioned", f"{name} on cell {cell.name}"))
    return TenantPlan(tuple(actions), None, 0.0)
