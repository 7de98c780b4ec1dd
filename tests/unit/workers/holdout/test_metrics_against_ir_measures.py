"""The metrics agree with ir-measures on generated lists, and the rest with definitions written out again."""

from __future__ import annotations

import itertools

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops_workers.holdout.metrics import (
    is_good,
    judged_share,
    ndcg,
    rank_biased_overlap,
    success_at_1,
)
from searchops_workers.holdout.records import GoodRule

GAINS = (0, 1, 5, 10)
PRODUCTS = [f"p{number}" for number in range(16)]
LISTS = st.lists(st.sampled_from(PRODUCTS), max_size=16, unique=True)
LABELS = st.dictionaries(st.sampled_from(PRODUCTS), st.integers(0, 3), min_size=1)


@settings(deadline=None, max_examples=150)
@given(LABELS, LISTS.filter(bool))
def test_ndcg_judged_and_success_agree_with_ir_measures(labels: dict[str, int], ranked: list[str]) -> None:
    qrels = [ir_measures.Qrel("q", product, GAINS[grade]) for product, grade in labels.items()]
    run = [ir_measures.ScoredDoc("q", product, float(-rank)) for rank, product in enumerate(ranked)]
    measures = [ir_measures.nDCG @ 10, ir_measures.Judged @ 10, ir_measures.Success(rel=5) @ 1]
    oracle = {str(one.measure): one.value for one in ir_measures.iter_calc(measures, qrels, run)}
    grades = [labels.get(product) for product in ranked]
    own = ndcg([GAINS[grade or 0] for grade in grades], [GAINS[grade] for grade in labels.values()], 10)
    assert own == pytest.approx(oracle["nDCG@10"], abs=1e-12)
    assert float(success_at_1(grades, GoodRule())) == oracle["Success(rel=5)@1"]
    if len(ranked) >= 10:
        assert judged_share(grades, 10) == pytest.approx(oracle["Judged@10"])


@pytest.mark.parametrize(
    ("grades", "right", "good"),
    [
        ([2, 2, 3], 4, True),
        ([2, 2, 1, 0, 0, 3], 4, False),
        ([0, 0, 0, 0, 3], 1, True),
        ([None, None, None, None, None, 3], 1, False),
        ([2, 3], 2, True),
        ([2, None], 2, False),
        ([1, 1, 1, 1, 1], 0, False),
        ([], 1, False),
    ],
)
def test_good_asks_for_what_there_is_up_to_three_of_five(grades: list[int | None], right: int, good: bool) -> None:
    assert is_good(grades, right, GoodRule()) is good


def direct_overlap(one: list[str], other: list[str], p: float) -> float:
    """RBO_ext written as the infinite sum, with the agreement at the cut carried on."""
    depths = len(one)
    agreements = [len(set(one[:depth]) & set(other[:depth])) / depth for depth in range(1, depths + 1)]
    agreements += [agreements[-1]] * 2000
    return (1 - p) * sum(agreement * p**place for place, agreement in enumerate(agreements))


@settings(deadline=None)
@given(st.permutations(PRODUCTS), st.permutations(PRODUCTS), st.integers(1, 16))
def test_overlap_is_the_extrapolated_sum(one: list[str], other: list[str], depth: int) -> None:
    seen = rank_biased_overlap(one[:depth], other[:depth])
    assert seen == pytest.approx(direct_overlap(one[:depth], other[:depth], 0.9), abs=1e-9)
    assert seen == pytest.approx(rank_biased_overlap(other[:depth], one[:depth]))


def test_overlap_at_its_ends() -> None:
    assert rank_biased_overlap("abc", "abc") == pytest.approx(1)
    assert rank_biased_overlap("abc", "xyz") == 0
    assert rank_biased_overlap("", "") == 1
    assert rank_biased_overlap("", "a") == 0
    values = [rank_biased_overlap("abcd", swapped) for swapped in ("abcd", "abdc", "acbd", "bacd")]
    assert all(one > other for one, other in itertools.pairwise(values))
