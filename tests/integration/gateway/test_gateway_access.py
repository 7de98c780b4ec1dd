"""Who may do what at the gateway, and what a tenant is told of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.gateway.gateway_parts import PRODUCTS, gateway, made

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell


async def test_a_token_opens_its_own_tenant_and_nothing_else(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant, other = await made(admin, "mine"), await made(admin, "theirs")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)

        async def status(token: str) -> tuple[int, str]:
            answer = await front.call("POST", "/search", token=token, json={"query": "shirt"})
            assert answer.headers["content-type"] == "application/problem+json"
            return answer.status_code, answer.json()["type"]

        assert await status(other.token("r")) == (403, "urn:searchops:problem:other-tenant")
        assert (await status(tenant.token("r", key="another-key-that-is-32-characters!")))[0] in (401, 403)
        assert await status("no-jwt") == (401, "urn:searchops:problem:bad-credentials")
        assert await status(tenant.token("r", cell="mars")) == (503, "urn:searchops:problem:unknown-cell")
        reader = await front.call("PUT", "/products", token=tenant.token("r"), json=PRODUCTS)
        assert (reader.status_code, reader.json()["type"]) == (403, "urn:searchops:problem:read-only-token")
        bare = await front.http.post(f"/v1/tenants/{tenant.path}/search", json={"query": "shirt"})
        assert bare.status_code == 401
        assert bare.headers["www-authenticate"].startswith("Bearer")


async def test_a_forged_token_is_never_served_from_another_tokens_cache(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "forged")
    async with gateway(cell, tenant, binding_seconds=300.0) as front:
        await front.put(PRODUCTS)
        await front.search("white shirt")
        encoded = len(front.encoder.calls)
        forged = tenant.token("prw", key="a-forger-has-no-key-of-the-cell-here!")
        for method, path, body in (
            ("GET", "", None),
            ("POST", "/search", {"query": "shirt"}),
            ("PUT", "/products", PRODUCTS),
        ):
            answer = await front.call(method, path, token=forged, json=body)
            assert answer.status_code in (401, 403)
        assert len(front.encoder.calls) == encoded


async def test_the_tenant_says_what_it_is_bound_to(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "about")
    async with gateway(cell, tenant) as front:
        answer = (await front.call("GET", "", token=tenant.token("r"))).json()
        assert answer["binding"]["revision"] == "r1"
        assert (answer["pending"], answer["previous"]) == (None, None)
        assert answer["filters"] == ["colour", "price", "sku"]
