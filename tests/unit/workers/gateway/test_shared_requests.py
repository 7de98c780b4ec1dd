"""What the gateway sends for a tenant of a shared collection: within its slice, whatever it is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from searchops.api.retrieval import MISSED_KEY, missed_mark, point_id
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops_workers.gateway.bindings import TenantBinding
from searchops_workers.gateway.bodies import Item, parse_bulk, parse_search
from searchops_workers.gateway.callers import Caller
from searchops_workers.gateway.cells import Gone
from searchops_workers.gateway.doors import Tenancy, TierMove
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.rates import Rates
from searchops_workers.gateway.searches import Searches
from searchops_workers.gateway.shared import SharedDoor
from searchops_workers.gateway.writes import Versions, Writer, version_guard
from searchops_workers.retrieval.scope import Scope
from unit.workers.gateway.shared_parts import ALIAS, CELL_TOKEN, COLLECTIONS, TENANT, FakeCells, binding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from searchops.api.retrieval import Binding
    from searchops_workers.gateway.callers import AnyCaller
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.encoders import BindingEncoder
    from searchops_workers.gateway.tenants import Tenants

ONE, TWO = COLLECTIONS
A, B = f"{ALIAS}@a", f"{ALIAS}@b"
KEYS = {A: "key-of-g2", B: "key-of-g3"}
BOUND, NEXT = binding("r1", A), binding("r2", B)
ITEMS = (Item(0, "nut", {"id": "nut", "title": "Hex nut"}),)


def place(side: str, collection: str = ONE, *, keyed: bool = False) -> Scope:
    return Scope.of(SliceAddress("ShardKey" if keyed else "Shared", collection, KEYS[side]))


def door(**scopes: Scope) -> SharedDoor:
    named = {f"{ALIAS}@{name}": scope for name, scope in scopes.items()}
    return SharedDoor(ALIAS, "eu-1", CELL_TOKEN, {ALIAS: named[A], **named})


class FakeEncoder:
    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]


ENCODER = cast("BindingEncoder", FakeEncoder())


class Standing:
    """The tenant under test, wherever it stands."""

    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy

    async def read(self, caller: AnyCaller, *, fresh: bool = False) -> Tenancy:
        return self.tenancy


def tenant_condition(key: str) -> models.FieldCondition:
    return models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=key))


def parts(request: models.QueryRequest | models.Prefetch) -> Iterator[models.QueryRequest | models.Prefetch]:
    yield request
    for one in cast("list[models.Prefetch]", request.prefetch or []):
        yield from parts(one)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)
crafted = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["should", "must", "must_not", "key", "match", "value", "gte", "lt", TENANT_KEY]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)
queries = st.sampled_from(["red shirt", "HN-2110", "nut m12", "shirt for the garden"])
values = st.floats(0, 9) | st.booleans() | st.sampled_from(["red", KEYS[B], f'"{TENANT_KEY}"', '" or 1=1'])
served = st.fixed_dictionaries(
    {"query": queries},
    optional={
        "filters": st.dictionaries(
            st.sampled_from(["price", "colour", "sku"]),
            values
            | st.lists(values, min_size=1, max_size=3)
            | st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.floats(0, 9), max_size=2),
            max_size=3,
        ),
        "limit": st.integers(1, 100),
        "explain": st.booleans(),
    },
)
reaching = st.fixed_dictionaries(
    {"query": queries},
    optional={
        "filters": st.dictionaries(
            st.sampled_from(["price", "colour", TENANT_KEY, "_id", "should", "must", f"a.{TENANT_KEY}"]),
            values | crafted,
            max_size=3,
        ),
        "filter": crafted,
        "shard_key": st.text(max_size=3),
        "prefetch": crafted,
        TENANT_KEY: st.just(KEYS[B]),
    },
)


@settings(deadline=None)
@given(served | reaching, st.booleans())
async def test_for_any_body_a_search_is_refused_or_within_the_slice_in_every_part(
    body: dict[str, Any], keyed: bool
) -> None:
    cells, scope = FakeCells(), place(A, keyed=keyed)
    standing = cast("Tenants", Standing(Tenancy(door(a=scope, b=place(B)), TenantBinding(BOUND))))

    def nobody(_: Scope, __: int) -> None:
        raise AssertionError("nothing came back")

    searches = Searches(cast("Cells", cells), standing, ENCODER, Rates(clock=lambda: 0.0), nobody, encode_seconds=5)
    caller = cast("AnyCaller", None)
    try:
        await searches.search(caller, parse_search(json.dumps(body).encode(), 100))
    except Problem as problem:
        assert (problem.status, cells.sent) == (422, [])
        return
    ((collection, sent),) = cells.sent
    assert collection == ONE
    every = [part for request in sent["requests"] for part in parts(request)]
    assert len(every) >= 3
    for part in every:
        assert isinstance(part.filter, models.Filter)
        assert tenant_condition(KEYS[A]) in cast("list[Any]", part.filter.must)
        assert part.filter.model_dump_json().count(f'"key":"{TENANT_KEY}"') == 1
    assert {request.shard_key for request in sent["requests"]} == {KEYS[A] if keyed else None}


def writer(cells: FakeCells) -> Writer:
    return Writer(cast("Cells", cells), ENCODER, Versions(lambda: 1.0), batch=10)


products = st.dictionaries(
    st.sampled_from(["title", "colour", TENANT_KEY, "shard_key", "a", "_tenant.x"]), crafted | st.text(max_size=5)
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["p1", "p2", "p3"]), products), min_size=1, max_size=4), st.booleans())
async def test_for_any_products_a_write_is_within_the_slice(
    given_items: list[tuple[str, dict[str, Any]]], delete: bool
) -> None:
    cells = FakeCells()
    raw = json.dumps([{**product, "id": name} for name, product in given_items]).encode()
    bulk = parse_bulk(raw, "application/json", "products", 100)
    assert all(TENANT_KEY not in item.product for item in bulk.items)
    if not bulk.items:
        return
    write = writer(cells).delete if delete else writer(cells).put
    outcome = await write(door(a=place(A, keyed=True)), TenantBinding(BOUND), bulk.items)
    ((collection, sent),) = cells.sent
    assert collection == ONE
    assert [point.id for point in sent["points"]] == [point_id(item.id, KEYS[A]) for item in bulk.items]
    assert {point.payload[TENANT_KEY] for point in sent["points"]} == {KEYS[A]}
    guard = models.Filter(must=[tenant_condition(KEYS[A]), version_guard(outcome.version)])
    assert (sent["update_filter"], sent["shard_key_selector"]) == (guard, KEYS[A])


@pytest.mark.parametrize("other", [place(B), place(B, TWO, keyed=True)])
@pytest.mark.parametrize("what", ["put", "delete"])
async def test_both_sides_of_a_rebuild_are_written_each_with_its_own_slice(other: Scope, what: str) -> None:
    cells = FakeCells()
    write = writer(cells).put if what == "put" else writer(cells).delete
    outcome = await write(door(a=place(A), b=other), TenantBinding(BOUND, pending=NEXT), ITEMS)
    assert outcome.sides == (A, B)
    sent = [(name, one["points"][0], one.get("shard_key_selector")) for name, one in cells.sent]
    assert [(name, point.id, point.payload[TENANT_KEY], routing) for name, point, routing in sent] == [
        (ONE, point_id("nut", KEYS[A]), KEYS[A], None),
        (other.collection, point_id("nut", KEYS[B]), KEYS[B], KEYS[B] if other.collection == TWO else None),
    ]
    if what == "put":
        assert ["d-r1" in sent[0][1].vector, "d-r2" in sent[0][1].vector] == [True, False]
        assert ["d-r1" in sent[1][1].vector, "d-r2" in sent[1][1].vector] == [False, True]


async def test_two_vectors_of_one_slice_are_one_point() -> None:
    cells = FakeCells()
    await writer(cells).put(door(a=place(A)), TenantBinding(BOUND, pending=binding("r2", A)), ITEMS)
    ((_, sent),) = cells.sent
    (point,) = sent["points"]
    assert {"d-r1", "d-r2"} <= set(point.vector)
    assert point.payload[TENANT_KEY] == KEYS[A]


@pytest.mark.parametrize("what", ["put", "delete"])
async def test_while_a_side_of_another_tier_is_filled_nothing_is_written_and_the_caller_is_told_when_to_come_back(
    what: str,
) -> None:
    cells = FakeCells()
    write = writer(cells).put if what == "put" else writer(cells).delete
    with pytest.raises(TierMove) as caught:
        await write(door(a=place(A)), TenantBinding(BOUND, pending=NEXT), ITEMS)
    document = caught.value.document()
    assert (document["status"], document["type"]) == (503, "urn:searchops:problem:tier-move")
    assert caught.value.response().headers["Retry-After"] == "60"
    assert cells.sent == []


async def test_a_forwarded_write_to_a_side_that_is_no_alias_is_told_the_same() -> None:
    cells = FakeCells()
    caller = Caller(TENANT, ALIAS, "eu-1", {ALIAS: "prw"}, "the-callers-own")
    cells.failing = {B: Gone(404, "no such alias", code="no-collection")}
    with pytest.raises(TierMove) as caught:
        await writer(cells).put(caller, TenantBinding(BOUND, pending=NEXT), ITEMS)
    assert (caught.value.status, caught.value.code) == (503, "tier-move")
    cells.failing = {A: Gone(404, "no such alias", code="no-collection")}
    with pytest.raises(Gone) as gone:
        await writer(cells).put(caller, TenantBinding(BOUND, pending=NEXT), ITEMS)
    assert gone.value.code == "no-collection", "the bound side is gone, which is no move"


async def test_a_previous_side_in_another_tier_is_missed_by_every_write_which_says_so() -> None:
    cells = FakeCells()
    tenant = TenantBinding(NEXT, previous=BOUND)
    there = SharedDoor(ALIAS, "eu-1", CELL_TOKEN, {ALIAS: place(B), B: place(B)})
    outcome = await writer(cells).put(there, tenant, ITEMS)
    assert "another tier" in outcome.missed_previous
    assert outcome.out_of_reach
    ((_, sent),) = cells.sent
    assert sent["points"][0].payload[MISSED_KEY] == missed_mark(BOUND)
    assert set(sent["points"][0].vector) >= {"d-r2"}


async def test_a_previous_slice_that_does_not_answer_is_marked_on_the_bound_one() -> None:
    cells = FakeCells()
    cells.failing = {TWO: Problem(503, "no answer", code="cell-unreachable")}
    outcome = await writer(cells).delete(door(a=place(A), b=place(B, TWO)), TenantBinding(BOUND, previous=NEXT), ITEMS)
    assert (B in outcome.missed_previous, outcome.out_of_reach) == (True, False)
    ((collection, sent),) = cells.sent
    assert (collection, sent["points"][0].payload[MISSED_KEY]) == (ONE, missed_mark(NEXT))
