"""Filters through the double's translation and the engine, against qdrant-client's own in-memory evaluation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from searchops_sandbox.qdrant.collection import Collection
from searchops_sandbox.qdrant.config import new
from searchops_sandbox.qdrant.errors import ApiError
from searchops_sandbox.qdrant.translate import FilterTranslator, point_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYLOADS: list[dict[str, Any]] = [
    {"s": "red", "n": 1, "f": 1.5, "b": True, "l": ["x", "y"], "d": "2024-01-01T00:00:00Z"},
    {"s": "blue", "n": 2, "f": -1.0, "b": False, "l": ["y"], "d": "2025-06-01T12:00:00Z"},
    {"s": "red", "n": 3, "l": [], "o": {"k": "a", "v": 1}},
    {"s": None, "n": 1, "b": True, "o": {"k": "b", "v": 2}},
    {"n": [1, 2], "f": 2.5, "l": ["x", "z", "z"]},
    {},
]

keys = st.sampled_from(["s", "n", "f", "b", "l", "o.k", "o.v", "missing"])
values: st.SearchStrategy[Any] = st.sampled_from(["red", "x", "a", 1, 2, True, False])
numbers = st.sampled_from([-1.0, 1.0, 1.5, 2.0, 3.0])


def field(**parts: Any) -> models.FieldCondition:
    return models.FieldCondition(**parts)


conditions: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda k, v: field(key=k, match=models.MatchValue(value=v)), keys, values),
    st.builds(lambda k, v: field(key=k, match=models.MatchAny(any=v)), keys, st.sampled_from([["red", "x"], [1, 3]])),
    st.builds(lambda k, a, b: field(key=k, range=models.Range(gt=a, lte=b)), keys, numbers, numbers),
    st.builds(lambda k, a: field(key=k, range=models.Range(lt=a)), keys, numbers),
    st.builds(lambda k: models.IsEmptyCondition(is_empty=models.PayloadField(key=k)), keys),
    st.builds(lambda i: models.HasIdCondition(has_id=i), st.lists(st.integers(1, 7), max_size=4)),
    st.builds(lambda v: models.HasVectorCondition(has_vector=v), st.sampled_from(["d", "lex"])),
)
leaves = st.lists(conditions, max_size=3)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[models.Filter]:
    parts = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda p: models.Filter(must=p), parts),
        st.builds(lambda p: models.Filter(should=p), parts),
        st.builds(lambda p: models.Filter(must_not=p), parts),
        st.builds(lambda p, q: models.Filter(must=p, must_not=q), parts, parts),
    )


filters = st.recursive(conditions, combined, max_leaves=6).map(
    lambda c: c if isinstance(c, models.Filter) else models.Filter(must=[c])
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collection, QdrantClient]]:
    vectors = {"d": models.VectorParams(size=2, distance=models.Distance.DOT)}
    sparse = {"lex": models.SparseVectorParams()}
    points = []
    for index, payload in enumerate(PAYLOADS, start=1):
        vector: dict[str, Any] = {"d": [1.0, 0.0]} if index % 2 else {}
        if index % 3 == 0:
            vector["lex"] = models.SparseVector(indices=[1], values=[1.0])
        points.append(models.PointStruct(id=index, vector=vector, payload=payload))
    body = models.CreateCollection(vectors=vectors, sparse_vectors=sparse)
    folder: Path = tmp_path_factory.mktemp("filters") / "c"
    collection = Collection.create("c", folder, new(body, (1, 18)), (1, 18), lambda: 0.0)
    collection.points.upsert(points, None, None)
    oracle = QdrantClient(":memory:")
    oracle.create_collection("c", vectors_config=vectors, sparse_vectors_config=sparse)
    oracle.upsert("c", points)
    yield collection, oracle
    oracle.close()
    collection.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(only=filters)
def test_the_engine_selects_what_the_client_library_selects(
    both: tuple[Collection, QdrantClient], only: models.Filter
) -> None:
    collection, oracle = both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {record.id for record in oracle.scroll("c", scroll_filter=only, limit=100)[0]}
    page = collection.points.scroll(models.ScrollRequest(filter=only, limit=100))
    assert {point["id"] for point in page["points"]} == expected
    assert collection.points.count(models.CountRequest(filter=only)) == len(expected)


def test_slices_are_of_1_19() -> None:
    only = models.Filter(must=[models.SliceCondition(slice=models.Slice(total=2, index=0))])
    with pytest.raises(ApiError) as refusal:
        FilterTranslator((1, 18)).filter(only)
    assert refusal.value.status == 400
    assert FilterTranslator((1, 19)).filter(only) is not None


@pytest.mark.parametrize("wrong", ["abc", "", -1, 2**64])
def test_ids_are_unsigned_integers_or_uuids(wrong: Any) -> None:
    with pytest.raises(ApiError) as refusal:
        point_id(wrong)
    assert refusal.value.status == 400


def test_uuid_ids_in_any_spelling_are_one_id() -> None:
    plain = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"
    assert point_id(plain) == point_id(plain.replace("-", "")) == point_id(plain.upper())
