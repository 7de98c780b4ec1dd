"""The whole platform on one machine: control plane, process runner, Qdrant cells and Triton pools, started together."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import psutil

from searchops_sandbox.cluster import Cluster
from searchops_sandbox.control_plane import ControlPlane
from searchops_sandbox.process_runner import RunnerProcess
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_sandbox.registration import NAMESPACE, CellEntry, PoolEntry, register_cells_and_pools
from searchops_sandbox.triton import TritonServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_sandbox.kubernetes_api import KubernetesApi
    from searchops_sandbox.node import Node

REAL_CLUSTER_VARIABLE: Final = "SEARCHOPS_E2E_KUBECONFIG"
REGIONS: Final = ("eu", "us")
STATE_FILE: Final = "sandbox.json"


class Service(Protocol):
    """A part of the sandbox: starts until it is ready, stops until it is gone."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    async def start(self) -> None:
        """Start, and return when it is ready."""
        ...

    async def stop(self) -> None:
        """Stop, and return when nothing of it runs."""
        ...


class Sandbox:
    """``async with Sandbox() as sandbox:`` everything real, on loopback and free ports, nothing left behind.

    Where ``SEARCHOPS_E2E_KUBECONFIG`` names a kubeconfig, that cluster is used with the cells and pools registered in
    it, and nothing is started here: its Pods could not reach this machine's loopback.

    Args:
        folder: data, logs and kubeconfigs; a temporary one, removed at the end, where it is None.
        cells: how many Qdrant cells; named by region (``eu-1``, ``us-1``, ``eu-2``, …).
        pools: names of the Triton pools; each has a model repository of its own.
        servers: Triton servers in each pool.
        slots: worker processes that run at once.
        node: labels and extended resources of the one Node.
        keep: leave a temporary folder where it is, for people to look around.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        cells: int = 2,
        pools: Sequence[str] = ("default", "canary"),
        servers: int = 1,
        slots: int = 2,
        node: Node | None = None,
        keep: bool = False,
    ) -> None:
        self._remove = folder is None and not keep
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="searchops-sandbox-"))).absolute()
        self.artifacts = self.folder / "artifacts"
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.repositories: dict[str, Path] = {}
        self.cells: dict[str, QdrantCell] = {}
        self.pools: dict[str, list[TritonServer]] = {}
        self.runner: RunnerProcess | None = None
        real = os.environ.get(REAL_CLUSTER_VARIABLE)
        if real:
            self.cluster: Cluster = Cluster(Path(real), folder=self.folder)
            return
        self.control_plane = ControlPlane(self.folder / "control-plane", audited=True)
        self.cluster = self.control_plane
        self.runner = RunnerProcess(self.kubeconfig, folder=self.folder / "runner", slots=slots, node=node)
        for number in range(cells):
            name = f"{REGIONS[number % len(REGIONS)]}-{number // len(REGIONS) + 1}"
            # Shard keys want cluster mode, which all else answers the same in.
            self.cells[name] = QdrantCell(
                name, folder=self.folder / "cells" / name, api_key=secrets.token_urlsafe(24), cluster=True
            )
        for pool in pools:
            self.repositories[pool] = self.folder / "repositories" / pool
            self.pools[pool] = [
                TritonServer(f"{pool}-{number}", folder=self.folder / "triton", repository=self.repositories[pool])
                for number in range(servers)
            ]

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.cluster.kubeconfig

    @property
    def state_file(self) -> Path:
        """What `write_state` writes."""
        return self.folder / STATE_FILE

    def api(self) -> KubernetesApi:
        """A client with the administrator's rights; use it with ``async with``."""
        return self.cluster.api()

    async def start(self) -> None:
        """Start every part, register cells and pools, write the state file; all parts start at the same time.

        Raises:
            SandboxError: of the first part that does not come up, with the end of its log; the others are stopped.
        """
        if self.runner is None:
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_cluster(self.runner))
                for part in self._backends():
                    group.create_task(part.start())
            await self.register_cells_and_pools()
        except BaseExceptionGroup as failures:
            await self.stop()
            raise SandboxError("; ".join(str(failure) for failure in failures.exceptions)) from failures
        except BaseException:
            await self.stop()
            raise
        await asyncio.to_thread(self.write_state)

    async def stop(self) -> None:
        """Workers first, then what they talk to, the control plane last; every part is stopped even if one fails."""
        if self.runner is None:
            return
        problems = [
            *await asyncio.gather(self.runner.stop(), return_exceptions=True),
            *await asyncio.gather(*(part.stop() for part in self._backends()), return_exceptions=True),
            *await asyncio.gather(self.control_plane.stop(), return_exceptions=True),
        ]
        for problem in problems:
            if isinstance(problem, BaseException):
                raise problem

    async def close(self) -> None:
        """Stop, and remove the folder where it was a temporary one."""
        try:
            await self.stop()
        finally:
            if self._remove:
                await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def register_cells_and_pools(self, namespace: str = NAMESPACE) -> None:
        """Applies the Secrets by which the operator finds this sandbox's cells and pools."""
        cells = [
            CellEntry(cell.name, (cell.rest_url,), cell.grpc_port, cell.api_key, {"region": cell.name.split("-")[0]})
            for cell in self.cells.values()
        ]
        pools = [
            PoolEntry(
                name,
                tuple(server.http_url for server in servers),
                tuple(server.grpc_url for server in servers),
                self.repositories[name],
            )
            for name, servers in self.pools.items()
        ]
        async with self.api() as api:
            await register_cells_and_pools(api, cells, pools, namespace=namespace)

    def write_state(self, path: Path | None = None) -> Path:
        """Addresses, files and process ids as JSON, without any key; for ``searchops-sandbox status``."""
        own = psutil.Process()
        state: dict[str, Any] = {
            "pid": own.pid,
            "started": own.create_time(),
            "folder": str(self.folder),
            "kubeconfig": str(self.kubeconfig),
            "artifacts": f"file://{self.artifacts}",
            "parts": self.pids(),
            "cells": {
                name: {"url": cell.rest_url, "grpcPort": cell.grpc_port, "double": cell.is_double}
                for name, cell in self.cells.items()
            },
            "pools": {
                name: {
                    "urls": [server.http_url for server in servers],
                    "grpcUrls": [server.grpc_url for server in servers],
                    "repository": str(self.repositories[name]),
                }
                for name, servers in self.pools.items()
            },
        }
        target = path or self.state_file
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{own.pid}")
        staging.write_text(json.dumps(state, indent=2) + "\n")
        staging.rename(target)
        return target

    def pids(self) -> dict[str, int]:
        """Process ids of every part that runs."""
        if self.runner is None:
            return {}
        found: dict[str, int | None] = dict(self.control_plane.pids)
        found[self.runner.name] = self.runner.pid if self.runner.running else None
        for cell in self.cells.values():
            found[f"qdrant-{cell.name}"] = cell.pid if cell.running else None
        for server in self._servers():
            found[f"triton-{server.name}"] = server.pid if server.running else None
        return {name: pid for name, pid in found.items() if pid is not None}

    def tail(self, lines: int = 15) -> str:
        """The last lines of every log, for messages of failed tests."""
        if self.runner is None:
            return "(a real cluster: its logs are not here)"
        parts = [self.control_plane.tail(lines), f"--- {self.runner.name}\n{self.runner.tail(lines)}"]
        parts += [f"--- qdrant {cell.name}\n{cell.log_tail(lines)}" for cell in self.cells.values()]
        parts += [f"--- triton {server.name}\n{server.tail(lines)}" for server in self._servers()]
        return "\n".join(parts)

    async def _start_cluster(self, runner: RunnerProcess) -> None:
        await self.control_plane.start()
        await runner.start()

    def _servers(self) -> list[TritonServer]:
        return [server for servers in self.pools.values() for server in servers]

    def _backends(self) -> list[Service]:
        return [*self.cells.values(), *self._servers()]
