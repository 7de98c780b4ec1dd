"""A look at every cell once an interval: who drifted, which collections are orphans, how full the cell is.

Three requests a cell tell all of it but for payload indexes, so that ten thousand tenants in order cost no request of
their own. Only a tenant that differs is asked for, at the priority of a resync; its pass repairs or reports.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from searchops.planning.drift import Picture, difference, index_difference, orphans, picture
from searchops.planning.placement import usable_of
from searchops.planning.quotas import moved
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from searchops.api.observed import CellContents, CellLoad, CellRegistration, CollectionState
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.ports import CellDirectory, StateMaps
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.key import Key

logger = logging.getLogger(__name__)

CELL_INDEX = "cell"
REPORT_MAP = "searchops-cells"
REPORT_KEY = "report"
SCHEMA_READS = 1_000
"""Most collections of a cell whose indexes are read in one round; the rest follows in the next."""
SAMPLE = 8
"""Collections of a cell with several nodes whose indexes are read in every round: those of another node are unseen."""
BREATH = 200
"""Tenants compared between two turns of the event loop."""
SHOWN = 20
"""Names of one cell in a log line or in the report."""


class BulkReader(Protocol):
    """Reads of a whole cell."""

    async def contents(self, cell: CellRegistration) -> CellContents:
        """Every collection's configuration and every alias."""
        ...

    async def load(self, cell: CellRegistration) -> CellLoad:
        """Points by collection, memory maps and open files of the fullest node."""
        ...

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection with its payload indexes."""
        ...


class CellMetrics(Protocol):
    """What is told to Prometheus."""

    def cell(self, name: str, *, up: bool, collections: int, capacity: int, orphans: int = 0) -> None:
        """One cell as it was seen last."""
        ...

    def drifted(self, cell: str, tenants: int) -> None:
        """Tenants that were found to differ."""
        ...


@dataclass(slots=True)
class _Cell:
    """What is remembered of a cell from round to round."""

    up: bool | None = None
    index_writes: tuple[str, int] | None = None
    unchecked: deque[Key] = field(default_factory=deque)
    turn: int = 0
    orphaned: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()


class CellWatch:
    """Bulk reads of every cell.

    Args:
        ask: asks for a pass over a tenant, at the priority of a resync.
        tenants: needs the index `CELL_INDEX`.
    """

    def __init__(
        self,
        *,
        fleet: str,
        directory: CellDirectory,
        cells: BulkReader,
        tenants: ObjectCache[SearchTenant],
        ask: Callable[[Key], object],
        state: StateMaps,
        metrics: CellMetrics,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._cells = cells
        self._tenants = tenants
        self._ask = ask
        self._state = state
        self._metrics = metrics
        self._in_order: dict[Key, Picture] = {}
        self._known: dict[str, _Cell] = {}
        self._reported = ""

    async def run_once(self) -> int:
        """Look at every cell; one that fails holds back no other. Returns how many tenants were asked for."""
        registered = dict(sorted(self._directory.cells().items()))
        for gone in self._known.keys() - registered.keys():
            del self._known[gone]
        for key in [key for key in self._in_order if key not in self._tenants]:
            del self._in_order[key]
        uids, names = self._tenants.uids(), {(key.namespace, key.name) for key in self._tenants.keys()}  # noqa: SIM118
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._look(cell, frozenset(uids), frozenset(names))) for cell in registered.values()
            ]
        rows = {cell: look.result() for cell, look in zip(registered, looks, strict=True)}
        await self._report({name: row for name, (row, _) in rows.items()})
        return sum(asked for _, asked in rows.values())

    # -- one cell ----------------------------------------------------------------------------------------------

    async def _look(
        self, cell: CellRegistration, uids: frozenset[str], names: frozenset[tuple[str, str]]
    ) -> tuple[dict[str, Any], int]:
        """One cell's line of the report, and how many of its tenants were asked for."""
        known = self._known.setdefault(cell.name, _Cell())
        row: dict[str, Any] = {"usable": usable_of(cell), "draining": cell.draining}
        try:
            contents = await self._cells.contents(cell)
        except ReconcileError as error:
            logger.warning("a cell was not read; its tenants say why", extra={"cell": cell.name, "error": str(error)})
            asked = self._asked(item.key for item in self._tenants.by_index(CELL_INDEX, cell.name)) if known.up else 0
            known.up = False
            self._metrics.cell(cell.name, up=False, collections=0, capacity=usable_of(cell))
            return {**row, "answers": False}, asked
        known.up = True
        load = await self._load(cell)
        differing = await self._differing(contents, load)
        differing |= await self._without_indexes(cell, known, contents)
        if differing:
            reasons = [f"{key}: {why}" for key, why in list(differing.items())[:SHOWN]]
            logger.info(
                "tenants differ from what they declare; each is looked at",
                extra={"cell": cell.name, "tenants": len(differing), "first": reasons},
            )
            self._metrics.drifted(cell.name, len(differing))
        lost = self._orphans(known, contents, uids, names)
        held = contents.held
        self._metrics.cell(cell.name, up=True, collections=held, capacity=usable_of(cell), orphans=len(lost))
        row |= {"answers": True, "version": contents.version, "collections": held, "orphans": list(lost)}
        if load is not None:
            row |= {"mapsPercent": load.maps_percent, "filesPercent": load.files_percent}
        return row, self._asked(differing)

    async def _load(self, cell: CellRegistration) -> CellLoad | None:
        try:
            return await self._cells.load(cell)
        except ReconcileError as error:
            logger.warning("a cell's metrics were not read", extra={"cell": cell.name, "error": str(error)})
            return None

    async def _differing(self, contents: CellContents, load: CellLoad | None) -> dict[Key, str]:
        found: dict[Key, str] = {}
        for number, cached in enumerate(self._tenants.by_index(CELL_INDEX, contents.name), start=1):
            if number % BREATH == 0:
                await asyncio.sleep(0)
            why = self._why(cached, contents, load) if _settled(cached) else ""
            if why:
                found[cached.key] = why
        return found

    def _why(self, cached: CachedObject, contents: CellContents, load: CellLoad | None) -> str:
        status = cached.status
        collection, alias = status["collection"], status["alias"]
        seen = picture(contents, alias=alias, collection=collection, generation=cached.generation)
        if self._in_order.get(cached.key) != seen:
            try:
                tenant = self._tenants.typed(cached.key)
            except ValidationError:
                return ""  # its own pass says so
            why = "" if tenant is None else difference(tenant, contents, seen, fleet=self._fleet)
            if why:
                self._in_order.pop(cached.key, None)
                return why
            self._in_order[cached.key] = seen
        points = None if load is None else load.points.get(collection)
        shown = (status.get("usage") or {}).get("points")
        return "" if points is None or not moved(shown, points) else f"{points} points, the status shows {shown}"

    # -- payload indexes ---------------------------------------------------------------------------------------

    async def _without_indexes(self, cell: CellRegistration, known: _Cell, contents: CellContents) -> dict[Key, str]:
        """Tenants that lack an index, looked for where somebody else has made or removed indexes."""
        self._plan_checks(cell, known, contents)
        found: dict[Key, str] = {}
        for _ in range(min(SCHEMA_READS, len(known.unchecked))):
            key = known.unchecked.popleft()
            cached = self._tenants.get(key)
            if cached is None or not _settled(cached):
                continue
            try:
                collection = await self._cells.describe(cell, cached.status["collection"])
                tenant = self._tenants.typed(key)
            except ValidationError:
                continue  # its own pass says so
            except ReconcileError:
                known.unchecked.append(key)
                break
            why = index_difference(tenant, collection) if tenant is not None and collection is not None else ""
            if why:
                found[key] = why
        return found

    def _plan_checks(self, cell: CellRegistration, known: _Cell, contents: CellContents) -> None:
        mine = [item.key for item in self._tenants.by_index(CELL_INDEX, cell.name)]
        if contents.foreign_index_writes is not None:
            seen = contents.server, contents.foreign_index_writes
            if known.index_writes is not None and known.index_writes != seen:
                known.unchecked = deque(mine)
            known.index_writes = seen
        if len(cell.urls) > 1 and not known.unchecked and mine:
            first = known.turn % len(mine)
            known.turn = first + SAMPLE
            known.unchecked.extend((mine + mine)[first : first + min(SAMPLE, len(mine))])

    # -- what is told ------------------------------------------------------------------------------------------

    def _orphans(
        self, known: _Cell, contents: CellContents, uids: frozenset[str], names: frozenset[tuple[str, str]]
    ) -> tuple[str, ...]:
        """Orphans of this round and the last: a tenant may go while its cell is being read."""
        seen = frozenset(orphans(contents, fleet=self._fleet, uids=uids, names=names))
        lost, known.orphaned = seen & known.orphaned, seen
        fresh, known.told = sorted(lost - known.told), lost
        if fresh:
            logger.warning(
                "collections of this fleet belong to no SearchTenant; they are left alone: `searchops orphans`",
                extra={"cell": contents.name, "collections": fresh[:SHOWN], "count": len(fresh)},
            )
        return tuple(sorted(lost))

    async def _report(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Written only where something changed."""
        text = json.dumps(rows, sort_keys=True)
        if text == self._reported:
            return
        try:
            await self._state.write(REPORT_MAP, {REPORT_KEY: text})
            self._reported = text
        except ReconcileError as error:
            logger.warning("the report on cells was not written; it is tried again", extra={"error": str(error)})

    def _asked(self, keys: Iterable[Key]) -> int:
        asked = Counter(bool(self._ask(key)) for key in keys)
        return asked[True]


def _settled(cached: CachedObject) -> bool:
    """Whether the status claims something that a cell can be compared with; all others have passes of their own."""
    status = cached.status
    return bool(
        not cached.deleting
        and status.get("collection")
        and status.get("alias")
        and status.get("observedGeneration") == cached.generation
        and not cached.raw["spec"].get("paused")
    )


def cells_of(cached: CachedObject) -> tuple[str, ...]:
    """Under which cell a tenant is filed: its annotation."""
    cell = cached.annotations.get("searchops.dev/cell")
    return (cell,) if cell else ()
