"""A leader dies in the middle of a rebuild, and the next one's clock is ten minutes away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from searchops.planning.clocks import CLOCK_SKEW
from searchops.planning.names import KEY_PENDING
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld, revision

APART = pytest.mark.parametrize("minutes", [-10, 10], ids=lambda minutes: f"{minutes} min")


async def bound() -> TenantWorld:
    world = TenantWorld()
    world.skew = CLOCK_SKEW
    world.start()
    world.set_model(revision(1))
    world.apply_tenant()
    await world.settle()
    for product in range(3):
        world.write_document(product)
    return world


async def filling(world: TenantWorld) -> None:
    """Passes until `pending` is written, and no further."""
    for _ in range(9):
        if world.live is not None and world.live.binding(KEY_PENDING) is not None:
            return
        await world.step()
    raise AssertionError("nothing is being filled")


@APART
async def test_the_next_leader_waits_for_the_gateways_once_and_switches(minutes: int) -> None:
    world = await bound()
    world.set_model(revision(2))
    await filling(world)
    jobs = len(world.jobs.created)
    world.now += timedelta(minutes=minutes)
    world.start()
    began = world.now
    while len(world.jobs.created) == jobs:
        wait = await world.step()
        assert wait is not None and 0 <= wait <= 30
        world.now += timedelta(seconds=max(wait, 0.5))
        assert world.now - began <= timedelta(minutes=1), "the wait has no end"
    assert world.now - began >= timedelta(seconds=30), "a gateway may still write by what it has cached"
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.live is not None and "d-s2" in world.live.dense


@APART
async def test_a_clock_that_is_set_in_the_middle_of_a_wait_shortens_nothing(minutes: int) -> None:
    """By the process's own monotonic clock: here it is one that the setting of the other does not move."""
    world = await bound()
    ticks = [0.0]
    world.monotonic = lambda: ticks[0]
    world.start()
    world.set_model(revision(2))
    await filling(world)
    jobs = len(world.jobs.created)
    await world.step()
    world.now += timedelta(minutes=minutes)
    for ticks[0] in (29.0, 29.9):
        await world.step()
        assert len(world.jobs.created) == jobs
    for ticks[0] in (30.0, 31.0):
        await world.step()
    assert len(world.jobs.created) == jobs + 1


@APART
async def test_what_one_clock_notes_another_drops_in_time(minutes: int) -> None:
    world = await bound()
    world.apply_tenant(deletionPolicy="Delete", undeleteWindow="5m")
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    while world.raw is not None:
        await world.step()
    world.now += timedelta(minutes=minutes)
    sweeper = world.sweeper()
    world.now += timedelta(minutes=5) - timedelta(seconds=1)
    assert await sweeper.run_once() == 0
    assert f"{ALIAS}@g1" in world.server.collections
    world.now += 2 * CLOCK_SKEW + timedelta(seconds=1)
    assert await sweeper.run_once() == 1
    assert world.cells.broken == []


@APART
async def test_a_window_shorter_than_the_clocks_are_apart_gives_the_data_back_all_the_same(minutes: int) -> None:
    world = await bound()
    world.apply_tenant(deletionPolicy="Delete", undeleteWindow="5m")
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    while world.raw is not None:
        await world.step()
    world.now += timedelta(minutes=minutes + 4)
    world.start()
    world.apply_tenant(uid="uid-2", undeleteWindow="5m")
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.live is not None and set(world.live.points) == {0, 1, 2}
