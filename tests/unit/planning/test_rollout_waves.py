"""Waves: who is in, what is waited for, who must agree, when it stops, and what promotion leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import LabelSelector
from searchops.api.tasks import EvaluateTask
from searchops.api.v1alpha1.embedding_model_status import (
    AttemptStatus,
    EmbeddingModelStatus,
    EvidenceReference,
    FleetStatus,
    HistoryEntry,
    PromotedStatus,
    ServersStatus,
    ServerTrouble,
)
from searchops.planning.model_facts import WriteState
from searchops.planning.rollout import plan_model
from searchops.planning.waves import in_wave, position
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel


def test_a_wave_by_selector_takes_only_those_it_selects() -> None:
    plan = case.planned(case.model_of(case.passed()), case.canary("one"), case.tenant("two", case.promoted()))
    assert case.told(plan.actions) == ["event WaveStarted"]
    started = case.status_of(plan).wave
    assert started == case.wave(0, "0", selectors=(LabelSelector.model_validate(case.CANARY),))
    assert in_wave(started, "shops", "one", {"tier": "canary"})
    assert not in_wave(started, "shops", "two", {})
    assert (case.status_of(plan).phase, plan.requeue_after) == ("Rolling", 1.0)


def test_a_wave_waits_for_its_tenants_and_not_for_held_ones() -> None:
    model = case.model_of(case.passed(wave=case.wave(0, "0")))
    waiting = case.planned(
        model, case.canary("one"), case.canary("two", bound=True), case.tenant("three", case.promoted())
    )
    assert (waiting.actions, waiting.requeue_after) == ((), 15.0)
    assert "1 of 2 tenants" in case.message(waiting, "Progressing")
    assert case.status_of(waiting).tenants == FleetStatus(total=3, bound=1)
    done = case.planned(
        model, case.canary("one", held=True), case.canary("two", bound=True), case.tenant("three", case.promoted())
    )
    assert case.status_of(done).phase == "Soaking"
    assert case.status_of(done).tenants == FleetStatus(total=3, bound=1, held=1)


def test_a_complete_wave_is_watched_for_its_soak_and_the_time_is_set_once() -> None:
    model = case.model_of(case.passed(wave=case.wave(0, "0")))
    facts = case.facts_of(model, tenants=(case.canary("one", bound=True),), gate=None)
    plan = case.steady(model, facts)
    assert (case.status_of(plan).phase, plan.actions, plan.requeue_after) == ("Soaking", (), 1800.0)
    soaking = case.after(model, plan)
    assert soaking.status.wave is not None
    assert soaking.status.wave.soak_until == case.at(minutes=30)
    plan = plan_model(soaking, facts, case.later(minutes=29))
    assert (case.status_of(plan).wave, plan.requeue_after) == (soaking.status.wave, 60.0)
    plan = plan_model(soaking, facts, case.later(minutes=30))
    assert case.status_of(plan).wave == case.wave(1, "0.5", case.at(minutes=30))
    assert case.told(plan.actions) == ["event WaveStarted"]


def test_waves_only_add_tenants() -> None:
    shrinking = [{"name": "canary", "percent": 60}, {"name": "half", "percent": 10}, {"name": "all", "percent": 100}]
    model = case.make_model("b", case.passed(wave=case.wave(0, "0.6", selectors=())), rollout={"waves": shrinking})
    started = case.status_of(case.planned(model)).wave
    assert started is not None
    assert (started.index, started.fraction) == (1, "0.6")


@pytest.mark.parametrize("inside", [True, False])
def test_a_share_is_taken_by_the_place_of_the_name(inside: bool) -> None:
    name = next(f"t{number}" for number in range(100) if (position("shops", f"t{number}") < 0.5) is inside)
    model = case.model_of(case.passed(wave=case.wave(1, "0.5", case.at(), soak_until=case.at())))
    plan = case.planned(model, case.tenant(name, case.promoted()))
    assert case.status_of(plan).phase == "Rolling"
    index = case.status_of(plan).wave
    assert index is not None
    assert index.index == (1 if inside else 2)


def test_a_spec_that_loses_its_waves_under_way_still_reaches_everybody_before_promotion() -> None:
    model = case.make_model(
        "b", case.passed(wave=case.wave(0, "0")), rollout={"waves": [{"name": "all", "percent": 100}]}
    )
    plan = case.planned(model, case.tenant("two", case.promoted()))
    assert case.status_of(plan).active == case.promoted()
    started = case.status_of(plan).wave
    assert started is not None
    assert (started.index, started.fraction) == (0, "1")


@pytest.mark.parametrize(
    ("rule", "index", "approve", "goes_on"),
    [
        ("None", 0, "", True),
        ("BeforeFirstWave", 0, "", False),
        ("BeforeFirstWave", 0, case.NAME, True),
        ("BeforeFirstWave", 0, case.promoted().revision, False),
        ("BeforeFirstWave", 1, "", True),
        ("BeforeEachWave", 0, case.NAME, True),
        ("BeforeEachWave", 1, case.NAME, False),
        ("BeforeEachWave", 1, f"{case.NAME}/1", True),
        ("BeforeEachWave", 2, f"{case.NAME}/1", False),
    ],
)
@pytest.mark.parametrize("how", ["spec", "annotation"])
def test_approval_is_bound_to_the_revision_and_the_wave(
    rule: str, index: int, approve: str, goes_on: bool, how: str
) -> None:
    before = None if index == 0 else case.wave(index - 1, "0", case.at(), soak_until=case.at())
    given: dict[str, Any] = (
        {"approve": approve} if how == "spec" else {"metadata": {"annotations": {"searchops.dev/approve": approve}}}
    )
    model = case.model_of(case.passed(wave=before), approval=rule, **given)
    plan = case.steady(model, case.facts_of(model, gate=None)) if not goes_on else case.planned(model)
    if goes_on:
        started = case.status_of(plan).wave
        assert started is not None
        assert started.index == index
    else:
        assert (case.status_of(plan).wave, case.status_of(plan).phase, plan.actions) == (before, "AwaitingApproval", ())
        assert case.condition(plan, "Progressing") == ("False", "AwaitingApproval")
        wanted = case.NAME if index == 0 else f"{case.NAME}/{index}"
        assert f"searchops.dev/approve={wanted}" in case.message(plan, "Progressing")


@pytest.mark.parametrize(("failed", "percent", "opens"), [(0, 0, False), (1, 2, True), (2, 50, False), (5, 50, True)])
def test_the_breaker_halts_the_fleet_and_promotes_nothing(failed: int, percent: int, opens: bool) -> None:
    names = [case.canary(f"f{number}", failed=True) for number in range(failed)]
    names += [case.canary(f"g{number}", bound=True) for number in range(10 - failed)]
    model = case.model_of(case.passed(wave=case.wave(0, "0")), breaker={"maxRevertedPercent": percent})
    plan = case.steady(model, case.facts_of(model, tenants=tuple(names), gate=None))
    assert (case.condition(plan, "Progressing")[1] == "BreakerOpen") is opens
    assert (case.status_of(plan).phase == "Paused") is opens
    assert case.status_of(plan).active == case.promoted()
    if opens:
        assert "shops/f0" in case.message(plan, "Ready")


def test_the_breaker_counts_those_that_tried_not_those_that_wait() -> None:
    names = [case.canary(f"f{number}", failed=True) for number in range(3)]
    names += [case.canary(f"g{number}", bound=True) for number in range(7)]
    waiting = [case.canary(f"w{number}") for number in range(90)]
    model = case.model_of(case.passed(wave=case.wave(0, "0")), breaker={"maxRevertedPercent": 30})
    plan = case.steady(model, case.facts_of(model, tenants=(*names, *waiting), gate=None))
    assert case.condition(plan, "Progressing")[1] == "BreakerOpen"
    assert "3 of 10 tenants that tried" in case.message(plan, "Ready")


def test_promotion_keeps_the_old_revision_warm_and_is_written_to_the_config_map_first() -> None:
    earlier = case.promoted("c", 9, retire_after=case.at(hours=1))
    model = case.model_of(case.passed(wave=case.wave(2, "1"), retiring=(earlier,)))
    plan = case.planned(model, case.tenant("t", case.built("b", 2)))
    assert case.told(plan.actions) == ["WriteState", "event Promoted"]
    status = case.status_of(plan)
    assert status.active == case.built("b", 2, promoted_at=case.at(), evidence="s3://e/2")
    assert status.retiring == (earlier, case.promoted(retire_after=case.at(hours=72)))
    assert (status.candidate, status.wave, status.phase) == (None, None, "Promoted")
    assert status.history == (HistoryEntry(revision=case.NAME, event="Promoted", at=case.at()),)
    written = plan.actions[0]
    assert isinstance(written, WriteState)
    assert (written.status.active, written.status.retiring) == (status.active, status.retiring)
    assert case.condition(plan, "Ready") == ("True", "Promoted")
    model = case.after(model, plan)
    settled = case.steady(model, case.facts_of(model, tenants=(case.tenant("t", case.built("b", 2)),)))
    assert settled.actions == ()
    assert case.condition(settled, "Ready") == ("True", "Promoted")
    assert settled.requeue_after == timedelta(hours=1).total_seconds()


def test_a_first_model_is_promoted_with_nothing_to_retire() -> None:
    model = case.model_of(case.passed(active=None, wave=case.wave(2, "1")))
    status = case.status_of(case.planned(model))
    assert (status.retiring, status.active is not None) == ((), True)


def test_a_warm_revision_comes_back_with_the_evidence_it_had() -> None:
    warm = case.promoted("b", 2, evidence="s3://e/old", retire_after=case.at(hours=2))
    model = case.model_of(case.passed(candidate=warm, verdict=None, wave=case.wave(2, "1")))
    active = case.status_of(case.planned(model)).active
    assert active is not None
    assert (active.evidence, active.retire_after, active.promoted_at) == ("s3://e/old", None, case.at())


def test_a_serving_server_that_is_down_holds_the_wave_back() -> None:
    model = case.model_of(case.passed())
    down = case.server("s2", reachable=False, error="refused")
    serving = case.pool("default", case.server("s1", case.promoted().revision, case.NAME), down)
    plan = case.steady(model, case.facts_of(model, gate=None, serving=serving))
    assert (plan.actions, case.status_of(plan).wave) == ((), None)
    assert case.condition(plan, "Loaded") == ("False", "Loading")


def test_what_is_promoted_keeps_the_evidence_that_leads_to_all_its_holdouts() -> None:
    """The verdict refers to the worst holdout alone; later candidates are held to every one of them."""
    judged = AttemptStatus(digest=case.DIGESTS["b"], at=case.at(), evidence="s3://e/first.json")
    other = AttemptStatus(digest=case.DIGESTS["c"], at=case.at(), evidence="s3://e/of-another.json")
    worst = case.PASS_WITH_EVIDENCE.model_copy(
        update={"evidence": EvidenceReference(uri="s3://e/first-worst.json", digest=case.DIGESTS["e"])}
    )
    done = case.wave(2, "1", soak_until=case.at())
    model = case.model_of(case.passed(wave=done, verdict=worst, attempts=(judged, other)))
    status = case.status_of(case.planned(model, case.canary("one", bound=True)))
    assert status.active is not None
    assert status.active.evidence == "s3://e/first.json"
    assert status.verdict is not None
    assert status.verdict.evidence == worst.evidence


def without_the_active(model: EmbeddingModel, *, since: str | None) -> EmbeddingModel:
    """The same, where s2 has not served the active revision since then."""
    if since is None:
        return model
    trouble = ServerTrouble(
        server="s2",
        revision=case.promoted().revision,
        reason="NotLoaded",
        message="s2 does not serve it (out of memory)",
        since=since,
        attempts=2,
        retry_at=case.at(hours=1),
    )
    servers = ServersStatus(total=3, in_sync=2, failing=(trouble,))
    return model.model_copy(update={"status": model.status.model_copy(update={"servers": servers})})


@pytest.mark.parametrize(
    ("since", "halted"), [(None, None), (case.at(seconds=-59), None), (case.at(seconds=-60), True)]
)
@pytest.mark.parametrize("started", [True, False])
def test_nobody_leaves_a_revision_that_there_is_no_way_back_to(
    since: str | None, halted: bool | None, started: bool
) -> None:
    status = case.passed(wave=case.wave(0, "0")) if started else case.passed()
    model = without_the_active(case.model_of(status), since=since)
    both = (case.promoted().revision, case.NAME)
    pool = case.pool("default", case.server("s1", *both), case.server("s2", case.NAME))
    facts = case.facts_of(model, gate=None, tenants=(case.canary("one"),), serving=pool)
    plan = plan_model(model, facts, case.NOW)
    wave = case.status_of(plan).wave
    if not halted:
        assert wave is not None
        assert wave.halted is None
        assert case.condition(plan, "Progressing") == ("True", "Rolling")
        return
    assert case.condition(plan, "Progressing") == ("True", "RollbackTargetIll")
    assert "s2 does not serve" in case.message(plan, "Progressing")
    assert (wave.halted if wave else None) == ("RollbackTargetIll" if started else None)
    assert "event WaveStarted" not in case.told(plan.actions)
    well = case.facts_of(model, gate=None, tenants=(case.canary("one"),))
    again = case.status_of(plan_model(case.after(model, plan), well, case.NOW)).wave
    assert again is not None
    assert again.halted is None


def test_nobody_leaves_a_revision_while_nothing_is_known_of_its_servers() -> None:
    model = case.model_of(case.passed(wave=case.wave(0, "0")))
    facts = case.facts_of(model, gate=None, tenants=(case.canary("one"),), serving=None, canary=None)
    plan = plan_model(model, facts, case.NOW)
    wave = case.status_of(plan).wave
    assert case.condition(plan, "Progressing") == ("False", "PoolNotFound")
    assert wave is not None
    assert wave.halted == "RollbackTargetIll"


@pytest.mark.parametrize(("since", "halted"), [(case.at(seconds=-59), None), (case.at(seconds=-60), "CandidateIll")])
def test_nobody_moves_to_a_candidate_that_is_no_longer_served_everywhere(since: str, halted: str | None) -> None:
    model = case.model_of(case.passed(wave=case.wave(0, "0")))
    trouble = ServerTrouble(
        server="s2", revision=case.NAME, reason="NotLoaded", message="s2 does not serve it", since=since, attempts=1
    )
    servers = ServersStatus(total=3, in_sync=2, failing=(trouble,))
    model = model.model_copy(update={"status": model.status.model_copy(update={"servers": servers})})
    both = (case.promoted().revision, case.NAME)
    pool = case.pool("default", case.server("s1", *both), case.server("s2", case.promoted().revision))
    facts = case.facts_of(model, gate=None, tenants=(case.canary("one"),), serving=pool)
    plan = plan_model(model, facts, case.NOW)
    wave = case.status_of(plan).wave
    assert wave is not None
    assert wave.halted == halted
    well = case.facts_of(model, gate=None, tenants=(case.canary("one"),))
    again = case.status_of(plan_model(case.after(model, plan), well, case.NOW)).wave
    assert again is not None
    assert again.halted is None


def test_gate_a_prime_remembers_the_last_five_promotions_long_after_their_windows() -> None:
    status = EmbeddingModelStatus(next_number=1)
    for number in range(1, 8):
        digest = "bc"[number % 2]
        candidate = case.built(digest, number, evidence=f"s3://e/{number}")
        last = case.wave(2, "1", soak_until=case.at())
        before = status.model_copy(
            update={
                "candidate": candidate,
                "wave": last,
                "verdict": case.PASS.model_copy(update={"revision": candidate.revision, "evidence": None}),
                "retiring": (),  # every window is over
            }
        )
        model = case.make_model(digest, before, rollout={"waves": case.THREE})
        plan = plan_model(model, case.facts_of(model, gate=None, tenants=()), case.NOW)
        status = case.status_of(plan)
        assert status.active is not None
        assert (status.active.revision, status.phase) == (candidate.revision, "Promoted")
    assert [item.evidence for item in status.promoted] == [f"s3://e/{number}" for number in range(3, 8)]
    gated = status.model_copy(update={"candidate": case.built("a", 8), "verdict": None})
    model = case.make_model("a", gated)
    task = case.order_of(plan_model(model, case.facts_of(model), case.NOW)).task
    assert isinstance(task, EvaluateTask)
    assert task.anchored == tuple(f"s3://e/{number}" for number in range(7, 2, -1))


def test_what_was_active_before_promotions_were_kept_is_remembered_too() -> None:
    active = case.promoted("a", 1, evidence="s3://e/1")
    candidate = case.built("b", 2, evidence="s3://e/2")
    before = case.passed(active=active, candidate=candidate, verdict=None, wave=case.wave(2, "1", soak_until=case.at()))
    before = before.model_copy(update={"verdict": case.PASS.model_copy(update={"evidence": None})})
    found = case.status_of(case.planned(case.model_of(before)))
    assert found.phase == "Promoted"
    assert [item.evidence for item in found.promoted] == ["s3://e/1", "s3://e/2"]


def test_what_is_taken_back_is_no_anchor() -> None:
    warm = case.promoted("a", 1, promoted_at=case.at(days=-3), retire_after=case.at(hours=40), evidence="s3://e/1")
    active = case.promoted("b", 2, evidence="s3://e/2")
    kept = tuple(PromotedStatus(revision=item.revision, evidence=item.evidence or "") for item in (warm, active))
    status = EmbeddingModelStatus(active=active, retiring=(warm,), promoted=kept, next_number=3)
    asked = {"annotations": {"searchops.dev/rollback": active.revision}}
    model = case.model_of(status, metadata=asked)
    back = case.status_of(plan_model(model, case.facts_of(model), case.NOW))
    assert back.promoted == kept[:1]
    gated = back.model_copy(update={"candidate": case.built("c", 3), "next_number": 4})
    model = case.make_model("c", gated)
    task = case.order_of(plan_model(model, case.facts_of(model), case.NOW)).task
    assert isinstance(task, EvaluateTask)
    assert task.anchored == ("s3://e/1",)
