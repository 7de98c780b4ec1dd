"""The two promises of the combined rule, on seeded trials, and the exact ones by enumeration."""

from __future__ import annotations

import pytest

from searchops_workers.holdout.calibration import Scenario, rates, repeated
from searchops_workers.holdout.inputs import Change, Rules
from searchops_workers.holdout.multiplicity import Wear
from searchops_workers.holdout.power import (
    families_for_power,
    passes_a,
    passes_b,
    smallest_loss_caught,
    smallest_loss_shown,
)

RULES = Rules.of(Change.MODEL)
TRIALS = 300


@pytest.mark.parametrize("good", [210, 500])
def test_a_model_that_loses_the_margin_passes_at_most_one_time_in_twenty(good: int) -> None:
    assert rates(Scenario(good, RULES.loss_margin, RULES), TRIALS, resamples=300).passed <= 0.05


@pytest.mark.parametrize("good", [210, 500])
def test_an_equal_model_is_regressed_at_most_one_time_in_fifty(good: int) -> None:
    seen = rates(Scenario(good, 0.0, RULES), TRIALS, resamples=300)
    assert seen.regressed <= 0.02
    assert seen.passed >= (0.65 if good == 210 else 0.93)


def test_a_model_that_loses_a_tenth_is_mostly_regressed() -> None:
    assert rates(Scenario(210, 0.10, RULES), TRIALS, resamples=300).regressed >= 0.8


def test_counting_queries_as_if_they_were_independent_would_break_the_promise() -> None:
    naive = rates(Scenario(300, 0.05, RULES, by_query=True, queries=5), TRIALS, resamples=100)
    honest = rates(Scenario(300, 0.05, RULES), TRIALS, resamples=100)
    assert naive.passed > 0.05 >= honest.passed


def test_asking_ten_times_stays_within_twice_alpha_only_because_alpha_shrinks() -> None:
    worst = Scenario(300, 0.05, RULES)
    assert repeated(worst, TRIALS, wear=True) <= 0.10
    assert repeated(worst, TRIALS, wear=False) > 0.2


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
