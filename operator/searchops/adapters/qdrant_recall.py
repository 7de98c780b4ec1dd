"""Recall of approximate search, measured on a collection itself: stored vectors as queries, exact search as truth."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.observed import RecallSample
from searchops.api.retrieval import DELETED_KEY
from searchops.api.shared import TENANT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qdrant_client import AsyncQdrantClient

    from searchops.api.shared import SliceAddress

QUERIES = 50
QUERIES_A_REQUEST = 10
"""Exact search reads every vector of the collection once a query: fifty at once may outlast a request's deadline."""
TOP = 10
TIE = 1e-6
"""Two scores of one float32 vector that differ by less are the same."""


async def measure(
    client: AsyncQdrantClient, collection: str, vector: str, within: SliceAddress | None = None
) -> RecallSample:
    """Search for sampled documents' neighbours both ways.

    The sample starts at an id made from the collection's name: ids are hashes, so that documents beside each other
    have nothing in common, and a second look sees the same ones.
    """
    live: list[Any] = [models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))]
    shard_key = within.shard_key if within is not None else None
    if within is not None:
        live.append(models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=within.key)))
    start = str(uuid.UUID(bytes=hashlib.sha256(f"{collection}\0{vector}".encode()).digest()[:16]))
    sample = await _sample(client, collection, vector, live, start, shard_key)
    if len(sample) < QUERIES:
        sample = {**sample, **await _sample(client, collection, vector, live, None, shard_key)}
    queries = dict(list(sample.items())[:QUERIES])
    if not queries:
        return RecallSample(0, TOP, 0, 0)
    hits = []
    for exact in (False, True):
        requests = [_request(query, vector, live, exact, shard_key) for query in queries.values()]
        answers: list[models.QueryResponse] = []
        for first in range(0, len(requests), QUERIES_A_REQUEST):
            part = requests[first : first + QUERIES_A_REQUEST]
            answers += await client.query_batch_points(collection, part)
        hits.append(answers)
    wanted = found = 0
    for own, near, true in zip(queries, *hits, strict=True):
        one_wanted, one_found = compared(_scores(near.points, own), _scores(true.points, own))
        wanted, found = wanted + one_wanted, found + one_found
    return RecallSample(len(queries), TOP, wanted, found)


def compared(near: Mapping[str, float], true: Mapping[str, float]) -> tuple[int, int]:
    """Hits wanted and found of one query: what scores as high as the last true hit is as good as that one."""
    best = sorted(true.values(), reverse=True)[:TOP]
    if not best:
        return 0, 0
    return len(best), min(len(best), sum(score >= best[-1] - TIE for score in near.values()))


async def _sample(
    client: AsyncQdrantClient,
    collection: str,
    vector: str,
    live: list[Any],
    start: str | None,
    shard_key: str | None,
) -> dict[str, list[float]]:
    having = models.Filter(must=[*live, models.HasVectorCondition(has_vector=vector)])
    points, _ = await client.scroll(
        collection,
        having,
        limit=QUERIES,
        offset=start,
        with_payload=False,
        with_vectors=[vector],
        shard_key_selector=shard_key,
    )
    found = {}
    for point in points:
        stored = point.vector.get(vector) if isinstance(point.vector, dict) else None
        if isinstance(stored, list):
            found[str(point.id)] = [float(value) for value in stored if isinstance(value, int | float)]
    return found


def _request(
    query: list[float], vector: str, live: list[Any], exact: bool, shard_key: str | None
) -> models.QueryRequest:
    return models.QueryRequest(
        query=query,
        using=vector,
        filter=models.Filter(must=live),
        limit=TOP + 1,  # the document itself is a hit, and counts for neither
        params=models.SearchParams(exact=exact),
        with_payload=False,
        with_vector=False,
        shard_key=shard_key,
    )


def _scores(points: Sequence[Any], own: str) -> dict[str, float]:
    others = [point for point in points if str(point.id) != own]
    return {str(point.id): float(point.score) for point in others[:TOP]}
