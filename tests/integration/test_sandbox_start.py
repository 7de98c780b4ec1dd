"""The whole sandbox: everything is there, nothing secret is written down, and nothing is left behind, come what may."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from searchops_sandbox.kubernetes_api import Connection, KubernetesApi
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.sandbox import REAL_CLUSTER_VARIABLE, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/searchops-system/secrets"


def processes_in(folder: Path) -> list[str]:
    """Command lines of every process that names a file of `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(folder) in line and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(line[:200])
    return found


async def none_left(folder: Path) -> None:
    for _ in range(100):
        left = await asyncio.to_thread(processes_in, folder)
        if not left:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"still running: {left}")


async def start_sleeping_worker(api: KubernetesApi, name: Path) -> None:
    """A Pod whose processes, a child and its child, name `name` in their command lines; returns once it runs."""
    worker = {"name": "worker", "image": "worker", "command": ["sh", "-c", f"sh -c 'sleep 300; : {name}'; : outer"]}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [worker]}
    await api.create(PODS, {"metadata": {"name": "sleeps"}, "spec": spec})
    for _ in range(200):
        if (await api.get(f"{PODS}/sleeps"))["status"]["phase"] == "Running":
            return
        await asyncio.sleep(0.1)
    pytest.fail("the Pod never ran")


@pytest.mark.triton
async def test_every_part_answers_and_is_registered(sandbox: Sandbox) -> None:
    assert set(sandbox.cells) == {"eu-1", "us-1"}
    assert set(sandbox.pools) == {"default", "canary"}
    async with sandbox.api() as api:
        listing = await api.get(SECRETS)
        node = await api.get("/api/v1/nodes/sandbox")
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in listing["items"]}
    assert labels == {
        "eu-1": {"searchops.dev/cell": "true", "region": "eu"},
        "us-1": {"searchops.dev/cell": "true", "region": "us"},
        "default": {"searchops.dev/pool": "true"},
        "canary": {"searchops.dev/pool": "true"},
    }
    assert {item["type"]: item["status"] for item in node["status"]["conditions"]} == {"Ready": "True"}
    async with httpx.AsyncClient() as client:
        for cell in sandbox.cells.values():
            answer = await client.get(f"{cell.rest_url}/collections", headers={"api-key": cell.api_key})
            assert answer.json()["result"] == {"collections": []}
        for servers in sandbox.pools.values():
            for server in servers:
                assert (await client.get(f"{server.http_url}/v2/health/live")).status_code == 200


@pytest.mark.triton
async def test_the_state_file_has_every_part_and_no_key(sandbox: Sandbox, tmp_path: Path) -> None:
    text = await asyncio.to_thread(sandbox.write_state(tmp_path / "state.json").read_text)
    state: dict[str, Any] = json.loads(text)
    assert set(state["parts"]) == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "process-runner",
        "qdrant-eu-1",
        "qdrant-us-1",
        "triton-default-0",
        "triton-canary-0",
    }
    assert all(psutil.pid_exists(pid) for pid in state["parts"].values())
    assert not [cell for cell in sandbox.cells.values() if cell.api_key in text]


async def test_a_part_that_does_not_come_up_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "qdrant"
    broken.write_text("#!/bin/sh\necho storage is broken >&2\nexit 3\n")
    await asyncio.to_thread(broken.chmod, 0o755)
    monkeypatch.setenv("QDRANT_BIN", str(broken))
    sandbox = Sandbox(tmp_path / "sandbox", cells=1, pools=())
    with pytest.raises(SandboxError, match=r"qdrant cell eu-1 ended with status 3(?s:.*)storage is broken"):
        await sandbox.start()
    assert sandbox.pids() == {}
    await none_left(tmp_path / "sandbox")


async def test_a_killed_sandbox_leaves_no_process(tmp_path: Path) -> None:
    """SIGKILL to `up` while a worker of it sleeps: the whole chain dies with its parent."""
    folder, state = tmp_path / "sandbox", tmp_path / "state.json"
    argv = [sys.executable, "-m", "searchops_sandbox.cli", "up", "--folder", str(folder), "--state", str(state)]
    up = await asyncio.create_subprocess_exec(
        *argv, "--cells", "1", "--pools", "", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert up.stdout is not None
    try:
        first = await asyncio.wait_for(up.stdout.readline(), 60)
        assert first.decode().strip() == f"export KUBECONFIG={folder}/control-plane/admin.kubeconfig"
        parts = json.loads(await asyncio.to_thread(state.read_text))["parts"]
        assert len(parts) == 5
        connection = await asyncio.to_thread(Connection.from_kubeconfig, folder / "control-plane" / "admin.kubeconfig")
        async with KubernetesApi(connection) as api:
            await start_sleeping_worker(api, folder / "only-for-its-name")
        assert [line for line in await asyncio.to_thread(processes_in, folder) if "only-for-its-name" in line]
    finally:
        up.send_signal(signal.SIGKILL)
        await up.wait()
    await none_left(folder)


async def test_a_real_cluster_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REAL_CLUSTER_VARIABLE, str(tmp_path / "real.kubeconfig"))
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        assert sandbox.kubeconfig == tmp_path / "real.kubeconfig"
        assert (sandbox.cells, sandbox.pools, sandbox.pids()) == ({}, {}, {})
