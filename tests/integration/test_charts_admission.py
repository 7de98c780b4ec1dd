"""The chart's admission policies on a real API server, with the operator's own ServiceAccount and with others."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml

from searchops_sandbox.kubernetes_api import ApiError, Connection, KubernetesApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.control_plane import ControlPlane

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[2]
SYSTEM, MERCHANTS = "searchops-system", "merchants-eu"
TENANTS = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants"
JOBS = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/reindexjobs"
MODELS = "/apis/searchops.dev/v1alpha1/embeddingmodels"
CELL = "searchops.dev/cell"
APPROVER = "searchops.dev/wider-margins-approved-by"
Json = dict[str, Any]


def full(plural: str) -> Json:
    text = (ROOT / f"tests/unit/api/full_documents/{plural}.yaml").read_text(encoding="utf-8")
    document: Json = yaml.safe_load(text)
    document.pop("status")
    return document


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def policies(installed: ControlPlane) -> ControlPlane:
    """The chart's policies, in force."""
    async with installed.api() as api:
        await in_force(api)
    return installed


async def in_force(api: KubernetesApi) -> None:
    """Wait until the API server refuses what the last policy refuses: policies take a moment to load."""
    wide = full("embeddingmodels")
    wide["spec"]["gate"]["margins"]["modelLoss"] = "0.5"
    annotated = full("searchtenants")
    annotated["metadata"]["annotations"] = {CELL: "eu-1"}
    elsewhere = full("reindexjobs")
    elsewhere["spec"]["source"]["uri"] = "s3://other/a"
    for path, body in ((MODELS, wide), (TENANTS, annotated), (JOBS, elsewhere)):
        for _ in range(100):
            if await refusal(api, path, body):
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail(f"no policy refuses {body['kind']} after ten seconds")


async def refusal(api: KubernetesApi, path: str, body: Json) -> str:
    """What the API server says to a create in a dry run; empty where it takes it."""
    try:
        await api.create(path, body, dryRun="All")
    except ApiError as error:
        assert error.status in (403, 422), error
        return str(error)
    return ""


@pytest_asyncio.fixture(loop_scope="session")
async def api(policies: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with policies.api() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def operator(policies: ControlPlane) -> AsyncIterator[KubernetesApi]:
    """The API as the operator's ServiceAccount sees it."""
    kubeconfig = await policies.service_account_kubeconfig(SYSTEM, "searchops")
    async with KubernetesApi(await asyncio.to_thread(Connection.from_kubeconfig, kubeconfig)) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(api: KubernetesApi) -> AsyncIterator[str]:
    """A stored, protected tenant; its path."""
    body = full("searchtenants")
    body["spec"]["deletionProtection"] = True
    await api.create(TENANTS, body)
    path = f"{TENANTS}/{body['metadata']['name']}"
    yield path
    await api.patch(path, {"spec": {"deletionProtection": False}})
    await api.delete(path)


async def test_the_full_documents_pass(api: KubernetesApi) -> None:
    assert await refusal(api, TENANTS, full("searchtenants")) == ""
    assert await refusal(api, JOBS, full("reindexjobs")) == ""
    assert await refusal(api, MODELS, full("embeddingmodels")) == ""


async def test_a_protected_tenant_is_not_deleted(api: KubernetesApi, tenant: str) -> None:
    with pytest.raises(ApiError, match=r"spec\.deletionProtection is true: set it to false first"):
        await api.delete(tenant)
    assert (await api.get(tenant))["spec"]["deletionProtection"] is True


async def test_nor_is_the_namespace_that_is_labelled_for_it(api: KubernetesApi) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "kept", "labels": {"searchops.dev/protected": ""}},
    }
    await api.create("/api/v1/namespaces", body)
    with pytest.raises(ApiError, match="a protected tenant is inside"):
        await api.delete("/api/v1/namespaces/kept")
    await api.patch("/api/v1/namespaces/kept", {"metadata": {"labels": {"searchops.dev/protected": None}}})
    await api.delete("/api/v1/namespaces/kept")


async def test_nor_a_definition_without_the_annotation(api: KubernetesApi) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/reindexjobs.searchops.dev"
    dry_run = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
    with pytest.raises(ApiError, match="deleting this definition deletes every object"):
        await api.delete(path, dry_run)
    await api.patch(path, {"metadata": {"annotations": {"searchops.dev/allow-delete": "true"}}})
    await api.delete(path, dry_run)
    await api.patch(path, {"metadata": {"annotations": {"searchops.dev/allow-delete": None}}})


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (
            "s3://catalogues/merchants-us/a.jsonl",
            "is outside what this namespace may read: s3://catalogues/merchants-eu/",
        ),
        ("s3://catalogues/merchants-eu2/a.jsonl", "is outside what this namespace may read"),
        ("gs://catalogues/merchants-eu/a.jsonl", "is outside what this namespace may read"),
        ("s3://catalogues/merchants-eu/../merchants-us/a", "climbs out of its prefix"),
        ("file:///catalogues/merchants-eu/a.jsonl", "is outside what this namespace may read"),
    ],
)
async def test_a_namespaced_kind_reads_only_its_own_prefixes(api: KubernetesApi, uri: str, says: str) -> None:
    job = full("reindexjobs")
    job["spec"]["source"] = {"uri": uri}
    answer = await refusal(api, JOBS, job)
    assert f"spec.source.uri: {uri} " in answer
    assert says in answer
    tenant = full("searchtenants")
    tenant["spec"]["gate"]["pinned"]["uri"] = uri
    answer = await refusal(api, TENANTS, tenant)
    assert f"spec.gate.pinned.uri: {uri} " in answer
    assert says in answer


async def test_a_model_reads_no_files(api: KubernetesApi) -> None:
    model = full("embeddingmodels")
    model["spec"]["source"]["uri"] = "file:///models/a"
    assert "spec.source.uri: file:///models/a is not allowed here: wanted s3:// or gs://" in await refusal(
        api, MODELS, model
    )
    model = full("embeddingmodels")
    model["spec"]["gate"]["holdouts"][0]["uri"] = "s3://holdouts/../secrets"
    assert "spec.gate.holdouts: s3://holdouts/../secrets is not allowed here" in await refusal(api, MODELS, model)


async def test_the_cell_annotation_is_the_operators_alone(
    api: KubernetesApi, operator: KubernetesApi, tenant: str
) -> None:
    annotated = full("searchtenants")
    annotated["metadata"]["annotations"] = {CELL: "eu-2"}
    assert 'is the operator\'s: it was "", wanted unchanged, seen "eu-2"' in await refusal(api, TENANTS, annotated)
    await operator.patch(tenant, {"metadata": {"annotations": {CELL: "eu-1"}}})
    for value in ("eu-2", None):
        with pytest.raises(ApiError, match="is the operator's"):
            await api.patch(tenant, {"metadata": {"annotations": {CELL: value}}})
    await api.patch(tenant, {"metadata": {"annotations": {"example.com/note": "fine"}}})
    assert (await api.get(tenant))["metadata"]["annotations"][CELL] == "eu-1"


MARGINS = {
    "repackageLoss": "0.02",
    "modelLoss": "0.05",
    "firstLoss": "0.10",
    "repackageNdcg": "0.01",
    "modelNdcg": "0.02",
}


@pytest.mark.parametrize(("name", "limit"), sorted(MARGINS.items()))
async def test_no_margin_is_widened_without_a_name(api: KubernetesApi, name: str, limit: str) -> None:
    model = full("embeddingmodels")
    model["spec"]["gate"]["margins"] = {name: limit}
    assert await refusal(api, MODELS, model) == ""
    model["spec"]["gate"]["margins"] = {name: "0.2"}
    answer = await refusal(api, MODELS, model)
    assert f"spec.gate.margins.{name} is 0.2, wider than {limit}: it needs the annotation {APPROVER}" in answer
    approved = copy.deepcopy(model)
    approved["metadata"]["annotations"] = {APPROVER: "kaisa"}
    assert await refusal(api, MODELS, approved) == ""


async def test_a_margin_that_was_narrowed_stays_narrow(api: KubernetesApi) -> None:
    model = full("embeddingmodels")
    path = f"{MODELS}/{model['metadata']['name']}"
    await api.create(MODELS, model)
    try:
        widened = {"spec": {"gate": {"margins": {"modelLoss": "0.05"}}}}
        with pytest.raises(ApiError, match=r"modelLoss is 0\.05, wider than 0\.04"):
            await api.patch(path, widened)
        await api.patch(path, {"spec": {"gate": {"margins": {"modelLoss": "0.03"}}}})
        await api.patch(path, {**widened, "metadata": {"annotations": {APPROVER: "kaisa"}}})
    finally:
        await api.delete(path)


async def test_the_operator_writes_no_other_secrets(operator: KubernetesApi, api: KubernetesApi) -> None:
    secret: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "theirs"},
        "type": "Opaque",
        "stringData": {},
    }
    path = f"/api/v1/namespaces/{MERCHANTS}/secrets"
    says = "writes Secrets of type searchops.dev/access only"
    assert says in await refusal(operator, path, secret)
    assert await refusal(operator, path, {**secret, "type": "searchops.dev/access"}) == ""
    assert await refusal(operator, f"/api/v1/namespaces/{SYSTEM}/secrets", secret) == ""
    await api.create(path, secret)
    try:
        with pytest.raises(ApiError, match=says):
            await operator.patch(f"{path}/theirs", {"stringData": {"a": "b"}})
        with pytest.raises(ApiError, match=says):
            await operator.delete(f"{path}/theirs")
    finally:
        await api.delete(f"{path}/theirs")


async def test_the_operator_changes_one_label_of_a_namespace_and_nothing_else(
    operator: KubernetesApi, api: KubernetesApi
) -> None:
    path = f"/api/v1/namespaces/{MERCHANTS}"
    says = "no more of a namespace than its label searchops.dev/protected"
    for change in (
        {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        {"labels": {"searchops.dev/protected": "tenants", "other": "x"}},
        {"annotations": {"scheduler.alpha.kubernetes.io/node-selector": "a=b"}},
        {"finalizers": ["example.com/stay"]},
    ):
        with pytest.raises(ApiError, match=says):
            await operator.patch(path, {"metadata": change})
            pytest.fail(f"the API server took {change}")
    for value in ("tenants", None):
        await operator.patch(path, {"metadata": {"labels": {"searchops.dev/protected": value}}})
        assert (await api.get(path))["metadata"]["labels"].get("searchops.dev/protected") == value
    await api.patch(path, {"metadata": {"labels": {"other": "x"}}})
    await api.patch(path, {"metadata": {"labels": {"other": None}}})


async def test_no_policy_has_a_type_error(api: KubernetesApi, policies: ControlPlane) -> None:
    """The API server type-checks each expression against the schemas it matches."""
    ours: list[Json] = []
    for _ in range(100):
        found = await api.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")
        ours = [item for item in found["items"] if item["metadata"]["name"].startswith(f"{SYSTEM}-searchops-")]
        if all("observedGeneration" in item.get("status", {}) for item in ours):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the API server has not type-checked the policies within ten seconds")
    assert len(ours) == 8
    warnings = {
        item["metadata"]["name"]: warning
        for item in ours
        for warning in item.get("status", {}).get("typeChecking", {}).get("expressionWarnings", ())
    }
    assert warnings == {}
