"""Gates A, A′ and B: what was right stays right, and lists do not get worse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.holdout.bootstrap import family_bootstrap
from searchops_workers.holdout.completion import ndcg_difference
from searchops_workers.holdout.intervals import Bounds, clopper_pearson
from searchops_workers.holdout.outcomes import LOSS_DROP, LossCount, QueryOutcome, by_family, count_losses
from searchops_workers.holdout.records import Split
from searchops_workers.holdout.settling import (
    families_for_mean,
    families_for_share,
    pairs_of,
    undecided_losses,
    widest_differences,
)
from searchops_workers.holdout.verdicts import Figure, GateResult, Reason, Settlement, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.holdout.inputs import Anchor, GateInput, Rules
    from searchops_workers.holdout.outcomes import Side

TRAFFIC_FLOOR = 300
"""Families that a traffic sample needs before gate B may pass."""
GRADED_FLOOR = 20
"""Families with something right to find below which gate B does not reject either: a bootstrap of a few is no bound."""


def gate_a(question: GateInput, outcomes: Sequence[QueryOutcome]) -> GateResult:
    """Preservation: the share lost of the families that are Good under the incumbent in this very run."""
    counts = count_losses(outcomes)
    lost = [outcome for outcome in outcomes if outcome.lost.observed]
    good = [outcome for outcome in outcomes if outcome.counted and outcome.incumbent.good]
    weight = sum(outcome.query.weight for outcome in good)
    weighted = sum(outcome.query.weight for outcome in lost) / weight if weight > 0 else 0.0
    result = decide_share("A", counts, question.rules.loss_margin, question.wear.alpha, Reason.PRESERVATION_LOSS)
    figures = {**result.figures, "trafficWeightedLoss": weighted}
    settlement = None
    if result.state is State.INCONCLUSIVE:
        settlement = _settle_share("A", counts, question, outcomes)
    return GateResult(
        "A", result.state, result.message, settlement.reason if settlement else result.reason, figures, settlement
    )


def decide_share(gate: str, counts: LossCount, margin: float, alpha: float, loss: Reason) -> GateResult:
    """Pass if the worst case's upper bound is within the margin, Regressed if the best case's lower is above it."""
    if counts.of == 0 and counts.worst_of == 0:
        return GateResult(
            gate,
            State.INCONCLUSIVE,
            "no family is Good under the incumbent: nothing to preserve",
            Reason.TOO_FEW_QUERIES,
            {"families": 0, "lost": 0, "margin": margin, "upper": 1.0, "lower": 0.0},
        )
    upper = clopper_pearson(counts.worst_lost, counts.worst_of, alpha).upper
    lower = clopper_pearson(counts.best_lost, counts.of, alpha).lower if counts.of else 0.0
    state = State.PASS if upper <= margin else State.REGRESSED if lower > margin else State.INCONCLUSIVE
    share = counts.lost / counts.of if counts.of else 0.0
    message = (
        f"{counts.lost} of {counts.of} Good families lost ({share:.1%}); "
        f"the true share is between {lower:.2%} and {upper:.2%}, allowed {margin:.2%}"
    )
    figures: dict[str, Figure] = {
        "families": counts.of,
        "lost": counts.lost,
        "worstCase": {"families": counts.worst_of, "lost": counts.worst_lost},
        "bestCase": {"families": counts.of, "lost": counts.best_lost},
        "lower": lower,
        "upper": upper,
        "margin": margin,
    }
    return GateResult(gate, state, message, loss if state is State.REGRESSED else Reason.NONE, figures)


def _settle_share(gate: str, counts: LossCount, question: GateInput, outcomes: Sequence[QueryOutcome]) -> Settlement:
    margin, alpha = question.rules.loss_margin, question.wear.alpha
    if counts.of and _labels_would_do(counts, margin, alpha):
        pairs = pairs_of(undecided_losses(outcomes))
        return Settlement(
            gate,
            Reason.UNJUDGED_RESULTS,
            f"label {len(pairs)} (query, product) pairs: losses hang on them",
            None,
            pairs,
        )
    still = {outcome.query.family for outcome in outcomes if outcome.lost_if_disputes_favour}
    if counts.of and len(still) < counts.lost and clopper_pearson(len(still), counts.of, alpha).upper <= margin:
        pairs = _disputed_pairs(question, outcomes)
        return Settlement(
            gate,
            Reason.NOISY_LABELS,
            f"agree on {len(pairs)} labels that raters dispute: losses hang on them",
            None,
            pairs,
        )
    wanted = families_for_share(counts.lost, counts.of, margin, alpha)
    return too_few(gate, "Good families", counts.of, wanted)


def _labels_would_do(counts: LossCount, margin: float, alpha: float) -> bool:
    might_pass = clopper_pearson(counts.best_lost, counts.of, alpha).upper <= margin
    might_regress = clopper_pearson(counts.worst_lost, counts.worst_of, alpha).lower > margin
    return might_pass or might_regress


def _disputed_pairs(question: GateInput, outcomes: Sequence[QueryOutcome]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (outcome.query.id, product)
        for outcome in outcomes
        if outcome.lost.observed and not outcome.lost_if_disputes_favour
        for product in sorted(question.holdout.labels_of(outcome.query.id).disputed)
        if product in outcome.incumbent.top or product in outcome.candidate.top
    )


def too_few(gate: str, what: str, seen: int, wanted: int | None) -> Settlement:
    """The settlement that asks for more families."""
    if wanted is None:
        return Settlement(
            gate,
            Reason.TOO_FEW_QUERIES,
            f"seen {seen} {what}; the difference seen is so near the margin that no affordable number would decide",
        )
    more = max(1, wanted - seen)
    text = f"seen {seen} {what}; at the difference seen {wanted} would decide: add {more} more"
    return Settlement(gate, Reason.TOO_FEW_QUERIES, text, more)


def gate_anchored(question: GateInput, outcomes: Sequence[QueryOutcome]) -> GateResult:
    """Gate A′: the same question about what was Good under any of the last five promoted revisions.

    Each promotion may lose a little; this one adds the little up, within the margin of a new model whatever the change
    is. A candidate that loses nothing which the incumbent has not lost already adds nothing: refusing it would bring
    nothing back, and an equal model would be rejected for what others lost.
    """
    anchors = {anchor.query_id: anchor for anchor in question.anchored or ()}
    held = [outcome for outcome in outcomes if outcome.counted and outcome.query.id in anchors]
    if not held:
        return GateResult("A'", State.NOT_TESTED, "no earlier promoted revision is known on this holdout")
    lost: set[str] = set()
    certain: set[str] = set()
    before: set[str] = set()
    for outcome in held:
        anchor = anchors[outcome.query.id]
        observed, best = _anchor_lost(question, outcome, outcome.candidate, anchor)
        before |= {outcome.query.family} if _anchor_lost(question, outcome, outcome.incumbent, anchor)[1] else set()
        lost |= {outcome.query.family} if observed else set()
        certain |= {outcome.query.family} if best else set()
    families = len({outcome.query.family for outcome in held})
    counts = LossCount(families, len(lost), families, len(lost), len(certain))
    margin, alpha = question.rules.anchored_margin, question.wear.alpha
    result = decide_share("A'", counts, margin, alpha, Reason.ANCHORED_LOSS)
    if result.state is not State.PASS and lost <= before:
        message = f"{result.message}; all of them at earlier promotions, none by this candidate"
        return GateResult("A'", State.PASS, message, figures=result.figures)
    if result.state is not State.INCONCLUSIVE:
        return result
    if _labels_would_do(counts, margin, alpha):
        pairs = tuple(
            (outcome.query.id, product)
            for outcome in held
            if outcome.query.family in lost - certain
            for product in outcome.unjudged
            if product in outcome.candidate.top
        )
        settlement = Settlement(
            "A'", Reason.UNJUDGED_RESULTS, f"label {len(pairs)} (query, product) pairs", None, pairs
        )
    else:
        settlement = too_few(
            "A'", "anchored families", families, families_for_share(len(lost), families, margin, alpha)
        )
    return GateResult("A'", result.state, result.message, settlement.reason, result.figures, settlement)


def _anchor_lost(question: GateInput, outcome: QueryOutcome, side: Side, anchor: Anchor) -> tuple[bool, bool]:
    """Whether a side no longer has what the anchor had: under the labels as they are, and in every completion."""
    if side.good:
        return False, False
    holdout = question.holdout
    rule = holdout.good
    seen = side.grades[: rule.top]
    open_ones = sum(grade is None for grade in seen)
    hits = sum(grade is not None and grade >= rule.grade for grade in seen)
    could_be_good = hits + open_ones >= min(rule.wanted, outcome.right_products + open_ones)
    labels = holdout.labels_of(outcome.query.id)
    highest = ndcg_difference(labels, holdout.gains, holdout.k, (), side.top).best
    observed = anchor.ndcg - side.ndcg > LOSS_DROP
    return observed, observed and not could_be_good and anchor.ndcg - highest > LOSS_DROP


def gate_b(question: GateInput, outcomes: Sequence[QueryOutcome]) -> GateResult:
    """Graded: nDCG on the traffic sample, which no model's result has selected."""
    traffic = [outcome for outcome in outcomes if outcome.query.split is Split.TRAFFIC]
    sampled = len({outcome.query.family for outcome in traffic})
    counted = [outcome for outcome in traffic if outcome.counted]
    families = by_family(counted)
    if not families:
        wanted = too_few("B", "traffic families", sampled, TRAFFIC_FLOOR)
        return GateResult("B", State.INCONCLUSIVE, "no traffic query has a right product", wanted.reason, {}, wanted)
    deltas = [[_delta_sums(members)] for members in families.values()]
    sums = np.array(deltas, dtype=np.float64).reshape(len(families), 3)
    counts = np.array([len(members) for members in families.values()], dtype=np.int64)
    bounds = family_bootstrap(sums, counts, seed=question.seed, resamples=question.resamples, alpha=question.wear.alpha)
    observed, worst, best = bounds
    mean = float(sums[:, 0].sum() / counts.sum())
    rules = question.rules
    state = graded_state(worst, best, rules, sampled=sampled, families=len(families))
    figures: dict[str, Figure] = {
        "sampledFamilies": sampled,
        "families": len(families),
        "queries": len(counted),
        "delta": mean,
        "lower": worst.lower,
        "upper": best.upper,
        "observed": [observed.lower, observed.upper],
        "worstCase": [worst.lower, worst.upper],
        "bestCase": [best.lower, best.upper],
        "margin": rules.ndcg_margin,
        "mustBeBetter": rules.must_be_better,
    }
    wanted_text = "above 0" if rules.must_be_better else f"at least {-rules.ndcg_margin:+.3f}"
    message = f"nDCG {mean:+.4f} on traffic, between {worst.lower:+.4f} and {best.upper:+.4f}, wanted {wanted_text}"
    if state is not State.INCONCLUSIVE:
        return GateResult("B", state, message, Reason.GRADED_LOSS if state is State.REGRESSED else Reason.NONE, figures)
    residuals = (sums[:, 0] - mean * counts) / counts.mean()
    settlement = _settle_graded(
        question, counted, bounds, sampled=sampled, mean=mean, deviation=math.sqrt(float((residuals**2).mean()))
    )
    return GateResult("B", state, message, settlement.reason, figures, settlement)


def _delta_sums(members: Sequence[QueryOutcome]) -> tuple[float, float, float]:
    return (
        math.fsum(outcome.delta.observed for outcome in members),
        math.fsum(outcome.delta.worst for outcome in members),
        math.fsum(outcome.delta.best for outcome in members),
    )


def graded_state(worst: Bounds, best: Bounds, rules: Rules, *, sampled: int, families: int) -> State:
    """What the bounds of the mean difference say.

    Args:
        worst: bounds in the worst case, of which the lower must hold to pass.
        best: bounds in the best case, of which the upper must hold to reject.
        rules: margins.
        sampled: families of the traffic sample.
        families: those of them with something right to find.
    """
    if best.upper < -rules.ndcg_margin and families >= GRADED_FLOOR:
        return State.REGRESSED
    if sampled < TRAFFIC_FLOOR:
        return State.INCONCLUSIVE
    if worst.lower > 0:
        return State.BETTER
    return State.PASS if worst.lower >= -rules.ndcg_margin and not rules.must_be_better else State.INCONCLUSIVE


def _settle_graded(
    question: GateInput,
    outcomes: Sequence[QueryOutcome],
    bounds: tuple[Bounds, ...],
    *,
    sampled: int,
    mean: float,
    deviation: float,
) -> Settlement:
    rules, alpha = question.rules, question.wear.alpha
    _, worst, best = bounds
    target = 0.0 if rules.must_be_better else -rules.ndcg_margin
    if sampled < TRAFFIC_FLOOR:
        more = TRAFFIC_FLOOR - sampled
        text = (
            f"seen {sampled} families in split traffic; wanted a random sample of at least {TRAFFIC_FLOOR}: add {more}"
        )
        return Settlement("B", Reason.TOO_FEW_QUERIES, text, more)
    might_pass = best.lower > target or (best.lower == target and not rules.must_be_better)
    if worst != best and (might_pass or worst.upper < -rules.ndcg_margin):
        pairs = pairs_of(widest_differences(outcomes))
        text = f"label up to {len(pairs)} (query, product) pairs, the first ones first: the difference hangs on them"
        return Settlement("B", Reason.UNJUDGED_RESULTS, text, None, pairs)
    wanted = families_for_mean(mean, deviation, target, rules.ndcg_margin, alpha)
    families = len({outcome.query.family for outcome in outcomes})
    scaled = None if wanted is None else max(math.ceil(wanted * sampled / families), sampled + 1)
    return too_few("B", "traffic families", sampled, scaled)
