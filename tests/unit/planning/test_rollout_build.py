"""The build of a candidate: its Job, its answers, its failures, and the space that is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from searchops.api.observed import JobState
from searchops.api.tasks import EXIT_PUBLISH, FINAL_EXIT_CODES
from searchops.planning.jobs import TemplateProblem, job_manifest
from searchops.planning.model_facts import DeleteJob
from searchops.planning.names import space_id
from searchops.planning.rollout import plan_model
from unit.planning import rollout_cases as case


def expected_manifest(name: str) -> dict[str, Any]:
    """The build Job without its task."""
    labels = {"searchops.dev/task": "build", "kueue.x-k8s.io/queue-name": "q"}
    return {
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


def test_the_build_job_is_made_once_and_its_manifest_is_this() -> None:
    model = case.make_model(status=case.building())
    plan = case.steady(model, case.facts_of(model))
    assert case.told(plan.actions) == ["CreateJob"]
    assert (case.status_of(plan).phase, plan.requeue_after) == ("Building", 15.0)
    assert case.condition(plan, "EngineBuilt") == ("False", "Building")
    name = case.order_of(plan).name
    manifest = job_manifest(case.order_of(plan), case.TEMPLATE)
    task = manifest["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    assert task["name"] == "SEARCHOPS_TASK"
    assert json.loads(task["value"]) == {
        "kind": "build",
        "model": "shop",
        "revision": case.chosen().revision,
        "number": 1,
        "source": {"uri": "s3://models/a", "digest": case.DIGESTS["a"]},
        "engine": {"backend": "Auto", "precision": "Auto", "maxBatch": 64, "buckets": [16, 32, 64, 128, 256]},
        "accelerator": "cpu",
        "repositories": ["/repo/canary", "/repo/default"],
        "artifacts": f"s3://artifacts/models/shop/{case.chosen().revision}",
        "holdouts": [case.HOLDOUT],
        "founders": [],
        "resultUri": f"s3://artifacts/results/{name}.json",
    }
    assert manifest == expected_manifest(name)


def test_the_build_may_prove_the_space_of_the_active_revision() -> None:
    model = case.make_model("b", case.gating(candidate=case.chosen("b", 2)))
    task = json.loads(
        case.order_of(plan_model(model, case.facts_of(model), case.NOW)).task.model_dump_json(by_alias=True)
    )
    assert task["founders"] == [{"space": "spacea", "anchors": "s3://artifacts/anchors-a"}]


def test_a_job_that_runs_is_waited_for() -> None:
    model = case.make_model(status=case.building())
    facts = case.facts_of(model)
    plan = case.steady(model, replace(facts, build=case.job(facts.build, active=1)))
    assert (plan.actions, plan.requeue_after) == ((), 15.0)


def test_a_try_that_failed_is_told_while_the_job_tries_again() -> None:
    model = case.make_model(status=case.building())
    facts = case.facts_of(model)
    failed = case.build_result(
        case.chosen().revision, exit_code=EXIT_PUBLISH, message="no space left; check the volume"
    )
    running = case.job(facts.build, active=1)
    plan = case.steady(model, replace(facts, build=running, build_result=failed))
    assert (plan.actions, plan.requeue_after) == ((), 15.0)
    assert case.condition(plan, "EngineBuilt") == ("False", "Building")
    assert case.message(plan, "EngineBuilt") == (
        f"Job {running.name} builds {case.chosen().revision} again: its last try ended with exit code 47: no space "
        "left; check the volume; it goes on by itself once that is put right"
    )


def test_a_template_that_is_missing_or_not_allowed_makes_no_job() -> None:
    model = case.make_model(status=case.building())
    facts = case.facts_of(model)
    assert facts.build is not None
    for missing, reason in ((True, "PodTemplateNotFound"), (False, "PodTemplateNotAllowed")):
        problem = replace(facts.build, problem=TemplateProblem(missing, "no template"))
        plan = case.steady(model, replace(facts, build=problem))
        assert (plan.actions, case.condition(plan, "EngineBuilt")) == ((), ("False", reason))
        assert case.status_of(plan).phase == "Paused"


def test_a_source_that_is_not_allowed_is_never_read() -> None:
    model = case.make_model(status=case.building())
    plan = case.steady(model, case.facts_of(model, source_allowed=False))
    assert (plan.actions, case.condition(plan, "Ready")) == ((), ("False", "SourceNotAllowed"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [(41, "DigestMismatch"), (40, "BadCheckpoint"), (45, "AccuracyFailed"), (44, "BuildFailed")],
)
def test_a_build_that_failed_pauses_until_somebody_asks_again(code: int, reason: str) -> None:
    model = case.make_model(status=case.building())
    facts = case.facts_of(model)
    answer = case.build_result(case.chosen().revision, exit_code=code, message="seen sha256:x")
    facts = replace(facts, build=case.job(facts.build, failure="stopped", failure_reason="PodFailurePolicy"))
    plan = case.steady(model, replace(facts, build_result=answer))
    assert plan.actions == ()
    assert (case.status_of(plan).phase, case.condition(plan, "EngineBuilt")) == ("Paused", ("False", reason))
    assert "seen sha256:x" in case.message(plan, "Ready")
    assert case.status_of(plan).candidate == case.chosen()
    for change in ({"rollout": {"retryToken": "t"}}, {"metadata": {"annotations": {"searchops.dev/retry": "t"}}}):
        again = case.make_model(status=case.status_of(plan), **change)
        retried = plan_model(again, case.facts_of(again), case.NOW)
        assert case.told(retried.actions) == ["CreateJob"]
        assert facts.build is not None
        assert case.order_of(retried).name != facts.build.name


def test_a_failure_that_the_job_itself_tries_again_is_waited_for() -> None:
    model = case.make_model(status=case.building())
    facts = case.facts_of(model)
    facts = replace(facts, build_result=case.build_result(case.chosen().revision, exit_code=47, message="disk full"))
    plan = case.steady(model, replace(facts, build=case.job(facts.build, active=1)))
    assert (plan.actions, case.condition(plan, "EngineBuilt")) == ((), ("False", "Building"))
    plan = case.steady(
        model, replace(facts, build=case.job(facts.build, failure="too many", failure_reason="BackoffLimit"))
    )
    assert case.condition(plan, "EngineBuilt") == ("False", "BuildFailed")


@pytest.mark.parametrize("ended", [{"complete": True}, {"failure": "late", "failure_reason": "DeadlineExceeded"}])
def test_a_job_that_ended_without_an_answer_is_a_new_attempt_and_the_third_pauses(ended: dict[str, Any]) -> None:
    model = case.make_model(status=case.building())
    names = set()
    for attempt in (1, 2, 3):
        facts = case.facts_of(model)
        names.add(case.order_of(plan_model(model, facts, case.NOW)).name)
        plan = plan_model(model, replace(facts, build=case.job(facts.build, **ended)), case.NOW)
        candidate = case.status_of(plan).candidate
        assert candidate is not None
        assert candidate.attempt == min(3, attempt + 1)
        assert case.told(plan.actions) == (["DeleteJob"] if attempt < 3 else [])
        model = case.after(model, plan)
    assert len(names) == 3
    assert (case.status_of(plan).phase, case.condition(plan, "EngineBuilt")) == ("Paused", ("False", "BuildFailed"))


@pytest.mark.parametrize(("cosine", "same"), [(0.9991, True), (0.999, True), (0.9989, False)])
def test_the_measured_space_decides_whether_tenants_are_re_embedded(cosine: float, same: bool) -> None:
    model = case.make_model("b", case.gating(candidate=case.chosen("b", 2, attempt=2)))
    answer = case.build_result(case.chosen("b", 2).revision, anchor_cosine={"spacea": cosine}, engine_key="engine-b")
    facts = case.facts_of(model)
    plan = plan_model(model, replace(facts, build=case.job(facts.build, complete=True), build_result=answer), case.NOW)
    candidate = case.status_of(plan).candidate
    own = case.chosen("b", 2).revision
    founded = space_id("print", "FP32", 128, own)
    assert candidate == case.built(
        "b",
        2,
        space="spacea" if same else founded,
        space_change="Same" if same else "Incompatible",
        founder=case.promoted().revision if same else own,
        anchors="s3://artifacts/anchors-a" if same else "s3://artifacts/anchors-new",
        probes="s3://artifacts/probes-new",
        engine_key="engine-b",
    )
    assert case.told(plan.actions) == ["event EngineBuilt"]
    assert (plan.requeue_after, case.condition(plan, "EngineBuilt")) == (0.0, ("True", "Built"))


def test_a_first_revision_founds_its_space_even_where_a_cosine_is_claimed() -> None:
    model = case.make_model(status=case.building())
    answer = case.build_result(case.chosen().revision, anchor_cosine={"": 1.0, "spacea": 1.0})
    facts = replace(case.facts_of(model), build_result=answer)
    candidate = case.status_of(plan_model(model, facts, case.NOW)).candidate
    assert candidate is not None
    assert (candidate.space_change, candidate.founder) == ("Incompatible", case.chosen().revision)


def test_a_build_job_of_an_earlier_question_ends_before_the_next_one_starts() -> None:
    model = case.make_model(status=case.building())
    old = JobState("build-old", "uid-old", kind="build", active=1)
    plan = case.steady(model, case.facts_of(model, jobs=(old,)))
    assert plan.actions == (DeleteJob("build-old", "uid-old"),)
    assert (plan.requeue_after, case.condition(plan, "EngineBuilt")[0]) == (2.0, "False")
    assert "build-old" in case.message(plan, "EngineBuilt")
    facts = case.facts_of(model)
    assert facts.build is not None
    own = case.job(facts.build, active=1)
    assert own.state is not None
    assert case.steady(model, replace(facts, build=own, jobs=(own.state,))).actions == ()
    assert case.told(plan_model(model, facts, case.NOW).actions) == ["CreateJob"]
