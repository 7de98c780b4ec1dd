"""How many families, or which labels, would settle a gate that could not decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy.special import ndtri

from searchops_workers.holdout.completion import unjudged
from searchops_workers.holdout.intervals import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from searchops_workers.holdout.format import Holdout
    from searchops_workers.holdout.outcomes import QueryOutcome
    from searchops_workers.holdout.runs import Run

MOST_FAMILIES = 1_000_000


def families_for_share(lost: int, of: int, margin: float, alpha: float) -> int | None:
    """Families in all with which the share seen would be decided; None when even a million would not do."""
    share = lost / of if of else 0.0

    def decided(families: int) -> bool:
        if share <= margin:
            return clopper_pearson(math.ceil(share * families - 1e-9), families, alpha).upper <= margin
        return clopper_pearson(math.floor(share * families + 1e-9), families, alpha).lower > margin

    return _smallest(decided, max(of, 1))


def _smallest(decided: Callable[[int], bool], start: int) -> int | None:
    high = start
    while not decided(high):
        high *= 2
        if high > MOST_FAMILIES:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def families_for_mean(mean: float, deviation: float, target: float, margin: float, alpha: float) -> int | None:
    """Families in all with which a mean difference like the one seen would be decided, by the normal approximation.

    Args:
        mean: difference seen.
        deviation: standard deviation between families.
        target: what the lower bound must reach to pass (−m, or 0 where the candidate must be better).
        margin: m; an upper bound below −m is a regression.
        alpha: one-sided level.
    """
    distance = mean - target if mean > target else -margin - mean
    if distance <= 0:
        return None
    families = math.ceil((float(ndtri(alpha)) * deviation / distance) ** 2)
    return families if families <= MOST_FAMILIES else None


def pairs_of(outcomes: Iterable[QueryOutcome]) -> tuple[tuple[str, str], ...]:
    """The unjudged (query, product) pairs of some queries, in their order."""
    return tuple((outcome.query.id, product) for outcome in outcomes for product in outcome.unjudged)


def pairs_to_label(holdout: Holdout, *runs: Run) -> tuple[tuple[str, str], ...]:
    """What in any top k of the gated queries nobody has judged: the list to label before a first model is built."""
    return tuple(
        (query.id, product)
        for query in holdout.gated
        for product in unjudged(
            holdout.labels_of(query.id),
            holdout.k,
            *(run.rankings[query.id].products for run in runs if query.id in run.rankings),
        )
    )


def undecided_losses(outcomes: Iterable[QueryOutcome]) -> list[QueryOutcome]:
    """Queries whose loss hangs on labels that are missing, the heaviest in traffic first."""
    open_ones = [outcome for outcome in outcomes if outcome.lost.worst != outcome.lost.best]
    return sorted(open_ones, key=lambda outcome: (-outcome.query.weight, outcome.query.id))


def widest_differences(outcomes: Iterable[QueryOutcome]) -> list[QueryOutcome]:
    """Queries whose nDCG difference hangs on labels that are missing, the widest first."""
    open_ones = [outcome for outcome in outcomes if outcome.unjudged]
    return sorted(open_ones, key=lambda outcome: (outcome.delta.worst - outcome.delta.best, outcome.query.id))
