"""Two merchants in one collection with the same products: neither sees, changes or deletes what is the other's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from qdrant_client import models

from integration.gateway.gateway_parts import KEY, PRODUCTS, Front, gateway
from integration.gateway.shared_tier import SharedCell, SharedTenant, merchant, shared_cell

if TYPE_CHECKING:
    from pathlib import Path

    from qdrant_client import AsyncQdrantClient

    from searchops.api.shared import SharedTier
    from searchops_sandbox.qdrant.cell import QdrantCell

OF_B = [{**product, "secret": "of b", "price": 77.0} for product in PRODUCTS]
FORGER = "a-forger-has-none-of-the-fleets-keys!"


@pytest.fixture(params=["Shared", "ShardKey"])
async def shared(request: pytest.FixtureRequest, admin: AsyncQdrantClient, tmp_path: Path) -> SharedCell:
    tier: SharedTier = request.param
    return await shared_cell(admin, tmp_path, tier)


async def pair(shared: SharedCell) -> tuple[SharedTenant, SharedTenant]:
    return await merchant(shared, "a"), await merchant(shared, "b")


async def fill(front: Front, mine: SharedTenant, theirs: SharedTenant) -> None:
    """The same ids and texts for both; what is the other's carries a secret."""
    for tenant, products in ((theirs, OF_B), (mine, PRODUCTS)):
        front.tenant = tenant
        assert (await front.put(products))["written"] == len(products)


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("urn:searchops:problem:")


@pytest.mark.parametrize("grpc", [False, True])
async def test_neither_sees_the_others_products_by_any_search(cell: QdrantCell, shared: SharedCell, grpc: bool) -> None:
    mine, theirs = await pair(shared)
    async with gateway(cell, mine, grpc=grpc, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        for query in ("white shirt", "SH-1000", "hex nut m12", "blouse"):
            for tenant, secret in ((mine, None), (theirs, "of b")):
                front.tenant = tenant
                found = await front.search(query, limit=50)
                assert found["hits"], query
                assert len({hit["id"] for hit in found["hits"]}) == len(found["hits"])
                assert {hit["product"].get("secret") for hit in found["hits"]} == {secret}
                assert "_tenant" not in str(found)
        metrics = (await front.http.get("/metrics")).text
        assert "searchops_gateway_foreign_points_total 0.0" in metrics


async def test_hits_whose_payload_comes_late_are_the_tenants_own(cell: QdrantCell, shared: SharedCell) -> None:
    mine, theirs = await pair(shared)
    same = [{"id": f"p{number:03d}", "title": "Hex nut"} for number in range(40)]
    async with gateway(cell, mine, credentials=shared.path) as front:
        for tenant, products in ((theirs, [{**one, "secret": "of b"} for one in same]), (mine, same)):
            front.tenant = tenant
            await front.put(products)
        found = await front.search("hex nut", limit=5)
        assert [hit["id"] for hit in found["hits"]] == [f"p{number:03d}" for number in range(5)]
        assert all(hit["product"]["title"] == "Hex nut" and "secret" not in hit["product"] for hit in found["hits"])


@pytest.mark.parametrize(
    "filters",
    [
        {"_tenant": "KEY-OF-B"},
        {"_tenant": ["KEY-OF-B", "KEY-OF-A"]},
        {"should": ["x"]},
        {"secret": "of b"},
        {"a._tenant": "KEY-OF-B"},
        {"must_not": {"gte": 1}},
        {"price": {"gte": 70, "should": [{"key": "_tenant"}]}},
        {"colour": [{"key": "_tenant"}]},
    ],
)
async def test_filters_that_reach_for_the_other_are_refused(
    cell: QdrantCell, shared: SharedCell, filters: dict[str, Any]
) -> None:
    mine, theirs = await pair(shared)
    text = json.dumps(filters).replace("KEY-OF-B", theirs.key(2)).replace("KEY-OF-A", mine.key(2))
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        body = {"query": "shirt", "filters": json.loads(text)}
        answer = await front.call("POST", "/search", json=body)
        assert refused(answer)[0] == 422
        assert theirs.key(2) not in answer.json()["detail"]


@pytest.mark.parametrize("filters", [{"price": {"gte": 70}}, {"price": 77.0}, {"price": [77.0, 78.0]}])
async def test_what_only_the_other_has_is_found_by_the_other_alone(
    cell: QdrantCell, shared: SharedCell, filters: dict[str, Any]
) -> None:
    mine, theirs = await pair(shared)
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        assert (await front.search("shirt", filters=filters))["hits"] == []
        front.tenant = theirs
        assert len((await front.search("shirt", filters=filters))["hits"]) >= 2


async def test_writes_and_deletes_leave_the_others_points_as_they_are(cell: QdrantCell, shared: SharedCell) -> None:
    mine, theirs = await pair(shared)
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        before = await theirs.stored("shirt")
        await front.put([{"id": "shirt", "title": "Changed shirt", "shard_key": theirs.key(2)}])
        answer = await front.call("DELETE", "/products", json={"ids": ["red", "nut"]})
        assert answer.json()["deleted"] == 2
        assert await theirs.stored("shirt") == before
        gone = await mine.stored("red")
        assert gone is not None
        assert (gone.payload or {})["_deleted"]
        assert [hit["id"] for hit in (await front.search("shirt"))["hits"]] == ["shirt"]
        forged = await front.call("PUT", "/products", json=[{"id": "x", "_tenant": theirs.key(2)}])
        assert refused(forged) == (422, "no-valid-item")
        front.tenant = theirs
        assert {hit["id"] for hit in (await front.search("shirt"))["hits"]} == {"shirt", "red", "nut"}


async def test_a_tenant_is_told_of_itself_alone(cell: QdrantCell, shared: SharedCell) -> None:
    mine, theirs = await pair(shared)
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        await front.put([{"id": "more", "title": "More"}])
        about = (await front.call("GET", "", token=mine.token("r"))).json()
        assert (about["points"], about["alias"], about["binding"]["revision"]) == (4, mine.alias, "r1")
        assert about["filters"] == ["colour", "price", "sku"]
        text = str(about)
        assert not any(word in text for word in (theirs.alias, mine.key(2), theirs.key(2), shared.collections[0]))


async def test_only_a_genuine_token_of_the_tenant_opens_it(cell: QdrantCell, shared: SharedCell) -> None:
    mine, theirs = await pair(shared)
    direct = [{"collection": shared.collections[0], "access": "prw"}, {"collection": mine.alias, "access": "prw"}]
    cases = [
        (theirs.token(), (403, "other-tenant")),
        (mine.token(key=FORGER), (401, "bad-credentials")),
        (mine.token(key=KEY), (401, "bad-credentials")),
        (mine.token(exp=1), (401, "token-expired")),
        (mine.token(subject=f"{theirs.uid}/indexer"), (403, "other-tenant")),
        (mine.token(access=theirs.claims()["access"]), (403, "other-tenant")),
        (mine.token(enforcedBy="Database"), (401, "bad-credentials")),
        (mine.token(subject="uid-of-nobody/indexer"), (404, "no-collection")),
    ]
    unmarked = {name: value for name, value in mine.claims(access=direct).items() if name != "enforcedBy"}
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        encoded = len(front.encoder.calls)
        for method, path, body in (
            ("GET", "", None),
            ("POST", "/search", {"query": "shirt"}),
            ("PUT", "/products", PRODUCTS),
            ("DELETE", "/products", {"ids": ["shirt"]}),
        ):
            for token, wanted in cases:
                assert refused(await front.call(method, path, token=token, json=body)) == wanted
            for key in (KEY, FORGER):
                # The database judges a token without the claim: one of the cell's key finds no alias there.
                forwarded = jwt_of(unmarked, key)
                answer = refused(await front.call(method, path, token=forwarded, json=body))
                assert answer[0] in ((404,) if key == KEY else (401, 403))
        assert len(front.encoder.calls) == encoded


def jwt_of(claims: dict[str, Any], key: str) -> str:
    return jwt.encode(claims, key, algorithm="HS256")


async def test_an_alias_that_someone_points_to_the_shared_collection_opens_nothing(
    cell: QdrantCell, shared: SharedCell
) -> None:
    mine, theirs = await pair(shared)
    action = models.CreateAlias(collection_name=shared.collections[0], alias_name=mine.alias)
    await shared.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=action)])
    claims = {name: value for name, value in mine.claims().items() if name not in ("enforcedBy", "value_exists")}
    async with gateway(cell, mine, credentials=shared.path) as front:
        await fill(front, mine, theirs)
        for method, path, body in (("POST", "/search", {"query": "shirt"}), ("PUT", "/products", PRODUCTS)):
            answer = await front.call(method, path, token=jwt_of(claims, KEY), json=body)
            assert refused(answer) == (403, "shared-collection")
