"""Snapshots of a collection into every kind of store, proved, dropped and brought back: the same answers."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import TYPE_CHECKING, Any

import fsspec
import httpx
import jwt
import pytest

from searchops.api.tasks import BackupTask, CellAddress, ProveTask
from searchops_sandbox.s3 import s3_server
from searchops_workers.backup.errors import NotOurs, Refused
from searchops_workers.backup.node import CellNode, metadata_of
from searchops_workers.backup.prove import prove
from searchops_workers.backup.restore import Order, restore
from searchops_workers.backup.store import TenantBackups
from searchops_workers.backup.take import take

if TYPE_CHECKING:
    from collections.abc import Iterator

    from searchops_sandbox.qdrant.contract import Rest
    from searchops_sandbox.qdrant.replay import Server

ID = "20261124T030000Z"
POINTS = 300


@pytest.fixture(scope="module", params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store's URI."""
    if request.param == "s3":
        with s3_server() as uri:
            yield uri
    elif request.param == "memory":
        yield "memory://contract-backups"
        fsspec.filesystem("memory").rm("/contract-backups", recursive=True)
    else:
        yield f"file://{tmp_path_factory.mktemp('store')}"


class Tenant:
    """A tenant's collection behind its alias, with points, an index and strict mode."""

    def __init__(self, rest: Rest, fleet: str) -> None:
        self.rest, self.fleet = rest, fleet
        self.nodes: list[CellNode] = []
        self.alias = f"{fleet}.shop.acme"
        self.collection = f"{self.alias}@g1"
        keys = {"fleet": fleet, "uid": "uid-1", "namespace": "shop", "namespace-uid": "ns-1", "name": "acme"}
        self.metadata = {f"searchops.dev/{key}": value for key, value in keys.items()}
        body = {
            "vectors": {"d": {"size": 4, "distance": "Cosine"}},
            "sparse_vectors": {"lex": {"modifier": "idf"}},
            "metadata": self.metadata,
            "strict_mode_config": {"enabled": True, "max_query_limit": 1000},
        }
        rest.ok("PUT", f"/collections/{self.collection}", body)
        rest.names.append(self.collection)
        rest.ok(
            "PUT", f"/collections/{self.collection}/index?wait=true", {"field_name": "sku", "field_schema": "keyword"}
        )
        points = [
            {"id": number, "vector": {"d": [1.0, number / POINTS, 0.5, 0.1]}, "payload": {"sku": f"s{number}"}}
            for number in range(POINTS)
        ]
        rest.ok("PUT", f"/collections/{self.collection}/points?wait=true", {"points": points})
        self.point(self.alias, self.collection)

    def point(self, alias: str, collection: str) -> None:
        action = {"create_alias": {"collection_name": collection, "alias_name": alias}}
        self.rest.ok("POST", "/collections/aliases", {"actions": [action]})

    def search(self) -> Any:
        body = {"query": [1.0, 0.3, 0.5, 0.1], "using": "d", "limit": 10, "with_payload": True}
        return self.rest.ok("POST", f"/collections/{self.alias}/points/query", body)["points"]

    def token(self, access: Any) -> str:
        return jwt.encode({"exp": 4_000_000_000, "access": access}, self.rest.server.api_key, algorithm="HS256")

    def node(self, access: Any) -> CellNode:
        self.nodes.append(CellNode(self.rest.server.url, self.token(access), first_wait=0.01))
        return self.nodes[-1]


@pytest.fixture
def tenant(rest: Rest) -> Iterator[Tenant]:
    """One tenant of a fleet of its own."""
    made = Tenant(rest, f"f{uuid.uuid4().hex[:8]}")
    yield made
    for node in made.nodes:
        node.close()


def backup_task(tenant: Tenant, prefix: str) -> BackupTask:
    return BackupTask(
        id=ID,
        fleet=tenant.fleet,
        namespace="shop",
        name="acme",
        uid="uid-1",
        cell="eu-1",
        nodes=CellAddress(url=tenant.rest.server.url),
        alias=tenant.alias,
        side=f"{tenant.alias}@b",
        collection=tenant.collection,
        generation=1,
        prefix=prefix,
        result_uri=f"{prefix}/{ID}/backup-result.json",
    )


def test_a_backup_is_proved_and_brings_a_dropped_tenant_back(tenant: Tenant, store: str) -> None:
    prefix = f"{store}/backups/{tenant.fleet}/shop/acme"
    backups = TenantBackups(prefix, tenant.fleet, "shop", "acme")
    before, rest = tenant.search(), tenant.rest
    theirs = rest.ok("POST", f"/collections/{tenant.collection}/snapshots?wait=true")
    time.sleep(1.1)  # the server names snapshots by the second
    node = tenant.node([{"collection": tenant.collection, "access": "rw"}])
    result = take(backup_task(tenant, prefix), [node], backups)
    assert (result.points, result.ok) == (POINTS, True)
    left = [item["name"] for item in rest.ok("GET", f"/collections/{tenant.collection}/snapshots")]
    assert left == [theirs["name"]], "only the one it made is removed"
    manifest = backups.manifest(ID)
    assert manifest is not None
    assert manifest.is_complete
    assert manifest.metadata == tenant.metadata
    assert manifest.payload_schema["sku"]["data_type"] == "keyword"
    assert manifest.strict["max_query_limit"] == 1000
    (part,) = manifest.parts
    with backups.opened(manifest, part) as content:
        assert hashlib.sha256(content.read()).hexdigest() == part.checksum

    scratch = f"{tenant.fleet}@proof-1"
    proof = ProveTask(
        id=ID,
        fleet=tenant.fleet,
        namespace="shop",
        name="acme",
        cell="eu-1",
        nodes=CellAddress(url=rest.server.url),
        scratch=scratch,
        prefix=prefix,
        result_uri=f"{prefix}/{ID}/prove-result.json",
    )
    proved = prove(proof, [tenant.node("m")], backups)
    assert (proved.ok, proved.points, proved.message) == (True, POINTS, "")
    rest.refused(404, "GET", f"/collections/{scratch}")
    assert tenant.search() == before, "the tenant's own collection is as it was"

    rest.ok("DELETE", f"/collections/{tenant.collection}")
    rest.refused(404, "POST", f"/collections/{tenant.alias}/points/count", {"exact": True})
    marker = metadata_of(tenant.node("m").describe("searchops-cell"))
    identity = {key: str(value) for key, value in marker.items()} or {"searchops.dev/fleet": "contract"}
    order = Order(ID, "eu-2", identity, "uid-2", "ns-2")
    rest.names.append("searchops-cell")
    said: list[str] = []
    assert restore(order, backups, [tenant.node("m")], said.append) == POINTS
    assert tenant.search() == before, "the same answers"
    metadata = rest.ok("GET", f"/collections/{tenant.collection}")["config"]["metadata"]
    assert (metadata["searchops.dev/uid"], metadata["searchops.dev/namespace-uid"]) == ("uid-2", "ns-2")
    aliases = {
        item["alias_name"]
        for item in rest.ok("GET", "/aliases")["aliases"]
        if item["alias_name"].startswith(tenant.fleet)
    }
    assert aliases == {tenant.alias, f"{tenant.alias}@b"}
    with pytest.raises(NotOurs, match="it is not overwritten"):
        restore(Order(ID, "eu-2", identity, "uid-9", "ns-2"), backups, [tenant.node("m")], said.append)


def test_tokens_open_what_the_task_needs_and_no_more(tenant: Tenant, rest: Rest) -> None:
    name = tenant.collection
    node = tenant.node([{"collection": name, "access": "rw"}])
    made = node.snapshot(name)
    assert made in node.snapshots(name)
    node.remove_snapshot(name, made.name)
    node.remove_snapshot(name, made.name)
    assert node.count(name) == POINTS
    assert node.shards(name).local == node.shards(name).every != frozenset()
    for refused in (
        lambda: node.drop(name),
        lambda: node.patch_metadata(name, {"a": "b"}),
        lambda: node.aliases(),
        lambda: node.count(f"{tenant.fleet}-other"),
    ):
        with pytest.raises(Refused) as caught:
            refused()
        assert caught.value.status == 403
    points_only = tenant.node([{"collection": name, "access": "prw"}])
    with pytest.raises(Refused) as caught:
        points_only.snapshot(name)
    assert caught.value.status == 403


def test_an_uploaded_snapshot_is_checked_before_it_is_taken_in(tenant: Tenant, rest: Rest, server: Server) -> None:
    made = rest.ok("POST", f"/collections/{tenant.collection}/snapshots?wait=true")
    content = httpx.get(
        f"{server.url}/collections/{tenant.collection}/snapshots/{made['name']}", headers={"api-key": server.api_key}
    ).content
    assert (len(content), hashlib.sha256(content).hexdigest()) == (made["size"], made["checksum"])
    name = f"{tenant.fleet}-up"
    rest.names.append(name)

    def upload(query: str, key: str = server.api_key) -> httpx.Response:
        url = f"{server.url}/collections/{name}/snapshots/upload?wait=true&{query}"
        return httpx.post(url, files={"snapshot": ("s", content)}, headers={"api-key": key}, timeout=60)

    wrong = upload("checksum=" + "0" * 64)
    assert wrong.status_code == 400
    assert "checksum mismatch" in wrong.json()["status"]["error"]
    rest.refused(404, "GET", f"/collections/{name}")
    rw = tenant.token([{"collection": name, "access": "rw"}])
    assert upload(f"checksum={made['checksum']}", rw).status_code == 403, "making a collection needs global access"
    right = upload(f"checksum={made['checksum']}&priority=snapshot")
    assert (right.status_code, right.json()["result"]) == (200, True)
    assert rest.ok("POST", f"/collections/{name}/points/count", {"exact": True})["count"] == POINTS
    assert rest.ok("GET", f"/collections/{name}")["config"]["metadata"] == tenant.metadata
    assert upload("priority=loud").status_code == 400
