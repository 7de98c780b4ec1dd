"""What only shared collections need of a cell: their making, shard keys, and work on the points of one slice.

Every write goes through the one guard (`CellWrites`): once, and read back where its effect is open. Whatever touches
points names the slice's key in its filter, and its shard key where there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.adapters.cell_requests import ask, path_of
from searchops.adapters.cell_surveys import Effect
from searchops.adapters.qdrant_errors import NoShardKey, translated
from searchops.adapters.qdrant_shapes import new_collection
from searchops.api.retrieval import DELETED_KEY, MISSED_KEY
from searchops.api.shared import KEY_LAYOUT, KEY_SHARED, TENANT_KEY

if TYPE_CHECKING:
    from searchops.adapters.qdrant import QdrantCells
    from searchops.api.observed import CellRegistration, CollectionDesign
    from searchops.api.shared import SliceAddress

PAYLOAD_M = 16
"""Links a node has in the graphs of each tenant; m = 0 makes no graph over all of them, which nobody would search."""


def points_of(address: SliceAddress, *further: Any, without: Any = None) -> models.Filter:
    """The slice's points, narrowed by further conditions."""
    own = models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=address.key))
    return models.Filter(must=[own, *further], must_not=[without] if without is not None else None)


class QdrantShared:
    """Requests about shared collections.

    Args:
        cells: whose clients and guard are used.
    """

    def __init__(self, cells: QdrantCells) -> None:
        self._cells = cells

    async def create(self, cell: CellRegistration, collection: str, design: CollectionDesign, fleet: str) -> None:
        """A collection for many tenants, with the index that tells them apart made before any data."""
        connection = self._cells.connection(cell)
        own = {"searchops.dev/fleet": fleet, KEY_SHARED: design.tier, KEY_LAYOUT: design.layout}
        body = new_collection(design) | {"hnsw_config": {"m": 0, "payload_m": PAYLOAD_M}, "metadata": own}
        if design.tier == "ShardKey":
            body["sharding_method"] = "custom"

        async def create() -> None:
            await ask(connection, cell, "PUT", path_of(collection), body)

        async def done() -> bool:
            found = await self._cells.describe(cell, collection)
            return found is not None and all(found.metadata.get(key) == value for key, value in own.items())

        await self._cells.writes.act(cell, f"create {collection}", create, done, Effect(made=collection))

    async def index_tenants(self, cell: CellRegistration, collection: str) -> None:
        """The index on the slices' key; the same again is a no-op."""
        client = self._cells.connection(cell).client
        schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)

        async def create() -> None:
            self._cells.indexed(cell)
            await client.create_payload_index(collection, TENANT_KEY, schema, wait=True)

        async def done() -> bool:
            found = await self._cells.describe(cell, collection)
            return found is not None and found.indexes.get(TENANT_KEY) == "keyword"

        await self._cells.writes.act(cell, f"index {TENANT_KEY} of {collection}", create, done)

    async def add_shard_key(self, cell: CellRegistration, collection: str, key: str, replicas: int) -> None:
        """The slice's own shard; one that is there already is success."""
        client = self._cells.connection(cell).client

        async def add() -> None:
            await client.create_shard_key(collection, key, shards_number=1, replication_factor=replicas)

        async def done() -> bool:
            return key in await self._shard_keys(cell, collection)

        await self._cells.writes.act(cell, f"add shard key {key} to {collection}", add, done, verify=True)

    async def drop_shard_key(self, cell: CellRegistration, collection: str, key: str) -> None:
        """The slice's own shard with its points; a missing one is success."""
        client = self._cells.connection(cell).client
        if key not in await self._shard_keys(cell, collection):
            return

        async def drop() -> None:
            await client.delete_shard_key(collection, key)

        async def done() -> bool:
            return key not in await self._shard_keys(cell, collection)

        await self._cells.writes.act(cell, f"drop shard key {key} of {collection}", drop, done, verify=True)

    async def delete_points(self, cell: CellRegistration, address: SliceAddress) -> None:
        """Every point of the slice, tombstones included, proved by an exact count."""
        client = self._cells.connection(cell).client
        selector = models.FilterSelector(filter=points_of(address))

        async def delete() -> None:
            await client.delete(address.collection, selector, wait=True)

        async def done() -> bool:
            return await self.count_all(cell, address) == 0

        what = f"delete the points of slice {address.key} in {address.collection}"
        await self._cells.writes.act(cell, what, delete, done, verify=True)

    async def delete_vectors(self, cell: CellRegistration, address: SliceAddress, vector: str) -> None:
        """One dense vector of the slice's points; those of other tenants keep theirs."""
        client = self._cells.connection(cell).client
        having = models.HasVectorCondition(has_vector=vector)
        selector = models.FilterSelector(filter=points_of(address, having))

        async def delete() -> None:
            await client.delete_vectors(
                address.collection, [vector], selector, wait=True, shard_key_selector=address.shard_key
            )

        async def done() -> bool:
            return await self._count(cell, address, points_of(address, having)) == 0

        what = f"remove vector {vector} of slice {address.key} in {address.collection}"
        await self._cells.writes.act(cell, what, delete, done, verify=True)

    async def count_all(self, cell: CellRegistration, address: SliceAddress) -> int:
        """Exact number of the slice's points, tombstones included."""
        return await self._count(cell, address, points_of(address))

    async def count(
        self, cell: CellRegistration, address: SliceAddress, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        """As `CellReader.count`, of the slice."""
        live: Any = models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))
        if missed is not None:
            live = models.FieldCondition(key=MISSED_KEY, match=models.MatchValue(value=missed))
        without = models.HasVectorCondition(has_vector=lacking) if lacking else None
        return await self._count(cell, address, points_of(address, live, without=without))

    async def _count(self, cell: CellRegistration, address: SliceAddress, wanted: models.Filter) -> int:
        client = self._cells.connection(cell).client
        try:
            async with translated(cell.name, f"count slice {address.key} in {address.collection}"):
                answer = await client.count(
                    address.collection, wanted, exact=True, shard_key_selector=address.shard_key
                )
        except NoShardKey:
            return 0  # dropped with its points, and the record that names it goes next
        return answer.count

    async def _shard_keys(self, cell: CellRegistration, collection: str) -> frozenset[str]:
        client = self._cells.connection(cell).client
        async with translated(cell.name, f"read the shard keys of {collection}"):
            found = await client.list_shard_keys(collection)
        return frozenset(str(item.key) for item in found.shard_keys or ())
