"""Pods as processes: what the Job controller and the operator rely on, on a real control plane."""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from integration.runner_pods import (
    JOBS,
    NAMESPACE,
    NUMBERS,
    PODS,
    SECRETS,
    eventually,
    exists,
    in_phase,
    job_ends,
    make_job,
    make_pod,
    pods_of,
    processes_of,
    terminated,
)
from searchops_sandbox.process_runner import RunnerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from integration.runner_pods import Json
    from searchops_sandbox.control_plane import ControlPlane
    from searchops_sandbox.kubernetes_api import KubernetesApi

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(control_plane: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with control_plane.api() as client:
        await client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await eventually(lambda: exists(client, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"))
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runner(
    control_plane: ControlPlane, api: KubernetesApi, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunnerProcess]:
    started = RunnerProcess(control_plane.kubeconfig, folder=tmp_path_factory.mktemp("runner"), slots=2)
    await started.start()
    yield started
    await started.stop()


async def test_an_indexed_job_gets_its_index_its_secret_and_its_python(
    api: KubernetesApi, runner: RunnerProcess
) -> None:
    secret = f"token-{next(NUMBERS)}"
    await api.create(SECRETS, {"metadata": {"name": secret}, "stringData": {"token": "s3cret"}})
    job = await make_job(
        api,
        "",
        completionMode="Indexed",
        completions=2,
        parallelism=2,
        pod={
            "container": {
                "command": ["python", "-c"],
                "args": [
                    "import os, sys\n"
                    "message = ' '.join((os.environ['JOB_COMPLETION_INDEX'], '$(TOKEN)', '$(POD)', sys.executable))\n"
                    "open(os.environ['SEARCHOPS_TERMINATION_LOG'], 'w').write(message)"
                ],
                "env": [
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
            }
        },
    )
    assert (await job_ends(api, job))["type"] == "Complete"
    pods = await pods_of(api, job)
    messages = {
        f"{pod['metadata']['annotations']['batch.kubernetes.io/job-completion-index']} s3cret "
        f"{pod['metadata']['name']} {sys.executable}"
        for pod in pods
    }
    assert {terminated(pod)["message"] for pod in pods} == messages
    assert {terminated(pod)["reason"] for pod in pods} == {"Completed"}


async def test_an_exit_code_can_fail_the_job_at_once(api: KubernetesApi, runner: RunnerProcess) -> None:
    job = await make_job(
        api,
        "exit 42",
        backoffLimit=5,
        podFailurePolicy={
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "worker", "operator": "In", "values": [42]},
                }
            ]
        },
    )
    end = await job_ends(api, job)
    assert (end["type"], end["reason"]) == ("Failed", "PodFailurePolicy")
    assert end["job"]["failed"] == 1


async def test_a_failed_worker_is_tried_again(api: KubernetesApi, runner: RunnerProcess, tmp_path: Path) -> None:
    marker = tmp_path / "tried"
    job = await make_job(api, f"test -e {marker} && exit 0; touch {marker}; exit 3", backoffLimit=2)
    end = await job_ends(api, job)
    assert (end["type"], end["job"]["failed"], end["job"]["succeeded"]) == ("Complete", 1, 1)


async def test_a_suspended_job_ends_its_pods_and_resumes_with_new_ones(
    api: KubernetesApi, runner: RunnerProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "second"
    job = await make_job(
        api, f"trap 'exit 7' TERM; test -e {marker} && exit 0; touch {marker}; while :; do sleep 0.1; done"
    )
    first = (await eventually(lambda: pods_of(api, job)))[0]
    running = await in_phase(api, first["metadata"]["name"], "Running")
    await eventually(lambda: asyncio.to_thread(marker.exists))
    await api.patch(f"{JOBS}/{job}", {"spec": {"suspend": True}})

    async def gone() -> bool:
        return not await pods_of(api, job)

    await eventually(gone)
    assert processes_of(running) == []
    await api.patch(f"{JOBS}/{job}", {"spec": {"suspend": False}})
    end = await job_ends(api, job)
    assert (end["type"], end["job"].get("failed", 0)) == ("Complete", 0)


async def test_a_deadline_ends_job_and_processes(api: KubernetesApi, runner: RunnerProcess) -> None:
    job = await make_job(api, "exec sleep 300", activeDeadlineSeconds=2)
    pod = (await eventually(lambda: pods_of(api, job)))[0]
    await in_phase(api, pod["metadata"]["name"], "Running")
    end = await job_ends(api, job)
    assert (end["type"], end["reason"]) == ("Failed", "DeadlineExceeded")
    assert processes_of(pod) == []


async def test_a_pods_own_deadline_is_kept(api: KubernetesApi, runner: RunnerProcess) -> None:
    name = await make_pod(api, "exec sleep 300", activeDeadlineSeconds=1)
    pod = await in_phase(api, name, "Failed", "Succeeded")
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_pod_waits_for_its_secret_without_taking_a_slot(api: KubernetesApi, runner: RunnerProcess) -> None:
    secret = f"later-{next(NUMBERS)}"
    wants = {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "key"}}}]}
    waiting = [await make_pod(api, 'test "$KEY" = value', container=wants) for _ in range(2)]

    async def says_why() -> bool:
        statuses = (await api.get(f"{PODS}/{waiting[1]}"))["status"].get("containerStatuses") or [{"state": {}}]
        return bool(statuses[0]["state"].get("waiting", {}).get("message") == f"Secret '{secret}' not found")

    await eventually(says_why)
    other = await make_pod(api, "exit 0")
    await in_phase(api, other, "Succeeded")
    assert (await api.get(f"{PODS}/{waiting[0]}"))["status"]["phase"] == "Pending"
    data = {"key": base64.b64encode(b"value").decode()}
    await api.create(SECRETS, {"metadata": {"name": secret}, "data": data})
    for name in waiting:
        await in_phase(api, name, "Succeeded")


async def test_deletion_sends_sigterm_and_waits_for_the_worker(api: KubernetesApi, runner: RunnerProcess) -> None:
    script = "trap 'echo finished > \"$SEARCHOPS_TERMINATION_LOG\"; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    name = await make_pod(api, script, kept=True, terminationGracePeriodSeconds=60)
    pod = await in_phase(api, name, "Running")
    log = runner.folder / "pods" / f"{NAMESPACE}.{name}.{pod['metadata']['uid']}" / "worker.log"
    await eventually(lambda: asyncio.to_thread(lambda: "up" in log.read_text()))
    await api.delete(f"{PODS}/{name}")
    pod = await in_phase(api, name, "Failed")
    assert (terminated(pod)["exitCode"], terminated(pod)["message"]) == (5, "finished\n")
    assert await released(api, name)


async def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(
    api: KubernetesApi, runner: RunnerProcess
) -> None:
    name = await make_pod(api, "trap '' TERM; while :; do sleep 0.1; done", kept=True, terminationGracePeriodSeconds=1)
    pod = await in_phase(api, name, "Running")
    await api.delete(f"{PODS}/{name}")
    pod = await in_phase(api, name, "Failed")
    assert terminated(pod)["exitCode"] == 137
    assert processes_of(pod) == []
    assert await released(api, name)


async def released(api: KubernetesApi, name: str) -> bool:
    """Whether the object goes once the test's own finalizer is taken off: the node has confirmed the deletion."""

    async def confirmed() -> bool:
        return bool((await api.get(f"{PODS}/{name}"))["metadata"].get("deletionGracePeriodSeconds") == 0)

    await eventually(confirmed)
    await api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}})
    return await exists(api, f"{PODS}/{name}") is None


async def test_a_forced_deletion_kills_the_process(api: KubernetesApi, runner: RunnerProcess) -> None:
    name = await make_pod(api, "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=300)
    pod = await in_phase(api, name, "Running")

    async def gone() -> bool:
        return not await asyncio.to_thread(processes_of, pod)

    assert not await gone()
    await api.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    await eventually(gone)
    assert await exists(api, f"{PODS}/{name}") is None


async def test_no_more_workers_than_slots_run_at_once(
    api: KubernetesApi, runner: RunnerProcess, tmp_path: Path
) -> None:
    times = tmp_path / "times"
    script = f"echo + >> {times}; sleep 0.3; echo - >> {times}"
    names = [await make_pod(api, script) for _ in range(5)]
    for name in names:
        await in_phase(api, name, "Succeeded")
    changes = [1 if sign == "+" else -1 for sign in (await asyncio.to_thread(times.read_text)).split()]
    assert len(changes) == 10
    assert max(itertools.accumulate(changes)) == 2


async def test_a_pod_that_fits_no_node_says_so_and_can_be_deleted(api: KubernetesApi, runner: RunnerProcess) -> None:
    job = await make_job(
        api, "exit 0", pod={"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}, backoffLimit=0
    )
    pod = (await eventually(lambda: pods_of(api, job)))[0]

    async def says_why() -> str:
        status = (await api.get(f"{PODS}/{pod['metadata']['name']}"))["status"]
        messages = [c.get("message", "") for c in status.get("conditions") or () if c["type"] == "PodScheduled"]
        return messages[0] if messages else ""

    assert "Insufficient nvidia.com/gpu" in await eventually(says_why)
    await api.delete(f"{JOBS}/{job}", {"propagationPolicy": "Foreground"})

    async def gone() -> bool:
        return await exists(api, f"{JOBS}/{job}") is None and not await pods_of(api, job)

    await eventually(gone)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"restartPolicy": "OnFailure"}, "RestartPolicyNotServed"),
        ({"container": {"name": "other"}}, "NoWorkerContainer"),
        ({"container": {"command": []}}, "NoCommand"),
        (
            {
                "container": {"volumeMounts": [{"name": "keys", "mountPath": "/keys"}]},
                "volumes": [{"name": "keys", "secret": {"secretName": "any"}}],
            },
            "VolumeNotServed",
        ),
    ],
)
async def test_what_the_sandbox_does_not_serve_it_refuses(
    api: KubernetesApi, runner: RunnerProcess, fields: Json, reason: str
) -> None:
    name = await make_pod(api, "exit 0", **fields)
    assert (await in_phase(api, name, "Failed"))["status"]["reason"] == reason


async def test_a_program_that_is_not_there_is_a_start_error(api: KubernetesApi, runner: RunnerProcess) -> None:
    name = await make_pod(api, "", container={"command": ["no-such-program"]})
    end = terminated(await in_phase(api, name, "Failed"))
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    assert "no-such-program" in end["message"]


async def test_long_termination_messages_are_cut_and_logs_step_in(api: KubernetesApi, runner: RunnerProcess) -> None:
    long = await make_pod(api, 'head -c 6000 /dev/zero | tr "\\0" x > "$SEARCHOPS_TERMINATION_LOG"')
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    silent = await make_pod(api, "echo the reason >&2; exit 1", container=fallback)
    assert terminated(await in_phase(api, long, "Succeeded"))["message"] == "x" * 4096
    assert terminated(await in_phase(api, silent, "Failed"))["message"] == "the reason"


async def test_a_killed_runner_takes_its_workers_along_and_reports_them_when_it_is_back(
    api: KubernetesApi, runner: RunnerProcess
) -> None:
    script = "sleep 300 & echo up; wait"
    name = await make_pod(api, script)
    pod = await in_phase(api, name, "Running")
    log = runner.folder / "pods" / f"{NAMESPACE}.{name}.{pod['metadata']['uid']}" / "worker.log"
    await eventually(lambda: asyncio.to_thread(lambda: "up" in log.read_text()))
    await runner.kill()
    await runner.start()
    pod = await in_phase(api, name, "Failed")
    disruption = [item for item in pod["status"]["conditions"] if item["type"] == "DisruptionTarget"]
    assert [item["status"] for item in disruption] == ["True"]

    async def gone() -> bool:
        return not await asyncio.to_thread(processes_of, pod)

    await eventually(gone)
    await in_phase(api, await make_pod(api, "exit 0"), "Succeeded")


async def test_an_outage_of_the_api_server_costs_no_worker(
    api: KubernetesApi, runner: RunnerProcess, control_plane: ControlPlane, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    job = await make_job(api, f"until test -e {go_on}; do sleep 0.1; done")
    pod = (await eventually(lambda: pods_of(api, job)))[0]
    await in_phase(api, pod["metadata"]["name"], "Running")
    await control_plane.stop_api_server()
    await asyncio.to_thread(go_on.touch)
    await asyncio.sleep(0.5)
    await control_plane.start_api_server()
    end = await job_ends(api, job)
    assert (end["type"], end["job"].get("failed", 0)) == ("Complete", 0)


async def test_an_index_can_fail_alone(api: KubernetesApi, runner: RunnerProcess) -> None:
    job = await make_job(
        api,
        'test "$JOB_COMPLETION_INDEX" = 1 && exit 42; exit 0',
        completionMode="Indexed",
        completions=3,
        parallelism=3,
        backoffLimit=None,
        backoffLimitPerIndex=1,
        maxFailedIndexes=3,
        podFailurePolicy={
            "rules": [
                {"action": "FailIndex", "onExitCodes": {"containerName": "worker", "operator": "In", "values": [42]}}
            ]
        },
    )
    end = await job_ends(api, job)
    assert (end["type"], end["reason"]) == ("Failed", "FailedIndexes")
    assert (end["job"]["failedIndexes"], end["job"]["completedIndexes"]) == ("1", "0,2")


async def test_an_evicted_pod_is_replaced_without_counting(
    api: KubernetesApi, runner: RunnerProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "evicted"
    job = await make_job(
        api,
        f"test -e {marker} && exit 0; while :; do sleep 0.1; done",
        podFailurePolicy={
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
    )
    pod = (await eventually(lambda: pods_of(api, job)))[0]
    name = pod["metadata"]["name"]
    await in_phase(api, name, "Running")
    await asyncio.to_thread(marker.touch)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    await api.create(f"{PODS}/{name}/eviction", eviction)
    end = await job_ends(api, job)
    assert (end["type"], end["job"].get("failed", 0)) == ("Complete", 0)


async def test_finished_jobs_go_when_their_time_is_up(api: KubernetesApi, runner: RunnerProcess) -> None:
    job = await make_job(api, "exit 0", ttlSecondsAfterFinished=1)
    kept = await make_job(api, "exit 0", ttlSecondsAfterFinished=3600)
    await job_ends(api, kept)

    async def gone() -> bool:
        return await exists(api, f"{JOBS}/{job}") is None and not await pods_of(api, job)

    await eventually(gone)
    assert await exists(api, f"{JOBS}/{kept}") is not None
