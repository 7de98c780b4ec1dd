"""What is being deleted reads only what its deletion needs: nothing else that is down holds its finalizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from searchops.runtime.errors import Transient
from unit.controllers.fakes_model import ModelWorld, raw_model, raw_tenant
from unit.controllers.fakes_numbered_faults import Faults
from unit.controllers.fakes_tenant_world import TENANT, TenantWorld, revision

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
WHEN = "2026-11-25T00:00:00Z"


class DownFaults(Faults):
    """Calls of these names fail for as long as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()

    def call(self, name: str, effect: Callable[[], T]) -> T:
        if name in self.down:
            raise Transient(f"{name} does not answer")
        return super().call(name, effect)


@pytest.mark.parametrize("down", ["artifacts.read", "maps.read", "infer", "jobs.answers"])
@pytest.mark.parametrize("rolled_out", [True, False])
async def test_a_model_that_nobody_uses_leaves_whatever_store_is_down(down: str, rolled_out: bool) -> None:
    faults = DownFaults()
    world = ModelWorld(faults)
    world.api.put(raw_model())
    if rolled_out:
        world.tenants.apply("ADDED", raw_tenant())
        await world.settle()
        world.tenants.apply("DELETED", raw_tenant())
    else:
        for _ in range(4):
            await world.once()
        assert world.jobs, "a build is under way"
    faults.down.add(down)
    raw = world.api.objects["shop"]
    world.api.put({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": WHEN}})
    for _ in range(4):
        if "shop" in world.api.objects:
            await world.once()
    assert "shop" not in world.api.objects
    assert world.loaded == {"default-1": {}, "canary-1": {}}


async def test_a_tenant_leaves_though_its_cell_counts_and_searches_nothing_any_more() -> None:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant(deletionPolicy="Delete")
    await world.settle()
    world.set_model(revision(1))
    await world.settle()
    seen = len(world.faults.calls)
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.settle()
    assert world.raw is None
    assert {"count", "probe"}.isdisjoint(world.faults.calls[seen:])
    assert "survey" in world.faults.calls[seen:]
