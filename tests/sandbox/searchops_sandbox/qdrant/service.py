"""The API without a protocol: access, name resolution, strict mode, then the engine. REST and gRPC both call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client.http import models

from searchops_sandbox.qdrant import translate
from searchops_sandbox.qdrant.access import Access, Need
from searchops_sandbox.qdrant.errors import ApiError
from searchops_sandbox.qdrant.strict import conditions_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops_sandbox.qdrant.collection import Collection
    from searchops_sandbox.qdrant.points import Points
    from searchops_sandbox.qdrant.store import Store


class Service:
    """Operations on one cell.

    Args:
        store: what the cell holds.
        cluster_mode: whether it is a cluster, of one node: shard keys can be made.
    """

    def __init__(self, store: Store, *, cluster_mode: bool = False) -> None:
        self.store = store
        self.cluster_mode = cluster_mode

    def value_exists(self, name: str, matches: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a collection has a point with all these payload values (the `value_exists` claim).

        As the server's source has it: a scroll of one point by that filter, past strict mode and rates.

        Raises:
            ApiError: 403, plain, where the collection is missing.
        """
        try:
            collection = self.store.resolve(name)
        except ApiError as error:
            raise ApiError(403, "Invalid JWT, stateful validation failed", plain=True) from error
        conditions: list[models.Condition] = [
            models.FieldCondition(key=m["key"], match=models.MatchValue(value=m["value"])) for m in matches
        ]
        wanted = models.ScrollRequest(limit=1, filter=models.Filter(must=conditions), with_payload=False)
        return bool(collection.points.scroll(wanted)["points"])

    def collection(self, access: Access, name: str, need: Need) -> Collection:
        """Check the name in the request, then resolve it.

        Raises:
            ApiError: 403 or 404.
        """
        access.check(name, need)
        return self.store.resolve(name)

    def names(self, access: Access) -> list[str]:
        """Collections that these rights may see."""
        return sorted(name for name in self.store.collections if access.sees(name))

    def exists(self, access: Access, name: str) -> bool:
        """Whether a collection or alias of that name exists."""
        access.check(name, Need.READ)
        return name in self.store.collections or name in self.store.aliases

    # Writes

    def _writable(self, access: Access, name: str, shard_key: Any) -> Points:
        collection = self.collection(access, name, Need.POINTS)
        return collection.points_of(collection.shards.to_write(shard_key))

    @staticmethod
    def _done(collection: Collection, wait: bool) -> dict[str, Any]:
        return {"operation_id": collection.next_operation(), "status": "completed" if wait else "acknowledged"}

    def upsert(
        self, access: Access, name: str, body: models.PointsList | models.PointsBatch, wait: bool
    ) -> dict[str, Any]:
        """Insert or replace points."""
        there = self._writable(access, name, body.shard_key)
        points = body.points if isinstance(body, models.PointsList) else _rows(body.batch)
        strict = there.collection.strict
        strict.limit(len(points), "upsert_max_batchsize", "upsert limit")
        strict.check_sizes(there.collection)
        strict.take_write(len(points), there.keys)
        there.upsert(points, body.update_filter, body.update_mode)
        return self._done(there.collection, wait)

    def update_vectors(self, access: Access, name: str, body: models.UpdateVectors, wait: bool) -> dict[str, Any]:
        """Replace single vectors of points."""
        there = self._writable(access, name, body.shard_key)
        strict = there.collection.strict
        strict.limit(len(body.points), "upsert_max_batchsize", "update limit")
        strict.check_sizes(there.collection)
        strict.take_write(len(body.points), there.keys)
        there.update_vectors(body.points, body.update_filter)
        return self._done(there.collection, wait)

    def _selection(self, access: Access, name: str, body: Any) -> Points:
        there = self._writable(access, name, body.shard_key)
        only = getattr(body, "filter", None)
        there.collection.strict.check_filter(only, there.collection, update=True)
        ids = getattr(body, "points", None)
        if ids is None and only is not None:
            affected = there.count(models.CountRequest(filter=only, exact=True))
        else:
            affected = len(ids or [])
        there.collection.strict.take_write(affected, there.keys)
        return there

    def delete(self, access: Access, name: str, body: Any, wait: bool) -> dict[str, Any]:
        """Delete points by ids or filter."""
        there = self._selection(access, name, body)
        there.delete_points(body)
        return self._done(there.collection, wait)

    def set_payload(
        self, access: Access, name: str, body: models.SetPayload, wait: bool, *, overwrite: bool = False
    ) -> dict[str, Any]:
        """Merge into or replace payloads."""
        there = self._selection(access, name, body)
        there.collection.strict.check_payload_size(there.collection)
        there.set_payload(body, overwrite=overwrite)
        return self._done(there.collection, wait)

    def delete_payload(self, access: Access, name: str, body: models.DeletePayload, wait: bool) -> dict[str, Any]:
        """Remove payload keys."""
        there = self._selection(access, name, body)
        there.delete_payload(body)
        return self._done(there.collection, wait)

    def clear_payload(self, access: Access, name: str, body: Any, wait: bool) -> dict[str, Any]:
        """Remove whole payloads."""
        there = self._selection(access, name, body)
        there.clear_payload(body)
        return self._done(there.collection, wait)

    def delete_vectors(self, access: Access, name: str, body: models.DeleteVectors, wait: bool) -> dict[str, Any]:
        """Remove named vectors from points."""
        there = self._selection(access, name, body)
        there.delete_vectors(body)
        return self._done(there.collection, wait)

    def batch(self, access: Access, name: str, body: models.UpdateOperations, wait: bool) -> list[dict[str, Any]]:
        """Several updates in order; those before a bad one stay applied."""
        results = []
        for operation in body.operations:
            match operation:
                case models.UpsertOperation():
                    result = self.upsert(access, name, operation.upsert, wait)
                case models.DeleteOperation():
                    result = self.delete(access, name, operation.delete, wait)
                case models.SetPayloadOperation():
                    result = self.set_payload(access, name, operation.set_payload, wait)
                case models.OverwritePayloadOperation():
                    result = self.set_payload(access, name, operation.overwrite_payload, wait, overwrite=True)
                case models.DeletePayloadOperation():
                    result = self.delete_payload(access, name, operation.delete_payload, wait)
                case models.ClearPayloadOperation():
                    result = self.clear_payload(access, name, operation.clear_payload, wait)
                case models.UpdateVectorsOperation():
                    result = self.update_vectors(access, name, operation.update_vectors, wait)
                case models.DeleteVectorsOperation():
                    result = self.delete_vectors(access, name, operation.delete_vectors, wait)
            results.append(result)
        return results

    # Reads

    def _readable(self, access: Access, name: str, shard_key: Any) -> Points:
        collection = self.collection(access, name, Need.READ)
        return collection.points_of(collection.shards.to_read(shard_key))

    def retrieve(self, access: Access, name: str, body: models.PointRequest) -> list[dict[str, Any]]:
        """Points by id."""
        there = self._readable(access, name, body.shard_key)
        there.collection.strict.take_read(len(body.ids), there.keys)
        return there.retrieve(body.ids, body.with_payload, body.with_vector)

    def scroll(self, access: Access, name: str, body: models.ScrollRequest) -> dict[str, Any]:
        """A page of points."""
        there = self._readable(access, name, body.shard_key)
        strict = there.collection.strict
        strict.limit(body.limit, "max_query_limit", "limit")
        strict.check_filter(body.filter, there.collection, update=False)
        strict.take_read(1 + conditions_count(body.filter), there.keys)
        return there.scroll(body)

    def count(self, access: Access, name: str, body: models.CountRequest) -> int:
        """Number of points."""
        there = self._readable(access, name, body.shard_key)
        strict = there.collection.strict
        strict.check_filter(body.filter, there.collection, update=False)
        strict.check_exact(body.exact is not False)
        strict.take_read(1 + conditions_count(body.filter), there.keys)
        return there.count(body)

    def facet(self, access: Access, name: str, body: models.FacetRequest) -> list[dict[str, Any]]:
        """Values of a field."""
        there = self._readable(access, name, body.shard_key)
        strict = there.collection.strict
        strict.limit(10 if body.limit is None else body.limit, "max_query_limit", "limit")
        strict.check_filter(body.filter, there.collection, update=False)
        strict.check_exact(bool(body.exact))
        strict.take_read(1 + conditions_count(body.filter), there.keys)
        return there.facet(body)

    def query(
        self, access: Access, name: str, requests: list[models.QueryRequest], *, batch: bool = False
    ) -> list[list[dict[str, Any]]]:
        """Universal queries; a batch that the rates do not allow whole is not answered in part."""
        collection = self.collection(access, name, Need.READ)
        if batch:
            collection.strict.limit(len(requests), "search_max_batchsize", "search batch size")
        asked = [(self._readable(access, name, request.shard_key), request) for request in requests]
        costs: dict[Any, int] = {}
        for there, request in asked:
            _check_query(request, collection)
            for key in there.keys:
                costs[key] = costs.get(key, 0) + query_cost(request, 0)
        for key, cost in costs.items():
            collection.strict.take_read(cost, [key])
        for there, request in asked:
            there.check_query(request)
        return [there.query(request) for there, request in asked]


def _check_query(body: models.QueryRequest | models.Prefetch, collection: Collection) -> None:
    strict = collection.strict
    strict.limit(10 if body.limit is None else body.limit, "max_query_limit", "limit")
    strict.check_filter(body.filter, collection, update=False)
    strict.check_params(body.params)
    if isinstance(body.query, models.FormulaQuery):
        strict.check_formula(body.query.formula, collection)
    for leg in translate.as_list(body.prefetch):
        _check_query(leg, collection)


def query_cost(body: models.QueryRequest | models.Prefetch, inherited: int) -> int:
    """Read tokens of a query: each leg that searches costs one and one for each condition of its filters."""
    conditions = inherited + conditions_count(body.filter)
    legs = translate.as_list(body.prefetch)
    if not legs:
        return 1 + conditions
    return sum(query_cost(leg, conditions) for leg in legs)


def _rows(batch: models.Batch) -> list[models.PointStruct]:
    count = len(batch.ids)
    payloads: Sequence[Any] = batch.payloads or [None] * count
    if isinstance(batch.vectors, dict):
        columns = batch.vectors
        uneven = any(len(column) != count for column in columns.values())
        vectors: list[Any] = [{}] * count if uneven else [{n: c[i] for n, c in columns.items()} for i in range(count)]
    else:
        vectors = list(batch.vectors)
        uneven = len(vectors) != count
    if uneven or len(payloads) != count:
        raise ApiError(422, "Validation error in JSON body: [batch: number of ids, vectors and payloads must be equal]")
    return [
        models.PointStruct(id=ident, vector=vector, payload=payload)
        for ident, vector, payload in zip(batch.ids, vectors, payloads, strict=True)
    ]
