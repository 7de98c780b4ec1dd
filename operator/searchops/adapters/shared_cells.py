"""Cells with shared collections: the port of cells, in which a tenant's slice looks like a collection of its own.

Planner and controllers know generations, names and metadata; where a tenant shares a collection, this adapter keeps
them in the tenant's record there (`searchops.api.shared`) and turns every call on a generation ``<alias>@g<n>`` into
one on the slice. Collections of one tenant pass through untouched.

The record is read, changed and written whole. That is safe because one process writes a cell at a time: the leader,
in the cell's one slot for DDL.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.adapters.qdrant_shapes import same_owner
from searchops.adapters.shared_reads import SharedReads
from searchops.adapters.shared_shelf import (
    Shelf,
    is_shared_name,
    over_survey,
    rewritten,
    shared_name,
    split_alias,
)
from searchops.api.shared import (
    KEY_LAYOUT,
    KEY_SHARED,
    RECORD_PREFIX,
    TENANT_KEY,
    NameRecord,
    SliceRecord,
    TenantRecord,
    record_key,
    records_of,
    unreadable_records,
)
from searchops.runtime.errors import Terminal, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.adapters.qdrant import QdrantCells
    from searchops.api.observed import (
        CellIdentity,
        CellRegistration,
        CollectionDesign,
        CollectionState,
        StrictMode,
    )

KEY_UID = "searchops.dev/uid"
KEY_BINDING = "searchops.dev/binding"
KEY_DELETED_AT = "searchops.dev/deleted-at"
KEY_DROPPING = "searchops.dev/dropping"
KEY_GENERATION = "searchops.dev/generation"


class SharedCells(SharedReads):
    """Reads and writes of every cell, slices of shared collections among them.

    Args:
        cells: the cells themselves.
        fleet: whose shared collections are looked into.
        tenants_each: most tenants of one shared collection.
        slice_key: key of a new slice, from its owner's uid, alias and generation, and the binding it is made with.
        indexing_threshold: points from which a collection's vectors are indexed.
        made: told of a cell on which a shared collection was made.
        now: monotonic seconds.
    """

    def __init__(
        self,
        cells: QdrantCells,
        *,
        fleet: str,
        tenants_each: int,
        slice_key: Callable[[str, str, int, str], str],
        indexing_threshold: int,
        made: Callable[[str], None] = lambda _cell: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(cells, fleet=fleet, now=now)
        self._tenants_each = tenants_each
        self._slice_key = slice_key
        self._indexing_threshold = indexing_threshold
        self._made = made

    # -- writes ------------------------------------------------------------------------------------------------

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        """As `QdrantCells.claim`."""
        await self._cells.claim(cell, identity)

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        """A collection, or a slice in one that has room; an existing one of the same owner is success."""
        if design.tier == "Collection":
            await self._cells.create_collection(cell, design)
            return
        wanted = dict(design.metadata)
        found = await self._find(cell, design.name)
        if found is not None:
            if not same_owner(found.slice.metadata, wanted):
                seen = f"cell {cell.name}: {design.name} in {found.address.collection} is another tenant's"
                raise Terminal("Conflict", describe(seen, wanted="the name free", next_step="Rename, or remove it."))
            await self._fit_vectors(cell, found.address.collection, design)
            return
        uid, alias, generation = wanted[KEY_UID], split_alias(design.name.rsplit("@g", 1)[0])[0], _generation(wanted)
        collection = await self._room(cell, uid, design)
        key, tier = self._slice_key(uid, alias, generation, wanted.get(KEY_BINDING, "")), design.tier
        if tier == "ShardKey":
            await self._points.add_shard_key(cell, collection, key, design.replicas)
        before = (await self._current(cell)).records(collection).get(uid)
        record = before or TenantRecord(tier=tier, alias=alias)
        made = SliceRecord(key=key, vectors=dict(design.dense), metadata=wanted)
        slices = {**record.slices, generation: made}
        await self._write(cell, collection, {uid: record.model_copy(update={"slices": slices})})

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        """Payload index; that of a slice is one of its collection, which all its tenants have."""
        found = await self._find(cell, collection)
        if found is not None and TENANT_KEY not in found.shared.indexes:
            await self._points.index_tenants(cell, found.address.collection)
        await self._cells.create_index(cell, collection if found is None else found.address.collection, field, kind)
        if found is not None:
            await self._reread(cell, found.address.collection)

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        """Create or move a name: for a slice one PATCH of the record, and no alias of that name is left.

        From a slice to a collection the alias comes first, and taking the name out of the record is the move itself.
        """
        found = await self._find(cell, collection)
        base, suffix = split_alias(alias)
        if found is None:
            await self._cells.point_alias(cell, alias, collection)
            await self._unname(cell, base, suffix)
            return
        shelf = await self._current(cell)
        state = await self._cells.survey(cell)
        if over_survey(state, shelf).aliases.get(alias) != collection or suffix not in found.record.names:
            name = NameRecord(generation=found.generation, turn=shelf.turn(base, suffix))
            record = found.record.model_copy(update={"names": {**found.record.names, suffix: name}})
            await self._write(cell, found.address.collection, {found.uid: record})
        if alias in state.aliases:
            await self._cells.remove_alias(cell, alias)

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        """Remove a name wherever it stands; a missing one is success."""
        base, suffix = split_alias(alias)
        if not await self._unname(cell, base, suffix) or alias in (await self._cells.survey(cell)).aliases:
            await self._cells.remove_alias(cell, alias)

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        """One PATCH of flat keys; those of a slice are in its tenant's record, which moves with a new uid."""
        found = await self._find(cell, collection)
        if found is None:
            await self._cells.patch_metadata(cell, collection, metadata, strict)
            return
        values = {**found.slice.metadata, **{key: value for key, value in metadata.items() if value is not None}}
        kept = {key: value for key, value in values.items() if metadata.get(key, value) is not None}
        changed = found.slice.model_copy(update={"metadata": kept})
        await self._write(cell, found.address.collection, rewritten(found, changed), strict)

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        """Add a dense vector; a slice's is one of its collection, and in its record."""
        found = await self._find(cell, collection)
        if found is None:
            await self._cells.add_vector(cell, collection, vector, dimension)
            return
        await self._cells.add_vector(cell, found.address.collection, vector, dimension)
        await self._reread(cell, found.address.collection)
        vectors = {**found.slice.vectors, vector: dimension}
        changed = found.slice.model_copy(update={"vectors": vectors})
        await self._write(cell, found.address.collection, rewritten(found, changed))

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        """Remove a dense vector; of a slice's points alone, and of the collection where no record names it."""
        found = await self._find(cell, collection)
        if found is None:
            await self._cells.remove_vector(cell, collection, vector)
            return
        if vector in found.shared.dense:
            await self._points.delete_vectors(cell, found.address, vector)
        vectors = {name: size for name, size in found.slice.vectors.items() if name != vector}
        changed = found.slice.model_copy(update={"vectors": vectors})
        await self._write(cell, found.address.collection, rewritten(found, changed))
        await self._remove_unnamed(cell, found.address.collection, [vector])

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        """Drop a collection; of a slice its points first and then its part of the record, never the collection."""
        found = await self._find(cell, collection)
        if found is None:
            if is_shared_name(self._fleet, collection):
                seen = f"cell {cell.name}: {collection} holds many tenants"
                raise Terminal("Conflict", describe(seen, wanted="a tenant's own", next_step="Nothing was dropped."))
            await self._cells.drop_collection(cell, collection)
            return
        if KEY_DELETED_AT in found.slice.metadata and KEY_DROPPING not in found.slice.metadata:
            # Said before the first point goes: whoever may take back what was deleted must not get it half empty.
            await self.patch_metadata(cell, collection, {KEY_DROPPING: "true"}, None)
            found = await self._find(cell, collection) or found
        if found.address.tier == "ShardKey":
            await self._points.drop_shard_key(cell, found.address.collection, found.address.key)
        else:
            await self._points.delete_points(cell, found.address)
        await self._write(cell, found.address.collection, rewritten(found, None))
        await self._remove_unnamed(cell, found.address.collection, list(found.slice.vectors))

    # -- within ------------------------------------------------------------------------------------------------

    async def _room(self, cell: CellRegistration, uid: str, design: CollectionDesign) -> str:
        """A shared collection of this layout: where the tenant is already, else the first with room, else a new one.

        One of the tier Shared that is indexed and lacks a vector is passed by: to add and fill one dismantles the
        index of every tenant in it.
        """
        shelf = await self._current(cell)
        alike = [
            name
            for name, item in sorted(shelf.collections.items())
            if (item.metadata.get(KEY_SHARED), item.metadata.get(KEY_LAYOUT)) == (design.tier, design.layout)
        ]
        alike = [name for name in alike if not self._would_dismantle(shelf.collections[name], design)]
        holding = [name for name in alike if uid in shelf.records(name)]
        roomy = [name for name in alike if len(shelf.records(name)) < self._tenants_each]
        if holding or roomy:
            collection = (holding or roomy)[0]
        else:
            taken = (await self._cells.survey(cell)).collections
            names = (shared_name(self._fleet, design.layout, number) for number in range(len(taken) + 1))
            collection = next(name for name in names if name not in taken)
            await self._points.create(cell, collection, design, self._fleet)
            self._made(cell.name)
        if TENANT_KEY not in (await self._reread(cell, collection)).indexes:
            await self._points.index_tenants(cell, collection)
        await self._fit_vectors(cell, collection, design)
        return collection

    def _would_dismantle(self, shared: CollectionState, design: CollectionDesign) -> bool:
        lacking = any(shared.dense.get(vector) != dimension for vector, dimension in design.dense)
        return design.tier == "Shared" and lacking and shared.points >= self._indexing_threshold

    async def _fit_vectors(self, cell: CellRegistration, collection: str, design: CollectionDesign) -> None:
        found = await self._reread(cell, collection)
        for vector, dimension in design.dense:
            if found.dense.get(vector) != dimension:
                await self._cells.add_vector(cell, collection, vector, dimension)
                await self._reread(cell, collection)

    async def _unname(self, cell: CellRegistration, alias: str, suffix: str) -> bool:
        """Take a name out of every record; whether one had it."""
        shelf = await self._current(cell)
        had = [item for item in shelf.of_alias(alias) if suffix in item[2].names]
        for collection, uid, record in had:
            names = {key: name for key, name in record.names.items() if key != suffix}
            await self._write(cell, collection, {uid: record.model_copy(update={"names": names})})
        return bool(had)

    async def _write(
        self,
        cell: CellRegistration,
        collection: str,
        records: Mapping[str, TenantRecord | None],
        strict: StrictMode | None = None,
    ) -> None:
        """One PATCH of whole records, read back by the cell's guard; whatever it leaves open is read anew."""
        values = {record_key(uid): None if item is None else item.to_metadata() for uid, item in records.items()}
        known = (await self._current(cell)).collections.get(collection)
        for uid in records:
            if known is None or uid in unreadable_records(known.metadata):
                seen = f"cell {cell.name}: the record {record_key(uid)} in the metadata of {collection} cannot be read"
                raise Terminal(
                    "Conflict", describe(seen, wanted="a tenant's record", next_step="Restore or remove it.")
                )
        try:
            await self._cells.patch_metadata(cell, collection, values, strict)
        except BaseException:
            self._shelves.pop(cell.name, None)
            self._doubts[cell.name] = self._doubts.get(cell.name, 0) + 1
            raise
        shelf = self._shelves.setdefault(cell.name, Shelf(self._now(), {}))
        state = shelf.collections.get(collection, known)
        assert state is not None  # noqa: S101 - looked at before the write
        metadata = {**state.metadata, **{key: value for key, value in values.items() if value is not None}}
        for key in [key for key, value in values.items() if value is None]:
            metadata.pop(key, None)
        shelf.put(replace(state, metadata=metadata, strict=strict or state.strict))

    async def _remove_unnamed(self, cell: CellRegistration, collection: str, vectors: list[str]) -> None:
        """Take vectors out of the collection that no slice in it names any more; an unreadable record may name any."""
        state = await self._reread(cell, collection)
        records = records_of(state.metadata)
        unread = sum(key.startswith(RECORD_PREFIX) for key in state.metadata) - len(records)
        named = {vector for record in records.values() for item in record.slices.values() for vector in item.vectors}
        for vector in vectors:
            if vector in state.dense and vector not in named and not unread:
                await self._cells.remove_vector(cell, collection, vector)
                await self._reread(cell, collection)


def _generation(metadata: Mapping[str, str]) -> int:
    return int(metadata[KEY_GENERATION])
