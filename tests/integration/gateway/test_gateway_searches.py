"""Searches through the gateway over REST and gRPC: legs, filters, a moved index, and parts that are down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.gateway.gateway_parts import PRODUCTS, dense, gateway, made
from searchops.api.retrieval import BINDING_KEY
from searchops_sandbox.ports import free_port
from searchops_workers.gateway.settings import CellEndpoint

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_what_is_indexed_is_found_by_the_leg_that_is_meant_for_it(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"found-{'grpc' if grpc else 'rest'}")
    async with gateway(cell, tenant, grpc=grpc) as front:
        written = await front.put(PRODUCTS)
        assert (written["written"], written["rejected"], written["sides"]) == (3, [], 1)
        code = await front.search("hn2110")
        assert code["legs"] == ["lex", "tri"]
        assert code["hits"][0]["product"] == PRODUCTS[0]
        typo = await front.search("whiite shrt")
        assert typo["hits"][0]["id"] == "shirt"
        assert "tri" in typo["hits"][0]["legs"]
        synonym = await front.search("blouse")
        assert {hit["id"] for hit in synonym["hits"][:2]} == {"shirt", "red"}
        assert set(synonym["hits"][0]["legs"]) == {"dense"}
        assert (synonym["degraded"], synonym["revision"]) == (False, "r1")


async def test_filters_are_exact_any_of_several_or_bounds_and_only_on_indexed_fields(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "filters")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)

        async def ids(**filters: Any) -> set[str]:
            return {hit["id"] for hit in (await front.search("shirt", filters=filters))["hits"]}

        assert await ids(colour="red") == {"red"}
        assert await ids(colour=["red", "white"]) == {"red", "shirt"}
        assert await ids(price={"gte": 30}) == {"red"}
        assert await ids(price=25) == {"shirt"}
        answer = await front.call("POST", "/search", json={"query": "shirt", "filters": {"title": "x"}})
        assert answer.status_code == 422
        assert answer.json()["field"] == "filters.title"
        assert "colour, price, sku" in answer.json()["detail"]


async def test_a_binding_that_the_index_has_outrun_is_read_again(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "outrun")
    async with gateway(cell, tenant, binding_seconds=300.0) as front:
        await front.put(PRODUCTS)
        assert (await front.search("white shirt"))["revision"] == "r1"
        await tenant.create(3, ["d-two"], {BINDING_KEY: dense("r2", "d-two", tenant.sides[1]).to_metadata()})
        await tenant.point(tenant.alias, f"{tenant.alias}@g3")
        await admin.delete_collection(f"{tenant.alias}@g2")
        assert (await front.search("white shirt"))["revision"] == "r2"
        assert (await front.put(PRODUCTS))["written"] == 3
        assert (await front.search("white shirt"))["hits"][0]["id"] == "shirt"


async def test_when_the_encoder_is_down_the_lexical_legs_answer_and_say_so(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "degraded")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        front.encoder.down = {"r1"}
        answer = await front.search("white shirt")
        assert (answer["degraded"], answer["legs"]) == (True, ["lex", "tri"])
        assert "r1" in answer["route"]
        assert answer["hits"][0]["id"] == "shirt"
        assert not (await front.search("hn2110"))["degraded"]


async def test_a_cell_that_does_not_answer_is_503_with_retry_after(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "dropped")
    dead = {"eu-1": CellEndpoint(url=f"http://127.0.0.1:{free_port()}")}
    async with gateway(cell, tenant, cells=dead) as front:
        for method, path, body in (("POST", "/search", {"query": "shirt"}), ("PUT", "/products", PRODUCTS)):
            answer = await front.call(method, path, json=body)
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:searchops:problem:cell-unreachable")
            assert int(answer.headers["Retry-After"]) >= 1
            assert tenant.token("r") not in answer.text
