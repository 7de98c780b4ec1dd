"""A pass goes on where it has made something, by what it has read and made itself, while its object stays the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import TENANT, TenantWorld


async def placed() -> TenantWorld:
    """A tenant whose cell was chosen and claimed, with no collection yet."""
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    await world.step()
    world.faults.calls.clear()
    return world


async def test_a_placed_tenant_is_ready_after_one_pass_that_reads_nothing_twice() -> None:
    world = await placed()
    assert await world.step() is None
    assert world.condition("Ready") == ("True", "Ready")
    calls = Counter(world.faults.calls)
    entries = len(world.secrets.data)
    assert entries == 2
    assert calls["read Secret"] == calls["write Secret"] == entries
    assert calls["describe"] == 1, "read once after the collection, its indexes and aliases were made"
    assert calls["probe"] == 1
    assert calls["patch status"] == 1
    assert calls["namespace uid"] == 0, "its namespace was read when it was placed"


async def test_a_change_of_the_object_meanwhile_ends_the_pass_before_its_next_round() -> None:
    world = await placed()
    write = world.secrets.write

    async def removed_meanwhile(*args: Any, **named: Any) -> Any:
        found = await write(*args, **named)
        world.apply_tenant(access=[])
        return found

    world.secrets.write = removed_meanwhile  # type: ignore[method-assign]
    assert await world.step() == 0.0
    assert world.faults.calls.count("patch status") == 0, "nothing is said by a spec that is no more"
    world.secrets.write = write  # type: ignore[method-assign]
    await world.settle()
    assert world.secrets.data == {}
    assert world.condition("Ready") == ("True", "Ready")


async def test_tenants_that_were_there_before_share_one_read_of_their_namespace() -> None:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    body = dict(world.raw or {})
    other = {**body, "metadata": {"name": "other", "namespace": "shop", "uid": "uid-2"}}
    world.api.put("searchtenants", other)
    world.api.deliver()
    await world.step()
    await world.controller.reconcile(Key("shop", "other"))
    assert world.faults.calls.count("namespace uid") == 1
    world.api.put("searchtenants", {**body, "metadata": {"name": "late", "namespace": "shop", "uid": "uid-3"}})
    world.api.deliver()
    await world.controller.reconcile(Key("shop", "late"))
    assert world.faults.calls.count("namespace uid") == 2, "what came after the read may live in another namespace"
    assert world.raw is not None
    assert world.raw["metadata"]["name"] == TENANT.name
