"""A cell whose Secret cannot be used, or is another's twice over: its tenants say so, all others go on."""

from __future__ import annotations

from dataclasses import replace

from searchops.planning.names import CELL_ANNOTATION, KEY_DELETED_AT
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld, revision

PROBLEM = "Secret eu-1 cannot be used: grpcPort is 'many'; wanted a whole number from 1 to 65535; correct it"


def break_secret(world: TenantWorld, cell: str = "eu-1") -> None:
    registered = world.directory.registered
    registered[cell] = replace(registered[cell], urls=(), api_key="", problem=PROBLEM.replace("eu-1", cell))


def message(world: TenantWorld, kind: str = "Ready") -> str:
    conditions = (world.raw or {}).get("status", {}).get("conditions", [])
    return next(str(item["message"]) for item in conditions if item["type"] == kind)


def there(world: TenantWorld) -> bool:
    return world.raw is not None


async def provisioned(*cells: str) -> TenantWorld:
    world = TenantWorld(cells=cells)
    world.set_model(revision(1))
    world.apply_tenant()
    await world.settle()
    return world


async def test_its_tenants_name_secret_and_field_and_nothing_of_theirs_is_touched() -> None:
    world = await provisioned("eu-1")
    writes, good = len(world.cells.writes), world.directory.registered["eu-1"]
    break_secret(world)
    assert await world.step() is not None
    assert world.condition("Ready") == ("False", "CellUnreachable")
    assert PROBLEM in message(world)
    assert len(world.cells.writes) == writes
    world.directory.registered["eu-1"] = good
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_deletion_waits_for_a_broken_secret_where_it_would_let_go_for_one_that_is_gone() -> None:
    """A typo in a Secret must not leave an alias, tokens and data without anybody who answers for them."""
    world = await provisioned("eu-1")
    good = world.directory.registered["eu-1"]
    break_secret(world)
    world.apply_tenant(deletionPolicy="Delete")
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    for _ in range(3):
        await world.step()
    assert there(world), "the finalizer holds"
    assert "deletion waits for cell eu-1" in message(world)
    assert PROBLEM in message(world)
    assert ALIAS in world.server.aliases
    world.directory.registered["eu-1"] = good
    for _ in range(3):
        await world.step()
    assert not there(world)
    assert ALIAS not in world.server.aliases
    assert all(KEY_DELETED_AT in item.metadata for item in world.server.collections.values())


async def test_a_tenant_of_another_cell_is_made_and_changed_as_if_the_broken_one_were_not_there() -> None:
    world = TenantWorld(cells=("eu-1", "eu-2"))
    break_secret(world, "eu-2")
    world.directory.registered["eu-1"] = replace(world.directory.registered["eu-1"], labels={"tier": "one"})
    placement = {"cellSelector": {"matchLabels": {"tier": "one"}}}
    world.set_model(revision(1))
    world.apply_tenant(placement=placement)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    world.apply_tenant(placement=placement, languages=["de"])
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.cells.cells["eu-2"].collections == {}


async def test_a_tenant_that_may_be_on_the_broken_cell_waits_and_says_for_what() -> None:
    """Neither annotation nor status tells where it was: placed elsewhere it would be served empty beside its data."""
    world = TenantWorld(cells=("eu-1", "eu-2"))
    break_secret(world)
    world.set_model(revision(1))
    world.apply_tenant()
    await world.step()
    assert world.condition("Placed") == ("False", "CellUnreachable")
    assert PROBLEM in message(world, "Placed")
    assert world.cells.writes == []


async def test_two_cells_with_one_url_are_one_and_the_other_writes_nothing() -> None:
    world = await provisioned("eu-1")
    registered = world.directory.registered
    registered["eu-2"] = replace(registered["eu-1"], name="eu-2")
    world.cells.cells["eu-2"] = world.server
    writes = len(world.cells.writes)
    world.apply_tenant(annotations={CELL_ANNOTATION: "eu-2"})
    await world.step()
    assert world.condition("Ready") == ("False", "CellIdentityMismatch")
    assert "cell eu-2 says it is cell 'eu-1'" in message(world)
    assert "correct the URL in the cell's Secret" in message(world)
    assert len(world.cells.writes) == writes
    world.apply_tenant(annotations={CELL_ANNOTATION: "eu-1"})
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_of_two_new_cells_with_one_url_one_gets_the_tenant_and_claims_it() -> None:
    world = TenantWorld(cells=("eu-1", "eu-2"))
    world.cells.cells["eu-2"] = world.server
    world.set_model(revision(1))
    world.apply_tenant()
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.cells.writes.count("claim") == 1
    cell = (world.raw or {})["metadata"]["annotations"][CELL_ANNOTATION]
    assert world.server.identity is not None and world.server.identity.cell == cell
