"""Writes through the gateway: tombstones, versions, and bulk requests in batches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from qdrant_client import models

from integration.gateway.gateway_parts import PRODUCTS, gateway, made
from searchops.api.retrieval import point_id

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_a_deleted_product_is_a_tombstone_that_no_leg_returns(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"deleted-{'grpc' if grpc else 'rest'}")
    async with gateway(cell, tenant, grpc=grpc) as front:
        await front.put(PRODUCTS)
        answer = await front.call("DELETE", "/products", json={"ids": ["shirt", "never-there"]})
        assert (answer.status_code, answer.json()["deleted"]) == (200, 2)
        assert "shirt" not in {hit["id"] for hit in (await front.search("white shirt"))["hits"]}
        stored = await tenant.stored(f"{tenant.alias}@g2", "shirt")
        assert stored is not None
        assert stored.payload is not None
        assert stored.payload["_deleted"] == stored.payload["_version"] == answer.json()["version"]
        assert not stored.vector


async def test_a_tombstone_that_a_backfill_gave_a_vector_is_not_returned(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "raced")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        await front.call("DELETE", "/products", json={"ids": ["red"]})
        late = models.PointVectors(id=point_id("red"), vector={"d-one": [1.0, 0.0]})
        await admin.update_vectors(f"{tenant.alias}@g2", [late])
        assert {hit["id"] for hit in (await front.search("blouse"))["hits"]} == {"shirt", "nut"}


async def test_an_older_write_never_replaces_a_newer_one(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "versions")
    collection = f"{tenant.alias}@g2"
    future = int(time.time() * 1_000_000) + 3_600_000_000
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        await admin.set_payload(collection, {"_version": future}, points=[point_id("shirt")])
        await front.put([{**PRODUCTS[1], "title": "Older title"}, {**PRODUCTS[2], "title": "Newer title"}])
        kept, replaced = [await tenant.stored(collection, product) for product in ("shirt", "red")]
        assert kept is not None
        assert replaced is not None
        assert kept.payload is not None
        assert replaced.payload is not None
        assert kept.payload["title"] == "White shirt"
        assert replaced.payload["title"] == "Newer title"


async def test_a_bulk_in_several_batches_is_written_whole_and_bad_items_are_listed(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "bulk")
    lines = [f'{{"id": "p{n}", "title": "Pump {n}"}}' for n in range(25)]
    lines.insert(3, "not json")
    lines.insert(7, '{"title": "no id"}')
    lines.append('{"id": "p0", "title": "Pump again"}')
    async with gateway(cell, tenant, max_batch=10) as front:
        answer = await front.call(
            "PUT", "/products", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.status_code == 207
        document = answer.json()
        assert document["written"] == 25
        assert [(item["index"], item["id"]) for item in document["rejected"]] == [(3, None), (7, None)]
        assert "'not json' is no JSON" in document["rejected"][0]["detail"]
        assert document["superseded"] == [0]
        assert (await admin.count(tenant.alias, exact=True)).count == 25
        stored = await tenant.stored(tenant.alias, "p0")
        assert stored is not None
        assert stored.payload is not None
        assert stored.payload["title"] == "Pump again"
