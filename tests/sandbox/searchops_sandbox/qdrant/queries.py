"""Universal queries: nearest, prefetch, fusion, formula, order, sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import translate
from searchops_sandbox.qdrant.errors import bad_request, format_error, invalid, unsupported

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

DEFAULT_LIMIT = 10
DEFAULT_RRF_K = 2
"""The server's own constant: the best of one leg scores 1/2."""


class QueryTranslator:
    """Builds the engine's query for one collection.

    Args:
        release: major and minor version that the double answers as.
        lookup: returns the stored vector of a point by id and vector name (raises 404 without it).
    """

    def __init__(self, release: tuple[int, int], lookup: Callable[[int | UUID, str], Any]) -> None:
        self._release = release
        self._filters = translate.FilterTranslator(release)
        self._lookup = lookup

    def request(self, body: models.QueryRequest) -> Any:
        """A whole request.

        Raises:
            ApiError: 400, 404, 422 or 501.
        """
        limit = DEFAULT_LIMIT if body.limit is None else body.limit
        if limit < 1:
            raise invalid("limit: value 0 invalid, must be 1 or larger")
        if body.lookup_from is not None:
            raise unsupported("lookup_from in a query")
        query, own_filter = self._query(body.query, body.using, limit, bool(body.prefetch), body.filter)
        return edge.QueryRequest(
            limit=limit,
            offset=body.offset or 0,
            query=query,
            prefetches=[self.prefetch(p) for p in translate.as_list(body.prefetch)] or None,
            with_vector=body.with_vector if body.with_vector is not None else False,
            with_payload=translate.payload_selector(body.with_payload, default=False),
            filter=own_filter,
            score_threshold=body.score_threshold,
            params=self._params(body.params),
        )

    def prefetch(self, body: models.Prefetch) -> Any:
        """One leg, possibly with legs of its own."""
        limit = DEFAULT_LIMIT if body.limit is None else body.limit
        if limit < 1:
            raise invalid("prefetch.limit: value 0 invalid, must be 1 or larger")
        if body.lookup_from is not None:
            raise unsupported("lookup_from in a prefetch")
        query, own_filter = self._query(body.query, body.using, limit, bool(body.prefetch), body.filter)
        return edge.Prefetch(
            limit=limit,
            query=query,
            prefetches=[self.prefetch(p) for p in translate.as_list(body.prefetch)] or None,
            params=self._params(body.params),
            filter=own_filter,
            score_threshold=body.score_threshold,
        )

    def _query(
        self, value: Any, using: str | None, limit: int, has_prefetch: bool, own: models.Filter | None
    ) -> tuple[Any, Any]:
        own_filter = self._filters.filter(own)
        match value:
            case None:
                return None, own_filter
            case models.FusionQuery():
                return self._fusion(value.fusion, has_prefetch), own_filter
            case models.RrfQuery():
                if not has_prefetch:
                    raise _needs_prefetch("Fusion")
                return self._rrf(value.rrf), own_filter
            case models.FormulaQuery():
                if not has_prefetch:
                    raise _needs_prefetch("Formula")
                return edge.Formula(self.expression(value.formula), value.defaults or {}), own_filter
            case models.OrderByQuery():
                return order_by(value.order_by), own_filter
            case models.SampleQuery():
                return edge.Sample.Random, own_filter
            case models.NearestQuery():
                return self._nearest(value.nearest, value.mmr, using, limit, own)
            case (
                models.RecommendQuery()
                | models.DiscoverQuery()
                | models.ContextQuery()
                | models.RelevanceFeedbackQuery()
                | models.TextQuery()
            ):
                raise unsupported(f"query type {type(value).__name__}")
            case _:
                return self._nearest(value, None, using, limit, own)

    def _nearest(
        self, value: Any, mmr: models.Mmr | None, using: str | None, limit: int, own: models.Filter | None
    ) -> tuple[Any, Any]:
        own_filter = self._filters.filter(own)
        if isinstance(value, list | models.SparseVector | models.Document):
            vector = translate.vector(value, document=False)
        elif isinstance(value, models.Image | models.InferenceObject):
            raise unsupported(f"queries of type {type(value).__name__}")
        else:
            ident = translate.point_id(value)
            vector = self._lookup(ident, using or "")
            not_itself = edge.Filter(must_not=[edge.HasIdCondition({ident})])
            own_filter = edge.Filter(must=[own_filter, not_itself]) if own_filter is not None else not_itself
        if mmr is None:
            return edge.Query.Nearest(vector, using), own_filter
        diversity = 0.5 if mmr.diversity is None else mmr.diversity
        return edge.Mmr(vector, 1.0 - diversity, mmr.candidates_limit or limit, using), own_filter

    @staticmethod
    def _fusion(value: models.Fusion, has_prefetch: bool) -> Any:
        if not has_prefetch:
            raise _needs_prefetch("Fusion")
        return edge.Fusion.Dbsf() if value is models.Fusion.DBSF else edge.Fusion.Rrf(DEFAULT_RRF_K)

    @staticmethod
    def _rrf(value: models.Rrf) -> Any:
        k = DEFAULT_RRF_K if value.k is None else value.k
        if k < 1:
            raise invalid("rrf.k: value 0 invalid, must be 1 or larger")
        return edge.Fusion.Rrf(k, value.weights)

    def _params(self, value: models.SearchParams | None) -> Any:
        if value is None:
            return None
        if value.idf is not None and self._release < (1, 19):
            raise unsupported("params.idf (Qdrant 1.19 and later; an older server would ignore it)")
        idf = None
        if isinstance(value.idf, models.IdfCorpusParams):
            idf = edge.IdfParams(self._filters.filter(value.idf.corpus))
        elif value.idf is not None:
            raise unsupported("params.idf other than a corpus filter")
        quantization = None
        if value.quantization is not None:
            given = value.quantization
            quantization = edge.QuantizationSearchParams(bool(given.ignore), given.rescore, given.oversampling)
        acorn = None
        if value.acorn is not None:
            acorn = edge.AcornSearchParams(bool(value.acorn.enable), value.acorn.max_selectivity)
        return edge.SearchParams(value.hnsw_ef, bool(value.exact), quantization, bool(value.indexed_only), acorn, idf)

    def expression(self, value: Any) -> Any:
        """A scoring formula."""
        make = edge.Expression
        match value:
            case bool():
                raise format_error("data did not match any variant of untagged enum Expression")
            case int() | float():
                return make.Constant(float(value))
            case str():
                return make.Variable(value)
            case models.GeoDistance():
                return make.GeoDistance(translate.geo_point(value.geo_distance.origin), value.geo_distance.to)
            case models.DatetimeExpression():
                return make.Datetime(value.datetime)
            case models.DatetimeKeyExpression():
                return make.DatetimeKey(value.datetime_key)
            case models.DivExpression():
                return make.Div(
                    self.expression(value.div.left), self.expression(value.div.right), value.div.by_zero_default
                )
            case models.PowExpression():
                return make.Pow(self.expression(value.pow.base), self.expression(value.pow.exponent))
            case models.LinDecayExpression():
                return self._decay(edge.DecayKind.Lin, value.lin_decay)
            case models.ExpDecayExpression():
                return self._decay(edge.DecayKind.Exp, value.exp_decay)
            case models.GaussDecayExpression():
                return self._decay(edge.DecayKind.Gauss, value.gauss_decay)
        return self._arithmetic(value)

    def _arithmetic(self, value: Any) -> Any:
        make = edge.Expression
        many: dict[type, tuple[str, Any]] = {
            models.MultExpression: ("mult", make.Mult),
            models.SumExpression: ("sum", make.Sum),
            models.MaxExpression: ("max", make.Max),
            models.MinExpression: ("min", make.Min),
        }
        one: dict[type, tuple[str, Any]] = {
            models.NegExpression: ("neg", make.Neg),
            models.AbsExpression: ("abs", make.Abs),
            models.SqrtExpression: ("sqrt", make.Sqrt),
            models.ExpExpression: ("exp", make.Exp),
            models.Log10Expression: ("log10", make.Log10),
            models.LnExpression: ("ln", make.Ln),
            models.AcoshExpression: ("acosh", make.Acosh),
        }
        if type(value) in many:
            field, build = many[type(value)]
            return build([self.expression(item) for item in getattr(value, field)])
        if type(value) in one:
            field, build = one[type(value)]
            return build(self.expression(getattr(value, field)))
        return make.Condition(self._filters.condition(value))

    def _decay(self, kind: Any, value: models.DecayParamsExpression) -> Any:
        target = None if value.target is None else self.expression(value.target)
        return edge.Expression.Decay(kind, self.expression(value.x), target, value.midpoint, value.scale)


def order_by(value: models.OrderBy | str) -> Any:
    """Order by a payload key."""
    if isinstance(value, str):
        return edge.OrderBy(value)
    direction = None
    if value.direction is not None:
        direction = edge.Direction.Desc if value.direction is models.Direction.DESC else edge.Direction.Asc
    given = value.start_from
    start = given if given is None or isinstance(given, int | float) else translate.timestamp(given)
    return edge.OrderBy(value.key, direction, start)


def _needs_prefetch(kind: str) -> Exception:
    return bad_request(f"{kind} queries cannot be made without a prefetch")
