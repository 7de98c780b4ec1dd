"""The world around the operator, in memory: API server, cells, Secrets. Every call is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from searchops.api.observed import (
    AccessSecretState,
    CellIdentity,
    CellRegistration,
    CellState,
    CollectionState,
    SearchProbe,
)
from searchops.planning.names import ACCESS_SECRET_TYPE
from searchops.runtime.errors import Conflict
from searchops.runtime.key import Identity, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from searchops.api.observed import CollectionDesign, PoolRegistration, StrictMode

TENANTS = "searchtenants"
CELL_CAPACITY = 1_000


@dataclass
class Cell:
    """One cell as it is, and the survey of it until the next write."""

    registration: CellRegistration
    identity: CellIdentity | None = None
    collections: dict[str, CollectionState] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    survey: CellState | None = None


class Cells:
    """`CellReader`, `CellWriter` and `CellDirectory` over dictionaries.

    A survey is made anew after a write and shared until then, as the adapter shares one for a moment.
    """

    def __init__(self, count: int) -> None:
        self.by_name = {
            name: Cell(
                CellRegistration(
                    name, {"region": "eu"}, (f"http://{name}:6333",), 6334, CELL_CAPACITY, api_key=name.ljust(40, "k")
                )
            )
            for name in (f"cell-{number:02}" for number in range(count))
        }
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()

    def cells(self) -> dict[str, CellRegistration]:
        return {name: cell.registration for name, cell in self.by_name.items()}

    def pools(self) -> dict[str, PoolRegistration]:
        return {}

    async def survey(self, cell: CellRegistration) -> CellState:
        self.reads["survey"] += 1
        await asyncio.sleep(0)
        held = self.by_name[cell.name]
        if held.survey is None:
            held.survey = CellState(cell, True, "", held.identity, frozenset(held.collections), dict(held.aliases))
        return held.survey

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        self.reads["describe"] += 1
        await asyncio.sleep(0)
        return self.by_name[cell.name].collections.get(collection)

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        self.reads["count"] += 1
        await asyncio.sleep(0)
        del cell, collection, lacking, missed
        return 0

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        self.reads["probe"] += 1
        await asyncio.sleep(0)
        held = self.by_name[cell.name]
        found = held.collections.get(held.aliases.get(alias, ""))
        if found is None or vector not in found.sparse or not token:
            return SearchProbe(False, f"{alias}: no collection with {vector}, or no token")
        return SearchProbe(True)

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        (await self._written(cell, "claim")).identity = identity

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        held = await self._written(cell, "create_collection")
        held.collections[design.name] = CollectionState(
            name=design.name,
            points=0,
            dense=dict(design.dense),
            sparse=frozenset(design.sparse),
            indexes={},
            shards=design.shards,
            replicas=design.replicas,
            strict=design.strict,
            metadata=dict(design.metadata),
        )

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        held = await self._written(cell, "create_index")
        found = held.collections[collection]
        held.collections[collection] = replace(found, indexes={**found.indexes, field: kind})

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        (await self._written(cell, "point_alias")).aliases[alias] = collection

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        (await self._written(cell, "remove_alias")).aliases.pop(alias, None)

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        held = await self._written(cell, "patch_metadata")
        found = held.collections[collection]
        merged: dict[str, str | None] = {**found.metadata, **metadata}
        kept = {key: value for key, value in merged.items() if value is not None}
        held.collections[collection] = replace(found, metadata=kept, strict=strict or found.strict)

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        held = await self._written(cell, "add_vector")
        found = held.collections[collection]
        held.collections[collection] = replace(found, dense={**found.dense, vector: dimension})

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        held = await self._written(cell, "remove_vector")
        found = held.collections[collection]
        kept = {name: size for name, size in found.dense.items() if name != vector}
        held.collections[collection] = replace(found, dense=kept)

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        (await self._written(cell, "drop_collection")).collections.pop(collection, None)

    async def _written(self, cell: CellRegistration, verb: str) -> Cell:
        self.writes[verb] += 1
        await asyncio.sleep(0)
        held = self.by_name[cell.name]
        held.survey = None
        return held


class Secrets:
    """`AccessSecrets` over a dictionary."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], AccessSecretState] = {}
        self.reads = 0
        self.writes = 0

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        self.reads += 1
        await asyncio.sleep(0)
        return self.held.get((namespace, name))

    async def write(
        self,
        namespace: str,
        name: str,
        *,
        owner: Mapping[str, str],
        data: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> AccessSecretState:
        self.writes += 1
        await asyncio.sleep(0)
        made = self.held[namespace, name] = AccessSecretState(
            name,
            ACCESS_SECRET_TYPE,
            owner["uid"],
            annotations["searchops.dev/inputs-digest"],
            annotations["searchops.dev/renew-at"],
            data["token"],
            tenant=annotations["searchops.dev/tenant"],
            token_id=annotations["searchops.dev/token-id"],
            key_id=annotations["searchops.dev/key-id"],
        )
        return made

    async def delete(self, namespace: str, name: str, *, owner_uid: str) -> None:
        del owner_uid
        self.writes += 1
        self.held.pop((namespace, name), None)


class ApiServer:
    """Objects of our kinds, kept as JSON; patches are guarded by resourceVersion and come back as watch events.

    A write to an object that was never put here is counted and comes to nothing.

    Args:
        deliver: takes a watch event: type, plural, object.
    """

    def __init__(self, deliver: Callable[[str | None, str, dict[str, Any]], None]) -> None:
        self._deliver = deliver
        self._objects: dict[tuple[str, Key], str] = {}
        self._version = 1_000
        self.writes: Counter[Key] = Counter()

    def put(self, plural: str, raw: dict[str, Any]) -> None:
        """What another client does: create or replace, with an event."""
        metadata = raw["metadata"]
        key = Key(metadata.get("namespace", ""), metadata["name"])
        known = (plural, key) in self._objects
        self._store(plural, key, raw, "MODIFIED" if known else "ADDED")

    def objects(self, plural: str) -> Iterator[dict[str, Any]]:
        """Every object of a kind."""
        for (kind, _), text in self._objects.items():
            if kind == plural:
                yield json.loads(text)

    def identities(self, plural: str) -> list[Identity]:
        """A metadata-only LIST."""
        return [
            Identity(
                Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"]),
                raw["metadata"]["uid"],
                raw["metadata"]["resourceVersion"],
            )
            for raw in self.objects(plural)
        ]

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        text = self._objects.get((plural, Key(namespace, name)))
        return None if text is None else json.loads(text)

    async def cluster_uid(self) -> str:
        return "cluster-uid"

    async def namespace_uid(self, namespace: str) -> str:
        return f"uid-of-{namespace}"

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return await self._patch(plural, Key(namespace, name), body)

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return await self._patch(plural, Key(namespace, name), body)

    async def _patch(self, plural: str, key: Key, body: Mapping[str, Any]) -> str:
        self.writes[key] += 1
        await asyncio.sleep(0)
        text = self._objects.get((plural, key))
        if text is None:
            self._version += 1
            return str(self._version)
        raw = json.loads(text)
        if body["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} is at {raw['metadata']['resourceVersion']}")
        return self._store(plural, key, merged(raw, body), "MODIFIED")

    def _store(self, plural: str, key: Key, raw: dict[str, Any], event: str) -> str:
        self._version += 1
        version = str(self._version)
        raw["metadata"]["resourceVersion"] = version
        text = self._objects[plural, key] = json.dumps(raw)
        asyncio.get_running_loop().call_soon(self._deliver, event, plural, json.loads(text))
        return version


class ReindexJobs:
    """`ReindexJobs` that counts; none is expected here."""

    def __init__(self) -> None:
        self.writes = 0

    async def create(self, namespace: str, body: Mapping[str, Any]) -> None:
        del namespace, body
        self.writes += 1

    async def delete(self, namespace: str, name: str, *, known_uid: str) -> None:
        del namespace, name, known_uid
        self.writes += 1


class Events:
    """`EventRecorder` that counts by reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        del reference, message, warning
        self.reasons[reason] += 1


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
