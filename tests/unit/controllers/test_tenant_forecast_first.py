"""A rebuild is shown in one status write before anything of it is made; a paused one is shown and never begun."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from searchops.controllers.reindex_rates import ReindexRates
from searchops.planning.names import KEY_PENDING
from searchops.planning.rebuild_rates import MeasuredRate
from unit.controllers.fakes_tenant_world import TenantWorld, revision

R1 = revision(1)
BEGAN = "2026-11-24T11:00:00Z"


async def bound() -> TenantWorld:
    world = TenantWorld()
    world.set_model(R1)
    world.apply_tenant()
    await world.settle()
    for product in range(3):
        world.write_document(product)
    return world


def shown(world: TenantWorld) -> dict[str, Any] | None:
    assert world.raw is not None
    found: dict[str, Any] | None = world.raw["status"].get("plan")
    return found


def finished_job(
    name: str, number: int, ended: str, embedded: int, *, status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A ReindexJob that ended as its own controller leaves it."""
    return {
        "metadata": {"name": name, "namespace": "other", "uid": f"uid-{name}"},
        "spec": {"tenant": "x", "worker": {"podTemplate": "gpu"}, "revision": revision(number)["revision"], **spec},
        "status": {
            "phase": "Switched",
            "startedAt": BEGAN,
            "finishedAt": ended,
            "progress": {"documents": embedded, "embedded": embedded},
            "cost": {"gpuSeconds": 50},
            **(status or {}),
        },
    }


async def test_the_plan_is_one_status_write_and_what_it_names_is_made_after_it() -> None:
    world = await bound()
    api, cell = len(world.api.writes), len(world.cells.writes)
    world.apply_tenant(languages=["de"])
    await world.step()
    assert (world.api.writes[api:], world.cells.writes[cell:]) == (["searchtenants/status"], [])
    plan = shown(world)
    assert plan is not None
    assert (plan["state"], plan["strategy"], plan["collection"]) == ("Planned", "BlueGreen", "prod.shop.acme@g2")
    world.worker = "idle"
    for _ in range(6):
        world.now += timedelta(seconds=await world.step() or 0)
    started = shown(world)
    assert started == {**plan, "state": "Started"}
    assert world.server.collections.keys() >= {plan["collection"]}
    world.worker = "done"
    await world.settle()
    assert shown(world) is None
    assert world.server.aliases["prod.shop.acme"] == plan["collection"]


async def test_a_paused_tenant_is_written_once_and_its_rebuild_starts_when_it_goes_on() -> None:
    world = await bound()
    created, cell = list(world.jobs.created), len(world.cells.writes)
    world.apply_tenant(languages=["de"], paused=True)
    await world.settle()
    plan = shown(world)
    assert plan is not None
    assert plan["state"] == "Paused"
    writes = len(world.api.writes)
    for _ in range(3):
        await world.step()
    assert (len(world.api.writes), len(world.cells.writes), world.jobs.created) == (writes, cell, created)
    assert world.live is not None
    assert world.live.binding(KEY_PENDING) is None
    world.apply_tenant(languages=["de"], paused=False)
    await world.settle()
    assert shown(world) is None
    assert len(world.jobs.created) == len(created) + 1


async def test_a_cell_without_room_is_said_and_gets_nothing_until_it_has() -> None:
    world = await bound()
    registered = world.directory.registered["eu-1"]
    world.directory.registered["eu-1"] = type(registered)(
        "eu-1", {}, registered.urls, 6334, len(world.server.collections), api_key=registered.api_key
    )
    cell = len(world.cells.writes)
    world.apply_tenant(languages=["de"])
    await world.settle()
    plan = shown(world)
    assert plan is not None
    assert (plan["state"], plan["room"]["fits"]) == ("NoRoom", False)
    assert world.condition("ModelBound") == ("False", "NoCapacity")
    assert world.cells.writes[cell:] == []
    world.directory.registered["eu-1"] = registered
    await world.settle()
    assert (shown(world), world.condition("Ready")) == (None, ("True", "Ready"))


async def test_a_wish_that_is_taken_back_takes_its_plan_with_it() -> None:
    world = await bound()
    world.apply_tenant(languages=["de"], paused=True)
    await world.settle()
    assert shown(world) is not None
    world.apply_tenant(paused=True)
    await world.settle()
    assert shown(world) is None


async def test_the_figures_are_those_of_finished_jobs_of_the_model() -> None:
    world = await bound()
    for number, ended in enumerate(("11:00:10", "11:00:05")):
        world.api.put("reindexjobs", finished_job(f"job-{number}", 1, f"2026-11-24T{ended}Z", 1000))
    world.api.deliver()
    world.now += timedelta(minutes=2)
    world.apply_tenant(languages=["de"])
    await world.step()
    plan = shown(world)
    assert plan is not None
    assert plan["secondsBasis"].startswith(f"measured on 2 jobs of {R1['revision']}, slowest 100/s ")
    assert (plan["documents"], plan["seconds"], plan["gpuSeconds"]) == (3, 31, 1)
    assert plan["costBasis"] == "no cost: settings.gpuHourPrices is empty"


# -- rates -------------------------------------------------------------------------------------------------------


def rates_of(world: TenantWorld, *jobs: dict[str, Any]) -> ReindexRates:
    for job in jobs:
        world.api.put("reindexjobs", job)
    world.api.deliver()
    return ReindexRates(world.reindexes, lambda: world.now)


def test_rates_are_of_the_models_own_revisions_the_latest_first_and_of_jobs_without_an_encoder() -> None:
    end = "2026-11-24T11:00:10Z"
    lexical = finished_job("lexical", 1, end, 40, status={"cost": None})
    del lexical["spec"]["revision"]
    other = finished_job("other", 1, end, 10, revision="enc-r2-two-r7-0000000a")
    rates = rates_of(TenantWorld(), finished_job("a", 1, end, 100), finished_job("b", 3, end, 300), lexical, other)
    without = MeasuredRate(None, 1, 4.0)
    assert rates.of("enc") == (
        MeasuredRate(revision(3)["revision"], 1, 30.0, 1, 50 / 300),
        MeasuredRate(R1["revision"], 1, 10.0, 1, 0.5),
        without,
    )
    assert rates.of("enc-r2-two") == (MeasuredRate("enc-r2-two-r7-0000000a", 1, 1.0, 1, 5.0), without)
    assert rates.of("nobody") == (without,)


def test_what_is_not_the_work_alone_is_not_measured() -> None:
    """A person's word, a second try, what was there before, an end that is not a switch, times that are not told."""
    end = "2026-11-24T11:00:10Z"
    strange = (
        finished_job("manual", 1, end, 100, cutover="Manual"),
        finished_job("again", 1, end, 100, status={"retries": 1}),
        finished_job("before", 1, end, 100, status={"cost": {"documentsBefore": 100}}),
        finished_job("failed", 1, end, 100, status={"phase": "Failed"}),
        finished_job("empty", 1, end, 0),
        finished_job("instant", 1, BEGAN, 100),
        finished_job("untold", 1, end, 100, status={"startedAt": None}),
        finished_job("nameless", 1, end, 100, revision="by-hand"),
    )
    assert rates_of(TenantWorld(), *strange).of("enc") == ()


def test_ten_thousand_tenants_read_the_jobs_once_a_minute() -> None:
    world = TenantWorld()
    rates = rates_of(world, finished_job("a", 1, "2026-11-24T11:00:10Z", 100))
    first = rates.of("enc")
    world.api.put("reindexjobs", finished_job("b", 1, "2026-11-24T11:00:20Z", 100))
    world.api.deliver()
    world.now += timedelta(seconds=59)
    assert rates.of("enc") == first
    world.now += timedelta(seconds=1)
    assert rates.of("enc") == (MeasuredRate(R1["revision"], 2, 5.0, 2, 0.5),)
