"""Tenants of shared collections over time: revoked tokens, replaced credentials, rebuilds, moves between tiers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.gateway.gateway_parts import PRODUCTS, Tenant, dense, gateway, made
from integration.gateway.shared_tier import FLEET_KEY, SharedCell, merchant, shared_cell
from searchops.api.rates import RATES_KEY, MerchantRates
from searchops.api.retrieval import MISSED_KEY, missed_mark

if TYPE_CHECKING:
    from pathlib import Path

    from qdrant_client import AsyncQdrantClient

    from searchops.api.shared import SharedTier
    from searchops_sandbox.qdrant.cell import QdrantCell

SEARCH = {"query": "shirt"}
NEW_KEY = "the-fleets-next-gateway-key-of-32-b!"


@pytest.fixture(params=["Shared", "ShardKey"])
async def shared(request: pytest.FixtureRequest, admin: AsyncQdrantClient, tmp_path: Path) -> SharedCell:
    tier: SharedTier = request.param
    return await shared_cell(admin, tmp_path, tier)


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("urn:searchops:problem:")


async def test_a_removed_entry_is_refused_within_the_seconds_of_a_binding(cell: QdrantCell, shared: SharedCell) -> None:
    tenant = await merchant(shared, "revoked")
    async with gateway(cell, tenant, credentials=shared.path, binding_seconds=0.3) as front:
        await front.put(PRODUCTS)
        assert (await front.call("POST", "/search", token=tenant.token("r"), json=SEARCH)).status_code == 200
        await tenant.revoke("storefront")
        await asyncio.sleep(0.35)
        refused = await front.call("POST", "/search", token=tenant.token("r"), json=SEARCH)
        assert code(refused) == (401, "token-revoked")
        assert (await front.put(PRODUCTS))["written"] == 3, "another entry's token is another one"
        await shared.admin.delete_collection(shared.register)
        await asyncio.sleep(0.35)
        unknown = await front.call("POST", "/search", json=SEARCH)
        assert code(unknown) == (503, "register-unreadable")
        assert "Retry-After" in unknown.headers


async def test_credentials_are_replaced_while_the_gateway_runs(cell: QdrantCell, shared: SharedCell) -> None:
    tenant = await merchant(shared, "renewed")
    shared.path.unlink()
    async with gateway(cell, tenant, credentials=shared.path) as front:

        async def search(key: str = FLEET_KEY) -> tuple[int, str]:
            return code(await front.call("POST", "/search", token=tenant.token("r", key=key), json=SEARCH))

        assert await search() == (503, "no-shared-credential")
        shared.hand_over()
        assert await search() == (200, "")
        assert await search(NEW_KEY) == (401, "bad-credentials")
        shared.hand_over(keys=(NEW_KEY, FLEET_KEY))
        assert (await search(), await search(NEW_KEY)) == ((200, ""), (200, ""))
        shared.hand_over(keys=(NEW_KEY,))
        assert (await search(), await search(NEW_KEY)) == ((401, "bad-credentials"), (200, ""))
        shared.path.write_text("{broken")
        assert await search(NEW_KEY) == (200, "")
        assert "searchops_gateway_credentials_unreadable 1.0" in (await front.http.get("/metrics")).text
        shared.hand_over(keys=(NEW_KEY,), lifetime=-600)
        assert await search(NEW_KEY) == (503, "register-unreadable"), "the cell refuses the gateway, not the caller"
        shared.hand_over(keys=(NEW_KEY,))
        assert await search(NEW_KEY) == (200, "")
        assert "searchops_gateway_credentials_unreadable 0.0" in (await front.http.get("/metrics")).text


async def test_nothing_of_the_credentials_is_in_an_answer_or_a_log(
    cell: QdrantCell, shared: SharedCell, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = await merchant(shared, "quiet")
    seen = []
    secrets = {FLEET_KEY, NEW_KEY}
    with capture_logs() as logs, caplog.at_level("DEBUG"):
        async with gateway(cell, tenant, credentials=shared.path) as front:

            async def everything() -> None:
                secrets.add(json.loads(shared.path.read_text())["cells"]["eu-1"]["token"])
                for method, path, body in (
                    ("GET", "", None),
                    ("POST", "/search", SEARCH),
                    ("PUT", "/products", PRODUCTS),
                ):
                    for key in (FLEET_KEY, NEW_KEY):
                        answer = await front.call(method, path, token=tenant.token(key=key), json=body)
                        seen.append(f"{answer.status_code} {answer.headers} {answer.text}")

            await everything()
            shared.hand_over(signed_by="a-key-that-no-cell-has-of-32-characters")
            await everything()
            shared.hand_over(keys=(NEW_KEY,), lifetime=-600)
            await everything()
            good = shared.path.read_text()
            for broken in (good[:-5], good.replace('"token"', '"tokens"'), good.replace(NEW_KEY, NEW_KEY[:20])):
                shared.path.write_text(broken)
                await front.call("GET", "")
            shared.hand_over()
            await shared.admin.delete_collection(shared.register)
            await everything()
            seen.append((await front.http.get("/metrics")).text)
    assert {text[:3] for text in seen} >= {"200", "401", "503"}
    assert any("credentials cannot be read" in str(entry) for entry in logs)
    for secret in secrets:
        assert all(secret not in text for text in (*seen, str(logs), caplog.text))


async def test_rates_are_the_merchants_own(cell: QdrantCell, shared: SharedCell) -> None:
    busy, calm = await merchant(shared, "busy"), await merchant(shared, "calm")
    for tenant in (busy, calm):
        rates = MerchantRates(searches_per_minute=2).to_metadata()
        tenant.slices[2].metadata[RATES_KEY] = rates
        await tenant.write(tenant.homes[2])
    async with gateway(cell, busy, credentials=shared.path) as front:
        answers = [await front.call("POST", "/search", json=SEARCH) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].json()["tenant"] == busy.path
        front.tenant = calm
        assert (await front.call("POST", "/search", json=SEARCH)).status_code == 200


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_rebuild_has_both_slices_written_and_is_followed_when_it_is_switched(
    cell: QdrantCell, shared: SharedCell, elsewhere: bool
) -> None:
    tenant, other = await merchant(shared, "rebuilt"), await merchant(shared, "other")
    home = shared.collections[0]
    target = await shared.collection() if elsewhere else home
    shared.hand_over()
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    await tenant.slice(3, target)
    await tenant.slice(2, home, binding=first, pending=second)
    async with gateway(cell, tenant, credentials=shared.path) as front:
        front.tenant = other
        await front.put([{"id": "shirt", "title": "White shirt", "secret": "of other"}])
        front.tenant = tenant
        assert (await front.put(PRODUCTS))["sides"] == 2
        await front.call("DELETE", "/products", json={"ids": ["red"]})
        old, new = await tenant.stored("shirt", 2), await tenant.stored("shirt", 3)
        assert old is not None
        assert new is not None
        assert isinstance(old.vector, dict)
        assert isinstance(new.vector, dict)
        assert ("d-one" in old.vector, "d-two" in new.vector) == (True, True)
        assert [(point.payload or {})["_tenant"] for point in (old, new)] == [tenant.key(2), tenant.key(3)]
        found = await front.search("white shirt")
        assert (found["hits"][0]["id"], found["revision"]) == ("shirt", "r1")

        tenant.slices[3].metadata.clear()
        await tenant.slice(3, target, binding=second, previous=first)
        await tenant.name("", 3)
        found = await front.search("white shirt")
        assert found["revision"] == "r2"
        assert [hit["id"] for hit in found["hits"]].count("shirt") == 1
        assert "secret" not in str(found)
        assert (await front.put([{"id": "late", "title": "Late shirt"}]))["sides"] == 2
        assert await tenant.stored("late", 2) is not None


async def test_two_vectors_of_one_slice_are_one_point(cell: QdrantCell, shared: SharedCell) -> None:
    tenant = await merchant(shared, "named")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[0])
    await tenant.slice(2, shared.collections[0], binding=first, pending=second)
    async with gateway(cell, tenant, credentials=shared.path) as front:
        assert (await front.put(PRODUCTS))["sides"] == 1
        stored = await tenant.stored("nut")
        assert stored is not None
        assert isinstance(stored.vector, dict)
        assert {"d-one", "d-two"} <= set(stored.vector)


async def test_while_a_tenant_moves_between_tiers_it_is_searched_and_not_written(
    cell: QdrantCell, shared: SharedCell
) -> None:
    tenant = await merchant(shared, "leaving")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    async with gateway(cell, tenant, credentials=shared.path) as front:
        await front.put(PRODUCTS)
        await tenant.slice(2, shared.collections[0], binding=first, pending=second)
        for method, body in (("PUT", PRODUCTS), ("DELETE", {"ids": ["nut"]})):
            refused = await front.call(method, "/products", json=body)
            assert code(refused) == (503, "tier-move")
            assert refused.headers["Retry-After"] == "60"
        assert len((await front.search("shirt"))["hits"]) == len(PRODUCTS)
        await tenant.slice(2, shared.collections[0], binding=second.model_copy(update={"side": tenant.sides[0]}))
        await tenant.slice(2, shared.collections[0], binding=first, previous=second)
        answer = await front.put(PRODUCTS[:1])
        assert "another tier" in answer["missedPrevious"]
        stored = await tenant.stored("nut")
        assert stored is not None
        assert (stored.payload or {})[MISSED_KEY] == missed_mark(second)


async def test_a_tenant_that_leaves_its_own_collection_is_told_the_same(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant: Tenant = await made(admin, "joining")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    await tenant.bind(2, binding=first, pending=second)
    async with gateway(cell, tenant) as front:
        refused = await front.call("PUT", "/products", json=PRODUCTS)
        assert code(refused) == (503, "tier-move")
        assert refused.headers["Retry-After"] == "60"
        await front.search("shirt")


async def test_a_tenant_that_was_taken_off_is_not_found_and_comes_back(cell: QdrantCell, shared: SharedCell) -> None:
    tenant = await merchant(shared, "away")
    async with gateway(cell, tenant, credentials=shared.path) as front:
        await front.put(PRODUCTS)
        name = tenant.names.pop("")
        await tenant.write(shared.collections[0])
        assert code(await front.call("POST", "/search", json=SEARCH)) == (404, "no-collection")
        assert code(await front.call("PUT", "/products", json=PRODUCTS)) == (404, "no-collection")
        tenant.names[""] = name
        await tenant.write(shared.collections[0])
        assert len((await front.search("shirt"))["hits"]) == len(PRODUCTS)


async def test_a_merchants_own_number_of_products_is_kept_by_the_gateway(cell: QdrantCell, shared: SharedCell) -> None:
    full, beside = await merchant(shared, "full"), await merchant(shared, "beside")
    full.slices[2].metadata[RATES_KEY] = MerchantRates(max_points=len(PRODUCTS)).to_metadata()
    await full.write(full.homes[2])
    async with gateway(cell, full, credentials=shared.path, binding_seconds=0.0) as front:
        assert (await front.put(PRODUCTS))["written"] == len(PRODUCTS)
        refused = await front.call("PUT", "/products", json=[{"id": "one-more", "title": "one more"}])
        assert code(refused) == (422, "quota-exceeded")
        assert refused.json()["limit"] == {"field": "spec.quotas.maxPoints", "enforcedBy": "Gateway"}
        assert (await front.call("POST", "/search", json=SEARCH)).status_code == 200
        assert (await front.call("DELETE", "/products", json=[{"id": PRODUCTS[0]["id"]}])).status_code == 200
    async with gateway(cell, beside, credentials=shared.path) as front:
        assert (await front.put(PRODUCTS))["written"] == len(PRODUCTS), "a neighbour's bound is not this one's"
