"""A cell that is out of disk or memory, through the gateway: writes are refused by item, searches go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.gateway.gateway_parts import PRODUCTS, gateway, made

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell

WAYS = pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])


@WAYS
async def test_writes_are_refused_as_the_cells_trouble_and_searches_go_on(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"full-{'grpc' if grpc else 'rest'}")
    now = [0.0]
    async with gateway(cell, tenant, grpc=grpc, clock=lambda: now[0]) as front:
        await front.put(PRODUCTS)
        encoded = len(front.encoder.calls)
        await cell.fill()
        try:
            refused = [await front.call("PUT", "/products", json={"products": PRODUCTS}) for _ in range(3)]
            removed = await front.call("DELETE", "/products", json={"ids": ["shirt"]})
            assert {hit["id"] for hit in (await front.search("white shirt"))["hits"]} >= {"shirt"}
        finally:
            await cell.clear_faults()
        for answer in (*refused, removed):
            document = answer.json()
            assert (answer.status_code, document["type"]) == (507, "urn:searchops:problem:cell-full")
            assert (document["cell"], int(answer.headers["retry-after"]) > 0) == ("eu-1", True)
            assert answer.headers["content-type"] == "application/problem+json"
        assert refused[0].json()["unacknowledged"] == [
            {"index": index, "id": product["id"]} for index, product in enumerate(PRODUCTS)
        ]
        assert len(front.encoder.calls) == encoded + 2, "one write and one search: the others were not encoded"
        still = await front.call("PUT", "/products", json={"products": PRODUCTS})
        assert still.status_code == 507, "it is not asked again at once"
        now[0] += 10
        assert (await front.put(PRODUCTS))["written"] == len(PRODUCTS)
        metrics = (await front.http.get("/metrics")).text
        assert 'searchops_gateway_cell_full_total{cell="eu-1"} 5.0' in metrics


@WAYS
async def test_a_bulk_that_is_refused_in_the_middle_tells_of_every_item(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"middle-{'grpc' if grpc else 'rest'}")
    upsert = ("GRPC", "/qdrant.Points/Upsert") if grpc else ("PUT", "/collections/.*/points")
    products = [{"id": f"p{number}", "title": f"Pump {number}"} for number in range(25)]
    products[3] = {"title": "no id"}
    async with gateway(cell, tenant, grpc=grpc, max_batch=10) as front:
        slow = {"method": upsert[0], "path": upsert[1], "latency": 0.01}
        await cell.inject(slow, {"method": upsert[0], "path": upsert[1], "status": 507, "message": "Quota exceeded"})
        answer = await front.call("PUT", "/products", json={"products": products})
        await cell.clear_faults()
        document = answer.json()
        assert (answer.status_code, document["acknowledged"]) == (507, 10)
        named = [(item["index"], item["id"]) for item in document["unacknowledged"]]
        assert named == [(number, f"p{number}") for number in range(11, 25)]
        assert [(item["index"], item["id"]) for item in document["rejected"]] == [(3, None)]
        assert (await admin.count(tenant.alias, exact=True)).count == 10


@WAYS
async def test_a_quota_of_the_tenants_own_is_named_and_holds_nobody_else(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    from qdrant_client import models

    name = "grpc" if grpc else "rest"
    tenant, neighbour = await made(admin, f"own-{name}"), await made(admin, f"next-{name}")
    strict = models.StrictModeConfig(enabled=True, max_points_count=3)
    await admin.update_collection(f"{tenant.alias}@g2", strict_mode_config=strict)
    async with gateway(cell, tenant, grpc=grpc) as front, gateway(cell, neighbour, grpc=grpc) as other:
        await front.put(PRODUCTS[:3])
        answer = await front.call("PUT", "/products", json={"products": [{"id": "one-more", "title": "Pump"}]})
        document = answer.json()
        assert (answer.status_code, document["type"]) == (422, "urn:searchops:problem:quota-exceeded"), document
        assert document["limit"]["field"] == "spec.quotas.maxPoints"
        assert (await other.put(PRODUCTS))["written"] == len(PRODUCTS)


@WAYS
async def test_a_write_rate_that_the_database_counts_is_named_with_the_time_to_wait(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    from qdrant_client import models

    tenant = await made(admin, f"paced-{'grpc' if grpc else 'rest'}")
    strict = models.StrictModeConfig(enabled=True, write_rate_limit=12)
    await admin.update_collection(f"{tenant.alias}@g2", strict_mode_config=strict)
    async with gateway(cell, tenant, grpc=grpc) as front:
        answers = [await front.call("PUT", "/products", json={"products": PRODUCTS[:3]}) for _ in range(4)]
        document = answers[-1].json()
        assert (answers[-1].status_code, document["type"]) == (429, "urn:searchops:problem:rate-limited"), document
        assert document["limit"]["field"] == "spec.quotas.writesPerMinute"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert [item["index"] for item in document["unacknowledged"]] == [0, 1, 2]
