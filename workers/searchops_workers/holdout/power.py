"""Preflight: what a holdout can show before anything is run on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import ndtr, ndtri

from searchops_workers.holdout.gates import TRAFFIC_FLOOR
from searchops_workers.holdout.intervals import (
    ALPHA,
    binomial_p,
    clopper_pearson,
    fewest_lost_that_regress,
    most_lost_that_pass,
)
from searchops_workers.holdout.outcomes import measure
from searchops_workers.holdout.records import Split

if TYPE_CHECKING:
    from searchops_workers.holdout.format import Holdout
    from searchops_workers.holdout.inputs import Rules
    from searchops_workers.holdout.runs import Run
    from searchops_workers.holdout.verdicts import Figure

TYPICAL_DEVIATION = 0.15
"""Standard deviation of nDCG@10 differences between a model and its fine-tune (measured: 0.11–0.18)."""
TYPICAL_DROP = 0.3
"""Mean nDCG@10 that a lost family costs."""
TRUE_LOSSES = (0.0, 0.01, 0.02)
WANTED_POWER = 0.8
_MOST_FAMILIES = 200_000


@dataclass(frozen=True, slots=True)
class Size:
    """How many independent families a decision can rest on.

    Attributes:
        good: families Good under the incumbent.
        traffic: families of the traffic sample.
        assumed: no incumbent was given, so every family with something right to find is taken as Good: the best case.
    """

    good: int
    traffic: int
    assumed: bool


def size_of(holdout: Holdout, incumbent: Run | None = None) -> Size:
    """Count families, with an incumbent's results where there are any."""
    good: set[str] = set()
    traffic: set[str] = set()
    for query in holdout.gated:
        right = holdout.right_products(query.id)
        if query.split is Split.TRAFFIC:
            traffic.add(query.family)
        if incumbent is None:
            good |= {query.family} if right > 0 else set()
        elif query.id in incumbent.rankings:
            side = measure(incumbent.rankings[query.id], holdout.labels_of(query.id), right, holdout)
            good |= {query.family} if side.good else set()
    return Size(len(good), len(traffic), incumbent is None)


def smallest_loss_shown(families: int, alpha: float = ALPHA) -> float:
    """The smallest loss that zero lost families can rule out: 1 − α^(1/n); 1 without families."""
    return clopper_pearson(0, families, alpha).upper if families else 1.0


def smallest_loss_caught(
    families: int, margin: float, alpha: float = ALPHA, power: float = WANTED_POWER
) -> float | None:
    """The smallest true loss that is Regressed with the wanted probability; None where no loss is."""
    fewest = fewest_lost_that_regress(families, margin, alpha)
    if fewest > families:
        return None
    return clopper_pearson(fewest - 1, families, 1 - power).upper


def passes_a(families: int, true_loss: float, margin: float, alpha: float = ALPHA) -> float:
    """P(gate A passes), exactly."""
    if not families:
        return 0.0
    return 1.0 - binomial_p(most_lost_that_pass(families, margin, alpha) + 1, families, true_loss)


def passes_b(
    traffic: int, mean: float, rules: Rules, *, deviation: float = TYPICAL_DEVIATION, alpha: float = ALPHA
) -> float:
    """P(gate B passes) by the normal approximation; 0 below the floor of the traffic sample."""
    if traffic < TRAFFIC_FLOOR:
        return 0.0
    target = 0.0 if rules.must_be_better else -rules.ndcg_margin
    return float(ndtr((mean - target) * math.sqrt(traffic) / deviation + ndtri(alpha)))


def families_for_power(
    true_loss: float, margin: float, alpha: float = ALPHA, power: float = WANTED_POWER
) -> int | None:
    """The smallest number of Good families from which on gate A passes with the wanted probability.

    P(Pass) moves in a saw-tooth; from the number returned on it stays above the wanted one, up to twice the number.
    """
    if true_loss >= margin:
        return None
    low, high = 1, 1
    while passes_a(high, true_loss, margin, alpha) < power:
        low, high = high, high * 2
        if high > _MOST_FAMILIES:
            return None
    last_below = low
    for families in range(low, min(2 * high, low + 4_000)):
        if passes_a(families, true_loss, margin, alpha) < power:
            last_below = families
    return last_below + 1


def power_report(
    size: Size, rules: Rules, *, alpha: float = ALPHA, deviation: float = TYPICAL_DEVIATION
) -> dict[str, Figure]:
    """What can be shown, as JSON: bounds, probabilities at true losses of 0, 1 and 2 %, families wanted for 80 %."""
    share = size.good / size.traffic if size.traffic else 0.0
    rows: list[Figure] = []
    for loss in TRUE_LOSSES:
        mean = -loss * min(1.0, share) * TYPICAL_DROP
        alone = passes_a(size.good, loss, rules.loss_margin, alpha)
        graded = passes_b(size.traffic, mean, rules, deviation=deviation, alpha=alpha)
        rows.append(
            {
                "trueLoss": loss,
                "passA": round(alone, 4),
                "passAandB": round(alone * graded, 4),
                "familiesFor80Percent": families_for_power(loss, rules.loss_margin, alpha),
            }
        )
    caught = smallest_loss_caught(size.good, rules.loss_margin, alpha)
    return {
        "goodFamilies": size.good,
        "goodFamiliesAssumed": size.assumed,
        "trafficFamilies": size.traffic,
        "alpha": alpha,
        "margin": rules.loss_margin,
        "smallestLossShown": round(smallest_loss_shown(size.good, alpha), 6),
        "smallestLossCaught": None if caught is None else round(caught, 6),
        "mostLostToPass": most_lost_that_pass(size.good, rules.loss_margin, alpha),
        "fewestLostToRegress": fewest_lost_that_regress(size.good, rules.loss_margin, alpha),
        "canPass": size.traffic >= TRAFFIC_FLOOR and most_lost_that_pass(size.good, rules.loss_margin, alpha) >= 0,
        "assumedDeviation": deviation,
        "assumedDrop": TYPICAL_DROP,
        "power": rows,
    }
