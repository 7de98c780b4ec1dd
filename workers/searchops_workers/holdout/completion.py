"""What unjudged results could turn out to be: the worst and the best case for the candidate.

Counting an unjudged product as irrelevant punishes any model that finds something new; leaving it out flatters it. So
nothing is assumed: each unjudged product in either top list may have grade 0 or the highest grade, the same on both
sides, and two extremes are computed. *Pass* must hold in the worst one, *Regressed* in the best.

For the nDCG difference, a product counts by its discount in the candidate minus its discount in the incumbent. How the
ideal list grows depends only on *how many* are given the highest grade, so for each number j the extreme choice is the
j products with the smallest (largest) such difference, and the minimum (maximum) over j is exact. The sign rule "0 if
the candidate ranks it higher, else the highest grade" is one of these choices; alone it is not the extreme, because
the growing ideal also shrinks the difference that the judged products make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from searchops_workers.holdout.metrics import dcg, discounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.holdout.format import Labels
    from searchops_workers.holdout.records import GoodRule

_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Extremes:
    """A quantity under the labels as they are (unjudged = 0), and at its two extremes for the candidate."""

    observed: float
    worst: float
    best: float


@dataclass(frozen=True, slots=True)
class Loss:
    """Whether a query is lost: under the labels as they are, possibly (worst case), certainly (best case)."""

    observed: bool
    worst: bool
    best: bool


def unjudged(labels: Labels, k: int, *lists: Sequence[str]) -> tuple[str, ...]:
    """The products within the top k of any list that nobody has judged, sorted."""
    return tuple(sorted({product for ranked in lists for product in ranked[:k] if labels.grade(product) is None}))


def ndcg_difference(
    labels: Labels, gains: Sequence[float], k: int, incumbent: Sequence[str], candidate: Sequence[str]
) -> Extremes:
    """nDCG@k of the candidate minus that of the incumbent, at its extremes over what is unjudged."""
    known = sorted((gains[grade] for grade in labels.grades.values()), reverse=True)[:k]
    weight = _discount_differences(k, incumbent, candidate)
    judged = {product: grade for product in weight if (grade := labels.grade(product)) is not None}
    numerator = math.fsum(weight[product] * gains[grade] for product, grade in judged.items())
    ordered = sorted(share for product, share in weight.items() if product not in judged)
    top = gains[-1]
    lowest = [0.0, *accumulate(ordered)]
    highest = [0.0, *accumulate(reversed(ordered))]
    worst, best = [], []
    for number in range(len(ordered) + 1):
        ideal = dcg(([top] * number + known)[:k], k)
        worst.append(_bounded(numerator + top * lowest[number], ideal))
        best.append(_bounded(numerator + top * highest[number], ideal))
    return Extremes(worst[0], min(worst), max(best))


def _bounded(numerator: float, ideal: float) -> float:
    """The difference within its range; rounded, since a last bit of error would make an equal list *better*."""
    return round(max(-1.0, min(1.0, numerator / ideal)), _DECIMALS) + 0.0 if ideal > 0 else 0.0


def _discount_differences(k: int, incumbent: Sequence[str], candidate: Sequence[str]) -> dict[str, float]:
    """For each product in either top k its discount in the candidate minus that in the incumbent."""
    weight = dict(zip(candidate[:k], discounts(k), strict=False))
    for product, share in zip(incumbent[:k], discounts(k), strict=False):
        weight[product] = weight.get(product, 0.0) - share
    return weight


@dataclass(frozen=True, slots=True)
class _Tops:
    """Hits and unjudged products of the two top lists that Good looks at."""

    hits_incumbent: int
    hits_candidate: int
    only_incumbent: int
    only_candidate: int
    both: int
    below: int


def good_lost(
    labels: Labels, rule: GoodRule, k: int, incumbent: Sequence[str], candidate: Sequence[str], right_products: int
) -> Loss:
    """Good under the incumbent and not under the candidate: as labelled, in some completion, in every completion."""
    tops = _tops(labels, rule, k, incumbent, candidate)
    return Loss(
        observed=_good(tops.hits_incumbent, right_products, rule)
        and not _good(tops.hits_candidate, right_products, rule),
        worst=_can_be_lost(tops, right_products, rule),
        best=not _can_be_kept(tops, right_products, rule),
    )


def _tops(labels: Labels, rule: GoodRule, k: int, incumbent: Sequence[str], candidate: Sequence[str]) -> _Tops:
    def hits(ranked: Sequence[str]) -> int:
        return sum((labels.grade(product) or 0) >= rule.grade for product in ranked[: rule.top])

    of_incumbent = {product for product in incumbent[: rule.top] if labels.grade(product) is None}
    of_candidate = {product for product in candidate[: rule.top] if labels.grade(product) is None}
    both = len(of_incumbent & of_candidate)
    return _Tops(
        hits_incumbent=hits(incumbent),
        hits_candidate=hits(candidate),
        only_incumbent=len(of_incumbent) - both,
        only_candidate=len(of_candidate) - both,
        both=both,
        below=len(unjudged(labels, k, incumbent, candidate)) - len(of_incumbent | of_candidate),
    )


def _good(hits: int, right_products: int, rule: GoodRule) -> bool:
    return right_products > 0 and hits >= min(rule.wanted, right_products)


def _can_be_lost(tops: _Tops, right: int, rule: GoodRule) -> bool:
    """Some completion in which the incumbent is Good and the candidate is not.

    What only the incumbent shows is best relevant (it adds a hit there, and to R); what only the candidate shows is
    best irrelevant; products that both show, or that stand below both top lists, are tried in every number.
    """
    for shared in range(tops.both + 1):
        for below in range(min(tops.below, rule.wanted) + 1):
            total = right + tops.only_incumbent + shared + below
            if _good(tops.hits_incumbent + tops.only_incumbent + shared, total, rule) and not _good(
                tops.hits_candidate + shared, total, rule
            ):
                return True
    return False


def _can_be_kept(tops: _Tops, right: int, rule: GoodRule) -> bool:
    """Some completion in which the candidate is Good or the incumbent is not."""
    shown = tops.only_candidate + tops.both
    if _good(tops.hits_candidate + shown, right + shown, rule):
        return True
    return not _good(tops.hits_incumbent, right + tops.only_candidate + tops.below, rule)


def resolved(labels: Labels, k: int, incumbent: Sequence[str], candidate: Sequence[str]) -> dict[str, int]:
    """The grades with each disputed one read in the candidate's favour, by the sign of its discount difference.

    Only grades that the raters themselves gave are used: it asks whether a loss would stand if every dispute between
    raters had gone the other way.
    """
    weight = _discount_differences(k, incumbent, candidate)
    grades = dict(labels.grades)
    for product, (low, high) in labels.disputed.items():
        if product in weight:
            grades[product] = high if weight[product] > 0 else low
    return grades
