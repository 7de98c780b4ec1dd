"""Our values as qdrant-client's models, and its models as our values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.observed import CollectionState, StrictMode

if TYPE_CHECKING:
    from collections.abc import Mapping


def dense_params(dimension: int) -> models.VectorParams:
    """A dense vector's parameters; vectors stay on disk."""
    return models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=True)


def sparse_params() -> models.SparseVectorParams:
    """A lexical vector's parameters: the database counts document frequencies."""
    return models.SparseVectorParams(modifier=models.Modifier.IDF)


def strict_config(strict: StrictMode) -> models.StrictModeConfig:
    """Limits, every one written: null would keep what is there."""
    return models.StrictModeConfig(
        enabled=True,
        max_points_count=strict.max_points,
        max_collection_vector_size_bytes=strict.max_vector_bytes,
        read_rate_limit=strict.reads_per_minute,
        write_rate_limit=strict.writes_per_minute,
        upsert_max_batchsize=strict.upsert_batch,
        max_query_limit=strict.query_limit,
    )


def same_owner(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """A collection without any owner is nobody's: it is never taken for ours."""
    keys = ("searchops.dev/fleet", "searchops.dev/uid", "searchops.dev/generation")
    return bool(wanted.get(keys[0])) and all(found.get(key) == wanted.get(key) for key in keys)


def collection_state(name: str, info: models.CollectionInfo) -> CollectionState:
    """A collection as planners see it."""
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
        indexed_vectors=info.indexed_vectors_count,
        optimizer_error=str(getattr(info.optimizer_status, "error", "") or "")[:200],
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
