"""A tenant that takes over somebody's collection is rebuilt beside it, with every document, and leaves it as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta

import pytest

from searchops.api.observed import CollectionDesign
from searchops.planning.names import ADOPT_ANNOTATION, KEY_BINDING
from unit.controllers.fakes_cells import FakeCollection, FakePoint
from unit.controllers.fakes_tenant_world import ALIAS, TenantWorld, revision

LEGACY = "legacy-shop"


def with_legacy(at: int | None = None, when: str = "before") -> TenantWorld:
    """A cell whose keeper allows to adopt a collection with a vector that no model of ours made."""
    world = TenantWorld(at=at, when=when)
    world.directory.registered["eu-1"] = replace(world.directory.registered["eu-1"], adoptable=frozenset({LEGACY}))
    design = CollectionDesign(LEGACY, (("old", 4),), (), (), 1, 1, None, ())  # type: ignore[arg-type]
    points = {number: FakePoint({"": 1, "old": 1}) for number in range(5)}
    world.server.collections[LEGACY] = FakeCollection(design, {}, {"old": 4}, None, {"theirs": "keyword"}, points)
    world.documents = dict.fromkeys(range(5), 1)
    world.set_model(revision(1))
    return world


async def taken_over(world: TenantWorld) -> None:
    world.apply_tenant(annotations={ADOPT_ANNOTATION: LEGACY})
    await world.settle(passes=80)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [None, *range(0, 60, 4)])
async def test_every_document_is_on_a_generation_of_ours_and_theirs_is_as_it_was(at: int | None, when: str) -> None:
    world = with_legacy(at, when)
    legacy = world.server.collections[LEGACY]
    before = copy.deepcopy((legacy.points, legacy.dense, legacy.strict, legacy.indexes))
    await taken_over(world)
    assert world.cells.broken == []
    assert world.condition("Ready") == ("True", "Ready")
    assert world.server.aliases[ALIAS] == f"{ALIAS}@g2"
    assert world.live is not None
    binding = world.live.binding(KEY_BINDING)
    assert binding is not None
    assert {number: point.versions.get(binding.vector or "") for number, point in world.live.points.items()} == (
        world.documents
    )
    world.now += timedelta(hours=80)
    await world.settle()
    assert world.server.collections[LEGACY] is legacy
    assert (legacy.points, legacy.dense, legacy.strict, legacy.indexes) == before
