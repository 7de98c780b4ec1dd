"""No key and no token in anything that people or other programs read; no call that the chart's rights do not allow."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING

import pytest

from searchops_sandbox.audit import recorded, spec_writes
from searchops_sandbox.demo.platform import SERVICE_ACCOUNT
from searchops_sandbox.fleet import MERCHANTS, tenant_manifest
from searchops_sandbox.kubernetes_api import Connection, KubernetesApi
from searchops_sandbox.leaks import leaks, secrets_of
from searchops_sandbox.registration import NAMESPACE

if TYPE_CHECKING:
    from searchops_sandbox.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def test_no_secret_is_in_a_status_an_event_or_a_log(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    sandbox = fleet.platform.sandbox
    secrets = await secrets_of(sandbox)
    assert {"cell eu-1", "merchants-e2e/alpha-storefront.token"} <= set(secrets)
    assert any("kubeconfig" in where for where in secrets)
    assert {"operator.log", "gateway.log", "qdrant.log"} <= {log.name for log in sandbox.folder.rglob("*.log")}
    assert await leaks(sandbox, pages=fleet.platform.pages, seen=fleet.platform.secrets_seen) == []


async def test_a_secret_that_leaks_is_found(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    planted = fleet.platform.sandbox.folder / "planted.log"
    planted.write_text(f"the key is {fleet.platform.sandbox.cells['eu-1'].api_key}\n")
    try:
        found = await leaks(fleet.platform.sandbox)
    finally:
        planted.unlink()
    assert [one for one in found if one.startswith("cell eu-1 in")]


async def test_a_secret_that_is_gone_is_found_in_the_artifact_store(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """A token of a worker lives as long as its Job; what it left in a report is read for years."""
    platform, token = fleet.platform, f"planted-{uuid.uuid4()}"
    where = f"{MERCHANTS}/planted.token"
    await fleet.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "planted", "namespace": MERCHANTS},
            "stringData": {"token": token},
        }
    )

    async def known() -> bool:
        return (where, token) in platform.secrets_seen

    await fleet.until("the Secret is known", known)
    async with platform.sandbox.api() as api:
        await api.delete(f"/api/v1/namespaces/{MERCHANTS}/secrets/planted")
    planted = platform.sandbox.artifacts / "reports" / "planted.json"
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(json.dumps({"said": f"no answer to {token}"}))
    try:
        assert where not in await secrets_of(platform.sandbox)
        found = await leaks(platform.sandbox, seen=platform.secrets_seen)
    finally:
        planted.unlink()
    assert found == [f"{where} in {planted}"]


async def test_the_operator_asks_for_nothing_that_its_chart_does_not_allow(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    lines = _log(fleet)
    assert any('"leading"' in line for line in lines), "the log of another operator"
    refused = [line for line in lines if "forbidden" in line.lower() or re.search(r"\b403\b", line)]
    assert refused == []


async def test_the_operators_log_has_no_failure_that_nobody_foresaw(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    lines = _log(fleet)
    assert {json.loads(line)["level"] for line in lines} >= {"info"}
    assert [line for line in lines if "Traceback" in line or '"level": "critical"' in line] == []


def _log(fleet: Fleet) -> list[str]:
    return (fleet.platform.sandbox.folder / "operator.log").read_text().splitlines()


async def test_a_spec_that_the_operator_would_write_is_found_and_it_writes_none(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """Argo CD would put back what the operator wrote, and it again, without end."""
    cluster, log = fleet.platform.sandbox.cluster, fleet.platform.sandbox.control_plane.audit_log
    assert any(one["objectRef"]["resource"] == "searchtenants" for one in recorded(log)), "its writes are recorded"
    assert spec_writes(log) == []
    control = tenant_manifest("audit-control", region="eu")
    await fleet.apply({**control, "spec": {**control["spec"], "paused": True}})
    kubeconfig = await cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    async with KubernetesApi(Connection.from_kubeconfig(kubeconfig)) as operator:
        path = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants/audit-control"
        await operator.patch(path, {"spec": {"undeleteWindow": "1h"}})
    account = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
    assert spec_writes(log) == [f"{account}: patch searchtenants {MERCHANTS}/audit-control"]
    await fleet.delete("searchtenants", "audit-control")
