"""Cells that answer the bulk reads over HTTP as a real server does, from bytes made beforehand; requests are counted.

What a real server needs to make the answer is not in the figure (14 to 22 ms for 800 collections: measured elsewhere);
what its reader needs is.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from searchops.api.observed import CellRegistration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.observed import CollectionDesign

SERVER_SETTINGS: dict[str, Any] = {
    "hnsw_config": {
        "m": 16,
        "ef_construct": 100,
        "full_scan_threshold": 10000,
        "max_indexing_threads": 0,
        "on_disk": False,
    },
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 1,
        "max_segment_size": None,
        "memmap_threshold": None,
        "indexing_threshold": 10000,
        "flush_interval_sec": 5,
        "max_optimization_threads": None,
        "prevent_unoptimized": None,
    },
    "wal_config": {"wal_capacity_mb": 4, "wal_segments_ahead": 0, "wal_retain_closed": 1},
    "quantization_config": None,
    "uuid": None,
}
"""What a server adds by itself: a part of what has to be read."""


def configuration(design: CollectionDesign) -> dict[str, Any]:
    """A collection's configuration in the form of the telemetry."""
    strict = design.strict
    return {
        "params": {
            "vectors": {name: {"size": size, "distance": "Cosine", "on_disk": True} for name, size in design.dense},
            "sparse_vectors": {name: {"modifier": "idf"} for name in design.sparse},
            "shard_number": design.shards,
            "replication_factor": design.replicas,
            "write_consistency_factor": 1,
            "on_disk_payload": True,
        },
        "strict_mode_config": {
            "enabled": True,
            "max_points_count": strict.max_points,
            "max_collection_vector_size_bytes": strict.max_vector_bytes,
            "read_rate_limit": strict.reads_per_minute,
            "write_rate_limit": strict.writes_per_minute,
            "upsert_max_batchsize": strict.upsert_batch,
            "max_query_limit": strict.query_limit,
        },
        "metadata": dict(design.metadata),
        **SERVER_SETTINGS,
    }


class ServedCell:
    """``async with ServedCell("eu-1", designs, aliases) as cell:``; `aliases` may be changed and `bake` called anew."""

    def __init__(self, name: str, designs: Sequence[CollectionDesign], aliases: Mapping[str, str], points: int) -> None:
        self.name = name
        self.designs = {design.name: design for design in designs}
        self.aliases = dict(aliases)
        self.points = points
        self.requests: Counter[str] = Counter()
        self._answers: dict[str, bytes] = {}
        self._port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self.bake()

    def bake(self) -> None:
        """Make the answers."""
        listed = [
            {"id": name, "init_time_ms": 1, "config": configuration(design)} for name, design in self.designs.items()
        ]
        app = {"name": "qdrant", "version": "1.18.3", "startup": "2026-11-24T19:49:00.320Z"}
        collections = {"number_of_collections": len(listed), "collections": listed}
        telemetry = {"app": app, "collections": collections, "requests": {"rest": {"responses": {}}}}
        pairs = [{"alias_name": alias, "collection_name": name} for alias, name in self.aliases.items()]
        metrics = [f'collection_points{{id="{name}"}} {self.points}' for name in self.designs]
        self._answers = {
            "/telemetry": json.dumps({"result": telemetry, "status": "ok"}).encode(),
            "/aliases": json.dumps({"result": {"aliases": pairs}, "status": "ok"}).encode(),
            "/metrics": "\n".join([*metrics, "process_open_mmaps 30000", "system_max_mmaps 65530"]).encode(),
        }

    @property
    def size(self) -> int:
        """Bytes of the bulk read's answers."""
        return len(self._answers["/telemetry"]) + len(self._answers["/aliases"])

    @property
    def registration(self) -> CellRegistration:
        """How the operator knows it."""
        return CellRegistration(self.name, {}, (f"http://127.0.0.1:{self._port}",), None, 1_000, api_key="k" * 40)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in tuple(self._open):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ", 2)[1].partition("?")[0]
                self.requests[path] += 1
                body = self._answers[path]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
