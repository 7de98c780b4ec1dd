"""A tenant whose cell runs out of disk or memory: it serves on, says why, repeats no write blindly, and goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from searchops.planning.cell_room import begun
from searchops.runtime.errors import NotReady
from unit.controllers.fakes_tenant_world import TENANT, TenantWorld, revision

if TYPE_CHECKING:
    from collections.abc import Callable

SAID = "cell eu-1 answered 507: Quota exceeded"
FULL = ("False", "CellFull")


class FullWorld(TenantWorld):
    """A world whose cell can be filled: its writes are refused as the adapter refuses them, and it is held."""

    def fill(self, *only: str) -> None:
        """From now on there is no room; `only` for writes whose name begins so."""
        write = self.cells._write

        def refuse(name: str, act: Callable[[], None]) -> None:
            if not only or name.startswith(only):
                self.cells.writes.append(f"refused {name}")
                self.rooms.held["eu-1"] = self.rooms.held.get("eu-1") or begun(SAID, 1, self.now)
                raise NotReady("CellFull", SAID, 60.0)
            write(name, act)

        self.cells._write = refuse  # type: ignore[method-assign]

    def empty(self) -> None:
        """There is room again, and that is proved."""
        del self.cells._write
        self.rooms.held.clear()

    def refused(self) -> list[str]:
        return [name for name in self.cells.writes if name.startswith("refused")]


async def test_a_create_that_is_refused_is_not_repeated_while_the_cell_is_held_and_goes_on_afterwards() -> None:
    world = FullWorld()
    world.set_model()
    world.apply_tenant()
    world.fill("create")
    for _ in range(8):
        await world.step()
    assert world.refused() == ["refused create prod.shop.acme@g1"]
    assert (world.condition("Ready"), world.condition("QuotaOK")) == (FULL, FULL)
    assert world.condition("Placed") == ("True", "Placed")
    writes = len(world.api.writes)
    for _ in range(3):
        await world.step()
    assert len(world.api.writes) == writes, "said once"
    world.empty()
    await world.settle()
    assert (world.condition("Ready"), world.condition("QuotaOK")) == (("True", "Ready"), ("True", "WithinQuota"))


async def served() -> FullWorld:
    world = FullWorld()
    world.set_model(revision(1))
    world.apply_tenant()
    world.write_document(1)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    return world


async def test_a_tenant_that_serves_stays_ready_and_says_that_its_cell_is_full() -> None:
    world = await served()
    world.fill()
    world.rooms.held["eu-1"] = begun(SAID, 1, world.now)
    await world.step()
    assert (world.condition("Ready"), world.condition("QuotaOK")) == (("True", "Ready"), FULL)
    assert world.refused() == []
    world.empty()
    await world.step()
    assert world.condition("QuotaOK") == ("True", "WithinQuota")


async def test_a_write_that_is_refused_is_said_also_where_the_tenant_goes_on_serving() -> None:
    world = await served()
    world.fill("patch")
    world.apply_tenant(quotas={"writesPerMinute": 9})
    await world.step()
    assert world.refused() == ["refused patch prod.shop.acme@g1"]
    assert (world.condition("Ready"), world.condition("QuotaOK")) == (("True", "Ready"), FULL)
    told = list(world.events.told)
    await world.step()
    assert world.events.told == told
    assert "CellFull" not in dict(told), "the cell's own event is enough"


async def test_a_rebuild_waits_for_room_and_the_old_side_serves() -> None:
    world = await served()
    world.fill("create", "add")
    world.rooms.held["eu-1"] = begun(SAID, 1, world.now)
    world.set_model(revision(1), revision(2))
    for _ in range(6):
        await world.step()
        world.work()
    assert world.refused() == []
    assert world.condition("ModelBound") == FULL
    live = world.server.resolve("prod.shop.acme")
    assert live is not None
    assert sorted(live.dense) == ["d-s1"]
    world.empty()
    await world.settle()
    assert world.condition("ModelBound") == ("True", "Bound")
    assert world.condition("QuotaOK") == ("True", "WithinQuota")
    assert world.cells.broken == []


async def test_a_tenant_is_deleted_from_a_full_cell_without_asking_what_is_held() -> None:
    world = await served()
    world.apply_tenant(deletionPolicy="Delete")
    await world.settle()

    async def unknown() -> Any:
        raise AssertionError("a deletion needs no room")

    world.rooms.holds = unknown  # type: ignore[method-assign]
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.settle()
    assert world.raw is None


@pytest.mark.parametrize("reason", ["CellUnreachable", "NotFound"])
async def test_another_wait_is_not_said_to_be_a_full_cell(reason: str) -> None:
    world = FullWorld()
    world.set_model()
    world.apply_tenant()
    await world.step()

    def refuse(name: str, act: Callable[[], None]) -> None:
        raise NotReady(reason, "something else", 5.0)

    world.cells._write = refuse  # type: ignore[method-assign]
    await world.step()
    await world.step()
    assert world.condition("QuotaOK") == ("", "")
    assert world.condition("Ready")[1] != "CellFull"
