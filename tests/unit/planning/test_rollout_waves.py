"""Waves: who is in, what is waited for, who must agree, when it stops, and what promotion leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import LabelSelector
from searchops.api.v1alpha1.embedding_model import (
    EmbeddingModel,
    EmbeddingModelStatus,
    EvidenceReference,
    FleetStatus,
    HistoryEntry,
    VerdictStatus,
    WaveStatus,
)
from searchops.planning.model_facts import ModelPlan, TenantFact, WriteState
from searchops.planning.rollout import plan_model
from searchops.planning.waves import in_wave, position

if TYPE_CHECKING:
    from tests.unit.planning.rollout_facts import (
        DIGESTS,
        NOW,
        after,
        at,
        built,
        condition,
        facts_of,
        later,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
    )
else:
    from unit.planning.rollout_facts import (
        DIGESTS,
        NOW,
        after,
        at,
        built,
        condition,
        facts_of,
        later,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
    )


CANARY = {"matchLabels": {"tier": "canary"}}
THREE: list[dict[str, Any]] = [
    {"name": "canary", "selector": CANARY, "soak": "30m"},
    {"name": "half", "percent": 50, "soak": "1h"},
    {"name": "all", "percent": 100},
]
NAME = built("b", 2).revision
PASS = VerdictStatus(
    revision=NAME,
    outcome="Pass",
    evidence=EvidenceReference(uri="s3://e/2", digest=DIGESTS["e"]),
)


def passed(**update: Any) -> EmbeddingModelStatus:
    fields = {"active": promoted(), "candidate": built("b", 2), "verdict": PASS, "next_number": 3, **update}
    return EmbeddingModelStatus.model_validate(fields)


def wave(index: int, fraction: str, started: str = at(), **update: Any) -> WaveStatus:
    fields = {"name": THREE[index]["name"], "index": index, "started_at": started, "fraction": fraction, **update}
    return WaveStatus.model_validate({"selectors": (CANARY,), **fields})


def model_of(status: EmbeddingModelStatus, **rollout: Any) -> EmbeddingModel:
    metadata = rollout.pop("metadata", {})
    return make_model("b", status, rollout={"waves": THREE, **rollout}, metadata=metadata)


def planned(model: EmbeddingModel, *tenants: TenantFact) -> ModelPlan:
    return plan_model(model, facts_of(model, tenants=tenants, gate=None), NOW)


def canary(name: str, bound: bool = False, **update: Any) -> TenantFact:
    return replace(tenant(name, built("b", 2) if bound else promoted(), **update), labels={"tier": "canary"})


def test_a_wave_by_selector_takes_only_those_it_selects() -> None:
    plan = planned(model_of(passed()), canary("one"), tenant("two", promoted()))
    assert told(plan.actions) == ["event WaveStarted"]
    started = status_of(plan).wave
    assert started == wave(0, "0", selectors=(LabelSelector.model_validate(CANARY),))
    assert in_wave(started, "shops", "one", {"tier": "canary"})
    assert not in_wave(started, "shops", "two", {})
    assert (status_of(plan).phase, plan.requeue_after) == ("Rolling", 1.0)


def test_a_wave_waits_for_its_tenants_and_not_for_held_ones() -> None:
    model = model_of(passed(wave=wave(0, "0")))
    waiting = planned(model, canary("one"), canary("two", bound=True), tenant("three", promoted()))
    assert (waiting.actions, waiting.requeue_after) == ((), 15.0)
    assert "1 of 2 tenants" in message(waiting, "Progressing")
    assert status_of(waiting).tenants == FleetStatus(total=3, bound=1)
    done = planned(model, canary("one", held=True), canary("two", bound=True), tenant("three", promoted()))
    assert status_of(done).phase == "Soaking"
    assert status_of(done).tenants == FleetStatus(total=3, bound=1, held=1)


def test_a_complete_wave_is_watched_for_its_soak_and_the_time_is_set_once() -> None:
    model = model_of(passed(wave=wave(0, "0")))
    facts = facts_of(model, tenants=(canary("one", bound=True),), gate=None)
    plan = steady(model, facts)
    assert (status_of(plan).phase, plan.actions, plan.requeue_after) == ("Soaking", (), 1800.0)
    soaking = after(model, plan)
    assert soaking.status.wave is not None
    assert soaking.status.wave.soak_until == at(minutes=30)
    plan = plan_model(soaking, facts, later(minutes=29))
    assert (status_of(plan).wave, plan.requeue_after) == (soaking.status.wave, 60.0)
    plan = plan_model(soaking, facts, later(minutes=30))
    assert status_of(plan).wave == wave(1, "0.5", at(minutes=30))
    assert told(plan.actions) == ["event WaveStarted"]


def test_waves_only_add_tenants() -> None:
    shrinking = [{"name": "canary", "percent": 60}, {"name": "half", "percent": 10}, {"name": "all", "percent": 100}]
    model = make_model("b", passed(wave=wave(0, "0.6", selectors=())), rollout={"waves": shrinking})
    started = status_of(planned(model)).wave
    assert started is not None
    assert (started.index, started.fraction) == (1, "0.6")


@pytest.mark.parametrize("inside", [True, False])
def test_a_share_is_taken_by_the_place_of_the_name(inside: bool) -> None:
    name = next(f"t{number}" for number in range(100) if (position("shops", f"t{number}") < 0.5) is inside)
    model = model_of(passed(wave=wave(1, "0.5", at(), soak_until=at())))
    plan = planned(model, tenant(name, promoted()))
    assert status_of(plan).phase == "Rolling"
    index = status_of(plan).wave
    assert index is not None
    assert index.index == (1 if inside else 2)


def test_a_spec_that_loses_its_waves_under_way_still_reaches_everybody_before_promotion() -> None:
    model = make_model("b", passed(wave=wave(0, "0")), rollout={"waves": [{"name": "all", "percent": 100}]})
    plan = planned(model, tenant("two", promoted()))
    assert status_of(plan).active == promoted()
    started = status_of(plan).wave
    assert started is not None
    assert (started.index, started.fraction) == (0, "1")


@pytest.mark.parametrize(
    ("rule", "index", "approve", "goes_on"),
    [
        ("None", 0, "", True),
        ("BeforeFirstWave", 0, "", False),
        ("BeforeFirstWave", 0, NAME, True),
        ("BeforeFirstWave", 0, promoted().revision, False),
        ("BeforeFirstWave", 1, "", True),
        ("BeforeEachWave", 0, NAME, True),
        ("BeforeEachWave", 1, NAME, False),
        ("BeforeEachWave", 1, f"{NAME}/1", True),
        ("BeforeEachWave", 2, f"{NAME}/1", False),
    ],
)
@pytest.mark.parametrize("how", ["spec", "annotation"])
def test_approval_is_bound_to_the_revision_and_the_wave(
    rule: str, index: int, approve: str, goes_on: bool, how: str
) -> None:
    before = None if index == 0 else wave(index - 1, "0", at(), soak_until=at())
    given: dict[str, Any] = (
        {"approve": approve} if how == "spec" else {"metadata": {"annotations": {"searchops.dev/approve": approve}}}
    )
    model = model_of(passed(wave=before), approval=rule, **given)
    plan = steady(model, facts_of(model, gate=None)) if not goes_on else planned(model)
    if goes_on:
        started = status_of(plan).wave
        assert started is not None
        assert started.index == index
    else:
        assert (status_of(plan).wave, status_of(plan).phase, plan.actions) == (before, "AwaitingApproval", ())
        assert condition(plan, "Progressing") == ("False", "AwaitingApproval")
        wanted = NAME if index == 0 else f"{NAME}/{index}"
        assert f"searchops.dev/approve={wanted}" in message(plan, "Progressing")


@pytest.mark.parametrize(("failed", "percent", "opens"), [(0, 0, False), (1, 2, True), (2, 50, False), (5, 50, True)])
def test_the_breaker_halts_the_fleet_and_promotes_nothing(failed: int, percent: int, opens: bool) -> None:
    names = [canary(f"f{number}", failed=True) for number in range(failed)]
    names += [canary(f"g{number}", bound=True) for number in range(10 - failed)]
    model = model_of(passed(wave=wave(0, "0")), breaker={"maxRevertedPercent": percent})
    plan = steady(model, facts_of(model, tenants=tuple(names), gate=None))
    assert (condition(plan, "Progressing")[1] == "BreakerOpen") is opens
    assert (status_of(plan).phase == "Paused") is opens
    assert status_of(plan).active == promoted()
    if opens:
        assert "shops/f0" in message(plan, "Ready")


def test_promotion_keeps_the_old_revision_warm_and_is_written_to_the_config_map_first() -> None:
    earlier = promoted("c", 9, retire_after=at(hours=1))
    model = model_of(passed(wave=wave(2, "1"), retiring=(earlier,)))
    plan = planned(model, tenant("t", built("b", 2)))
    assert told(plan.actions) == ["WriteState", "event Promoted"]
    status = status_of(plan)
    assert status.active == built("b", 2, promoted_at=at(), evidence="s3://e/2")
    assert status.retiring == (earlier, promoted(retire_after=at(hours=72)))
    assert (status.candidate, status.wave, status.phase) == (None, None, "Promoted")
    assert status.history == (HistoryEntry(revision=NAME, event="Promoted", at=at()),)
    written = plan.actions[0]
    assert isinstance(written, WriteState)
    assert (written.status.active, written.status.retiring) == (status.active, status.retiring)
    assert condition(plan, "Ready") == ("True", "Promoted")
    model = after(model, plan)
    settled = steady(model, facts_of(model, tenants=(tenant("t", built("b", 2)),)))
    assert settled.actions == ()
    assert condition(settled, "Ready") == ("True", "Promoted")
    assert settled.requeue_after == timedelta(hours=1).total_seconds()


def test_a_first_model_is_promoted_with_nothing_to_retire() -> None:
    model = model_of(passed(active=None, wave=wave(2, "1")))
    status = status_of(planned(model))
    assert (status.retiring, status.active is not None) == ((), True)


def test_a_warm_revision_comes_back_with_the_evidence_it_had() -> None:
    warm = promoted("b", 2, evidence="s3://e/old", retire_after=at(hours=2))
    model = model_of(passed(candidate=warm, verdict=None, wave=wave(2, "1")))
    active = status_of(planned(model)).active
    assert active is not None
    assert (active.evidence, active.retire_after, active.promoted_at) == ("s3://e/old", None, at())


def test_a_serving_server_that_is_down_holds_the_wave_back() -> None:
    model = model_of(passed())
    down = server("s2", reachable=False, error="refused")
    serving = pool("default", server("s1", promoted().revision, NAME), down)
    plan = steady(model, facts_of(model, gate=None, serving=serving))
    assert (plan.actions, status_of(plan).wave) == ((), None)
    assert condition(plan, "Loaded") == ("False", "Loading")
