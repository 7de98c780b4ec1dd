"""Where a caller's tenant stands, whoever judges its token."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from searchops_workers.gateway.bindings import CACHED
from searchops_workers.gateway.callers import VerifiedCaller
from searchops_workers.gateway.cells import Gone
from searchops_workers.gateway.doors import Tenancy
from searchops_workers.gateway.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops_workers.gateway.bindings import Bindings
    from searchops_workers.gateway.callers import AnyCaller
    from searchops_workers.gateway.shared import SharedTenants


LOOK_SECONDS = 1.0
"""For a tenant that is nowhere, its cell is read anew at most this often, however many clients it has left."""


class Tenants:
    """Tenants with a collection of their own, and those that share one.

    Args:
        bindings: reads the former with the caller's token.
        shared: reads the latter with the gateway's.
        clock: monotonic seconds.
    """

    def __init__(self, bindings: Bindings, shared: SharedTenants, *, clock: Callable[[], float]) -> None:
        self._bindings = bindings
        self._shared = shared
        self._looked: Readings[tuple[str, str], bool] = Readings(seconds=LOOK_SECONDS, clock=clock, kept=CACHED)

    async def read(self, caller: AnyCaller, *, fresh: bool = False) -> Tenancy:
        """The caller's tenant; `fresh` passes the cache over.

        Raises:
            Problem: what the database answered, that the token was revoked, or that there is no binding.
        """
        if isinstance(caller, VerifiedCaller):
            try:
                return await self._shared.read(caller, fresh=fresh)
            except Gone:
                if fresh:
                    raise
                await self._looked.read((caller.cell, caller.uid), lambda: self._look(caller))
                return await self._shared.read(caller)  # provisioned, taken back or moved a moment ago
        return Tenancy(caller, await self._bindings.read(caller, fresh=fresh))

    async def _look(self, caller: VerifiedCaller) -> bool:
        """Read the cell's shared collections anew; what is known afterwards is what this has found."""
        with suppress(Gone):
            await self._shared.read(caller, fresh=True)
        return True

    async def points(self, caller: AnyCaller, tenancy: Tenancy) -> int:
        """How many points the tenant has, tombstones included; approximately in a collection of its own."""
        if isinstance(caller, VerifiedCaller):
            return await self._shared.points(tenancy.door)
        return tenancy.bindings.points
