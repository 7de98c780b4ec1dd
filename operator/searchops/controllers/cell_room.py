"""Cells that are out of disk or memory: held as a whole from the first refusal until a write proves room again.

Whoever meets a full cell says so here: a write of ours, a worker's answer, the cell's metrics. From that moment no
tenant is placed there and no rebuild is filled there; the tenants that are there are woken to say why.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from searchops.api.observed import CellIdentity
from searchops.api.room import CellHold
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.controllers.cell_watch import CELL_INDEX
from searchops.planning.cell_room import (
    ROOM_KEY,
    ROOM_MAP,
    begun,
    held_message,
    is_due,
    still_held,
    tries_of_earlier,
)
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.ports import CellDirectory, EventRecorder, ObjectReader, RoomProbe, StateMaps
    from searchops.runtime.cache import ObjectCache
    from searchops.runtime.key import Key

logger = logging.getLogger(__name__)

TURN_SECONDS = 10.0
"""Between two turns: as long a new hold may not be kept yet, and a proof may be late."""


class CellRoomMetrics(Protocol):
    """Tells which cells are held."""

    def cell_full(self, cell: str, *, full: bool) -> None:
        """A hold has begun, goes on or has ended."""
        ...


class CellRooms:
    """The holds of all cells.

    Args:
        fleet: with the cluster's identity it tells whose a cell is: nothing is written to a stranger's.
        namespace: of the cells' Secrets, which the events are about.
        tenants: needs the index `CELL_INDEX`.
        wake: asks for a pass over a tenant.
    """

    def __init__(
        self,
        *,
        fleet: str,
        namespace: str,
        directory: CellDirectory,
        probe: RoomProbe,
        objects: ObjectReader,
        state: StateMaps,
        tenants: ObjectCache[SearchTenant],
        wake: Callable[[Key], Any],
        events: EventRecorder,
        metrics: CellRoomMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._fleet = fleet
        self._namespace = namespace
        self._directory = directory
        self._probe = probe
        self._objects = objects
        self._state = state
        self._tenants = tenants
        self._wake = wake
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._holds: dict[str, CellHold] = {}
        self._ended: dict[str, tuple[datetime, int]] = {}
        self._kept: str | None = None
        self._cluster = ""

    async def holds(self) -> Mapping[str, CellHold]:
        """Every held cell.

        Raises:
            ReconcileError: what an earlier process knew could not be read, so nothing is known.
        """
        if self._kept is None:
            kept = (await self._state.read(ROOM_MAP) or {}).get(ROOM_KEY, "")
            self._kept = kept
            self._holds = {**_parsed(kept), **self._holds}
        return dict(self._holds)

    def full(self, cell: str, said: str) -> None:
        """A cell has said that it is out of disk or memory; said again while it is held, it changes nothing."""
        if cell in self._holds:
            return
        now = self._clock()
        keys = [item.key for item in self._tenants.by_index(CELL_INDEX, cell)]
        hold = begun(said, len(keys), now, tries=tries_of_earlier(self._ended.pop(cell, None), now))
        self._holds[cell] = hold
        logger.error("a cell is out of disk or memory; it is held", extra={"cell": cell, "said": hold.said})
        self._metrics.cell_full(cell, full=True)
        self._tell(cell, TenantReason.CELL_FULL, held_message(cell, hold), warning=True)
        self._wake_all(keys)

    async def run_once(self) -> None:
        """Prove room where that is due, keep what changed, and tell; one cell that fails holds back no other."""
        try:
            held = await self.holds()
            registered = self._directory.cells()
            for gone in held.keys() - registered.keys():
                del self._holds[gone]
            due = [name for name, hold in self._holds.items() if is_due(hold, self._clock())]
            if due:
                identity = await self._identity()
                await asyncio.gather(*(self._try(registered[name], identity) for name in due))
            for name in registered:
                self._metrics.cell_full(name, full=name in self._holds)
            await self._keep()
        except ReconcileError as error:
            logger.warning("looking after full cells failed; it is tried again", extra={"error": str(error)})

    async def _try(self, cell: CellRegistration, identity: CellIdentity) -> None:
        hold = self._holds[cell.name]
        has_room = await self._probe.try_room(cell, identity.at(cell.name))
        now = self._clock()
        if not has_room:
            self._holds[cell.name] = still_held(hold, now)
            logger.info("a held cell has no room yet", extra={"cell": cell.name, "answered": has_room is not None})
            return
        del self._holds[cell.name]
        self._ended[cell.name] = now, hold.tries
        logger.info("a cell has room again", extra={"cell": cell.name, "held_since": hold.since})
        self._metrics.cell_full(cell.name, full=False)
        message = f"cell {cell.name} took a write again; it was held since {hold.since}, and what waited goes on"
        self._tell(cell.name, TenantReason.CELL_HAS_ROOM, message)
        self._wake_all([item.key for item in self._tenants.by_index(CELL_INDEX, cell.name)])

    async def _keep(self) -> None:
        """Written only where something changed."""
        text = json.dumps({name: hold.model_dump() for name, hold in self._holds.items()}, sort_keys=True)
        if text == (self._kept or "{}"):
            return
        await self._state.write(ROOM_MAP, {ROOM_KEY: text})
        self._kept = text

    async def _identity(self) -> CellIdentity:
        if not self._cluster:
            self._cluster = await self._objects.cluster_uid()
        return CellIdentity(self._fleet, "", self._cluster)

    def _wake_all(self, keys: list[Key]) -> None:
        for key in keys:
            self._wake(key)

    def _tell(self, cell: str, reason: TenantReason, message: str, *, warning: bool = False) -> None:
        reference = {"apiVersion": "v1", "kind": "Secret", "namespace": self._namespace, "name": cell}
        self._events.record(reference, str(reason), message, warning=warning)


def _parsed(text: str) -> dict[str, CellHold]:
    """What was kept; one that cannot be read is met again by the next write."""
    try:
        items = json.loads(text or "{}").items()
        return {name: CellHold.model_validate(item) for name, item in items}
    except (ValueError, AttributeError, ValidationError):
        logger.warning("what was kept of full cells cannot be read; it is found out anew", extra={"map": ROOM_MAP})
        return {}
