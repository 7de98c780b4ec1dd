"""Bounds that hold at every moment: how often they are wrong, and how many tenants they need to see a harm."""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.planning.confidence_sequence import mean_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 0.05
STEP = 2 * 2**-14
DIFFERENCES = st.lists(st.floats(-1, 1, allow_nan=False), max_size=60)


def noisy(mean: float, spread: float) -> Callable[[random.Random], float]:
    return lambda rng: mean + spread * rng.choice((-1, 1)) * rng.random()


def rare(mean: float) -> Callable[[random.Random], float]:
    """Mostly nothing, now and then everything: what bounds that trust a small sample's variance are fooled by."""
    return lambda rng: 1.0 if rng.random() < mean else 0.0


def coin(mean: float) -> Callable[[random.Random], float]:
    return lambda rng: 1.0 if rng.random() < (1 + mean) / 2 else -1.0


def searched(mean: float, searches: int = 40) -> Callable[[random.Random], float]:
    """Two counted shares of few searches each."""

    def draw(rng: random.Random) -> float:
        base = rng.choice((0.02, 0.1, 0.3))
        before = sum(rng.random() < base for _ in range(searches))
        now = sum(rng.random() < base + mean for _ in range(searches))
        return (now - before) / searches

    return draw


@pytest.mark.parametrize(
    ("name", "draw", "mean"),
    [
        ("noisy", noisy(0.02, 0.1), 0.02),
        ("rare", rare(0.05), 0.05),
        ("coin", coin(0.02), 0.02),
        ("coin that leans", coin(-0.6), -0.6),
        ("searched", searched(0.02), 0.02),
    ],
)
def test_looking_at_every_step_is_wrong_no_more_often_than_stated(
    name: str, draw: Callable[[random.Random], float], mean: float
) -> None:
    """The bounds never widen, so that the last ones tell of every moment: 600 runs of 150 steps each."""
    rng = random.Random(f"coverage {name}")
    runs = [[draw(rng) for _ in range(150)] for _ in range(600)]
    bounds = [mean_bounds(run, ALPHA) for run in runs]
    # Five in a hundred are allowed; three standard deviations of 600 runs are 2.7 in a hundred.
    allowed = 600 * ALPHA + 3 * math.sqrt(600 * ALPHA * (1 - ALPHA))
    assert sum(found.lower > mean for found in bounds) <= allowed
    assert sum(found.upper < mean for found in bounds) <= allowed


def test_the_same_looks_fool_an_interval_that_is_made_for_one() -> None:
    """The simulation can tell: 95 % of the normal approximation is wrong in a third of such runs."""
    rng = random.Random("coverage coin")
    fooled = 0
    for _ in range(600):
        run = [coin(0.02)(rng) for _ in range(150)]
        sums = list(accumulate(run))
        fooled += any(
            sums[n - 1] / n - 1.645 * math.sqrt((1 - (sums[n - 1] / n) ** 2) / n) > 0.02 for n in range(10, 151)
        )
    assert fooled > 600 * 0.15


@pytest.mark.parametrize(
    ("harm", "margin", "tenants", "seen"),
    [(0.05, 0.01, 100, 0.7), (0.05, 0.02, 150, 0.9), (0.10, 0.02, 50, 0.75), (0.20, 0.02, 30, 0.9)],
)
def test_a_harm_is_seen(harm: float, margin: float, tenants: int, seen: float) -> None:
    rng = random.Random(f"power {harm} {margin}")
    runs = [[rng.gauss(harm, 0.05) for _ in range(tenants)] for _ in range(200)]
    assert sum(mean_bounds(run, ALPHA).lower > margin for run in runs) >= 200 * seen


@pytest.mark.parametrize(("margin", "tenants", "seen"), [(0.02, 250, 0.9), (0.05, 90, 0.9)])
def test_no_harm_is_proved(margin: float, tenants: int, seen: float) -> None:
    rng = random.Random(f"health {margin}")
    runs = [[rng.gauss(0, 0.05) for _ in range(tenants)] for _ in range(200)]
    assert sum(mean_bounds(run, ALPHA).upper <= margin for run in runs) >= 200 * seen


@given(DIFFERENCES, DIFFERENCES)
def test_more_never_widens(earlier: list[float], later: list[float]) -> None:
    before, now = mean_bounds(earlier, ALPHA), mean_bounds([*earlier, *later], ALPHA)
    assert now.lower >= before.lower - STEP
    assert now.upper <= before.upper + STEP
    assert now.lower >= -1
    assert now.upper <= 1


@given(DIFFERENCES)
def test_both_sides_are_mirrored(differences: list[float]) -> None:
    found, mirrored = mean_bounds(differences, ALPHA), mean_bounds([-value for value in differences], ALPHA)
    assert found.lower == pytest.approx(-mirrored.upper, abs=STEP)
    assert found.upper == pytest.approx(-mirrored.lower, abs=STEP)


@given(st.floats(-1, 1), st.integers(1, 80), st.floats(0.001, 0.5))
@settings(max_examples=50)
def test_what_never_varies_lies_inside(value: float, times: int, alpha: float) -> None:
    found = mean_bounds([value] * times, alpha)
    assert found.lower <= value <= found.upper


def test_nothing_says_nothing() -> None:
    found = mean_bounds([], ALPHA)
    assert (found.lower, found.upper) == (-1.0, 1.0)


def test_ten_thousand_tenants_are_weighed_within_a_pass() -> None:
    """One logarithm a tenant, side and halving: no more is kept than the sum."""
    rng = random.Random("many")
    found = mean_bounds([rng.gauss(0.003, 0.05) for _ in range(10_000)], ALPHA)
    assert found.lower < 0.003 < found.upper
    assert found.upper - found.lower < 0.01


@pytest.mark.parametrize(
    ("differences", "alpha", "said"),
    [([1.5], ALPHA, "1.5"), ([math.nan], ALPHA, "nan"), ([0.0], 0.0, "alpha is 0"), ([0.0], 1.0, "alpha is 1")],
)
def test_what_is_no_difference_is_refused(differences: list[float], alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mean_bounds(differences, alpha)
