"""The two promises of the whole rule, on seeded candidates of simulated worlds, and the exact ones by enumeration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from searchops_workers.holdout.calibration import (
    FORMER_ANCHORED,
    FORMER_JUDGED,
    Tally,
    calibration_report,
    let_through,
    tally,
)
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.inputs import Change, Rules
from searchops_workers.holdout.intervals import wilson
from searchops_workers.holdout.multiplicity import Wear
from searchops_workers.holdout.outcomes import by_family
from searchops_workers.holdout.power import (
    families_for_power,
    passes_a,
    passes_b,
    smallest_loss_caught,
    smallest_loss_shown,
)
from searchops_workers.holdout.verdicts import Outcome
from searchops_workers.holdout.worlds import Truth, World

RULES = Rules.of(Change.MODEL)
TRIALS = 150
TWIN = Truth(good=300, change=Change.REPACKAGE, variation=0.03, resamples=100)
"""A repackaged model: few lists differ."""


def at_most(hits: int, promised: float, trials: int = TRIALS) -> bool:
    """Whether so many hits are what a rate within the promise may show: the whole 95 % interval is not above it."""
    return wilson(hits, trials).lower <= promised


@pytest.mark.parametrize("good", [210, 500])
@pytest.mark.parametrize("change", list(Change))
def test_a_model_that_loses_the_margin_passes_at_most_one_time_in_twenty(good: int, change: Change) -> None:
    gain = 0.3 if change is Change.FIRST else 0.0
    seen = tally(Truth(good=good, loss=Rules.of(change).loss_margin, change=change, gain=gain, resamples=300), TRIALS)
    assert at_most(seen.hits(Outcome.PASS, Outcome.BETTER), 0.05)


@pytest.mark.parametrize("good", [210, 500])
def test_an_equal_model_is_regressed_at_most_one_time_in_fifty(good: int) -> None:
    seen = tally(Truth(good=good, resamples=300), TRIALS)
    assert at_most(seen.hits(Outcome.REGRESSED), 0.02)
    assert seen.passed() >= (0.6 if good == 210 else 0.9)


def test_a_model_that_loses_a_tenth_is_mostly_regressed_though_it_gains_elsewhere() -> None:
    assert tally(Truth(good=300, loss=0.10, gain=0.3, resamples=300), TRIALS).regressed() >= 0.8


def test_counting_queries_as_if_they_were_independent_would_break_the_promise() -> None:
    naive, own = (
        tally(Truth(good=210, loss=0.05, gain=0.3, queries=5, declared=declared, resamples=100), TRIALS)
        for declared in (False, True)
    )
    assert wilson(naive.hits(Outcome.PASS, Outcome.BETTER), TRIALS).lower > 0.05
    assert at_most(own.hits(Outcome.PASS, Outcome.BETTER), 0.05)


def test_asking_ten_times_stays_within_twice_alpha_only_because_alpha_shrinks() -> None:
    worst = Truth(good=300, loss=0.05, gain=0.3, variation=0.0, resamples=100)
    fleets = 30
    worn, fresh = (let_through(worst, fleets, wear=wear) for wear in (True, False))
    assert at_most(worn[-1], 0.10, fleets)
    assert worn == sorted(worn)
    assert worn[-1] < fresh[-1]


def test_what_is_not_judged_never_lets_a_loss_through() -> None:
    hidden = Truth(good=300, loss=0.05, gain=0.3, unjudged=0.2, unjudged_before=0.1, resamples=300)
    assert at_most(tally(hidden, TRIALS).hits(Outcome.PASS, Outcome.BETTER), 0.05)


def test_an_equal_model_is_not_rejected_for_what_earlier_promotions_lost() -> None:
    """Why gate A′ was changed: with the change's own margin it rejects each equal repackaging after some promotions."""
    seen = tally(replace(TWIN, eroded=0.06), 40)
    assert (seen.regressed(), seen.passed()) == (0.0, 1.0)
    assert seen.regressed(FORMER_ANCHORED) == 1.0


def test_slow_erosion_passes_every_gate_but_the_anchored_one() -> None:
    seen = tally(Truth(good=500, loss=0.02, eroded=0.06, resamples=100), 40)
    assert seen.passed() == 0.0
    assert seen.passed("A'") >= 0.5


def test_sparse_labels_do_not_stop_a_model_whose_lists_are_the_same() -> None:
    """Why judged@k was changed: what both show at one rank needs no label."""
    seen = tally(Truth(good=300, unjudged=0.4, unjudged_before=0.4, change=Change.REPACKAGE, variation=0.0), 20)
    assert seen.passed() == 1.0
    assert seen.passed(FORMER_JUDGED) == 0.0


@pytest.mark.parametrize(
    "truth",
    [
        Truth(good=210, loss=0.03, gain=0.1, eroded=0.03, unjudged=0.2, unjudged_before=0.05),
        Truth(good=150, sag=0.1, silenced=0.05, slips=0.1, attempts=2),
        Truth(good=100, loss=0.05, queries=5, declared=False),
        Truth(good=300, unjudged=0.3, unjudged_is_zero=True, change=Change.REPACKAGE),
    ],
)
def test_lists_compared_once_give_the_verdicts_of_the_gate(truth: Truth) -> None:
    world = World(truth, 7)
    generator = np.random.Generator(np.random.PCG64(7))
    for _ in range(5):
        trial = world.trial(generator)
        assert world.answer(trial) == decide(trial.question)


def test_the_truth_of_a_world_is_what_was_asked_for() -> None:
    world = World(Truth(good=400, loss=0.1, gain=0.2), 3)
    generator = np.random.Generator(np.random.PCG64(3))
    lost, gained, deltas = [], [], []
    for _ in range(40):
        families = by_family(world.trial(generator).outcomes).values()
        before = [any(one.incumbent.good for one in members) for members in families]
        lost.append(sum(any(one.lost.observed for one in members) for members in families) / sum(before))
        gains = [all(one.candidate.good for one in members) for members in families]
        gained.append(sum(gains[place] for place, good in enumerate(before) if not good) / before.count(False))
    equal = World(Truth(good=400), 3)
    for _ in range(40):
        outcomes = equal.trial(generator).outcomes
        assert not any(one.lost.observed for one in outcomes)
        deltas.append([one.delta.observed for one in outcomes])
    assert sum(lost) / 40 == pytest.approx(0.1, abs=0.01)
    assert sum(gained) / 40 == pytest.approx(0.17, abs=0.03)  # further queries gain in seven cases of ten
    assert float(np.mean(deltas)) == pytest.approx(0.0, abs=0.002)
    assert 0.12 <= float(np.std(deltas)) <= 0.18


def test_tallies_add_up() -> None:
    one = Tally(2, {("whole", Outcome.PASS): 1, ("whole", Outcome.REGRESSED): 1})
    both = one + Tally(2, {("whole", Outcome.BETTER): 2})
    assert (both.trials, both.passed(), both.regressed()) == (4, 0.75, 0.25)
    assert both.interval(Outcome.PASS, Outcome.BETTER) == wilson(3, 4)


def test_the_report_has_every_size_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchops_workers.holdout.calibration.SIZES", (100,))
    monkeypatch.setattr("searchops_workers.holdout.calibration.LOSSES", (0.0, 0.10))
    report = calibration_report(10, seed=1)
    assert report["curves"] == [
        {"goodFamilies": 100, "trueLoss": 0.0, "pass": 0.0, "regressed": 0.0},
        {"goodFamilies": 100, "trueLoss": 0.10, "pass": 0.0, "regressed": pytest.approx(0.5, abs=0.5)},
    ]
    attempts = report["tenAttempts"]
    assert isinstance(attempts, dict)
    assert (attempts["fleets"], sorted(attempts)) == (1, ["fleets", "withWear", "withoutWear"])


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.10])
def test_gate_a_alone_keeps_its_level_at_every_size(margin: float) -> None:
    assert all(passes_a(families, margin, margin) <= 0.05 for families in range(1, 1200, 7))
    assert all(
        passes_a(families, margin, margin, Wear(recent=3).alpha) <= Wear(recent=3).alpha
        for families in range(1, 1200, 31)
    )


def test_power_is_the_published_table() -> None:
    assert passes_a(200, 0.01, 0.05) == pytest.approx(0.95, abs=0.005)
    assert passes_a(200, 0.02, 0.05) == pytest.approx(0.63, abs=0.005)
    assert passes_a(114, 0.01, 0.05) == pytest.approx(0.68, abs=0.005)
    seen = [passes_b(round(good / 0.7), 0.0, RULES) for good in (210, 300, 500, 1000)]
    assert seen == pytest.approx([0.75, 0.87, 0.975, 1.0], abs=0.01)
    assert passes_b(299, 0.0, RULES) == 0.0


def test_families_for_power_hold_their_promise() -> None:
    for loss in (0.0, 0.01, 0.02):
        families = families_for_power(loss, 0.05)
        assert families is not None
        assert passes_a(families, loss, 0.05) >= 0.8
        assert passes_a(families - 1, loss, 0.05) < 0.8
    assert families_for_power(0.05, 0.05) is None


def test_smallest_losses() -> None:
    assert smallest_loss_shown(59) <= 0.05 < smallest_loss_shown(58)
    assert smallest_loss_shown(0) == 1.0
    caught = smallest_loss_caught(500, 0.05)
    assert caught is not None
    assert 0.05 < caught < 0.10
    assert smallest_loss_caught(1, 0.05) is None
