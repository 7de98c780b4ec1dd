"""Worker Jobs: the platform team's Pod with our command, environment and safety, and nothing of it lost."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from searchops.api.meta import ApiModel, ObjectMeta
from searchops.api.tasks import FINAL_EXIT_CODES, TASK_VARIABLE, TOKEN_VARIABLE
from searchops.planning.jobs import JobOrder, check_template, job_manifest

TEMPLATE: dict[str, Any] = {
    "metadata": {
        "name": "gpu",
        "labels": {"searchops.dev/worker-for": "build_reindex", "kueue.x-k8s.io/queue-name": "gpus"},
    },
    "template": {
        "metadata": {"labels": {"team": "search"}},
        "spec": {
            "restartPolicy": "Always",
            "automountServiceAccountToken": True,
            "nodeSelector": {"gpu": "a10"},
            "tolerations": [{"key": "gpu"}],
            "containers": [
                {"name": "sidecar", "image": "proxy"},
                {
                    "name": "worker",
                    "image": "worker:1",
                    "args": ["sleep"],
                    "env": [{"name": "HOME", "value": "/home/w"}, {"name": TASK_VARIABLE, "value": "forged"}],
                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                },
            ],
        },
    },
}


class Task(ApiModel):
    """A task as a worker would get it."""

    result_uri: str = "s3://x"


def order(**changes: Any) -> JobOrder:
    owner = ObjectMeta(name="acme-x", namespace="shop", uid="uid-1")
    values: dict[str, Any] = {
        "name": "reindex-1",
        "kind": "reindex",
        "task": Task(),
        "owner": owner,
        "owner_kind": "ReindexJob",
        "deadline": timedelta(minutes=90),
        **changes,
    }
    return JobOrder(**values)


def worker_of(manifest: dict[str, Any]) -> dict[str, Any]:
    containers = manifest["spec"]["template"]["spec"]["containers"]
    return next(item for item in containers if item["name"] == "worker")


def test_a_job_is_indexed_final_codes_fail_it_and_disruptions_are_ignored() -> None:
    spec = job_manifest(order(completions=4, retries=2), TEMPLATE)["spec"]
    del spec["template"]
    assert spec == {
        "parallelism": 4,
        "completions": 4,
        "completionMode": "Indexed",
        "backoffLimitPerIndex": 2,
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": 5400,
        "ttlSecondsAfterFinished": 604_800,
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
    }


def test_the_queues_label_goes_on_the_job_and_the_permission_does_not() -> None:
    metadata = job_manifest(order(), TEMPLATE)["metadata"]
    assert metadata == {
        "name": "reindex-1",
        "labels": {
            "kueue.x-k8s.io/queue-name": "gpus",
            "searchops.dev/task": "reindex",
            "searchops.dev/owner-kind": "ReindexJob",
            "searchops.dev/owner-uid": "uid-1",
        },
        "annotations": {"searchops.dev/owner-namespace": "shop", "searchops.dev/owner-name": "acme-x"},
    }


def test_the_pod_is_the_platform_teams_with_our_command_and_without_credentials() -> None:
    manifest = job_manifest(order(), TEMPLATE)
    pod = manifest["spec"]["template"]
    assert (pod["spec"]["restartPolicy"], pod["spec"]["automountServiceAccountToken"]) == ("Never", False)
    assert (pod["spec"]["nodeSelector"], pod["spec"]["tolerations"]) == ({"gpu": "a10"}, [{"key": "gpu"}])
    assert pod["metadata"]["labels"] == {"team": "search", "searchops.dev/task": "reindex"}
    worker = worker_of(manifest)
    assert worker["command"] == ["searchops-worker", "run"]
    assert "args" not in worker
    assert worker["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    environment = {entry["name"]: entry.get("value") for entry in worker["env"]}
    assert environment == {"HOME": "/home/w", TASK_VARIABLE: json.dumps({"resultUri": "s3://x"}, separators=(",", ":"))}
    assert pod["spec"]["containers"][0] == {"name": "sidecar", "image": "proxy"}


def test_a_token_comes_from_the_jobs_own_secret_never_from_the_task() -> None:
    worker = worker_of(job_manifest(order(secret_claims={"access": []}), TEMPLATE))
    token = next(entry for entry in worker["env"] if entry["name"] == TOKEN_VARIABLE)
    assert token["valueFrom"] == {"secretKeyRef": {"name": "reindex-1", "key": "token"}}


def test_the_template_itself_is_never_changed() -> None:
    before = copy.deepcopy(TEMPLATE)
    job_manifest(order(secret_claims={"access": []}, suspend=True), TEMPLATE)
    assert before == TEMPLATE


def test_suspend_is_said_only_where_it_is_asked_for() -> None:
    assert "suspend" not in job_manifest(order(), TEMPLATE)["spec"]
    assert job_manifest(order(suspend=True), TEMPLATE)["spec"]["suspend"] is True


def test_a_deadline_is_never_zero() -> None:
    spec = job_manifest(order(deadline=timedelta(milliseconds=1)), TEMPLATE)["spec"]
    assert spec["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize(
    ("template", "kind", "missing", "said"),
    [
        (None, "build", True, "spec.worker: there is no PodTemplate 'gpu' in the operator's namespace"),
        (TEMPLATE, "evaluate", False, "wanted 'evaluate' among its '_'-separated kinds"),
        ({"metadata": {"name": "gpu"}}, "build", False, "carries searchops.dev/worker-for=''"),
        (
            {**TEMPLATE, "template": {"spec": {"containers": [{"name": "main"}]}}},
            "build",
            False,
            "has no container named 'worker'",
        ),
    ],
)
def test_a_template_that_may_not_be_used_says_why(template: Any, kind: str, *, missing: bool, said: str) -> None:
    found = check_template("gpu", template, kind, "spec.worker")
    assert found is not None
    assert found.missing is missing
    assert said in found.message


@pytest.mark.parametrize("kind", ["build", "reindex"])
def test_a_labelled_template_may_be_used(kind: str) -> None:
    assert check_template("gpu", TEMPLATE, kind, "spec.worker") is None
