"""The proof that a cell has room again: one small point, written into the cell's own marker and read back."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from qdrant_client import models

from searchops.adapters.cell_reads import MARKER
from searchops.adapters.qdrant_errors import Full, translated
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.adapters.qdrant import QdrantCells
    from searchops.api.observed import CellIdentity, CellRegistration

POINT: Final = 1
KEY: Final = "searchops.dev/room"


class QdrantRoom:
    """`RoomProbe` over the cells' open clients.

    On a cell of several nodes the proof is that of the nodes that hold the marker; the next refused write begins a
    hold again.

    Args:
        cells: whose clients and guards are used.
        word: a word never used before, so that an earlier proof is not taken for this one.
    """

    def __init__(self, cells: QdrantCells, *, word: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._cells = cells
        self._word = word

    async def try_room(self, cell: CellRegistration, identity: CellIdentity) -> bool | None:
        """True where a write was taken, False where the cell says that it is full, None where neither is known."""
        try:
            state = await self._cells.survey(cell)
            if not state.reachable or state.identity not in (None, identity):
                return None
            if state.identity is None:
                await self._cells.claim(cell, identity)
            if await self._says_full(cell):
                return False
            await self._write(cell)
        except Full:
            return False
        except ReconcileError:
            return None
        return True

    async def _says_full(self, cell: CellRegistration) -> bool:
        """What its metrics tell; where they cannot be read the write alone tells."""
        try:
            return bool((await self._cells.load(cell)).full)
        except ReconcileError:
            return False

    async def _write(self, cell: CellRegistration) -> None:
        client, word = self._cells.connection(cell).client, self._word()
        point = models.PointStruct(id=POINT, vector={}, payload={KEY: word})

        async def put() -> None:
            await client.upsert(MARKER, [point], wait=True)

        async def done() -> bool:
            async with translated(cell.name, f"read back {MARKER}"):
                found = await client.retrieve(MARKER, [POINT], with_payload=True)
            return any((item.payload or {}).get(KEY) == word for item in found)

        await self._cells.writes.act(cell, "prove that there is room", put, done, verify=True)
