"""Whatever a rebuild asks of a cell carries the tenant's slice; what comes back of another one ends it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from searchops.api.retrieval import BUILTIN_PROFILES, ID_KEY, AnalyserSettings, Binding, point_id
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops.api.tasks import CellAddress, ReindexTask
from searchops_workers.reindex.points import ForeignPoints, Passage, Points, live, product_of
from searchops_workers.reindex.sides import BlueGreenSide, NamedVectorSide, Work
from searchops_workers.retrieval.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdrant_client import AsyncQdrantClient

SOURCE = SliceAddress("Shared", "prod@shared-1", "slice-0001")
TARGET = SliceAddress("ShardKey", "prod@keyed-1", "slice-0002")
OTHER = "slice-0003"


class FakeClient:
    """A labelled double of the client: notes every request; answers points of the slice that it is asked for.

    Attributes:
        asked: what was asked, of which collection, and how.
        leak: a slice of which it gives back a point too, as a cell that ignores the filter would.
    """

    def __init__(self, leak: str = "") -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.leak = leak

    async def scroll(self, collection: str, wanted: models.Filter, **more: Any) -> tuple[list[Any], None]:
        self.asked.append(("scroll", collection, {"filter": wanted, **more}))
        keys = [key for key in (slice_of(wanted), self.leak) if key]
        return [record(f"p-{key}", **{ID_KEY: "1", TENANT_KEY: key, "title": "nut"}) for key in keys], None

    async def retrieve(self, collection: str, ids: Sequence[Any], **more: Any) -> list[Any]:
        self.asked.append(("retrieve", collection, {"ids": ids, **more}))
        return []

    async def count(self, collection: str, wanted: models.Filter, **more: Any) -> Any:
        self.asked.append(("count", collection, {"filter": wanted, **more}))
        return SimpleNamespace(count=1)

    async def upsert(self, collection: str, points: Sequence[models.PointStruct], **more: Any) -> None:
        self.asked.append(("upsert", collection, {"points": points, **more}))

    async def update_vectors(self, collection: str, points: Sequence[models.PointVectors], **more: Any) -> None:
        self.asked.append(("update_vectors", collection, {"points": points, **more}))

    @property
    def client(self) -> AsyncQdrantClient:
        return cast("AsyncQdrantClient", self)


def record(ident: Any, **payload: Any) -> models.Record:
    return models.Record(id=ident, payload=payload, vector={"d-r2": [1.0]})


def slice_of(wanted: Any) -> str:
    """The slice that a filter is bound to: a condition that must hold, at its top."""
    for condition in wanted.must or []:
        if isinstance(condition, models.FieldCondition) and condition.key == TENANT_KEY:
            return str(cast("models.MatchValue", condition.match).value)
    return ""


def task(strategy: str, **changes: Any) -> ReindexTask:
    values = {
        "tenant": "prod.m.acme",
        "strategy": strategy,
        "cell": CellAddress(url="http://127.0.0.1:1"),
        "source_collection": SOURCE.collection,
        "source_slice": SOURCE,
        "target_collection": TARGET.collection,
        "target_slice": TARGET,
        "target": Binding(
            vector="d-r2", encoder="r2", profile=BUILTIN_PROFILES["default"], analyser=AnalyserSettings()
        ),
        "slices": 1,
        "state": "file:///nowhere",
        "result_uri": "file:///nowhere",
        **changes,
    }
    return ReindexTask.model_validate(values)


def judged(fake: FakeClient, expected: dict[str, SliceAddress]) -> None:
    """Every request names its collection's slice, in filter, guard, payload and shard key."""
    assert fake.asked
    for kind, collection, how in fake.asked:
        address = expected[collection]
        assert how.get("shard_key_selector") == address.shard_key, kind
        if kind in ("scroll", "count"):
            assert slice_of(how["filter"]) == address.key, kind
        elif kind == "update_vectors":
            assert slice_of(how["update_filter"]) == address.key
        else:
            assert kind == "upsert", f"{kind} cannot be bound to a slice"
            assert how["update_mode"] is models.UpdateMode.INSERT_ONLY
            assert all(point.payload[TENANT_KEY] == address.key for point in how["points"])


async def everything(side: BlueGreenSide | NamedVectorSide) -> list[Work]:
    """Every request that a side can make."""
    found = [work async for page in side.pending() for work in page]
    await side.write([(work, [1.0]) for work in found])
    await side.settled(0)
    await side.left_out(set())
    await side.sample(5)
    await side.documents()
    return found


@pytest.mark.parametrize("catalogue", [None, [{"id": "1", "title": "nut"}, {"id": "2", "title": "bolt"}]])
@pytest.mark.parametrize(("source", "target"), [(SOURCE, TARGET), (TARGET, SOURCE)])
async def test_every_request_of_a_new_generation_is_within_its_slice(
    catalogue: list[dict[str, Any]] | None, source: SliceAddress, target: SliceAddress
) -> None:
    fake = FakeClient()
    wanted = task(
        "BlueGreen",
        source_collection=source.collection,
        source_slice=source,
        target_collection=target.collection,
        target_slice=target,
    )
    found = await everything(BlueGreenSide(fake.client, wanted, 0, catalogue))
    assert [work.id for work in found] == [point_id(name, target.key) for name in (("1", "2") if catalogue else "1")]
    counted = set() if catalogue else {"count"}
    assert {kind for kind, _, _ in fake.asked} == {"scroll", "upsert"} | counted
    judged(fake, {source.collection: source, target.collection: target})


async def test_two_slices_of_one_collection_are_told_apart() -> None:
    second = SliceAddress("Shared", SOURCE.collection, "slice-0009")
    fake = FakeClient()
    wanted = task("BlueGreen", target_collection=second.collection, target_slice=second)
    await everything(BlueGreenSide(fake.client, wanted, 0, None))
    asked = [(kind, slice_of(how["filter"])) for kind, _, how in fake.asked if "filter" in how]
    assert asked == [
        ("scroll", SOURCE.key),
        ("scroll", second.key),
        ("count", second.key),
        ("count", SOURCE.key),
        ("scroll", second.key),
        ("count", SOURCE.key),
    ]


@pytest.mark.parametrize("address", [SOURCE, TARGET])
async def test_every_request_of_a_second_vector_is_within_its_slice(address: SliceAddress) -> None:
    fake = FakeClient()
    wanted = task("NamedVector", target_collection=address.collection, target_slice=address, source_slice=None)
    found = await everything(NamedVectorSide(fake.client, wanted, 0))
    assert [work.id for work in found] == [f"p-{address.key}"]
    assert {kind for kind, _, _ in fake.asked} == {"scroll", "count", "update_vectors"}
    judged(fake, {address.collection: address})


@pytest.mark.parametrize("strategy", ["NamedVector", "BlueGreen"])
async def test_a_cell_that_gives_anothers_points_ends_it_before_anything_is_written(strategy: str) -> None:
    fake = FakeClient(leak=OTHER)
    side = (
        NamedVectorSide(fake.client, task(strategy), 0)
        if strategy == "NamedVector"
        else BlueGreenSide(fake.client, task(strategy), 0, None)
    )
    with pytest.raises(ForeignPoints, match="1 of 2 points that were read are of another slice"):
        await everything(side)
    assert [kind for kind, _, _ in fake.asked] == ["scroll"]


@pytest.mark.parametrize("payload", [True, False])
async def test_what_is_read_always_says_its_slice(payload: bool) -> None:
    fake = FakeClient(leak=OTHER)
    points = Points(fake.client, Scope.of(SOURCE))
    with pytest.raises(ForeignPoints):
        _ = [page async for page in points.pages(live(), payload=payload)]
    with pytest.raises(ForeignPoints):
        await points.present(["a"])
    selected = [how["with_payload"] for _, _, how in fake.asked]
    assert all(with_payload is True or TENANT_KEY in with_payload for with_payload in selected)


async def test_a_collection_of_its_own_is_asked_for_all_of_it() -> None:
    fake = FakeClient()
    wanted = task("BlueGreen", source_slice=None, target_slice=None, target_collection="prod.m.acme@b")
    await everything(BlueGreenSide(fake.client, wanted, 0, [{"id": "1", "title": "nut"}]))
    for kind, _, how in fake.asked:
        assert "shard_key_selector" not in how
        assert kind == "retrieve" or slice_of(how.get("filter", models.Filter())) == ""
    (points,) = [how["points"] for kind, _, how in fake.asked if kind == "upsert"]
    assert [(point.id, point.payload) for point in points] == [
        (point_id("1"), {"id": "1", "title": "nut", ID_KEY: "1"})
    ]


payloads = st.dictionaries(st.sampled_from(["title", "price", "_version", "tag"]), st.integers(0, 9), max_size=4)
names = st.text(min_size=1, max_size=12)


@given(names, payloads)
def test_there_and_back_again_a_product_is_what_it_was(name: str, payload: dict[str, Any]) -> None:
    whole, one, two = Scope.whole("prod.m.acme@a"), Scope.of(SOURCE), Scope.of(TARGET)
    start = record(whole.id_of(name), **payload, **{ID_KEY: name})
    point = start
    for source, target in ((whole, one), (one, two), (two, one), (one, whole)):
        passage = Passage(source, target)
        point = record(passage.id_of(point), **passage.payload_of(point))
        assert point.id == target.id_of(name)
        assert target.holds(point.payload)
        assert (TENANT_KEY in (point.payload or {})) == (target.address is not None)
    assert (point.id, point.payload) == (start.id, start.payload)


@given(st.one_of(st.integers(0, 2**63), st.uuids().map(str)), names, payloads)
def test_between_two_collections_of_its_own_a_point_keeps_id_and_payload(
    ident: int | str, name: str, payload: dict[str, Any]
) -> None:
    point = record(ident, **payload, **{TENANT_KEY: "a merchant's own", ID_KEY: name})
    passage = Passage(Scope.whole("a"), Scope.whole("b"))
    assert (passage.id_of(point), passage.payload_of(point)) == (ident, point.payload)


@given(st.one_of(st.integers(0, 2**63), st.uuids().map(str)), payloads)
def test_an_adopted_point_becomes_that_of_its_product(ident: int | str, payload: dict[str, Any]) -> None:
    """From then on the gateway writes and deletes it by the product's id: under another one it would be there twice."""
    point = record(ident, **payload, **{TENANT_KEY: "a merchant's own"})
    passage = Passage(Scope.whole("a"), Scope.whole("b"))
    assert passage.id_of(point) == point_id(str(ident))
    assert passage.payload_of(point) == {**(point.payload or {}), ID_KEY: str(ident)}
    again = record(passage.id_of(point), **passage.payload_of(point))
    assert (passage.id_of(again), passage.payload_of(again)) == (again.id, again.payload)
    adopted = Passage(Scope.whole("a"), Scope.of(TARGET))
    assert adopted.id_of(point) == point_id(str(ident), TARGET.key)
    assert adopted.payload_of(point) == {**payload, ID_KEY: str(ident), TENANT_KEY: TARGET.key}


@pytest.mark.parametrize(
    ("payload", "product"),
    [
        ({ID_KEY: "ours", "id": "theirs"}, "ours"),
        ({"id": "theirs"}, "theirs"),
        ({"id": 7}, "7"),
        ({"id": True}, "42"),
        ({"id": None}, "42"),
        ({"id": ["a"]}, "42"),
        ({"id": " "}, "42"),
        ({"id": "x" * 257}, "42"),
        ({}, "42"),
    ],
)
def test_a_points_product_is_what_it_says_of_itself_else_its_own_id(payload: dict[str, Any], product: str) -> None:
    assert product_of(record(42, **payload)) == product
