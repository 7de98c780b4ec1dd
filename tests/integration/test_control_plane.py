"""The sandbox's control plane is a real one: versions, RBAC, tokens, admission, outages, and nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import TYPE_CHECKING

import psutil
import pytest

from searchops_sandbox.control_plane import ControlPlane
from searchops_sandbox.kubernetes_api import ApiError, Connection, KubernetesApi
from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
REFUSING_POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-secrets-called-forbidden}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]
  validations: [{expression: "object.metadata.name != 'forbidden'", message: "metadata.name: forbidden is taken"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-secrets-called-forbidden}
spec: {policyName: no-secrets-called-forbidden, validationActions: [Deny]}
"""


def test_the_three_parts_run(control_plane: ControlPlane) -> None:
    assert set(control_plane.pids) == {"etcd", "kube-apiserver", "kube-controller-manager"}


async def test_kubectl_applies_a_config_map_server_side(control_plane: ControlPlane) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {colour: green}\n"
    await control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=manifest)
    async with control_plane.api() as api:
        found = await api.get(f"{CONFIG_MAPS}/applied")
        version = await api.get("/version")
    assert found["data"] == {"colour": "green"}
    assert (version["major"], version["minor"]) == ("1", version["gitVersion"].split(".")[1])
    assert f"Server Version: {version['gitVersion']}" in await control_plane.kubectl("version")


async def test_a_failing_kubectl_says_why(control_plane: ControlPlane) -> None:
    with pytest.raises(SandboxError, match=r"kubectl get configmap absent ended with 1.*not found"):
        await control_plane.kubectl("get", "configmap", "absent")


async def test_a_service_account_has_only_the_rights_it_was_given(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with control_plane.api() as admin:
        await admin.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "reader"}})
        await admin.create(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            {
                "metadata": {"name": "reader"},
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
            },
        )
        await admin.create(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            {
                "metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
            },
        )
    kubeconfig = await control_plane.service_account_kubeconfig("default", "reader", path=tmp_path / "reader")
    assert kubeconfig.stat().st_mode & 0o077 == 0
    async with KubernetesApi(Connection.from_kubeconfig(kubeconfig)) as reader:
        assert (await reader.get(CONFIG_MAPS))["kind"] == "ConfigMapList"
        with pytest.raises(ApiError, match="403 Forbidden") as refused:
            await reader.get("/api/v1/namespaces/default/secrets")
    assert refused.value.status == 403


async def test_a_wrong_token_is_refused(control_plane: ControlPlane) -> None:
    known = control_plane.connection
    async with KubernetesApi(Connection(known.server, authority=known.authority, token="guessed")) as stranger:
        with pytest.raises(ApiError, match="401 Unauthorized"):
            await stranger.get(CONFIG_MAPS)


async def test_admission_policies_refuse(control_plane: ControlPlane) -> None:
    await control_plane.kubectl("apply", "-f", "-", stdin=REFUSING_POLICY)
    async with control_plane.api() as api:
        for attempt in range(100):
            try:
                await api.create(
                    "/api/v1/namespaces/default/secrets", {"metadata": {"name": "forbidden"}}, dryRun="All"
                )
            except ApiError as refused:
                assert "metadata.name: forbidden is taken" in str(refused)
                return
            assert attempt < 99, "the policy never took effect"
            await asyncio.sleep(0.1)


async def test_data_and_address_survive_an_outage_and_a_stop_leaves_no_process(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    await plane.start()
    processes = [psutil.Process(pid) for pid in plane.pids.values()]
    address = plane.server
    try:
        async with plane.api() as api:
            await api.create(CONFIG_MAPS, {"metadata": {"name": "kept"}})
        await plane.stop_api_server()
        with pytest.raises(SandboxError):
            await plane.kubectl("get", "configmap", "kept", "--request-timeout=2s")
        await plane.start_api_server()
        processes.append(psutil.Process(plane.pids["kube-apiserver"]))
        assert plane.server == address
        assert "kept" in await plane.kubectl("get", "configmap", "kept")
    finally:
        await plane.close()
    assert len(processes) == 4
    assert not [process for process in processes if process.is_running()]
    assert plane.pids == {}
    assert plane.kubeconfig.stat(), "a folder that was given is the caller's"


async def test_a_start_that_fails_shows_the_log_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    broken = assets / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    plane = ControlPlane(tmp_path / "plane")
    with pytest.raises(SandboxError, match=r"kube-apiserver ended with status 2 before it was ready:\s+no such flag"):
        await plane.start()
    assert plane.pids == {}


async def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = itertools.chain([taken.getsockname()[1]], iter(free_port, None))
        monkeypatch.setattr("searchops_sandbox.control_plane.free_port", lambda: next(ports))
        async with ControlPlane(tmp_path) as plane:
            assert "default" in await plane.kubectl("get", "namespaces")
