"""What another collection missed is marked on the bound side with the write itself, wherever a gateway dies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import BUILTIN_PROFILES, Binding, missed_mark
from searchops_workers.gateway.bindings import TenantBinding
from searchops_workers.gateway.bodies import Item
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.writes import Versions, Writer
from searchops_workers.retrieval.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qdrant_client import models

    from searchops_workers.gateway.callers import Caller
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.encoders import BindingEncoder


def binding(revision: str, side: str) -> Binding:
    return Binding(
        model="shop",
        revision=revision,
        encoder=revision,
        vector=f"d-{revision}",
        dimension=2,
        profile=BUILTIN_PROFILES["default"],
        side=side,
    )


BOUND, PREVIOUS = binding("r2", "t@b"), binding("r1", "t@a")


class FakeCells:
    """Collections; each call to one that is down fails."""

    def __init__(self, *, down: str = "") -> None:
        self.down = down
        self.upserts: list[tuple[str, Sequence[models.PointStruct], Any]] = []

    @asynccontextmanager
    async def calling(self, caller: Caller) -> AsyncIterator[FakeCells]:
        yield self

    async def upsert(self, collection: str, points: Sequence[Any], *, wait: bool, update_filter: Any) -> None:
        self.upserts.append((collection, points, update_filter))
        if collection == self.down:
            raise Problem(503, f"{collection} does not answer; send it again", code="cell-unavailable")


class FakeEncoder:
    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]


class FakeCaller:
    alias = "t"

    def scope(self, side: str) -> Scope:
        return Scope.whole(side)


def writer_over(cells: FakeCells) -> Writer:
    encoder = cast("BindingEncoder", FakeEncoder())
    return Writer(cast("Cells", cells), encoder, Versions(lambda: 1.0), batch=10)


TENANT = TenantBinding(binding=BOUND, pending=None, previous=PREVIOUS)
ITEMS = (Item(0, "nut", {"id": "nut", "title": "Hex nut"}),)
CALLER = cast("Caller", FakeCaller())


@pytest.mark.parametrize("what", ["put", "delete"])
async def test_a_missed_side_is_marked_on_the_bound_one_with_the_version_that_wrote_it(what: str) -> None:
    cells = FakeCells(down="t@a")
    writer = writer_over(cells)
    outcome = await (writer.put if what == "put" else writer.delete)(CALLER, TENANT, ITEMS)
    assert "t@a" in outcome.missed_previous
    collection, (point,), guard = cells.upserts[-1]
    assert (len(cells.upserts), collection) == (2, "t@b"), "the mark costs no request"
    assert point.payload is not None
    assert point.payload["_missed"] == missed_mark(PREVIOUS)
    assert point.payload["_version"] == outcome.version
    assert ("_deleted" in point.payload) is (what == "delete")
    assert guard.should[0].range.lt == outcome.version, "a later write is not marked"
    assert point.id == cells.upserts[0][1][0].id


async def test_a_side_of_an_analyser_that_is_not_known_is_not_written_and_nothing_is_acknowledged() -> None:
    newer = PREVIOUS.analyser.model_copy(update={"version": "3"})
    pending = binding("r3", "t@c").model_copy(update={"analyser": newer})
    cells = FakeCells()
    with pytest.raises(Problem, match="analyser version '3'") as caught:
        await writer_over(cells).put(CALLER, TenantBinding(BOUND, pending, None), ITEMS)
    assert (caught.value.code, cells.upserts) == ("binding-unreadable", [])


async def test_a_write_that_reaches_both_sides_carries_no_mark() -> None:
    cells = FakeCells()
    assert (await writer_over(cells).put(CALLER, TENANT, ITEMS)).missed_previous == ""
    assert len(cells.upserts) == 2
    assert all("_missed" not in (point.payload or {}) for _, points, _ in cells.upserts for point in points)


async def test_a_bound_side_that_does_not_answer_is_no_acknowledged_write() -> None:
    cells = FakeCells(down="t@b")
    with pytest.raises(Problem, match="send it again"):
        await writer_over(cells).put(CALLER, TENANT, ITEMS)
    assert [collection for collection, _, _ in cells.upserts] == ["t@a", "t@b"]


class Killed(BaseException):
    """The gateway's process is gone: nothing of it goes on."""


class StoredCells:
    """Collections that keep what they are sent, by the version's guard, until the gateway is killed at a call.

    Attributes:
        fates: of the calls to the previous side, one after another: answered, refused, lost before or after its effect.
        kill_at: number of the call at which the gateway dies, and whether that call still takes effect.
    """

    def __init__(self, fates: list[str], kill_at: int, *, kill_after: bool) -> None:
        self.fates, self.kill_at, self.kill_after = fates, kill_at, kill_after
        self.points: dict[str, dict[str, dict[str, Any]]] = {"t@a": {}, "t@b": {}, "t@c": {}}
        self.calls = 0

    @asynccontextmanager
    async def calling(self, caller: Caller) -> AsyncIterator[StoredCells]:
        yield self

    async def upsert(self, collection: str, points: Sequence[Any], *, wait: bool, update_filter: Any) -> None:
        await asyncio.sleep(0)
        number, self.calls = self.calls, self.calls + 1
        if number > self.kill_at >= 0 or (number == self.kill_at and not self.kill_after):
            raise Killed
        fate = self.fates.pop(0) if collection == "t@a" and self.fates else "answered"
        if fate in ("answered", "late"):
            self._keep(collection, points, update_filter)
        if number == self.kill_at:
            raise Killed
        if fate != "answered":
            raise Problem(503, f"{collection}: {fate}; send it again", code="cell-unavailable")

    def _keep(self, collection: str, points: Sequence[Any], guard: Any) -> None:
        stored = self.points[collection]
        for point in points:
            there = stored.get(str(point.id), {}).get("_version")
            if there is None or there < guard.should[0].range.lt:
                stored[str(point.id)] = dict(point.payload)

    def unmarked(self) -> list[str]:
        """Points of which the bound side is ahead of the previous one, and does not say so."""
        mark, previous = missed_mark(PREVIOUS), self.points["t@a"]
        return [
            name
            for name, payload in self.points["t@b"].items()
            if payload["_version"] > previous.get(name, {}).get("_version", -1) and payload.get("_missed") != mark
        ]


writes = st.tuples(
    st.sampled_from(["put", "delete"]), st.lists(st.sampled_from(["nut", "bolt"]), min_size=1, max_size=2)
)


@given(
    st.lists(writes, min_size=1, max_size=6),
    st.lists(st.sampled_from(["answered", "refused", "late"]), max_size=6),
    st.integers(-1, 18),
    st.booleans(),
    st.booleans(),
)
async def test_wherever_a_gateway_dies_the_bound_side_is_never_ahead_without_a_mark(
    requests: list[tuple[str, list[str]]], fates: list[str], kill_at: int, kill_after: bool, rebuilds: bool
) -> None:
    cells = StoredCells(fates, kill_at, kill_after=kill_after)
    writer = Writer(cast("Cells", cells), cast("BindingEncoder", FakeEncoder()), Versions(lambda: 1.0), batch=1)
    tenant = TenantBinding(binding=BOUND, pending=binding("r3", "t@c") if rebuilds else None, previous=PREVIOUS)
    for what, products in requests:
        items = tuple(Item(row, name, {"id": name, "title": name}) for row, name in enumerate(products))
        try:
            await (writer.put if what == "put" else writer.delete)(CALLER, tenant, items)
        except Killed:
            break
        finally:
            assert cells.unmarked() == []
    assert cells.unmarked() == []


async def test_concurrent_writes_of_one_product_leave_no_side_ahead_without_a_mark() -> None:
    for fates in product(["answered", "refused", "late"], repeat=3):
        cells = StoredCells(list(fates), -1, kill_after=False)
        writer = writer_over(cast("FakeCells", cells))
        await asyncio.gather(*(writer.put(CALLER, TENANT, ITEMS) for _ in range(3)))
        assert cells.unmarked() == [], fates
