"""Our values as the server takes them, and its answers as our values: plain JSON both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops.api.observed import CollectionState, StrictMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CollectionDesign

OUR_KEYS = "searchops.dev/"


def new_collection(design: CollectionDesign) -> dict[str, Any]:
    """The body of a create: vectors stay on disk, and the database counts the terms' document frequencies."""
    return {
        "vectors": {name: {"size": size, "distance": "Cosine", "on_disk": True} for name, size in design.dense},
        "sparse_vectors": {name: {"modifier": "idf"} for name in design.sparse},
        "shard_number": design.shards,
        "replication_factor": design.replicas,
        "on_disk_payload": True,
        "optimizers_config": {"default_segment_number": 1},
        "wal_config": {"wal_capacity_mb": 4},
        "strict_mode_config": strict_config(design.strict),
        "metadata": dict(design.metadata),
    }


def strict_config(strict: StrictMode) -> dict[str, Any]:
    """Limits, every one written: null would keep what is there."""
    return {
        "enabled": True,
        "max_points_count": strict.max_points,
        "max_collection_vector_size_bytes": strict.max_vector_bytes,
        "read_rate_limit": strict.reads_per_minute,
        "write_rate_limit": strict.writes_per_minute,
        "upsert_max_batchsize": strict.upsert_batch,
        "max_query_limit": strict.query_limit,
    }


def flat_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as planners see it: texts, and the empty one for a key of ours that somebody gave another type.

    Such a key is there and says nothing: it must neither pass for absent nor be read as what its content looks like.
    """
    return {
        key: value if isinstance(value, str) else ""
        for key, value in metadata.items()
        if isinstance(value, str) or (key.startswith(OUR_KEYS) and value is not None)
    }


def same_owner(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """A collection without any owner is nobody's: it is never taken for ours."""
    keys = ("searchops.dev/fleet", "searchops.dev/uid", "searchops.dev/generation")
    return bool(wanted.get(keys[0])) and all(found.get(key) == wanted.get(key) for key in keys)


def collection_state(name: str, info: Mapping[str, Any]) -> CollectionState:
    """A collection as planners see it."""
    config = info["config"]
    params = config["params"]
    vectors = params.get("vectors") or {}
    strict = config.get("strict_mode_config")
    optimizer = info.get("optimizer_status")
    return CollectionState(
        name=name,
        points=info.get("points_count") or 0,
        dense={} if "size" in vectors else {vector: item["size"] for vector, item in vectors.items()},
        sparse=frozenset(params.get("sparse_vectors") or ()),
        indexes={field: str(schema["data_type"]) for field, schema in (info.get("payload_schema") or {}).items()},
        shards=params.get("shard_number") or 1,
        replicas=params.get("replication_factor") or 1,
        strict=read_strict(strict) if strict is not None else None,
        metadata=flat_metadata(config.get("metadata") or {}),
        status=str(info["status"]),
        pending_updates=(info.get("update_queue") or {}).get("length") or 0,
        indexed_vectors=info.get("indexed_vectors_count"),
        optimizer_error=str(optimizer.get("error") or "")[:200] if isinstance(optimizer, dict) else "",
    )


def read_strict(said: Mapping[str, Any]) -> StrictMode:
    """Limits of a collection; one that is not told is none."""
    return StrictMode(
        max_points=said.get("max_points_count") or 0,
        max_vector_bytes=said.get("max_collection_vector_size_bytes") or 0,
        reads_per_minute=said.get("read_rate_limit") or 0,
        writes_per_minute=said.get("write_rate_limit") or 0,
        upsert_batch=said.get("upsert_max_batchsize") or 0,
        query_limit=said.get("max_query_limit") or 0,
    )
