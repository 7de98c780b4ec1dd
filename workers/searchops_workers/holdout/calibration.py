"""How often the whole rule is wrong where the truth is known, and what each part of it is worth.

Every trial is one decision of `searchops_workers.holdout.decide` about a candidate drawn in a `World`: all gates, the
unjudged worst and best case, and wear. Beside the verdict each trial tells what it would have been without each rule:
what a rule avoids, and what it costs, is the difference.

``make bench-gate`` measures the figures of docs/statistics.md; ``searchops-worker gate calibrate`` prints the main
curves on fewer trials; the tests assert the two promises on fewer still.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from searchops_workers.holdout.decide import combined
from searchops_workers.holdout.hard_rules import JUDGED_DISTANCE, JUDGED_FLOOR, judged_shares
from searchops_workers.holdout.inputs import SEED, Change, Rules
from searchops_workers.holdout.intervals import Bounds, wilson
from searchops_workers.holdout.multiplicity import MAX_ATTEMPTS, Wear
from searchops_workers.holdout.verdicts import GateResult, Outcome, State
from searchops_workers.holdout.worlds import Trial, Truth, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from searchops_workers.holdout.inputs import GateInput
    from searchops_workers.holdout.outcomes import QueryOutcome
    from searchops_workers.holdout.verdicts import Figure, Verdict

WHOLE: Final = "whole"
JUDGED: Final = "judged"
LEFT_OUT: Final = ("A", "A'", "B", "C", "D", JUDGED)
"""What the whole rule is tried without; `judged` is what gate D asks of judged@k."""
FORMER_ANCHORED: Final = "former A'"
"""Gate A′ with the margin of the change, whatever the candidate adds: as it was before the calibration changed it."""
FORMER_JUDGED: Final = "former judged"
"""judged@k wherever a product stands: the same."""
RULES: Final = (WHOLE, *LEFT_OUT, FORMER_ANCHORED, FORMER_JUDGED)
SIZES: Final = (100, 210, 300, 500, 1000)
LOSSES: Final = (0.0, 0.01, 0.02, 0.035, 0.05, 0.07, 0.10)
TRIALS_A_HOLDOUT: Final = 250
"""A holdout is drawn anew after so many candidates: a rate is over holdouts too."""
PROMOTED: Final = (Outcome.PASS, Outcome.BETTER)


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts counted.

    Attributes:
        counts: by the rule that was left out (`WHOLE`: none) and the outcome.
    """

    trials: int = 0
    counts: Mapping[tuple[str, Outcome], int] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.trials + other.trials, Counter(self.counts) + Counter(other.counts))

    def hits(self, *outcomes: Outcome, without: str = WHOLE) -> int:
        """Trials with one of these outcomes."""
        return sum(self.counts.get((without, outcome), 0) for outcome in outcomes)

    def passed(self, without: str = WHOLE) -> float:
        """Share promoted."""
        return self.hits(*PROMOTED, without=without) / self.trials

    def regressed(self, without: str = WHOLE) -> float:
        """Share rejected."""
        return self.hits(Outcome.REGRESSED, without=without) / self.trials

    def interval(self, *outcomes: Outcome, without: str = WHOLE) -> Bounds:
        """Wilson's 95 % interval of a share."""
        return wilson(self.hits(*outcomes, without=without), self.trials)


def tally(truth: Truth, trials: int, seed: int = SEED) -> Tally:
    """Verdicts about seeded candidates, a new holdout every `TRIALS_A_HOLDOUT`."""
    counts: Counter[tuple[str, Outcome]] = Counter()
    for start in range(0, trials, TRIALS_A_HOLDOUT):
        generator = np.random.Generator(np.random.PCG64((seed, start)))
        world = World(truth, seed + start)
        for _ in range(min(TRIALS_A_HOLDOUT, trials - start)):
            trial = world.trial(generator)
            counts.update(outcomes_of(world.answer(trial), trial.question).items())
    return Tally(trials, counts)


def outcomes_of(verdict: Verdict, question: GateInput) -> dict[str, Outcome]:
    """The verdict, the verdict without each rule that could be left out, and that of the former rules."""
    if verdict.outcome is Outcome.INVALID:
        return dict.fromkeys(RULES, Outcome.INVALID)
    worn = question.wear.worn
    found: dict[str, Outcome] = {WHOLE: verdict.outcome}
    for rule in LEFT_OUT:
        left = (gate for gate in verdict.gates if gate.gate != rule)
        found[rule] = combined(map(_unjudged_allowed, left) if rule == JUDGED else left, worn=worn)
    found[FORMER_ANCHORED] = combined(
        (_own_margin(gate, question.rules) if gate.gate == "A'" else gate for gate in verdict.gates), worn=worn
    )
    little = GateResult("judged", _judged_anywhere(verdict.outcomes), "")
    found[FORMER_JUDGED] = combined((*map(_unjudged_allowed, verdict.gates), little), worn=worn)
    return found


def _own_margin(gate: GateResult, rules: Rules) -> GateResult:
    """Gate A′ with the margin of the change, and for whatever was lost before."""
    upper, lower = gate.figures.get("upper"), gate.figures.get("lower")
    if not isinstance(upper, float) or not isinstance(lower, float):
        return gate
    margin = rules.loss_margin
    return replace(
        gate, state=State.PASS if upper <= margin else State.REGRESSED if lower > margin else State.INCONCLUSIVE
    )


def _judged_anywhere(outcomes: Iterable[QueryOutcome]) -> State:
    before, after = judged_shares(outcomes)
    enough = min(before, after) >= JUDGED_FLOOR and abs(after - before) <= JUDGED_DISTANCE
    return State.PASS if enough else State.INCONCLUSIVE


def _unjudged_allowed(gate: GateResult) -> GateResult:
    """Gate D without what it asks of judged@k; any other gate as it is."""
    if gate.gate != "D":
        return gate
    checks = gate.figures["checks"]
    rest = [check for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []
    states = {State(str(check["state"])) for check in rest if check["name"] != JUDGED}
    for state in (State.REGRESSED, State.INCONCLUSIVE):
        if state in states:
            return replace(gate, state=state)
    return replace(gate, state=State.PASS)


def let_through(truth: Truth, fleets: int, *, wear: bool, seed: int = SEED) -> list[int]:
    """Fleets that let any of the first 1, 2 … ten candidates in a row through, each with the same truth.

    Args:
        truth: of every candidate.
        fleets: holdouts on each of which ten candidates are tried.
        wear: each attempt halves α, as the gate does; else it is asked as if for the first time.
        seed: of holdouts and candidates.
    """
    passed = [0] * MAX_ATTEMPTS
    for fleet in range(fleets):
        generator = np.random.Generator(np.random.PCG64((seed, fleet)))
        world = World(truth, seed + fleet)
        for attempt in range(MAX_ATTEMPTS):
            trial = world.trial(generator)
            asked = replace(trial.question, wear=Wear(recent=attempt if wear else 0))
            if world.answer(Trial(asked, trial.outcomes)).promotes:
                for later in range(attempt, MAX_ATTEMPTS):
                    passed[later] += 1
                break
    return passed


def calibration_report(trials: int, seed: int = SEED) -> dict[str, Figure]:
    """The main curves, as JSON: by size and true loss, by queries a family, and by attempts."""
    curves: list[Figure] = []
    for good in SIZES:
        for loss in LOSSES:
            seen = tally(Truth(good=good, loss=loss), trials, seed)
            curves.append(
                {"goodFamilies": good, "trueLoss": loss, "pass": seen.passed(), "regressed": seen.regressed()}
            )
    margin = Rules.of(Change.MODEL).loss_margin
    correlated: list[Figure] = []
    for queries in (1, 2, 3, 5):
        naive, own = (
            tally(Truth(good=300, loss=margin, queries=queries, declared=declared), trials, seed)
            for declared in (False, True)
        )
        correlated.append(
            {"queries": queries, "passCountingQueries": naive.passed(), "passCountingFamilies": own.passed()}
        )
    fleets = max(1, trials // MAX_ATTEMPTS)
    worst = Truth(good=300, loss=margin)
    return {
        "trials": trials,
        "seed": seed,
        "lossMargin": margin,
        "curves": curves,
        "correlatedQueries": correlated,
        "tenAttempts": {
            "fleets": fleets,
            "withWear": let_through(worst, fleets, wear=True, seed=seed)[-1] / fleets,
            "withoutWear": let_through(worst, fleets, wear=False, seed=seed)[-1] / fleets,
        },
    }
