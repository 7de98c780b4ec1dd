"""A tenant whose collection is lost goes to the cell where it was restored, and to no other."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from searchops.api.observed import CellIdentity
from searchops.planning.names import KEY_RESTORED, KEY_UID
from unit.controllers.fakes_tenant_world import ALIAS, FakeDirectory, TenantWorld

if TYPE_CHECKING:
    from unit.controllers.fakes_faults import When

STAMP = "20261124T030000Z 2026-11-24T12:00:00Z"


async def lose(
    world: TenantWorld, *, stamp: str | None = STAMP, uid: str = "uid-1", cluster: str = "cluster-1"
) -> None:
    """A tenant with two documents loses its collection; a copy of it stands in the other cell."""
    world.set_model()
    world.apply_tenant()
    await world.settle()
    for product in range(2):
        world.write_document(product)
    world.directory.registered["us-1"] = FakeDirectory("us-1").registered["us-1"]
    there, other = world.server, world.cells.cell(world.directory.registered["us-1"])
    there.identity = there.identity or CellIdentity("prod", "eu-1", "cluster-1")
    cluster_now = there.identity.cluster
    (name,) = there.collections
    copied = copy.deepcopy(there.collections.pop(name))
    there.aliases.clear()
    if stamp is not None:
        copied.metadata[KEY_RESTORED] = stamp
    copied.metadata[KEY_UID] = uid
    other.collections[name] = copied
    other.aliases.update({ALIAS: name, f"{ALIAS}@b": name})
    other.identity = CellIdentity("prod", "us-1", cluster_now if cluster == "cluster-1" else cluster)


def cell_of(world: TenantWorld) -> str:
    assert world.raw is not None
    return str(world.raw["metadata"]["annotations"]["searchops.dev/cell"])


async def test_it_moves_to_what_was_restored_for_it_and_is_ready_there() -> None:
    world = TenantWorld()
    await lose(world)
    await world.settle()
    assert cell_of(world) == "us-1"
    assert world.condition("Ready") == ("True", "Ready")
    assert ("Restored" in {reason for reason, _ in world.events.told}) is True
    assert world.raw is not None
    assert world.raw["status"]["cell"] == "us-1"
    assert world.cells.broken == []


@pytest.mark.parametrize(
    "wrong", [{"stamp": None}, {"uid": "uid-7"}, {"cluster": "another"}], ids=["no mark", "another's", "foreign cell"]
)
async def test_it_goes_nowhere_else(wrong: dict[str, str]) -> None:
    world = TenantWorld()
    await lose(world, **wrong)
    await world.settle()
    assert cell_of(world) == "eu-1"
    assert world.condition("Provisioned") == ("False", "CollectionLost")
    assert world.cells.broken == []


async def test_it_stays_where_its_collection_is() -> None:
    world = TenantWorld()
    await lose(world)
    here, other = world.server, world.cells.cell(world.directory.registered["us-1"])
    here.collections.update(copy.deepcopy(other.collections))
    await world.settle()
    assert cell_of(world) == "eu-1"
    assert world.condition("Ready") == ("True", "Ready")


async def test_it_moves_too_where_its_cell_is_not_registered_any_more() -> None:
    world = TenantWorld()
    await lose(world)
    del world.directory.registered["eu-1"]
    await world.step()
    assert cell_of(world) == "us-1"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_one_failure_anywhere_changes_nothing_in_the_end(when: When) -> None:
    async def life(world: TenantWorld) -> int:
        await lose(world)
        before = len(world.faults.calls)
        await world.settle()
        return before

    plain = TenantWorld()
    before = await life(plain)
    for at in range(before, len(plain.faults.calls)):
        world = TenantWorld(at=at, when=when)
        await life(world)
        end = (cell_of(world), world.condition("Ready"), world.cells.broken, sorted(world.secrets.data))
        assert end == ("us-1", ("True", "Ready"), [], sorted(plain.secrets.data)), plain.faults.calls[at]
