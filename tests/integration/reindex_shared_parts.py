"""Two tenants of equal product ids who share collections, and the places that one is rebuilt from and to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from integration import reindex_parts as parts
from searchops.api.retrieval import DELETED_KEY, ID_KEY, VERSION_KEY, lexical_vector, trigram_vector
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops.planning.schema import LARGEST_BATCH, QUERY_LIMIT
from searchops_workers.retrieval.documents import document_of, render
from searchops_workers.retrieval.scope import NewPoint, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from searchops.api.retrieval import Binding
    from searchops.api.shared import SharedTier

NEIGHBOUR = "neighbour"
"""In every title of the other tenant, so that it shows wherever one of its points is read."""

Products = list[dict[str, Any]]


@dataclass(frozen=True)
class Move:
    """Where a tenant is rebuilt from and to; equal names are one shared collection."""

    name: str
    source: tuple[SharedTier | None, str]
    target: tuple[SharedTier | None, str]


MOVES = (
    Move("Collection to Shared", (None, ""), ("Shared", "one")),
    Move("Shared to Collection", ("Shared", "one"), (None, "")),
    Move("Shared to Shared", ("Shared", "one"), ("Shared", "one")),
    Move("Shared to ShardKey", ("Shared", "one"), ("ShardKey", "two")),
    Move("ShardKey to ShardKey", ("ShardKey", "two"), ("ShardKey", "two")),
    Move("ShardKey to Collection", ("ShardKey", "two"), (None, "")),
)
TO_SHARED = tuple(move for move in MOVES if move.target[0] is not None)
FROM_SHARED = tuple(move for move in MOVES if move.source[0] is not None)


class World:
    """One tenant that is rebuilt and its neighbour, in the collections of a move.

    Attributes:
        tenant: who is rebuilt.
        old: its binding on the source.
        new: its binding on the target.
        source: where it is.
        target: where it goes, empty.
        neighbours: slices of the neighbour, one in each shared collection; all hold the same products.
    """

    def __init__(self, tenant: parts.Tenant, *, old: Binding, new: Binding) -> None:
        self.tenant = tenant
        self.old = old
        self.new = new
        self.source = self.target = Scope.whole("")
        self.neighbours: list[Scope] = []
        self.made: dict[str, str] = {}

    async def close(self) -> None:
        for name in self.made.values():
            await self.tenant.admin.delete_collection(name)

    def task(self, **changes: Any) -> Any:
        slices = {"source_slice": self.source.address, "target_slice": self.target.address}
        names = {"source_collection": self.source.collection, "target_collection": self.target.collection}
        return self.tenant.task("BlueGreen", self.new, **{**names, **slices, **changes})

    async def shared(self, tier: SharedTier, label: str) -> str:
        """A shared collection with both bindings' vectors and a slice of the neighbour."""
        if label in self.made:
            return self.made[label]
        name = f"prod@{label}-{uuid.uuid4().hex[:8]}"
        a8 = parts.ANALYSER.analyser_id
        sizes = {binding.vector or "": parts.DIMENSION for binding in (self.old, self.new)}
        await self.tenant.admin.create_collection(
            name,
            {vector: models.VectorParams(size=size, distance=models.Distance.COSINE) for vector, size in sizes.items()},
            sparse_vectors_config={
                vector: models.SparseVectorParams(modifier=models.Modifier.IDF)
                for vector in (lexical_vector(a8), trigram_vector(a8))
            },
            sharding_method=models.ShardingMethod.CUSTOM if tier == "ShardKey" else None,
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            strict_mode_config=models.StrictModeConfig(
                enabled=True,
                max_query_limit=QUERY_LIMIT,
                upsert_max_batchsize=LARGEST_BATCH,
                unindexed_filtering_retrieve=False,
                unindexed_filtering_update=False,
            ),
        )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self.tenant.admin.create_payload_index(name, TENANT_KEY, tenant, wait=True)
        for key in (DELETED_KEY, VERSION_KEY):
            await self.tenant.admin.create_payload_index(name, key, models.PayloadSchemaType.INTEGER, wait=True)
        self.made[label] = name
        neighbour = await self.slice_of(tier, name, f"neighbour-{uuid.uuid4().hex[:8]}")
        self.neighbours.append(neighbour)
        return name

    async def slice_of(self, tier: SharedTier, collection: str, key: str) -> Scope:
        """A slice that may be written."""
        if tier == "ShardKey":
            await self.tenant.admin.create_shard_key(collection, key)
        return Scope.of(SliceAddress(tier, collection, key))

    async def side(self, place: tuple[SharedTier | None, str], generation: int) -> Scope:
        tier, label = place
        if tier is None:
            return Scope.whole(await self.tenant.create(generation, [self.new if generation else self.old]))
        collection = await self.shared(tier, label)
        return await self.slice_of(tier, collection, f"tenant-g{generation}-{uuid.uuid4().hex[:8]}")

    async def fill(self, mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> None:
        await self.write(self.source, self.old, mine, version=1)
        for scope in self.neighbours:
            await self.write(scope, self.old, theirs, version=1)

    async def write(
        self, scope: Scope, binding: Binding, products: Iterable[Mapping[str, Any]], *, version: int
    ) -> None:
        """As a gateway writes: whole points, never over a newer version."""
        batch = list(products)
        for start in range(0, len(batch), 200):
            points = [_point(binding, product, version) for product in batch[start : start + 200]]
            await scope.upsert(self.tenant.admin, points, older(version))

    async def delete(self, scope: Scope, products: Iterable[str], *, version: int) -> None:
        """As a gateway deletes: a tombstone in the place of each."""
        points = [NewPoint(name, {}, {ID_KEY: name, VERSION_KEY: version, DELETED_KEY: version}) for name in products]
        await scope.upsert(self.tenant.admin, points, older(version))

    async def points(self, scope: Scope) -> dict[str, Any]:
        """Every point of a scope by id."""
        found: dict[str, Any] = {}
        offset: Any = None
        while True:
            page, offset = await self.tenant.admin.scroll(
                scope.collection,
                scope.condition(),
                limit=QUERY_LIMIT,
                offset=offset,
                with_vectors=True,
                **scope.routing,
            )
            found |= {str(point.id): point for point in page}
            if offset is None:
                return found

    async def count(self, scope: Scope) -> int:
        answer = await self.tenant.admin.count(scope.collection, scope.condition(), exact=True, **scope.routing)
        return answer.count

    async def others(self) -> list[dict[str, Any]]:
        """All that is the neighbour's, to be compared before and after."""
        return [await self.points(scope) for scope in self.neighbours]


async def world_of(tenant: parts.Tenant, move: Move) -> World:
    """A tenant of a move, whose document changes: source filled by nobody yet, target empty."""
    old = tenant.binding("r1", side="a")
    new = tenant.binding("r2", side="b", document="{title}. {sku}. {attributes.thread}")
    world = World(tenant, old=old, new=new)
    world.source = await world.side(move.source, 0)
    world.target = await world.side(move.target, 1)
    return world


def theirs(products: Products) -> Products:
    """The neighbour's products: the same ids, everything else its own."""
    return [{**product, "title": f"{NEIGHBOUR} {product['title']}"} for product in products]


def moved(world: World, payloads: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What must stand on the target by id, given the payloads of the source."""
    address = world.target.address
    result = {}
    for payload in payloads:
        own = {key: value for key, value in payload.items() if key != TENANT_KEY}
        slice_of_it = {} if address is None else {TENANT_KEY: address.key}
        result[world.target.id_of(own[ID_KEY])] = {**own, **slice_of_it}
    return result


def older(version: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=VERSION_KEY, range=models.Range(lt=version))])


def _point(binding: Binding, product: Mapping[str, Any], version: int) -> NewPoint:
    document = document_of(binding, product, version=version)
    vectors: dict[str, Any] = {
        name: models.SparseVector(indices=list(vector.indices), values=list(vector.values))
        for name, vector in document.lexical.items()
    }
    text = render(binding.document, product)
    vectors[binding.vector or ""] = parts.encoded(binding.encoder or "", text)
    return NewPoint(document.product_id, vectors, document.payload)
