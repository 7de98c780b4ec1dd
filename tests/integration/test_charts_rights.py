"""What the chart's ServiceAccounts may do: asked of a real API server, and tried with the operator's own adapters."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml

from searchops.adapters.kube import KubeEvents, KubeLease, KubeObjects, KubeReindexJobs, KubeStateMaps
from searchops.adapters.kube_api import KubeApi
from searchops.adapters.kube_backup_jobs import KubeBackupJobs
from searchops.adapters.kube_jobs import KubeJobs
from searchops.adapters.kube_namespaces import KubeNamespaceLabels
from searchops.adapters.kube_secrets import KubeAccessSecrets
from searchops.api.meta import ObjectMeta
from searchops.api.v1alpha1 import ReindexJob
from searchops.controllers.job_sweep import JobSweep
from searchops.runtime.cache import ObjectCache
from searchops.runtime.leader import LeaseRecord
from searchops.runtime.recorder import Event
from searchops.wiring import LEASE_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.control_plane import ControlPlane
    from searchops_sandbox.kubernetes_api import KubernetesApi

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[2]
SYSTEM, MERCHANTS = "searchops-system", "merchants-eu"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
Json = dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session")
async def api(installed: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with installed.api() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def operator(installed: ControlPlane) -> AsyncIterator[KubeApi]:
    """The operator's own client, with its ServiceAccount's rights and no others."""
    kubeconfig = await installed.service_account_kubeconfig(SYSTEM, "searchops")
    opened = await KubeApi.connect(kubeconfig)
    yield opened
    await opened.close()


def full(plural: str) -> Json:
    text = (ROOT / f"tests/unit/api/full_documents/{plural}.yaml").read_text(encoding="utf-8")
    document: Json = yaml.safe_load(text)
    return document


async def test_objects_are_listed_patched_and_rebuilt(operator: KubeApi, api: KubernetesApi) -> None:
    objects, jobs = KubeObjects(operator), KubeReindexJobs(operator)
    tenant, job = full("searchtenants"), full("reindexjobs")
    name = tenant["metadata"]["name"]
    path = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants"
    await api.create(path, {key: value for key, value in tenant.items() if key != "status"})
    try:
        assert [item.key.name for item in await objects.list_metadata("searchtenants")] == [name]
        assert await objects.list_metadata("embeddingmodels") == []
        change = {
            "metadata": {"finalizers": ["searchops.dev/finalizer"], "annotations": {"searchops.dev/cell": "eu-1"}}
        }
        await objects.patch_metadata("searchtenants", MERCHANTS, name, change)
        await objects.patch_status("searchtenants", MERCHANTS, name, {"status": tenant["status"]})
        seen = await objects.get("searchtenants", MERCHANTS, name)
        assert seen is not None
        assert seen["status"] == tenant["status"]
        assert await objects.cluster_uid() != await objects.namespace_uid(MERCHANTS)
        body = {key: job[key] for key in ("kind", "spec", "metadata")}
        await jobs.create(MERCHANTS, body)
        await jobs.create(MERCHANTS, body)
        status = {"status": {"phase": "Pending"}}
        await objects.patch_status("reindexjobs", MERCHANTS, job["metadata"]["name"], status)
        await jobs.delete(MERCHANTS, job["metadata"]["name"], known_uid="of-another")
        made = await objects.get("reindexjobs", MERCHANTS, job["metadata"]["name"])
        assert made is not None
        await jobs.delete(MERCHANTS, job["metadata"]["name"], known_uid=made["metadata"]["uid"])
        assert await objects.get("reindexjobs", MERCHANTS, job["metadata"]["name"]) is None
        await objects.patch_metadata("searchtenants", MERCHANTS, name, {"metadata": {"finalizers": []}})
    finally:
        await api.delete(f"{path}/{name}")


async def test_access_secrets_are_written_and_removed_by_name(operator: KubeApi) -> None:
    secrets = KubeAccessSecrets(operator)
    arguments: Json = {"owner": {"uid": "u-1"}, "data": {"token": "t"}, "annotations": {}}
    await secrets.write(MERCHANTS, "storefront", **arguments)
    await secrets.write(MERCHANTS, "storefront", **arguments)
    found = await secrets.read(MERCHANTS, "storefront")
    assert found is not None
    assert found.token == "t"
    await secrets.delete(MERCHANTS, "storefront", owner_uid="u-1")
    assert await secrets.read(MERCHANTS, "storefront") is None


async def test_a_namespace_is_labelled_and_released(operator: KubeApi, api: KubernetesApi) -> None:
    labels, path = KubeNamespaceLabels(operator), f"/api/v1/namespaces/{MERCHANTS}"
    for _ in range(2):
        await labels.protect(MERCHANTS)
    assert await labels.labelled() == {MERCHANTS: "tenants"}
    for _ in range(2):
        await labels.release(MERCHANTS)
    assert await labels.labelled() == {}
    await api.patch(path, {"metadata": {"labels": {"searchops.dev/protected": "kaisa"}}})
    await labels.protect(MERCHANTS)
    await labels.release(MERCHANTS)
    assert await labels.labelled() == {MERCHANTS: "kaisa"}
    await api.patch(path, {"metadata": {"labels": {"searchops.dev/protected": None}}})
    await labels.protect("not-there")
    await labels.release("not-there")


async def test_jobs_run_in_the_operators_namespace(operator: KubeApi) -> None:
    jobs = KubeJobs(operator, SYSTEM, template=lambda _: None)
    container = {"name": "worker", "image": "none"}
    pod = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "build-1"}, "spec": {"template": pod}}
    await jobs.create(manifest, {"token": "t"})
    await jobs.create(manifest, {"token": "t"})
    state = await jobs.get("build-1")
    assert state is not None
    assert not state.complete
    assert await jobs.answers("build-1") == ()
    assert await KubeBackupJobs(operator, SYSTEM, template=lambda _: None).runs() == ()
    await jobs.delete("build-1")


async def test_a_worker_job_whose_owner_is_gone_is_swept(operator: KubeApi) -> None:
    jobs, objects = KubeJobs(operator, SYSTEM, template=lambda _: None), KubeObjects(operator)
    container = {"name": "worker", "image": "none"}
    pod = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    owner = ObjectMeta(name="gone-1", namespace=MERCHANTS, uid="uid-of-the-gone")
    labels = {"searchops.dev/owner-kind": "ReindexJob", "searchops.dev/owner-uid": owner.uid}
    annotations = {"searchops.dev/owner-namespace": owner.namespace, "searchops.dev/owner-name": owner.name}
    metadata = {"name": "reindex-gone", "labels": labels, "annotations": annotations}
    await jobs.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": pod}}, None)
    caches = {"ReindexJob": ObjectCache("reindexjobs", ReindexJob.model_validate)}
    sweep = JobSweep(jobs=jobs, objects=objects, caches=caches, lease_left=lambda: 15.0)
    assert await sweep.run_once() == 1
    assert "reindex-gone" not in [job.name for job in await jobs.all_owned()]
    assert await sweep.run_once() == 0


async def test_state_lease_and_events(operator: KubeApi) -> None:
    state = KubeStateMaps(operator, SYSTEM)
    await state.write("searchops-model-a", {"nextNumber": "1"})
    await state.write("searchops-model-a", {"nextNumber": "2"})
    assert await state.read("searchops-model-a") == {"nextNumber": "2"}
    lease = KubeLease(operator, SYSTEM, LEASE_NAME)
    assert await lease.get() is None
    record = LeaseRecord("one", 15, NOW, NOW, 0, "")
    made = await lease.create(record)
    assert (await lease.replace(made)).holder == "one"
    reference = {"apiVersion": "searchops.dev/v1alpha1", "kind": "SearchTenant", "namespace": MERCHANTS, "name": "a"}
    events = KubeEvents(operator, instance="one", now=lambda: NOW, fallback_namespace=SYSTEM)
    await events.publish(Event(reference, "Provisioned", "done", False))


def reviews(verdict: str) -> list[tuple[str, str, str, str, str]]:
    allowed = [
        *(
            ("searchops.dev", kind, verb, MERCHANTS, "")
            for kind in ("searchtenants", "reindexjobs")
            for verb in ("get", "list", "watch", "patch")
        ),
        *(("searchops.dev", "embeddingmodels", verb, "", "") for verb in ("get", "list", "watch", "patch")),
        *(("searchops.dev", f"{kind}/status", "patch", MERCHANTS, "") for kind in ("searchtenants", "reindexjobs")),
        *(("searchops.dev", "reindexjobs", verb, MERCHANTS, "") for verb in ("create", "delete")),
        *(("", "secrets", verb, MERCHANTS, "") for verb in ("get", "create", "patch", "delete")),
        *(("", "secrets", verb, SYSTEM, "") for verb in ("list", "watch")),
        ("", "namespaces", "get", "", "kube-system"),
        *(("", "namespaces", verb, "", "") for verb in ("list", "patch")),
        ("events.k8s.io", "events", "create", MERCHANTS, ""),
        *(("batch", "jobs", verb, SYSTEM, "") for verb in ("get", "list", "watch", "create", "delete")),
        *(("", "podtemplates", verb, SYSTEM, "") for verb in ("list", "watch")),
        *(("discovery.k8s.io", "endpointslices", verb, SYSTEM, "") for verb in ("list", "watch")),
        ("", "pods", "list", SYSTEM, ""),
        *(("", "configmaps", verb, SYSTEM, "") for verb in ("get", "create", "patch")),
        *(("coordination.k8s.io", "leases", verb, SYSTEM, "searchops-operator") for verb in ("get", "update")),
    ]
    denied = [
        *(("", "secrets", verb, MERCHANTS, "") for verb in ("list", "watch", "update", "deletecollection")),
        ("searchops.dev", "searchtenants", "create", MERCHANTS, ""),
        ("searchops.dev", "searchtenants", "delete", MERCHANTS, ""),
        ("searchops.dev", "searchtenants", "update", MERCHANTS, ""),
        ("searchops.dev", "embeddingmodels", "delete", "", ""),
        *(("", "namespaces", verb, "", "") for verb in ("create", "update", "delete", "watch")),
        ("", "pods", "create", SYSTEM, ""),
        ("", "pods/exec", "create", SYSTEM, ""),
        ("", "pods", "list", MERCHANTS, ""),
        ("", "configmaps", "list", SYSTEM, ""),
        ("", "configmaps", "get", MERCHANTS, ""),
        ("batch", "jobs", "create", MERCHANTS, ""),
        ("batch", "jobs", "patch", SYSTEM, ""),
        ("coordination.k8s.io", "leases", "update", SYSTEM, "other"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "get", "", ""),
        ("rbac.authorization.k8s.io", "clusterroles", "get", "", ""),
    ]
    return allowed if verdict == "allowed" else denied


async def may(api: KubernetesApi, user: str, review: tuple[str, str, str, str, str]) -> bool:
    group, resource, verb, namespace, name = review
    resource, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": resource, "verb": verb, "namespace": namespace, "name": name}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{SYSTEM}:{user}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {**attributes, "subresource": subresource},
        },
    }
    answer = await api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


async def test_the_operator_may_do_what_it_does_and_nothing_else(api: KubernetesApi) -> None:
    assert [review for review in reviews("allowed") if not await may(api, "searchops", review)] == []
    assert [review for review in reviews("denied") if await may(api, "searchops", review)] == []


async def test_workers_may_do_nothing(api: KubernetesApi) -> None:
    every = reviews("allowed") + reviews("denied")
    assert [review for review in every if await may(api, "searchops-worker", review)] == []
