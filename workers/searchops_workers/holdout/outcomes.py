"""Incumbent and candidate compared query by query, and counted by family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from searchops_workers.holdout.completion import Extremes, Loss, good_lost, ndcg_difference, resolved, unjudged
from searchops_workers.holdout.metrics import is_good, judged_share, ndcg, rank_biased_overlap, success_at_1

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from searchops_workers.holdout.format import Holdout, Labels
    from searchops_workers.holdout.records import GoodRule, QueryRow
    from searchops_workers.holdout.runs import Ranking, Run

LOSS_DROP = 0.1
"""A query is lost only if its nDCG also falls by more than this: a swap around the Good threshold is no loss."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side's measures of one query, unjudged products counted as irrelevant."""

    top: tuple[str, ...]
    grades: tuple[int | None, ...]
    good: bool
    ndcg: float
    success: bool
    judged: float | None

    @property
    def found_nothing(self) -> bool:
        """Whether the search had no result."""
        return not self.top


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """One query on both sides.

    Attributes:
        right_products: R; with 0 the query counts neither for Good nor for nDCG.
        delta: nDCG of the candidate minus that of the incumbent.
        lost: no longer Good, with a drop of nDCG above 0.1.
        first_lost: the first result was right and is so no longer.
        lost_if_disputes_favour: lost, and still lost if every dispute between raters had gone the candidate's way.
        unjudged: products in either top k that nobody judged.
    """

    query: QueryRow
    right_products: int
    incumbent: Side
    candidate: Side
    delta: Extremes
    lost: Loss
    first_lost: Loss
    lost_if_disputes_favour: bool
    unjudged: tuple[str, ...]
    overlap: float

    @property
    def counted(self) -> bool:
        """Whether there is anything right to find."""
        return self.right_products > 0


@dataclass(frozen=True, slots=True)
class LossCount:
    """Families lost among the families Good under the incumbent.

    In the worst case a family that is Good only by completion joins the count just when it is lost, never to dilute it.
    """

    of: int = 0
    lost: int = 0
    worst_of: int = 0
    worst_lost: int = 0
    best_lost: int = 0


def measure(ranking: Ranking, labels: Labels, right_products: int, holdout: Holdout) -> Side:
    """One side's measures of one query."""
    top = ranking.products[: holdout.k]
    grades = tuple(labels.grade(product) for product in ranking.products[: max(holdout.k, holdout.good.top)])
    gains = [holdout.gains[grade or 0] for grade in grades]
    return Side(
        top=top,
        grades=grades[: holdout.k],
        good=is_good(grades, right_products, holdout.good),
        ndcg=ndcg(gains, [holdout.gains[grade] for grade in labels.grades.values()], holdout.k),
        success=success_at_1(grades, holdout.good),
        judged=judged_share(grades, holdout.k),
    )


def compare(holdout: Holdout, incumbent: Run, candidate: Run) -> tuple[QueryOutcome, ...]:
    """Every gated query that both runs answered, in the holdout's order."""
    return tuple(
        compare_query(holdout, query, incumbent.rankings[query.id], candidate.rankings[query.id])
        for query in holdout.gated
        if query.id in incumbent.rankings and query.id in candidate.rankings
    )


def compare_query(holdout: Holdout, query: QueryRow, before: Ranking, after: Ranking) -> QueryOutcome:
    """One query on both sides."""
    labels = holdout.labels_of(query.id)
    right = holdout.right_products(query.id)
    incumbent = measure(before, labels, right, holdout)
    candidate = measure(after, labels, right, holdout)
    delta = ndcg_difference(labels, holdout.gains, holdout.k, before.products, after.products)
    lost = Loss(False, False, False)
    if right > 0:
        good = good_lost(labels, holdout.good, holdout.k, before.products, after.products, right)
        lost = Loss(
            observed=good.observed and delta.observed < -LOSS_DROP,
            worst=good.worst and delta.worst < -LOSS_DROP,
            best=good.best and delta.best < -LOSS_DROP,
        )
    return QueryOutcome(
        query=query,
        right_products=right,
        incumbent=incumbent,
        candidate=candidate,
        delta=delta,
        lost=lost,
        first_lost=_first_lost(incumbent, candidate, holdout.good) if right > 0 else Loss(False, False, False),
        lost_if_disputes_favour=lost.observed and _still_lost(holdout, labels, before, after),
        unjudged=unjudged(labels, holdout.k, before.products, after.products),
        overlap=rank_biased_overlap(incumbent.top, candidate.top),
    )


def _first_lost(incumbent: Side, candidate: Side, rule: GoodRule) -> Loss:
    same = incumbent.top[:1] == candidate.top[:1]
    unsure_before = bool(incumbent.grades) and incumbent.grades[0] is None
    unsure_after = bool(candidate.grades) and candidate.grades[0] is None
    return Loss(
        observed=incumbent.success and not candidate.success,
        worst=not same and (incumbent.success or unsure_before) and not candidate.success,
        best=incumbent.success and not candidate.success and not unsure_after,
    )


def _still_lost(holdout: Holdout, labels: Labels, before: Ranking, after: Ranking) -> bool:
    if not labels.disputed:
        return True
    grades = resolved(labels, holdout.k, before.products, after.products)
    favoured = replace(labels, grades=grades, disputed={})
    right = sum(grade >= holdout.good.grade for grade in grades.values())
    one = measure(before, favoured, right, holdout)
    other = measure(after, favoured, right, holdout)
    return one.good and not other.good and other.ndcg - one.ndcg < -LOSS_DROP


def count_losses(outcomes: Iterable[QueryOutcome], *, first_result: bool = False) -> LossCount:
    """Families Good under the incumbent, and those of them lost; a family is lost if any of its members is.

    A family counts once one of its queries was Good. With `first_result`, success@1 takes the place of Good.
    """
    good: set[str] = set()
    lost: set[str] = set()
    worst: set[str] = set()
    best: set[str] = set()
    for outcome in outcomes:
        if not outcome.counted:
            continue
        family = outcome.query.family
        loss = outcome.first_lost if first_result else outcome.lost
        if outcome.incumbent.success if first_result else outcome.incumbent.good:
            good.add(family)
        if not loss.worst:
            continue  # a loss that is certain, or seen, is a possible one
        worst.add(family)
        if loss.observed:
            lost.add(family)
        if loss.best:
            best.add(family)
    return LossCount(len(good), len(lost), len(good | worst), len(worst), len(best))


def by_family(outcomes: Iterable[QueryOutcome]) -> Mapping[str, tuple[QueryOutcome, ...]]:
    """Outcomes by family, families in the order they first appear."""
    families: dict[str, list[QueryOutcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.query.family, []).append(outcome)
    return {family: tuple(members) for family, members in families.items()}
