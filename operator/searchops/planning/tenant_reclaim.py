"""Taking data back: a tenant finds what a former object of its very name left in the cell.

The API server keeps one object under a name, so where namespace and name are equal and the namespace is the same one
(its uid), the former owner is gone for certain, whether or not it could still leave a note. A namespace that was made
anew is somebody else's until the setting ``reclaim: Fleet`` says otherwise.

Every collection is taken by one PATCH that writes the new uid and removes the note in the same breath: there is no
moment at which it is neither noted for the sweep nor owned. Who gave it is kept beside it, so that a process that
dies between two generations of one tenant goes on with the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import parse_duration, parse_time
from searchops.planning.binding_state import read_bindings
from searchops.planning.names import (
    KEY_ADOPTED,
    KEY_DELETED_AT,
    KEY_DROP_AFTER,
    KEY_DROPPING,
    KEY_FLEET,
    KEY_FORMER_UID,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_NAMESPACE_UID,
    KEY_POLICY,
    KEY_PREVIOUS,
    KEY_RELEASED_AT,
    KEY_UID,
    KEY_WAS_LIVE,
    generation_of,
)
from searchops.planning.schema import side_of
from searchops.planning.tenant_facts import EmitEvent, PatchCollection, PointAlias, TenantPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from searchops.api.observed import CellState, CollectionState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantSettings


def plan_reclaim(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    cell: CellState,
    now: datetime,
) -> TenantPlan | None:
    """Take back what a former object of this name left; None where there is nothing to take."""
    found = reclaimable(tenant, owner, facts.collections, settings, now, published=cell.aliases.get(owner.alias))
    if not found:
        return None
    actions: list[TenantAction] = [PatchCollection(item.name, _taken(item, owner), None) for item in found]
    names = ", ".join(item.name for item in found)
    actions.append(EmitEvent("Reclaimed", f"{names} on cell {cell.name} taken back with their data"))
    return TenantPlan(tuple(actions), None, 0.0)


def reclaimable(
    tenant: SearchTenant,
    owner: Owner,
    collections: Sequence[CollectionState],
    settings: TenantSettings,
    now: datetime,
    *,
    published: str | None = None,
) -> tuple[CollectionState, ...]:
    """The collections of one former owner that this tenant may have; it never mixes the data of two of them.

    Args:
        tenant: the object.
        owner: what its collections should say.
        collections: everything under its name on one cell.
        settings: whether the namespace has to be the very same.
        now: the time of the pass.
        published: where the tenant's alias points to.
    """
    collections = [item for item in collections if KEY_DROPPING not in item.metadata]  # half of it is gone already
    own = [item for item in collections if owner.owns(item)]
    noted = [item for item in own if KEY_DELETED_AT in item.metadata]
    if noted:  # the object is back from a backup of the cluster, uid and all
        return tuple(sorted(noted, key=lambda item: item.name))
    groups: dict[str, list[CollectionState]] = {}
    for item in collections:
        if not owner.owns(item) and _same_name(item, owner, settings):
            groups.setdefault(item.metadata[KEY_UID], []).append(item)
    if own:
        begun = {item.metadata.get(KEY_FORMER_UID) for item in own}
        groups = {uid: items for uid, items in groups.items() if uid in begun}
    else:
        groups = {uid: items for uid, items in groups.items() if _open(items, tenant, now - settings.clock_skew)}
    if not groups:
        return ()
    best = max(groups, key=lambda uid: (_rank(groups[uid], published), uid))
    return tuple(sorted(groups[best], key=lambda item: item.name))


def _same_name(item: CollectionState, owner: Owner, settings: TenantSettings) -> bool:
    metadata = item.metadata
    named = (metadata.get(KEY_FLEET), metadata.get(KEY_NAMESPACE), metadata.get(KEY_NAME))
    if named != (owner.fleet, owner.namespace, owner.name) or not metadata.get(KEY_UID):
        return False
    return settings.reclaim == "Fleet" or metadata.get(KEY_NAMESPACE_UID) == owner.namespace_uid


def _open(items: Sequence[CollectionState], tenant: SearchTenant, now: datetime) -> bool:
    """Whether the window is open: the one that was promised at the deletion, or a longer one of the new object."""
    ends = []
    for item in items:
        if KEY_DELETED_AT not in item.metadata:
            return True  # the former owner went without a note (abandoned, or its finalizer was taken off by hand)
        try:
            ends.append(parse_time(item.metadata[KEY_DELETED_AT]) + parse_duration(tenant.spec.undelete_window))
        except ValueError:
            return False
        try:
            ends.append(parse_time(item.metadata.get(KEY_DROP_AFTER, "")))
        except ValueError:
            continue
    return now <= max(ends)


def _rank(items: Sequence[CollectionState], published: str | None) -> tuple[bool, bool, str]:
    """What is published comes first, then what has no note, then what was deleted last."""
    unnoted = any(KEY_DELETED_AT not in item.metadata for item in items)
    return (
        any(item.name == published for item in items),
        unnoted,
        max(item.metadata.get(KEY_DELETED_AT, "") for item in items),
    )


def _taken(item: CollectionState, owner: Owner) -> tuple[tuple[str, str | None], ...]:
    """One PATCH: the new owner, and no note any more."""
    values: dict[str, str | None] = {key: None for key in (KEY_DELETED_AT, KEY_DROP_AFTER, KEY_POLICY)}
    values |= {KEY_UID: owner.uid, KEY_NAMESPACE_UID: owner.namespace_uid}
    former = item.metadata[KEY_UID]
    if former != owner.uid:
        values[KEY_FORMER_UID] = former
    return tuple(sorted(values.items()))


def number_of(owner: Owner, item: CollectionState) -> int | None:
    """The generation that a collection stands for; an adopted one keeps its name and is the first."""
    number = generation_of(owner.alias, item.name)
    if number is None and KEY_ADOPTED in item.metadata and owner.owns(item):
        return 1
    return number


def live_generation(status_collection: str | None, mine: Mapping[int, CollectionState]) -> int:
    """Which generation was published, where no alias tells.

    The one that the status names, else the one that its deletion marked, else of those that ever served the one that
    was switched to last: a generation that a rebuild was filling never served.
    """
    for number, item in mine.items():
        if item.name == status_collection:
            return number
    marked = [number for number, item in mine.items() if KEY_WAS_LIVE in item.metadata]
    if marked:
        return max(marked)
    first = min(mine)
    served = [
        number
        for number, item in mine.items()
        if number == first or KEY_PREVIOUS in item.metadata or KEY_RELEASED_AT in item.metadata
    ]
    return max(served, key=lambda number: (_since(mine[number]), number))


def _since(item: CollectionState) -> str:
    state = read_bindings(item)
    return state.binding.since if state is not None and state.binding.since is not None else ""


def named_sides(owner: Owner, live: int, mine: Mapping[int, CollectionState]) -> tuple[PointAlias, ...]:
    """The other side, where the live generation's metadata names it: it must stand before the gateway writes to it."""
    state = read_bindings(mine[live])
    if state is None:
        return ()
    other = side_of(owner.alias, live + 1)
    if not any(item is not None and item.side == other for item in (state.pending, state.previous)):
        return ()
    standing = [number for number in mine if number != live and side_of(owner.alias, number) == other]
    return (PointAlias(other, mine[max(standing)].name),) if standing else ()
