"""A labelled double of a cell of several nodes, as far as backups ask: each node has its own shards and snapshots."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from searchops.api.tasks import BackupTask, CellAddress, ProveTask
from searchops_workers.backup.node import CellNode
from searchops_workers.backup.store import TenantBackups

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 24, 3, 10, tzinfo=UTC)
COLLECTION = "prod.shop.acme@g1"
SCRATCH = "prod@proof-0123456789ab"
METADATA = {
    "searchops.dev/fleet": "prod",
    "searchops.dev/uid": "uid-1",
    "searchops.dev/namespace": "shop",
    "searchops.dev/namespace-uid": "ns-1",
    "searchops.dev/name": "acme",
    "searchops.dev/binding": "{}",
}


class Killed(BaseException):
    """The process is gone in the middle of a request."""


@dataclass
class FakeCollection:
    """Points of each shard, and what is written on the collection."""

    shards: dict[int, list[int]]
    metadata: dict[str, Any]


@dataclass
class FakeCell:
    """The whole cell.

    Attributes:
        placed: node -> shards that are placed on it.
        fault: asked before and after each request's effect; may raise.
        requests: method and path of each.
        stamp: the second in which every snapshot is made, where all shall have one name.
    """

    placed: dict[int, set[int]]
    collections: dict[str, FakeCollection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    snapshots: dict[int, dict[str, bytes]] = field(default_factory=dict)
    down: set[int] = field(default_factory=set)
    fault: Callable[[str, str, str], None] = lambda when, method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    made: int = 0
    stamp: str = ""
    cut: bool = False
    loses: int = 0

    @classmethod
    def with_tenant(cls, placed: dict[int, set[int]] | None = None) -> FakeCell:
        where = placed or {0: {0}}
        shards = {shard: [shard * 100 + number for number in range(5)] for held in where.values() for shard in held}
        cell = cls(where, {COLLECTION: FakeCollection(shards, dict(METADATA))}, {"prod.shop.acme": COLLECTION})
        cell.snapshots = {node: {"somebody-else's.snapshot": b"theirs"} for node in where}
        return cell

    def nodes(self) -> tuple[CellNode, ...]:
        def at(node: int) -> CellNode:
            def answer(request: httpx.Request) -> httpx.Response:
                return self._answer(node, request)

            return CellNode(f"http://node-{node}:6333", "t", transport=httpx.MockTransport(answer), first_wait=0.001)

        return tuple(at(node) for node in self.placed)

    def left(self) -> list[str]:
        return sorted(name for held in self.snapshots.values() for name in held if not name.startswith("somebody"))

    def _answer(self, node: int, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if node in self.down:
            raise httpx.ConnectError("refused")
        self.requests.append((request.method, path))
        self.fault("before", request.method, path)
        status, result = self._do(node, request, path)
        self.fault("after", request.method, path)
        if isinstance(result, bytes):
            return httpx.Response(status, content=result[: len(result) // 2] if self.cut else result)
        body = {"result": result} if status == 200 else {"status": {"error": result}}
        return httpx.Response(status, json={**body, "version": "1.18.3"} if path == "/" else body)

    def _do(self, node: int, request: httpx.Request, path: str) -> tuple[int, Any]:
        if path == "/":
            return 200, {}
        if path == "/aliases":
            return 200, {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]}
        if path == "/collections":
            return 200, {"collections": [{"name": name} for name in self.collections]}
        if path == "/collections/aliases":
            action = json.loads(request.content)["actions"][0]["create_alias"]
            self.aliases[action["alias_name"]] = action["collection_name"]
            return 200, True
        match = re.fullmatch(r"/collections/([^/]+)(?:/(.*))?", path)
        assert match is not None, path
        name, rest = match[1], match[2] or ""
        if rest == "snapshots/upload":
            return self._recover(node, name, request)
        found = self.collections.get(name)
        if request.method == "PUT" and not rest:
            self.collections[name] = FakeCollection({}, json.loads(request.content)["metadata"])
            return 200, True
        if request.method == "DELETE" and not rest:
            return 200, self.collections.pop(name, None) is not None
        if found is None:
            return 404, f"Not found: Collection `{name}` doesn't exist!"
        return self._of(node, name, found, rest, request)

    def _of(self, node: int, name: str, found: FakeCollection, rest: str, request: httpx.Request) -> tuple[int, Any]:
        if request.method == "PATCH":
            for key, value in json.loads(request.content)["metadata"].items():
                found.metadata.pop(key, None)
                if value is not None:
                    found.metadata[key] = value
            return 200, True
        if rest == "":
            return 200, {"config": {"params": {"shard_number": len(found.shards)}, "metadata": dict(found.metadata)}}
        if rest == "points/count":
            return 200, {"count": sum(map(len, found.shards.values())) - self.loses}
        if rest == "cluster":
            local = [{"shard_id": shard, "state": "Active"} for shard in sorted(self.placed[node] & set(found.shards))]
            remote = [
                {"shard_id": shard, "state": "Active", "peer_id": 1000 + other}
                for other, held in self.placed.items()
                for shard in sorted(held & set(found.shards))
                if other != node
            ]
            return 200, {"peer_id": 1000 + node, "local_shards": local, "remote_shards": remote, "shard_transfers": []}
        held = self.snapshots[node]
        if rest == "snapshots" and request.method == "GET":
            return 200, [_described(each, content) for each, content in held.items()]
        if rest == "snapshots":
            self.made += 1
            content = json.dumps(
                {
                    "metadata": found.metadata,
                    "all": sorted(found.shards),
                    "shards": {str(shard): found.shards[shard] for shard in sorted(self.placed[node])},
                }
            ).encode()
            made = f"{name}-{node}-{self.stamp or self.made}.snapshot"
            held[made] = content
            return 200, _described(made, content)
        wanted = rest.removeprefix("snapshots/")
        if wanted not in held:
            return 404, f"Not found: Snapshot {wanted} not found"
        if request.method == "DELETE":
            del held[wanted]
            return 200, True
        return 200, held[wanted]

    def _recover(self, node: int, name: str, request: httpx.Request) -> tuple[int, Any]:
        body = request.content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        checksum = hashlib.sha256(body).hexdigest()
        if request.url.params["checksum"] != checksum:
            return 400, f"Wrong input: Snapshot checksum mismatch: expected something else, got {checksum}"
        told = json.loads(body)
        empty: dict[int, list[int]] = {shard: [] for shard in told["all"]}
        target = self.collections.setdefault(name, FakeCollection(empty, dict(told["metadata"])))
        for shard, points in told["shards"].items():
            if int(shard) in self.placed[node]:
                target.shards[int(shard)] = points
        return 200, True


def _described(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(content), "checksum": hashlib.sha256(content).hexdigest()}


def backup_task(prefix: str, backup: str = "20261124T030000Z", **changes: Any) -> BackupTask:
    values: dict[str, Any] = {
        "id": backup,
        "fleet": "prod",
        "namespace": "shop",
        "name": "acme",
        "uid": "uid-1",
        "cell": "eu-1",
        "nodes": CellAddress(url="http://node-0:6333"),
        "alias": "prod.shop.acme",
        "side": "prod.shop.acme@b",
        "collection": COLLECTION,
        "generation": 1,
        "keep": 3,
        "prefix": prefix,
        "result_uri": f"{prefix}/{backup}/backup-result.json",
    }
    return BackupTask(**{**values, **changes})


def prove_task(prefix: str, backup: str = "20261124T030000Z") -> ProveTask:
    return ProveTask(
        id=backup,
        fleet="prod",
        namespace="shop",
        name="acme",
        cell="eu-1",
        nodes=CellAddress(url="http://node-0:6333"),
        scratch=SCRATCH,
        prefix=prefix,
        result_uri=f"{prefix}/{backup}/prove-result.json",
    )


def store_of(prefix: str) -> TenantBackups:
    return TenantBackups(prefix, "prod", "shop", "acme")
