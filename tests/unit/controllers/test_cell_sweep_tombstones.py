"""The sweep drops what is past its time, and only where a live GET shows that nobody has the name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from searchops.api.observed import CellIdentity
from searchops.runtime.errors import Transient
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld

G1 = f"{ALIAS}@g1"


async def deleted(policy: str = "Delete", **changes: Any) -> TenantWorld:
    """A tenant that is gone, with its tombstoned collection."""
    world = TenantWorld(**changes)
    world.set_model()
    world.apply_tenant(deletionPolicy=policy)
    await world.settle()
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.step()
    assert world.raw is None
    return world


async def test_nothing_goes_before_its_time_and_it_goes_after() -> None:
    world = await deleted()
    world.now += timedelta(hours=71)
    assert await world.sweeper().run_once() == 0
    world.now += timedelta(hours=2)
    assert await world.sweeper().run_once() == 1
    assert (world.server.collections, world.cells.broken) == ({}, [])
    assert await world.sweeper().run_once() == 0


async def test_retained_data_is_never_dropped() -> None:
    world = await deleted("Retain")
    world.now += timedelta(days=3650)
    assert await world.sweeper().run_once() == 0
    assert set(world.server.collections) == {G1}


async def test_a_tenant_that_has_the_name_by_now_keeps_the_data_whatever_the_cache_says() -> None:
    world = await deleted()
    world.now += timedelta(hours=80)
    metadata = {"name": "acme", "namespace": "shop", "uid": "uid-2"}
    world.api.put("searchtenants", {"metadata": metadata, "spec": {}})
    assert world.tenants.get(TENANT) is None
    assert await world.sweeper().run_once() == 0
    assert set(world.server.collections) == {G1}


async def test_a_collection_that_an_alias_still_shows_is_not_dropped() -> None:
    world = await deleted()
    world.now += timedelta(hours=80)
    world.server.aliases["somebody"] = G1
    assert await world.sweeper().run_once() == 0


@pytest.mark.parametrize("identity", [None, CellIdentity("prod", "eu-1", "copy"), CellIdentity("dev", "eu-1", "x")])
async def test_a_cell_that_is_not_ours_is_not_swept(identity: CellIdentity | None) -> None:
    world = await deleted()
    world.now += timedelta(hours=80)
    world.server.identity = identity
    assert await world.sweeper().run_once() == 0
    assert set(world.server.collections) == {G1}


async def test_with_too_little_of_the_lease_left_nothing_is_dropped() -> None:
    world = await deleted()
    world.now += timedelta(hours=80)
    world.lease = 8.0
    assert await world.sweeper().run_once() == 0
    assert set(world.server.collections) == {G1}
    world.lease = 13.0
    assert await world.sweeper().run_once() == 1


async def test_a_cell_that_fails_holds_back_no_other() -> None:
    world = await deleted(cells=("eu-1", "eu-0"))
    assert set(world.server.collections) | set(world.cells.cells["eu-0"].collections) == {G1}
    holder = next(name for name, cell in world.cells.cells.items() if cell.collections)
    other = next(name for name in ("eu-0", "eu-1") if name != holder)
    world.cells.cells[other].reachable = False
    world.now += timedelta(hours=80)
    assert await world.sweeper().run_once() == 1


async def test_a_get_that_fails_is_unknown_and_drops_nothing() -> None:
    world = await deleted()
    world.now += timedelta(hours=80)

    async def refuse(plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        raise Transient(f"503 for {plural} {namespace}/{name}")

    world.api.get = refuse  # type: ignore[method-assign]
    assert await world.sweeper().run_once() == 0
    assert set(world.server.collections) == {G1}
