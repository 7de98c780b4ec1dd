"""A round over the cells: who is asked for, what is read for it, what is reported, and what one failure changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.observed import CellContents, CellIdentity, CellLoad, CollectionOutline
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.cell_watch import CELL_INDEX, REPORT_KEY, REPORT_MAP, CellWatch, cells_of
from searchops.planning.names import KEY_NAME, KEY_UID
from searchops.planning.schema import side_of
from searchops.runtime.cache import ObjectCache
from searchops.runtime.key import Key
from unit.controllers.fakes_faults import Faults
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration, CollectionState
    from unit.controllers.fakes_faults import When

NAME = f"{case.ALIAS}@g1"
ACME = Key("shop", "acme")
LIVE = case.make_collection(case.dense(1))


def outlined(found: CollectionState) -> CollectionOutline:
    digest = hash(str((found.dense, found.strict, sorted(found.metadata.items()))))
    return CollectionOutline(
        found.name, digest, found.dense, found.sparse, found.shards, found.replicas, found.strict, found.metadata
    )


class World:
    """Two cells, one tenant on the first; every call may fail once."""

    def __init__(self, at: int | None = None, when: When = "before") -> None:
        self.faults = Faults(at, when)
        self.registered = {name: case.registration(name) for name in ("eu-1", "eu-2")}
        self.collections: dict[str, dict[str, CollectionState]] = {"eu-1": {NAME: LIVE}, "eu-2": {}}
        self.aliases: dict[str, dict[str, str]] = {"eu-1": {case.ALIAS: NAME, side_of(case.ALIAS, 1): NAME}, "eu-2": {}}
        self.index_writes: int | None = 0
        self.asked: list[Key] = []
        self.reports: list[dict[str, Any]] = []
        self.orphans: dict[str, int] = {}
        self.up: dict[str, bool] = {}
        self.calls_that_may_fail = 0
        self.version = 0
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.tenants.add_index(CELL_INDEX, cells_of)
        self.put(case.make_tenant(status=case.expected_status(case.dense(1)).to_wire()))
        self.watch = CellWatch(
            fleet="prod",
            directory=self,
            cells=self,
            tenants=self.tenants,
            ask=self._ask,
            state=self,
            metrics=self,
        )

    def put(self, tenant: SearchTenant) -> None:
        raw = tenant.to_wire()
        self.version += 1
        raw = {**raw, "metadata": {**tenant.metadata.to_wire(), "resourceVersion": str(self.version)}}
        self.tenants.apply("MODIFIED", raw)

    def _ask(self, key: Key) -> bool:
        self.asked.append(key)
        return True

    def take_asked(self) -> list[Key]:
        asked, self.asked = self.asked, []
        return asked

    def cells(self) -> Mapping[str, CellRegistration]:
        return self.registered

    def pools(self) -> dict[str, Any]:
        return {}

    async def contents(self, cell: CellRegistration) -> CellContents:
        found = {name: outlined(item) for name, item in self.collections[cell.name].items()}
        identity = CellIdentity("prod", cell.name, "cluster-1")
        said = CellContents(cell, "1.18.3", identity, found, dict(self.aliases[cell.name]), self.index_writes, "start")
        return self.faults.through(f"contents {cell.name}", lambda: said)

    async def load(self, cell: CellRegistration) -> CellLoad:
        points = {name: item.points for name, item in self.collections[cell.name].items()}
        return self.faults.through(f"load {cell.name}", lambda: CellLoad(points, 12, 3))

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        return self.faults.through("describe", lambda: self.collections[cell.name].get(collection))

    async def read(self, name: str) -> dict[str, str] | None:
        raise AssertionError(f"nobody needs {name}")

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        assert name == REPORT_MAP
        self.faults.through("report", lambda: self.reports.append(json.loads(data[REPORT_KEY])))

    def cell(self, name: str, *, up: bool, collections: int, capacity: int, orphans: int = 0) -> None:
        del collections, capacity
        self.up[name], self.orphans[name] = up, orphans

    def drifted(self, cell: str, tenants: int) -> None:
        del cell, tenants

    def requests(self) -> list[str]:
        calls, self.faults.calls = self.faults.calls, []
        return calls


async def test_a_fleet_in_order_costs_two_reads_a_cell_and_nothing_else() -> None:
    world = World()
    assert await world.watch.run_once() == 0
    assert sorted(world.requests()) == ["contents eu-1", "contents eu-2", "load eu-1", "load eu-2", "report"]
    assert await world.watch.run_once() == 0
    assert sorted(world.requests()) == ["contents eu-1", "contents eu-2", "load eu-1", "load eu-2"]
    assert world.asked == []


async def test_who_differs_is_asked_for_every_round_until_it_is_mended() -> None:
    world = World()
    await world.watch.run_once()
    del world.aliases["eu-1"][case.ALIAS]
    for _ in range(2):
        assert await world.watch.run_once() == 1
        assert world.take_asked() == [ACME]
    world.aliases["eu-1"][case.ALIAS] = NAME
    assert await world.watch.run_once() == 0


async def test_a_lost_index_is_found_where_somebody_else_touched_indexes_and_not_looked_for_otherwise() -> None:
    world = World()
    await world.watch.run_once()
    indexes = {name: kind for name, kind in LIVE.indexes.items() if name != "sku"}
    world.collections["eu-1"][NAME] = replace(LIVE, indexes=indexes)
    world.requests()
    await world.watch.run_once()
    assert "describe" not in world.requests()
    world.index_writes = 1
    await world.watch.run_once()
    assert world.take_asked() == [ACME]
    assert world.requests().count("describe") == 1
    await world.watch.run_once()
    assert "describe" not in world.requests()


async def test_indexes_made_by_this_process_meanwhile_are_no_news_and_hide_none() -> None:
    world = World()
    await world.watch.run_once()
    world.index_writes = None
    await world.watch.run_once()
    assert "describe" not in world.requests()
    world.index_writes = 1
    await world.watch.run_once()
    assert "describe" in world.requests()


async def test_a_cell_of_several_nodes_has_some_indexes_read_in_every_round() -> None:
    world = World()
    world.registered["eu-1"] = replace(world.registered["eu-1"], urls=("http://a:6333", "http://b:6333"))
    for _ in range(2):
        await world.watch.run_once()
        assert world.requests().count("describe") == 1


async def test_points_that_moved_by_a_percent_are_told() -> None:
    world = World()
    world.collections["eu-1"][NAME] = replace(LIVE, points=102)
    assert await world.watch.run_once() == 1
    world.take_asked()
    world.put(case.make_tenant(status=case.expected_status(case.dense(1), points=102).to_wire()))
    assert await world.watch.run_once() == 0


@pytest.mark.parametrize(
    "tenant",
    [
        case.make_tenant(),
        case.make_tenant(status=case.expected_status(case.dense(1)).to_wire(), generation=4),
        case.make_tenant({"paused": True}, status=case.expected_status(case.dense(1)).to_wire()),
        case.make_tenant(status=case.expected_status(case.dense(1)).to_wire(), deletionTimestamp=case.STAMP),
    ],
    ids=["not provisioned", "changed", "paused", "deleting"],
)
async def test_who_has_a_pass_of_its_own_or_wants_none_is_not_asked_for(tenant: SearchTenant) -> None:
    world = World()
    world.put(tenant)
    world.aliases["eu-1"].clear()
    assert await world.watch.run_once() == 0


async def test_a_cell_that_stops_answering_is_told_to_its_tenants_once() -> None:
    world = World(at=None)
    await world.watch.run_once()
    world.faults.at = len(world.faults.calls)
    assert await world.watch.run_once() == 1
    assert world.take_asked() == [ACME]
    assert world.up == {"eu-1": False, "eu-2": True}
    assert world.reports[-1]["eu-1"] == {"answers": False, "draining": False, "usable": 80}
    assert await world.watch.run_once() == 0
    assert world.up["eu-1"]


async def test_an_orphan_is_reported_from_the_second_round_on_and_never_touched() -> None:
    world = World()
    lost = replace(LIVE, name="prod.shop.gone@g1", metadata={**LIVE.metadata, KEY_UID: "u9", KEY_NAME: "gone"})
    world.collections["eu-2"][lost.name] = lost
    await world.watch.run_once()
    assert world.orphans["eu-2"] == 0
    await world.watch.run_once()
    assert world.orphans == {"eu-1": 0, "eu-2": 1}
    assert world.reports[-1]["eu-2"]["orphans"] == [lost.name]
    assert world.asked == []
    assert set(world.requests()) <= {"contents eu-1", "contents eu-2", "load eu-1", "load eu-2", "report"}


async def _story(world: World) -> dict[str, Any]:
    """An alias and an index are gone, then there again; two quiet rounds end it."""
    await world.watch.run_once()
    del world.aliases["eu-1"][case.ALIAS]
    world.collections["eu-1"][NAME] = replace(LIVE, indexes={})
    world.index_writes = 1
    for _ in range(3):
        await world.watch.run_once()
    assert ACME in world.take_asked()
    world.aliases["eu-1"][case.ALIAS] = NAME
    world.collections["eu-1"][NAME] = LIVE
    await world.watch.run_once()
    world.calls_that_may_fail = len(world.faults.calls)
    await world.watch.run_once()
    world.take_asked()
    await world.watch.run_once()
    return {"asked": world.asked, "report": world.reports[-1], "up": world.up}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_one_failure_anywhere_changes_nothing_in_the_end(when: When) -> None:
    plain = World()
    wanted = await _story(plain)
    assert wanted["asked"] == []
    for at, call in enumerate(plain.faults.calls[: plain.calls_that_may_fail]):
        assert await _story(World(at, when)) == wanted, f"call {at} ({call}) failed {when} its effect"
