"""Merchants that share a collection: as far apart as those that do not, moved between tiers without losing a point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from searchops_sandbox.demo.buckets import CATALOGUES
from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.fleet import MERCHANTS, Fleet, alias_of, tenant_manifest, unpromoted_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.qdrant.cell import QdrantCell

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

SHARED = {"delta": "Shared", "echo": "Shared", "foxtrot": "ShardKey", "golf": "ShardKey"}
EXTRA = b'{"id": "only-%s", "sku": "ONLY-%s", "title": "one of a kind %s", "category": "nuts"}\n'


def products() -> int:
    return len((CATALOGUES / "fasteners-en.jsonl").read_text().splitlines())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sharers(fleet: Fleet) -> AsyncIterator[dict[str, str]]:
    """Two merchants of each shared tier on one cell, with the same products and one of its own each."""
    manifests = [tenant_manifest(name, region="us", isolation=tier) for name, tier in SHARED.items()]
    await fleet.apply(unpromoted_model(), *manifests)
    for name in SHARED:
        await fleet.condition("searchtenants", name, "Ready", "True")
        status, answer = await fleet.index(name)
        assert status == 200, answer
        own = EXTRA.replace(b"%s", name.encode())
        status, answer = await fleet.index(name, own)
        assert status == 200, answer
    yield SHARED
    for name in SHARED:
        if await fleet.get("searchtenants", name):
            await fleet.delete("searchtenants", name)


def cell_of(fleet: Fleet) -> QdrantCell:
    return fleet.platform.sandbox.cells["us-1"]


async def shared_collections(fleet: Fleet) -> list[str]:
    return sorted(name for name in await fleet.collections(cell_of(fleet)) if name.startswith(f"{FLEET}@shared-"))


async def records(fleet: Fleet) -> dict[str, Any]:
    """Every tenant's record on the cell, by alias."""
    found = {}
    for name in await shared_collections(fleet):
        answer = await fleet.ask_cell(cell_of(fleet), "GET", f"/collections/{name}")
        for key, value in (answer["result"]["config"].get("metadata") or {}).items():
            if key.startswith("searchops.dev/t."):
                record = json.loads(value)
                found[record["alias"]] = record
    return found


async def asked_with(fleet: Fleet, cell: QdrantCell, collection: str, token: str) -> int:
    """Status of a read at the database with this token."""
    url = f"{cell.rest_url}/collections/{collection}/points/scroll"
    async with fleet.session.post(url, headers={"api-key": token}, json={"limit": 1}) as answer:
        return answer.status


async def test_the_status_says_plainly_who_enforces_isolation(fleet: Fleet, sharers: dict[str, str]) -> None:
    for name, tier in sharers.items():
        status = (await fleet.get("searchtenants", name))["status"]
        assert status["isolation"] == {"mode": tier, "enforcedBy": "Gateway"}
        for entry in ("storefront", "indexer"):
            secret = await fleet.platform.secret(MERCHANTS, f"{name}-{entry}")
            assert set(secret) == {"alias", "expiresAt", "gateway", "token"}, "no way to the database"
    assert len(await shared_collections(fleet)) == 2, "one a tier"
    assert not {name for name in await fleet.aliases(cell_of(fleet)) if name.split("@")[0] in map(alias_of, sharers)}


async def test_each_finds_its_own_and_nobody_elses(fleet: Fleet, sharers: dict[str, str]) -> None:
    for name in sharers:
        assert await fleet.hits(name), "the products that all have"
        assert (await fleet.hits(name, f"ONLY-{name}"))[0] == f"only-{name}"
        for other in sharers:
            if other != name:
                assert f"only-{other}" not in await fleet.hits(name, f"one of a kind {other}")
        token = await fleet.token(name, "storefront")

        async def counted(name: str = name, token: str = token) -> bool:
            status, answer = await fleet.gateway("GET", name, "", token)
            assert status == 200, answer
            return bool(answer["points"] == products() + 1)

        await fleet.until(f"{name} has its own points and no more: a count is kept for a moment", counted)


async def test_a_token_opens_neither_another_tenant_nor_the_database(fleet: Fleet, sharers: dict[str, str]) -> None:
    cell = cell_of(fleet)
    for mine, theirs in (("delta", "echo"), ("foxtrot", "golf"), ("delta", "foxtrot")):
        for entry in ("storefront", "indexer"):
            token = await fleet.token(mine, entry)
            status, said = await fleet.gateway("POST", theirs, "/search", token, body={"query": "nut", "limit": 1})
            assert (status, "hits" in said) == (403, False), said
            for collection in (*await shared_collections(fleet), alias_of(mine), alias_of(theirs)):
                assert await asked_with(fleet, cell, collection, token) in (401, 403), collection
        status, said = await fleet.gateway(
            "DELETE", theirs, "/products", await fleet.token(mine, "indexer"), data=b'{"id": "only-echo"}\n'
        )
        assert status == 403, said


async def test_the_canary_proves_it(fleet: Fleet, sharers: dict[str, str]) -> None:
    found = [await fleet.condition("searchtenants", name, "Isolated", "True", "IsolationHeld") for name in sharers]
    said = "a foreign token was refused wherever the canary tried it"
    assert [condition.get("message") for condition in found] == [said] * 4


async def test_a_write_and_a_delete_reach_the_same_product_of_nobody_else(
    fleet: Fleet, sharers: dict[str, str]
) -> None:
    shared = b'{"id": "common", "sku": "COMMON-1", "title": "common thing of %s", "category": "nuts"}\n'
    for name in sharers:
        status, said = await fleet.index(name, shared.replace(b"%s", name.encode()))
        assert status == 200, said
    token = await fleet.token("delta", "indexer")
    status, said = await fleet.gateway("DELETE", "delta", "/products", token, data=b'{"id": "common"}\n')
    assert status == 200, said
    assert "common" not in await fleet.hits("delta", "COMMON-1")
    for name in ("echo", "foxtrot", "golf"):
        assert (await fleet.hits(name, "COMMON-1"))[0] == "common"
        status, said = await fleet.gateway(
            "DELETE", name, "/products", await fleet.token(name, "indexer"), data=b'{"id": "common"}\n'
        )
        assert status == 200, said


async def test_a_tenant_moves_through_all_tiers_and_keeps_every_point(fleet: Fleet, sharers: dict[str, str]) -> None:
    manifest = tenant_manifest("hotel", region="us")
    await fleet.apply(manifest)
    await fleet.condition("searchtenants", "hotel", "Ready", "True")
    status, said = await fleet.index("hotel")
    assert status == 200, said
    before = await fleet.hits("hotel")
    old = await fleet.token("hotel", "storefront")
    for tier in ("Shared", "ShardKey", "Collection"):
        manifest["spec"]["isolation"] = tier
        await fleet.apply(manifest)
        await fleet.until(f"hotel is {tier}", lambda tier=tier: _is(fleet, "hotel", tier))  # type: ignore[misc]
        await fleet.condition("searchtenants", "hotel", "Ready", "True")
        fleet.tokens.pop("hotel-storefront", None)
        assert await fleet.hits("hotel") == before, tier
        status, answer = await fleet.gateway("GET", "hotel", "", await fleet.token("hotel", "storefront"))
        assert (status, answer["points"]) == (200, products()), tier
        if tier != "Collection":
            status = await asked_with(fleet, cell_of(fleet), alias_of("hotel"), old)
            assert status in (401, 403, 404), "the token of the old tier opens nothing"
    for name in sharers:
        assert (await fleet.hits(name, f"ONLY-{name}"))[0] == f"only-{name}"
    await fleet.delete("searchtenants", "hotel")


async def test_what_is_deleted_goes_by_itself_and_nothing_beside_it(fleet: Fleet, sharers: dict[str, str]) -> None:
    for tier in ("Shared", "ShardKey"):
        name = f"india-{tier.lower()}"
        await fleet.apply(tenant_manifest(name, region="us", isolation=tier, policy="Delete", undelete_window="1s"))
        await fleet.condition("searchtenants", name, "Ready", "True")
        status, said = await fleet.index(name)
        assert status == 200, said
        assert alias_of(name) in await records(fleet)
        await fleet.delete("searchtenants", name)

        async def gone(name: str = name) -> bool:
            return alias_of(name) not in await records(fleet)

        await fleet.until(f"{name} is swept", gone)
    assert set(map(alias_of, sharers)) <= set(await records(fleet))
    for name in sharers:
        assert (await fleet.hits(name, f"ONLY-{name}"))[0] == f"only-{name}"
        status, answer = await fleet.gateway("GET", name, "", await fleet.token(name, "storefront"))
        assert answer["points"] >= products() + 1


async def _is(fleet: Fleet, name: str, tier: str) -> bool:
    status = (await fleet.get("searchtenants", name)).get("status", {})
    return bool((status.get("isolation") or {}).get("mode") == tier and not status.get("rebuild"))
