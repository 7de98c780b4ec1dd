"""The gate of a candidate: what its Job is given, and what each verdict leads to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from searchops.api.observed import JobState
from searchops.api.v1alpha1.embedding_model_status import AttemptStatus, EmbeddingModelStatus
from searchops.planning.model_facts import DeleteJob, WriteState
from searchops.planning.rollout import plan_model
from unit.planning import rollout_cases as case


def test_the_gate_is_given_both_arms_and_what_has_worn_the_holdout() -> None:
    earlier = case.promoted("c", 3, retire_after=case.at(hours=5), evidence="s3://e/3")
    own = AttemptStatus(digest=case.DIGESTS["b"], at=case.at(days=-1), evidence="s3://e/own")
    worn = AttemptStatus(digest=case.DIGESTS["c"], at=case.at(days=-40), evidence="s3://e/3")
    status = case.gating(active=case.promoted(evidence="s3://e/1"), retiring=(earlier,), attempts=(worn, own))
    model = case.make_model("b", status)
    plan = case.steady(model, case.facts_of(model))
    assert case.told(plan.actions) == ["CreateJob"]
    assert (case.status_of(plan).phase, case.condition(plan, "GatePassed")) == ("Gating", ("False", "Gating"))
    name = case.order_of(plan).name
    task = json.loads(case.order_of(plan).task.model_dump_json(by_alias=True))
    task.pop("profile")
    assert task == {
        "kind": "evaluate",
        "model": "shop",
        "change": "Model",
        "incumbent": {
            "revision": case.promoted().revision,
            "encoder": case.promoted().revision,
            "space": "spacea",
            "dimension": 384,
            "recorded": None,
        },
        "candidate": {
            "revision": case.built("b", 2).revision,
            "encoder": case.built("b", 2).revision,
            "space": "spaceb",
            "dimension": 384,
            "recorded": None,
        },
        "servers": ["c1:8001"],
        "holdouts": [case.HOLDOUT],
        "margins": {
            "repackageLoss": "0.02",
            "modelLoss": "0.05",
            "firstLoss": "0.10",
            "repackageNdcg": "0.01",
            "modelNdcg": "0.02",
        },
        "seed": 20261124,
        "earlier": [{"digest": case.DIGESTS["c"], "at": case.at(days=-40), "evidence": "s3://e/3"}],
        "recentSince": case.at(days=-30),
        "anchored": ["s3://e/1", "s3://e/3"],
        "embeddings": "s3://artifacts/embeddings",
        "evidenceUri": f"s3://artifacts/evidence/{name}.json",
        "resultUri": f"s3://artifacts/results/{name}.json",
    }


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (case.gating(active=None), "First"),
        (case.gating(), "Model"),
        (case.gating(candidate=case.built("b", 2, space_change="Same", space="spacea")), "Repackage"),
    ],
)
def test_the_measured_change_chooses_the_margins_and_the_incumbent(status: EmbeddingModelStatus, change: str) -> None:
    model = case.make_model("b", status)
    task = json.loads(
        case.order_of(plan_model(model, case.facts_of(model), case.NOW)).task.model_dump_json(by_alias=True)
    )
    assert task["change"] == change
    assert task["incumbent"]["revision"] == ("lexical" if change == "First" else case.promoted().revision)


def test_the_gate_waits_for_the_incumbent_on_the_canary_pool() -> None:
    model = case.make_model("b", case.gating())
    canary = case.pool("canary", case.server("c1", case.built("b", 2).revision))
    plan = case.steady(model, case.facts_of(model, canary=canary))
    assert "CreateJob" not in case.told(plan.actions)
    assert f"load c1 {case.promoted().revision}" in case.told(plan.actions)


@pytest.mark.parametrize("outcome", ["Pass", "Better"])
def test_a_pass_is_loaded_on_the_serving_pool_before_any_wave(outcome: str) -> None:
    model = case.make_model("b", case.gating(verdict=case.recorded(outcome)))
    name = case.built("b", 2).revision
    serving = case.pool("default", case.server("s1", case.promoted().revision))
    plan = case.steady(model, case.facts_of(model, serving=serving, gate=None))
    assert case.told(plan.actions) == [f"load s1 {name}-enc", f"load s1 {name}-tok", f"load s1 {name}"]
    assert (case.status_of(plan).wave, case.condition(plan, "GatePassed")) == (None, ("True", "Passed"))
    assert "WaveStarted" not in str(case.told(case.answered(outcome, {}).actions))
    assert case.told(plan_model(model, case.facts_of(model, gate=None), case.NOW).actions) == ["event WaveStarted"]


def test_before_the_verdict_the_serving_pool_holds_no_candidate() -> None:
    model = case.make_model("b", case.gating())
    facts = case.facts_of(model, serving=case.pool("default", case.server("s1", case.promoted().revision)))
    assert [line for line in case.told(plan_model(model, facts, case.NOW).actions) if "load" in line] == []


@pytest.mark.parametrize(
    ("outcome", "policy"), [("Regressed", "Pause"), ("Regressed", "Rollback"), ("Inconclusive", "Rollback")]
)
def test_a_verdict_against_the_candidate_takes_it_back_and_is_kept_for_people(outcome: str, policy: str) -> None:
    plan = case.answered(outcome, {"gate": {"onInconclusive": policy}})
    assert case.told(plan.actions) == ["WriteState", "event CandidateRejected"]
    status = case.status_of(plan)
    assert (status.candidate, status.active, status.phase) == (None, case.promoted(), "RolledBack")
    assert status.verdict == case.recorded(outcome)
    assert [(one.digest, one.outcome, one.evidence) for one in status.rejected] == [
        (case.DIGESTS["b"], outcome, case.recorded(outcome).evidence)
    ]
    assert case.condition(plan, "Ready") == ("False", "Rejected")
    model = case.make_model("b", status, gate={"onInconclusive": policy})
    settled = case.steady(
        model, case.facts_of(model, canary=case.pool("canary", case.server("c1", case.promoted().revision)))
    )
    assert settled.actions == ()
    assert case.condition(settled, "GatePassed")[0] == "False"
    assert case.status_of(settled).verdict == case.recorded(outcome)


def test_the_rejected_candidate_is_unloaded_and_nothing_else() -> None:
    status = case.status_of(case.answered("Regressed", {}))
    model = case.make_model("b", status)
    name = case.built("b", 2).revision
    canary = case.pool("canary", case.server("c1", case.promoted().revision, name, "other-r1-00000000"))
    plan = plan_model(model, case.facts_of(model, canary=canary), case.NOW)
    assert case.told(plan.actions) == [f"unload c1 {name}", f"unload c1 {name}-tok", f"unload c1 {name}-enc"]
    assert plan_model(model, case.facts_of(model, canary=canary, unread_tenants=1), case.NOW).actions == ()


@pytest.mark.parametrize(
    ("outcome", "mode", "reason"),
    [
        ("Inconclusive", "Enforce", "Inconclusive"),
        ("Invalid", "Enforce", "GateInvalid"),
        ("Regressed", "DryRun", "Regressed"),
        ("Invalid", "DryRun", "GateInvalid"),
    ],
)
def test_what_cannot_tell_pauses_and_a_new_token_gates_again(outcome: str, mode: str, reason: str) -> None:
    spec = {"gate": {"mode": mode}}
    plan = case.answered(outcome, spec)
    assert plan.actions == ()
    status = case.status_of(plan)
    assert (status.phase, case.condition(plan, "GatePassed")) == ("Paused", ("False", reason))
    assert (status.candidate, status.wave) == (case.built("b", 2), None)
    again = case.make_model("b", status, **spec, rollout={"retryToken": "t"})
    retried = plan_model(again, case.facts_of(again), case.NOW)
    assert case.told(retried.actions) == ["CreateJob"]
    assert (case.status_of(retried).phase, case.status_of(retried).verdict) == ("Gating", None)


def test_a_dry_run_shows_its_pass_and_rolls_nothing_out() -> None:
    plan = case.answered("Pass", {"gate": {"mode": "DryRun"}})
    assert plan.actions == ()
    assert (case.status_of(plan).wave, case.condition(plan, "Progressing")) == (None, ("False", "DryRun"))
    model = case.make_model("b", case.status_of(plan), gate={"mode": "DryRun"})
    facts = case.facts_of(model, gate=None, serving=case.pool("default", case.server("s1", case.promoted().revision)))
    assert case.steady(model, facts).actions == ()


def test_a_gate_without_an_answer_is_a_new_attempt_and_never_a_verdict() -> None:
    model = case.make_model("b", case.gating())
    facts = case.facts_of(model)
    for attempt in (2, 3):
        plan = plan_model(model, replace(facts, gate=case.job(facts.gate, complete=True)), case.NOW)
        assert [type(action) for action in plan.actions] == [DeleteJob]
        model = case.after(model, plan)
        facts = case.facts_of(model)
        candidate = model.status.candidate
        assert candidate is not None
        assert (candidate.attempt, model.status.verdict) == (attempt, None)
    plan = case.steady(model, replace(facts, gate=case.job(facts.gate, complete=True)))
    assert (plan.actions, case.condition(plan, "GatePassed")) == ((), ("False", "GateInvalid"))


def test_a_profile_that_is_not_known_is_named() -> None:
    model = case.make_model("b", case.gating(), gate={"profile": "mine"})
    plan = case.steady(model, replace(case.facts_of(model), profile=None))
    assert (plan.actions, case.condition(plan, "GatePassed")) == ((), ("False", "InvalidSpec"))
    assert "'mine'" in case.message(plan, "GatePassed")


def test_a_verdict_for_another_revision_lets_nothing_through() -> None:
    stale = case.recorded("Pass").model_copy(update={"revision": case.promoted("c", 9).revision})
    model = case.make_model("b", case.gating(verdict=stale))
    assert case.told(plan_model(model, case.facts_of(model, tenants=(case.tenant("t"),)), case.NOW).actions) == [
        "CreateJob"
    ]


def test_a_gate_job_of_an_earlier_question_ends_before_the_next_one_starts() -> None:
    model = case.make_model("b", case.gating())
    old = JobState("evaluate-old", "uid-old", kind="evaluate", active=1)
    plan = case.steady(model, case.facts_of(model, jobs=(old,)))
    assert plan.actions == (DeleteJob("evaluate-old", "uid-old"),)
    assert (plan.requeue_after, case.condition(plan, "GatePassed")[0]) == (2.0, "False")
    assert "evaluate-old" in case.message(plan, "GatePassed")
    facts = case.facts_of(model)
    assert facts.gate is not None
    own = case.job(facts.gate, active=1)
    assert own.state is not None
    assert case.steady(model, replace(facts, gate=own, jobs=(own.state,))).actions == ()
    assert case.told(plan_model(model, facts, case.NOW).actions) == ["CreateJob"]


def test_a_build_that_has_answered_may_end_while_the_gate_starts() -> None:
    model = case.make_model("b", case.gating())
    ending = JobState("build-1", "uid-1", kind="build", active=1)
    assert case.told(plan_model(model, case.facts_of(model, jobs=(ending,)), case.NOW).actions) == ["CreateJob"]


@pytest.mark.parametrize("outcome", ["Pass", "Regressed", "Inconclusive", "Invalid"])
def test_a_verdict_wears_the_holdout_once_for_each_digest_and_is_kept_for_good(outcome: str) -> None:
    old = AttemptStatus(digest=case.DIGESTS["b"], at=case.at(days=-50), evidence="s3://e/old")
    other = AttemptStatus(digest=case.DIGESTS["c"], at=case.at(days=-400), evidence="s3://e/other")
    model = case.make_model("b", case.gating(attempts=(old, other)))
    facts = case.facts_of(model)
    assert facts.gate is not None
    answer = case.verdict(case.built("b", 2).revision, outcome)
    plan = plan_model(model, replace(facts, gate=case.job(facts.gate, complete=True), gate_result=answer), case.NOW)
    new = AttemptStatus(
        digest=case.DIGESTS["b"], at=case.at(), evidence=f"s3://artifacts/evidence/{facts.gate.name}.json"
    )
    wanted = (old, other) if outcome == "Invalid" else (other, new)
    assert case.status_of(plan).attempts == wanted
    written = [action.status.attempts for action in plan.actions if isinstance(action, WriteState)]
    assert written == ([] if outcome == "Invalid" else [wanted])
