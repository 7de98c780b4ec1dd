"""Every script and sign that a merchant may send, from the index of a field to a search for it, over REST and gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.gateway.gateway_parts import KEY, Tenant, dense, gateway, made
from searchops.adapters.qdrant import QdrantCells
from searchops.api.observed import CellRegistration
from searchops.api.retrieval import FieldRoles

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

    from searchops_sandbox.qdrant.cell import QdrantCell

FIELDS = ("colour", "attributes.size", "a.b.c", "x" * 63)
VALUES = {
    "combining": "cafe\u0301",
    "composed": "caf\u00e9",
    "right-to-left": "\u05e0\u05e2\u05dc\u05d9\u05d9\u05dd",
    "override": "ab\u202ecd\u202c",
    "nul": "a\0b",
    "quotes": "12\" 'rail' \\ `x`",
    "path": "a.b[0][]",
    "family": "👨\u200d👩\u200d👧 size",
    "long": "ß" * 2000,
    "break": "a\u2028b\r\nc",
}
PRODUCTS = [
    {
        "id": f"\u2116-{name}",
        "title": f"Shirt {value}",
        "colour": value,
        "attributes": {"size": value, "größe.cm[]": value, "": "empty key", "a\0b": "NUL in a key"},
        "a": {"b": {"c": value}},
        "x" * 63: value,
    }
    for name, value in VALUES.items()
]


async def indexed(admin: AsyncQdrantClient, cell: QdrantCell, name: str) -> Tenant:
    """A tenant whose fields are indexed by the operator's own adapter."""
    tenant = await made(admin, name)
    collection = f"{tenant.alias}@g2"
    registration = CellRegistration("eu-1", {}, (cell.rest_url,), None, 100, api_key=KEY)
    operator = QdrantCells()
    try:
        for field in FIELDS:
            await operator.create_index(registration, collection, field, "keyword")
        described = await operator.describe(registration, collection)
    finally:
        await operator.close()
    assert described is not None
    assert {field: described.indexes.get(field) for field in FIELDS} == dict.fromkeys(FIELDS, "keyword")
    bound = dense("r1", "d-one", tenant.sides[0])
    roles = FieldRoles(code=("colour",), filter=FIELDS)
    await tenant.bind(2, binding=bound.model_copy(update={"fields": roles, "document": "{title}. {attributes}"}))
    return tenant


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_whatever_is_sent_is_stored_as_it_is_and_found_by_every_indexed_field(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await indexed(admin, cell, f"scripts-{'grpc' if grpc else 'rest'}")
    async with gateway(cell, tenant, grpc=grpc) as front:
        written = await front.put(PRODUCTS)
        assert (written["written"], written["rejected"]) == (len(PRODUCTS), [])
        for product, value in zip(PRODUCTS, VALUES.values(), strict=True):
            for field in FIELDS:
                found = await front.search("shirt", filters={field: value})
                assert [hit["id"] for hit in found["hits"]] == [product["id"]], (field, value)
                assert found["hits"][0]["product"] == product
        assert (await admin.count(tenant.alias, exact=True)).count == len(PRODUCTS)


async def test_texts_that_look_alike_are_two_values_and_nothing_is_normalised_in_the_payload(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await indexed(admin, cell, "alike")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        for name in ("combining", "composed"):
            found = await front.search("shirt", filters={"colour": VALUES[name]})
            assert [hit["product"]["colour"] for hit in found["hits"]] == [VALUES[name]]


QUERIES = ("\0", "\u202e\u202c", "👟", "\u05e0\u05e2\u05dc", '"', "\\", "[]", "a" * 512, " \u00a0 ")


async def test_no_query_of_signs_fails(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await indexed(admin, cell, "signs")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        for query in QUERIES:
            answer = await front.call("POST", "/search", json={"query": query})
            assert answer.status_code in (200, 422), (query, answer.text)
            if answer.status_code == 422:
                assert answer.json()["field"] == "query"


BROKEN: dict[str, bytes] = {
    "half a surrogate": b'{"products": [{"id": "p", "title": "\\ud800"}]}',
    "no UTF-8": b'{"products": [{"id": "p", "title": "\xff"}]}',
    "a bare NUL": b'{"products": [{"id": "p", "title": "\0"}]}',
    "a NaN": b'{"products": [{"id": "p", "title": NaN}]}',
}


async def test_what_is_no_unicode_is_refused_and_nothing_of_it_is_written(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await indexed(admin, cell, "broken")
    async with gateway(cell, tenant) as front:
        for what, content in BROKEN.items():
            answer = await front.call("PUT", "/products", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 400, (what, answer.text)
            assert answer.headers["content-type"] == "application/problem+json", what
        assert (await admin.count(tenant.alias, exact=True)).count == 0


IDS: dict[str, Any] = {"empty": "", "blank": " \u00a0 ", "long": "ß" * 257, "a list": ["p"], "true": True}


async def test_an_id_that_is_none_is_rejected_alone(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await indexed(admin, cell, "ids")
    products = [*({"id": value, "title": "x"} for value in IDS.values()), {"id": "\u2116\0\u202e", "title": "y"}]
    async with gateway(cell, tenant) as front:
        answer = await front.call("PUT", "/products", json={"products": products})
        assert answer.status_code == 207, answer.text
        assert [item["index"] for item in answer.json()["rejected"]] == list(range(len(IDS)))
        kept = await tenant.stored(tenant.alias, "\u2116\0\u202e")
        assert kept is not None and kept.payload is not None and kept.payload["title"] == "y"
        assert (await admin.count(tenant.alias, exact=True)).count == 1
