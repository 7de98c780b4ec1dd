"""Writes while a tenant has two sides: the one that is filled misses nothing, the previous one nothing silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_client import models

from integration.gateway.gateway_parts import PRODUCTS, Tenant, dense, gateway, made
from searchops.api.retrieval import BINDING_KEY, PENDING_KEY, missed_mark

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell


async def test_while_a_rebuild_fills_another_collection_both_have_every_write(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "bluegreen")
    await tenant.create(3, ["d-two"], {})
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    await tenant.bind(2, binding=first, pending=second)
    async with gateway(cell, tenant) as front:
        assert (await front.put(PRODUCTS))["sides"] == 2
        await front.call("DELETE", "/products", json={"ids": ["red"]})
        one, two = [await tenant.stored(f"{tenant.alias}@g{n}", "shirt") for n in (2, 3)]
        assert one is not None
        assert two is not None
        assert one.payload == two.payload
        assert isinstance(one.vector, dict)
        assert isinstance(two.vector, dict)
        assert ("d-one" in one.vector, "d-two" in two.vector) == (True, True)
        gone = [await tenant.stored(f"{tenant.alias}@g{n}", "red") for n in (2, 3)]
        assert all(item is not None and item.payload and "_deleted" in item.payload for item in gone)

        await tenant.bind(3, binding=second, previous=first)
        await tenant.point(tenant.alias, f"{tenant.alias}@g3")
        assert (await front.search("white shirt"))["revision"] == "r2"
        assert (await front.put([{"id": "late", "title": "Late shirt"}]))["sides"] == 2
        assert await tenant.stored(f"{tenant.alias}@g2", "late") is not None


async def test_two_vectors_of_one_point_are_written_together(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = Tenant(admin, "named")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[0])
    await tenant.create(2, ["d-one", "d-two"], {BINDING_KEY: first.to_metadata(), PENDING_KEY: second.to_metadata()})
    await tenant.point(tenant.alias, f"{tenant.alias}@g2")
    async with gateway(cell, tenant) as front:
        assert (await front.put(PRODUCTS))["sides"] == 1
        stored = await tenant.stored(f"{tenant.alias}@g2", "nut")
        assert stored is not None
        assert isinstance(stored.vector, dict)
        assert {"d-one", "d-two"} <= set(stored.vector)


async def test_a_side_that_is_being_filled_is_never_missed_and_a_previous_one_never_silently(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = Tenant(admin, "missed")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[0])
    await tenant.create(2, ["d-one", "d-two"], {BINDING_KEY: first.to_metadata(), PENDING_KEY: second.to_metadata()})
    await tenant.point(tenant.alias, f"{tenant.alias}@g2")
    async with gateway(cell, tenant) as front:
        front.encoder.down = {"r2"}
        refused = await front.call("PUT", "/products", json=PRODUCTS)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        assert await tenant.stored(f"{tenant.alias}@g2", "nut") is None

        await tenant.bind(2, binding=second, pending=None, previous=first)
        front.encoder.down = {"r1"}
        answer = await front.put(PRODUCTS)
        assert "r1" in answer["missedPrevious"]
        stored = await tenant.stored(f"{tenant.alias}@g2", "nut")
        assert stored is not None
        assert isinstance(stored.vector, dict)
        assert "d-two" in stored.vector
        assert "d-one" not in stored.vector
        metrics = (await front.http.get("/metrics")).text
        assert "searchops_gateway_previous_side_missed_total 1.0" in metrics


async def test_what_another_collection_missed_is_marked_point_by_point_until_a_write_reaches_it(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "marked")
    await tenant.create(3, ["d-two"], {})
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    await tenant.bind(3, binding=second, previous=first)
    await tenant.point(tenant.alias, f"{tenant.alias}@g3")
    where = {"key": "_missed", "match": {"value": missed_mark(first)}}

    async def marks() -> int:
        counted = await admin.count(
            f"{tenant.alias}@g3", count_filter=models.Filter.model_validate({"must": [where]}), exact=True
        )
        return counted.count

    async with gateway(cell, tenant) as front:
        assert "missedPrevious" not in await front.put(PRODUCTS)
        assert await marks() == 0
        await admin.delete_collection(f"{tenant.alias}@g2")
        answer = await front.put(PRODUCTS[:1])
        assert answer["missedPrevious"]
        deleted = await front.call("DELETE", "/products", json={"ids": [PRODUCTS[1]["id"]]})
        assert deleted.status_code == 200
        assert await marks() == 2, "an update and a delete, which no count of points would show"
        found = await front.search("hex nut")
        assert not any("_missed" in str(hit) for hit in found["hits"])

        await tenant.create(2, ["d-one"], {})
        await tenant.point(tenant.sides[0], f"{tenant.alias}@g2")
        assert "missedPrevious" not in await front.put(PRODUCTS[:2])
        assert await marks() == 0
