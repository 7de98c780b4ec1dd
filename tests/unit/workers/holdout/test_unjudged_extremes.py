"""Worst and best case of what nobody judged, against the enumeration of every completion."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops_workers.holdout.completion import good_lost, ndcg_difference, unjudged
from searchops_workers.holdout.format import Labels
from searchops_workers.holdout.metrics import discounts, is_good, ndcg
from searchops_workers.holdout.records import GoodRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GAINS = (0.0, 1.0, 5.0, 10.0)
PRODUCTS = [f"p{number}" for number in range(9)]
K = 6
RULE = GoodRule(top=4, wanted=3, grade=2)
LISTS = st.lists(st.sampled_from(PRODUCTS), max_size=8, unique=True)
GRADES = st.dictionaries(st.sampled_from(PRODUCTS), st.integers(0, 3), max_size=6)


def completions(grades: dict[str, int], *lists: list[str]) -> Iterator[dict[str, int]]:
    open_ones = unjudged(Labels(grades), K, *lists)
    for choice in itertools.product((0, 3), repeat=len(open_ones)):
        yield {**grades, **dict(zip(open_ones, choice, strict=True))}


def score(grades: Mapping[str, int], ranked: list[str]) -> float:
    return ndcg([GAINS[grades.get(product, 0)] for product in ranked], [GAINS[grade] for grade in grades.values()], K)


def good(grades: Mapping[str, int], ranked: list[str]) -> bool:
    right = sum(grade >= RULE.grade for grade in grades.values())
    return is_good([grades.get(product) for product in ranked], right, RULE)


@settings(deadline=None, max_examples=200)
@given(GRADES, LISTS, LISTS)
def test_the_extremes_are_those_of_all_completions(grades: dict[str, int], one: list[str], other: list[str]) -> None:
    seen = ndcg_difference(Labels(grades), GAINS, K, one, other)
    differences = [score(full, other) - score(full, one) for full in completions(grades, one, other)]
    assert seen.worst == pytest.approx(min(differences), abs=1e-9)
    assert seen.best == pytest.approx(max(differences), abs=1e-9)
    assert seen.observed == pytest.approx(score(grades, other) - score(grades, one), abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(GRADES, LISTS, LISTS)
def test_the_sign_rule_is_within_the_extremes(grades: dict[str, int], one: list[str], other: list[str]) -> None:
    seen = ndcg_difference(Labels(grades), GAINS, K, one, other)
    place = [dict(zip(ranked, discounts(K), strict=False)) for ranked in (one, other)]
    open_ones = unjudged(Labels(grades), K, one, other)
    sign = {product: place[1].get(product, 0) - place[0].get(product, 0) for product in open_ones}
    worst = {**grades, **{product: 0 if sign[product] > 0 else 3 for product in open_ones}}
    assert seen.worst <= score(worst, other) - score(worst, one) + 1e-9


@settings(deadline=None, max_examples=300)
@given(GRADES, LISTS, LISTS)
def test_losing_good_is_possible_or_certain_as_the_completions_say(
    grades: dict[str, int], one: list[str], other: list[str]
) -> None:
    right = sum(grade >= RULE.grade for grade in grades.values())
    if right == 0:
        return
    seen = good_lost(Labels(grades), RULE, K, one, other, right)
    losses = [good(full, one) and not good(full, other) for full in completions(grades, one, other)]
    assert seen.worst == any(losses)
    assert seen.best == all(losses)
    assert seen.observed == (good(grades, one) and not good(grades, other))


def test_equal_lists_differ_by_nothing_whatever_is_unjudged() -> None:
    seen = ndcg_difference(Labels({"p0": 3}), GAINS, K, PRODUCTS, PRODUCTS)
    assert (seen.observed, seen.worst, seen.best) == (0.0, 0.0, 0.0)
