"""Reads of cells with shared collections, in which a tenant's slice looks like a collection of its own.

What is read of shared collections is kept for a second and carried on by what this process writes itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from searchops.adapters.qdrant_shared import QdrantShared
from searchops.adapters.shared_shelf import (
    KEY_FLEET,
    Found,
    Shelf,
    as_collection,
    is_shared_name,
    over_contents,
    over_survey,
)
from searchops.api.shared import KEY_SHARED
from searchops.runtime.errors import NotReady, Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.adapters.qdrant import QdrantCells
    from searchops.api.observed import (
        CellContents,
        CellLoad,
        CellRegistration,
        CellState,
        CollectionState,
        RecallSample,
        SearchProbe,
    )

SHELF_SECONDS = 1.0
READ_SECONDS = 5.0
UNREAD_SECONDS = 30.0
"""How long an unreadable shared collection is left alone: the cell's other tenants wait for no answer of it."""
READS_AT_ONCE = 8


class SharedReads:
    """Reads of every cell, slices of shared collections among them.

    Args:
        cells: the cells themselves.
        fleet: whose shared collections are looked into.
        now: monotonic seconds.
    """

    def __init__(self, cells: QdrantCells, *, fleet: str, now: Callable[[], float] = time.monotonic) -> None:
        self._cells = cells
        self._points = QdrantShared(cells)
        self._fleet = fleet
        self._now = now
        self._shelves: dict[str, Shelf] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._doubts: dict[str, int] = {}
        self._named: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        self._composed: dict[str, tuple[CellState, int, CellState]] = {}

    # -- reads -------------------------------------------------------------------------------------------------

    async def survey(self, cell: CellRegistration) -> CellState:
        """As `QdrantCells.survey`, with slices; which shared collections could not be read is in it."""
        state = await self._cells.survey(cell)
        if not state.reachable or not self._names(state):
            return state
        shelf = await self._shelf(cell, state)
        kept = self._composed.get(cell.name)
        if kept is not None and kept[0] is state and kept[1] == shelf.version:
            return kept[2]
        composed = over_survey(state, shelf)
        self._composed[cell.name] = state, shelf.version, composed
        return composed

    async def contents(self, cell: CellRegistration) -> CellContents:
        """As `QdrantCells.contents`, with slices."""
        return over_contents(await self._cells.contents(cell), self._fleet)

    async def load(self, cell: CellRegistration) -> CellLoad:
        """As `QdrantCells.load`; points of slices are not in it."""
        return await self._cells.load(cell)

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection or slice, or None."""
        found = await self._find(cell, collection)
        if found is None:
            return await self._cells.describe(cell, collection)
        points = await self._points.count_all(cell, found.address)
        return as_collection(found, points)

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        """Exact number of live points of a collection or slice."""
        found = await self._find(cell, collection)
        if found is None:
            return await self._cells.count(cell, collection, lacking=lacking, missed=missed)
        return await self._points.count(cell, found.address, lacking=lacking, missed=missed)

    async def recall(self, cell: CellRegistration, collection: str, vector: str) -> RecallSample:
        """Approximate against exact search, within one slice where it is one."""
        found = await self._find(cell, collection)
        if found is None:
            return await self._cells.recall(cell, collection, vector)
        return await self._cells.recall(cell, found.address.collection, vector, within=found.address)

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """As `QdrantCells.probe_search`: it is the database's answer, which knows no name of a slice."""
        return await self._cells.probe_search(cell, alias, vector, token)

    # -- within ------------------------------------------------------------------------------------------------

    async def _shelf(self, cell: CellRegistration, state: CellState) -> Shelf:
        """The cell's shared collections, read anew after a second; what is written meanwhile goes before."""
        names = self._names(state)
        async with self._locks.setdefault(cell.name, asyncio.Lock()):
            shelf = self._shelves.get(cell.name)
            fresh = shelf is not None and self._now() - shelf.read_at < SHELF_SECONDS
            if shelf is not None and fresh and all(name in shelf.collections or name in shelf.names for name in names):
                return shelf
            began, at = (shelf.version if shelf is not None else 0), self._now()
            doubts = self._doubts.get(cell.name, 0)
            limit = asyncio.Semaphore(READS_AT_ONCE)

            unread, unread_at = _still_unread(shelf, self._now())

            async def read(name: str) -> CollectionState | None:
                async with limit:
                    try:
                        async with asyncio.timeout(READ_SECONDS):
                            return await self._cells.describe(cell, name)
                    except (Transient, NotReady, Terminal) as error:
                        unread[name] = error.message
                    except TimeoutError:
                        unread[name] = f"no answer within {READ_SECONDS:g} s"
                    return None

            found = await asyncio.gather(*(read(name) for name in names if name not in unread))
            shelf = self._shelves.setdefault(cell.name, Shelf(at, {}))
            collections = {item.name: item for item in found if item is not None and self._is_ours(item)}
            for name, version in shelf.touched.items():
                if version > began and name in shelf.collections:
                    collections[name] = shelf.collections[name]
                    unread.pop(name, None)
            if (collections, unread) != (shelf.collections, shelf.unread):
                shelf.collections, shelf.unread, shelf.version = collections, unread, shelf.version + 1
            sure = doubts == self._doubts.get(cell.name, 0)
            shelf.names, shelf.unread_at = names, unread_at
            shelf.read_at = at if sure else at - SHELF_SECONDS
            return shelf

    def _names(self, state: CellState) -> tuple[str, ...]:
        """The shared collections of a survey; worked out once for each, however many passes share it."""
        known = self._named.get(state.name)
        if known is None or known[0] is not state.collections:
            names = sorted(name for name in state.collections if is_shared_name(self._fleet, name))
            known = self._named[state.name] = state.collections, tuple(names)
        return known[1]

    def _is_ours(self, state: CollectionState) -> bool:
        return state.metadata.get(KEY_FLEET) == self._fleet and KEY_SHARED in state.metadata

    async def _current(self, cell: CellRegistration) -> Shelf:
        """The shelf for a decision; raises where the cell's shared collections cannot be read."""
        state = await self._cells.survey(cell)
        if not state.reachable:
            raise Transient(f"cell {cell.name} does not answer ({state.error}); nothing is decided on it")
        return await self._shelf(cell, state)

    async def _find(self, cell: CellRegistration, name: str) -> Found | None:
        """The slice of this name; None where the name is a collection's, or nobody's.

        Raises:
            Transient: whose it is cannot be known, as the cell or one of its shared collections cannot be read.
        """
        state = await self._cells.survey(cell)
        if not state.reachable:
            raise Transient(f"cell {cell.name} does not answer ({state.error}); nothing is decided on it")
        if name in state.collections or not self._names(state):
            return None
        shelf = await self._shelf(cell, state)
        found = shelf.slices().get(name)
        if found is None and shelf.unread:
            collection, why = next(iter(sorted(shelf.unread.items())))
            raise Transient(f"cell {cell.name}: {collection}, where {name} may stand, cannot be read: {why}")
        return found

    async def _reread(self, cell: CellRegistration, collection: str) -> CollectionState:
        """The collection as it is now, onto the shelf."""
        found = await self._cells.describe(cell, collection)
        if found is None or not self._is_ours(found):
            raise Transient(f"cell {cell.name}: {collection} is not there as a shared collection of this fleet")
        self._shelves.setdefault(cell.name, Shelf(self._now(), {})).put(found)
        return found


def _still_unread(shelf: Shelf | None, now: float) -> tuple[dict[str, str], float]:
    """What could not be read a moment ago, and when that was; after a while all of it is tried again."""
    if shelf is None or not shelf.unread or now - shelf.unread_at >= UNREAD_SECONDS:
        return {}, now
    return dict(shelf.unread), shelf.unread_at
