"""Qdrant cells over qdrant-client's REST API: reads, serial DDL, and the translation of errors.

A create that timed out is looked up before it is repeated (a consensus wait that ends often succeeds later). What
cannot be proved to be ours raises `Terminal`, never an overwrite.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.adapters import cell_reads
from searchops.adapters.cell_connections import CellConnections
from searchops.adapters.cell_requests import ask, path_of
from searchops.adapters.cell_surveys import Effect, Surveys
from searchops.adapters.cell_writes import CellWrites
from searchops.adapters.qdrant_errors import Missing, translated
from searchops.adapters.qdrant_recall import measure
from searchops.adapters.qdrant_shapes import new_collection, same_owner, strict_config
from searchops.api.observed import CellState, SearchProbe
from searchops.api.retrieval import DELETED_KEY, MISSED_KEY
from searchops.runtime.errors import NotReady, Terminal, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.adapters.cell_connections import Connection
    from searchops.api.observed import (
        CellContents,
        CellIdentity,
        CellLoad,
        CellRegistration,
        CollectionDesign,
        CollectionState,
        RecallSample,
        StrictMode,
    )
    from searchops.api.shared import SliceAddress

MARKER = cell_reads.MARKER
SURVEY_SECONDS = 1.0
SILENT_SECONDS = 3.0
"""How long a cell that did not answer is taken for silent before it is asked again."""
VERSION_SECONDS = 60.0
PROBE_LIMIT = 1
ALIASES = "/collections/aliases"
TENANT_TOKEN = "It is the tenant's token that is refused; apiKey in the cell's Secret was not asked with."  # noqa: S105


class QdrantCells:
    """Reads and writes of every cell.

    Args:
        timeout: seconds that one request may take.
        now: monotonic seconds, for the short life of a survey.
        full: told of a cell that is out of disk or memory, with what it said.

    Attributes:
        writes: the guard that every write to a cell goes through, whoever makes it.
    """

    def __init__(
        self,
        *,
        timeout: float = 15.0,
        now: Callable[[], float] = time.monotonic,
        full: Callable[[str, str], object] = lambda cell, said: None,
    ) -> None:
        self._now = now
        self._full = full
        self._connections = CellConnections(timeout=timeout, now=now)
        self._surveys = Surveys()
        self.writes = CellWrites(self._connections, self._surveys, full)
        self._loads: dict[str, CellLoad] = {}
        self._index_writes: dict[str, int] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    # -- reads -------------------------------------------------------------------------------------------------

    async def survey(self, cell: CellRegistration) -> CellState:
        """Collections, aliases, identity and version; read once for the reconciles of about a second."""
        try:
            connection = self._connections.get(cell)
        except NotReady as error:
            return CellState(cell, reachable=False, error=error.message)
        known = self._surveys.get(cell.name)
        silent = known is not None and not known.state.reachable and known.state.registration == cell
        if known is not None and silent and (connection.lock.locked() or self._now() - known.at < SILENT_SECONDS):
            return known.state  # a cell that is silent must not hold the workers that others need
        async with connection.lock:
            known = self._surveys.get(cell.name)
            if (
                known is not None
                and known.node == connection.nodes.current
                and self._now() - known.at < SURVEY_SECONDS
                and known.state.registration == cell
            ):
                return known.state
            reading = self._surveys.begin(cell.name)
            try:
                state = await self._survey(cell, connection)
            finally:
                self._surveys.end(cell.name, reading)
            return self._surveys.keep(reading, state, at=self._now(), node=connection.nodes.current)

    async def _survey(self, cell: CellRegistration, connection: Connection) -> CellState:
        """All of it from one node: names of one and the identity of another would prove nothing."""
        try:
            for _ in range(len(connection.nodes)):
                node = connection.nodes.current
                async with translated(cell.name, "survey"):
                    names = await cell_reads.names(connection, cell)
                    aliases = await cell_reads.aliases(connection, cell)
                    identity = await cell_reads.identity(connection, cell) if MARKER in names else None
                    version = await self._version(cell, connection)
                if connection.nodes.current == node:
                    connection.surveyed = node
                    maps, files = self._filled(cell)
                    return CellState(cell, True, "", identity, names - {MARKER}, aliases, maps, files, version)
        except (Transient, NotReady, Terminal) as error:
            return CellState(cell, reachable=False, error=error.message)
        return CellState(cell, reachable=False, error=f"cell {cell.name}: its nodes fail one after another")

    async def _version(self, cell: CellRegistration, connection: Connection) -> str:
        """Read at times only: a server is not replaced by the second."""
        known, at = connection.version.get(connection.nodes.current, ("", -VERSION_SECONDS))
        if self._now() - at < VERSION_SECONDS:
            return known
        found = await cell_reads.version(connection, cell)
        connection.version[connection.nodes.current] = found, self._now()
        return found

    async def contents(self, cell: CellRegistration) -> CellContents:
        """Every collection's configuration and every alias, in two requests; a survey for the passes that follow."""
        connection = self._connections.get(cell)
        own, node = self._index_writes.get(cell.name, 0), connection.nodes.current
        reading = self._surveys.begin(cell.name)
        try:
            async with translated(cell.name, "bulk read"):
                found = await cell_reads.contents(connection, cell, own_index_writes=own)
        finally:
            self._surveys.end(cell.name, reading)
        if connection.nodes.current == node:
            connection.surveyed = node
            self._surveys.keep(reading, self._state(found), at=self._now(), node=node)
        unmixed = self._index_writes.get(cell.name, 0) == own
        return found if unmixed else replace(found, foreign_index_writes=None)

    def _state(self, found: CellContents) -> CellState:
        cell, names = found.registration, frozenset(found.collections)
        maps, files = self._filled(cell)
        return CellState(cell, True, "", found.identity, names, found.aliases, maps, files, found.version)

    def _filled(self, cell: CellRegistration) -> tuple[int | None, int | None]:
        """Memory maps and open files of the fullest node, in percent, as its metrics were read last."""
        load = self._loads.get(cell.name)
        return (None, None) if load is None else (load.maps_percent, load.files_percent)

    async def load(self, cell: CellRegistration) -> CellLoad:
        """Points by collection, memory maps and open files of the fullest node, in one request to each node."""
        async with translated(cell.name, "read metrics"):
            found = await cell_reads.load(self._connections.get(cell), cell)
        self._loads[cell.name] = found
        if found.full:
            self._full(cell.name, found.full)
        return found

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection, or None on 404."""
        connection = self._connections.get(cell)
        try:
            async with translated(cell.name, f"describe {collection}"):
                return await cell_reads.collection(connection, cell, collection)
        except Missing:
            return None

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        """Exact number of live points (tombstones excluded), of those that lack a vector, or of all with this mark."""
        live: list[Any] = [models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))]
        without: list[Any] = [models.HasVectorCondition(has_vector=lacking)] if lacking else []
        if missed is not None:
            live = [models.FieldCondition(key=MISSED_KEY, match=models.MatchValue(value=missed))]
        client = self._connections.get(cell).client
        async with translated(cell.name, f"count {collection}"):
            answer = await client.count(
                collection, count_filter=models.Filter(must=live, must_not=without or None), exact=True
            )
        return answer.count

    async def recall(
        self, cell: CellRegistration, collection: str, vector: str, *, within: SliceAddress | None = None
    ) -> RecallSample:
        """Approximate against exact search with stored vectors as queries, among one tenant's points alone if told."""
        client = self._connections.get(cell).client
        async with translated(cell.name, f"measure recall of {collection}"):
            return await measure(client, collection, vector, within)

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """A real sparse query through the alias with the tenant's own token."""
        if not all("!" <= char <= "~" for char in token):
            return SearchProbe(False, f"the token for {alias} holds characters that no HTTP header may")
        query = {"indices": [1], "values": [1.0]}
        body = {"query": query, "using": vector, "limit": PROBE_LIMIT, "with_payload": False}
        try:
            connection, path = self._connections.get(cell), path_of(alias, "/points/query")
            async with translated(cell.name, f"search {alias}", refused=TENANT_TOKEN):
                await ask(connection, cell, "POST", path, body, credential=token)
        except (Transient, NotReady, Terminal) as error:
            return SearchProbe(False, error.message)
        return SearchProbe(True)

    # -- writes ------------------------------------------------------------------------------------------------

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        """Create the marker collection with this identity; one that is there already is compared, never overwritten."""
        connection = self._connections.get(cell)
        client = connection.client
        metadata = {
            "searchops.dev/fleet": identity.fleet,
            "searchops.dev/cell": identity.cell,
            "searchops.dev/cluster": identity.cluster,
        }

        async def create() -> None:
            await client.create_collection(MARKER, vectors_config={}, metadata=metadata)

        async def done() -> bool:
            found = await self.describe(cell, MARKER)
            return found is not None and await cell_reads.identity(connection, cell) == identity

        await self.writes.act(cell, "claim the cell", create, done, Effect(identity=identity))

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        """Create with vectors, strict mode and metadata; an existing one with the same owner is success."""
        connection, wanted = self._connections.get(cell), dict(design.metadata)

        async def create() -> None:
            await ask(connection, cell, "PUT", path_of(design.name), new_collection(design))

        async def done() -> bool:
            found = await self.describe(cell, design.name)
            return found is not None and same_owner(found.metadata, wanted)

        await self.writes.act(cell, f"create {design.name}", create, done, Effect(made=design.name))

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        """Payload index on a field."""
        connection, path = self._connections.get(cell), path_of(collection, "/index?wait=true")

        async def create() -> None:
            self.indexed(cell)
            await ask(connection, cell, "PUT", path, {"field_name": field, "field_schema": kind})

        async def done() -> bool:
            found = await self.describe(cell, collection)
            return found is not None and found.indexes.get(field) == kind

        await self.writes.act(cell, f"index {field} of {collection}", create, done)

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        """Create or move one alias, one action a request (several are not all-or-nothing), and read it back."""
        connection = self._connections.get(cell)
        action = {"create_alias": {"collection_name": collection, "alias_name": alias}}

        async def move() -> None:
            await ask(connection, cell, "POST", ALIASES, {"actions": [action]})

        async def done() -> bool:
            try:
                async with translated(cell.name, f"read aliases of {collection}"):
                    return alias in await cell_reads.aliases_of(connection, cell, collection)
            except Missing:
                return False

        effect = Effect(alias=(alias, collection))
        await self.writes.act(cell, f"point {alias} to {collection}", move, done, effect, verify=True)

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        """Remove an alias; a missing one is success."""
        connection = self._connections.get(cell)
        action = {"delete_alias": {"alias_name": alias}}

        async def remove() -> None:
            await ask(connection, cell, "POST", ALIASES, {"actions": [action]})

        async def done() -> bool:
            async with translated(cell.name, "read aliases"):
                return alias not in await cell_reads.aliases(connection, cell)

        await self.writes.act(cell, f"remove alias {alias}", remove, done, Effect(alias=(alias, None)))

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        """One PATCH, read back: flat keys whole, None removes."""
        connection = self._connections.get(cell)
        body: dict[str, Any] = {"metadata": dict(metadata)} if metadata else {}
        if strict is not None:
            body["strict_mode_config"] = strict_config(strict)

        async def patch() -> None:
            await ask(connection, cell, "PATCH", path_of(collection), body)

        async def done() -> bool:
            found = await self.describe(cell, collection)
            if found is None:
                return False
            same = all(found.metadata.get(key) == value for key, value in metadata.items())
            return same and (strict is None or found.strict == strict)

        await self.writes.act(cell, f"patch {collection}", patch, done, verify=True)

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        """Add a named dense vector."""
        client = self._connections.get(cell).client
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

        await self.writes.act(cell, f"add vector {vector} to {collection}", add, done, verify=True)

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        """Remove a named vector; a missing one is success."""
        client = self._connections.get(cell).client

        async def remove() -> None:
            await client.delete_vector_name(collection, vector)

        async def done() -> bool:
            found = await self.describe(cell, collection)
            return found is not None and vector not in found.dense

        await self.writes.act(cell, f"remove vector {vector} of {collection}", remove, done)

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        """Drop a collection; a missing one is success."""
        client = self._connections.get(cell).client

        async def drop() -> None:
            await client.delete_collection(collection)

        async def done() -> bool:
            return await self.describe(cell, collection) is None

        await self.writes.act(cell, f"drop {collection}", drop, done, Effect(dropped=collection), verify=True)

    # -- for the register of tokens and for shared collections --------------------------------------------------

    def indexed(self, cell: CellRegistration) -> None:
        """An index is about to be made by us: a bulk read must be able to leave it out."""
        self._index_writes[cell.name] = self._index_writes.get(cell.name, 0) + 1

    def connection(self, cell: CellRegistration) -> Connection:
        """The cell's open client, shared with whoever else talks to it.

        Raises:
            NotReady: the cell has no address, or a certificate that cannot be read.
        """
        return self._connections.get(cell)
