"""Reads of a whole cell, as plain JSON: one model an alias would cost a survey more than the server's answer.

Each function is one request, but for `contents`, which is two, and `load`, one to each node; none is repeated here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops.adapters.cell_requests import ask_each, ask_raw, path_of
from searchops.adapters.qdrant_shapes import collection_state, flat_metadata, read_strict
from searchops.api.observed import CellContents, CellIdentity, CellLoad, CollectionOutline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.adapters.cell_connections import Connection
    from searchops.api.observed import CellRegistration, CollectionState

MARKER = "searchops-cell"
_POINTS = re.compile(r'^collection_points\{id="([^"]*)"\} ([0-9.e+]+)$')
_QUOTA = re.compile(r"^quota_exceeded(\{[^}]*\})? ([0-9.e+]+)$")
_GAUGE = re.compile(r"^(process_open_mmaps|system_max_mmaps|process_open_fds|process_max_fds) ([0-9.e+]+)$")


async def version(connection: Connection, cell: CellRegistration) -> str:
    """What the server says it is; empty where it says nothing."""
    answer = await _get(connection, cell, "/")
    return str(answer.get("version") or "")


async def names(connection: Connection, cell: CellRegistration) -> frozenset[str]:
    """Names of every collection."""
    answer = await _get(connection, cell, "/collections")
    return frozenset(item["name"] for item in answer["result"]["collections"])


async def aliases(connection: Connection, cell: CellRegistration) -> dict[str, str]:
    """Every alias and the collection that it points to."""
    answer = await _get(connection, cell, "/aliases")
    return {item["alias_name"]: item["collection_name"] for item in answer["result"]["aliases"]}


async def aliases_of(connection: Connection, cell: CellRegistration, collection: str) -> frozenset[str]:
    """The aliases of one collection."""
    answer = await _get(connection, cell, path_of(collection, "/aliases"))
    return frozenset(item["alias_name"] for item in answer["result"]["aliases"])


async def collection(connection: Connection, cell: CellRegistration, name: str) -> CollectionState:
    """One collection with its payload indexes."""
    answer = await _get(connection, cell, path_of(name))
    try:
        return collection_state(name, answer["result"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ResponseHandlingException(ValueError(f"its description has another form: {error!r}")) from error


async def identity(connection: Connection, cell: CellRegistration) -> CellIdentity:
    """Who claimed the cell, from its marker."""
    answer = await _get(connection, cell, f"/collections/{MARKER}")
    return _identity(answer["result"]["config"].get("metadata") or {})


async def contents(connection: Connection, cell: CellRegistration, *, own_index_writes: int) -> CellContents:
    """Every collection's configuration and every alias: the bulk read, in two requests."""
    answer = (await _get(connection, cell, "/telemetry?details_level=2"))["result"]
    pointing = await aliases(connection, cell)
    try:
        return _contents(connection, cell, answer, pointing, own_index_writes)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResponseHandlingException(ValueError(f"its telemetry has another form: {error!r}")) from error


def _contents(
    connection: Connection, cell: CellRegistration, answer: dict[str, Any], pointing: dict[str, str], own: int
) -> CellContents:
    listed = answer["collections"].get("collections")
    if listed is None:
        raise UnexpectedResponse(
            403, "Forbidden", b"its telemetry names no collections: the key may not read it", httpx.Headers()
        )
    configurations = {item["id"]: item["config"] for item in listed}
    marker = configurations.pop(MARKER, None)
    seen = _index_writes(answer.get("requests") or {})
    return CellContents(
        registration=cell,
        version=str(answer["app"].get("version") or ""),
        identity=None if marker is None else _identity(marker.get("metadata") or {}),
        collections={name: outline(name, config) for name, config in configurations.items()},
        aliases=pointing,
        foreign_index_writes=seen - own,
        server=f"{connection.nodes.current} {answer['app'].get('startup', '')}",
    )


async def load(connection: Connection, cell: CellRegistration) -> CellLoad:
    """Points by collection and what binds the processes, from every node's metrics: the fullest node counts.

    A collection has a replica on as many nodes as it likes, and each of them is used up by itself.
    """
    nodes = [_node_load(text.decode(errors="replace")) for text in await ask_each(connection, cell, "/metrics")]
    points: dict[str, int] = {}
    for node in nodes:
        for name, count in node.points.items():
            points[name] = max(count, points.get(name, 0))
    return CellLoad(
        points,
        max((node.maps_percent for node in nodes if node.maps_percent is not None), default=None),
        max((node.files_percent for node in nodes if node.files_percent is not None), default=None),
        next((node.full for node in nodes if node.full), ""),
    )


def _node_load(text: str) -> CellLoad:
    points: dict[str, int] = {}
    gauges: dict[str, float] = {}
    full = ""
    for line in text.splitlines():
        if line.startswith("collection_points{") and (match := _POINTS.match(line)):
            points[match[1]] = int(float(match[2]))
        elif match := _GAUGE.match(line):
            gauges[match[1]] = float(match[2])
        elif (match := _QUOTA.match(line)) and float(match[2]) > 0:
            full = full or f"its metrics say {line.strip()}"
    return CellLoad(
        points,
        _percent(gauges, "process_open_mmaps", "system_max_mmaps"),
        _percent(gauges, "process_open_fds", "process_max_fds"),
        full,
    )


def outline(name: str, config: Mapping[str, Any]) -> CollectionOutline:
    """One collection of the telemetry."""
    params = config["params"]
    vectors = params.get("vectors") or {}
    sparse = params.get("sparse_vectors") or {}
    strict = config.get("strict_mode_config")
    metadata = config.get("metadata") or {}
    whole = (params, strict, metadata)
    return CollectionOutline(
        name=name,
        digest=hash(json.dumps(whole, sort_keys=True)),
        dense={} if "size" in vectors else {vector: item["size"] for vector, item in vectors.items()},
        sparse=frozenset(sparse),
        shards=params.get("shard_number") or 1,
        replicas=params.get("replication_factor") or 1,
        strict=None if strict is None else read_strict(strict),
        metadata=flat_metadata(metadata),
    )


def _identity(metadata: Mapping[str, Any]) -> CellIdentity:
    found = (str(metadata.get(f"searchops.dev/{key}", "")) for key in ("fleet", "cell", "cluster"))
    return CellIdentity(*found)


def _index_writes(requests: Mapping[str, Any]) -> int:
    """Requests to make or remove a payload index, over both protocols, whatever they were answered."""
    count = 0
    for protocol, mark in (("rest", "/index"), ("grpc", "FieldIndex")):
        answered = (requests.get(protocol) or {}).get("responses") or {}
        for endpoint, by_status in answered.items():
            if mark in endpoint:
                count += sum(int(item.get("count") or 0) for item in by_status.values())
    return count


def _percent(gauges: Mapping[str, float], used: str, limit: str) -> int | None:
    if used not in gauges or not gauges.get(limit):
        return None
    return int(gauges[used] * 100 // gauges[limit])


async def _get(connection: Connection, cell: CellRegistration, path: str) -> dict[str, Any]:
    text = await ask_raw(connection, cell, "GET", path)
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ResponseHandlingException(error) from error
    return found
