"""Exact bounds against brute force: enumeration of outcomes and bisection over the binomial tail."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from searchops_workers.holdout.bootstrap import family_bootstrap
from searchops_workers.holdout.intervals import (
    Bounds,
    binomial_p,
    clopper_pearson,
    fewest_lost_that_regress,
    mcnemar_p,
    most_lost_that_pass,
    wilson,
)
from searchops_workers.holdout.multiplicity import Attempt, Wear, holm, wear_of


def tail(lost: int, of: int, share: float) -> float:
    """P(X ≥ lost), summed term by term."""
    return math.fsum(math.comb(of, x) * share**x * (1 - share) ** (of - x) for x in range(lost, of + 1))


def bisect(lost: int, of: int, level: float) -> float:
    """The share at which P(X ≥ lost) reaches a level."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(lost, of, middle) < level else (low, middle)
    return (low + high) / 2


@settings(deadline=None)
@given(
    st.integers(1, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))),
    st.sampled_from([0.05, 0.025, 0.01]),
)
def test_clopper_pearson_is_the_inverted_binomial_tail(counts: tuple[int, int], alpha: float) -> None:
    lost, of = counts
    bounds = clopper_pearson(lost, of, alpha)
    assert bounds.lower == pytest.approx(0 if lost == 0 else bisect(lost, of, alpha), abs=1e-9)
    assert bounds.upper == pytest.approx(1 if lost == of else bisect(lost + 1, of, 1 - alpha), abs=1e-9)


@pytest.mark.parametrize(("of", "shown"), [(59, 0.05), (99, 0.03), (149, 0.02), (299, 0.01)])
def test_zero_losses_prove_the_margin_from_the_published_sizes_on(of: int, shown: float) -> None:
    assert clopper_pearson(0, of).upper <= shown < clopper_pearson(0, of - 1).upper


@pytest.mark.parametrize(("lost", "of"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(lost: int, of: int) -> None:
    with pytest.raises(ValueError, match="wanted 0 ≤ lost ≤ of"):
        clopper_pearson(lost, of)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.01, 0.9))
def test_binomial_p_is_the_tail_and_scipys(of: int, lost: int, margin: float) -> None:
    lost = min(lost, of)
    assert binomial_p(lost, of, margin) == pytest.approx(tail(lost, of, margin))
    assert binomial_p(lost, of, margin) == pytest.approx(binomtest(lost, of, margin, alternative="greater").pvalue)


@pytest.mark.parametrize("pairs", range(9))
def test_mcnemar_counts_the_sign_patterns(pairs: int) -> None:
    patterns = list(itertools.product((0, 1), repeat=pairs))
    for worse in range(pairs + 1):
        share = sum(sum(pattern) >= worse for pattern in patterns) / len(patterns)
        assert mcnemar_p(worse, pairs - worse) == pytest.approx(share)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_as_the_step_down_procedure_does(p_values: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    assert {index for index, value in enumerate(adjusted) if value <= alpha} == rejected
    assert all(value >= raw for value, raw in zip(adjusted, p_values, strict=True))


@pytest.mark.parametrize(
    ("of", "margin", "passes", "regresses"),
    [
        (100, 0.02, -1, 6),
        (114, 0.05, 1, 11),
        (200, 0.05, 4, 16),
        (500, 0.03, 8, 23),
        (1000, 0.02, 12, 29),
        (5000, 0.05, 224, 277),
    ],
)
def test_thresholds_are_the_published_ones(of: int, margin: float, passes: int, regresses: int) -> None:
    assert most_lost_that_pass(of, margin) == passes
    assert fewest_lost_that_regress(of, margin) == regresses


@settings(deadline=None)
@given(st.integers(1, 120), st.sampled_from([0.02, 0.05, 0.1]))
def test_thresholds_are_where_the_bounds_cross(of: int, margin: float) -> None:
    passing = [lost for lost in range(of + 1) if clopper_pearson(lost, of).upper <= margin]
    rejecting = [lost for lost in range(of + 1) if clopper_pearson(lost, of).lower > margin]
    assert most_lost_that_pass(of, margin) == max(passing, default=-1)
    assert fewest_lost_that_regress(of, margin) == min(rejecting, default=of + 1)


def test_wilson_is_scipys() -> None:
    for hits, of in ((0, 7), (3, 9), (114, 162), (12, 12)):
        oracle = binomtest(hits, of).proportion_ci(method="wilson")
        seen = wilson(hits, of)
        assert [seen.lower, seen.upper] == pytest.approx([oracle.low, oracle.high])
    assert wilson(0, 0) == Bounds(0.0, 1.0)


def test_bootstrap_agrees_with_scipys_percentiles() -> None:
    values = np.random.default_rng(3).normal(0.01, 0.15, 300)
    (own,) = family_bootstrap(values[:, None], np.ones(300, np.int64), seed=1)
    oracle = bootstrap((values,), np.mean, confidence_level=0.9, method="percentile", rng=np.random.default_rng(2))
    assert own.lower == pytest.approx(oracle.confidence_interval.low, abs=0.001)
    assert own.upper == pytest.approx(oracle.confidence_interval.high, abs=0.001)


def test_bootstrap_of_equal_lists_is_zero_and_seeded() -> None:
    zeros = np.zeros((40, 1))
    assert family_bootstrap(zeros, np.ones(40, np.int64), seed=1) == (Bounds(0.0, 0.0),)
    values = np.random.default_rng(0).normal(size=(50, 2))
    counts = np.full(50, 2, np.int64)
    assert family_bootstrap(values, counts, seed=5) == family_bootstrap(values, counts, seed=5)
    assert family_bootstrap(values, counts, seed=5) != family_bootstrap(values, counts, seed=6)
    with pytest.raises(ValueError, match="no family"):
        family_bootstrap(np.zeros((0, 1)), np.zeros(0, np.int64), seed=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.sampled_from([(1,), (3,), (1, 2, 5)]), st.booleans(), st.integers(0, 1000))
def test_bootstrap_is_the_quantile_of_means_written_out(
    families: int, sizes: tuple[int, ...], twins: bool, seed: int
) -> None:
    """Draw by draw and to the last bit, whether families are alike or not and whether columns are equal or not."""
    values = np.random.default_rng(seed).normal(size=(families, 3))
    values[:, 1] = values[:, 0] if twins else values[:, 1]
    counts = np.array([sizes[number % len(sizes)] for number in range(families)], dtype=np.int64)
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, families, size=(200, families), dtype=np.int32)
    means = np.stack([values[rows].T.copy().sum(axis=1) / counts[rows].sum() for rows in drawn])
    low, high = np.quantile(means, [0.05, 0.95], axis=0)
    seen = family_bootstrap(values, counts, seed=seed, resamples=200)
    assert seen == tuple(Bounds(float(one), float(other)) for one, other in zip(low, high, strict=True))


def test_bootstrap_draws_whole_families() -> None:
    """Ten copies of each query in one family carry no more information than one."""
    single = np.random.default_rng(1).normal(0, 0.2, (100, 1))
    alone = family_bootstrap(single, np.ones(100, np.int64), seed=9)
    copied = family_bootstrap(single * 10, np.full(100, 10, np.int64), seed=9)
    assert copied[0].lower == pytest.approx(alone[0].lower)
    assert copied[0].upper == pytest.approx(alone[0].upper)


def test_every_further_attempt_halves_alpha_and_ten_are_enough() -> None:
    assert [Wear(recent=recent).alpha for recent in range(3)] == [0.05, 0.025, 0.0125]
    assert not Wear(recent=9, total=9).worn
    assert Wear(total=10).worn


def test_wear_counts_other_candidates_on_the_most_used_family() -> None:
    old, new = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    attempts = [
        Attempt("a", frozenset({"f1", "f2"}), old),
        Attempt("b", frozenset({"f1"}), new),
        Attempt("b", frozenset({"f1"}), new),
        Attempt("c", frozenset({"f3"}), new),
        Attempt("mine", frozenset({"f1"}), new),
    ]
    since = datetime(2026, 10, 25, tzinfo=UTC)
    assert wear_of(attempts, frozenset({"f1", "f2"}), "mine", since) == Wear(recent=1, total=2)
    assert wear_of(attempts, frozenset({"f9"}), "mine", since) == Wear()
