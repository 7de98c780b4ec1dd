"""A candidate's stages up to the waves: build, load, verify, gate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.tasks import FINAL_EXIT_CODES
from searchops.api.v1alpha1.embedding_model import EmbeddingModelStatus, HistoryEntry, VerdictStatus
from searchops.planning.jobs import TemplateProblem, job_manifest
from searchops.planning.model_facts import CreateJob, DeleteJob
from searchops.planning.names import space_id
from searchops.planning.rollout import plan_model

if TYPE_CHECKING:
    from tests.unit.planning.rollout_facts import (
        DIGESTS,
        HOLDOUT,
        NOW,
        after,
        at,
        build_result,
        built,
        chosen,
        condition,
        facts_of,
        job,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
        verdict,
    )
else:
    from unit.planning.rollout_facts import (
        DIGESTS,
        HOLDOUT,
        NOW,
        after,
        at,
        build_result,
        built,
        chosen,
        condition,
        facts_of,
        job,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
        verdict,
    )


if TYPE_CHECKING:
    from searchops.planning.jobs import JobOrder
    from searchops.planning.model_facts import ModelPlan

TEMPLATE = {
    "metadata": {"name": "gpu", "labels": {"searchops.dev/worker-for": "build", "kueue.x-k8s.io/queue-name": "q"}},
    "template": {
        "metadata": {"labels": {"team": "search"}},
        "spec": {
            "serviceAccountName": "pods",
            "containers": [
                {"name": "worker", "image": "worker:1", "args": ["x"], "env": [{"name": "A", "value": "1"}]},
                {"name": "sidecar", "image": "side:1"},
            ],
        },
    },
}


def building(**update: Any) -> EmbeddingModelStatus:
    return EmbeddingModelStatus.model_validate({"candidate": chosen(), "next_number": 2, **update})


def gating(**update: Any) -> EmbeddingModelStatus:
    fields = {"active": promoted(), "candidate": built("b", 2), "next_number": 3, **update}
    return EmbeddingModelStatus.model_validate(fields)


def order_of(plan: ModelPlan) -> JobOrder:
    found = [action for action in plan.actions if isinstance(action, CreateJob)]
    assert len(found) == 1
    return found[0].order


def test_the_build_job_is_made_once_and_its_manifest_is_this() -> None:
    model = make_model(status=building())
    plan = steady(model, facts_of(model))
    assert told(plan.actions) == ["CreateJob"]
    assert (status_of(plan).phase, plan.requeue_after) == ("Building", 15.0)
    assert condition(plan, "EngineBuilt") == ("False", "Building")
    name = order_of(plan).name
    manifest = job_manifest(order_of(plan), TEMPLATE)
    task = manifest["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    assert task["name"] == "SEARCHOPS_TASK"
    assert json.loads(task["value"]) == {
        "kind": "build",
        "model": "shop",
        "revision": chosen().revision,
        "number": 1,
        "source": {"uri": "s3://models/a", "digest": DIGESTS["a"]},
        "engine": {"backend": "Auto", "precision": "Auto", "maxBatch": 64, "buckets": [16, 32, 64, 128, 256]},
        "accelerator": "cpu",
        "repositories": ["/repo/canary", "/repo/default"],
        "artifacts": f"s3://artifacts/models/shop/{chosen().revision}",
        "holdouts": [HOLDOUT],
        "founders": [],
        "resultUri": f"s3://artifacts/results/{name}.json",
    }
    labels = {"searchops.dev/task": "build", "kueue.x-k8s.io/queue-name": "q"}
    assert manifest == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {
                **labels,
                "searchops.dev/owner-kind": "EmbeddingModel",
                "searchops.dev/owner-uid": "uid-1",
            },
            "annotations": {"searchops.dev/owner-namespace": "", "searchops.dev/owner-name": "shop"},
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 3,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": 4 * 3600,
            "ttlSecondsAfterFinished": 7 * 24 * 3600,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": "worker",
                            "operator": "In",
                            "values": sorted(FINAL_EXIT_CODES),
                        },
                    },
                ]
            },
            "template": {
                "metadata": {"labels": {"team": "search", "searchops.dev/task": "build"}},
                "spec": {
                    "serviceAccountName": "pods",
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "worker",
                            "image": "worker:1",
                            "command": ["searchops-worker", "run"],
                            "env": [{"name": "A", "value": "1"}],
                        },
                        {"name": "sidecar", "image": "side:1"},
                    ],
                },
            },
        },
    }


def test_the_build_may_prove_the_space_of_the_active_revision() -> None:
    model = make_model("b", gating(candidate=chosen("b", 2)))
    task = json.loads(order_of(plan_model(model, facts_of(model), NOW)).task.model_dump_json(by_alias=True))
    assert task["founders"] == [{"space": "spacea", "anchors": "s3://artifacts/anchors-a"}]


def test_a_job_that_runs_is_waited_for() -> None:
    model = make_model(status=building())
    facts = facts_of(model)
    plan = steady(model, replace(facts, build=job(facts.build, active=1)))
    assert (plan.actions, plan.requeue_after) == ((), 15.0)


def test_a_template_that_is_missing_or_not_allowed_makes_no_job() -> None:
    model = make_model(status=building())
    facts = facts_of(model)
    assert facts.build is not None
    for missing, reason in ((True, "PodTemplateNotFound"), (False, "PodTemplateNotAllowed")):
        problem = replace(facts.build, problem=TemplateProblem(missing, "no template"))
        plan = steady(model, replace(facts, build=problem))
        assert (plan.actions, condition(plan, "EngineBuilt")) == ((), ("False", reason))
        assert status_of(plan).phase == "Paused"


def test_a_source_that_is_not_allowed_is_never_read() -> None:
    model = make_model(status=building())
    plan = steady(model, facts_of(model, source_allowed=False))
    assert (plan.actions, condition(plan, "Ready")) == ((), ("False", "SourceNotAllowed"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [(41, "DigestMismatch"), (40, "BadCheckpoint"), (45, "AccuracyFailed"), (44, "BuildFailed")],
)
def test_a_build_that_failed_pauses_until_somebody_asks_again(code: int, reason: str) -> None:
    model = make_model(status=building())
    facts = facts_of(model)
    answer = build_result(chosen().revision, exit_code=code, message="seen sha256:x")
    facts = replace(facts, build=job(facts.build, failure="stopped", failure_reason="PodFailurePolicy"))
    plan = steady(model, replace(facts, build_result=answer))
    assert plan.actions == ()
    assert (status_of(plan).phase, condition(plan, "EngineBuilt")) == ("Paused", ("False", reason))
    assert "seen sha256:x" in message(plan, "Ready")
    assert status_of(plan).candidate == chosen()
    for change in ({"rollout": {"retryToken": "t"}}, {"metadata": {"annotations": {"searchops.dev/retry": "t"}}}):
        again = make_model(status=status_of(plan), **change)
        retried = plan_model(again, facts_of(again), NOW)
        assert told(retried.actions) == ["CreateJob"]
        assert facts.build is not None
        assert order_of(retried).name != facts.build.name


def test_a_failure_that_the_job_itself_tries_again_is_waited_for() -> None:
    model = make_model(status=building())
    facts = facts_of(model)
    facts = replace(facts, build_result=build_result(chosen().revision, exit_code=47, message="disk full"))
    plan = steady(model, replace(facts, build=job(facts.build, active=1)))
    assert (plan.actions, condition(plan, "EngineBuilt")) == ((), ("False", "Building"))
    plan = steady(model, replace(facts, build=job(facts.build, failure="too many", failure_reason="BackoffLimit")))
    assert condition(plan, "EngineBuilt") == ("False", "BuildFailed")


@pytest.mark.parametrize("ended", [{"complete": True}, {"failure": "late", "failure_reason": "DeadlineExceeded"}])
def test_a_job_that_ended_without_an_answer_is_a_new_attempt_and_the_third_pauses(ended: dict[str, Any]) -> None:
    model = make_model(status=building())
    names = set()
    for attempt in (1, 2, 3):
        facts = facts_of(model)
        names.add(order_of(plan_model(model, facts, NOW)).name)
        plan = plan_model(model, replace(facts, build=job(facts.build, **ended)), NOW)
        candidate = status_of(plan).candidate
        assert candidate is not None
        assert candidate.attempt == min(3, attempt + 1)
        assert told(plan.actions) == (["DeleteJob"] if attempt < 3 else [])
        model = after(model, plan)
    assert len(names) == 3
    assert (status_of(plan).phase, condition(plan, "EngineBuilt")) == ("Paused", ("False", "BuildFailed"))


@pytest.mark.parametrize(("cosine", "same"), [(0.9991, True), (0.999, True), (0.9989, False)])
def test_the_measured_space_decides_whether_tenants_are_re_embedded(cosine: float, same: bool) -> None:
    model = make_model("b", gating(candidate=chosen("b", 2, attempt=2)))
    answer = build_result(chosen("b", 2).revision, anchor_cosine={"spacea": cosine}, engine_key="engine-b")
    facts = facts_of(model)
    plan = plan_model(model, replace(facts, build=job(facts.build, complete=True), build_result=answer), NOW)
    candidate = status_of(plan).candidate
    own = chosen("b", 2).revision
    founded = space_id("print", "FP32", 128, own)
    assert candidate == built(
        "b",
        2,
        space="spacea" if same else founded,
        space_change="Same" if same else "Incompatible",
        founder=promoted().revision if same else own,
        anchors="s3://artifacts/anchors-a" if same else "s3://artifacts/anchors-new",
        probes="s3://artifacts/probes-new",
        engine_key="engine-b",
    )
    assert told(plan.actions) == ["event EngineBuilt"]
    assert (plan.requeue_after, condition(plan, "EngineBuilt")) == (0.0, ("True", "Built"))


def test_a_first_revision_founds_its_space_even_where_a_cosine_is_claimed() -> None:
    model = make_model(status=building())
    answer = build_result(chosen().revision, anchor_cosine={"": 1.0, "spacea": 1.0})
    facts = replace(facts_of(model), build_result=answer)
    candidate = status_of(plan_model(model, facts, NOW)).candidate
    assert candidate is not None
    assert (candidate.space_change, candidate.founder) == ("Incompatible", chosen().revision)


def test_the_candidate_is_loaded_on_every_canary_server_in_order() -> None:
    model = make_model("b", gating())
    name = built("b", 2).revision
    down = server("c3", reachable=False, error="refused")
    canary = pool("canary", server("c1", promoted().revision), server("c2", promoted().revision, name), down)
    plan = steady(model, facts_of(model, canary=canary))
    assert told(plan.actions) == [f"load c1 {name}-enc", f"load c1 {name}-tok", f"load c1 {name}"]
    assert (status_of(plan).phase, plan.requeue_after) == ("Loading", 3.0)
    assert condition(plan, "Loaded") == ("False", "Loading")
    assert "c3 does not answer (refused)" in message(plan, "ServersInSync")
    servers = status_of(plan).servers
    assert servers is not None
    assert (servers.total, servers.in_sync) == (5, 3)


def test_an_unregistered_pool_is_named() -> None:
    model = make_model("b", gating())
    plan = steady(model, facts_of(model, canary=None))
    assert condition(plan, "Loaded") == ("False", "PoolNotFound")
    assert "'canary'" in message(plan, "Loaded")


def test_ready_is_not_believed_before_an_inference() -> None:
    model = make_model("b", gating())
    name = built("b", 2).revision
    canary = pool("canary", server("c1", promoted().revision, name))
    unproved = replace(canary, inference={("c1", promoted().revision): ""})
    plan = steady(model, facts_of(model, canary=unproved))
    assert (plan.actions, condition(plan, "Verified")) == ((), ("False", "VerifyFailed"))
    assert "reference vectors cannot be read" in message(plan, "Verified")
    wrong = replace(canary, inference={**canary.inference, ("c1", name): "cosine 0.31"})
    plan = steady(model, facts_of(model, canary=wrong))
    assert told(plan.actions) == [
        f"unload c1 {name}",
        f"unload c1 {name}-tok",
        f"unload c1 {name}-enc",
        f"load c1 {name}-enc",
        f"load c1 {name}-tok",
        f"load c1 {name}",
    ]
    assert status_of(plan).phase == "Verifying"
    assert "cosine 0.31" in message(plan, "Verified")


def test_the_gate_is_given_both_arms_and_what_has_worn_the_holdout() -> None:
    earlier = promoted("c", 3, retire_after=at(hours=5), evidence="s3://e/3")
    history = (HistoryEntry(revision=earlier.revision, event="Promoted", at=at(days=-3)),)
    status = gating(active=promoted(evidence="s3://e/1"), retiring=(earlier,), history=history)
    model = make_model("b", status)
    plan = steady(model, facts_of(model))
    assert told(plan.actions) == ["CreateJob"]
    assert (status_of(plan).phase, condition(plan, "GatePassed")) == ("Gating", ("False", "Gating"))
    name = order_of(plan).name
    task = json.loads(order_of(plan).task.model_dump_json(by_alias=True))
    task.pop("profile")
    assert task == {
        "kind": "evaluate",
        "model": "shop",
        "change": "Model",
        "incumbent": {
            "revision": promoted().revision,
            "encoder": promoted().revision,
            "space": "spacea",
            "dimension": 384,
        },
        "candidate": {
            "revision": built("b", 2).revision,
            "encoder": built("b", 2).revision,
            "space": "spaceb",
            "dimension": 384,
        },
        "servers": ["c1:8001"],
        "holdouts": [HOLDOUT],
        "margins": {
            "repackageLoss": "0.02",
            "modelLoss": "0.05",
            "firstLoss": "0.10",
            "repackageNdcg": "0.01",
            "modelNdcg": "0.02",
        },
        "seed": 20261124,
        "attempts": 1,
        "anchored": ["s3://e/1", "s3://e/3"],
        "embeddings": "s3://artifacts/embeddings",
        "evidenceUri": f"s3://artifacts/evidence/{name}.json",
        "resultUri": f"s3://artifacts/results/{name}.json",
    }


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (gating(active=None), "First"),
        (gating(), "Model"),
        (gating(candidate=built("b", 2, space_change="Same", space="spacea")), "Repackage"),
    ],
)
def test_the_measured_change_chooses_the_margins_and_the_incumbent(status: EmbeddingModelStatus, change: str) -> None:
    model = make_model("b", status)
    task = json.loads(order_of(plan_model(model, facts_of(model), NOW)).task.model_dump_json(by_alias=True))
    assert task["change"] == change
    assert task["incumbent"]["revision"] == ("lexical" if change == "First" else promoted().revision)


def test_the_gate_waits_for_the_incumbent_on_the_canary_pool() -> None:
    model = make_model("b", gating())
    canary = pool("canary", server("c1", built("b", 2).revision))
    plan = steady(model, facts_of(model, canary=canary))
    assert "CreateJob" not in told(plan.actions)
    assert f"load c1 {promoted().revision}" in told(plan.actions)


def recorded(outcome: str) -> VerdictStatus:
    return VerdictStatus.model_validate(
        {
            "revision": built("b", 2).revision,
            "change": "Model",
            "outcome": outcome,
            "lost": 3,
            "of": 312,
            "loss_bound": "0.0096",
            "ndcg_delta": "+0.004",
            "ndcg_interval": ("-0.001", "+0.009"),
            "message": f"it is {outcome}",
            "evidence": {"uri": "s3://artifacts/evidence/1.json", "digest": DIGESTS["e"]},
        }
    )


def answered(outcome: str, spec: dict[str, Any], digest: str = "b") -> ModelPlan:
    """The plan that follows on a verdict which has been told and written."""
    model = make_model(digest, gating(), **spec)
    facts = facts_of(model)
    result = verdict(built("b", 2).revision, outcome)
    facts = replace(facts, gate=job(facts.gate, complete=True), gate_result=result)
    plan = plan_model(model, facts, NOW)
    assert told(plan.actions) == ["event VerdictReached"]
    assert (status_of(plan).verdict, plan.requeue_after) == (recorded(outcome), 0.0)
    return plan_model(after(model, plan), facts, NOW)


@pytest.mark.parametrize("outcome", ["Pass", "Better"])
def test_a_pass_is_loaded_on_the_serving_pool_before_any_wave(outcome: str) -> None:
    model = make_model("b", gating(verdict=recorded(outcome)))
    name = built("b", 2).revision
    serving = pool("default", server("s1", promoted().revision))
    plan = steady(model, facts_of(model, serving=serving, gate=None))
    assert told(plan.actions) == [f"load s1 {name}-enc", f"load s1 {name}-tok", f"load s1 {name}"]
    assert (status_of(plan).wave, condition(plan, "GatePassed")) == (None, ("True", "Passed"))
    assert "WaveStarted" not in str(told(answered(outcome, {}).actions))
    assert told(plan_model(model, facts_of(model, gate=None), NOW).actions) == ["event WaveStarted"]


def test_before_the_verdict_the_serving_pool_holds_no_candidate() -> None:
    model = make_model("b", gating())
    facts = facts_of(model, serving=pool("default", server("s1", promoted().revision)))
    assert [line for line in told(plan_model(model, facts, NOW).actions) if "load" in line] == []


@pytest.mark.parametrize(
    ("outcome", "policy"), [("Regressed", "Pause"), ("Regressed", "Rollback"), ("Inconclusive", "Rollback")]
)
def test_a_verdict_against_the_candidate_takes_it_back_and_is_kept_for_people(outcome: str, policy: str) -> None:
    plan = answered(outcome, {"gate": {"onInconclusive": policy}})
    assert told(plan.actions) == ["WriteState", "event CandidateRejected"]
    status = status_of(plan)
    assert (status.candidate, status.active, status.phase) == (None, promoted(), "RolledBack")
    assert status.verdict == recorded(outcome)
    assert [(one.digest, one.outcome, one.evidence) for one in status.rejected] == [
        (DIGESTS["b"], outcome, recorded(outcome).evidence)
    ]
    assert condition(plan, "Ready") == ("False", "Rejected")
    model = make_model("b", status, gate={"onInconclusive": policy})
    settled = steady(model, facts_of(model, canary=pool("canary", server("c1", promoted().revision))))
    assert settled.actions == ()
    assert condition(settled, "GatePassed")[0] == "False"
    assert status_of(settled).verdict == recorded(outcome)


def test_the_rejected_candidate_is_unloaded_and_nothing_else() -> None:
    status = status_of(answered("Regressed", {}))
    model = make_model("b", status)
    name = built("b", 2).revision
    canary = pool("canary", server("c1", promoted().revision, name, "other-r1-00000000"))
    plan = plan_model(model, facts_of(model, canary=canary), NOW)
    assert told(plan.actions) == [f"unload c1 {name}", f"unload c1 {name}-tok", f"unload c1 {name}-enc"]
    assert plan_model(model, facts_of(model, canary=canary, unread_tenants=1), NOW).actions == ()


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
    plan = answered(outcome, spec)
    assert plan.actions == ()
    status = status_of(plan)
    assert (status.phase, condition(plan, "GatePassed")) == ("Paused", ("False", reason))
    assert (status.candidate, status.wave) == (built("b", 2), None)
    again = make_model("b", status, **spec, rollout={"retryToken": "t"})
    retried = plan_model(again, facts_of(again), NOW)
    assert told(retried.actions) == ["CreateJob"]
    assert (status_of(retried).phase, status_of(retried).verdict) == ("Gating", None)


def test_a_dry_run_shows_its_pass_and_rolls_nothing_out() -> None:
    plan = answered("Pass", {"gate": {"mode": "DryRun"}})
    assert plan.actions == ()
    assert (status_of(plan).wave, condition(plan, "Progressing")) == (None, ("False", "DryRun"))
    model = make_model("b", status_of(plan), gate={"mode": "DryRun"})
    facts = facts_of(model, gate=None, serving=pool("default", server("s1", promoted().revision)))
    assert steady(model, facts).actions == ()


def test_a_gate_without_an_answer_is_a_new_attempt_and_never_a_verdict() -> None:
    model = make_model("b", gating())
    facts = facts_of(model)
    for attempt in (2, 3):
        plan = plan_model(model, replace(facts, gate=job(facts.gate, complete=True)), NOW)
        assert [type(action) for action in plan.actions] == [DeleteJob]
        model = after(model, plan)
        facts = facts_of(model)
        candidate = model.status.candidate
        assert candidate is not None
        assert (candidate.attempt, model.status.verdict) == (attempt, None)
    plan = steady(model, replace(facts, gate=job(facts.gate, complete=True)))
    assert (plan.actions, condition(plan, "GatePassed")) == ((), ("False", "GateInvalid"))


def test_a_profile_that_is_not_known_is_named() -> None:
    model = make_model("b", gating(), gate={"profile": "mine"})
    plan = steady(model, replace(facts_of(model), profile=None))
    assert (plan.actions, condition(plan, "GatePassed")) == ((), ("False", "InvalidSpec"))
    assert "'mine'" in message(plan, "GatePassed")


def test_a_verdict_for_another_revision_lets_nothing_through() -> None:
    stale = recorded("Pass").model_copy(update={"revision": promoted("c", 9).revision})
    model = make_model("b", gating(verdict=stale))
    assert told(plan_model(model, facts_of(model, tenants=(tenant("t"),)), NOW).actions) == ["CreateJob"]
