"""Every promise about tenants, on a real API server and doubles of cells that take their time over DDL; and a peer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_asyncio

from scale import peer, tenant_measures
from scale.figures import Bench, Target
from scale.tenant_meters import TENANTS_PATH, StatusWatch, cpu_seconds, peak_megabytes, short, tenant_ready
from scale.tenant_world import TenantWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scale.tenant_world import Operator
    from searchops_sandbox.kubernetes_api import KubernetesApi

TENANTS = max(int(text) for text in os.environ.get("BENCH_TENANTS", "10000").split(","))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
CELLS = int(os.environ.get("BENCH_CELLS", "13" if TENANTS > 2_000 else "3"))
PEER = int(os.environ.get("BENCH_PEER", str(min(TENANTS, 300))))
STEADY_SECONDS = float(os.environ.get("BENCH_STEADY_SECONDS", "30"))
IDLE_SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "60"))
REPEATED_UP_TO = 1_000
"""Tenants of a burst that is repeated, each time over a world of its own."""
PROMISED_AT = 10_000
PEER_PROMISED_AT = 300
LIMIT_SECONDS = 3_600.0

pytestmark = [
    pytest.mark.scale,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(3 * LIMIT_SECONDS),
]


class Fleet:
    """A world with a leading operator, the administrator's client and a watch over every tenant."""

    def __init__(self, world: TenantWorld, api: KubernetesApi, watch: StatusWatch, leader: Operator) -> None:
        self.world = world
        self.api = api
        self.watch = watch
        self.leader = leader
        self.quota = 100_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """An operator that leads over no tenant yet."""
    async with (
        TenantWorld(CELLS) as world,
        world.control_plane.api() as api,
        StatusWatch(world.control_plane, TENANTS_PATH, tenant_ready) as watch,
    ):
        leader = world.operator()
        await leader.start()
        yield Fleet(world, api, watch, leader)


def details(**more: Any) -> dict[str, Any]:
    """What every figure needs to be read rightly; targets are promised at 10,000 tenants."""
    return {"tenants": TENANTS, "cells": CELLS, **more}


def record(
    figure: str, repeats: list[float], unit: str, target: Target | None = None, *, any_size: bool = False, **more: Any
) -> None:
    """One line; a target is judged at the size of which it is promised, or where it holds at any."""
    judged = any_size or TENANTS >= PROMISED_AT
    Bench("tenants").record(figure, repeats, unit, target, judged=judged, **details(**more))


@dataclass(frozen=True)
class Seen:
    """One burst, and what its operator says of it."""

    burst: tenant_measures.Burst
    queue: float
    megabytes: float

    def cpu(self, part: str) -> float:
        """Milliseconds of CPU that a part took for a tenant."""
        return 1_000 * self.burst.cpu[part] / TENANTS


async def burst_over(world: TenantWorld, api: KubernetesApi, watch: StatusWatch, leader: Operator) -> Seen:
    """Create every tenant at once; the fleet has to be empty."""

    def pids() -> dict[str, list[int]]:
        return {"operator": [leader.pid], "benchmark": [os.getpid()], **world.pids()}

    every = tenant_measures.tenants(0, TENANTS)
    burst = await tenant_measures.create_all(api, watch, every, pids, seconds=LIMIT_SECONDS)
    metrics = await leader.metrics()
    queue = metrics.quantile("searchops_workqueue_queue_duration_seconds", 0.99, name=tenant_measures.QUEUE)
    return Seen(burst, queue, peak_megabytes(leader.pid))


async def burst_alone() -> Seen:
    """A burst over a world of its own, which is gone afterwards."""
    async with (
        TenantWorld(CELLS) as world,
        world.control_plane.api() as api,
        StatusWatch(world.control_plane, TENANTS_PATH, tenant_ready) as watch,
    ):
        leader = world.operator()
        await leader.start()
        return await burst_over(world, api, watch, leader)


async def test_burst_of_creates(fleet: Fleet) -> None:
    """The last one fills the fleet that the other measures are of."""
    more = REPEATS - 1 if TENANTS <= REPEATED_UP_TO else 0
    seen = [await burst_alone() for _ in range(more)]
    seen.append(await burst_over(fleet.world, fleet.api, fleet.watch, fleet.leader))
    label = f"burst of {TENANTS} creates"
    parts = {part: median(one.cpu(part) for one in seen) for part in seen[0].burst.cpu}
    rates = [TENANTS / one.burst.seconds for one in seen]
    api = seen[-1].burst.api
    record(f"{label}: rate", rates, "tenants/s", Target(">=", 150), cpuMsATenant=short(parts), api=api)
    limit, of = Target("<=", PROMISED_AT / 150), "the operator's histogram"
    record(f"{label}: time in line, p99", [one.queue for one in seen], "s", limit, of=of)
    waits = [np.percentile(one.burst.latencies, [50, 99]) for one in seen]
    p50 = round(float(median(wait[0] for wait in waits)), 2)
    record(f"{label}: created to ready, p99", [float(wait[1]) for wait in waits], "s", p50=p50)
    record(f"{label}: operator's CPU", [one.cpu("operator") for one in seen], "ms/tenant")
    record(f"{label}: peak resident memory", [one.megabytes for one in seen], "MB")
    limit = Target("<=", 2)
    writes = [float(np.mean(one.burst.writes)) for one in seen]
    most = [float(max(one.burst.writes)) for one in seen]
    name = f"API writes to create one tenant, the most of {TENANTS}"
    record(name, most, "writes", limit, any_size=True, mean=round(median(writes), 3))
    for one in seen:
        assert len(one.burst.latencies) == TENANTS
        assert min(one.burst.writes) >= 1
        assert float(np.median(one.burst.writes)) <= limit.value


async def test_changes_at_a_steady_rate(fleet: Fleet) -> None:
    await tenant_measures.quiet(fleet.leader, seconds=LIMIT_SECONDS)
    p99, p50 = [], []
    for repeat in range(REPEATS):
        delays = await tenant_measures.steady_changes(
            fleet.api, fleet.watch, TENANTS, a_second=10.0, seconds=STEADY_SECONDS, salt=repeat
        )
        assert len(delays) == int(10 * STEADY_SECONDS)
        p99.append(float(np.percentile(delays, 99)))
        p50.append(float(np.percentile(delays, 50)))
    record(
        f"spec change to status at 10/s over {TENANTS} tenants, p99",
        p99,
        "s",
        Target("<=", 1),
        p50=round(float(np.median(p50)), 4),
        changes=int(10 * STEADY_SECONDS),
    )


async def test_restart(fleet: Fleet) -> None:
    answers = []
    for _ in range(REPEATS):
        await fleet.leader.stop()
        fleet.leader = fleet.world.operator()
        answers.append(
            await tenant_measures.restarted(fleet.world, fleet.api, fleet.leader, TENANTS, seconds=LIMIT_SECONDS)
        )
    label = f"restart over {TENANTS} tenants"
    last = answers[-1]
    record(
        f"{label}: all reconciled once",
        [one.seconds for one in answers],
        "s",
        Target("<=", 30),
        readySeconds=round(last.ready_seconds, 2),
        cellRequests=last.cell_requests,
    )
    record(f"{label}: CPU", [one.cpu for one in answers], "CPU s")
    record(
        f"{label}: peak resident memory",
        [one.megabytes for one in answers],
        "MB",
        Target("<=", 350),
    )
    writes = [float(one.tenant_writes) for one in answers]
    record(f"{label}: API writes to tenants", writes, "writes", Target("==", 0), any_size=True, all=last.writes)
    assert writes == [0.0] * REPEATS
    assert all(one.cpu > 0 for one in answers)


async def test_idle(fleet: Fleet) -> None:
    await tenant_measures.quiet(fleet.leader, seconds=LIMIT_SECONDS)
    idle = [
        await tenant_measures.idling(fleet.world, fleet.api, fleet.leader.pid, seconds=IDLE_SECONDS)
        for _ in range(REPEATS)
    ]
    label = f"idle over {TENANTS} tenants"
    record(
        f"{label}: share of a core",
        [100 * one.cpu_share for one in idle],
        "%",
        Target("<=", 2),
        cellRequests=idle[-1].cell_requests,
        tenantResyncMinutes=60,
    )
    writes = [60 * sum(one.writes.values()) / one.seconds for one in idle]
    record(
        f"{label}: API writes a minute, Leases apart",
        writes,
        "writes/min",
        Target("<=", 1),
        all=idle[-1].writes,
    )
    assert all(one.cpu_share > 0 for one in idle)


async def test_leader_killed(fleet: Fleet) -> None:
    seconds = []
    for repeat in range(REPEATS):
        standby = fleet.world.operator()
        await standby.start()
        fleet.quota += 1
        number = (repeat * 7 + 1) % TENANTS
        seconds.append(
            await tenant_measures.failed_over(fleet.api, fleet.watch, fleet.leader, number=number, quota=fleet.quota)
        )
        fleet.leader = standby
        await tenant_measures.quiet(standby, seconds=LIMIT_SECONDS)
    record(
        f"leader killed over {TENANTS} tenants: another replica has worked",
        seconds,
        "s",
        Target("<=", 20),
    )
    assert len(seconds) == REPEATS


@pytest.mark.skipif(PEER < 1, reason="BENCH_PEER=0: the peer is not measured")
async def test_the_peer_on_the_same_objects_and_servers() -> None:
    """One after the other on one API server, each with a cell of its own: collections with five indexes."""
    try:
        python = peer.ensure_peer()
    except peer.PeerError as reason:
        pytest.skip(f"the peer {peer.NAME} is not measured: {reason}")
    async with TenantWorld(1, strangers=1) as world, world.control_plane.api() as api:
        ours = await _our_side(world, api)
        theirs = await _their_side(world, api, python)
    bench = Bench("tenants")
    for figure, unit in (
        ("CPU a tenant", "ms/tenant"),
        ("writes a tenant", "writes"),
        ("rate", "tenants/s"),
        ("idle share of a core", "%"),
        ("idle API writes", "writes/min"),
        ("peak resident memory", "MB"),
    ):
        bench.record(
            f"beside the peer, {PEER} tenants: {figure}",
            [ours[figure]],
            unit,
            None,
            peer={"name": peer.NAME, "value": round(theirs[figure], 3), "ratio": _ratio(ours[figure], theirs[figure])},
            tenants=PEER,
        )
    least = {"CPU a tenant": 0.01, "idle share of a core": 0.01, "idle API writes": 60 / IDLE_SECONDS}
    for figure, smallest in least.items():  # what is nothing here counts as the least that can be seen
        if not theirs[figure]:
            continue
        bench.record(
            f"ahead of the peer, {PEER} tenants: {figure}",
            [theirs[figure] / max(ours[figure], smallest)],
            "times",
            Target(">=", 30),
            judged=PEER >= PEER_PROMISED_AT,
            tenants=PEER,
        )
    assert ours["rate"] > 0
    assert theirs["rate"] > 0


async def _our_side(world: TenantWorld, api: KubernetesApi) -> dict[str, float]:
    operator = world.operator()
    await operator.start()
    async with StatusWatch(world.control_plane, TENANTS_PATH, tenant_ready) as watch:
        started = cpu_seconds([operator.pid])
        burst = await tenant_measures.create_all(
            api, watch, tenant_measures.tenants(0, PEER), lambda: {"operator": [operator.pid]}, seconds=LIMIT_SECONDS
        )
    assert started > 0
    await tenant_measures.quiet(operator, seconds=LIMIT_SECONDS)
    idle = await tenant_measures.idling(world, api, operator.pid, seconds=IDLE_SECONDS)
    answer = _side(burst, idle, peak_megabytes(operator.pid))
    await operator.stop()
    return answer


async def _their_side(world: TenantWorld, api: KubernetesApi, python: Any) -> dict[str, float]:
    side = peer.Peer(world, world.strangers[0])
    await side.install()
    await side.start(python)
    bodies = {
        f"{peer.NAMESPACE}/{body['metadata']['name']}": (peer.collection_path(), body)
        for body in (peer.collection(number) for number in range(PEER))
    }
    try:
        async with StatusWatch(world.control_plane, peer.COLLECTIONS_PATH, peer.collection_ready) as watch:
            burst = await tenant_measures.create_all(
                api, watch, bodies, lambda: {"operator": [side.pid]}, seconds=LIMIT_SECONDS
            )
        idle = await tenant_measures.idling(world, api, side.pid, seconds=IDLE_SECONDS)
        return _side(burst, idle, peak_megabytes(side.pid))
    except (TimeoutError, peer.PeerError) as reason:
        pytest.skip(f"the peer {peer.NAME} made no collections here: {reason}\n{side.tail()}")
    finally:
        await side.stop()


def _side(burst: tenant_measures.Burst, idle: tenant_measures.Idle, megabytes: float) -> dict[str, float]:
    return {
        "CPU a tenant": 1_000 * burst.cpu["operator"] / PEER,
        "writes a tenant": float(np.mean(burst.writes)),
        "rate": PEER / burst.seconds,
        "idle share of a core": 100 * idle.cpu_share,
        "idle API writes": 60 * sum(idle.writes.values()) / idle.seconds,
        "peak resident memory": megabytes,
    }


def _ratio(ours: float, theirs: float) -> float | None:
    return round(theirs / ours, 2) if ours else None
