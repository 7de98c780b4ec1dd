"""The one Node of the sandbox: its object, its heartbeat, and which Pods fit it."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil

from searchops_sandbox.kubernetes_api import STRATEGIC, ApiError
from searchops_sandbox.pod_status import HOST, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops_sandbox.kubernetes_api import KubernetesApi

Json = dict[str, Any]
HEARTBEAT_SECONDS = 10.0
_PODS = 500
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE = frozenset({"cpu", "memory", "ephemeral-storage"})
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A Node that is this machine.

    Attributes:
        name: of the Node object.
        labels: what a Pod's nodeSelector is matched against, besides the usual ones.
        resources: extended resources such as ``nvidia.com/gpu``, with their number.
    """

    name: str = "sandbox"
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)

    def all_labels(self) -> dict[str, str]:
        """Its own and the usual ones."""
        machine = platform.machine()
        return {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURES.get(machine, machine),
            **self.labels,
        }

    def obstacle(self, pod: Json) -> str:
        """Why the Pod cannot be bound, in the scheduler's words; empty where it can.

        CPU and memory are no obstacle: the runner's slots bound what runs at once.
        """
        spec = pod["spec"]
        if gates := [gate["name"] for gate in spec.get("schedulingGates") or ()]:
            return f"Scheduling is blocked due to non-empty scheduling gates: {', '.join(gates)}"
        labels = self.all_labels()
        for key, wanted in (spec.get("nodeSelector") or {}).items():
            if labels.get(key) != wanted:
                return f"0/1 nodes are available: 1 node(s) didn't match Pod's node selector ({key}={wanted})."
        for container in spec["containers"]:
            asked = (container.get("resources") or {}).get("limits") or {}
            for resource, count in asked.items():
                if resource not in _NATIVE and self._lacks(resource, str(count)):
                    return f"0/1 nodes are available: 1 Insufficient {resource}."
        return ""

    def _lacks(self, resource: str, count: str) -> bool:
        return not count.isdigit() or int(count) > self.resources.get(resource, 0)

    async def register(self, api: KubernetesApi) -> None:
        """Makes the Node, or takes over the one of an earlier run, and reports it Ready."""
        body: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": self.all_labels()}}
        try:
            await api.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.status != 409:
                raise
        await api.patch(f"/api/v1/nodes/{self.name}", {"spec": {"taints": None}})
        await self.report_ready(api)

    async def report_ready(self, api: KubernetesApi) -> None:
        """One heartbeat."""
        now = stamp(datetime.datetime.now(datetime.UTC))
        capacity = {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{psutil.virtual_memory().total // 1024}Ki",
            "pods": str(_PODS),
            **{name: str(count) for name, count in self.resources.items()},
        }
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "ProcessRunnerReady",
            "message": "Pods run as processes of this machine",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": HOST}, {"type": "Hostname", "address": self.name}],
            "nodeInfo": _information(),
        }
        await api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status}, kind=STRATEGIC)

    async def beat(self, api: KubernetesApi) -> None:
        """Heartbeats until cancelled; makes the Node again where somebody deleted it."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self.register(api)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                logger.warning("no heartbeat: %s", error)


def _information() -> Json:
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "operatingSystem": "linux",
        "kernelVersion": platform.release(),
        "osImage": "searchops sandbox (no container engine)",
        "containerRuntimeVersion": "process://1",
        "kubeletVersion": "v0.0.0-searchops-sandbox",
        "kubeProxyVersion": "",
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }
