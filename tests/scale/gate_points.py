"""What `make bench-gate` asks of the gate in simulated worlds: one point a figure, most of them of a curve."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from multiprocessing import get_context
from operator import add
from typing import TYPE_CHECKING, Any, Final

from searchops_workers.holdout.calibration import (
    FORMER_ANCHORED,
    FORMER_JUDGED,
    LEFT_OUT,
    LOSSES,
    PROMOTED,
    SIZES,
    TRIALS_A_HOLDOUT,
    Tally,
    let_through,
    tally,
)
from searchops_workers.holdout.inputs import SEED, Change, Rules
from searchops_workers.holdout.verdicts import Outcome
from searchops_workers.holdout.worlds import Truth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PASS_AT_MARGIN: Final = 0.05
REGRESSED_IF_EQUAL: Final = 0.02
CURVE_SHARE: Final = 10
"""A point of a curve has so much less than the trials of a promise."""
TWIN_VARIATION: Final = 0.03
"""Share of families whose lists a repackaged model changes."""
AGAIN: Final = 1_000_000
"""Added to the seed where a promise is asked again: other holdouts and other candidates."""
GAIN: Final = 0.3
PROMISED_WITH_GAINS: Final = (210, 500)
ERODED: Final = (0.0, 0.02, 0.04, 0.06, 0.08)
UNJUDGED: Final = (0.0, 0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True, slots=True)
class Point:
    """One truth, asked so many times.

    Attributes:
        curve: what it is a point of.
        label: which one.
        x: where it stands on the curve.
        share: of the trials of a promise: 1, or less for what is only shown.
        promise: ``pass`` (P(Pass) ≤ 5 %), ``regressed`` (P(Regressed) ≤ 2 %), or nothing.
    """

    curve: str
    label: str
    x: float
    truth: Truth
    share: float = 1 / CURVE_SHARE
    promise: str = ""

    @property
    def figure(self) -> str:
        """The name of its figure."""
        return f"gate, {self.curve}: {self.label} at {self.x:g}"


def by_loss() -> Iterator[Point]:
    """Verdicts by true loss and size, without and with gains; the two promises are points of these curves."""
    margin = Rules.of(Change.MODEL).loss_margin
    for curve, gain in (("loss", 0.0), ("loss with gains", GAIN)):
        for good in SIZES:
            for loss in LOSSES:
                truth = Truth(good=good, loss=loss, gain=gain)
                promise = ""
                if loss == margin and (not gain or good in PROMISED_WITH_GAINS):
                    promise = "pass"
                elif loss == 0.0 and not gain:
                    promise = "regressed"
                yield Point(curve, str(good), loss, truth, 1.0 if promise else 1 / CURVE_SHARE, promise)


def by_change() -> Iterator[Point]:
    """The other two kinds of change, with their own margins, at 500 Good families."""
    for change, gain, variation, losses in (
        (Change.REPACKAGE, 0.0, TWIN_VARIATION, (0.0, 0.005, 0.01, 0.02, 0.035, 0.05)),
        (Change.FIRST, GAIN, Truth().variation, (0.0, 0.02, 0.05, 0.07, 0.10, 0.15)),
    ):
        for loss in losses:
            truth = Truth(good=500, loss=loss, gain=gain, variation=variation, change=change)
            promise = {0.0: "regressed", Rules.of(change).loss_margin: "pass"}.get(loss, "")
            yield Point("change", change.value, loss, truth, 1.0 if promise else 1 / CURVE_SHARE, promise)


def by_queries() -> Iterator[Point]:
    """Queries of a family lost together: counted as families, and as if they were independent."""
    margin = Rules.of(Change.MODEL).loss_margin
    for declared, label in ((True, "families"), (False, "queries")):
        for queries in (1, 2, 3, 5):
            truth = Truth(good=210, loss=margin, gain=GAIN, queries=queries, declared=declared)
            yield Point("queries", label, queries, truth, 0.2)


def by_erosion() -> Iterator[Point]:
    """What earlier promotions have lost, and what gate A′ makes of it."""
    for label, truth in (
        ("equal model", Truth()),
        ("model losing 2 %", Truth(loss=0.02, gain=GAIN)),
        ("equal repackaging", Truth(change=Change.REPACKAGE, variation=TWIN_VARIATION)),
        ("repackaging losing 0.5 %", Truth(loss=0.005, change=Change.REPACKAGE, variation=TWIN_VARIATION)),
    ):
        for eroded in ERODED:
            yield Point("erosion", label, eroded, replace(truth, eroded=eroded), 0.075)


def by_unjudged() -> Iterator[Point]:
    """What nobody judged: products that only the candidate shows, and half as many of the others."""
    margin = Rules.of(Change.MODEL).loss_margin
    for label, truth in (
        ("equal model", Truth(good=300)),
        ("model losing δ", Truth(good=300, loss=margin, gain=GAIN)),
        ("model losing δ, unjudged counted as irrelevant", Truth(good=300, loss=margin, gain=GAIN)),
        ("equal model, unjudged counted as irrelevant", Truth(good=300)),
        ("the same lists repackaged", Truth(good=300, change=Change.REPACKAGE, variation=0.0)),
        ("equal repackaging", Truth(good=300, change=Change.REPACKAGE, variation=TWIN_VARIATION)),
    ):
        for share in UNJUDGED:
            before = share if truth.change is Change.REPACKAGE else share / 2
            zero = label.endswith("irrelevant")
            asked = replace(truth, unjudged=share, unjudged_before=before, unjudged_is_zero=zero)
            yield Point("unjudged", label, share, asked, 0.075)


def by_rule() -> Iterator[Point]:
    """Worlds that one rule or another is there for, and those in which it costs something."""
    for number, (label, truth) in enumerate(SCENARIOS.items()):
        yield Point("rules", label, number, truth, 0.2)


SCENARIOS: Final = {
    "an equal model": Truth(),
    "a better model: nothing lost, 30 % gained": Truth(gain=GAIN),
    "loses 5 % of what was right, gains 30 % of the rest": Truth(loss=0.05, gain=GAIN),
    "loses 7 %, gains 30 %": Truth(loss=0.07, gain=GAIN),
    "a fifth of the lists is worse, nothing lost": Truth(sag=0.2),
    "one language of 25 families loses 40 %": Truth(local=0.4),
    "one code in ten falls to the second place": Truth(slips=0.1),
    "finds nothing for 6 % of the hard queries": Truth(silenced=0.06),
    "loses 2 % after promotions that lost 6 %": Truth(loss=0.02, gain=GAIN, eroded=0.06),
    "one pinned code in fifty is lost": Truth(pinned_lost=0.02),
}


POINTS: Final = (*by_loss(), *by_change(), *by_queries(), *by_erosion(), *by_unjudged(), *by_rule())


def measured(points: Sequence[Point], trials: int, processes: int, seed: int = SEED) -> Iterator[tuple[Point, Tally]]:
    """The points with their tallies, in order.

    Args:
        points: to be asked.
        trials: of a promise.
        processes: at work at one time.
        seed: of worlds and candidates.
    """
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting = []
        for point in points:
            wanted = max(1, round(trials * point.share))
            sizes = [min(TRIALS_A_HOLDOUT, wanted - start) for start in range(0, wanted, TRIALS_A_HOLDOUT)]
            waiting.append(
                [pool.submit(tally, point.truth, size, seed + 1000 * part) for part, size in enumerate(sizes)]
            )
        for point, parts in zip(points, waiting, strict=True):
            yield point, reduce(add, (part.result() for part in parts))


def details(point: Point, seen: Tally) -> dict[str, Any]:
    """What a reader and the plot need of a point."""
    passed, regressed = seen.interval(*PROMOTED), seen.interval(Outcome.REGRESSED)
    return {
        "curve": point.curve,
        "label": point.label,
        "x": point.x,
        "trials": seen.trials,
        "promise": point.promise,
        "passed": seen.passed(),
        "passedInterval": [passed.lower, passed.upper],
        "regressed": seen.regressed(),
        "regressedInterval": [regressed.lower, regressed.upper],
        "without": {
            rule: {"passed": seen.passed(rule), "regressed": seen.regressed(rule)}
            for rule in (*LEFT_OUT, FORMER_ANCHORED, FORMER_JUDGED)
        },
    }


def attempts(fleets: int, processes: int) -> dict[str, list[float]]:
    """Share of fleets that let a candidate losing δ through within 1, 2 … ten attempts, by whether α shrinks."""
    worst = Truth(good=210, loss=Rules.of(Change.MODEL).loss_margin, gain=GAIN)
    part = 25
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting = {
            label: [
                pool.submit(let_through, worst, min(part, fleets - start), wear=wear, seed=SEED + start)
                for start in range(0, fleets, part)
            ]
            for label, wear in (("with wear", True), ("without wear", False))
        }
        return {
            label: [sum(counts) / fleets for counts in zip(*(one.result() for one in parts), strict=True)]
            for label, parts in waiting.items()
        }
