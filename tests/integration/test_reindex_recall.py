"""Recall measured on a cell: what is asked, what is counted, and that a tombstone or another vector is no hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from searchops.adapters.qdrant_recall import QUERIES, QUERIES_A_REQUEST, TOP, measure
from searchops.adapters.qdrant_shapes import strict_config
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops.api.v1alpha1.search_tenant import SearchTenantSpec
from searchops.planning.schema import strict_mode
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from searchops.api.observed import StrictMode

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

DIMENSION = 32
SPEC = {
    "model": {"name": "shop"},
    "fields": [{"name": "title", "type": "text", "role": "Title"}],
    "languages": ["en"],
}
KEY = "recall-suite-key-of-32-characters!!!"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncQdrantClient]:
    cell = QdrantCell("recall", folder=tmp_path_factory.mktemp("cell"), api_key=KEY, cluster=True)
    await cell.start()
    made = AsyncQdrantClient(url=cell.rest_url, headers={"api-key": KEY}, check_compatibility=False, timeout=30)
    yield made
    await made.close()
    await cell.stop()


async def filled(client: AsyncQdrantClient, name: str, count: int, *, deleted: int = 0) -> str:
    """Random points with two vectors, then tombstones, which keep theirs here to show that they are not asked."""
    size = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    await client.create_collection(name, vectors_config={"d-new": size, "d-old": size})
    await client.create_payload_index(name, "_deleted", models.PayloadSchemaType.INTEGER, wait=True)
    vectors = np.random.default_rng(7).standard_normal((count + deleted, 2, DIMENSION))
    points = [
        models.PointStruct(
            id=number + 1,
            vector={"d-new": new.tolist(), "d-old": old.tolist()},
            payload={"_deleted": 1} if number >= count else {},
        )
        for number, (new, old) in enumerate(vectors)
    ]
    if points:
        await client.upsert(name, points, wait=True)
    return name


class Watched:
    """A cell's client whose approximate search misses what is nearest in so many of every ten hits.

    A labelled double: a graph that was built badly cannot be had in a small collection, which is searched whole.
    """

    def __init__(self, client: AsyncQdrantClient, misses: int) -> None:
        self._client = client
        self._misses = misses
        self.asked: list[tuple[bool, int]] = []

    async def scroll(self, *args: Any, **options: Any) -> Any:
        return await self._client.scroll(*args, **options)

    async def query_batch_points(self, collection: str, requests: Sequence[models.QueryRequest]) -> Any:
        exact = [bool(request.params and request.params.exact) for request in requests]
        assert len(set(exact)) == 1
        self.asked.append((exact[0], len(requests)))
        if exact[0] or not self._misses:
            return await self._client.query_batch_points(collection, requests)
        deeper = [request.model_copy(update={"limit": TOP + 1 + self._misses}) for request in requests]
        answers = await self._client.query_batch_points(collection, deeper)
        for answer in answers:
            del answer.points[1 : 1 + self._misses]
        return answers


@pytest.mark.parametrize("misses", [0, 1, 4])
async def test_what_approximate_search_misses_is_counted_query_by_query(client: AsyncQdrantClient, misses: int) -> None:
    name = await filled(client, f"recall-{misses}", 300)
    watched = Watched(client, misses)
    sample = await measure(watched, name, "d-new")  # type: ignore[arg-type]
    parts = QUERIES // QUERIES_A_REQUEST
    assert watched.asked == [(False, QUERIES_A_REQUEST)] * parts + [(True, QUERIES_A_REQUEST)] * parts
    assert (sample.queries, sample.top, sample.wanted) == (QUERIES, TOP, QUERIES * TOP)
    assert sample.found == QUERIES * (TOP - misses)
    assert sample.share == pytest.approx(1 - misses / TOP)


def limits(strict: StrictMode) -> models.StrictModeConfig:
    return models.StrictModeConfig(**strict_config(strict))


async def test_the_reads_of_a_small_merchants_quota_are_too_few_and_lifted_ones_are_not(
    client: AsyncQdrantClient,
) -> None:
    name = await filled(client, "recall-quota", 300)
    spec = SearchTenantSpec.model_validate({**SPEC, "quotas": {"searchesPerMinute": 10}})
    await client.update_collection(name, strict_mode_config=limits(strict_mode(spec, lifted=True)))
    with pytest.raises(ResourceExhaustedResponse, match="Read rate limit exceeded"):
        await measure(client, name, "d-new")
    lifted = strict_mode(spec, lifted=True, filling=True)
    await client.update_collection(name, strict_mode_config=limits(lifted))
    assert (await measure(client, name, "d-new")).queries == QUERIES


async def test_tombstones_are_neither_queries_nor_hits(client: AsyncQdrantClient) -> None:
    name = await filled(client, "recall-tombstones", 8, deleted=200)
    sample = await measure(client, name, "d-new")
    assert (sample.queries, sample.wanted, sample.found) == (8, 8 * 7, 8 * 7)


async def shared(client: AsyncQdrantClient, address: SliceAddress, counts: Mapping[str, int]) -> None:
    """A shared collection with so many points of each slice, of equal vectors: a neighbour's would be hits too."""
    custom = models.ShardingMethod.CUSTOM if address.tier == "ShardKey" else None
    size = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    await client.create_collection(address.collection, vectors_config={"d-new": size}, sharding_method=custom)
    for field, kind in (("_deleted", "integer"), (TENANT_KEY, "keyword")):
        await client.create_payload_index(address.collection, field, models.PayloadSchemaType(kind), wait=True)
    for number, (key, count) in enumerate(counts.items()):
        vectors = np.random.default_rng(7).standard_normal((count, DIMENSION))
        points = [
            models.PointStruct(id=number * 10_000 + n, vector={"d-new": row.tolist()}, payload={TENANT_KEY: key})
            for n, row in enumerate(vectors)
        ]
        shard_key = key if custom else None
        if shard_key is not None:
            await client.create_shard_key(address.collection, shard_key)
        await client.upsert(address.collection, points, wait=True, shard_key_selector=shard_key)


@pytest.mark.parametrize("tier", ["Shared", "ShardKey"])
async def test_recall_of_a_slice_is_of_its_points_alone(
    client: AsyncQdrantClient, tier: Literal["Shared", "ShardKey"]
) -> None:
    address = SliceAddress(tier, f"recall-{tier}", "slice-0001")
    await shared(client, address, {"slice-0000": 300, "slice-0001": 8, "slice-0002": 300})
    sample = await measure(client, address.collection, "d-new", address)
    assert (sample.queries, sample.wanted, sample.found) == (8, 8 * 7, 8 * 7), "no neighbour is a query or a hit"
    other = SliceAddress(tier, address.collection, "slice-0002")
    watched = Watched(client, 4)
    sample = await measure(watched, other.collection, "d-new", other)  # type: ignore[arg-type]
    assert (sample.queries, sample.found) == (QUERIES, QUERIES * (TOP - 4))


@pytest.mark.parametrize(("count", "wanted"), [(0, 0), (1, 0), (2, 2)])
async def test_a_collection_with_nothing_to_find_says_so(client: AsyncQdrantClient, count: int, wanted: int) -> None:
    name = await filled(client, f"recall-few-{count}", count)
    sample = await measure(client, name, "d-new")
    assert (sample.queries, sample.wanted, sample.found, sample.share) == (count, wanted, wanted, 1.0)
