"""The engine's results as the API writes them, and files replaced as a whole."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import qdrant_edge as edge

from searchops_sandbox.qdrant.config import PLACEHOLDER

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID


def write_json(path: Path, value: Any) -> None:
    """Replace a file as a whole."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    os.replace(draft, path)


def id_json(value: int | UUID) -> int | str:
    """A point id as the API writes it."""
    return value if isinstance(value, int) else str(value)


def vector_json(value: Any) -> Any:
    """A vector, or all vectors of a point, as the API writes them."""
    if isinstance(value, dict):
        return {name: vector_json(item) for name, item in value.items() if name != PLACEHOLDER}
    if isinstance(value, edge.SparseVector):
        return {"indices": list(value.indices), "values": list(value.values)}
    return value


def record_json(record: Any, shard_key: Any, *, with_payload: bool, with_vector: Any) -> dict[str, Any]:
    """A stored point as the API writes it."""
    result: dict[str, Any] = {"id": id_json(record.id)}
    if with_payload:
        result["payload"] = record.payload or {}
    if with_vector not in (None, False):
        result["vector"] = vector_json(record.vector if record.vector is not None else {})
    if record.order_value is not None:
        result["order_value"] = record.order_value
    if shard_key is not None:
        result["shard_key"] = shard_key
    return result


def scored_json(point: Any, shard_key: Any, *, with_payload: bool, with_vector: Any) -> dict[str, Any]:
    """A hit as the API writes it; scores are 32-bit floats and print as such."""
    result: dict[str, Any] = {"id": id_json(point.id), "version": point.version, "score": point.score}
    if with_payload:
        result["payload"] = point.payload or {}
    if with_vector not in (None, False):
        result["vector"] = vector_json(point.vector if point.vector is not None else {})
    if point.order_value is not None:
        result["order_value"] = point.order_value
    if shard_key is not None:
        result["shard_key"] = shard_key
    return result
