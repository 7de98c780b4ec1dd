"""In which line a pass over a tenant stands, and whether it stands there before or after it has read anything.

A pass that ends in DDL needs its cell's one slot. Reading first and standing in line then means reading everything
again when the turn has come, and once more at every event until then: in a burst of creates that was most of the work.
So a pass that is expected to write takes its turn first. Passes that only read share a few places for each cell: a
cell that hangs holds as many workers as that and no more.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from searchops.runtime.dependency import BreakerState, DependencyBusy, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from searchops.runtime.dependency import Dependencies, Held
    from searchops.runtime.key import Key

WRITES = "cell/"
READS = "reads/"
PLACEMENT = "placement"


def limits_for(workers: int) -> Callable[[str], Limits]:
    """Limits of a dependency by its name: one DDL at a time on a cell, a fifth of the workers for reads of one."""
    few = max(1, workers // 5)

    def of(name: str) -> Limits:
        return Limits(concurrency=few) if name.startswith(READS) or name == PLACEMENT else Limits()

    return of


class Lanes:
    """The lines that passes over tenants stand in.

    Args:
        dependencies: where a busy line parks a key.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._wanting: set[Key] = set()
        self._wrote: set[Key] = set()

    def writes_first(self, key: Key, cell: str | None, *, provisioned: bool) -> bool:
        """Whether the pass should hold the cell's slot from its start.

        Where the breaker is not closed there is something to say that needs no slot: that the cell does not answer.
        """
        if provisioned:
            self._wrote.discard(key)
        if cell is None or self._dependencies.get(f"{WRITES}{cell}").state is not BreakerState.CLOSED:
            return False
        return key in self._wanting or (not provisioned and key not in self._wrote)

    @asynccontextmanager
    async def reading(self, cell: str | None) -> AsyncGenerator[None]:
        """A place for reads of this cell; for those of all cells where the tenant has none yet."""
        name = PLACEMENT if cell is None else f"{READS}{cell}"
        async with self._dependencies.slot(name) as held:
            held.judges = False
            yield

    @asynccontextmanager
    async def writing(self, key: Key, cell: str) -> AsyncGenerator[Held]:
        """The cell's one slot for DDL.

        Raises:
            DependencyBusy: the key is parked; when its turn has come the pass starts with the slot.
        """
        try:
            async with self._dependencies.slot(f"{WRITES}{cell}") as held:
                self._wanting.discard(key)
                yield held
        except DependencyBusy:
            self._wanting.add(key)
            raise

    def wrote(self, key: Key, *, whole: bool) -> None:
        """Whether a pass did all the DDL that it planned: the next one is then expected to find nothing left to do."""
        if whole:
            self._wrote.add(key)
        else:
            self._wrote.discard(key)

    def forget(self, key: Key) -> None:
        """The tenant is gone."""
        self._wanting.discard(key)
        self._wrote.discard(key)
