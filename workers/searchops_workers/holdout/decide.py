"""The verdict: a pure function of what was asked.

Precedence, from the top:

1. digests differ: *Invalid*, nothing that was measured means anything;
2. the candidate's vectors are broken: *Regressed*, which needs neither labels nor lists;
3. anything else that makes the measurement worthless (results missing, lexical lists that differ, an incumbent that
   does not repeat itself): *Invalid*;
4. any gate Regressed: *Regressed*;
5. the holdout is worn: *Inconclusive*, it may no longer promote anything;
6. all gates pass: *Pass*, or *Better* if gate B is;
7. else *Inconclusive*, with what would settle it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops_workers.holdout.gates import gate_a, gate_anchored, gate_b
from searchops_workers.holdout.hard_rules import check_hashes, check_vectors, gate_d, gate_repeat
from searchops_workers.holdout.multiplicity import MAX_ATTEMPTS
from searchops_workers.holdout.outcomes import QueryOutcome, compare
from searchops_workers.holdout.slices import gate_c
from searchops_workers.holdout.verdicts import GateResult, Outcome, Reason, Settlement, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from searchops_workers.holdout.inputs import GateInput

_REASON_ORDER = (Reason.HOLDOUT_WORN, Reason.UNJUDGED_RESULTS, Reason.NOISY_LABELS, Reason.TOO_FEW_QUERIES)
_OPTIONAL = ("A'", "A/A")
"""Gates that need more than two runs; without it they are NotTested and do not stand in the way."""
_NOT_EVALUATED = "not evaluated: the measurement is not valid"


def decide(question: GateInput) -> Verdict:
    """Answer a question; equal questions get equal answers, to the last digit."""
    outcomes = compare(question.holdout, question.incumbent, question.candidate)
    return decide_compared(question, outcomes, gate_repeat(question))


def decide_compared(question: GateInput, outcomes: tuple[QueryOutcome, ...], repeat: GateResult) -> Verdict:
    """Answer a question whose lists are compared already: the calibration asks many with the same lists in them.

    Args:
        question: what is asked.
        outcomes: `compare` of its incumbent and candidate.
        repeat: `gate_repeat` of the question.
    """
    hard = gate_d(question, outcomes)
    broken = _broken_vectors(question, hard)
    if broken is None and State.INVALID in (hard.state, repeat.state):
        skipped = tuple(GateResult(name, State.NOT_TESTED, _NOT_EVALUATED) for name in ("A", "A'", "B", "C"))
        gates = (*skipped, hard, repeat)
        bad = [gate for gate in (hard, repeat) if gate.state is State.INVALID]
        message = "; ".join(f"{gate.gate}: {gate.message}" for gate in bad)
        return _verdict(question, Outcome.INVALID, bad[0].reason, message, gates, (), ())
    gates = (
        gate_a(question, outcomes),
        gate_anchored(question, outcomes),
        gate_b(question, outcomes),
        gate_c(question, outcomes),
        broken or hard,
        repeat,
    )
    return _combine(question, gates, outcomes)


def _broken_vectors(question: GateInput, hard: GateResult) -> GateResult | None:
    """Gate D when only the candidate's vectors are at fault, whatever else they have broken on the way."""
    vectors = check_vectors(question)
    if vectors.state is not State.REGRESSED or check_hashes(question).state is State.INVALID:
        return None
    return GateResult("D", State.REGRESSED, vectors.message, vectors.reason, hard.figures)


def _combine(question: GateInput, gates: tuple[GateResult, ...], outcomes: tuple[QueryOutcome, ...]) -> Verdict:
    outcome = combined(gates, worn=question.wear.worn)
    if outcome is Outcome.REGRESSED:
        regressed = [gate for gate in gates if gate.state is State.REGRESSED]
        regressed.sort(key=lambda gate: gate.gate != "D")
        message = "; ".join(f"{gate.gate}: {gate.message}" for gate in regressed)
        return _verdict(question, outcome, regressed[0].reason, message, gates, (), outcomes)
    settlements = [_settlement(gate) for gate in gates if not _passes(gate)]
    if question.wear.worn:
        text = (
            f"these families were asked {max(question.wear.total, question.wear.recent)} times, {MAX_ATTEMPTS} is the "
            "limit: rotate in families that no candidate was tried on (a new version of the holdout)"
        )
        if question.wear.lost:
            text += (
                f"; {len(question.wear.lost)} of these attempts count for every family, since their evidence is lost "
                f"or damaged ({question.wear.lost[0]} first): restore it where it still is"
            )
        settlements.insert(0, Settlement("wear", Reason.HOLDOUT_WORN, text))
    if outcome is not Outcome.INCONCLUSIVE:
        reason = Reason.BETTER_ON_TRAFFIC if outcome is Outcome.BETTER else Reason.ALL_GATES_PASS
        message = "; ".join(f"{gate.gate}: {gate.message}" for gate in gates if gate.gate in ("A", "B"))
        return _verdict(question, outcome, reason, message, gates, (), outcomes)
    ordered = tuple(sorted(settlements, key=lambda one: _REASON_ORDER.index(one.reason)))
    message = "; ".join(f"{one.gate}: {one.text}" for one in ordered)
    return _verdict(question, outcome, ordered[0].reason, message, gates, ordered, outcomes)


def combined(gates: Iterable[GateResult], *, worn: bool) -> Outcome:
    """What valid gates say together: any Regressed vetoes, all must pass, and a worn holdout promotes nothing."""
    gates = tuple(gates)
    if any(gate.state is State.REGRESSED for gate in gates):
        return Outcome.REGRESSED
    if worn or not all(map(_passes, gates)):
        return Outcome.INCONCLUSIVE
    better = any(gate.gate == "B" and gate.state is State.BETTER for gate in gates)
    return Outcome.BETTER if better else Outcome.PASS


def _passes(gate: GateResult) -> bool:
    return gate.state in (State.PASS, State.BETTER) or (gate.state is State.NOT_TESTED and gate.gate in _OPTIONAL)


def _settlement(gate: GateResult) -> Settlement:
    return gate.settlement or Settlement(gate.gate, Reason.TOO_FEW_QUERIES, gate.message)


def _verdict(
    question: GateInput,
    outcome: Outcome,
    reason: Reason,
    message: str,
    gates: tuple[GateResult, ...],
    settlements: tuple[Settlement, ...],
    outcomes: tuple[QueryOutcome, ...],
) -> Verdict:
    by_name = {gate.gate: gate.figures for gate in gates}
    shares, graded = by_name["A"], by_name["B"]
    return Verdict(
        outcome=outcome,
        reason=reason,
        message=message,
        alpha=question.wear.alpha,
        lost=int(_number(shares.get("lost")) or 0),
        of=int(_number(shares.get("families")) or 0),
        loss_bound=_number(shares.get("upper")),
        ndcg_delta=_number(graded.get("delta")),
        ndcg_interval=_interval(_number(graded.get("lower")), _number(graded.get("upper"))),
        gates=gates,
        settlements=settlements,
        outcomes=outcomes,
    )


def _number(figure: object) -> float | None:
    return float(figure) if isinstance(figure, int | float) else None


def _interval(lower: float | None, upper: float | None) -> tuple[float, float] | None:
    return None if lower is None or upper is None else (lower, upper)
