"""Which points of a collection a request may touch: said here alone, for searches and writes.

A tenant with a collection of its own may touch every point there, since the database judges its token. In a shared
collection nobody but us keeps tenants apart: every query with all its prefetches, every read by id, every write and
every count carries the tenant's slice, and what comes back is looked at once more. Points are read through
`ScopedPoints`, which cannot be made without a scope, and written by `Scope.upsert`, which alone gives a point its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.retrieval import point_id
from searchops.api.shared import TENANT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qdrant_client import AsyncQdrantClient

    from searchops.api.shared import SliceAddress

    Foreign = Callable[["Scope", int], None]
    """Told of points that came back and belong to another slice, which must never happen."""


@dataclass(frozen=True, slots=True)
class NewPoint:
    """A product's point before it is placed: a scope gives it its id and its slice."""

    product: str
    vector: dict[str, Any]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """The points of a collection that one tenant may touch.

    Attributes:
        collection: as requests name it.
        address: the tenant's slice; None where the whole collection, or what its alias points to, is the tenant's.
    """

    collection: str
    address: SliceAddress | None

    @classmethod
    def whole(cls, collection: str) -> Scope:
        """A collection that one tenant has to itself."""
        return cls(collection, None)

    @classmethod
    def of(cls, address: SliceAddress) -> Scope:
        """One slice of a shared collection."""
        return cls(address.collection, address)

    @property
    def _key(self) -> str:
        return self.address.key if self.address is not None else ""

    @property
    def routing(self) -> dict[str, Any]:
        """How requests name the shard key, where there is one."""
        shard_key = self.address.shard_key if self.address is not None else None
        return {} if shard_key is None else {"shard_key_selector": shard_key}

    def condition(self, own: models.Filter | None = None) -> models.Filter | None:
        """A filter within the slice: the other one is a condition of it, whatever it is made of."""
        if self.address is None:
            return own
        tenant = models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=self._key))
        return models.Filter(must=[tenant] if own is None else [tenant, own])

    def query(self, request: models.QueryRequest) -> models.QueryRequest:
        """A query within the slice, and all that it fetches beforehand."""
        if self.address is None:
            return request
        return request.model_copy(
            update={
                "filter": self.condition(request.filter),
                "prefetch": self._prefetches(request.prefetch),
                "shard_key": self.address.shard_key,
                "with_payload": _with_tenant(request.with_payload),
            }
        )

    def _prefetches(self, found: list[models.Prefetch] | models.Prefetch | None) -> list[models.Prefetch] | None:
        if found is None:
            return None
        return [
            one.model_copy(update={"filter": self.condition(one.filter), "prefetch": self._prefetches(one.prefetch)})
            for one in (found if isinstance(found, list) else [found])
        ]

    def id_of(self, product: str) -> str:
        """The point of a product: equal ids of two tenants are two points."""
        return point_id(product, self._key)

    def point(self, new: NewPoint) -> models.PointStruct:
        """A point of the slice; what its payload says of one is overruled."""
        payload = dict(new.payload) if self.address is None else {**new.payload, TENANT_KEY: self._key}
        return models.PointStruct(id=self.id_of(new.product), vector=new.vector, payload=payload)

    async def upsert(self, client: AsyncQdrantClient, points: Sequence[NewPoint], replaceable: models.Filter) -> None:
        """Write points; one that is there already only where it meets a condition, and only one of the slice.

        Raises:
            qdrant_client's exceptions, here and below; the caller's border translates them.
        """
        await client.upsert(
            self.collection,
            [self.point(point) for point in points],
            wait=True,
            update_filter=self.condition(replaceable),
            **self.routing,
        )

    def holds(self, payload: Mapping[str, Any] | None) -> bool:
        """Whether a point that came back is of the slice."""
        return self.address is None or (payload or {}).get(TENANT_KEY) == self._key


def _with_tenant(wanted: Any) -> Any:
    """The payload that was asked for, and the slice, without which a hit cannot be judged."""
    if wanted is True:
        return True
    return [*wanted, TENANT_KEY] if isinstance(wanted, list) else [TENANT_KEY]


class ScopedPoints:
    """The points of a scope on a cell, as they are read.

    Args:
        client: with a token that may do what is asked.
        scope: outside of which nothing is read.
        foreign: told how many points came back that are not of the scope; they are dropped.
        timeout: of a query on the server, in seconds.
    """

    def __init__(self, client: AsyncQdrantClient, scope: Scope, foreign: Foreign, *, timeout: int = 10) -> None:
        self._client = client
        self._scope = scope
        self._foreign = foreign
        self._timeout = timeout

    async def query(self, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        """The points of each query, all in one request."""
        scoped = [self._scope.query(request) for request in requests]
        responses = await self._client.query_batch_points(self._scope.collection, scoped, timeout=self._timeout)
        return [self._ours(response.points) for response in responses]

    async def products(self, names: Sequence[str]) -> list[models.Record]:
        """The points of these products that there are, with their payloads."""
        scope = self._scope
        ids: list[Any] = [scope.id_of(name) for name in names]
        if scope.address is None:
            return await self._client.retrieve(scope.collection, ids, with_payload=True)
        wanted = scope.condition(models.Filter(must=[models.HasIdCondition(has_id=ids)]))
        found, _ = await self._client.scroll(
            scope.collection, scroll_filter=wanted, limit=len(ids), with_payload=True, **scope.routing
        )
        return self._ours(found)

    async def count(self) -> int:
        """How many points there are, exactly; tombstones are points."""
        scope = self._scope
        found = await self._client.count(scope.collection, count_filter=scope.condition(), exact=True, **scope.routing)
        return found.count

    def _ours(self, points: list[Any]) -> list[Any]:
        kept = [point for point in points if self._scope.holds(point.payload)]
        if len(kept) != len(points):
            self._foreign(self._scope, len(points) - len(kept))
        return kept
