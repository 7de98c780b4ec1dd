"""The gate: CPU time of a verdict, and how often the whole rule is wrong where the truth is known.

`BENCH_TRIALS` (default 2,000) are the evaluations of each promise; a point of a curve has a tenth of them.
`BENCH_ELECTRONICS` is where the rated electronics shop is, if it is anywhere.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scale import gate_electronics, gate_points, gate_resampling
from scale.figures import Bench, Target
from searchops_sandbox.fixtures.check import STEPS
from searchops_sandbox.fixtures.evaluation import Shop
from searchops_workers.holdout.bootstrap import RESAMPLES
from searchops_workers.holdout.calibration import FORMER_ANCHORED, FORMER_JUDGED, Tally
from searchops_workers.holdout.decide import decide, decide_compared
from searchops_workers.holdout.hard_rules import gate_repeat
from searchops_workers.holdout.inputs import SEED, Anchor, GateInput, Rules
from searchops_workers.holdout.verdicts import Outcome, State
from searchops_workers.holdout.worlds import Truth
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.scale, pytest.mark.timeout(3600)]

QUERIES = 1_000
REPEATS = 5
TRIALS = int(os.environ.get("BENCH_TRIALS", "2000"))
PROCESSES = len(os.sched_getaffinity(0))
BENCH = Bench("gate")
PROMISES = {
    "pass": Target("<=", gate_points.PASS_AT_MARGIN),
    "regressed": Target("<=", gate_points.REGRESSED_IF_EQUAL),
}


def test_deciding_on_a_thousand_queries(tmp_path: Path) -> None:
    unjudged = {f"p{number}-{place}" for number in range(0, QUERIES, 10) for place in (7, 8)}
    world = make_world(tmp_path / "core", QUERIES, unjudged=unjudged)
    lost = {f"q{number}" for number in range(101, QUERIES, 101) if number % 5}  # of every class but codes
    anchors = tuple(Anchor(one.id, 1.0) for one in world.holdout.queries)
    question = world.ask(world.losing(lost), resamples=RESAMPLES, anchored=anchors, repeat=world.perfect)
    seconds, verdicts = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        verdicts.append(decide(question))
        seconds.append(time.process_time() - start)
    BENCH.record(
        f"gate: one verdict on {QUERIES} queries × {RESAMPLES} resamples",
        seconds,
        "CPU s",
        Target("<=", 5),
        without="reading the holdout and the runs, retrieval, encoding",
    )
    first = verdicts[0]
    assert {gate.gate: gate.state for gate in first.gates}["A/A"] is State.PASS
    assert all(gate.state is not State.NOT_TESTED for gate in first.gates if gate.gate in ("A", "A'", "B", "D", "A/A"))
    assert (first.outcome, first.lost, first.of) == (Outcome.PASS, len(lost), QUERIES)
    assert all(verdict == first for verdict in verdicts)
    assert decide(world.ask(world.losing({f"q{number}" for number in range(200)}))).outcome is Outcome.REGRESSED


@pytest.fixture(scope="module")
def measured() -> dict[gate_points.Point, Tally]:
    return dict(gate_points.measured(gate_points.POINTS, TRIALS, PROCESSES))


def test_the_whole_rule_in_simulated_worlds_keeps_its_two_promises(measured: dict[gate_points.Point, Tally]) -> None:
    doubtful = []
    for point, seen in measured.items():
        if not record(point, seen):
            doubtful.append(point)
    again = [replace(point, curve="again") for point in doubtful]
    for point, seen in gate_points.measured(again, 3 * TRIALS, PROCESSES, SEED + gate_points.AGAIN):
        assert record(point, seen), point


def record(point: gate_points.Point, seen: Tally) -> bool:
    """Record a point; False where it does not show what is promised of it.

    The exact level of gate A is 4.6 % at 210 families: one seed in some hundreds shows more than 5 % of 2,000. What
    does so is asked again on three times as many other candidates, and both figures are told.
    """
    value = seen.regressed() if point.promise == "regressed" else seen.passed()
    target = PROMISES.get(point.promise)
    unit = "P(Regressed)" if point.promise == "regressed" else "P(Pass)"
    BENCH.record(point.figure, [value], unit, target, **gate_points.details(point, seen))
    return target is None or target.holds(value)


def test_every_rule_earns_its_place_and_the_changed_ones_do_so_only_as_they_are_now(
    measured: dict[gate_points.Point, Tally],
) -> None:
    """Each gate has a world in which leaving it out promotes what it stops; what is equal passes with all of them."""
    chosen = {point: tally for point, tally in measured.items() if point.curve in ("rules", "erosion", "unjudged")}
    seen = {(point.label, point.x): tally for point, tally in chosen.items()}
    by_label = {point.label: tally for point, tally in chosen.items() if point.curve == "rules"}
    for rule, label in (
        ("A", "loses 5 % of what was right, gains 30 % of the rest"),
        ("A'", "loses 2 % after promotions that lost 6 %"),
        ("B", "a fifth of the lists is worse, nothing lost"),
        ("C", "one language of 25 families loses 40 %"),
        ("D", "one pinned code in fifty is lost"),
    ):
        assert by_label[label].passed(rule) >= by_label[label].passed() + 0.25, (rule, label)
    twin = seen["equal repackaging", 0.04]
    assert (twin.passed(), twin.regressed()) == (1.0, 0.0)
    assert twin.regressed(FORMER_ANCHORED) >= 0.9
    sparse = seen["the same lists repackaged", 0.3]
    assert sparse.passed() == 1.0
    assert sparse.passed(FORMER_JUDGED) == 0.0
    assert all(tally.passed("judged") == tally.passed() for (label, _), tally in seen.items() if "losing" in label)


def test_ten_candidates_in_a_row() -> None:
    fleets = max(10, TRIALS // 10)
    for label, shares in gate_points.attempts(fleets, PROCESSES).items():
        target = Target("<=", 2 * gate_points.PASS_AT_MARGIN) if label == "with wear" else None
        value = BENCH.record(
            f"gate, attempts: {label}",
            [shares[-1]],
            "P(any of ten passes)",
            target,
            curve="attempts",
            label=label,
            shares=shares,
            trials=fleets,
        )
        assert target is None or TRIALS < 2000 or target.holds(value)


def test_fewer_draws_of_the_bootstrap_change_no_rate() -> None:
    """The trials use 1,000 draws: here the same candidates are asked with 10,000, which is what the gate uses."""
    trials = max(20, TRIALS * 3 // 20)
    points = [
        gate_points.Point("draws", str(draws), 210, Truth(good=210, sag=0.03, loss=0.01, resamples=draws), 1.0)
        for draws in (1000, RESAMPLES)
    ]
    found: dict[tuple[str, float], Tally] = {}
    for point, seen in gate_points.measured(points, trials, PROCESSES):
        BENCH.record(point.figure, [seen.passed()], "P(Pass)", **gate_points.details(point, seen))
        found[point.label, point.x] = seen
    few, many = found["1000", 210], found[str(RESAMPLES), 210]
    assert abs(few.passed() - many.passed()) <= 0.05
    assert abs(few.regressed() - many.regressed()) <= 0.05


def test_evaluations_resampled_from_real_models_keep_the_promises_too() -> None:
    gate_resampling.ladder_runs()
    generator = np.random.Generator(np.random.PCG64(SEED))
    for pair in gate_resampling.PAIRS:
        trial = gate_resampling.resampling(pair).trial(210, 0.05, generator)
        fast = decide_compared(trial.question, trial.outcomes, gate_repeat(trial.question))
        assert fast == decide(trial.question)
    sums = {"pass": Tally(), "regressed": Tally()}
    for pair, good, loss, seen in gate_resampling.measured(TRIALS, PROCESSES):
        promise = gate_resampling.promise(pair, good, loss)
        if promise:
            sums[promise] += seen
        point = gate_points.Point(
            "resampled", f"{pair.incumbent} → {pair.candidate}, {good}", loss, Truth(), 1.0, promise
        )
        BENCH.record(point.figure, [seen.passed()], "P(Pass)", **gate_points.details(point, seen))
    passed, regressed = sums["pass"].passed(), sums["regressed"].regressed()
    BENCH.record(
        "gate, resampled: P(Pass) at a true loss of δ",
        [passed],
        "P(Pass)",
        PROMISES["pass"],
        trials=sums["pass"].trials,
    )
    BENCH.record(
        "gate, resampled: P(Regressed) of an equal model",
        [regressed],
        "P(Regressed)",
        PROMISES["regressed"],
        trials=sums["regressed"].trials,
    )
    assert PROMISES["pass"].holds(passed)
    assert PROMISES["regressed"].holds(regressed)


def test_the_ladder_of_real_models_gets_the_verdicts_it_must() -> None:
    runs, shop = gate_resampling.ladder_runs(), Shop.committed()
    wrong = []
    for step in STEPS:
        verdict = decide(GateInput(shop.holdout, runs[step.incumbent], runs[step.candidate], Rules.of(step.change)))
        holds = verdict.outcome.value in step.outcomes and step.holds(verdict)
        name = f"{step.incumbent} → {step.candidate}"
        BENCH.record(
            f"gate, ladder: {name}",
            [float(holds)],
            "as it must",
            Target("==", 1),
            curve="ladder",
            label=name,
            change=step.change.value,
            outcome=verdict.outcome.value,
            lost=verdict.lost,
            of=verdict.of,
            ndcgDelta=verdict.ndcg_delta,
            ndcgInterval=verdict.ndcg_interval,
            wanted=step.wanted,
        )
        if not holds:
            wrong.append(f"{name}: {verdict.outcome}, {verdict.message}; wanted {step.wanted}")
    assert not wrong


def test_electronics_is_reported_where_it_is_at_hand(tmp_path: Path) -> None:
    place = gate_electronics.PLACE
    if not place.is_dir():
        BENCH.record(
            "gate, electronics: not here", [0.0], "steps", curve="electronics", label="not here", place=str(place)
        )
        return
    found = gate_electronics.measured(place, tmp_path, gate_resampling.CACHE)
    for step in found:
        name = f"{step['incumbent']} → {step['candidate']}"
        BENCH.record(
            f"gate, electronics: {name}", [step["good"]], "Good queries", curve="electronics", label=name, **step
        )
    assert len(found) == len(gate_electronics.STEPS)
    assert all(step["good"] > 0 and 0 <= step["lost"] <= step["good"] for step in found)
