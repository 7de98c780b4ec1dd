"""What the tenants' benchmark runs on: a real API server, doubles that take their time over DDL, operator processes."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from scale.hollow_cell import HollowCell
from searchops_sandbox.control_plane import ControlPlane
from searchops_sandbox.fleet import GROUP, UNPROMOTED, unpromoted_model
from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess, SandboxError
from searchops_sandbox.registration import NAMESPACE, CellEntry, register_cells_and_pools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_sandbox.qdrant.cell import QdrantCell

REPOSITORY: Final = Path(__file__).resolve().parents[2]
REGION: Final = "eu"
FLEET: Final = "bench"
SERVICE_ACCOUNT: Final = "searchops"
NAMESPACES: Final = 50
DDL_SECONDS: Final = 0.005
DDL: Final = (
    ("PUT", r"/collections/[^/]+(/index)?"),
    ("PATCH", r"/collections/[^/]+"),
    ("POST", r"/collections/aliases"),
)
"""Requests that a real cell puts through consensus, one after another."""
MAX_COLLECTIONS: Final = 1_000
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system, and what is made in it has a name of its own
"""Where everything is kept if it is there: what a disk takes to sync is not what is measured."""
READY_SECONDS: Final = 180.0
FIELDS: Final = (
    {"name": "sku", "type": "keyword", "role": "Code"},
    {"name": "title", "type": "text", "role": "Title"},
    {"name": "brand", "type": "keyword", "role": "Filter"},
    {"name": "category", "type": "keyword", "role": "Filter"},
    {"name": "price", "type": "float", "role": "Filter"},
)


def tenant(number: int) -> dict[str, Any]:
    """A merchant as in the examples: five fields, a storefront and an indexer, of a model that was not promoted yet."""
    name = f"merchant-{number:05}"
    return {
        "apiVersion": GROUP,
        "kind": "SearchTenant",
        "metadata": {"name": name, "namespace": namespace_of(number)},
        "spec": {
            "model": {"name": UNPROMOTED},
            "isolation": "Collection",
            "placement": {"cellSelector": {"matchLabels": {"region": REGION}}},
            "languages": ["en"],
            "fields": list(FIELDS),
            "document": "{title}. {brand}. {attributes}",
            "retrieval": {"profile": "plain"},
            "quotas": {
                "maxPoints": 20_000,
                "maxVectorMegabytes": 200,
                "searchesPerMinute": 60_000,
                "writesPerMinute": 60_000,
            },
            "access": [
                {"name": "storefront", "role": "Search", "secretName": f"{name}-storefront"},
                {"name": "indexer", "role": "Index", "secretName": f"{name}-indexer"},
            ],
            "deletionPolicy": "Retain",
        },
    }


def namespace_of(number: int) -> str:
    """Merchants are spread over some namespaces."""
    return f"merchants-{number % NAMESPACES:02}"


def tenant_path(number: int) -> str:
    """Where a merchant's object is."""
    return f"/apis/{GROUP}/namespaces/{namespace_of(number)}/searchtenants/merchant-{number:05}"


class TenantWorld:
    """``async with TenantWorld(cells=13) as world:``; everything ends with it, the operators too.

    Args:
        cells: registered cells; every one of them takes `DDL_SECONDS` over a DDL request.
        strangers: further cells that the operator does not know, for what another operator does.
    """

    def __init__(self, cells: int, strangers: int = 0) -> None:
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="searchops-bench-", dir=memory))
        self.control_plane = ControlPlane(self.folder / "control-plane")
        self.cells = [self._cell(f"eu-{number:02}") for number in range(cells)]
        self.strangers = [self._cell(f"stranger-{number}") for number in range(strangers)]
        self.operators: list[Operator] = []

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.control_plane.start())
                for cell in self._all_cells():
                    group.create_task(cell.start())
            if all(cell.is_double for cell in self._all_cells()):
                for cell in self._all_cells():
                    await cell.inject(*(_slow(method, path) for method, path in DDL))
            await self._install()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Operators first, the control plane last."""
        await asyncio.gather(*(one.stop() for one in self.operators), return_exceptions=True)
        await asyncio.gather(*(cell.stop() for cell in self._all_cells()), return_exceptions=True)
        await self.control_plane.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def operator(self, **settings: str) -> Operator:
        """A further replica, not started yet."""
        made = Operator(self, f"operator-{len(self.operators)}", settings)
        self.operators.append(made)
        return made

    async def cell_requests(self) -> dict[str, int]:
        """Requests to the registered cells since their start, by method and route."""
        total: dict[str, int] = {}
        for seen in await asyncio.gather(*(cell.requests_seen() for cell in self.cells)):
            for route, count in seen.items():
                total[route] = total.get(route, 0) + count
        return total

    def pids(self) -> dict[str, list[int]]:
        """Process ids of what serves the operators."""
        parts = self.control_plane.pids
        cells = [cell.pid for cell in self._all_cells() if cell.pid is not None]
        return {
            "API server": [pid for name, pid in parts.items() if name == "kube-apiserver"],
            "etcd": [pid for name, pid in parts.items() if name == "etcd"],
            "controller manager": [pid for name, pid in parts.items() if name == "kube-controller-manager"],
            "cells": cells,
        }

    def tail(self) -> str:
        """The end of the logs that matter."""
        return "\n".join(f"--- {one.name}\n{one.process.tail(30)}" for one in self.operators)

    async def apply(self, manifest: str, *, namespace: str | None = None) -> None:
        """Server-side apply."""
        arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        arguments += ["--namespace", namespace] if namespace is not None else []
        await self.control_plane.kubectl(*arguments, stdin=manifest)

    async def _install(self) -> None:
        """Both charts, the cells' Secrets, the merchants' namespaces and a model that was not promoted."""
        plane = self.control_plane
        await self.apply(await plane.helm("template", "searchops-crds", str(REPOSITORY / "charts" / "searchops-crds")))
        await plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        values = self.folder / "values.json"
        settings = {"fleet": FLEET, "artifacts": self.artifacts, "allowFileUris": True, "cataloguePrefixes": []}
        values.write_text(json.dumps({"settings": settings, "image": {"registry": "registry.invalid"}}))
        chart = str(REPOSITORY / "charts" / "searchops")
        rendered = await plane.helm("template", SERVICE_ACCOUNT, chart, "--namespace", NAMESPACE, "-f", str(values))
        async with plane.api() as api:
            entries = [
                CellEntry(
                    cell.name, (cell.rest_url,), cell.grpc_port, cell.api_key, {"region": REGION}, MAX_COLLECTIONS
                )
                for cell in self.cells
            ]
            await register_cells_and_pools(api, entries, ())
            for number in range(NAMESPACES):
                await api.create("/api/v1/namespaces", {"metadata": {"name": namespace_of(number)}})
        await self.apply(rendered, namespace=NAMESPACE)
        await self.apply(json.dumps(unpromoted_model()))

    @property
    def artifacts(self) -> str:
        """URI prefix of the operators' artifacts."""
        return f"file://{self.folder / 'artifacts'}"

    def _cell(self, name: str) -> QdrantCell:
        folder = self.folder / "cells" / name
        return HollowCell(name, folder=folder, api_key=secrets.token_urlsafe(24))

    def _all_cells(self) -> Sequence[QdrantCell]:
        return (*self.cells, *self.strangers)


class Operator:
    """One replica as a process with its chart's rights.

    Args:
        world: where it runs.
        name: of its log.
        settings: ``SEARCHOPS_*`` variables beside the usual ones.
    """

    def __init__(self, world: TenantWorld, name: str, settings: dict[str, str]) -> None:
        self.name = name
        self._world = world
        self._settings = settings
        self._port = free_port()
        self._process: ManagedProcess | None = None

    @property
    def process(self) -> ManagedProcess:
        """The process.

        Raises:
            SandboxError: it was not started.
        """
        if self._process is None:
            raise SandboxError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            SandboxError: it does not run; with the end of its log.
        """
        if not self.process.running or self.process.pid is None:
            raise SandboxError(f"{self.name} ended:\n{self.process.tail(30)}")
        return self.process.pid

    async def launch(self) -> None:
        """Start the process and wait for nothing."""
        kubeconfig = await self._world.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "SEARCHOPS_KUBECONFIG": str(kubeconfig),
            "SEARCHOPS_FLEET": FLEET,
            "SEARCHOPS_NAMESPACE": NAMESPACE,
            "SEARCHOPS_IDENTITY": f"{self.name}-{self._port}",
            "SEARCHOPS_ARTIFACTS": self._world.artifacts,
            "SEARCHOPS_ALLOW_FILE_URIS": "true",
            "SEARCHOPS_GATEWAY_URL": "http://gateway.search:8080",
            "SEARCHOPS_PROBE_PORT": str(self._port),
            "SEARCHOPS_METRICS_PORT": str(self._port),
            **self._settings,
        }
        log = self._world.folder / f"{self.name}.log"
        self._process = ManagedProcess(self.name, [sys.executable, "-m", "searchops"], log=log, env=environment)
        await self._process.start()

    async def start(self) -> None:
        """Start and wait until its caches are full."""
        await self.launch()
        await self.process.wait_until(self.is_ready, timeout=READY_SECONDS)

    async def stop(self) -> None:
        """SIGTERM: it gives its Lease back."""
        if self._process is not None:
            await self._process.stop(grace=20.0)

    async def kill(self) -> None:
        """SIGKILL: its Lease stays until it has run out."""
        await self.process.kill()

    async def is_ready(self) -> bool:
        """Whether its caches are full."""
        return await _text(f"http://127.0.0.1:{self._port}/readyz") is not None

    async def metrics(self) -> Metrics:
        """What Prometheus would scrape now; empty while nothing answers."""
        return Metrics(await _text(f"http://127.0.0.1:{self._port}/metrics") or "")


class Metrics:
    """Samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (sample.name, dict(sample.labels), float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, /, **labels: str) -> float:
        """Sum of the samples of that name that have these labels."""
        return sum(value for _, value in self._found(name, labels))

    def quantile(self, name: str, share: float, /, **labels: str) -> float:
        """As PromQL's ``histogram_quantile``: a straight line within the bucket that holds it."""
        buckets = sorted((float(found["le"]), value) for found, value in self._found(f"{name}_bucket", labels))
        if not buckets or not buckets[-1][1]:
            return 0.0
        rank, below, under = share * buckets[-1][1], 0.0, 0.0
        for edge, count in buckets:
            if count >= rank:
                return below if edge == float("inf") else below + (edge - below) * (rank - under) / (count - under)
            below, under = edge, count
        return below

    def _found(self, name: str, labels: dict[str, str]) -> list[tuple[dict[str, str], float]]:
        wanted = labels.items()
        return [(own, value) for seen, own, value in self._samples if seen == name and wanted <= own.items()]


def _slow(method: str, path: str) -> dict[str, object]:
    return {"method": method, "path": path, "latency": DDL_SECONDS, "count": None}


async def _text(url: str) -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url) as answer,
        ):
            return await answer.text() if answer.status == 200 else None
    except (TimeoutError, aiohttp.ClientError):
        return None
