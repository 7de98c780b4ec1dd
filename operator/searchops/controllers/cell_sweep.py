"""The cell's sweep: drops tombstoned collections that are past their time, where a live GET shows no owner.

With the policy Snapshot a verified snapshot is stored first; without one the collection stays, and that is told.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from searchops.api.observed import CellIdentity
from searchops.controllers.irreversible import irreversible
from searchops.planning.names import KEY_NAME, KEY_NAMESPACE, KEY_POLICY, KEY_UID
from searchops.planning.tenant_deletion import tombstones_due
from searchops.runtime.errors import NotReady, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CellState, CollectionState
    from searchops.ports import CellDirectory, CellReader, CellWriter, ObjectReader
    from searchops.runtime.dependency import Dependencies

logger = logging.getLogger(__name__)

SNAPSHOTS_AT_ONCE = 4
"""Last snapshots of one cell that are under way: a namespace of a thousand tenants may go at once."""


class LastSnapshots(Protocol):
    """The snapshot that outlives a collection."""

    async def stored(self, cell: CellRegistration, collection: CollectionState) -> bool:
        """Whether a whole, verified snapshot of exactly this collection is in the artifact store.

        Where there is none it is begun, and this answers False until it is there.

        Raises:
            ReconcileError: it failed, or nothing is known; the collection stays.
        """
        ...


class NoSnapshots:
    """Where snapshots cannot be stored, what wants one is kept for good."""

    async def stored(self, cell: CellRegistration, collection: CollectionState) -> bool:
        """Never."""
        raise NotReady("NotSupported", f"no snapshot of {collection.name} on cell {cell.name} can be stored here")


class CellSweep:
    """One round over every cell.

    Args:
        lease_left: seconds for which this process is certainly the only one that acts.
        clock_skew: by how much the clock that wrote a note may be behind this one.
        overdue: told of each cell how many collections are past their time and still there.
    """

    def __init__(
        self,
        *,
        fleet: str,
        directory: CellDirectory,
        cells: CellReader,
        ddl: CellWriter,
        objects: ObjectReader,
        dependencies: Dependencies,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
        clock_skew: timedelta = timedelta(0),
        snapshots: LastSnapshots | None = None,
        overdue: Callable[[str, int], None] = lambda _cell, _count: None,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._cells = cells
        self._ddl = ddl
        self._objects = objects
        self._dependencies = dependencies
        self._clock = clock
        self._clock_skew = clock_skew
        self._lease_left = lease_left
        self._snapshots = snapshots or NoSnapshots()
        self._overdue = overdue

    async def run_once(self) -> int:
        """Sweep every cell; one that fails holds back no other. Returns how many collections were dropped."""
        dropped = 0
        try:
            cluster = await self._objects.cluster_uid()
        except ReconcileError as error:
            logger.warning("no cell was swept; it is tried next time", extra={"error": str(error)})
            return 0
        for name, registration in sorted(self._directory.cells().items()):
            try:
                state = await self._cells.survey(registration)
                if self._is_ours(state, cluster):
                    dropped += await self._sweep(registration, state, cluster)
            except ReconcileError as error:
                logger.warning(
                    "sweeping a cell failed; it is tried next time", extra={"cell": name, "error": str(error)}
                )
        return dropped

    def _is_ours(self, state: CellState, cluster: str) -> bool:
        return state.reachable and state.identity == CellIdentity(self._fleet, state.name, cluster)

    async def _sweep(self, cell: CellRegistration, state: CellState, cluster: str) -> int:
        pointed = set(state.aliases.values())
        ours = [name for name in sorted(state.collections - pointed) if name.startswith(f"{self._fleet}.")]
        due = tombstones_due(self._fleet, await self._described(cell, ours), self._earliest())
        dropped = begun = 0
        for collection in due:
            try:
                if collection.metadata[KEY_POLICY] == "Snapshot":
                    if begun >= SNAPSHOTS_AT_ONCE:
                        continue
                    if not await self._kept_elsewhere(cell, collection):
                        begun += 1
                        continue
                async with self._dependencies.slot(f"cell/{cell.name}"):
                    dropped += await self._drop(cell, collection, cluster)
            except ReconcileError as error:
                logger.warning(
                    "a deleted tenant's collection is past its time and stays; it is tried next time",
                    extra={"cell": cell.name, "collection": collection.name, "error": str(error)},
                )
        self._overdue(cell.name, len(due) - dropped)
        return dropped

    async def _described(self, cell: CellRegistration, names: list[str]) -> tuple[CollectionState, ...]:
        """Those that can be read: one that cannot keeps nobody else's from being swept."""
        found = []
        for name in names:
            try:
                item = await self._cells.describe(cell, name)
            except ReconcileError as error:
                logger.warning(
                    "a collection was not read for the sweep",
                    extra={"cell": cell.name, "collection": name, "error": str(error)},
                )
                continue
            if item is not None:
                found.append(item)
        return tuple(found)

    async def _kept_elsewhere(self, cell: CellRegistration, collection: CollectionState) -> bool:
        """Whether its snapshot is stored; none is begun for a name that somebody has again."""
        if await self._has_owner(collection):
            return False
        return await self._snapshots.stored(cell, collection)

    def _earliest(self) -> datetime:
        return self._clock() - self._clock_skew

    async def _has_owner(self, collection: CollectionState) -> bool:
        namespace, name = collection.metadata[KEY_NAMESPACE], collection.metadata[KEY_NAME]
        return await self._objects.get("searchtenants", namespace, name) is not None

    async def _drop(self, cell: CellRegistration, seen: CollectionState, cluster: str) -> bool:
        """Drop what is due still, now that nobody else writes the cell: waiting for it may have taken long."""
        state = await self._cells.survey(cell)
        if not self._is_ours(state, cluster) or seen.name in state.aliases.values():
            return False
        found = await self._cells.describe(cell, seen.name)
        due = tombstones_due(self._fleet, (found,) if found is not None else (), self._earliest())
        if not due or due[0].metadata.get(KEY_UID) != seen.metadata.get(KEY_UID):
            return False
        if due[0].metadata[KEY_POLICY] != seen.metadata[KEY_POLICY] or await self._has_owner(due[0]):
            return False
        async with irreversible(f"drop {seen.name}", self._lease_left):
            await self._ddl.drop_collection(cell, seen.name)
        logger.info("dropped a deleted tenant's collection", extra={"cell": cell.name, "collection": seen.name})
        return True
