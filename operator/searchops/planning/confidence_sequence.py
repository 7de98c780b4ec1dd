"""Bounds on a mean that hold at every moment at once, so that looking each minute costs no error rate.

The capital process of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSSB 86(1),
2024; Theorem 3, with the predictable plug-in stakes of section 4), one side at a time. Observations y in [0, 1] are bet
on against the mean m: what a gambler with one coin owns after t rounds is

    K_t(m) = prod_i (1 + lambda_i (y_i - m)),    0 <= lambda_i <= 1 / m,

with stakes lambda_i that are fixed before y_i is seen. Where E[y_i | past] <= m, K_t(m) is a non-negative
supermartingale that starts at 1, so that by Ville's inequality P(there is a t with K_t(m) >= 1/alpha) <= alpha. All m
that it has reached 1/alpha against lie below the mean but for an error of alpha. K_t falls in m, so the largest such m
is found by bisection. The upper bound is that of 1 - y, mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_STAKE = 0.9
"""Share of what is owned that may be lost in one round; any value up to 1 keeps the error rate."""
STEPS = 14
"""Halvings of [0, 1]: bounds are exact to 2 * 2**-14, a hundredth of a point, on the safe side."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the mean of the differences lies.

    Attributes:
        lower: no more than the mean, but for the error rate.
        upper: no less than the mean, but for the error rate.
    """

    lower: float
    upper: float


def mean_bounds(differences: Sequence[float], alpha: float) -> Interval:
    """Both bounds of the mean of differences in [-1, 1], each with an error of at most alpha over all moments.

    Args:
        differences: in the order that they became known in; whoever adds to them must only append.
        alpha: chance, for each side, that the bound is ever on the wrong side of the mean.

    Raises:
        ValueError: where a difference is outside [-1, 1] or not a number, or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}, wanted more than 0 and less than 1")
    wrong = next((value for value in differences if not -1 <= value <= 1), None)
    if wrong is not None:
        raise ValueError(f"a difference of two shares is {wrong:g}, wanted -1 to 1")
    scaled = [(value + 1) / 2 for value in differences]
    mirrored = [1 - value for value in scaled]
    lower, upper = _lower(scaled, alpha), 1 - _lower(mirrored, alpha)
    return Interval(2 * lower - 1, 2 * upper - 1)


def _lower(values: Sequence[float], alpha: float) -> float:
    """The largest mean, to a step, that the bets have won 1/alpha against at some moment."""
    stakes = list(_stakes(values, alpha))
    below, above = 0.0, 1.0
    for _ in range(STEPS):
        middle = (below + above) / 2
        if _has_won(zip(values, stakes, strict=True), middle, -math.log(alpha)):
            below = middle
        else:
            above = middle
    return below


def _has_won(rounds: Iterable[tuple[float, float]], mean: float, goal: float) -> bool:
    """Whether the logarithm of the capital has ever reached the goal."""
    owned, cap = 0.0, MOST_STAKE / mean
    for value, stake in rounds:
        owned += math.log1p(min(stake, cap) * (value - mean))
        if owned >= goal:
            return True
    return False


def _stakes(values: Sequence[float], alpha: float) -> Iterator[float]:
    """The predictable plug-in stakes: ``sqrt(2 log(1/alpha) / (variance_{t-1} t log(1 + t)))``.

    Mean and variance start as those of one half and one quarter, as if one such round had been played before.
    """
    total, squares, variance = 0.5, 0.25, 0.25
    for number, value in enumerate(values, start=1):
        yield math.sqrt(-2 * math.log(alpha) / (variance * number * math.log1p(number)))
        total += value
        squares += (value - total / (number + 1)) ** 2
        variance = squares / (number + 1)
