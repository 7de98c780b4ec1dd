"""How often the combined rule is wrong, measured by simulation with known truth.

The figures in `docs/statistics.md` are printed by `searchops-worker gate calibrate`; the test suite asserts the two
promises on a smaller number of trials: a model that truly loses δ passes at most 5 % of the time, an equal one is
Regressed at most 2 % of the time.

The world that is simulated: of the traffic families 70 % are Good. A truly lost family loses `TYPICAL_DROP` of nDCG,
all differences have a noise of `TYPICAL_DEVIATION` around a mean of zero, and 15 slices (3 languages, 5 classes,
6 groups, zero results) are tested by gate C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.holdout.bootstrap import family_bootstrap
from searchops_workers.holdout.gates import decide_share, graded_state
from searchops_workers.holdout.inputs import SEED, Change, Rules
from searchops_workers.holdout.intervals import ALPHA, binomial_p
from searchops_workers.holdout.multiplicity import MAX_ATTEMPTS, Wear, holm
from searchops_workers.holdout.outcomes import LossCount
from searchops_workers.holdout.power import TYPICAL_DEVIATION, TYPICAL_DROP
from searchops_workers.holdout.slices import SLICE_FLOOR
from searchops_workers.holdout.verdicts import Reason, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from searchops_workers.holdout.verdicts import Figure

GOOD_SHARE = 0.7
SLICE_SETS = (3, 5, 6)
SIZES = (210, 300, 500, 1000)
TRUE_LOSSES = (0.0, 0.01, 0.02, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One truth to be judged.

    Attributes:
        good: Good families.
        true_loss: share of them that the candidate truly loses.
        by_query: count queries as if they were independent, which the gate does *not* do: shows what it would cost.
        queries: queries of a family, lost together.
        alpha: level of the gate.
    """

    good: int
    true_loss: float
    rules: Rules
    by_query: bool = False
    queries: int = 1
    alpha: float = ALPHA


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the trials."""

    passed: float
    regressed: float

    @property
    def inconclusive(self) -> float:
        """Neither."""
        return 1 - self.passed - self.regressed


def rates(scenario: Scenario, trials: int, seed: int = SEED, resamples: int = 1000) -> Rates:
    """Shares of Pass (or Better) and Regressed among seeded trials of the combined rule."""
    generator = np.random.Generator(np.random.PCG64(seed))
    states = [_trial(scenario, generator, resamples) for _ in range(trials)]
    return Rates(states.count(State.PASS) / trials, states.count(State.REGRESSED) / trials)


def _trial(scenario: Scenario, generator: np.random.Generator, resamples: int) -> State:
    lost = generator.random(scenario.good) < scenario.true_loss
    states = (_share(scenario, lost), _graded(scenario, lost, generator, resamples), _slices(scenario, lost, generator))
    if State.REGRESSED in states:
        return State.REGRESSED
    return State.PASS if all(state in (State.PASS, State.BETTER) for state in states) else State.INCONCLUSIVE


def _share(scenario: Scenario, lost: NDArray[np.bool_]) -> State:
    weight = scenario.queries if scenario.by_query else 1
    hits, families = int(lost.sum()) * weight, scenario.good * weight
    counts = LossCount(families, hits, families, hits, hits)
    return decide_share("A", counts, scenario.rules.loss_margin, scenario.alpha, Reason.PRESERVATION_LOSS).state


def _graded(scenario: Scenario, lost: NDArray[np.bool_], generator: np.random.Generator, resamples: int) -> State:
    families = round(scenario.good / GOOD_SHARE)
    differences = generator.normal(0.0, TYPICAL_DEVIATION, families)
    differences[: scenario.good] -= TYPICAL_DROP * lost
    if scenario.by_query:
        differences = np.repeat(differences, scenario.queries)
    counts = np.ones(len(differences), dtype=np.int64)
    (bounds,) = family_bootstrap(
        differences[:, None],
        counts,
        seed=int(generator.integers(2**32)),
        resamples=resamples,
        alpha=scenario.alpha,
    )
    return graded_state(bounds, bounds, scenario.rules, sampled=len(differences), families=len(differences))


def _slices(scenario: Scenario, lost: NDArray[np.bool_], generator: np.random.Generator) -> State:
    weight = scenario.queries if scenario.by_query else 1
    p_values = [1.0]
    for number in SLICE_SETS:
        part = generator.integers(0, number, scenario.good)
        for index in range(number):
            families = int((part == index).sum()) * weight
            if families >= SLICE_FLOOR:
                p_values.append(
                    binomial_p(int(lost[part == index].sum()) * weight, families, scenario.rules.loss_margin)
                )
    return State.REGRESSED if min(holm(p_values)) <= scenario.alpha else State.PASS


def repeated(scenario: Scenario, trials: int, *, wear: bool, seed: int = SEED) -> float:
    """Share of fleets in which any of ten bad candidates in a row passes, with α halved each time or not."""
    passed = np.zeros(trials, dtype=bool)
    for attempt in range(MAX_ATTEMPTS):
        alpha = Wear(recent=attempt).alpha if wear else ALPHA
        generator = np.random.Generator(np.random.PCG64(seed + attempt))
        asked = Scenario(scenario.good, scenario.true_loss, scenario.rules, alpha=alpha)
        passed |= [_share(asked, generator.random(asked.good) < asked.true_loss) is State.PASS for _ in range(trials)]
    return float(passed.mean())


def calibration_report(trials: int, seed: int = SEED) -> dict[str, Figure]:
    """All curves, as JSON."""
    rules = Rules.of(Change.MODEL)
    curves: list[Figure] = []
    for good in SIZES:
        for loss in TRUE_LOSSES:
            seen = rates(Scenario(good, loss, rules), trials, seed)
            curves.append({"goodFamilies": good, "trueLoss": loss, "pass": seen.passed, "regressed": seen.regressed})
    delta = rules.loss_margin
    correlated: list[Figure] = []
    for queries in (1, 2, 3, 5):
        naive = rates(Scenario(300, delta, rules, by_query=True, queries=queries), trials, seed, resamples=300)
        own = rates(Scenario(300, delta, rules), trials, seed)
        correlated.append({"queries": queries, "passCountingQueries": naive.passed, "passCountingFamilies": own.passed})
    worst = Scenario(300, delta, rules)
    return {
        "trials": trials,
        "seed": seed,
        "lossMargin": delta,
        "ndcgMargin": rules.ndcg_margin,
        "curves": curves,
        "correlatedQueries": correlated,
        "tenAttempts": {
            "withWear": repeated(worst, trials, wear=True, seed=seed),
            "withoutWear": repeated(worst, trials, wear=False, seed=seed),
        },
    }
