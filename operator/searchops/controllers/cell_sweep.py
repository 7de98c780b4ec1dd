"""The cell's sweep: drops tombstoned collections that are past their time, where a live GET shows no owner."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from searchops.controllers.irreversible import irreversible
from searchops.planning.names import KEY_NAME, KEY_NAMESPACE
from searchops.planning.tenant_deletion import tombstones_due
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CellState
    from searchops.ports import CellDirectory, CellReader, CellWriter, ObjectReader
    from searchops.runtime.dependency import Dependencies

logger = logging.getLogger(__name__)


class CellSweep:
    """One round over every cell."""

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
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._cells = cells
        self._ddl = ddl
        self._objects = objects
        self._dependencies = dependencies
        self._clock = clock
        self._lease_left = lease_left

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
                owned = state.identity is not None and (state.identity.fleet, state.identity.cluster) == (
                    self._fleet,
                    cluster,
                )
                if state.reachable and owned:
                    dropped += await self._sweep(registration, state)
            except ReconcileError as error:
                logger.warning(
                    "sweeping a cell failed; it is tried next time", extra={"cell": name, "error": str(error)}
                )
        return dropped

    async def _sweep(self, cell: CellRegistration, state: CellState) -> int:
        pointed = set(state.aliases.values())
        ours = [name for name in sorted(state.collections - pointed) if name.startswith(f"{self._fleet}.")]
        described = [await self._cells.describe(cell, name) for name in ours]
        due = tombstones_due(self._fleet, tuple(item for item in described if item is not None), self._clock())
        dropped = 0
        for collection in due:
            async with self._dependencies.slot(f"cell/{cell.name}"):
                dropped += await self._drop(cell, collection.name)
        return dropped

    async def _drop(self, cell: CellRegistration, collection: str) -> bool:
        """Drop what is due still, now that nobody else writes the cell: waiting for it may have taken long."""
        found = await self._cells.describe(cell, collection)
        due = tombstones_due(self._fleet, (found,) if found is not None else (), self._clock())
        if not due:
            return False
        namespace, name = due[0].metadata[KEY_NAMESPACE], due[0].metadata[KEY_NAME]
        if await self._objects.get("searchtenants", namespace, name) is not None:
            return False
        async with irreversible(f"drop {collection}", self._lease_left):
            await self._ddl.drop_collection(cell, collection)
        logger.info("dropped a deleted tenant's collection", extra={"cell": cell.name, "collection": collection})
        return True
