"""Seen from outside: what the API server counted, what processes used, and when a tenant's status changed."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from searchops_sandbox.fleet import GROUP
from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from searchops_sandbox.cluster import Cluster
    from searchops_sandbox.kubernetes_api import KubernetesApi

_REQUESTS: Final = re.compile(r"^apiserver_request_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
LEASES: Final = "leases"
TOO_MANY: Final = 429
POLL_SECONDS: Final = 0.05
"""How often a condition is looked at; the moments themselves are those of the watch's events."""


async def api_writes(api: KubernetesApi) -> Counter[str]:
    """Writes that the API server has taken since its start, by verb and resource, whoever sent them."""
    found: Counter[str] = Counter()
    for labels, value in _REQUESTS.findall(await api.text("/metrics")):
        own = dict(_LABEL.findall(labels))
        if own["verb"] in _WRITES:
            resource = "/".join(filter(None, (own["resource"], own["subresource"])))
            found[f"{own['verb']} {resource}"] += int(float(value))
    return found


def of_ours(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Writes between two readings, the Leases' apart: an API server renews one of its own."""
    return {name: count for name, count in sorted((after - before).items()) if LEASES not in name}


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of some processes and of all their threads; one that is gone counts nothing."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def cpu_by_part(parts: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU seconds of each part since its start."""
    return {name: cpu_seconds(pids) for name, pids in parts.items()}


def peak_megabytes(pid: int) -> float:
    """The most that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


@dataclass
class Seen:
    """One object as a watch showed it.

    Attributes:
        created: seconds on the watcher's clock when it was first seen.
        ready: when it was first ready at its own generation.
        writes: changes of the object and its status, by whomever.
        observed: when the status first told a generation.
    """

    created: float
    ready: float | None = None
    writes: int = 0
    observed: dict[int, float] = field(default_factory=dict)


class StatusWatch:
    """Watches every object of a kind in a task of its own.

    Args:
        cluster: where.
        path: of the collection, all namespaces.
        ready: whether an object is what its owner waits for.
    """

    def __init__(self, cluster: Cluster, path: str, ready: Any) -> None:
        self._cluster = cluster
        self._path = path
        self._ready = ready
        self._task: asyncio.Task[None] | None = None
        self.seen: dict[str, Seen] = {}
        self.ready_count = 0
        self.last_ready = 0.0

    async def __aenter__(self) -> StatusWatch:
        started = asyncio.Event()
        self._task = asyncio.create_task(self._run(started))
        await started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def until(self, what: str, condition: Any, *, seconds: float) -> None:
        """Wait until something about what was seen is true.

        Raises:
            TimeoutError: naming what was waited for, and how far it got.
        """
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if self._task is not None and self._task.done():
                        self._task.result()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            seen = f"{self.ready_count} of {len(self.seen)} ready"
            raise TimeoutError(f"not within {seconds:g} s: {what}; {seen}") from error

    async def _run(self, started: asyncio.Event) -> None:
        async with self._cluster.api() as api:
            listed = await api.get(self._path, limit="1")
            version = listed["metadata"]["resourceVersion"]
            started.set()
            while True:
                try:
                    async for kind, item in api.watch(self._path, version, seconds=3_000):
                        version = item["metadata"]["resourceVersion"]
                        if kind != "BOOKMARK":
                            self._take(kind, item)
                except ApiError as error:
                    if error.status == TOO_MANY:  # the kind is new: the server is not ready to watch it yet
                        await asyncio.sleep(POLL_SECONDS)
                        continue
                    raise RuntimeError(f"the benchmark's watch broke: {error}; its counts are not whole") from error

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        now, metadata = time.perf_counter(), item["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        found = self.seen.setdefault(name, Seen(now))
        found.writes += kind == "MODIFIED"
        observed = item.get("status", {}).get("observedGeneration")
        if observed is not None:
            found.observed.setdefault(observed, now)
        if found.ready is None and self._ready(item):
            found.ready = self.last_ready = now
            self.ready_count += 1


def tenant_ready(item: Mapping[str, Any]) -> bool:
    """Whether a SearchTenant says of its own generation that it is ready."""
    status = item.get("status", {})
    current = status.get("observedGeneration") == item["metadata"].get("generation")
    return current and any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))


TENANTS_PATH: Final = f"/apis/{GROUP}/searchtenants"


def short(counts: Mapping[str, float], digits: int = 1) -> dict[str, float]:
    """Rounded, for a figure's details."""
    return {name: round(value, digits) for name, value in counts.items()}
