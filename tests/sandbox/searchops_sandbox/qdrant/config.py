"""A collection's configuration: what was asked for, filled with the server's defaults, as it is reported and stored."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import strict
from searchops_sandbox.qdrant.errors import format_error, invalid, unsupported

PLACEHOLDER = "--no-vectors--"
"""Name of the sparse vector that a collection without vectors has inside the engine, which wants at least one."""

_HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
_OPTIMIZER = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
    "prevent_unoptimized": None,
}
_WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}

_LATER_FIELDS = {"memory", "id_tracker", "payload", "prefix", "nested", "scoring", "max_resident_memory_percent"}
"""Configuration fields of 1.19 and later, which an older server would silently ignore."""


def dump(model: Any) -> dict[str, Any]:
    """A model as JSON values, without what was not given."""
    result: dict[str, Any] = model.model_dump(mode="json", exclude_none=True)
    return result


def refuse_later_fields(value: Any, release: tuple[int, int], path: str = "") -> None:
    """Refuse configuration that a server of this release would ignore.

    Raises:
        ApiError: 501 with the field's path.
    """
    if release >= (1, 19) or not isinstance(value, dict):
        return
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if key == "metadata":
            continue
        if key in _LATER_FIELDS and path not in {"vectors", "sparse_vectors"}:
            raise unsupported(f"{here} (Qdrant 1.19 and later; an older server would ignore it)")
        refuse_later_fields(item, release, here)


def new(body: models.CreateCollection, release: tuple[int, int]) -> dict[str, Any]:
    """The effective configuration of a new collection.

    Raises:
        ApiError: 400, 422, or 501 for more than one shard.
    """
    given = dump(body)
    refuse_later_fields(given, release)
    vectors = given.get("vectors", {})
    for vector in [vectors] if isinstance(body.vectors, models.VectorParams) else vectors.values():
        if not 1 <= vector["size"] <= 65536:
            raise format_error("data did not match any variant of untagged enum VectorsConfig")
    if given.get("shard_number", 1) < 1:
        raise invalid("shard_number: value 0 invalid, must be 1 or larger")
    if given.get("shard_number", 1) > 1:
        raise unsupported("shard_number above 1 (one engine shard a collection)")
    if given.get("quantization_config") is not None:
        raise unsupported("quantization_config")
    optimizer = given.get("optimizers_config", {})
    if optimizer.get("prevent_unoptimized"):
        raise unsupported("optimizers_config.prevent_unoptimized (the double never optimises)")
    params: dict[str, Any] = {"vectors": vectors, "shard_number": given.get("shard_number", 1)}
    if given.get("sharding_method") == "custom":
        params["sharding_method"] = "custom"
    params["replication_factor"] = given.get("replication_factor", 1)
    params["write_consistency_factor"] = given.get("write_consistency_factor", 1)
    params["on_disk_payload"] = given.get("on_disk_payload", True)
    if "sparse_vectors" in given:
        params["sparse_vectors"] = given["sparse_vectors"]
    result: dict[str, Any] = {
        "params": params,
        "hnsw_config": {**_HNSW, **given.get("hnsw_config", {})},
        "optimizer_config": {**_OPTIMIZER, **optimizer},
        "wal_config": {**_WAL, **given.get("wal_config", {})},
        "quantization_config": None,
    }
    if "strict_mode_config" in given:
        strict.validate(given["strict_mode_config"])
        result["strict_mode_config"] = given["strict_mode_config"]
    metadata = {k: v for k, v in (body.metadata or {}).items() if v is not None}
    if metadata:
        result["metadata"] = metadata
    return result


def patched(config: dict[str, Any], body: models.UpdateCollection, release: tuple[int, int]) -> dict[str, Any]:
    """The configuration after a PATCH: metadata merges at its top level only, everything else by field.

    Raises:
        ApiError: 422 or 501.
    """
    given = dump(body)
    refuse_later_fields(given, release)
    for key in ("quantization_config", "sparse_vectors", "vectors"):
        if given.get(key) is not None:
            raise unsupported(f"PATCH of {key}")
    if given.get("optimizers_config", {}).get("prevent_unoptimized"):
        raise unsupported("optimizers_config.prevent_unoptimized (the double never optimises)")
    result = {**config}
    params = given.get("params", {})
    for key in ("read_fan_out_factor", "read_fan_out_delay_ms"):
        if key in params:
            raise unsupported(f"params.{key}")
    result["params"] = {**config["params"], **params}
    result["hnsw_config"] = {**config["hnsw_config"], **given.get("hnsw_config", {})}
    result["optimizer_config"] = {**config["optimizer_config"], **given.get("optimizers_config", {})}
    if "strict_mode_config" in given:
        strict.validate(given["strict_mode_config"])
        result["strict_mode_config"] = {**config.get("strict_mode_config", {}), **given["strict_mode_config"]}
    if body.metadata is not None:
        metadata = {**config.get("metadata", {}), **body.metadata}
        metadata = {k: v for k, v in metadata.items() if v is not None}
        result.pop("metadata", None)
        if metadata:
            result["metadata"] = metadata
    return result


def dense_params(given: dict[str, Any]) -> Any:
    """One dense vector for the engine."""
    for key in ("multivector_config", "quantization_config"):
        if given.get(key) is not None:
            raise unsupported(f"vectors with {key}")
    return edge.EdgeVectorParams(
        given["size"],
        distance(given["distance"]),
        on_disk=given.get("on_disk"),
        datatype=datatype(given.get("datatype")),
        hnsw_config=hnsw(given["hnsw_config"]) if given.get("hnsw_config") else None,
        memory=_memory(given.get("memory")),
    )


def sparse_params(given: dict[str, Any]) -> Any:
    """One sparse vector for the engine."""
    index = given.get("index", {})
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=modifier(given.get("modifier")),
        datatype=datatype(index.get("datatype")),
        memory=_memory(index.get("memory")),
    )


def hnsw(given: dict[str, Any]) -> Any:
    """HNSW parameters for the engine, defaults filled in."""
    full = {**_HNSW, **given}
    memory = _memory(full.pop("memory", None))
    return edge.HnswIndexConfig(**full, memory=memory)


def engine_config(config: dict[str, Any]) -> Any:
    """The configuration of the engine's shard. One search thread: the engine would start one a core and shard."""
    vectors = config["params"]["vectors"]
    dense = dense_params(vectors) if "size" in vectors else {n: dense_params(p) for n, p in vectors.items()}
    sparse = {name: sparse_params(p) for name, p in config["params"].get("sparse_vectors", {}).items()}
    if not dense and not sparse:
        sparse = {PLACEHOLDER: edge.EdgeSparseVectorParams()}
    optimizer = config["optimizer_config"]
    return edge.EdgeConfig(
        vectors=dense or None,
        sparse_vectors=sparse or None,
        on_disk_payload=config["params"]["on_disk_payload"],
        hnsw_config=hnsw(config["hnsw_config"]),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizer["deleted_threshold"],
            vacuum_min_vector_number=optimizer["vacuum_min_vector_number"],
            default_segment_number=optimizer["default_segment_number"] or None,
            max_segment_size=optimizer["max_segment_size"],
            indexing_threshold=optimizer["indexing_threshold"],
        ),
        max_search_threads=1,
    )


def distance(value: str) -> Any:
    """The engine's distance of that name."""
    return getattr(edge.Distance, value)


def datatype(value: str | None) -> Any:
    """The engine's storage type, or None for its default."""
    return None if value is None else getattr(edge.VectorStorageDatatype, value.capitalize())


def modifier(value: str | None) -> Any:
    """The engine's modifier of a sparse vector."""
    return edge.Modifier.Idf if value == "idf" else None


def _memory(value: str | None) -> Any:
    return None if value is None else getattr(edge.Memory, value.capitalize())
