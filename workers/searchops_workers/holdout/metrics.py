"""Measures of one result list. Grades come in rank order; a product nobody judged is None."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.holdout.records import GoodRule


@lru_cache(maxsize=8)
def discounts(k: int) -> tuple[float, ...]:
    """1/log2(rank + 1) for ranks 1…k (Järvelin & Kekäläinen 2002, as trec_eval computes it)."""
    return tuple(1 / math.log2(rank + 1) for rank in range(1, k + 1))


def dcg(gains: Sequence[float], k: int) -> float:
    """Discounted cumulative gain of the first k gains."""
    return math.fsum(gain * discount for gain, discount in zip(gains, discounts(k), strict=False))


def ndcg(gains: Sequence[float], all_gains: Sequence[float], k: int) -> float:
    """nDCG@k with linear gains; 0 where nothing is relevant.

    Args:
        gains: of the results in rank order, 0 for what is not judged.
        all_gains: of every judged product of the query, in any order: the ideal list is made of them.
        k: depth.
    """
    ideal = dcg(sorted(all_gains, reverse=True)[:k], k)
    return min(1.0, dcg(gains, k) / ideal) if ideal > 0 else 0.0


def is_good(grades: Sequence[int | None], right_products: int, rule: GoodRule) -> bool:
    """Whether at least min(wanted, R) of the top results are graded as the rule asks; never with R = 0.

    Args:
        grades: of the results in rank order.
        right_products: R, how many products of the query are so graded.
        rule: top, wanted and grade.
    """
    hits = sum(grade is not None and grade >= rule.grade for grade in grades[: rule.top])
    return right_products > 0 and hits >= min(rule.wanted, right_products)


def success_at_1(grades: Sequence[int | None], rule: GoodRule) -> bool:
    """Whether the first result is graded as Good asks."""
    return bool(grades) and grades[0] is not None and grades[0] >= rule.grade


def judged_share(grades: Sequence[int | None], k: int) -> float | None:
    """judged@k: the share of the results shown that somebody has graded; None where nothing is shown."""
    shown = grades[:k]
    return sum(grade is not None for grade in shown) / len(shown) if shown else None


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = 0.9) -> float:
    """RBO_ext of two lists without ties (Webber, Moffat & Zobel 2010, eq. 32): 1 for equal lists, 0 for disjoint ones.

    The extrapolated form is used because top-k lists are cut: their agreement is assumed to go on as it was at the cut.
    """
    short, long = sorted((one, other), key=len)
    if not long:
        return 1.0
    if not short:
        return 0.0
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    overlap = 0
    overlap_at_short = 0
    total = 0.0
    for depth, product in enumerate(long, start=1):
        seen_long.add(product)
        if depth <= len(short):
            overlap += short[depth - 1] in seen_long
            seen_short.add(short[depth - 1])
            overlap += product in seen_short and product != short[depth - 1]
            overlap_at_short = overlap
        else:
            overlap += product in seen_short
            total += overlap_at_short * (depth - len(short)) / (len(short) * depth) * p**depth
        total += overlap / depth * p**depth
    ends = (overlap - overlap_at_short) / len(long) + overlap_at_short / len(short)
    return min(1.0, (1 - p) / p * total + ends * p ** len(long))
