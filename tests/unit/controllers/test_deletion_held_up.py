"""Deletions that something holds up: it is said, a person can end it, and no rule of today holds an older object."""

from __future__ import annotations

from typing import Any

import pytest

from searchops.planning.names import ABANDON_ANNOTATION, KEY_DELETED_AT, KEY_POLICY
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld

G1 = f"{ALIAS}@g1"


async def provisioned(**spec: Any) -> TenantWorld:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant(**spec)
    await world.settle()
    world.write_document(1)
    return world


def delete(world: TenantWorld) -> None:
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()


def annotate(world: TenantWorld, **annotations: str) -> None:
    raw = dict(world.raw or {})
    merged = {**raw["metadata"].get("annotations", {}), **annotations}
    world.api.put("searchtenants", {**raw, "metadata": {**raw["metadata"], "annotations": merged}})
    world.api.deliver()


def change_spec(world: TenantWorld, **values: Any) -> None:
    """As an object that is older than a rule has it: nobody validates what is stored."""
    raw = dict(world.raw or {})
    world.api.put("searchtenants", {**raw, "spec": {**raw["spec"], **values}})
    world.api.deliver()


REFUSED = {"a PATCH": f"patch {G1}", "a description": "describe", "the alias": f"remove {ALIAS}"}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_cell_that_refuses_a_step_is_told_and_a_person_can_end_the_wait(what: str) -> None:
    world = await provisioned(deletionPolicy="Delete")
    assert world.condition("Ready") == ("True", "Ready")
    world.faults.refused = REFUSED[what]
    delete(world)
    for _ in range(4):
        await world.step()
    assert world.condition("Ready") == ("False", "Deleting")
    conditions = (world.raw or {})["status"]["conditions"]
    message = next(item["message"] for item in conditions if item["type"] == "Ready")
    assert "no quorum" in message
    writes = len(world.api.writes)
    await world.step()
    assert len(world.api.writes) == writes, "said once"
    annotate(world, **{ABANDON_ANNOTATION: "true"})
    before, cells = len(world.faults.calls), len(world.cells.writes)
    for _ in range(3):
        await world.step()
    assert world.raw is None, "the finalizer lets go"
    assert len(world.cells.writes) == cells
    assert not {"describe", "survey"} & set(world.faults.calls[before:]), "the cell is not asked any more"
    assert set(world.server.collections) == {G1}, "what was given up is left as it is"


@pytest.mark.parametrize(
    "values",
    [
        {"fields": [{"name": "attrs.", "type": "keyword", "role": "Filter"}]},
        {"access": [{"name": "x", "role": "Search", "secretName": "a..b"}]},
        {"document": 7},
        {"isolation": "Nowhere"},
    ],
)
async def test_an_object_that_no_longer_parses_can_be_deleted_as_it_says(values: dict[str, Any]) -> None:
    world = await provisioned(deletionPolicy="Delete")
    change_spec(world, **values)
    await world.step()
    assert world.condition("Ready") == ("False", "InvalidSpec")
    delete(world)
    for _ in range(4):
        await world.step()
    assert world.raw is None
    assert world.server.collections[G1].metadata[KEY_POLICY] == "Delete"
    assert ALIAS not in world.server.aliases
    assert Key("shop", "acme-storefront") not in world.secrets.secrets, "by what the status and the register name"


async def test_where_its_end_cannot_be_read_its_data_is_retained() -> None:
    world = await provisioned(deletionPolicy="Delete")
    change_spec(world, undeleteWindow="for ever")
    delete(world)
    for _ in range(4):
        await world.step()
    assert world.raw is None
    metadata = world.server.collections[G1].metadata
    assert KEY_DELETED_AT in metadata
    assert metadata[KEY_POLICY] == "Retain"
