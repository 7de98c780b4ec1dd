"""Qdrant cells over qdrant-client's REST API: reads, serial DDL, and the translation of errors.

A create that timed out is looked up before it is repeated (a consensus wait that ends often succeeds later). What
cannot be proved to be ours raises `Terminal`, never an overwrite.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qdrant_client import AsyncQdrantClient, models

from searchops.adapters.qdrant_errors import Missing, Taken, translated
from searchops.api.observed import CellIdentity, CellState, CollectionState, SearchProbe, StrictMode
from searchops.api.retrieval import DELETED_KEY
from searchops.runtime.errors import NotReady, Terminal, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from searchops.api.observed import CellRegistration, CollectionDesign

MARKER = "searchops-cell"
SURVEY_SECONDS = 1.0
SILENT_SECONDS = 3.0
"""How long a cell that did not answer is taken for silent before it is asked again."""
PROBE_LIMIT = 1
NOWHERE = "http://invalid.invalid:1"


@dataclass(slots=True)
class _Survey:
    state: CellState
    at: float


@dataclass(slots=True)
class _Connection:
    client: AsyncQdrantClient
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class QdrantCells:
    """Reads and writes of every cell.

    Args:
        timeout: seconds that one request may take.
        now: monotonic seconds, for the short life of a survey.
    """

    def __init__(self, *, timeout: float = 15.0, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout = max(1, math.ceil(timeout))
        self._now = now
        self._connections: dict[str, _Connection] = {}
        self._writes: dict[str, int] = {}
        self._surveys: dict[str, _Survey] = {}

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            await connection.client.close()
        self._connections.clear()

    # -- reads -------------------------------------------------------------------------------------------------

    async def survey(self, cell: CellRegistration) -> CellState:
        """Collections, aliases and identity in three requests; shared by the reconciles of about a second."""
        try:
            connection = self._connect(cell)
        except NotReady as error:
            return CellState(cell, reachable=False, error=error.message)
        known = self._surveys.get(cell.name)
        silent = known is not None and not known.state.reachable and known.state.registration == cell
        if known is not None and silent and (connection.lock.locked() or self._now() - known.at < SILENT_SECONDS):
            return known.state  # a cell that is silent must not hold the workers that others need
        async with connection.lock:
            known = self._surveys.get(cell.name)
            if known is not None and self._now() - known.at < SURVEY_SECONDS and known.state.registration == cell:
                return known.state
            writes = self._writes.get(cell.name, 0)
            state = await self._survey(cell, connection.client)
            if self._writes.get(cell.name, 0) == writes:  # else it may show what was before a write of ours
                self._surveys[cell.name] = _Survey(state, self._now())
            return state

    async def _survey(self, cell: CellRegistration, client: AsyncQdrantClient) -> CellState:
        try:
            async with translated(cell.name, "survey"):
                names = frozenset(item.name for item in (await client.get_collections()).collections)
                aliases = {item.alias_name: item.collection_name for item in (await client.get_aliases()).aliases}
                identity = await self._identity(client) if MARKER in names else None
        except (Transient, NotReady, Terminal) as error:
            return CellState(cell, reachable=False, error=error.message)
        return CellState(cell, True, "", identity, names - {MARKER}, aliases)

    async def _identity(self, client: AsyncQdrantClient) -> CellIdentity | None:
        info = await client.get_collection(MARKER)
        metadata = info.config.metadata or {}
        return CellIdentity(
            str(metadata.get("searchops.dev/fleet", "")),
            str(metadata.get("searchops.dev/cell", "")),
            str(metadata.get("searchops.dev/cluster", "")),
        )

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection, or None on 404."""
        client = self._connect(cell).client
        try:
            async with translated(cell.name, f"describe {collection}"):
                info = await client.get_collection(collection)
        except Missing:
            return None
        return _state(collection, info)

    async def count(self, cell: CellRegistration, collection: str, *, lacking: str | None = None) -> int:
        """Exact number of live points (tombstones excluded), or of those that lack the named vector."""
        live: list[Any] = [models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))]
        without: list[Any] = [models.HasVectorCondition(has_vector=lacking)] if lacking else []
        client = self._connect(cell).client
        async with translated(cell.name, f"count {collection}"):
            answer = await client.count(
                collection, count_filter=models.Filter(must=live, must_not=without or None), exact=True
            )
        return answer.count

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """A real sparse query through the alias with the tenant's own token."""
        try:
            client = self._client(cell, token)
        except NotReady as error:
            return SearchProbe(False, error.message)
        query = models.SparseVector(indices=[1], values=[1.0])
        try:
            async with translated(cell.name, f"search {alias}"):
                await client.query_points(alias, query=query, using=vector, limit=PROBE_LIMIT, with_payload=False)
        except (Transient, NotReady, Terminal) as error:
            return SearchProbe(False, error.message)
        finally:
            await client.close()
        return SearchProbe(True)

    # -- writes ------------------------------------------------------------------------------------------------

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        """Create the marker collection with this identity; one that is there already is compared, never overwritten."""
        client = self._connect(cell).client
        metadata = {
            "searchops.dev/fleet": identity.fleet,
            "searchops.dev/cell": identity.cell,
            "searchops.dev/cluster": identity.cluster,
        }

        async def create() -> None:
            await client.create_collection(MARKER, vectors_config={}, metadata=metadata)

        async def done() -> bool:
            found = await self.describe(cell, MARKER)
            return found is not None and await self._identity(client) == identity

        await self._write(cell, "claim the cell", create, done)

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        """Create with vectors, strict mode and metadata; an existing one with the same owner is success."""
        client = self._connect(cell).client
        wanted = dict(design.metadata)

        async def create() -> None:
            await client.create_collection(
                design.name,
                vectors_config={name: _dense(dimension) for name, dimension in design.dense},
                sparse_vectors_config={name: _sparse() for name in design.sparse},
                shard_number=design.shards,
                replication_factor=design.replicas,
                on_disk_payload=True,
                optimizers_config=models.OptimizersConfigDiff(default_segment_number=1),
                wal_config=models.WalConfigDiff(wal_capacity_mb=4),
                strict_mode_config=_strict(design.strict),
                metadata=wanted,
            )

        async def done() -> bool:
            found = await self.describe(cell, design.name)
            return found is not None and _same_owner(found.metadata, wanted)

        await self._write(cell, f"create {design.name}", create, done)

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        """Payload index on a field."""
        client = self._connect(cell).client

        async def create() -> None:
            await client.create_payload_index(collection, field, models.PayloadSchemaType(kind), wait=True)

        async def done() -> bool:
            found = await self.describe(cell, collection)
            return found is not None and found.indexes.get(field) == kind

        await self._write(cell, f"index {field} of {collection}", create, done)

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        """Create or move one alias, one action a request (several are not all-or-nothing), and read it back."""
        client = self._connect(cell).client
        action = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )

        async def move() -> None:
            await client.update_collection_aliases([action])

        async def done() -> bool:
            return await self._alias(cell, alias) == collection

        await self._write(cell, f"point {alias} to {collection}", move, done, verify=True)

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        """Remove an alias; a missing one is success."""
        client = self._connect(cell).client
        action = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))

        async def remove() -> None:
            await client.update_collection_aliases([action])

        async def done() -> bool:
            return await self._alias(cell, alias) is None

        await self._write(cell, f"remove alias {alias}", remove, done)

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        """One PATCH, read back: flat keys whole, None removes."""
        client = self._connect(cell).client

        async def patch() -> None:
            await client.update_collection(
                collection,
                metadata=dict(metadata) or None,
                strict_mode_config=_strict(strict) if strict is not None else None,
            )

        async def done() -> bool:
            found = await self.describe(cell, collection)
            if found is None:
                return False
            same = all(found.metadata.get(key) == value for key, value in metadata.items())
            return same and (strict is None or found.strict == strict)

        await self._write(cell, f"patch {collection}", patch, done, verify=True)

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        """Add a named dense vector."""
        client = self._connect(cell).client
        config = models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(size=dimension, distance=models.Distance.COSINE)
        )

        async def add() -> None:
            await client.create_vector_name(collection, vector, config)

        async def done() -> bool:
            found = await self.describe(cell, collection)
            size = found.dense.get(vector) if found is not None else None
            if size is not None and size != dimension:
                seen = f"cell {cell.name}: vector {vector} of {collection} has {size} dimensions"
                raise Terminal("Conflict", describe(seen, wanted=str(dimension), next_step="Remove it, or rebuild."))
            return size == dimension

        await self._write(cell, f"add vector {vector} to {collection}", add, done, verify=True)

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        """Remove a named vector; a missing one is success."""
        client = self._connect(cell).client

        async def remove() -> None:
            await client.delete_vector_name(collection, vector)

        async def done() -> bool:
            found = await self.describe(cell, collection)
            return found is not None and vector not in found.dense

        await self._write(cell, f"remove vector {vector} of {collection}", remove, done)

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        """Drop a collection; a missing one is success."""
        client = self._connect(cell).client

        async def drop() -> None:
            await client.delete_collection(collection)

        async def done() -> bool:
            return await self.describe(cell, collection) is None

        await self._write(cell, f"drop {collection}", drop, done, verify=True)

    # -- within ------------------------------------------------------------------------------------------------

    async def _alias(self, cell: CellRegistration, alias: str) -> str | None:
        client = self._connect(cell).client
        async with translated(cell.name, "read aliases"):
            found = (await client.get_aliases()).aliases
        return next((item.collection_name for item in found if item.alias_name == alias), None)

    async def _write(
        self,
        cell: CellRegistration,
        what: str,
        act: Callable[[], Awaitable[None]],
        done: Callable[[], Awaitable[bool]],
        *,
        verify: bool = False,
    ) -> None:
        """Act once; where the answer leaves the effect open (time-out, conflict, missing), read before judging."""
        self._forget(cell)
        try:
            async with translated(cell.name, what):
                await act()
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
            raise
        finally:
            self._forget(cell)
        if verify and not await done():
            raise Transient(
                f"cell {cell.name} answered that it did {what}, but a read does not show it; it is tried again"
            )

    def _connect(self, cell: CellRegistration) -> _Connection:
        """A connection per address and key; an edited Secret makes a new one."""
        parts = (cell.name, *cell.urls, cell.api_key, cell.ca_cert or "")
        identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        found = self._connections.get(identity)
        if found is None:
            client = self._client(cell, cell.api_key)
            found = self._connections[identity] = _Connection(client)
        return found

    def _client(self, cell: CellRegistration, credential: str) -> AsyncQdrantClient:
        """A client of the cell; the credential goes as a header, which the library neither warns of nor prints."""
        options: dict[str, Any] = {}
        if cell.ca_cert is not None:
            try:
                options["verify"] = ssl.create_default_context(cadata=cell.ca_cert)
            except ssl.SSLError as error:
                raise NotReady(
                    "CellUnreachable",
                    f"cell {cell.name}: caCert of its Secret cannot be read ({error}); wanted PEM. Correct it.",
                ) from error
        return AsyncQdrantClient(
            url=cell.urls[0] if cell.urls else NOWHERE,
            headers={"api-key": credential} if credential else None,
            timeout=self._timeout,
            check_compatibility=False,
            prefer_grpc=False,
            **options,
        )

    def _forget(self, cell: CellRegistration) -> None:
        """Nothing that was surveyed before a write, or while it went on, is shown after it."""
        self._surveys.pop(cell.name, None)
        self._writes[cell.name] = self._writes.get(cell.name, 0) + 1


def _dense(dimension: int) -> models.VectorParams:
    return models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=True)


def _sparse() -> models.SparseVectorParams:
    return models.SparseVectorParams(modifier=models.Modifier.IDF)


def _strict(strict: StrictMode) -> models.StrictModeConfig:
    return models.StrictModeConfig(
        enabled=True,
        max_points_count=strict.max_points,
        max_collection_vector_size_bytes=strict.max_vector_bytes,
        read_rate_limit=strict.reads_per_minute,
        write_rate_limit=strict.writes_per_minute,
        upsert_max_batchsize=strict.upsert_batch,
        max_query_limit=strict.query_limit,
    )


def _same_owner(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """A collection without any owner is nobody's: it is never taken for ours."""
    keys = ("searchops.dev/fleet", "searchops.dev/uid", "searchops.dev/generation")
    return bool(wanted.get(keys[0])) and all(found.get(key) == wanted.get(key) for key in keys)


def _state(name: str, info: models.CollectionInfo) -> CollectionState:
    params = info.config.params
    vectors = params.vectors if isinstance(params.vectors, dict) else {}
    strict = info.config.strict_mode_config
    queue = getattr(info, "update_queue", None)
    return CollectionState(
        name=name,
        points=info.points_count or 0,
        dense={vector: config.size for vector, config in vectors.items()},
        sparse=frozenset((params.sparse_vectors or {}).keys()),
        indexes={field: str(schema.data_type.value) for field, schema in (info.payload_schema or {}).items()},
        shards=params.shard_number or 1,
        replicas=params.replication_factor or 1,
        strict=_read_strict(strict) if strict is not None else None,
        metadata={key: value for key, value in (info.config.metadata or {}).items() if isinstance(value, str)},
        status=str(info.status.value),
        pending_updates=getattr(queue, "length", 0) or 0,
    )


def _read_strict(strict: Any) -> StrictMode:
    return StrictMode(
        max_points=strict.max_points_count or 0,
        max_vector_bytes=strict.max_collection_vector_size_bytes or 0,
        reads_per_minute=strict.read_rate_limit or 0,
        writes_per_minute=strict.write_rate_limit or 0,
        upsert_batch=strict.upsert_max_batchsize or 0,
        query_limit=strict.max_query_limit or 0,
    )
