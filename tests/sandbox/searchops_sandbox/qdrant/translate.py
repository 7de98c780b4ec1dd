"""From the REST models of `qdrant_client` to the engine's classes: filters, ids, vectors, payload selectors.

A model without a counterpart is refused with 501; a value of a later server release with what that release's
predecessors answered.
"""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant.errors import format_error, invalid, unsupported, wrong_input

PointId = int | UUID
SLICE_CONDITION: Any = getattr(edge, "SliceCondition")  # noqa: B009 - the engine has it, its stubs do not


def point_id(value: int | str | UUID) -> PointId:
    """An unsigned integer or a UUID.

    Raises:
        ApiError: 400 for anything else.
    """
    if isinstance(value, UUID):
        return value
    if isinstance(value, int):
        if 0 <= value < 2**64:
            return value
    else:
        try:
            return UUID(value)
        except ValueError:
            pass
    raise format_error(f"value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def as_list(value: Any) -> list[Any]:
    """The API writes one element for a list of one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def sparse(vector: models.SparseVector) -> edge.SparseVector:
    """A sparse vector with as many values as unique indices.

    Raises:
        ApiError: 422 otherwise.
    """
    if len(vector.indices) != len(vector.values):
        raise invalid("values: must be the same length as indices")
    if len(set(vector.indices)) != len(vector.indices):
        raise invalid("indices: must be unique")
    return edge.SparseVector(vector.indices, vector.values)


def bm25(document: models.Document) -> edge.Bm25:
    """The server's own BM25 model with the options of a document.

    Raises:
        ApiError: 400 for another model, 501 for options that the double does not pass on.
    """
    if document.model.lower() != "qdrant/bm25":
        raise wrong_input(f"InferenceService is not initialized: model {document.model!r} is not served here")
    options = document.options
    if options is None:
        return edge.Bm25()
    config = options if isinstance(options, models.Bm25Config) else models.Bm25Config(**options)
    given = config.model_dump(exclude_none=True, mode="json")
    plain = {k: v for k, v in given.items() if k not in {"tokenizer", "stopwords", "stemmer"}}
    if "tokenizer" in given:
        plain["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].capitalize())
    if config.stopwords is not None:
        plain["stopwords"] = stopwords(config.stopwords)
    if config.stemmer is not None:
        plain["stemmer"] = stemmer(config.stemmer)
    try:
        return edge.Bm25(edge.Bm25Config(**plain))
    except ValueError as error:
        raise wrong_input(str(error)) from error


def stopwords(value: models.Language | models.StopwordsSet) -> Any:
    """Stop words of a language, or a set of languages and words."""
    if isinstance(value, models.Language):
        return getattr(edge.Language, value.value.capitalize())
    languages = {getattr(edge.Language, language.value.capitalize()) for language in value.languages or []}
    return edge.StopwordsSet(languages, set(value.custom or []))


def stemmer(value: models.SnowballParams | models.DisabledStemmerParams) -> Any:
    """A Snowball stemmer, or none."""
    if isinstance(value, models.DisabledStemmerParams):
        return edge.DisabledStemmer()
    return edge.SnowballParams(getattr(edge.SnowballLanguage, value.language.value.capitalize()))


def vector(value: Any, *, document: bool) -> Any:
    """One vector of a point (`document=True`) or of a query, in the engine's form."""
    if isinstance(value, models.SparseVector):
        return sparse(value)
    if isinstance(value, models.Document):
        model = bm25(value)
        return model.embed_document(value.text) if document else model.embed_query(value.text)
    if isinstance(value, list):
        return value
    raise unsupported(f"vectors of type {type(value).__name__}")


def vectors(value: Any) -> Any:
    """All vectors of a point."""
    if isinstance(value, dict):
        return {name: vector(item, document=True) for name, item in value.items()}
    return vector(value, document=True)


def payload_selector(value: Any, *, default: bool) -> Any:
    """`with_payload` in the engine's form."""
    if value is None:
        return default
    if isinstance(value, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(value.include)
    if isinstance(value, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(value.exclude)
    return value


class FilterTranslator:
    """Filters in the dialect of one server release.

    Args:
        release: major and minor version that the double answers as.
    """

    def __init__(self, release: tuple[int, int]) -> None:
        self._release = release

    def filter(self, value: models.Filter | None) -> Any:
        """A filter, or None."""
        if value is None:
            return None
        min_should = None
        if value.min_should is not None:
            conditions = [self.condition(c) for c in value.min_should.conditions]
            min_should = edge.MinShould(conditions, value.min_should.min_count)
        return edge.Filter(
            must=[self.condition(c) for c in as_list(value.must)] or None,
            should=[self.condition(c) for c in as_list(value.should)] or None,
            must_not=[self.condition(c) for c in as_list(value.must_not)] or None,
            min_should=min_should,
        )

    def condition(self, value: Any) -> Any:
        """One condition.

        Raises:
            ApiError: 400 for `slice` before 1.19, as such a server answers; 501 for a condition without counterpart.
        """
        match value:
            case models.Filter():
                return self.filter(value)
            case models.FieldCondition():
                return self._field(value)
            case models.HasIdCondition():
                return edge.HasIdCondition({point_id(i) for i in value.has_id})
            case models.HasVectorCondition():
                return edge.HasVectorCondition(value.has_vector)
            case models.IsEmptyCondition():
                return edge.IsEmptyCondition(value.is_empty.key)
            case models.IsNullCondition():
                return edge.IsNullCondition(value.is_null.key)
            case models.NestedCondition():
                return edge.NestedCondition(value.nested.key, self.filter(value.nested.filter))
            case models.SliceCondition():
                if self._release < (1, 19):
                    raise format_error(
                        "Expected some form of condition, which can be a field condition "
                        '(like {"key": ..., "match": ... }), or some other mentioned in the documentation'
                    )
                if not 0 <= value.slice.index < value.slice.total:
                    raise invalid("slice.index: must be less than slice.total")
                return SLICE_CONDITION(value.slice.total, value.slice.index)
        raise unsupported(f"filter condition {type(value).__name__}")

    def _field(self, value: models.FieldCondition) -> Any:
        parts = value.model_fields_set - {"key"}
        if not parts:
            raise format_error("Expected some form of condition")
        counts = value.values_count
        return edge.FieldCondition(
            value.key,
            match=self._match(value.match),
            range=self._range(value.range),
            geo_bounding_box=self._box(value.geo_bounding_box),
            geo_radius=None
            if value.geo_radius is None
            else edge.GeoRadius(geo_point(value.geo_radius.center), value.geo_radius.radius),
            geo_polygon=self._polygon(value.geo_polygon),
            values_count=None if counts is None else edge.ValuesCount(counts.lt, counts.gt, counts.lte, counts.gte),
            is_empty=value.is_empty,
            is_null=value.is_null,
        )

    def _match(self, value: Any) -> Any:
        if value is None:
            return None
        later = isinstance(value, models.MatchPrefix | models.MatchSubstring)
        if later and self._release < (1, 19):
            raise format_error("data did not match any variant of untagged enum Match")
        name = type(value).__name__
        (field,) = type(value).model_fields
        wanted = getattr(value, field)
        # The binding takes a Python bool for the integer that it is, but knows numpy's.
        return getattr(edge, name)(np.bool_(wanted) if isinstance(wanted, bool) else wanted)

    @staticmethod
    def _range(value: Any) -> Any:
        if value is None:
            return None
        bounds = [value.gte, value.gt, value.lte, value.lt]
        if isinstance(value, models.Range):
            return edge.RangeFloat(*bounds)
        return edge.RangeDateTime(*[None if b is None else timestamp(b) for b in bounds])

    @staticmethod
    def _box(value: models.GeoBoundingBox | None) -> Any:
        if value is None:
            return None
        return edge.GeoBoundingBox(geo_point(value.top_left), geo_point(value.bottom_right))

    @staticmethod
    def _polygon(value: models.GeoPolygon | None) -> Any:
        if value is None:
            return None
        interiors = [[geo_point(p) for p in line.points] for line in value.interiors or []]
        return edge.GeoPolygon([geo_point(p) for p in value.exterior.points], interiors or None)


def geo_point(value: models.GeoPoint) -> Any:
    """A point on the globe."""
    return edge.GeoPoint(value.lon, value.lat)


def timestamp(value: datetime.datetime | datetime.date) -> str:
    """RFC 3339, UTC where no zone was given."""
    if not isinstance(value, datetime.datetime):
        return value.isoformat()
    return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).isoformat()
