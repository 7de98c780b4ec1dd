"""How a cell is written to: at a surveyed node only, once, and read back where the effect is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.adapters.cell_connections import surveyed_first
from searchops.adapters.cell_surveys import NOTHING, Effect
from searchops.adapters.qdrant_errors import Full, Missing, Silent, Taken, translated
from searchops.runtime.errors import Terminal, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from searchops.adapters.cell_connections import CellConnections, Connection
    from searchops.adapters.cell_surveys import Surveys
    from searchops.api.observed import CellRegistration


class CellWrites:
    """The guard of every write.

    Args:
        connections: of all cells.
        surveys: told of each write's effect, or that it is in doubt.
        full: told of a cell that has no room for a write, with what it said.
    """

    def __init__(self, connections: CellConnections, surveys: Surveys, full: Callable[[str, str], object]) -> None:
        self._connections = connections
        self._surveys = surveys
        self._full = full

    async def act(
        self,
        cell: CellRegistration,
        what: str,
        request: Callable[[], Awaitable[None]],
        done: Callable[[], Awaitable[bool]],
        effect: Effect = NOTHING,
        *,
        verify: bool = False,
    ) -> None:
        """Send once; where the answer leaves the effect open (time-out, conflict, missing), read before judging.

        Args:
            cell: where.
            what: the act in words, for messages.
            request: sends it.
            done: reads whether its effect is there.
            effect: what it does to the names on the cell, for the surveys that follow.
            verify: also an answer of success is read back: the server is known to say yes to this and do nothing.

        Raises:
            Transient: the effect is not there, or unknown.
            NotReady: the cell has no room for it.
            Terminal: something that is not ours has the name.
        """
        connection = self._connections.get(cell)
        if connection.must_be_surveyed():
            raise surveyed_first(cell, what, connection.nodes)
        proved = False
        try:
            await self._once(cell, connection, what, request, done)
            if verify and not await done():
                seen = f"cell {cell.name} answered that it did {what}, but a read does not show it; it is tried again"
                raise Transient(seen)
            proved = True
        except Full as error:
            self._full(cell.name, error.message)
            raise
        finally:
            if proved:
                self._surveys.wrote(cell.name, effect)
            else:
                self._surveys.doubt(cell.name)

    async def _once(
        self,
        cell: CellRegistration,
        connection: Connection,
        what: str,
        request: Callable[[], Awaitable[None]],
        done: Callable[[], Awaitable[bool]],
    ) -> None:
        try:
            async with translated(cell.name, what):
                await request()
        except (Transient, Missing, Taken) as error:
            if isinstance(error, Transient) and error.retry_after is not None:
                raise
            if await done():
                return
            if isinstance(error, Taken):
                seen = f"cell {cell.name}: cannot {what}: {error.message}"
                wanted = "the name free, or taken by this very tenant"
                raise Terminal("Conflict", describe(seen, wanted=wanted, next_step="Rename, or remove it.")) from error
            if isinstance(error, Missing):
                raise Transient(f"cell {cell.name}: cannot {what}: {error.message}") from error
            if isinstance(error, Silent) and len(connection.nodes) > 1:
                error.answered = True  # another node has: the cell is not down
            raise
