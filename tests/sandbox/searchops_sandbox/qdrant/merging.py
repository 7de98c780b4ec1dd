"""Answers of several shards made one, as the server does: in order, and each id once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from qdrant_client.http import models

from searchops_sandbox.qdrant.errors import unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from searchops_sandbox.qdrant.shards import Key

    Found = tuple[Key | None, Any]
    """A record or hit of the engine, and the shard key that it stood under."""

_SMALLER_IS_NEARER = frozenset({"Euclid", "Manhattan"})


def _id_order(value: int | UUID) -> tuple[int, int]:
    return (1, value.int) if isinstance(value, UUID) else (0, value)


def once(found: Iterable[Found]) -> list[Found]:
    """Without what has an id that came before."""
    seen: set[Any] = set()
    return [(key, item) for key, item in found if not (item.id in seen or seen.add(item.id))]  # type: ignore[func-returns-value]


def by_id(found: Iterable[Found]) -> list[Found]:
    """In the order of ids."""
    return once(sorted(found, key=lambda pair: _id_order(pair[1].id)))


def by_value(found: Iterable[Found], *, descending: bool) -> list[Found]:
    """In the order of the payload value that was asked for, then of ids."""
    return once(sorted(found, key=lambda pair: (pair[1].order_value, _id_order(pair[1].id)), reverse=descending))


def hits(body: models.QueryRequest, found: Iterable[Found], distances: Mapping[str, str]) -> list[Found]:
    """The best hits of several shards, the offset skipped.

    Args:
        body: the request; each shard was asked for `offset + limit` hits.
        found: hits of every shard.
        distances: of the dense vectors, by name.
    """
    smaller = distances.get(body.using or "") in _SMALLER_IS_NEARER
    order: Callable[[Found], Any] = lambda pair: pair[1].score  # noqa: E731 - one word for both orders
    ordered = once(sorted(found, key=order, reverse=not smaller))
    offset = body.offset or 0
    return ordered[offset : offset + (10 if body.limit is None else body.limit)]


def across_shards(body: models.QueryRequest) -> models.QueryRequest:
    """The request that each of several shards is asked.

    Raises:
        ApiError: 501 for what the server merges in the middle of a query: legs, fusion, formula, sample.
    """
    plain = (list, models.SparseVector, models.Document, models.NearestQuery, int, str, UUID)
    mmr = isinstance(body.query, models.NearestQuery) and body.query.mmr is not None
    if body.prefetch or mmr or not isinstance(body.query, plain):
        raise unsupported("queries over several shard keys other than for the nearest of one vector")
    return body.model_copy(
        update={"offset": 0, "limit": (body.offset or 0) + (10 if body.limit is None else body.limit)}
    )


def facets(found: Iterable[Any], limit: int) -> list[tuple[Any, int]]:
    """Values with the sums of their counts, the most frequent first."""
    sums: dict[Any, int] = {}
    for hit in found:
        sums[hit.value] = sums.get(hit.value, 0) + hit.count
    return sorted(sums.items(), key=lambda pair: (-pair[1], str(pair[0])))[:limit]
