"""Pods and Jobs for the tests of the process runner, and how they are watched."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import psutil

from searchops_sandbox.kubernetes_api import ApiError, KubernetesApi
from searchops_sandbox.worker_process import UID_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable


Json = dict[str, Any]
NAMESPACE = "runner-tests"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
FINALIZER = "searchops.dev/kept-for-the-test"
NUMBERS = itertools.count(1)


async def eventually(check: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """The first true answer of `check`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await check()
        if answer:
            return answer
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.1)


async def exists(api: KubernetesApi, path: str) -> Json | None:
    try:
        return await api.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def pod_spec(script: str, **fields: Any) -> Json:
    container = {"name": "worker", "image": "worker", "command": ["sh", "-c", script], **fields.pop("container", {})}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        **fields,
    }


async def make_pod(api: KubernetesApi, script: str, *, kept: bool = False, **fields: Any) -> str:
    name = f"pod-{next(NUMBERS)}"
    metadata = {"name": name, "finalizers": [FINALIZER] if kept else []}
    await api.create(PODS, {"metadata": metadata, "spec": pod_spec(script, **fields)})
    return name


async def make_job(api: KubernetesApi, script: str, *, pod: Json | None = None, **spec: Any) -> str:
    name = f"job-{next(NUMBERS)}"
    job = {"backoffLimit": 0, **spec, "template": {"spec": pod_spec(script, **(pod or {}))}}
    await api.create(JOBS, {"metadata": {"name": name}, "spec": job})
    return name


async def in_phase(api: KubernetesApi, name: str, *phases: str) -> Json:
    async def look() -> Json | None:
        pod = await api.get(f"{PODS}/{name}")
        return pod if pod["status"]["phase"] in phases else None

    found: Json = await eventually(look)
    return found


async def job_ends(api: KubernetesApi, name: str) -> Json:
    """The terminal condition of a Job, with its status."""

    async def look() -> Json | None:
        status = (await api.get(f"{JOBS}/{name}")).get("status") or {}
        ends = [item for item in status.get("conditions") or () if item["type"] in {"Complete", "Failed"}]
        return {**ends[0], "job": status} if ends else None

    found: Json = await eventually(look)
    return found


async def pods_of(api: KubernetesApi, job: str) -> list[Json]:
    listing = await api.get(PODS, labelSelector=f"batch.kubernetes.io/job-name={job}")
    pods: list[Json] = listing["items"]
    return pods


def terminated(pod: Json) -> Json:
    ended: Json = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return ended


def processes_of(pod: Json) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(UID_VARIABLE) == pod["metadata"]["uid"]:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
