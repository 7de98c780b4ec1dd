"""What a cell's bulk read shows of each tenant, beside what the tenant declares and what was last found in order.

A tenant whose picture is the one that was found in order is not compared again; one that differs is named with why,
and a pass over it repairs or reports. Payload indexes are not in the bulk read: `index_difference` takes a read of the
collection itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.observed import CollectionState
from searchops.planning.binding_state import read_bindings, unreadable
from searchops.planning.names import (
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_FLEET,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_UID,
    generation_of,
)
from searchops.planning.schema import compare_schema, indexes_of, side_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from searchops.api.observed import CellContents, CollectionOutline
    from searchops.api.v1alpha1.search_tenant import SearchTenant


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a bulk read says of one tenant; equal pictures need no second look.

    Attributes:
        generation: of the tenant's spec.
        collection: where its status says it is.
        target: where its alias points; None where there is none.
        side: where the alias of the collection's side points.
        digest: of the collection's configuration; None where it is not there.
    """

    generation: int
    collection: str
    target: str | None
    side: str | None
    digest: int | None


def picture(contents: CellContents, *, alias: str, collection: str, generation: int) -> Picture:
    """One tenant in the bulk read.

    Args:
        contents: what the tenant's cell shows.
        alias: the tenant's public name.
        collection: as its status names it.
        generation: of its spec.
    """
    found = contents.collections.get(collection)
    side = side_of(alias, generation_of(alias, collection) or 1)
    return Picture(
        generation,
        collection,
        contents.aliases.get(alias),
        contents.aliases.get(side),
        None if found is None else found.digest,
    )


def difference(tenant: SearchTenant, contents: CellContents, seen: Picture, *, fleet: str) -> str:
    """Why a tenant needs a pass, for people; empty where the cell shows what it declares and what its status says."""
    status = tenant.status
    found = contents.collections.get(seen.collection)
    if found is None:
        return f"collection {seen.collection} is gone"
    if seen.target != seen.collection:
        return f"alias {status.alias} points to {seen.target or 'nothing'}, wanted {seen.collection}"
    if seen.side != seen.collection:
        return f"the alias of its side points to {seen.side or 'nothing'}, wanted {seen.collection}"
    if found.metadata.get(KEY_FLEET) != fleet or found.metadata.get(KEY_UID) != tenant.metadata.uid:
        return f"the metadata of {seen.collection} names another owner"
    said = found.metadata.get(KEY_NAMESPACE), found.metadata.get(KEY_NAME)
    if said != (tenant.metadata.namespace, tenant.metadata.name):
        return f"the metadata of {seen.collection} names another tenant"
    current = as_read(found, tenant)
    state = read_bindings(current)
    if state is None:
        return f"{', '.join(unreadable(current)) or KEY_BINDING} in the metadata of {seen.collection} cannot be read"
    if status.binding is not None and state.to_status() != status.binding:
        return f"{seen.collection} is bound to {state.binding.revision}, the status says {status.binding.revision}"
    schema = compare_schema(tenant.spec, current, state)
    if schema.rebuild:
        return "; ".join(schema.rebuild)
    if schema.strict is not None:
        return f"strict mode of {seen.collection} is not as spec.quotas wants it"
    if schema.rates is not None:
        return f"the rates in the metadata of {seen.collection} are not as spec.quotas wants them"
    return ""


def index_difference(tenant: SearchTenant, collection: CollectionState) -> str:
    """Which declared payload indexes a collection lacks, or has as another type; empty where none."""
    lacking = [name for name, kind in indexes_of(tenant.spec) if collection.indexes.get(name) != kind]
    return (
        f"payload indexes {', '.join(lacking)} of {collection.name} are missing or of another type" if lacking else ""
    )


def orphans(
    contents: CellContents, *, fleet: str, uids: AbstractSet[str], names: AbstractSet[tuple[str, str]]
) -> tuple[str, ...]:
    """Collections of this fleet that nobody answers for: no tenant of that uid or name, and no note of a deletion.

    Args:
        contents: what a cell shows.
        fleet: this operator's fleet.
        uids: every SearchTenant's.
        names: namespace and name of every SearchTenant.
    """
    found = []
    for name, outline in contents.collections.items():
        metadata = outline.metadata
        if metadata.get(KEY_FLEET) != fleet or not metadata.get(KEY_UID) or KEY_DELETED_AT in metadata:
            continue
        owner = (metadata.get(KEY_NAMESPACE, ""), metadata.get(KEY_NAME, ""))
        if metadata[KEY_UID] not in uids and owner not in names:
            found.append(name)
    unread = (f"{collection} (record of {uid})" for collection, uid in contents.unreadable if uid not in uids)
    return tuple(sorted((*found, *unread)))


def as_read(found: CollectionOutline, tenant: SearchTenant) -> CollectionState:
    """The outline in the form that schemas are compared in; its indexes, which it does not tell, count as there."""
    return CollectionState(
        name=found.name,
        points=0,
        dense=found.dense,
        sparse=found.sparse,
        indexes=dict(indexes_of(tenant.spec)),
        shards=found.shards,
        replicas=found.replicas,
        strict=found.strict,
        metadata=found.metadata,
        slice=found.slice,
        layout=found.layout,
    )
