"""Strict mode of the double, on a clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.http import models

from searchops_sandbox.qdrant.collection import Collection
from searchops_sandbox.qdrant.config import new
from searchops_sandbox.qdrant.errors import ApiError
from searchops_sandbox.qdrant.service import query_cost
from searchops_sandbox.qdrant.strict import Bucket, StrictMode, validate

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    per_minute=st.integers(1, 600),
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 90, allow_nan=False)), max_size=40),
)
def test_a_bucket_never_gives_more_than_its_rate(per_minute: int, steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    bucket = Bucket("Write", per_minute, clock)
    given_out = 0
    for cost, pause in steps:
        clock.now += pause
        try:
            bucket.take(cost)
        except ApiError as error:
            assert error.status == 429
            if cost <= per_minute:
                clock.now += int(error.headers["Retry-After"])
                bucket.take(cost)
                given_out += cost
        else:
            given_out += cost
        assert given_out <= per_minute * (1 + clock.now / 60) + 1e-6


def test_more_than_the_capacity_is_refused_on_every_try() -> None:
    clock = Clock()
    bucket = Bucket("Write", 5, clock)
    for _ in range(3):
        with pytest.raises(ApiError) as refusal:
            bucket.take(6)
        assert "Retry-After" not in refusal.value.headers
        clock.now += 3600


@pytest.mark.parametrize(("passes", "batches"), [(1, 2), (2, 1)])
def test_a_write_is_charged_as_often_as_its_release_does(passes: int, batches: int) -> None:
    strict = StrictMode({"enabled": True, "write_rate_limit": 6}, Clock(), passes)
    for _ in range(batches):
        strict.take_write(3)
    with pytest.raises(ApiError):
        strict.take_write(3)


def test_disabled_strict_mode_enforces_nothing() -> None:
    limits = {"write_rate_limit": 1, "max_query_limit": 1}
    assert refusals(StrictMode({"enabled": False, **limits}, Clock(), 2)) == 0
    assert refusals(StrictMode({"enabled": True, **limits}, Clock(), 2)) == 11


def refusals(strict: StrictMode) -> int:
    """How many of ten large writes and one large query are refused."""
    refused = 0
    for _ in range(10):
        try:
            strict.take_write(100)
        except ApiError:
            refused += 1
    try:
        strict.limit(50, "max_query_limit", "limit")
    except ApiError:
        refused += 1
    return refused


@pytest.mark.parametrize(
    ("config", "status"),
    [({"read_rate_limit": 0}, 422), ({"max_resident_memory_percent": 50}, 501), ({"multivector_config": {}}, 501)],
)
def test_settings_that_are_wrong_or_not_enforced_are_refused(config: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError) as refusal:
        validate(config)
    assert refusal.value.status == status


def field(key: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=1))])


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        (models.QueryRequest(query=[1.0]), 1),
        (models.QueryRequest(query=[1.0], filter=field("a")), 2),
        (models.QueryRequest(prefetch=[models.Prefetch(query=[1.0])] * 3, filter=field("a")), 6),
        (models.QueryRequest(prefetch=models.Prefetch(prefetch=[models.Prefetch(query=[1.0])] * 2)), 2),
    ],
)
def test_a_query_costs_its_legs_and_their_conditions(query: models.QueryRequest, cost: int) -> None:
    assert query_cost(query, 0) == cost


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    body = models.CreateCollection(
        vectors={"d": models.VectorParams(size=2, distance=models.Distance.DOT)},
        strict_mode_config=models.StrictModeConfig(
            enabled=True, unindexed_filtering_retrieve=False, filter_max_conditions=2, condition_max_size=2
        ),
    )
    made = Collection.create("c", tmp_path / "c", new(body, (1, 18)), (1, 18), Clock())
    made.create_index("n", models.PayloadSchemaType.INTEGER)
    return made


@pytest.mark.parametrize(
    ("conditions", "passes"),
    [
        ([models.FieldCondition(key="n", match=models.MatchValue(value=1))], True),
        ([models.FieldCondition(key="n", range=models.Range(gt=1))], True),
        ([models.FieldCondition(key="n", match=models.MatchValue(value="text"))], False),
        ([models.FieldCondition(key="other", range=models.Range(gt=1))], False),
        ([models.Filter(must_not=[models.FieldCondition(key="other", match=models.MatchValue(value=1))])], False),
        ([models.IsEmptyCondition(is_empty=models.PayloadField(key="other"))], False),
        ([models.HasIdCondition(has_id=[1, 2])], True),
        ([models.HasIdCondition(has_id=[1, 2, 3])], False),
        ([models.HasVectorCondition(has_vector="d")] * 3, False),
    ],
)
def test_filters_need_indexes_and_stay_small(collection: Collection, conditions: list[Any], passes: bool) -> None:
    only = models.Filter(must=conditions)
    if passes:
        collection.strict.check_filter(only, collection, update=False)
        return
    with pytest.raises(ApiError) as refusal:
        collection.strict.check_filter(only, collection, update=False)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("formula", "passes"),
    [
        (models.SumExpression(sum=["$score", "n"]), True),
        (models.MultExpression(mult=[2.0, models.NegExpression(neg="other")]), False),
        (models.SumExpression(sum=[models.FieldCondition(key="other", match=models.MatchValue(value=1))]), False),
    ],
)
def test_formulas_need_indexes(collection: Collection, formula: Any, passes: bool) -> None:
    if passes:
        collection.strict.check_formula(formula, collection)
        return
    with pytest.raises(ApiError):
        collection.strict.check_formula(formula, collection)
