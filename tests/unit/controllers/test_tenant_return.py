"""What a deleted tenant leaves, and what one of its name takes back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from searchops.planning.names import CELL_ANNOTATION, KEY_DELETED_AT, KEY_UID
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld, revision
from unit.controllers.tenant_lives import bound, complete, provisioned

R1, R2 = revision(1), revision(2)


async def deleted(world: TenantWorld) -> None:
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.step()
    assert (world.raw, world.server.aliases) == (None, {})


async def test_retain_keeps_data_and_secrets_and_a_tenant_of_that_name_takes_both_back() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    await deleted(world)
    kept = world.server.collections[f"{ALIAS}@g1"]
    assert KEY_DELETED_AT in kept.metadata
    assert set(world.secrets.secrets) == {Key("shop", "acme-storefront"), Key("shop", "acme-indexer")}
    created = list(world.secrets.created)
    world.apply_tenant(uid="uid-2")
    await world.settle()
    assert (kept.metadata[KEY_UID], KEY_DELETED_AT in kept.metadata) == ("uid-2", False)
    assert (world.server.aliases[ALIAS], world.condition("Ready")) == (f"{ALIAS}@g1", ("True", "Ready"))
    assert (bound(world), complete(world), world.secrets.created) == (R1["revision"], True, created)
    assert [reason for reason, _ in world.events.told if reason == "Reclaimed"] == ["Reclaimed"]
    assert world.cells.broken == []


async def test_after_its_window_a_retained_collection_is_left_as_it_is_and_a_longer_window_brings_it_back() -> None:
    for window, live in (("72h", f"{ALIAS}@g2"), ("200h", f"{ALIAS}@g1")):
        world = await provisioned()
        await deleted(world)
        world.now += timedelta(hours=100)
        world.apply_tenant(uid="uid-2", undeleteWindow=window, access=[])
        await world.settle()
        assert world.server.aliases[ALIAS] == live
        assert len(world.server.collections[f"{ALIAS}@g1"].points) == 5
        assert world.cells.broken == []


async def test_a_tenant_that_comes_back_in_the_middle_of_a_rebuild_goes_on_with_both_generations() -> None:
    world = await provisioned(documents=0)
    world.set_model(R1)
    await world.settle()
    world.write_document(1)
    world.apply_tenant(languages=["de"])
    await world.settle()
    assert set(world.server.collections) == {f"{ALIAS}@g1", f"{ALIAS}@g2"}
    world.write_document(2)
    await deleted(world)
    world.apply_tenant(uid="uid-2", languages=["de"])
    await world.settle()
    assert world.server.aliases == {ALIAS: f"{ALIAS}@g2", f"{ALIAS}@a": f"{ALIAS}@g2", f"{ALIAS}@b": f"{ALIAS}@g1"}
    world.write_document(3)
    assert (complete(world), len(world.server.collections[f"{ALIAS}@g1"].points)) == (True, 3)
    assert {found.metadata[KEY_UID] for found in world.server.collections.values()} == {"uid-2"}
    assert world.cells.broken == []


async def test_every_object_deleted_by_force_and_made_anew_without_status_finds_its_collection() -> None:
    """No finalizer ran, no note was left, the annotation is lost too, and there are other cells to go to."""
    world = TenantWorld(cells=("eu-0", "eu-1", "eu-2"))
    world.set_model()
    world.apply_tenant()
    await world.settle()
    holder = next(name for name, cell in world.cells.cells.items() if cell.aliases)
    world.api._gone("searchtenants", TENANT)
    world.api.deliver()
    writes = len(world.cells.writes)
    for name in ("eu-0", "eu-1", "eu-2"):  # the emptiest is another one
        if name != holder:
            world.cells.cells[name].collections.clear()
    world.start()
    world.apply_tenant(uid="uid-2")
    await world.settle()
    assert world.raw is not None
    assert world.raw["metadata"]["annotations"] == {CELL_ANNOTATION: holder}
    assert world.cells.writes[writes:] == [f"patch {ALIAS}@g1", "grant tokens"]
    assert (world.condition("Ready"), world.cells.broken) == (("True", "Ready"), [])


async def test_a_tenant_that_comes_back_without_an_entry_takes_its_old_token_back() -> None:
    world = await provisioned()
    entered = {grant.id: grant for grant in (world.server.grants or {}).values()}
    assert len({grant.entry for grant in entered.values()}) >= 2
    await deleted(world)
    kept = next(iter(sorted(entered.values(), key=lambda grant: grant.entry)))
    access = [{"name": kept.entry, "role": "Search", "secretName": kept.secret}]
    world.apply_tenant(uid="uid-2", access=access)
    await world.settle()
    left = (world.server.grants or {}).values()
    assert {grant.entry for grant in left} == {kept.entry}
    assert "uid-2" in {grant.uid for grant in left}
    assert (world.condition("Ready"), world.cells.broken) == (("True", "Ready"), [])


@pytest.mark.parametrize("others_answer", [True, False])
async def test_a_deleted_tenant_is_looked_for_in_every_cell_before_it_is_placed(*, others_answer: bool) -> None:
    world = TenantWorld(cells=("eu-0", "eu-1", "eu-2"))
    world.set_model()
    world.apply_tenant()
    await world.settle()
    holder = next(name for name, cell in world.cells.cells.items() if cell.collections)
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.step()
    world.cells.cells[holder].reachable = others_answer
    world.start()
    world.apply_tenant(uid="uid-2")
    for _ in range(6):
        await world.step()
    created = [name for name in world.cells.writes if name.startswith("create")]
    assert created == [f"create {ALIAS}@g1"]
    assert world.condition("Ready") == (("True", "Ready") if others_answer else ("False", "CellUnreachable"))


async def test_delete_removes_secrets_and_leaves_the_data_to_the_sweep() -> None:
    world = await provisioned()
    world.apply_tenant(deletionPolicy="Delete")
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.step()
    assert (world.raw, world.server.aliases, world.secrets.secrets) == (None, {}, {})
    assert set(world.server.collections) == {f"{ALIAS}@g1"}
