"""Payload indexes: how they are reported, and how the engine wants them."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from pydantic import TypeAdapter
from qdrant_client.http import models

from searchops_sandbox.qdrant import translate as translation
from searchops_sandbox.qdrant.config import dump, refuse_later_fields
from searchops_sandbox.qdrant.errors import format_error

_SCHEMA: TypeAdapter[Any] = TypeAdapter(models.PayloadFieldSchema)


def translate(schema: Any, release: tuple[int, int]) -> tuple[dict[str, Any], Any]:
    """The reported entry (`data_type`, `params` where given) and the engine's schema.

    Raises:
        ApiError: 400 without a schema, 501 for parameters of a later release.
    """
    if schema is None:
        raise format_error("field_schema: the double does not guess a type from the data")
    if isinstance(schema, models.PayloadSchemaType):
        return {"data_type": schema.value}, getattr(edge.PayloadSchemaType, schema.value.capitalize())
    given = dump(schema)
    refuse_later_fields(given, release, "field_schema")
    arguments: dict[str, Any] = {k: v for k, v in given.items() if k != "type"}
    if "memory" in arguments:
        arguments["memory"] = getattr(edge.Memory, arguments["memory"].capitalize())
    if isinstance(schema, models.TextIndexParams):
        if schema.tokenizer is not None:
            arguments["tokenizer"] = getattr(edge.TokenizerType, schema.tokenizer.value.capitalize())
        if schema.stopwords is not None:
            arguments["stopwords"] = translation.stopwords(schema.stopwords)
        if schema.stemmer is not None:
            arguments["stemmer"] = translation.stemmer(schema.stemmer)
        if isinstance(schema.scoring, models.TextScoringParams):
            arguments["scoring"] = edge.TextScoringParams(edge.TextScoringType.Bm25)
    return {"data_type": schema.type.value, "params": given}, getattr(edge, type(schema).__name__)(**arguments)


def reported(entry: dict[str, Any], release: tuple[int, int]) -> Any:
    """The engine's schema of an index from the entry that `translate` made."""
    return translate(_SCHEMA.validate_python(entry.get("params", entry["data_type"])), release)[1]
