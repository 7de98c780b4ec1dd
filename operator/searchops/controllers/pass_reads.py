"""What one pass over a tenant has read already, or has made itself: the next round of the same pass need not ask again.

It lives for one pass only. A round that has written to the tenant's collections forgets them; a Secret is known by the
API server's own answer to the write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchops.api.observed import AccessSecretState, CellRegistration, CollectionState, SearchProbe
    from searchops.ports import AccessSecrets, CellReader


class PassReads:
    """Reads of one pass.

    Args:
        cells: where collections are read.
        secrets: where Secrets are read.
    """

    def __init__(self, cells: CellReader, secrets: AccessSecrets) -> None:
        self._cells = cells
        self._ports = secrets
        self._collections: dict[tuple[str, str], CollectionState | None] = {}
        self._secrets: dict[str, AccessSecretState | None] = {}

    async def collection(self, cell: CellRegistration, name: str) -> CollectionState | None:
        """A collection of a cell, or None."""
        place = cell.name, name
        if place not in self._collections:
            self._collections[place] = await self._cells.describe(cell, name)
        return self._collections[place]

    async def secret(self, namespace: str, name: str) -> AccessSecretState | None:
        """A Secret of the tenant's namespace, or None."""
        if name not in self._secrets:
            self._secrets[name] = await self._ports.read(namespace, name)
        return self._secrets[name]

    async def probe(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """A query through the alias: asked anew by every round that wants one."""
        return await self._cells.probe_search(cell, alias, vector, token)

    def wrote_secret(self, found: AccessSecretState) -> None:
        """The API server has said what is there now."""
        self._secrets[found.name] = found

    def removed_secret(self, name: str) -> None:
        """A deletion was asked for; what is there now has to be read."""
        self._secrets.pop(name, None)

    def wrote_cell(self) -> None:
        """Something on a cell was changed: every collection is read anew."""
        self._collections.clear()
