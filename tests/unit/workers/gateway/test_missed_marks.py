"""A write that another collection missed is marked on the bound side before it is acknowledged, or not acknowledged."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from searchops.api.retrieval import BUILTIN_PROFILES, Binding, missed_mark
from searchops_workers.gateway.bindings import TenantBinding
from searchops_workers.gateway.bodies import Item
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.writes import Versions, Writer

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
    """Two collections; each call to one that is down, or the n-th call that is named, fails."""

    def __init__(self, *, down: str = "", fails_at: int = -1) -> None:
        self.down, self.fails_at = down, fails_at
        self.upserts: list[tuple[str, Sequence[models.PointStruct], Any]] = []

    @asynccontextmanager
    async def calling(self, caller: Caller) -> AsyncIterator[FakeCells]:
        yield self

    async def upsert(self, collection: str, points: Sequence[Any], *, wait: bool, update_filter: Any) -> None:
        self.upserts.append((collection, points, update_filter))
        if collection == self.down or len(self.upserts) - 1 == self.fails_at:
            raise Problem(503, f"{collection} does not answer; send it again", code="cell-unavailable")


class FakeEncoder:
    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]


class FakeCaller:
    alias = "t"


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
    assert (len(cells.upserts), collection) == (3, "t@b")
    assert point.payload is not None
    assert point.payload["_missed"] == missed_mark(PREVIOUS)
    assert point.payload["_version"] == outcome.version
    assert ("_deleted" in point.payload) is (what == "delete")
    assert guard.should[0].range.lte == outcome.version, "a later write is not marked"
    written = cells.upserts[0][1][0]
    assert (point.id, point.vector) == (written.id, written.vector)


async def test_a_write_that_reaches_both_sides_carries_no_mark() -> None:
    cells = FakeCells()
    assert (await writer_over(cells).put(CALLER, TENANT, ITEMS)).missed_previous == ""
    assert len(cells.upserts) == 2
    assert all("_missed" not in (point.payload or {}) for _, points, _ in cells.upserts for point in points)


async def test_a_mark_that_cannot_be_written_is_no_acknowledged_write() -> None:
    with pytest.raises(Problem, match="send it again"):
        await writer_over(FakeCells(down="t@a", fails_at=2)).put(CALLER, TENANT, ITEMS)
