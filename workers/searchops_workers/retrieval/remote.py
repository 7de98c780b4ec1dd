"""Searches on a Qdrant cell: every leg and the server's own fusion in one batch request.

The legs come with product ids only; the fused query brings the payloads of more hits than are shown. What is shown is
ordered by `results.fuse`; a hit whose payload the server's order left out is fetched by id, which ties at the cut need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.retrieval import DELETED_KEY, ID_KEY
from searchops_workers.retrieval.results import LegHit, fuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.retrieval.query import FilterValue, Leg, SearchRequest
    from searchops_workers.retrieval.scope import ScopedPoints


def query_filter(filters: Mapping[str, FilterValue]) -> models.Filter | None:
    """Points whose fields meet these conditions; None without any.

    Tombstones are not filtered out here: a condition costs a read token and time in every leg, and they carry no
    vectors. One that a backfill gave a vector in a race is dropped from the legs' hits.
    """
    conditions = [_condition(key, value) for key, value in sorted(filters.items())]
    return models.Filter(must=conditions) if conditions else None


def _condition(key: str, value: FilterValue) -> Any:
    if isinstance(value, Mapping):
        return models.FieldCondition(key=key, range=models.Range(**value))
    if isinstance(value, str | bool):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if isinstance(value, int | float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if all(isinstance(item, str) for item in value):
        return models.FieldCondition(key=key, match=models.MatchAny(any=[str(item) for item in value]))
    return models.Filter(should=[_condition(key, item) for item in value])


def leg_vector(leg: Leg) -> Any:
    """A leg's query vector as the client takes it."""
    if isinstance(leg.vector, tuple):
        return list(leg.vector)
    return models.SparseVector(indices=list(leg.vector.indices), values=list(leg.vector.values))


def batch_of(request: SearchRequest) -> list[models.QueryRequest]:
    """Every leg, and the fused query last."""
    condition = query_filter(request.filters)
    singles = [
        models.QueryRequest(
            query=leg_vector(leg),
            using=leg.using,
            filter=condition,
            limit=request.prefetch,
            score_threshold=leg.floor,
            with_payload=[ID_KEY, DELETED_KEY],
        )
        for leg in request.legs
    ]
    prefetch = [
        models.Prefetch(
            query=leg_vector(leg),
            using=leg.using,
            filter=condition,
            limit=request.prefetch,
            score_threshold=leg.floor,
        )
        for leg in request.legs
    ]
    fusion = models.RrfQuery(rrf=models.Rrf(k=request.rrf_k, weights=[leg.weight for leg in request.legs]))
    fused = models.QueryRequest(prefetch=prefetch, query=fusion, limit=request.fetch, with_payload=True)
    return [*singles, fused]


class QdrantSearch:
    """`VectorSearch` over the points that a caller may see."""

    def __init__(self, points: ScopedPoints) -> None:
        self._points = points

    async def legs(self, request: SearchRequest) -> Mapping[str, Sequence[LegHit]]:
        """The hits of every leg, with payloads where they will be shown.

        Raises:
            qdrant_client's exceptions, which the caller's border translates.
        """
        responses = await self._points.query(batch_of(request))
        payloads = {_product(point.payload): point.payload or {} for point in responses[-1]}
        answers = {
            leg.name: [
                LegHit(_product(point.payload), point.score, payloads.get(_product(point.payload), {}))
                for point in response
                if DELETED_KEY not in (point.payload or {})
            ]
            for leg, response in zip(request.legs, responses, strict=False)
        }
        missing = [hit.product_id for hit in fuse(request, answers) if hit.product_id not in payloads]
        if missing:
            late = {_product(point.payload): point.payload or {} for point in await self._points.products(missing)}
            answers = {
                name: [LegHit(hit.product_id, hit.score, late.get(hit.product_id, hit.payload)) for hit in hits]
                for name, hits in answers.items()
            }
        return answers


def _product(payload: Mapping[str, Any] | None) -> str:
    return str((payload or {}).get(ID_KEY, ""))
