"""The gRPC side through the product's own client library: same effects, same access, statuses instead of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import jwt
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from searchops_sandbox.qdrant.contract import Connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.qdrant.contract import Rest
    from searchops_sandbox.qdrant.replay import Server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncQdrantClient]:
    async with Connected(server, server.api_key) as connected:
        yield connected


def point(ident: int, **payload: Any) -> models.PointStruct:
    lex = models.SparseVector(indices=[1, 10 + ident], values=[1.0, 2.0])
    return models.PointStruct(id=ident, vector={"d-old": [1.0, 0.1 * ident, 0.0, 0.0], "lex": lex}, payload=payload)


async def test_points_written_over_grpc_are_read_over_rest(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection()
    payload = {"s": "x", "n": 1, "f": 1.5, "none": None, "deep": {"list": [1, "a", True]}}
    done = await client.upsert(name, [point(1, **payload), point(2)], wait=True)
    assert done.status is models.UpdateStatus.COMPLETED
    assert rest.payloads(name, [1, 2]) == {1: payload, 2: {}}
    (record,) = await client.retrieve(name, [1], with_vectors=["lex"])
    assert record.payload == payload
    assert isinstance(record.vector, dict)
    assert record.vector["lex"] == models.SparseVector(indices=[1, 11], values=[1.0, 2.0])


async def test_insert_only_and_guards_over_grpc(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection()
    await client.upsert(name, [point(1, version=5)], wait=True)
    await client.upsert(name, [point(1, version=9), point(2, version=9)], update_mode=models.UpdateMode.INSERT_ONLY)
    guard = models.Filter(must=[models.FieldCondition(key="version", range=models.Range(lt=7))])
    await client.upsert(name, [point(1, version=7), point(2, version=7)], update_filter=guard, wait=True)
    assert {i: p["version"] for i, p in rest.payloads(name, [1, 2]).items()} == {1: 7, 2: 9}


async def test_vectors_payloads_counts_and_deletes_over_grpc(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection()
    await client.upsert(name, [point(i) for i in range(1, 6)], wait=True)
    rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
    lacking = models.Filter(must_not=[models.HasVectorCondition(has_vector="d-new")])
    await client.update_vectors(
        name, [models.PointVectors(id=i, vector={"d-new": [1.0, 1.0]}) for i in (1, 2)], update_filter=lacking
    )
    assert (await client.count(name, count_filter=lacking, exact=True)).count == 3
    page, following = await client.scroll(name, scroll_filter=lacking, limit=2, with_payload=False)
    assert [record.id for record in page] == [3, 4]
    assert following == 5
    await client.set_payload(name, {"seen": True}, points=[3])
    await client.delete(name, models.PointIdsList(points=[1]), wait=True)
    gone = models.Filter(must=[models.FieldCondition(key="seen", match=models.MatchValue(value=True))])
    await client.delete(name, models.FilterSelector(filter=gone), wait=True)
    assert (await client.count(name, exact=True)).count == 3


async def test_one_request_of_three_legs_answers_as_rest_does(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection()
    await client.upsert(name, [point(i) for i in range(1, 6)], wait=True)
    prefetch = [
        models.Prefetch(query=[1.0, 0.0, 0.0, 0.0], using="d-old", limit=5, score_threshold=0.1),
        models.Prefetch(query=models.SparseVector(indices=[13], values=[1.0]), using="lex", limit=5),
    ]
    query = models.RrfQuery(rrf=models.Rrf(k=60, weights=[1.0, 2.0]))
    fused = (await client.query_points(name, prefetch=prefetch, query=query, limit=5)).points
    body = {
        "prefetch": [leg.model_dump(exclude_none=True) for leg in prefetch],
        "query": query.model_dump(exclude_none=True),
        "limit": 5,
    }
    over_rest = rest.ok("POST", f"/collections/{name}/points/query", body)["points"]
    assert [hit.id for hit in fused] == [hit["id"] for hit in over_rest]
    assert [hit.score for hit in fused] == pytest.approx([hit["score"] for hit in over_rest], rel=1e-6)
    legs = [models.QueryRequest(query=leg.query, using=leg.using, limit=1) for leg in prefetch]
    batch = await client.query_batch_points(name, legs)
    assert [answer.points[0].id for answer in batch] == [1, 3]


async def test_collections_over_grpc(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection(metadata={"searchops.dev/uid": "u1"})
    alias = rest.alias(name)
    rest.fill(name, range(3))
    info = await client.get_collection(alias)
    assert info.config.metadata == {"searchops.dev/uid": "u1"}
    assert info.points_count == 3
    assert name in {c.name for c in (await client.get_collections()).collections}
    assert await client.collection_exists(alias)
    assert not await client.collection_exists("contract-nothing")


@pytest.mark.parametrize(
    ("access", "code"),
    [("r", grpc.StatusCode.PERMISSION_DENIED), (None, grpc.StatusCode.PERMISSION_DENIED), ("prw", None)],
)
async def test_tokens_over_grpc(server: Server, rest: Rest, access: str | None, code: grpc.StatusCode | None) -> None:
    name, other = rest.collection(), rest.collection()
    grants = [{"collection": other, "access": "prw"}]
    if access is not None:
        grants.append({"collection": name, "access": access})
    token = jwt.encode({"access": grants}, server.api_key, algorithm="HS256")
    async with Connected(server, token) as client:
        if code is None:
            await client.upsert(name, [point(1)], wait=True)
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await client.upsert(name, [point(1)], wait=True)
            assert refusal.value.code() is code
    assert rest.count(name) == (1 if code is None else 0)


@pytest.mark.parametrize(
    ("vector", "code"),
    [
        ({"d-none": [1.0, 0.0, 0.0, 0.0]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"d-old": [1.0]}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_bad_points_over_grpc(
    client: AsyncQdrantClient, rest: Rest, vector: dict[str, list[float]], code: grpc.StatusCode
) -> None:
    name = rest.collection()
    wrong: Any = models.PointStruct(id=1, vector=dict(vector))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await client.upsert(name, [wrong], wait=True)
    assert refusal.value.code() is code


async def test_rates_over_grpc(client: AsyncQdrantClient, rest: Rest) -> None:
    name = rest.collection(strict_mode_config={"enabled": True, "read_rate_limit": 1})
    await client.count(name, exact=True)
    with pytest.raises(ResourceExhaustedResponse) as refusal:
        await client.count(name, exact=True)
    assert 1 <= refusal.value.retry_after_s <= 60


async def test_health_needs_no_key(server: Server) -> None:
    from qdrant_client import grpc as api

    host = server.url.removeprefix("http://").rsplit(":", 1)[0]
    async with grpc.aio.insecure_channel(f"{host}:{server.grpc_port}") as channel:
        stub: Any = api.QdrantStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.HealthCheck(api.HealthCheckRequest())).version
