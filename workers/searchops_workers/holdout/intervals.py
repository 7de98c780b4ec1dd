"""Exact bounds and tests for counts, and the interval that is shown to people."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betainc, betaincinv

ALPHA = 0.05
"""One-sided level of every bound and test, before wear."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A lower and an upper bound, each one-sided."""

    lower: float
    upper: float


def clopper_pearson(lost: int, of: int, alpha: float = ALPHA) -> Bounds:
    """Exact one-sided bounds of a share, each at level alpha (Clopper & Pearson 1934).

    The upper bound is Beta⁻¹(1 − α; x + 1, n − x), the lower Beta⁻¹(α; x, n − x + 1). Exact is wanted where losses are
    near zero: there Wilson's upper bound is too small (0 of 149: 1.8 % instead of 2.0 %).

    Raises:
        ValueError: more lost than there are, or a level outside (0, 1).
    """
    if not 0 <= lost <= of or not 0 < alpha < 1:
        raise ValueError(f"seen {lost} of {of} at alpha {alpha}; wanted 0 ≤ lost ≤ of and 0 < alpha < 1")
    lower = 0.0 if lost == 0 else float(betaincinv(lost, of - lost + 1, alpha))
    upper = 1.0 if lost == of else float(betaincinv(lost + 1, of - lost, 1 - alpha))
    return Bounds(lower, upper)


def binomial_p(lost: int, of: int, margin: float) -> float:
    """P(X ≥ lost) for X ~ Binomial(of, margin): the exact one-sided p of "the share lost is at most the margin"."""
    if not 0 < lost <= of:
        return 1.0 if lost <= 0 else 0.0
    return float(betainc(lost, of - lost + 1, margin))


def mcnemar_p(worse: int, better: int) -> float:
    """Exact one-sided McNemar: P(X ≥ worse) for X ~ Binomial(worse + better, ½); 1 without discordant pairs."""
    return binomial_p(worse, worse + better, 0.5)


def wilson(hits: int, of: int, z: float = 1.959963984540054) -> Bounds:
    """Wilson's two-sided 95 % score interval (Wilson 1927), for display only; (0, 1) without observations."""
    if of == 0:
        return Bounds(0.0, 1.0)
    share = hits / of
    centre = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return Bounds(max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def most_lost_that_pass(of: int, margin: float, alpha: float = ALPHA) -> int:
    """The greatest number of losses whose upper bound is within the margin; −1 when even none is not enough."""
    low, high = -1, of
    while low < high:
        middle = (low + high + 1) // 2
        if clopper_pearson(middle, of, alpha).upper <= margin:
            low = middle
        else:
            high = middle - 1
    return low


def fewest_lost_that_regress(of: int, margin: float, alpha: float = ALPHA) -> int:
    """The smallest number of losses whose lower bound is above the margin; of + 1 when even all are not enough."""
    low, high = 0, of + 1
    while low < high:
        middle = (low + high) // 2
        if clopper_pearson(middle, of, alpha).lower > margin:
            high = middle
        else:
            low = middle + 1
    return low
