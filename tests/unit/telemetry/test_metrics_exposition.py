"""Metrics: controller-runtime's names, read from a real controller, with labels that cannot grow."""

from __future__ import annotations

import asyncio
import re

import pytest

from searchops.runtime.cache import ObjectCache
from searchops.runtime.controller import Controller
from searchops.runtime.dependency import Dependencies
from searchops.runtime.errors import Terminal, Transient
from searchops.runtime.key import Key
from searchops.runtime.queue import Priority, QueueSnapshot, WorkQueue
from searchops.runtime.result import Result
from searchops.telemetry.metrics import OTHER, BoundedNames, Telemetry


def samples(telemetry: Telemetry) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in telemetry.exposition().decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


AT_WORK = {
    ("reconcile_total", 'controller="tenants",result="success"'): 1,
    ("reconcile_total", 'controller="tenants",result="requeue_after"'): 1,
    ("reconcile_total", 'controller="tenants",result="error"'): 2,
    ("reconcile_total", 'controller="tenants",result="requeue"'): 0,
    ("reconcile_errors_total", 'controller="tenants"'): 2,
    ("terminal_reconcile_errors_total", 'controller="tenants"'): 1,
    ("max_concurrent_reconciles", 'controller="tenants"'): 10,
    ("active_workers", 'controller="tenants"'): 1,
    ("reconcile_time_seconds_count", 'controller="tenants"'): 4,
    ("workqueue_adds_total", 'name="tenants"'): 6,
    ("workqueue_retries_total", 'name="tenants"'): 1,
    ("workqueue_queue_duration_seconds_count", 'name="tenants"'): 6,
    ("workqueue_work_duration_seconds_count", 'name="tenants"'): 5,
    ("workqueue_longest_running_processor_seconds", 'name="tenants"'): pytest.approx(10, abs=0.1),
    ("workqueue_unfinished_work_seconds", 'name="tenants"'): pytest.approx(10, abs=0.1),
    ("workqueue_delayed", 'name="tenants"'): 2,
    ("workqueue_parked", 'name="tenants"'): 1,
    ("workqueue_depth", 'name="tenants",priority="change"'): 0,
    ("dependency_waiting", 'dependency="cell/eu-1"'): 1,
    ("dependency_in_use", 'dependency="cell/eu-1"'): 1,
    ("dependency_breaker_open", 'dependency="cell/eu-1"'): 0,
    ("cached_objects", 'kind="tenants"'): 7,
}


@pytest.mark.looptime
async def test_a_controller_at_work_is_seen_under_controller_runtimes_names() -> None:
    telemetry = Telemetry()
    now = asyncio.get_running_loop().time
    queue: WorkQueue[Key] = WorkQueue("tenants", now=now, metrics=telemetry.runtime)
    cache: ObjectCache[str] = ObjectCache("tenants", str, now=now)
    dependencies = Dependencies(now=now)

    async def reconcile(key: Key) -> Result:
        match key.name:
            case "wait":
                return Result.after(1000)
            case "transient":
                raise Transient("x", retry_after=1000)
            case "terminal":
                raise Terminal("Bad", "x")
            case "slow":
                async with dependencies.slot("cell/eu-1"):
                    await asyncio.sleep(100)
            case "parked":
                async with dependencies.slot("cell/eu-1"):
                    pass
        return Result.done()

    async def read(key: Key) -> None:
        del key

    controller = Controller(
        "tenants",
        queue,
        cache,
        reconcile,
        read=read,
        fatal=lambda error: pytest.fail(str(error)),
        dependencies=dependencies,
        metrics=telemetry.runtime,
        now=now,
    )
    telemetry.watch(
        [queue], dependencies=dependencies, lease_remaining=lambda: 12.5, caches={"tenants": lambda: 7}, now=now
    )
    for name in ("done", "wait", "transient", "terminal", "slow", "parked"):
        queue.add(Key("shop", name), Priority.CHANGE)
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(10)
    seen = samples(telemetry)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    at_work = {key: seen[f"searchops_{key[0]}{{{key[1]}}}"] for key in AT_WORK}
    assert at_work == AT_WORK
    assert seen["searchops_leader"] == 1
    assert seen["searchops_lease_remaining_seconds"] == 12.5


def test_a_thousand_cells_are_at_most_so_many_series() -> None:
    telemetry = Telemetry()
    for number in range(1000):
        telemetry.domain.cell(f"cell-{number}", up=True, collections=1, capacity=2)
    cells = [name for name in samples(telemetry) if name.startswith("searchops_cell_up{")]
    assert len(cells) == 257
    assert f'searchops_cell_up{{cell="{OTHER}"}}' in cells


def test_a_name_that_is_gone_makes_room() -> None:
    names = BoundedNames(2)
    assert [names("a"), names("b"), names("c"), names("a")] == ["a", "b", OTHER, "a"]
    names.forget("a")
    assert names("c") == "c"


def test_phases_that_are_left_disappear() -> None:
    telemetry = Telemetry()
    telemetry.domain.objects("SearchTenant", {"Ready": 3, "Pending": 1})
    telemetry.domain.objects("EmbeddingModel", {"Pending": 1})
    telemetry.domain.objects("SearchTenant", {"Ready": 4})
    seen = {name: value for name, value in samples(telemetry).items() if name.startswith("searchops_objects{")}
    assert seen == {
        'searchops_objects{kind="SearchTenant",phase="Ready"}': 4,
        'searchops_objects{kind="EmbeddingModel",phase="Pending"}': 1,
    }


def test_the_domain_is_counted() -> None:
    telemetry = Telemetry()
    domain = telemetry.domain
    domain.verdict("Regressed")
    domain.switched("back")
    domain.rolled_back("regressed")
    domain.isolation_broken()
    domain.missed("SearchTenant", ghosts=2, refreshed=0)
    domain.pool("default", {"ready": 2, "down": 1})
    domain.call("qdrant", "create_collection", "transient", 0.2)
    domain.observed("SearchTenant", 0.3)
    telemetry.runtime.dropped("rate")
    seen = samples(telemetry)
    for name, value in {
        'gate_verdicts_total{outcome="Regressed"}': 1,
        'tenant_switches_total{direction="back"}': 1,
        'rollbacks_total{cause="regressed"}': 1,
        "isolation_broken_total": 1,
        'watch_missed_total{kind="SearchTenant",what="ghost"}': 2,
        'pool_servers{pool="default",state="down"}': 1,
        'client_requests_total{client="qdrant",operation="create_collection",result="transient"}': 1,
        'observed_generation_lag_seconds_bucket{kind="SearchTenant",le="0.5"}': 1,
        'events_dropped_total{cause="rate"}': 1,
    }.items():
        assert seen[f"searchops_{name}"] == value


def test_no_metric_names_a_tenant_and_all_have_the_prefix() -> None:
    text = Telemetry().exposition().decode()
    families = re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE)
    assert len(families) > 20
    assert all(family.startswith("searchops_") for family in families)
    assert not re.search(r'[{,](tenant|namespace|object)="', text)


def test_two_registries_do_not_know_each_other() -> None:
    one, other = Telemetry(), Telemetry()
    one.domain.verdict("Pass")
    assert 'searchops_gate_verdicts_total{outcome="Pass"}' not in samples(other)


async def test_every_key_of_a_queue_is_walked_once_in_five_seconds_however_many_scrape() -> None:
    moment, walks = 0.0, 0

    class Counted(WorkQueue[Key]):
        def snapshot(self) -> QueueSnapshot:
            nonlocal walks
            walks += 1
            return super().snapshot()

    telemetry, queue = Telemetry(), Counted("tenants")
    telemetry.watch([queue], now=lambda: moment)
    walks = 0
    moment = 10.0
    for _ in range(20):
        assert samples(telemetry)['searchops_workqueue_depth{name="tenants",priority="change"}'] == 0
        queue.add(Key("shop", "a"))
        moment += 0.2
    assert walks == 1
    moment = 15.0
    assert samples(telemetry)['searchops_workqueue_depth{name="tenants",priority="change"}'] == 1
    assert walks == 2
