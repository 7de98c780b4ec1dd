"""Gate D, the rules that know no margin, and A/A: does the incumbent repeat itself?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from searchops_workers.holdout.outcomes import QueryOutcome, compare, count_losses
from searchops_workers.holdout.runs import Legs
from searchops_workers.holdout.settling import pairs_of, widest_differences
from searchops_workers.holdout.verdicts import Figure, GateResult, Reason, Settlement, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from searchops_workers.holdout.format import Holdout
    from searchops_workers.holdout.inputs import GateInput
    from searchops_workers.holdout.outcomes import Side
    from searchops_workers.holdout.runs import Run

JUDGED_FLOOR = 0.8
JUDGED_DISTANCE = 0.05
OVERLAP_FLOOR = 0.99
NAMED = 5
"""How many ids a message names; the evidence has them all."""


@dataclass(frozen=True, slots=True)
class Check:
    """One hard rule."""

    name: str
    state: State
    message: str
    reason: Reason = Reason.NONE
    settlement: Settlement | None = None


def gate_d(question: GateInput, outcomes: Sequence[QueryOutcome]) -> GateResult:
    """All hard rules; the strictest answer is the gate's."""
    checks = [
        check_hashes(question),
        check_vectors(question),
        check_results(question),
        check_lexical_lists(question),
        check_pinned(outcomes),
        check_judged(question, outcomes),
    ]
    return strictest(checks)


def strictest(checks: Sequence[Check]) -> GateResult:
    """Gate D of some rules: the strictest answer, with every rule that gave it."""
    for state in (State.INVALID, State.REGRESSED, State.INCONCLUSIVE):
        hit = [check for check in checks if check.state is state]
        if hit:
            message = "; ".join(check.message for check in hit)
            return GateResult("D", state, message, hit[0].reason, _figures(checks), hit[0].settlement)
    return GateResult("D", State.PASS, "all hard rules hold", figures=_figures(checks))


def _figures(checks: Iterable[Check]) -> dict[str, Figure]:
    return {
        "checks": [
            {"name": check.name, "state": check.state.value, "message": check.message, "reason": check.reason.value}
            for check in checks
        ]
    }


def check_hashes(question: GateInput) -> Check:
    """Both sides saw the same holdout, labels, catalogue and settings."""
    wrong = [check for check in question.hashes if check.wanted != check.seen]
    if wrong:
        message = "; ".join(f"{check.name}: seen {check.seen}, wanted {check.wanted}" for check in wrong)
        return Check(
            "hashes", State.INVALID, f"{message}; evaluate both sides again on one holdout", Reason.HASH_MISMATCH
        )
    if not question.hashes:
        return Check("hashes", State.NOT_TESTED, "no digests were given to compare")
    return Check("hashes", State.PASS, f"{len(question.hashes)} digests as wanted")


def check_vectors(question: GateInput) -> Check:
    """Finite, of the right dimension, of unit norm. A broken incumbent is a broken measurement, not a regression."""
    if question.incumbent_vectors is not None and (problems := question.incumbent_vectors.problems()):
        return Check("vectors", State.INVALID, "; ".join(problems), Reason.EVALUATION_FAILED)
    if question.vectors is None:
        return Check("vectors", State.NOT_TESTED, "no vectors were looked at")
    if problems := question.vectors.problems():
        return Check("vectors", State.REGRESSED, "; ".join(problems), Reason.VECTORS_BROKEN)
    return Check("vectors", State.PASS, f"{question.vectors.vectors} vectors finite, of unit norm and right dimension")


def check_results(question: GateInput) -> Check:
    """Every gated query was answered by both sides, and nothing else was asked."""
    if question.failures:
        message = f"the evaluation failed: {'; '.join(question.failures[:NAMED])}; run it again"
        return Check("results", State.INVALID, message, Reason.EVALUATION_FAILED)
    gated = question.holdout.gated
    runs = [question.incumbent, question.candidate, *([question.repeat] if question.repeat is not None else [])]
    for run in runs:
        found = incomplete(question.holdout, run)
        if found is not None:
            return Check("results", State.INVALID, found[1], found[0])
    return Check("results", State.PASS, f"{len(gated)} queries answered by both sides")


def incomplete(holdout: Holdout, run: Run) -> tuple[Reason, str] | None:
    """Why a run does not answer this holdout: queries without a result, or with one that the holdout does not have."""
    missing = [query.id for query in holdout.gated if query.id not in run.rankings]
    unknown = sorted(set(run.rankings) - {query.id for query in holdout.queries})
    if missing and unknown:
        return Reason.MISSING_RESULTS, (
            f"{run.name}: seen no result for {len(missing)} of {len(holdout.gated)} queries ({_some(missing)}), and "
            f"results for {len(unknown)} that the holdout does not have ({_some(unknown)}); wanted a run over this "
            "holdout; check which holdout it was made on"
        )
    if missing:
        return Reason.MISSING_RESULTS, (
            f"{run.name}: seen no result for {len(missing)} of {len(holdout.gated)} queries ({_some(missing)}); "
            "wanted all; run it again (a search that finds nothing is the line 'qid Q0 - 0 0 tag')"
        )
    if unknown:
        return Reason.UNKNOWN_QUERIES, (
            f"{run.name}: seen results for {len(unknown)} queries unknown to the holdout ({_some(unknown)}); "
            "wanted a run over this holdout; check which holdout it was made on"
        )
    return None


def check_lexical_lists(question: GateInput) -> Check:
    """A list that no vector took part in cannot depend on the model: if it differs, something else does too.

    For the first model the incumbent is lexical everywhere, so only the candidate says which lists must be equal.
    """
    first = question.rules.must_be_better
    compared = 0
    wrong: list[str] = []
    for query in question.holdout.gated:
        before = question.incumbent.rankings.get(query.id)
        after = question.candidate.rankings.get(query.id)
        if before is None or after is None or before.legs is None or after.legs is None:
            continue
        if after.legs is Legs.LEXICAL or (before.legs is Legs.LEXICAL and not first):
            compared += 1
            same = before.products[: question.holdout.k] == after.products[: question.holdout.k]
            if not same or before.legs is not after.legs:
                wrong.append(query.id)
    if wrong:
        message = (
            f"{len(wrong)} lexical-only queries are answered or routed differently ({_some(wrong)}); "
            "wanted equal lists; evaluate both sides on one index, analyser and profile"
        )
        return Check("lexical lists", State.INVALID, message, Reason.LEXICAL_LISTS_DIFFER)
    if compared == 0:
        return Check("lexical lists", State.NOT_TESTED, "the runs mark no query as lexical-only")
    return Check("lexical lists", State.PASS, f"{compared} lexical-only lists are equal")


def check_pinned(outcomes: Sequence[QueryOutcome]) -> Check:
    """A pinned query may never be lost."""
    pinned = [outcome for outcome in outcomes if outcome.query.pinned]
    certain = [outcome.query.id for outcome in pinned if outcome.lost.best]
    possible = [outcome for outcome in pinned if outcome.lost.worst and not outcome.lost.best]
    if certain:
        message = f"{len(certain)} pinned queries lost ({_some(certain)}); wanted none"
        return Check("pinned", State.REGRESSED, message, Reason.PINNED_LOST)
    if possible:
        pairs = pairs_of(possible)
        message = f"{len(possible)} pinned queries may be lost ({_some([one.query.id for one in possible])})"
        settlement = Settlement("D", Reason.UNJUDGED_RESULTS, f"{message}: label {len(pairs)} pairs", None, pairs)
        return Check("pinned", State.INCONCLUSIVE, message, Reason.UNJUDGED_RESULTS, settlement)
    return Check("pinned", State.PASS if pinned else State.NOT_TESTED, f"{len(pinned)} pinned queries, none lost")


def check_judged(question: GateInput, outcomes: Sequence[QueryOutcome]) -> Check:
    """Enough of what is shown has been judged, and about as much on both sides.

    What stands at the same rank on both sides needs no label: whatever its grade is, it is the same for both.
    """
    counted = [outcome for outcome in outcomes if outcome.counted]
    k = question.holdout.k
    shares = judged_shares(counted)
    message = f"judged@{k} {shares[0]:.1%} and {shares[1]:.1%}"
    before = _mean([_known(outcome.incumbent, outcome.candidate) for outcome in counted])
    after = _mean([_known(outcome.candidate, outcome.incumbent) for outcome in counted])
    if min(before, after) >= JUDGED_FLOOR and abs(after - before) <= JUDGED_DISTANCE:
        return Check("judged", State.PASS, message)
    pairs = pairs_of(widest_differences(counted))
    text = (
        f"{message}, and {before:.1%} and {after:.1%} with what stands at the same rank on both sides; wanted at least "
        f"{JUDGED_FLOOR:.0%}, {JUDGED_DISTANCE:.0%} apart at most: label {len(pairs)} pairs"
    )
    settlement = Settlement("D", Reason.UNJUDGED_RESULTS, text, None, pairs)
    return Check("judged", State.INCONCLUSIVE, text, Reason.UNJUDGED_RESULTS, settlement)


def judged_shares(outcomes: Iterable[QueryOutcome]) -> tuple[float, float]:
    """Mean judged@k of both sides, wherever the products stand."""
    counted = [outcome for outcome in outcomes if outcome.counted]
    return _mean([one.incumbent.judged for one in counted]), _mean([one.candidate.judged for one in counted])


def _known(side: Side, other: Side) -> float | None:
    """judged@k of one side, products that the other has at the same rank taken as judged; None: nothing is shown."""
    if side.judged == 1.0:
        return 1.0
    same = [product == beside for product, beside in zip_longest(side.top, other.top)]
    known = sum(grade is not None or equal for grade, equal in zip(side.grades, same, strict=False))
    return known / len(side.top) if side.top else None


def _mean(shares: Sequence[float | None]) -> float:
    known = [share for share in shares if share is not None]
    return math.fsum(known) / len(known) if known else 1.0


def gate_repeat(question: GateInput) -> GateResult:
    """A/A: the incumbent, encoded in another batch order on a rebuilt index, must repeat itself; no margin applies."""
    if question.repeat is None:
        return GateResult("A/A", State.NOT_TESTED, "the incumbent was not evaluated twice")
    return repeatability(question, question.incumbent, question.repeat)


def repeatability(question: GateInput, run: Run, repeat: Run) -> GateResult:
    """0 lost, mean RBO ≥ 0.99, |ΔnDCG| ≤ m/4."""
    outcomes = compare(question.holdout, run, repeat)
    lost = count_losses(outcomes).lost
    overlap = _mean([outcome.overlap for outcome in outcomes])
    counted = [outcome.delta.observed for outcome in outcomes if outcome.counted]
    delta = math.fsum(counted) / len(counted) if counted else 0.0
    allowed = question.rules.ndcg_margin / 4
    figures: dict[str, Figure] = {"lost": lost, "meanOverlap": overlap, "delta": delta, "allowedDelta": allowed}
    message = f"the incumbent against itself: {lost} lost, mean RBO {overlap:.4f}, nDCG {delta:+.4f}"
    if lost == 0 and overlap >= OVERLAP_FLOOR and abs(delta) <= allowed:
        return GateResult("A/A", State.PASS, message, figures=figures)
    message += (
        f"; wanted 0, at least {OVERLAP_FLOOR} and at most ±{allowed:.4f}; look for an unsettled index or encoder"
    )
    return GateResult("A/A", State.INVALID, message, Reason.NOT_REPRODUCIBLE, figures)


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:NAMED])
    return shown if len(ids) <= NAMED else f"{shown}, …"
