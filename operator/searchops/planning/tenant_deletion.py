"""Deletion: the finalizer never waits for time. Alias off, Secrets as the policy says, a note on the collection, done.

What is past its ``drop-after`` is dropped later by the cell's sweep, after a live GET shows that nobody has the name,
and with the policy Snapshot after a verified snapshot of it is stored. What was adopted is kept whatever the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import no
from searchops.planning.names import (
    ABANDON_ANNOTATION,
    ACCESS_SECRET_TYPE,
    FINALIZER,
    KEY_ADOPTED,
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_DROP_AFTER,
    KEY_FLEET,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_POLICY,
    KEY_UID,
    KEY_WAS_LIVE,
    alias_name,
    alias_of,
)
from searchops.planning.shared_trouble import points_to_shared, shared_trouble
from searchops.planning.tenant_facts import (
    DeleteAccessSecret,
    DeleteReindexJob,
    EmitEvent,
    PatchCollection,
    RemoveAlias,
    RemoveFinalizer,
    RevokeTokens,
    TenantAction,
    TenantPlan,
)
from searchops.planning.tenant_report import status_with

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts

RETRY_SECONDS = 10.0


def abandoned(tenant: SearchTenant) -> bool:
    """Whether a person has given the tenant's data up: it is let go without a word to its cell."""
    deleting = tenant.metadata.deletion_timestamp is not None
    return deleting and tenant.metadata.annotations.get(ABANDON_ANNOTATION) == "true"


def plan_deletion(tenant: SearchTenant, facts: TenantFacts, owner: Owner, now: datetime) -> TenantPlan:
    """Let a tenant go without touching anything that is not its own."""
    if FINALIZER not in tenant.metadata.finalizers:
        return TenantPlan((), None)
    given_up = abandoned(tenant)
    cell = None if given_up else facts.cell
    trouble = _trouble(tenant, facts, owner) if cell is not None else ""
    if trouble and cell is not None:
        return TenantPlan((), _held_up(tenant, cell.name, trouble, now), RETRY_SECONDS)
    actions: list[TenantAction] = []
    if tenant.status.rebuild is not None:
        actions.append(DeleteReindexJob(tenant.status.rebuild.reindex_job))
    retain = tenant.spec.deletion_policy == "Retain" or tenant.spec.deletion_protection
    if cell is not None:
        actions += _on_cell(tenant, facts, owner, now, retain=retain)
    if not retain:
        grants = facts.register.grants if facts.register is not None and cell is not None else ()
        if grants:
            actions.append(RevokeTokens(tuple(sorted(grant.id for grant in grants))))
        names = {entry.secret_name for entry in tenant.spec.access} | set(tenant.status.access_secrets)
        names |= {grant.secret for grant in grants}
        owned = [name for name in sorted(names) if _ours(facts, owner, name)]
        actions += [DeleteAccessSecret(name) for name in owned]
    ends = "dropped" if tenant.spec.deletion_policy == "Delete" else "stored as a snapshot and dropped"
    kept = "kept" if retain else f"{ends} {tenant.spec.undelete_window} from now"
    said = f"{owner.alias} is unpublished; its data is {kept}"
    if given_up:
        said = f"{owner.alias} is given up ({ABANDON_ANNOTATION}): its cell was not asked, and has it as it was"
    actions += [EmitEvent("Deleted", said), RemoveFinalizer()]
    return TenantPlan(tuple(actions), None)


def deletion_failed(tenant: SearchTenant, cell: str | None, error: str, now: datetime) -> SearchTenantStatus:
    """The status of a deletion whose pass ended in an error: of its cell, or of something else that the error names."""
    if cell and f"cell {cell}" in error:
        return _held_up(tenant, cell, f"which cannot be read or written just now ({error})", now)
    message = f"deletion waits: {error}; it is tried again"
    return status_with(tenant, (no("Ready", TenantReason.DELETING, message),), now, phase="Deleting")


def _held_up(tenant: SearchTenant, cell: str, why: str, now: datetime) -> SearchTenantStatus:
    """Waiting for a cell, with the two ways out that a person has."""
    message = (
        f"deletion waits for cell {cell}, {why}; where it is gone for good, "
        f'remove its Secret or annotate the tenant with {ABANDON_ANNOTATION}: "true"'
    )
    return status_with(tenant, (no("Ready", TenantReason.DELETING, message),), now, phase="Deleting")


def _trouble(tenant: SearchTenant, facts: TenantFacts, owner: Owner) -> str:
    """Why nothing may be written on the cell now; empty where it may. A copy of our data elsewhere is not ours."""
    cell = facts.cell
    if cell is None:
        return ""
    if not cell.reachable:
        return f"which does not answer ({cell.error})"
    unsure = shared_trouble(tenant, owner, cell)
    if unsure is not None:
        return f"where {unsure[1]}"
    wrong = points_to_shared(owner, cell)
    if wrong:
        return f"where alias {wrong} points to the shared collection {cell.aliases[wrong]}: remove that alias"
    expected = facts.identity.at(cell.name)
    seen = cell.identity
    if seen == expected or (seen is None and not any(owner.owns(item) for item in facts.collections)):
        return ""
    said = "no identity" if seen is None else f"cell {seen.cell!r} of fleet {seen.fleet!r} in cluster {seen.cluster}"
    return f"which says it is {said}, wanted {expected.cell!r}, {expected.fleet!r}, {expected.cluster}"


def _ours(facts: TenantFacts, owner: Owner, name: str) -> bool:
    found = facts.secrets.get(name)
    return found is not None and (found.type, found.owner_uid) == (ACCESS_SECRET_TYPE, owner.uid)


def _on_cell(
    tenant: SearchTenant, facts: TenantFacts, owner: Owner, now: datetime, *, retain: bool
) -> list[TenantAction]:
    mine = {item.name: item for item in facts.collections if owner.owns(item)}
    assert facts.cell is not None  # noqa: S101 - checked by the caller
    names = (owner.alias, f"{owner.alias}@a", f"{owner.alias}@b")
    actions: list[TenantAction] = [RemoveAlias(name) for name in names if facts.cell.aliases.get(name) in mine]
    drop_after = now + parse_duration(tenant.spec.undelete_window)
    live = facts.cell.aliases.get(owner.alias) or tenant.status.collection
    for name, collection in sorted(mine.items()):
        if KEY_DELETED_AT in collection.metadata:
            continue
        # Others' points are in a shared collection: no snapshot of it is this tenant's.
        shared = tenant.spec.deletion_policy == "Snapshot" and collection.slice is not None
        kept = retain or shared or KEY_ADOPTED in collection.metadata
        note = {KEY_DELETED_AT: format_time(now), KEY_POLICY: "Retain" if kept else tenant.spec.deletion_policy}
        if not kept:
            note[KEY_DROP_AFTER] = format_time(drop_after)
        if name == live:
            note[KEY_WAS_LIVE] = "true"
        actions.append(PatchCollection(name, tuple(sorted(note.items())), None))
    return actions


def tombstones_due(fleet: str, collections: tuple[CollectionState, ...], now: datetime) -> tuple[CollectionState, ...]:
    """Collections of this fleet that may be dropped by now; the caller checks live that nobody has the name.

    Args:
        fleet: this operator's.
        collections: what was read.
        now: the earliest that it may be, whichever clock wrote the notes.
    """
    due = []
    for collection in collections:
        metadata = collection.metadata
        if metadata.get(KEY_FLEET) != fleet or metadata.get(KEY_POLICY) not in ("Delete", "Snapshot"):
            continue
        if KEY_DELETED_AT not in metadata or KEY_BINDING not in metadata or KEY_ADOPTED in metadata:
            continue
        try:
            parse_time(metadata[KEY_DELETED_AT])
            after = parse_time(metadata.get(KEY_DROP_AFTER, ""))
        except ValueError:
            continue
        if after <= now and metadata.get(KEY_UID) and _says_its_name(fleet, collection):
            due.append(collection)
    return tuple(due)


def _says_its_name(fleet: str, collection: CollectionState) -> bool:
    """Whether the metadata names the tenant that the collection's own name does: only that one is asked for live."""
    namespace, name = collection.metadata.get(KEY_NAMESPACE, ""), collection.metadata.get(KEY_NAME, "")
    return bool(namespace and name) and alias_of(collection.name) == alias_name(fleet, namespace, name)
