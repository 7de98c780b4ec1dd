"""Credentials and bodies: what is read, what is refused, and with which words."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import Binding, FieldRoles, RetrievalProfile
from searchops_workers.gateway.bodies import check_filters, parse_bulk, parse_search
from searchops_workers.gateway.callers import read_caller, require_write
from searchops_workers.gateway.problems import Problem

TENANT = "merchants-eu.acme"
NDJSON = "application/x-ndjson; charset=utf-8"
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


def token(*access: tuple[str, str], cell: Any = "eu-1") -> str:
    claims = {"access": [{"collection": name, "access": right} for name, right in access], "cell": cell}
    return jwt.encode(claims, "a-key-of-at-least-thirty-two-bytes!!", algorithm="HS256")


def refusal(call: Any, *arguments: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value


def test_a_token_names_alias_cell_and_rights_and_is_never_shown() -> None:
    text = token(("prod.merchants-eu.acme", "prw"), ("prod.merchants-eu.acme@a", "prw"))
    caller = read_caller(TENANT, f"bearer {text}")
    assert (caller.alias, caller.cell, caller.may_write) == ("prod.merchants-eu.acme", "eu-1", True)
    assert text not in repr(caller)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Basic eA==", 401), ("Bearer ", 401), ("Bearer no.jwt", 401), ("Bearer " + "x" * 9000, 401)],
)
def test_without_a_readable_token_there_is_no_caller(authorization: str | None, status: int) -> None:
    assert refusal(read_caller, TENANT, authorization).status == status


@pytest.mark.parametrize("path", ["acme", "a.b.c", "Acme.x", "a.", ".b", "a..b", "x" * 64 + ".b"])
def test_a_path_that_names_no_tenant_is_not_found(path: str) -> None:
    assert refusal(read_caller, path, "Bearer x").status == 404


@pytest.mark.parametrize(
    "name", ["prod.merchants-eu.acme@a", "prod.x.merchants-eu.acme", "merchants-eu.acme", "prod.merchants-eu.acme2"]
)
def test_only_the_very_alias_opens_a_tenant(name: str) -> None:
    assert refusal(read_caller, TENANT, f"Bearer {token((name, 'prw'))}").status == 403


@given(names, names, names, names, names)
def test_no_token_opens_a_tenant_that_its_alias_does_not_name(
    fleet: str, namespace: str, name: str, other_namespace: str, other_name: str
) -> None:
    text = token((f"{fleet}.{namespace}.{name}", "r"))
    tenant = f"{other_namespace}.{other_name}"
    if (namespace, name) == (other_namespace, other_name):
        assert read_caller(tenant, f"Bearer {text}").alias == f"{fleet}.{tenant}"
    else:
        assert refusal(read_caller, tenant, f"Bearer {text}").status == 403


def test_a_token_without_a_cell_or_without_write_is_told_so() -> None:
    text = token(("prod.merchants-eu.acme", "r"), cell=None)
    assert "cell" in refusal(read_caller, TENANT, f"Bearer {text}").detail
    caller = read_caller(TENANT, f"Bearer {token(('prod.merchants-eu.acme', 'r'))}")
    assert refusal(require_write, caller).status == 403


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 422, "the body"),
        (b"{}", 422, "query"),
        (b'{"query": ""}', 422, "query"),
        (b'{"query": "x", "limit": 0}', 422, "limit"),
        (b'{"query": "x", "limit": 101}', 422, "limit"),
        (b'{"query": "x", "more": 1}', 422, "more"),
        (b'{"query": "x", "filters": {"a": []}}', 422, "filters.a"),
    ],
)
def test_a_bad_search_names_its_field(body: bytes, status: int, field: str | None) -> None:
    problem = refusal(parse_search, body, 100)
    assert problem.status == status
    assert field is None or str(problem.extra["field"]).startswith(field)


def test_filters_take_indexed_fields_only() -> None:
    binding = Binding(profile=RetrievalProfile(name="plain"), fields=FieldRoles(filter=("price",), code=("sku",)))
    body = parse_search(b'{"query": "x", "filters": {"price": {"gte": 1, "lt": 3}, "sku": ["A", "B"]}}', 100)
    assert check_filters(body, binding) == {"price": {"gte": 1.0, "lt": 3.0}, "sku": ["A", "B"]}
    problem = refusal(check_filters, parse_search(b'{"query": "x", "filters": {"title": "t"}}', 100), binding)
    assert "price, sku" in problem.detail


def test_bulk_items_are_judged_one_by_one_and_the_last_of_equal_ids_wins() -> None:
    body = b'{"id": "a", "n": 1}\nnope\n\n{"n": 2}\n{"id": "a", "n": 3}\n{"id": 7}'
    bulk = parse_bulk(body, NDJSON, "products", 10)
    assert [(item.index, item.id, item.product.get("n")) for item in bulk.items] == [(3, "a", 3), (4, "7", None)]
    assert [(item.index, item.id) for item in bulk.rejected] == [(1, None), (2, None)]
    assert bulk.superseded == (0,)


@pytest.mark.parametrize("body", [b'{"ids": ["a", 7]}', b'["a", 7]', b'[{"id": "a"}, {"id": 7}]'])
def test_ids_come_as_values_or_objects(body: bytes) -> None:
    assert [item.id for item in parse_bulk(body, "application/json", "ids", 10).items] == ["a", "7"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"x": 1}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\n \n", NDJSON, 400),
        (b"[1,2,3,4]", "application/json", 413),
        (b"1\n2\n3\n4", NDJSON, 413),
        (b"[1]", "text/csv", 415),
    ],
)
def test_a_bulk_that_is_no_bulk_is_refused_whole(body: bytes, kind: str, status: int) -> None:
    assert refusal(parse_bulk, body, kind, "products", 3).status == status


@given(
    st.lists(
        st.one_of(st.fixed_dictionaries({"id": st.sampled_from(["a", "b", "c"])}), st.none(), st.integers()), min_size=1
    )
)
def test_every_item_is_written_rejected_or_superseded_exactly_once(items: list[Any]) -> None:
    bulk = parse_bulk(json.dumps(items).encode(), "application/json", "products", 1000)
    places = [*(item.index for item in bulk.items), *(item.index for item in bulk.rejected), *bulk.superseded]
    assert sorted(places) == list(range(len(items)))
    assert json.dumps([item.document() for item in bulk.rejected])
