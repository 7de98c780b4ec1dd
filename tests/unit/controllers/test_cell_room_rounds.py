"""Full cells: held from the first word, kept over a restart, ended by a proof alone; every call failing once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.observed import CellIdentity, CellRegistration
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.cell_room import CellRooms
from searchops.controllers.cell_watch import CELL_INDEX, cells_of
from searchops.planning.cell_room import ROOM_KEY, ROOM_MAP, begun, still_held
from searchops.planning.names import CELL_ANNOTATION
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import ReconcileError
from searchops.runtime.key import Key
from unit.controllers.fakes_faults import Faults
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unit.controllers.fakes_faults import When

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ONE, TWO, OTHER = (Key("shop", name) for name in ("one", "two", "other"))
SAID = "cell eu-1 answered 507 to create prod.shop.one@g1: Quota exceeded"


class Scene:
    """Two cells, two tenants on the first and one on the second; what a probe answers is set by the test."""

    def __init__(self, *, at: int | None = None, when: When = "before") -> None:
        self.now = START
        self.faults = Faults(at, when)
        self.registered = {name: case.registration(name) for name in ("eu-1", "eu-2")}
        self.room: bool | None = False
        self.tried: list[tuple[str, CellIdentity]] = []
        self.kept: dict[str, dict[str, str]] = {}
        self.woken: list[Key] = []
        self.events: list[tuple[str, str, str, bool]] = []
        self.full: dict[str, bool] = {}
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.tenants.add_index(CELL_INDEX, cells_of)
        for number, (key, cell) in enumerate(((ONE, "eu-1"), (TWO, "eu-1"), (OTHER, "eu-2"))):
            metadata = {"name": key.name, "namespace": key.namespace, "uid": f"u{number}", "resourceVersion": "1"}
            raw = {"metadata": {**metadata, "annotations": {CELL_ANNOTATION: cell}}, "spec": {}, "status": {}}
            self.tenants.apply("ADDED", raw)
        self.rooms = self.start()

    def start(self) -> CellRooms:
        """A new process: nothing in memory survives."""
        self.rooms = CellRooms(
            fleet="prod",
            namespace="system",
            directory=self,
            probe=self,
            objects=self,  # type: ignore[arg-type]
            state=self,
            tenants=self.tenants,
            wake=self.woken.append,
            events=self,
            metrics=self,
            clock=lambda: self.now,
        )
        return self.rooms

    def cells(self) -> Mapping[str, CellRegistration]:
        return self.registered

    def pools(self) -> Mapping[str, Any]:
        return {}

    async def cluster_uid(self) -> str:
        return self.faults.through("cluster uid", lambda: "cluster-1")

    async def try_room(self, cell: CellRegistration, identity: CellIdentity) -> bool | None:
        self.tried.append((cell.name, identity))
        return self.room

    async def read(self, name: str) -> dict[str, str] | None:
        return self.faults.through(f"read {name}", lambda: self.kept.get(name))

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        self.faults.through(f"write {name}", lambda: self.kept.update({name: dict(data)}))

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(
            (f"{reference['kind']} {reference['namespace']}/{reference['name']}", reason, message, warning)
        )

    def cell_full(self, cell: str, *, full: bool) -> None:
        self.full[cell] = full

    async def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)
        await self.rooms.run_once()


async def test_the_first_refusal_holds_the_cell_tells_once_and_wakes_its_tenants() -> None:
    scene = Scene()
    for _ in range(3):
        scene.rooms.full("eu-1", SAID)
    held = await scene.rooms.holds()
    assert set(held) == {"eu-1"}
    assert (held["eu-1"].since, held["eu-1"].tenants, held["eu-1"].said) == ("2026-11-24T12:00:00Z", 2, SAID)
    assert scene.woken == [ONE, TWO]
    assert scene.full == {"eu-1": True}
    ((regarding, reason, message, warning),) = scene.events
    assert (regarding, reason, warning) == ("Secret system/eu-1", "CellFull", True)
    assert "2 tenants on it" in message


async def test_the_hold_ends_by_a_proof_alone_and_is_tried_ever_more_rarely() -> None:
    scene = Scene()
    scene.rooms.full("eu-1", SAID)
    await scene.later(seconds=59)
    assert scene.tried == []
    await scene.later(seconds=1)
    assert scene.tried == [("eu-1", CellIdentity("prod", "eu-1", "cluster-1"))]
    scene.room = None  # silence is no room
    moments = []
    for _ in range(60):
        before = len(scene.tried)
        await scene.later(minutes=1)
        moments += [int((scene.now - START).total_seconds() // 60)] if len(scene.tried) > before else []
    assert moments[:5] == [3, 7, 15, 25, 35]
    assert set(await scene.rooms.holds()) == {"eu-1"}
    scene.woken.clear()
    scene.room = True
    await scene.later(minutes=10)
    assert dict(await scene.rooms.holds()) == {}
    assert scene.woken == [ONE, TWO]
    assert scene.full == {"eu-1": False, "eu-2": False}
    assert [item[1] for item in scene.events] == ["CellFull", "CellHasRoom"]
    assert scene.kept[ROOM_MAP] == {ROOM_KEY: "{}"}


async def test_a_cell_at_its_brim_is_not_asked_to_death() -> None:
    scene = Scene()
    scene.room = True
    waits = []
    for _ in range(5):
        scene.rooms.full("eu-1", SAID)
        began = scene.now
        while await scene.rooms.holds():
            await scene.later(seconds=10)
        waits.append(int((scene.now - began).total_seconds()))
    assert waits == [60, 120, 240, 480, 600]


async def test_a_new_process_knows_what_the_old_one_knew() -> None:
    scene = Scene()
    scene.rooms.full("eu-1", SAID)
    await scene.later(seconds=10)
    before = await scene.rooms.holds()
    events = list(scene.events)
    assert await scene.start().holds() == before
    scene.rooms.full("eu-1", "again")
    assert (await scene.rooms.holds(), scene.events) == (before, events), "it is the same hold, told once"
    await scene.rooms.run_once()
    assert scene.full == {"eu-1": True, "eu-2": False}


async def test_what_an_earlier_process_knew_is_unknown_until_it_is_read() -> None:
    scene = Scene(at=0)
    with pytest.raises(ReconcileError):
        await scene.rooms.holds()
    assert dict(await scene.rooms.holds()) == {}


async def test_what_was_kept_and_cannot_be_read_is_found_out_anew() -> None:
    for text in ("{", "[]", '{"eu-1": {}}', '"x"'):
        scene = Scene()
        scene.kept[ROOM_MAP] = {ROOM_KEY: text}
        assert dict(await scene.rooms.holds()) == {}
        scene.rooms.full("eu-1", SAID)
        await scene.rooms.run_once()
        assert SAID in scene.kept[ROOM_MAP][ROOM_KEY]


async def test_a_hold_whose_next_try_is_no_time_is_tried_now_and_breaks_no_other_cells_turn() -> None:
    scene = Scene()
    hold = begun(SAID, 2, START)
    kept = {"eu-1": hold.model_copy(update={"next_try": "soon"}).model_dump(), "eu-2": hold.model_dump()}
    scene.kept[ROOM_MAP] = {ROOM_KEY: json.dumps(kept)}
    await scene.rooms.run_once()
    assert [cell for cell, _ in scene.tried] == ["eu-1"]
    mended = {"eu-1": still_held(hold, START).model_dump(), "eu-2": hold.model_dump()}
    assert json.loads(scene.kept[ROOM_MAP][ROOM_KEY]) == mended
    scene.room = True
    await scene.later(minutes=10)
    assert dict(await scene.rooms.holds()) == {}


async def test_a_cell_that_is_registered_no_more_is_forgotten() -> None:
    scene = Scene()
    scene.rooms.full("eu-1", SAID)
    await scene.rooms.run_once()
    del scene.registered["eu-1"]
    await scene.later(minutes=2)
    assert (dict(await scene.rooms.holds()), scene.tried) == ({}, [])
    scene.registered["eu-1"] = replace(case.registration("eu-1"), max_collections=7)
    await scene.later(minutes=2)
    assert scene.kept[ROOM_MAP] == {ROOM_KEY: "{}"}


async def whole(at: int | None, when: When) -> Scene:
    """A hold from its begin to its end, with a process that is replaced in the middle."""
    scene = Scene(at=at, when=when)
    scene.rooms.full("eu-1", SAID)
    for _ in range(3):
        await scene.later(seconds=10)
    scene.start()
    for _ in range(12):
        await scene.later(seconds=10)
    scene.room = True
    for _ in range(30):
        await scene.later(seconds=10)
    return scene


@pytest.mark.parametrize("when", ["before", "after"])
async def test_one_failure_anywhere_changes_nothing_in_the_end(when: When) -> None:
    plain = await whole(None, when)
    calls = plain.faults.calls
    assert {"cluster uid", f"read {ROOM_MAP}", f"write {ROOM_MAP}"} <= set(calls)
    for at in range(len(calls)):
        scene = await whole(at, when)
        assert dict(await scene.rooms.holds()) == {}
        assert [item[1] for item in scene.events] == ["CellFull", "CellHasRoom"], f"call {at} ({calls[at]})"
        assert scene.kept == plain.kept
