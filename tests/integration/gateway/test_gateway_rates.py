"""A merchant's rates at the gateway, as the operator writes them into the collection's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_client import models

from integration.gateway.gateway_parts import PRODUCTS, gateway, made
from searchops.api.rates import RATES_KEY, MerchantRates

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from integration.gateway.gateway_parts import Tenant
    from searchops_sandbox.qdrant.cell import QdrantCell

SEARCH = {"query": "shirt"}


async def allow(tenant: Tenant, *, searches: int = 0, writes: int = 0) -> None:
    rates = MerchantRates(searches_per_minute=searches, writes_per_minute=writes)
    await tenant.admin.update_collection(f"{tenant.alias}@g2", metadata={RATES_KEY: rates.to_metadata()})


async def test_searches_beyond_the_merchants_rate_are_429_and_cost_neither_encoder_nor_another_merchant_anything(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant, other = await made(admin, "busy"), await made(admin, "calm")
    await allow(tenant, searches=3)
    await allow(other, searches=3)
    async with gateway(cell, tenant) as front:
        answers = [await front.call("POST", "/search", token=tenant.token("r"), json=SEARCH) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert len(front.encoder.calls) == 3
        refused = answers[-1]
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        document = refused.json()
        assert document["tenant"] == tenant.path
        assert document["limit"] == {"field": "spec.quotas.searchesPerMinute", "perMinute": 3}
        assert "send the request again in" in document["detail"]
        metrics = (await front.http.get("/metrics")).text
        assert 'searchops_gateway_rate_limited_total{by="gateway",route="search"} 2.0' in metrics
        assert "searchops_gateway_rate_buckets 1.0" in metrics
        assert "busy" not in metrics
        front.tenant = other
        assert (await front.call("POST", "/search", json=SEARCH)).status_code == 200


async def test_writes_are_counted_by_product_and_a_bulk_above_the_rate_is_told_so(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "writer")
    await allow(tenant, writes=5)
    async with gateway(cell, tenant) as front:
        assert (await front.put(PRODUCTS))["written"] == 3
        again = await front.call("PUT", "/products", json=PRODUCTS)
        assert (again.status_code, again.json()["limit"]["perMinute"]) == (429, 5)
        deleted = await front.call("DELETE", "/products", json={"ids": ["red", "nut"]})
        assert deleted.status_code == 200, "a refusal takes nothing out of the bucket"
        large = await front.call("PUT", "/products", json=[{"id": f"p{number}"} for number in range(6)])
        assert (large.status_code, large.json()["type"]) == (413, "urn:searchops:problem:batch-above-rate")
        assert "at most 5 items at once" in large.json()["detail"]
        assert (await admin.count(tenant.alias, exact=True)).count == 3
        about = (await front.call("GET", "")).json()
        assert about["rates"] == {"searchesPerMinute": 0, "writesPerMinute": 5}


async def test_a_forged_token_uses_up_nobodys_rate(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "framed")
    await allow(tenant, searches=2, writes=3)
    forged = tenant.token("prw", key="a-forger-has-no-key-of-the-cell-here!")
    async with gateway(cell, tenant, binding_seconds=300.0) as front:
        for _ in range(5):
            assert (await front.call("POST", "/search", token=forged, json=SEARCH)).status_code in (401, 403)
            assert (await front.call("PUT", "/products", token=forged, json=PRODUCTS)).status_code in (401, 403)
        assert [(await front.call("POST", "/search", json=SEARCH)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await front.put(PRODUCTS))["written"] == 3


async def test_a_raised_rate_applies_with_the_next_reading_of_the_binding(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "raised")
    await allow(tenant, searches=1)
    async with gateway(cell, tenant) as front:
        assert [(await front.call("POST", "/search", json=SEARCH)).status_code for _ in range(2)] == [200, 429]
        await allow(tenant, searches=600_000)
        assert (await front.call("POST", "/search", json=SEARCH)).status_code == 200


async def test_what_strict_mode_refuses_is_told_apart_in_the_metrics(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "strict")
    strict = models.StrictModeConfig(enabled=True, read_rate_limit=6)
    await admin.update_collection(f"{tenant.alias}@g2", strict_mode_config=strict)
    async with gateway(cell, tenant) as front:
        answers = [await front.call("POST", "/search", json=SEARCH) for _ in range(4)]
        assert answers[-1].status_code == 429
        assert "Retry-After" in answers[-1].headers
        metrics = (await front.http.get("/metrics")).text
        assert 'searchops_gateway_rate_limited_total{by="cell",route="search"}' in metrics
