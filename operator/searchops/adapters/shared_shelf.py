"""The shared collections of one cell as they were read, and the slices in them in the form of collections.

Pure but for nothing: what is read and written goes on elsewhere. A shelf is read for the passes of about a second, and
carried on by what this process writes itself, as surveys are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from searchops.api.observed import CollectionState
from searchops.api.shared import (
    KEY_LAYOUT,
    KEY_SHARED,
    TENANT_KEY,
    SliceAddress,
    SliceRecord,
    TenantRecord,
    records_of,
    standing,
    unreadable_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from searchops.api.observed import CellContents, CellState

KEY_FLEET = "searchops.dev/fleet"
KEY_UID = "searchops.dev/uid"
SUFFIXES = ("", "@a", "@b")
_NAME = re.compile(r"^(?P<alias>[^@]+)(?P<suffix>@[ab])?$")


@dataclass(frozen=True, slots=True)
class Found:
    """One slice: whose it is, what is kept of it, and the collection that it stands in."""

    name: str
    uid: str
    generation: int
    address: SliceAddress
    record: TenantRecord
    slice: SliceRecord
    shared: CollectionState


def shared_name(fleet: str, layout: str, number: int) -> str:
    """The physical name of a shared collection; ``@`` keeps it apart from every tenant's."""
    return f"{fleet}@shared-{layout}-{number}"


def is_shared_name(fleet: str, name: str) -> bool:
    """Whether a physical name is one of this fleet's shared collections."""
    return name.startswith(f"{fleet}@shared-")


def split_alias(name: str) -> tuple[str, str]:
    """A tenant's name as its public name and the suffix of a side.

    Raises:
        ValueError: it is no tenant's name.
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"{name!r} is neither a tenant's public name nor a side of it")
    return match["alias"], match["suffix"] or ""


@dataclass(slots=True)
class Shelf:
    """Shared collections by physical name.

    Attributes:
        read_at: monotonic seconds.
        names: that were read, also of those that turned out to be somebody else's.
        unread: why some could not be read, by name.
        unread_at: when they were tried last, in monotonic seconds.
        version: grows with every change.
    """

    read_at: float
    collections: dict[str, CollectionState]
    names: tuple[str, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)
    unread_at: float = 0.0
    version: int = 0
    touched: dict[str, int] = field(default_factory=dict)
    _found: tuple[int, dict[str, Found]] | None = None

    def put(self, state: CollectionState) -> None:
        """What this process has just written."""
        self.version += 1
        self.collections[state.name] = state
        self.unread.pop(state.name, None)
        self.touched[state.name] = self.version

    def records(self, collection: str) -> dict[str, TenantRecord]:
        """Records of one collection by uid."""
        return records_of(self.collections[collection].metadata)

    def slices(self) -> Mapping[str, Found]:
        """Every slice by the name it goes by."""
        if self._found is None or self._found[0] != self.version:
            self._found = self.version, {item.name: item for item in slices_of(self.collections.values())}
        return self._found[1]

    def of_alias(self, alias: str) -> list[tuple[str, str, TenantRecord]]:
        """Collection, uid and record of everybody who has or had this public name."""
        found = []
        for collection in sorted(self.collections):
            for uid, record in sorted(self.records(collection).items()):
                if record.alias == alias:
                    found.append((collection, uid, record))
        return found

    def turn(self, alias: str, suffix: str) -> int:
        """A turn that goes before every one that a record holds for this name."""
        turns = [record.names[suffix].turn for _, _, record in self.of_alias(alias) if suffix in record.names]
        return 1 + max(turns, default=0)


def slices_of(collections: Iterable[CollectionState]) -> list[Found]:
    """The slices in these collections; of one name that two records give, the tenant's own record counts once."""
    found = []
    for state in collections:
        if state.metadata.get(KEY_SHARED) not in ("Shared", "ShardKey"):
            continue
        for uid, record in records_of(state.metadata).items():
            for generation, kept in record.slices.items():
                address = SliceAddress(record.tier, state.name, kept.key)
                found.append(Found(f"{record.alias}@g{generation}", uid, generation, address, record, kept, state))
    return found


def as_collection(found: Found, points: int) -> CollectionState:
    """A slice as a collection of its own would look.

    Without the index that tells tenants apart none of its indexes counts as there: making one makes that one first.
    """
    shared = found.shared
    told_apart = shared.indexes.get(TENANT_KEY) == "keyword"
    dense = {name: size for name, size in shared.dense.items() if found.slice.vectors.get(name) == size}
    return replace(
        shared,
        name=found.name,
        points=points,
        dense=dense,
        indexes={name: kind for name, kind in shared.indexes.items() if name != TENANT_KEY and told_apart},
        metadata=dict(found.slice.metadata),
        indexed_vectors=None,
        slice=found.address,
        layout=shared.metadata.get(KEY_LAYOUT, ""),
        points_beside=shared.points if found.address.tier == "Shared" else 0,
    )


def rewritten(found: Found, changed: SliceRecord | None) -> dict[str, TenantRecord | None]:
    """Records, by uid, with a slice changed or, with None, gone.

    A new uid in the slice's metadata takes it, with the names that point to it, to that tenant's record: both are
    written by one PATCH. None stands for a record that has no slice left.
    """
    records = records_of(found.shared.metadata)
    own = records.get(found.uid, found.record)
    uid = found.uid if changed is None else changed.metadata.get(KEY_UID, found.uid)
    rest = {number: item for number, item in own.slices.items() if number != found.generation}
    if changed is not None and uid == found.uid:
        return {uid: own.model_copy(update={"slices": {**rest, found.generation: changed}})}
    named = {suffix: name for suffix, name in own.names.items() if name.generation == found.generation}
    others = {suffix: name for suffix, name in own.names.items() if suffix not in named}
    left = own.model_copy(update={"slices": rest, "names": others}) if rest else None
    if changed is None:
        return {found.uid: left}
    new = records.get(uid) or TenantRecord(tier=own.tier, alias=own.alias)
    joined = {"slices": {**new.slices, found.generation: changed}, "names": {**new.names, **named}}
    return {found.uid: left, uid: new.model_copy(update=joined)}


def names_of(collections: Iterable[CollectionState]) -> dict[str, str]:
    """Which slice each name of a tenant points to."""
    by_alias: dict[str, list[tuple[str, TenantRecord]]] = {}
    for state in collections:
        for record in records_of(state.metadata).values():
            by_alias.setdefault(record.alias, []).append((state.name, record))
    names = {}
    for alias, records in by_alias.items():
        for suffix in SUFFIXES:
            at = standing(records, suffix)
            if at is not None:
                names[f"{alias}{suffix}"] = f"{alias}@g{at[1]}"
    return names


def over_survey(state: CellState, shelf: Shelf) -> CellState:
    """A survey with the slices in it; a name in a record goes before an alias of that name.

    But for an alias that points to a shared collection, which nobody of us makes: it stays to be seen as a conflict.
    """
    slices = shelf.slices()
    wrong = {alias: target for alias, target in state.aliases.items() if target in shelf.collections}
    return replace(
        state,
        collections=state.collections | slices.keys(),
        aliases={**state.aliases, **names_of(shelf.collections.values()), **wrong},
        shared=frozenset(shelf.collections) | shelf.unread.keys(),
        slices=len(slices.keys() - state.collections),
        unread=frozenset(shelf.unread),
        unreadable=frozenset(uid for item in shelf.collections.values() for uid in unreadable_records(item.metadata)),
    )


def over_contents(contents: CellContents, fleet: str) -> CellContents:
    """A bulk read with the slices in it, out of what it has brought already."""
    shared = {name: item for name, item in contents.collections.items() if is_shared_name(fleet, name)}
    if not shared:
        return contents
    states = [
        CollectionState(name, 0, item.dense, item.sparse, {}, item.shards, item.replicas, item.strict, item.metadata)
        for name, item in shared.items()
        if item.metadata.get(KEY_FLEET) == fleet
    ]
    outlines = dict(contents.collections)
    for found in slices_of(states):
        whole = shared[found.address.collection]
        frame = (tuple(sorted(whole.dense.items())), tuple(sorted(whole.sparse)), whole.shards, whole.replicas)
        dense = {name: size for name, size in whole.dense.items() if found.slice.vectors.get(name) == size}
        outlines[found.name] = replace(
            whole,
            name=found.name,
            digest=hash((frame, whole.strict, found.slice.model_dump_json())),
            dense=dense,
            metadata=dict(found.slice.metadata),
            slice=found.address,
            layout=whole.metadata.get(KEY_LAYOUT, ""),
        )
    wrong = {alias: target for alias, target in contents.aliases.items() if target in shared}
    lost = frozenset((item.name, uid) for item in states for uid in unreadable_records(item.metadata))
    names = {**contents.aliases, **names_of(states), **wrong}
    return replace(contents, collections=outlines, aliases=names, unreadable=lost)
