"""Gate C: no language, group or query class may fall, however good the average is. A veto only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops_workers.holdout.intervals import binomial_p, clopper_pearson, mcnemar_p
from searchops_workers.holdout.multiplicity import holm
from searchops_workers.holdout.outcomes import LossCount, QueryOutcome, by_family, count_losses
from searchops_workers.holdout.records import QueryClass
from searchops_workers.holdout.settling import pairs_of, undecided_losses
from searchops_workers.holdout.verdicts import Figure, GateResult, Reason, Settlement, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.holdout.inputs import GateInput

SLICE_FLOOR = 20
"""Families below which a slice is NotTested: shown, never passed."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice before the correction for their number.

    Attributes:
        families: what is counted against; NotTested below 20.
        margin: share that may be lost; None for the paired test of zero results.
        p_worst: p-value in the worst case, which must not reject for a Pass.
        p_best: p-value in the best case, which must reject for a Regressed.
        counts: of the share; None for the paired test.
    """

    name: str
    families: int
    lost: int
    margin: float | None
    p_worst: float
    p_best: float
    counts: LossCount | None = None

    @property
    def tested(self) -> bool:
        """Whether there are enough families to say anything."""
        return self.families >= SLICE_FLOOR


def gate_c(question: GateInput, outcomes: Sequence[QueryOutcome]) -> GateResult:
    """Exact binomial test of every slice with n ≥ 20 families, with Holm's correction over all of them."""
    slices = slices_of(question, outcomes)
    tested = [part for part in slices if part.tested]
    worst = dict(zip([part.name for part in tested], holm([part.p_worst for part in tested]), strict=True))
    best = dict(zip([part.name for part in tested], holm([part.p_best for part in tested]), strict=True))
    alpha = question.wear.alpha
    rejected = [part for part in tested if best[part.name] <= alpha]
    doubtful = [part for part in tested if worst[part.name] <= alpha and part not in rejected]
    figures: dict[str, Figure] = {
        "slices": [_row(part, worst.get(part.name), best.get(part.name), alpha) for part in slices]
    }
    if rejected:
        message = "; ".join(_describe(part, best[part.name]) for part in rejected)
        return GateResult("C", State.REGRESSED, message, Reason.SLICE_LOSS, figures)
    if doubtful:
        names = ", ".join(part.name for part in doubtful)
        pairs = pairs_of(undecided_losses(outcomes))
        settlement = Settlement(
            "C",
            Reason.UNJUDGED_RESULTS,
            f"label {len(pairs)} (query, product) pairs: {names} hang on them",
            None,
            pairs,
        )
        return GateResult("C", State.INCONCLUSIVE, settlement.text, settlement.reason, figures, settlement)
    skipped = len(slices) - len(tested)
    message = f"{len(tested)} slices tested, none fell; {skipped} not tested (fewer than {SLICE_FLOOR} families)"
    return GateResult("C", State.PASS, message, figures=figures)


def slices_of(question: GateInput, outcomes: Sequence[QueryOutcome]) -> tuple[Slice, ...]:
    """Language, group, class, success@1 on codes and zero results, sorted by name."""
    members: dict[str, list[QueryOutcome]] = {}
    for outcome in outcomes:
        query = outcome.query
        names = {f"lang:{query.lang}", f"class:{query.query_class}", *(f"group:{group}" for group in query.groups)}
        for name in names:
            members.setdefault(name, []).append(outcome)
    margin = question.rules.loss_margin
    found = [_slice(name, count_losses(part), margin) for name, part in members.items()]
    codes = [outcome for outcome in outcomes if outcome.query.query_class is QueryClass.CODE]
    if codes:
        found.append(_slice("success@1:code", count_losses(codes, first_result=True), question.rules.code_margin))
    found.append(_zero_results(outcomes))
    return tuple(sorted(found, key=lambda part: part.name))


def _slice(name: str, counts: LossCount, margin: float) -> Slice:
    return Slice(
        name,
        counts.of,
        counts.lost,
        margin,
        p_worst=binomial_p(counts.worst_lost, counts.worst_of, margin),
        p_best=binomial_p(counts.best_lost, counts.of, margin),
        counts=counts,
    )


def _zero_results(outcomes: Sequence[QueryOutcome]) -> Slice:
    """Families that newly find nothing against those that newly find something: needs no labels."""
    families = by_family(outcomes)
    worse = better = 0
    for members in families.values():
        change = sum(outcome.candidate.found_nothing - outcome.incumbent.found_nothing for outcome in members)
        worse += change > 0
        better += change < 0
    p_value = mcnemar_p(worse, better)
    return Slice("zero-results", len(families), worse, None, p_value, p_value)


def _describe(part: Slice, adjusted: float) -> str:
    if part.margin is None:
        return f"{part.name}: {part.lost} of {part.families} families newly find nothing (Holm p {adjusted:.2g})"
    share = part.lost / part.families
    return (
        f"{part.name}: {part.lost} of {part.families} Good families lost ({share:.1%}, allowed {part.margin:.1%}; "
        f"Holm p {adjusted:.2g})"
    )


def _row(part: Slice, worst: float | None, best: float | None, alpha: float) -> dict[str, Figure]:
    state = State.NOT_TESTED
    if worst is not None and best is not None:
        state = State.REGRESSED if best <= alpha else State.INCONCLUSIVE if worst <= alpha else State.PASS
    lower, upper = _shown_bounds(part.counts, alpha)
    return {
        "name": part.name,
        "families": part.families,
        "lost": part.lost,
        "margin": part.margin,
        "lower": lower,
        "upper": upper,
        "p": part.p_best,
        "holm": best,
        "holmWorstCase": worst,
        "state": state.value,
    }


def _shown_bounds(counts: LossCount | None, alpha: float) -> tuple[float | None, float | None]:
    """One-sided bounds of one slice alone, best case and worst case: for people; Holm's p decides."""
    if counts is None or counts.of == 0:
        return None, None
    lower = clopper_pearson(counts.best_lost, counts.of, alpha).lower
    return lower, clopper_pearson(counts.worst_lost, counts.worst_of, alpha).upper
