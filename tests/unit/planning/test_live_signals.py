"""Live signals in the rollout: what stops the waves, what they wait for, what is said and how often it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.v1alpha1.embedding_model_status import SignalStatus
from searchops.planning.confidence_sequence import Interval
from searchops.planning.rollout import plan_model
from searchops.planning.signal_evidence import Asked, Evidence, SignalFacts
from searchops.planning.signal_windows import asked_of
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelFacts, ModelPlan

ZERO = {"name": "ZeroResults", "margin": "0.02"}
SLOW = {"name": "SlowSearches", "margin": "0.05", "slowerThan": "250ms", "onUnknown": "Hold"}
GOOD, BAD, OPEN = Interval(-0.01, 0.01), Interval(0.031, 0.094), Interval(-0.01, 0.05)


def model_of(*signals: dict[str, Any], status: Any = None, **rollout: Any) -> EmbeddingModel:
    metadata = rollout.pop("metadata", {})
    declared = {"waves": case.THREE, "signals": list(signals or (ZERO,)), **rollout}
    status = status or case.passed(wave=case.wave(0, "0"))
    return case.make_model("b", status, rollout=declared, metadata=metadata)


def facts_of(model: EmbeddingModel, *measured: tuple[int, Interval | None, str], **update: Any) -> ModelFacts:
    """Facts with what was measured of each signal in turn: tenants, bounds, why a window is unread."""
    evidence = {}
    for signal, (tenants, interval, unread) in zip(model.spec.rollout.signals, measured, strict=False):
        asked = asked_of(model, signal, case.at())
        assert asked is not None
        evidence[signal.name] = Evidence(asked, tenants, interval, 0, unread)
    given = {"tenants": (case.canary("one", bound=True),), "gate": None, **update}
    return replace(case.facts_of(model, **given), signals=SignalFacts(True, evidence))


def said(plan: ModelPlan) -> SignalStatus:
    (told,) = case.status_of(plan).signals
    return told


def expected(state: str, why: str, tenants: int, *interval: str, **update: Any) -> SignalStatus:
    fields = {
        "name": "ZeroResults",
        "revision": case.NAME,
        "question": question(),
        "state": state,
        "tenants": tenants,
        "interval": interval,
        "why": why,
        "at": case.at(),
        **update,
    }
    return SignalStatus.model_validate(fields)


def question() -> str:
    model = model_of()
    asked = asked_of(model, model.spec.rollout.signals[0], case.at())
    assert asked is not None
    return asked.question


@pytest.mark.parametrize(
    ("measured", "told", "condition"),
    [
        (
            (64, GOOD, ""),
            expected("Healthy", "the mean added share is at most +0.0100, margin 0.02", 64, "-0.0100", "+0.0100"),
            ("True", "SignalsHealthy"),
        ),
        (
            (64, OPEN, ""),
            expected(
                "Unknown",
                "the margin 0.02 lies within the interval; more tenants make it narrower",
                64,
                "-0.0100",
                "+0.0500",
            ),
            ("Unknown", "SignalsUnknown"),
        ),
        (
            (9, BAD, ""),
            expected("Unknown", "9 tenants are measured, wanted at least 10", 9, "+0.0310", "+0.0940"),
            ("Unknown", "SignalsUnknown"),
        ),
        (
            (0, None, ""),
            expected("Unknown", "0 tenants are measured, wanted at least 10", 0),
            ("Unknown", "SignalsUnknown"),
        ),
        (
            (64, GOOD, "Prometheus does not answer"),
            expected("Unknown", "Prometheus does not answer", 64, "-0.0100", "+0.0100"),
            ("Unknown", "SignalsUnknown"),
        ),
    ],
)
def test_what_does_not_stop_the_waves(
    measured: tuple[int, Interval | None, str], told: SignalStatus, condition: tuple[str, str]
) -> None:
    model = model_of()
    plan = case.steady(model, facts_of(model, measured))
    assert said(plan) == told
    assert case.condition(plan, "SignalsHealthy") == condition
    wave = case.status_of(plan).wave
    assert wave is not None
    assert (wave.halted, case.status_of(plan).phase, plan.actions, plan.requeue_after) == (None, "Soaking", (), 60.0)


@pytest.mark.parametrize("unread", ["", "Prometheus does not answer"])
def test_a_signal_that_got_worse_stops_the_waves_as_the_breaker_does(unread: str) -> None:
    model = model_of()
    facts = facts_of(model, (64, BAD, unread))
    plan = case.steady(model, facts)
    status = case.status_of(plan)
    assert said(plan) == expected(
        "Degraded", "the mean added share is at least +0.0310, margin 0.02", 64, "+0.0310", "+0.0940"
    )
    assert (status.wave.halted if status.wave else "", status.phase) == ("SignalDegraded", "Paused")
    for kind in ("Ready", "Progressing", "SignalsHealthy"):
        assert case.condition(plan, kind) == ("False", "SignalDegraded")
    assert case.message(plan, "Progressing") == (
        "signal ZeroResults: searches without a hit have risen by +0.0310 to +0.0940 of all searches on the mean of 64 "
        f"tenants that switched to {case.NAME}, margin 0.02; no further tenant is started; look at their searches, "
        "then take the candidate back: annotate searchops.dev/rollback with its revision; or go on: raise the margin "
        "in spec.rollout.signals, or set spec.rollout.retryToken (or annotate searchops.dev/retry), which counts the "
        "tenants that switch from then on"
    )
    assert case.told(plan.actions) == ["event SignalDegraded"]
    assert plan_model(case.after(model, plan), facts, case.later(seconds=1)).actions == ()


def degraded(*signals: dict[str, Any], **update: Any) -> EmbeddingModel:
    model = model_of(*signals, **update)
    return case.after(model, plan_model(model, facts_of(model, (64, BAD, "")), case.NOW))


def test_it_stays_so_whatever_is_measured_afterwards() -> None:
    model = degraded()
    for measured in ((200, GOOD, ""), (0, None, "Prometheus does not answer")):
        plan = plan_model(model, facts_of(model, measured), case.later(hours=5))
        assert case.status_of(plan) == model.status
    unconfigured = replace(facts_of(model), signals=SignalFacts())
    assert case.status_of(plan_model(model, unconfigured, case.later(hours=5))) == model.status


def test_the_wave_is_halted_though_the_pass_waits_for_servers() -> None:
    model = degraded()
    facts = facts_of(model, (64, BAD, ""), serving=case.pool("default", case.server("s1")))
    plan = plan_model(model, facts, case.later(seconds=20))
    status = case.status_of(plan)
    assert status.wave is not None
    assert (status.wave.halted, case.condition(plan, "Loaded")) == ("SignalDegraded", ("False", "Loading"))


def test_the_rollback_annotation_takes_the_candidate_back() -> None:
    model = degraded()
    annotated = model.model_copy(
        update={"metadata": model.metadata.model_copy(update={"annotations": {"searchops.dev/rollback": case.NAME}})}
    )
    plan = plan_model(annotated, facts_of(annotated, (64, BAD, "")), case.later(minutes=1))
    status = case.status_of(plan)
    assert (status.candidate, status.wave, status.phase) == (None, None, "RolledBack")
    assert case.told(plan.actions) == ["WriteState", "event CandidateRejected"]


def test_a_wider_margin_is_another_question_on_the_same_evidence() -> None:
    status = degraded().status
    wider = model_of({**ZERO, "margin": "0.1"}, status=status)
    plan = plan_model(wider, facts_of(wider, (64, BAD, "")), case.later(minutes=1))
    assert (said(plan).state, said(plan).after) == ("Healthy", None)
    wave = case.status_of(plan).wave
    assert wave is not None
    assert wave.halted is None


@pytest.mark.parametrize("way", [{"retryToken": "again"}, {"metadata": {"annotations": {"searchops.dev/retry": "x"}}}])
def test_a_new_retry_token_counts_the_tenants_that_switch_from_then_on(way: dict[str, Any]) -> None:
    model = model_of(status=degraded().status, **way)
    stale = Asked(case.NAME, question(), "", None)
    facts = replace(facts_of(model), signals=SignalFacts(True, {"ZeroResults": Evidence(stale, 64, BAD)}))
    plan = plan_model(model, facts, case.later(minutes=1))
    assert (said(plan).state, said(plan).after) == ("Unknown", case.at(minutes=1))
    assert said(plan).why == "it has not been measured yet"
    following = case.after(model, plan)
    asked = asked_of(following, following.spec.rollout.signals[0], case.at(minutes=9))
    assert asked is not None
    assert asked.after == case.at(minutes=1)
    again = plan_model(following, facts_of(following, (30, BAD, "")), case.later(minutes=2))
    assert said(again).state == "Degraded"
    assert case.told(again.actions) == ["event SignalDegraded"]


def test_signals_that_are_no_longer_declared_stop_nothing() -> None:
    model = case.model_of(degraded().status)
    plan = plan_model(model, case.facts_of(model, tenants=(case.canary("one", bound=True),), gate=None), case.NOW)
    status = case.status_of(plan)
    assert status.wave is not None
    assert (status.signals, status.wave.halted) == ((), None)
    assert not [item for item in status.conditions if item.type == "SignalsHealthy"]


@pytest.mark.parametrize(
    ("rule", "measured", "phase"),
    [
        ("Hold", (64, OPEN, ""), "Soaking"),
        ("Hold", (64, GOOD, "Prometheus does not answer"), "Soaking"),
        ("Hold", (64, GOOD, ""), "Rolling"),
        ("Continue", (64, OPEN, ""), "Rolling"),
        (None, (0, None, "Prometheus does not answer"), "Rolling"),
    ],
)
def test_a_complete_wave_waits_for_a_signal_only_where_that_is_wanted(
    rule: str | None, measured: tuple[int, Interval | None, str], phase: str
) -> None:
    signal = {**ZERO, **({"onUnknown": rule} if rule else {})}
    model = model_of(signal, status=case.passed(wave=case.wave(0, "0", soak_until=case.at())))
    facts = facts_of(model, measured)
    plan = case.steady(model, facts) if phase == "Soaking" else plan_model(model, facts, case.NOW)
    assert case.status_of(plan).phase == phase
    if phase == "Soaking":
        assert case.condition(plan, "Progressing") == ("True", "SignalsUnknown")
        assert "wave canary is complete and waits" in case.message(plan, "Progressing")
        assert "set onUnknown: Continue to go on without it" in case.message(plan, "Progressing")
        assert plan.requeue_after == 60.0


def test_the_last_wave_waits_too_so_that_nothing_unknown_is_promoted() -> None:
    status = case.passed(wave=case.wave(2, "1", soak_until=case.at()))
    model = model_of({**ZERO, "onUnknown": "Hold"}, status=status)
    plan = plan_model(model, facts_of(model, (64, OPEN, "")), case.NOW)
    assert (case.status_of(plan).candidate, case.status_of(plan).phase) == (case.built("b", 2), "Soaking")
    plan = plan_model(model, facts_of(model, (64, GOOD, "")), case.NOW)
    assert (case.status_of(plan).candidate, case.status_of(plan).phase) == (None, "Promoted")
    assert case.status_of(plan).signals[0].state == "Healthy"


def test_without_prometheus_it_is_unknown_with_or_without_a_rollout() -> None:
    settled = case.make_model(
        "a", case.rolling(candidate=None, wave=None, verdict=None), rollout={"signals": [ZERO, SLOW]}
    )
    plan = plan_model(settled, case.facts_of(settled), case.NOW)
    assert case.condition(plan, "SignalsHealthy") == ("Unknown", "NotConfigured")
    assert case.message(plan, "SignalsHealthy") == (
        "spec.rollout.signals declares ZeroResults, SlowSearches, and settings.prometheusUrl of the operator is empty; "
        "set it, or declare no signals"
    )
    assert case.condition(plan, "Ready") == ("True", "Promoted")
    model = model_of(SLOW, status=case.passed(wave=case.wave(0, "0", soak_until=case.at())))
    held = plan_model(model, replace(facts_of(model), signals=SignalFacts()), case.NOW)
    assert (said(held).state, case.status_of(held).phase) == ("Unknown", "Soaking")


def test_a_settled_model_with_prometheus_says_nothing_of_signals() -> None:
    settled = case.make_model("a", case.rolling(candidate=None, wave=None, verdict=None), rollout={"signals": [ZERO]})
    plan = plan_model(settled, replace(case.facts_of(settled), signals=SignalFacts(True)), case.NOW)
    assert plan.status is not None
    assert not [item for item in plan.status.conditions if item.type == "SignalsHealthy"]


def test_two_signals_are_told_apart() -> None:
    model = model_of(ZERO, SLOW)
    plan = case.steady(model, facts_of(model, (64, GOOD, ""), (64, Interval(0.06, 0.3), "")))
    assert [item.state for item in case.status_of(plan).signals] == ["Healthy", "Degraded"]
    assert "signal SlowSearches: searches slower than 250ms have risen" in case.message(plan, "Ready")


def test_the_breaker_is_named_first_and_a_pause_before_both() -> None:
    model = model_of()
    failed = tuple(case.canary(f"t{number}", failed=True) for number in range(3))
    plan = plan_model(model, facts_of(model, (64, BAD, ""), tenants=failed), case.NOW)
    status = case.status_of(plan)
    assert (status.wave.halted if status.wave else "", case.condition(plan, "Ready")) == (
        "BreakerOpen",
        ("False", "BreakerOpen"),
    )


@pytest.mark.parametrize(
    ("minutes", "upper", "written"),
    [(4, 0.018, False), (5, 0.0149, False), (5, 0.0151, True), (60, 0.0149, False)],
)
def test_bounds_that_move_are_written_where_anybody_would_notice(minutes: int, upper: float, written: bool) -> None:
    model = model_of()
    model = case.after(model, plan_model(model, facts_of(model, (64, GOOD, "")), case.NOW))
    facts = facts_of(model, (70, Interval(-0.01, upper), ""))
    plan = plan_model(model, facts, case.later(minutes=minutes))
    assert (said(plan) != model.status.signals[0]) is written
    assert said(plan).tenants == (70 if written else 64)


@pytest.mark.parametrize(("minutes", "written"), [(4, False), (5, True)])
def test_why_it_is_unknown_is_written_minutes_apart(minutes: int, written: bool) -> None:
    model = model_of()
    model = case.after(model, plan_model(model, facts_of(model, (0, None, "")), case.NOW))
    plan = plan_model(model, facts_of(model, (0, None, "HTTP 502")), case.later(minutes=minutes))
    assert (said(plan).why == "HTTP 502") is written
    healthy = plan_model(model, facts_of(model, (64, GOOD, "")), case.later(seconds=2))
    assert said(healthy).state == "Healthy"


@pytest.mark.parametrize(
    ("rule", "pending", "phase", "state"),
    [
        ("Hold", 4, "Soaking", "Unknown"),
        ("Hold", 3, "Rolling", "Healthy"),
        ("Continue", 4, "Rolling", "Healthy"),
    ],
)
def test_a_later_wave_is_measured_too_where_that_is_wanted(rule: str, pending: int, phase: str, state: str) -> None:
    model = model_of({**ZERO, "onUnknown": rule}, status=case.passed(wave=case.wave(1, "0.1", soak_until=case.at())))
    facts = facts_of(model, (64, GOOD, ""))
    evidence = {name: replace(found, pending=pending) for name, found in facts.signals.evidence.items()}
    plan = plan_model(model, replace(facts, signals=SignalFacts(True, evidence)), case.NOW)
    assert (case.status_of(plan).phase, said(plan).state) == (phase, state)
    if state == "Unknown":
        assert said(plan).why == "64 tenants are within the margin, 4 are not measured yet"
