"""REST routes of the cluster: peers, shards and shard keys. In cluster mode the double is a cluster of one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client.http import models

from searchops_sandbox.qdrant import observe
from searchops_sandbox.qdrant.access import Need
from searchops_sandbox.qdrant.errors import bad_request, unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops_sandbox.qdrant.calls import Call


def cluster(call: Call) -> Any:
    """`GET /cluster`."""
    call.access.check_global(manage=False)
    if not call.service.cluster_mode:
        return {"status": "disabled"}
    return {
        "status": "enabled",
        "peer_id": observe.PEER_ID,
        "peers": {str(observe.PEER_ID): {"uri": "http://127.0.0.1:6335/"}},
        "raft_info": {
            "term": 1,
            "commit": 0,
            "pending_operations": 0,
            "leader": observe.PEER_ID,
            "role": "Leader",
            "is_voter": True,
        },
        "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "1970-01-01T00:00:00Z"},
        "message_send_failures": {},
    }


def collection_cluster(call: Call) -> Any:
    """`GET /collections/{name}/cluster`: one local shard, or where sharding is custom one a shard key."""
    collection = call.service.collection(call.access, call.name, Need.EXTRAS)
    local = [
        {
            "shard_id": shard.number,
            **({} if shard.key is None else {"shard_key": shard.key}),
            "points_count": shard.count(),
            "state": shard.state,
        }
        for shard in collection.shards
    ]
    return {
        "peer_id": observe.PEER_ID,
        "shard_count": len(local),
        "local_shards": local,
        "remote_shards": [],
        "shard_transfers": [],
    }


def shard_keys(call: Call) -> Any:
    """`GET /collections/{name}/shards`."""
    collection = call.service.collection(call.access, call.name, Need.READ)
    return {"shard_keys": [{"key": key["key"]} for key in collection.shards.listed()]}


def create_shard_key(call: Call) -> Any:
    """`PUT /collections/{name}/shards`."""
    _require_cluster(call)
    call.service.store.resolve(call.name).create_shard_key(call.body(models.CreateShardingKey))
    return True


def delete_shard_key(call: Call) -> Any:
    """`POST /collections/{name}/shards/delete`."""
    _require_cluster(call)
    call.service.store.resolve(call.name).delete_shard_key(call.body(models.DropShardingKey).shard_key)
    return True


def change_collection_cluster(call: Call) -> Any:
    """`POST /collections/{name}/cluster`: shard keys; one node has nowhere to move a shard to."""
    _require_cluster(call)
    operation = call.body(models.ClusterOperations)
    collection = call.service.store.resolve(call.name)
    match operation:
        case models.CreateShardingKeyOperation():
            collection.create_shard_key(operation.create_sharding_key)
        case models.DropShardingKeyOperation():
            collection.delete_shard_key(operation.drop_sharding_key.shard_key)
        case _:
            raise unsupported(f"{type(operation).__name__} (one node)")
    return True


def _require_cluster(call: Call) -> None:
    call.access.check_global(manage=True)
    if not call.service.cluster_mode:
        raise bad_request("Distributed mode disabled")


def change_metadata(call: Call) -> Any:
    """Writing a key of the cluster's metadata."""
    _require_cluster(call)
    raise unsupported("cluster metadata")


def read_metadata(call: Call) -> Any:
    """Reading cluster metadata, which a server without cluster mode does not have."""
    call.access.check_global(manage=False)
    if not call.service.cluster_mode:
        raise bad_request("Distributed mode disabled")
    raise unsupported("cluster metadata")


_COLLECTION = "/collections/{name}"
ROUTES: list[tuple[str, str, Callable[[Call], Any]]] = [
    ("GET", "/cluster", cluster),
    ("GET", "/cluster/metadata/keys", read_metadata),
    ("GET", "/cluster/metadata/keys/{key}", read_metadata),
    ("PUT", "/cluster/metadata/keys/{key}", change_metadata),
    ("DELETE", "/cluster/metadata/keys/{key}", change_metadata),
    ("GET", _COLLECTION + "/cluster", collection_cluster),
    ("POST", _COLLECTION + "/cluster", change_collection_cluster),
    ("GET", _COLLECTION + "/shards", shard_keys),
    ("PUT", _COLLECTION + "/shards", create_shard_key),
    ("POST", _COLLECTION + "/shards/delete", delete_shard_key),
]
