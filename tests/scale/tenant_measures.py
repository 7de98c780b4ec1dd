"""One function a row of the promise about tenants; each returns what one repeat has shown."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scale.tenant_meters import api_writes, cpu_by_part, cpu_seconds, of_ours, peak_megabytes
from scale.tenant_world import tenant, tenant_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scale.tenant_meters import StatusWatch
    from scale.tenant_world import Metrics, Operator, TenantWorld
    from searchops_sandbox.kubernetes_api import KubernetesApi

AT_ONCE = 32
"""Creates that are under way at one time, as several clients of one API server make them."""
POLL_SECONDS = 0.25
SETTLE_SECONDS = 6.0
"""Longer than the operator keeps a walk over its queue for scrapes."""
QUEUE = "searchtenants"
CONTROLLER = "searchtenant"


@dataclass(frozen=True)
class Burst:
    """What creating many objects at once took.

    Attributes:
        seconds: from the first create to the last object that is ready.
        creating: of these, until every object was created.
        latencies: seconds of each object from the watch's first sight of it to being ready.
        writes: changes of each object by the operator.
        cpu: CPU seconds of each part meanwhile.
        api: writes to the API server by verb and resource, creates of the objects apart.
        queue_p99: seconds in line, from the operator's histogram.
    """

    seconds: float
    creating: float
    latencies: list[float]
    writes: list[int]
    cpu: dict[str, float]
    api: dict[str, int]
    queue_p99: float = 0.0


@dataclass(frozen=True)
class Restart:
    """What a new process took over a fleet that is there already."""

    seconds: float
    ready_seconds: float
    cpu: float
    megabytes: float
    tenant_writes: int
    writes: dict[str, int]
    cell_requests: dict[str, int]


@dataclass(frozen=True)
class Idle:
    """A stretch of time in which nobody asked for anything."""

    seconds: float
    cpu_share: float
    writes: dict[str, int]
    cell_requests: dict[str, int]


async def create_all(
    api: KubernetesApi,
    watch: StatusWatch,
    bodies: Mapping[str, tuple[str, dict[str, Any]]],
    pids: Callable[[], dict[str, list[int]]],
    *,
    seconds: float,
) -> Burst:
    """Create objects as fast as the API server takes them, and wait until each is ready.

    Args:
        api: the creating client.
        watch: over the kind; it has seen none of these yet.
        bodies: collection's path and object, by ``namespace/name``.
        pids: processes whose time is counted, by part.
        seconds: how long all of it may take.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def create(path: str, body: dict[str, Any]) -> None:
        async with gate:
            await api.create(path, body)

    before, cpu = await api_writes(api), cpu_by_part(pids())
    start, known = time.perf_counter(), watch.ready_count
    async with asyncio.TaskGroup() as group:
        for path, body in bodies.values():
            group.create_task(create(path, body))
    created = time.perf_counter()
    await watch.until("every object is ready", lambda: watch.ready_count >= known + len(bodies), seconds=seconds)
    taken = {name: used - cpu[name] for name, used in cpu_by_part(pids()).items()}
    seen = [watch.seen[name] for name in bodies]
    kind = next(iter(bodies.values()))[0].rsplit("/", 1)[1]
    writes = of_ours(before, await api_writes(api))
    return Burst(
        watch.last_ready - start,
        created - start,
        [one.ready - one.created for one in seen if one.ready is not None],
        [one.writes for one in seen],
        taken,
        {name: count for name, count in writes.items() if name != f"POST {kind}"},
    )


def tenants(first: int, until: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """SearchTenants for `create_all`."""
    made = {}
    for number in range(first, until):
        body = tenant(number)
        path = tenant_path(number).rsplit("/", 1)[0]
        made[f"{body['metadata']['namespace']}/{body['metadata']['name']}"] = (path, body)
    return made


async def steady_changes(
    api: KubernetesApi, watch: StatusWatch, count: int, *, a_second: float, seconds: float, salt: int
) -> list[float]:
    """Change one tenant's quota after the other at a steady rate; seconds from each request to the status seen."""
    delays: list[float] = []

    async def change(number: int, quota: int) -> None:
        sent = time.perf_counter()
        body = {"spec": {"quotas": {"searchesPerMinute": quota}}}
        changed = await api.patch(tenant_path(number), body)
        metadata = changed["metadata"]
        seen = watch.seen[f"{metadata['namespace']}/{metadata['name']}"].observed
        await watch.until(
            f"{metadata['name']} tells generation {metadata['generation']}",
            lambda: metadata["generation"] in seen,
            seconds=300.0,
        )
        delays.append(seen[metadata["generation"]] - sent)

    total = max(1, int(a_second * seconds))
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for turn in range(total):
            await asyncio.sleep(max(0.0, start + turn / a_second - time.perf_counter()))
            step = (salt * total + turn) * 7_919
            group.create_task(change(step % count, 60_000 + salt * total + turn + 1))
    return delays


async def restarted(
    world: TenantWorld, api: KubernetesApi, operator: Operator, count: int, *, seconds: float
) -> Restart:
    """Start a replica over a fleet that is there, until each tenant had a pass that ended."""
    before, asked = await api_writes(api), await world.cell_requests()
    start = time.perf_counter()
    await operator.launch()
    ready = 0.0
    async with asyncio.timeout(seconds):
        while True:
            metrics = await operator.metrics()
            now = time.perf_counter() - start
            if not ready and await operator.is_ready():
                ready = now
            if metrics.total("searchops_reconcile_total", controller=CONTROLLER) >= count and ready:
                break
            _ = operator.pid
            await asyncio.sleep(POLL_SECONDS)
    cpu = cpu_seconds([operator.pid])
    megabytes = peak_megabytes(operator.pid)
    requests = _more(asked, await world.cell_requests())
    await quiet(operator, seconds=seconds)
    writes = of_ours(before, await api_writes(api))
    ours = sum(number for name, number in writes.items() if "searchtenants" in name)
    return Restart(now, ready, cpu, megabytes, ours, writes, requests)


async def quiet(operator: Operator, *, seconds: float) -> Metrics:
    """Wait until nothing is queued, parked or worked on but what the resync brings.

    Raises:
        TimeoutError: naming what was still there.
    """
    metrics, resting = await operator.metrics(), 0
    deadline = time.perf_counter() + seconds
    while resting < 2:
        await asyncio.sleep(SETTLE_SECONDS)
        metrics = await operator.metrics()
        depth = metrics.total("searchops_workqueue_depth", name=QUEUE)
        parked = metrics.total("searchops_workqueue_parked", name=QUEUE)
        resting = resting + 1 if depth + parked <= 20 else 0
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not quiet within {seconds:g} s: {depth:g} keys wait, {parked:g} are parked")
    return metrics


async def idling(world: TenantWorld, api: KubernetesApi, pid: int, *, seconds: float) -> Idle:
    """What a process uses and writes while nobody asks for anything."""
    writes, asked, used = await api_writes(api), await world.cell_requests(), cpu_seconds([pid])
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    taken = time.perf_counter() - start
    share = (cpu_seconds([pid]) - used) / taken
    return Idle(taken, share, of_ours(writes, await api_writes(api)), _more(asked, await world.cell_requests()))


async def failed_over(api: KubernetesApi, watch: StatusWatch, leader: Operator, *, number: int, quota: int) -> float:
    """SIGKILL the leader, change a tenant at once, and wait until another replica's status has seen the change."""
    await leader.kill()
    killed = time.perf_counter()
    changed = await api.patch(tenant_path(number), {"spec": {"quotas": {"searchesPerMinute": quota}}})
    metadata = changed["metadata"]
    seen = watch.seen[f"{metadata['namespace']}/{metadata['name']}"].observed
    await watch.until("another replica's status", lambda: metadata["generation"] in seen, seconds=120.0)
    return seen[metadata["generation"]] - killed


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in sorted(after.items()) if count > before.get(name, 0)}
