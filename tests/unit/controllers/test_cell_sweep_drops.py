"""The cell's sweep: what it drops is due, and nobody's, at the moment of the drop."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.observed import CellIdentity, CellRegistration, CellState, CollectionState
from searchops.controllers.cell_sweep import CellSweep
from searchops.planning import names
from searchops.runtime.dependency import Dependencies
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), None, 100)
NAME = "prod.shops.acme@g1"
TOMBSTONE = {
    names.KEY_FLEET: "prod",
    names.KEY_UID: "uid-1",
    names.KEY_NAMESPACE: "shops",
    names.KEY_NAME: "acme",
    names.KEY_BINDING: "{}",
    names.KEY_POLICY: "Delete",
    names.KEY_DELETED_AT: "2026-11-20T12:00:00Z",
    names.KEY_DROP_AFTER: "2026-11-23T12:00:00Z",
}


class World:
    """A cell with one collection; `described` are the answers to its reads, one after another."""

    def __init__(
        self, described: list[Mapping[str, str] | None], *, tenant: bool = False, answers: bool = True
    ) -> None:
        self.described = described
        self.tenant = tenant
        self.answers = answers
        self.dropped: list[str] = []

    def cells(self) -> dict[str, CellRegistration]:
        return {CELL.name: CELL}

    def pools(self) -> dict[str, Any]:
        return {}

    async def cluster_uid(self) -> str:
        if not self.answers:
            raise Transient("the API server gave no answer")
        return "cluster"

    async def survey(self, cell: CellRegistration) -> CellState:
        return CellState(cell, True, "", CellIdentity("prod", cell.name, "cluster"), frozenset({NAME}))

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        del cell
        metadata = self.described.pop(0)
        if metadata is None:
            return None
        return CollectionState(collection, 3, {}, frozenset(), {}, 1, 1, None, metadata)

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        assert (plural, namespace, name) == ("searchtenants", "shops", "acme")
        return {} if self.tenant else None

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        del cell
        self.dropped.append(collection)


async def swept(world: Any) -> int:
    sweep = CellSweep(
        fleet="prod",
        directory=world,
        cells=world,
        ddl=world,
        objects=world,
        dependencies=Dependencies(rng=Random(1)),
        clock=lambda: NOW,
        lease_left=lambda: 13.0,
    )
    return await sweep.run_once()


async def test_a_tombstone_past_its_time_is_dropped() -> None:
    world = World([TOMBSTONE, TOMBSTONE])
    assert await swept(world) == 1
    assert world.dropped == [NAME]


@pytest.mark.parametrize("second", [None, {key: value for key, value in TOMBSTONE.items() if "delete" not in key}])
async def test_what_was_taken_back_while_the_cell_was_busy_stays(second: Mapping[str, str] | None) -> None:
    world = World([TOMBSTONE, second])
    assert await swept(world) == 0
    assert world.dropped == []


async def test_a_tenant_of_that_name_keeps_it() -> None:
    world = World([TOMBSTONE, TOMBSTONE], tenant=True)
    assert await swept(world) == 0
    assert world.dropped == []


async def test_an_api_server_that_does_not_answer_ends_nothing() -> None:
    world = World([], answers=False)
    assert await swept(world) == 0
    assert world.dropped == []
