"""The register of valid tokens on a cell: one small collection, read whole and seldom, written point by point.

The database looks a token's value up in it at every request, on the node that answers; so each node holds a copy, and
the field that is looked up is indexed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.adapters.cell_requests import ask, path_of
from searchops.adapters.cell_surveys import Effect
from searchops.adapters.qdrant_errors import Missing, translated
from searchops.api.observed import CellIdentity, RegisterState, TokenGrant
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from searchops.adapters.qdrant import QdrantCells
    from searchops.api.observed import CellRegistration

FRESH_SECONDS = 30.0
"""How old a read may be: only this operator writes the collection, so what is seen late is what others did to it."""
PAGE = 2_000
MAX_PAGES = 50
INDEXED = ("token", "uid")
MIN_REPLICAS = 1


@dataclass(slots=True)
class _Known:
    owner: CellIdentity | None
    at: float
    indexed: bool = True
    grants: dict[str, dict[str, TokenGrant]] = field(default_factory=dict)


class QdrantTokens:
    """`TokenRegister` over the cells' open clients.

    Args:
        cells: whose clients and guards are used.
        now: monotonic seconds.
    """

    def __init__(self, cells: QdrantCells, *, now: Callable[[], float] = time.monotonic) -> None:
        self._cells = cells
        self._now = now
        self._known: dict[str, _Known] = {}

    async def read(self, cell: CellRegistration, collection: str, uid: str, *, exists: bool) -> RegisterState:
        """One tenant's entries out of a read of all, which the tenants of the cell share."""
        if not exists:
            self._known.pop(cell.name, None)
            return RegisterState(exists=False)
        known = self._known.get(cell.name)
        if known is None or self._now() - known.at >= FRESH_SECONDS:
            known = await self._read(cell, collection)
            if known is None:
                self._known.pop(cell.name, None)
                return RegisterState(exists=False)
            self._known[cell.name] = known
        grants = tuple(known.grants.get(uid, {}).values())
        return RegisterState(True, known.owner, grants, indexed=known.indexed)

    async def _read(self, cell: CellRegistration, collection: str) -> _Known | None:
        client, started = self._cells.connection(cell).client, self._now()
        try:
            async with translated(cell.name, f"read {collection}"):
                info = await client.get_collection(collection)
                indexed = all(name in (info.payload_schema or {}) for name in INDEXED)
                known = _Known(_owner(info.config.metadata or {}), started, indexed)
                offset: Any = None
                for _ in range(MAX_PAGES):
                    points, offset = await client.scroll(collection, limit=PAGE, offset=offset, with_payload=True)
                    for point in points:
                        grant = _grant(str(point.id), point.payload or {})
                        known.grants.setdefault(grant.uid, {})[grant.id] = grant
                    if offset is None:
                        return known
        except Missing:
            return None
        raise Transient(f"cell {cell.name}: {collection} has more than {PAGE * MAX_PAGES} points; wanted one an entry")

    async def prepare(self, cell: CellRegistration, collection: str, owner: CellIdentity, replicas: int) -> None:
        """Create it with a copy on every node; where it is there already, it must be this owner's."""
        client = self._cells.connection(cell).client
        metadata = {
            "searchops.dev/register": "tokens",
            "searchops.dev/fleet": owner.fleet,
            "searchops.dev/cell": owner.cell,
            "searchops.dev/cluster": owner.cluster,
        }

        async def create() -> None:
            await client.create_collection(
                collection,
                vectors_config={},
                shard_number=1,
                replication_factor=max(MIN_REPLICAS, replicas),
                optimizers_config=models.OptimizersConfigDiff(default_segment_number=1),
                wal_config=models.WalConfigDiff(wal_capacity_mb=1),
                metadata=metadata,
            )

        async def done() -> bool:
            found = await self._read(cell, collection)
            return found is not None and found.owner == owner

        await self._cells.writes.act(cell, f"create {collection}", create, done, Effect(made=collection))
        for name in INDEXED:
            await self._index(cell, collection, name)
        self._known.pop(cell.name, None)

    async def _index(self, cell: CellRegistration, collection: str, name: str) -> None:
        client = self._cells.connection(cell).client

        async def create() -> None:
            await client.create_payload_index(collection, name, models.PayloadSchemaType.KEYWORD, wait=True)

        async def done() -> bool:
            found = await self._cells.describe(cell, collection)
            return found is not None and found.indexes.get(name) == "keyword"

        await self._cells.writes.act(cell, f"index {name} of {collection}", create, done)

    async def grant(self, cell: CellRegistration, collection: str, grants: Sequence[TokenGrant]) -> None:
        """One request, read back: a token that is signed for a value must find it."""
        connection, path = self._cells.connection(cell), path_of(collection, "/points?wait=true")
        points = [{"id": grant.id, "vector": {}, "payload": _payload(grant)} for grant in grants]

        async def put() -> None:
            await ask(connection, cell, "PUT", path, {"points": points})

        async def done() -> bool:
            found = await self._points(cell, collection, [grant.id for grant in grants])
            return sorted(found, key=_by_id) == sorted(grants, key=_by_id)

        await self._written(cell, f"enter tokens into {collection}", put, done)
        known = self._known.get(cell.name)
        if known is not None:
            for grant in grants:
                known.grants.setdefault(grant.uid, {})[grant.id] = grant

    async def revoke(self, cell: CellRegistration, collection: str, ids: Sequence[str]) -> None:
        """Remove points, read back."""
        client = self._cells.connection(cell).client

        async def remove() -> None:
            await client.delete(collection, models.PointIdsList(points=list(ids)), wait=True)

        async def done() -> bool:
            return not await self._points(cell, collection, ids)

        try:
            await self._written(cell, f"revoke tokens in {collection}", remove, done)
        finally:
            self._known.pop(cell.name, None)

    async def _points(self, cell: CellRegistration, collection: str, ids: Sequence[str]) -> list[TokenGrant]:
        connection, path = self._cells.connection(cell), path_of(collection, "/points")
        body = {"ids": list(ids), "with_payload": True, "with_vector": False}
        try:
            async with translated(cell.name, f"read back {collection}"):
                found = await ask(connection, cell, "POST", path, body)
        except Missing:
            return []
        return [_grant(str(point["id"]), point.get("payload") or {}) for point in found]

    async def _written(self, cell: CellRegistration, what: str, act: Any, done: Any) -> None:
        try:
            await self._cells.writes.act(cell, what, act, done, verify=True)
        except BaseException:
            self._known.pop(cell.name, None)
            raise


def _owner(metadata: dict[str, Any]) -> CellIdentity | None:
    if metadata.get("searchops.dev/register") != "tokens":
        return None
    return CellIdentity(*(str(metadata.get(f"searchops.dev/{key}", "")) for key in ("fleet", "cell", "cluster")))


def _payload(grant: TokenGrant) -> dict[str, Any]:
    return {"token": grant.value, "uid": grant.uid, "entry": grant.entry, "secret": grant.secret}


def _by_id(grant: TokenGrant) -> str:
    return grant.id


def _grant(ident: str, payload: dict[str, Any]) -> TokenGrant:
    return TokenGrant(ident, *(str(payload.get(key, "")) for key in ("token", "uid", "entry", "secret")))
