"""Whatever is asked of a shared collection carries the tenant's slice, in every part of the request."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from searchops.api.retrieval import ID_KEY, Binding, FieldRoles, RetrievalProfile, point_id
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops_workers.retrieval.query import build_request
from searchops_workers.retrieval.remote import QdrantSearch, batch_of
from searchops_workers.retrieval.scope import NewPoint, Scope, ScopedPoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qdrant_client import AsyncQdrantClient

KEY = "slice-0001"
SHARED = Scope.of(SliceAddress("Shared", "prod@shared-1", KEY))
KEYED = Scope.of(SliceAddress("ShardKey", "prod@keyed-1", KEY))
WHOLE = Scope.whole("prod.m.acme")
TENANT = models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=KEY))
BINDING = Binding(
    encoder="e",
    vector="d-e",
    dimension=2,
    profile=RetrievalProfile(name="plain"),
    fields=FieldRoles(code=("sku",), filter=("price", "colour")),
)


class FakeClient:
    """A labelled double of the client: notes what it is asked, and answers what it is told to.

    Attributes:
        leak: slices of points that it gives back besides.
    """

    def __init__(self, *leak: str) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.leak = leak

    def _points(self, key: str = KEY) -> list[Any]:
        held = [("mine", key), *((f"of {other}", other) for other in self.leak)]
        return [
            SimpleNamespace(payload={ID_KEY: name, TENANT_KEY: of, "title": name}, score=1.0, id=name)
            for name, of in held
        ]

    async def query_batch_points(self, collection: str, requests: Sequence[Any], **more: Any) -> list[Any]:
        self.asked.append(("query", collection, {"requests": requests, **more}))
        return [SimpleNamespace(points=self._points()) for _ in requests]

    async def scroll(self, collection: str, **arguments: Any) -> tuple[list[Any], None]:
        self.asked.append(("scroll", collection, arguments))
        return self._points(), None

    async def retrieve(self, collection: str, ids: Sequence[str], **arguments: Any) -> list[Any]:
        self.asked.append(("retrieve", collection, {"ids": ids, **arguments}))
        return self._points()

    async def count(self, collection: str, **arguments: Any) -> Any:
        self.asked.append(("count", collection, arguments))
        return SimpleNamespace(count=3)

    async def upsert(self, collection: str, points: Sequence[Any], **arguments: Any) -> None:
        self.asked.append(("upsert", collection, {"points": points, **arguments}))


class Told:
    """Who is told of foreign points."""

    def __init__(self) -> None:
        self.of: list[tuple[Scope, int]] = []

    def __call__(self, scope: Scope, count: int) -> None:
        self.of.append((scope, count))


def client(fake: FakeClient) -> AsyncQdrantClient:
    return cast("AsyncQdrantClient", fake)


def parts(request: models.QueryRequest | models.Prefetch) -> Iterator[models.QueryRequest | models.Prefetch]:
    """A query and all that it fetches beforehand."""
    yield request
    found = request.prefetch
    for one in found if isinstance(found, list) else [found] if found is not None else []:
        yield from parts(one)


def within(condition: Any) -> bool:
    """Whether a filter lets through the slice's points alone: the slice is a condition that must hold."""
    return isinstance(condition, models.Filter) and TENANT in cast("list[Any]", condition.must)


fields = st.sampled_from(["price", "colour", TENANT_KEY, f"a.{TENANT_KEY}", f"{TENANT_KEY}[]"])
matches = st.builds(
    models.FieldCondition,
    key=fields,
    match=st.builds(models.MatchValue, value=st.sampled_from(["x", KEY, "other-slice"])),
)
filters = st.recursive(
    st.builds(models.Filter, must=st.lists(matches, max_size=2) | st.none()),
    lambda inner: st.builds(
        models.Filter,
        must=st.lists(matches | inner, max_size=2) | st.none(),
        should=st.lists(matches | inner, max_size=2) | st.none(),
        must_not=st.lists(matches | inner, max_size=2) | st.none(),
    ),
    max_leaves=6,
)
prefetches = st.recursive(
    st.builds(models.Prefetch, query=st.just([1.0, 0.0]), filter=filters | st.none()),
    lambda inner: st.builds(
        models.Prefetch, filter=filters | st.none(), prefetch=inner | st.lists(inner, min_size=1, max_size=2)
    ),
    max_leaves=5,
)
queries = st.builds(
    models.QueryRequest,
    query=st.just([1.0, 0.0]),
    filter=filters | st.none(),
    prefetch=st.none() | prefetches | st.lists(prefetches, max_size=3),
    with_payload=st.sampled_from([None, True, False, ["title"]]),
)


@settings(deadline=None)
@given(queries)
def test_every_part_of_any_query_is_within_the_slice_and_keeps_its_own_condition(request: models.QueryRequest) -> None:
    scoped = SHARED.query(request)
    before, after = list(parts(request)), list(parts(scoped))
    assert len(before) == len(after)
    for own, ours in zip(before, after, strict=True):
        assert within(ours.filter)
        assert ours.filter == models.Filter(must=[TENANT] if own.filter is None else [TENANT, own.filter])
    assert scoped.with_payload is True or TENANT_KEY in cast("list[str]", scoped.with_payload)
    assert scoped.shard_key is None
    assert KEYED.query(request).shard_key == KEY
    assert WHOLE.query(request) is request


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["price", "colour", "sku"]),
        st.floats(0, 9) | st.text(max_size=3) | st.lists(st.integers(0, 9) | st.booleans(), min_size=1, max_size=3),
        max_size=3,
    ),
    st.sampled_from(["red shirt", "HN-2110", "nut m12"]),
    st.sampled_from([None, [1.0, 0.0]]),
)
async def test_whatever_a_search_filters_by_each_leg_the_fused_query_and_the_late_payloads_are_within_the_slice(
    wanted: dict[str, Any], text: str, dense: list[float] | None
) -> None:
    for scope in (SHARED, KEYED):
        fake, told = FakeClient("other-slice"), Told()
        search = QdrantSearch(ScopedPoints(client(fake), scope, told))
        request = build_request(text, BINDING, dense=dense, filters=wanted)
        answers = await search.legs(request)
        ((_, collection, asked),) = fake.asked
        assert collection == scope.collection
        sent = asked["requests"]
        assert len(sent) == len(request.legs) + 1 == len(batch_of(request))
        assert all(within(part.filter) for one in sent for part in parts(one))
        assert all(one.shard_key == (KEY if scope is KEYED else None) for one in sent)
        assert {hit.product_id for hits in answers.values() for hit in hits} == {"mine"}
        assert told.of == [(scope, 1)] * len(sent)


async def test_points_of_another_slice_are_dropped_wherever_they_come_from_and_told() -> None:
    fake, told = FakeClient("other-slice", "third-slice"), Told()
    points = ScopedPoints(client(fake), SHARED, told)
    (found,) = await points.query([models.QueryRequest(query=[1.0], with_payload=True)])
    late = await points.products(["mine"])
    assert [(point.payload or {})[TENANT_KEY] for point in found] == [KEY]
    assert [(point.payload or {})[TENANT_KEY] for point in late] == [KEY]
    assert told.of == [(SHARED, 2), (SHARED, 2)]


async def test_a_point_that_says_nothing_of_its_slice_is_no_one_s() -> None:
    assert not SHARED.holds(None)
    assert not SHARED.holds({})
    assert not SHARED.holds({TENANT_KEY: [KEY]})
    assert WHOLE.holds(None)


@pytest.mark.parametrize(("scope", "routing"), [(SHARED, {}), (KEYED, {"shard_key_selector": KEY})])
async def test_reads_by_id_and_counts_are_within_the_slice(scope: Scope, routing: dict[str, str]) -> None:
    fake = FakeClient()
    points = ScopedPoints(client(fake), scope, Told())
    await points.products(["a", "b"])
    assert await points.count() == 3
    ids: list[Any] = [point_id("a", KEY), point_id("b", KEY)]
    has_id = models.Filter(must=[models.HasIdCondition(has_id=ids)])
    assert fake.asked == [
        (
            "scroll",
            scope.collection,
            {"scroll_filter": models.Filter(must=[TENANT, has_id]), "limit": 2, "with_payload": True, **routing},
        ),
        ("count", scope.collection, {"count_filter": models.Filter(must=[TENANT]), "exact": True, **routing}),
    ]


@pytest.mark.parametrize(("scope", "routing"), [(SHARED, {}), (KEYED, {"shard_key_selector": KEY})])
async def test_a_write_places_its_points_and_replaces_none_of_another_slice(
    scope: Scope, routing: dict[str, str]
) -> None:
    fake = FakeClient()
    older = models.Filter(must=[models.FieldCondition(key="_version", range=models.Range(lt=7))])
    await scope.upsert(client(fake), [NewPoint("a", {"d": [1.0]}, {"x": 1, TENANT_KEY: "forged"})], older)
    placed = models.PointStruct(id=point_id("a", KEY), vector={"d": [1.0]}, payload={"x": 1, TENANT_KEY: KEY})
    assert fake.asked == [
        (
            "upsert",
            scope.collection,
            {"points": [placed], "wait": True, "update_filter": models.Filter(must=[TENANT, older]), **routing},
        )
    ]


async def test_a_collection_of_its_own_is_asked_as_ever() -> None:
    fake = FakeClient()
    points = ScopedPoints(client(fake), WHOLE, Told())
    await points.products(["a"])
    await points.count()
    older = models.Filter()
    await WHOLE.upsert(client(fake), [NewPoint("a", {}, {"x": 1})], older)
    assert fake.asked == [
        ("retrieve", "prod.m.acme", {"ids": [point_id("a")], "with_payload": True}),
        ("count", "prod.m.acme", {"count_filter": None, "exact": True}),
        (
            "upsert",
            "prod.m.acme",
            {
                "points": [models.PointStruct(id=point_id("a"), vector={}, payload={"x": 1})],
                "wait": True,
                "update_filter": older,
            },
        ),
    ]


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_equal_ids_of_two_slices_are_two_points_and_of_one_slice_one(one: str, other: str) -> None:
    second = Scope.of(SliceAddress("Shared", "prod@shared-1", "slice-0002"))
    assert SHARED.id_of(one) != second.id_of(other)
    assert (SHARED.id_of(one) == SHARED.id_of(other)) == (one == other)


def test_nobody_else_in_gateway_and_retrieval_asks_a_client_for_points() -> None:
    """Metadata and the register of tokens are read elsewhere; points are asked for in `scope` alone."""
    asks = {"query_batch_points", "query_points", "retrieve", "upsert", "delete", "count", "search", "set_payload"}
    folder = Path(__file__).parents[4] / "workers/searchops_workers"
    found = set()
    for path in sorted([*folder.glob("gateway/*.py"), *folder.glob("retrieval/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in asks and _is_client(node.value):
                found.add(path.name)
            if isinstance(node, ast.Attribute) and node.attr == "scroll" and _is_client(node.value):
                found.add(path.name)
    assert found == {"scope.py", "shared.py"}
    register = (folder / "gateway/shared.py").read_text(encoding="utf-8")
    assert register.count("client.scroll(") == 1
    assert "await client.scroll(\n                    register," in register


def _is_client(value: ast.expr) -> bool:
    return (isinstance(value, ast.Name) and value.id == "client") or (
        isinstance(value, ast.Attribute) and value.attr == "_client"
    )
