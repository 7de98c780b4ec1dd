"""Points of one collection, or of some of its shards: writing, reading and searching them through the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import merging, translate
from searchops_sandbox.qdrant.errors import ApiError, engine_errors, not_found, unsupported, wrong_input
from searchops_sandbox.qdrant.queries import QueryTranslator, order_by
from searchops_sandbox.qdrant.results import id_json, record_json, scored_json

if TYPE_CHECKING:
    from uuid import UUID

    from searchops_sandbox.qdrant.collection import Collection
    from searchops_sandbox.qdrant.shards import Key, Shard

_ALL_VALUES = 1_000_000
"""Facets of several shards are summed, so each is asked for all that it has."""


class Points:
    """Operations on the points of a collection, after access and strict mode.

    Args:
        collection: whose points.
        release: major and minor version that the double answers as.
        shards: which of its shards: reads are of these only, writes go to each of these.
    """

    def __init__(self, collection: Collection, release: tuple[int, int], shards: list[Shard]) -> None:
        self._collection = collection
        self._shards = shards
        self._filters = translate.FilterTranslator(release)
        self._queries = QueryTranslator(release, self._stored_vector)

    @property
    def collection(self) -> Collection:
        """Whose points these are."""
        return self._collection

    @property
    def keys(self) -> list[Key | None]:
        """The shard keys that they stand under."""
        return [shard.key for shard in self._shards]

    def _update(self, operation: Any) -> None:
        for shard in self._shards:
            with engine_errors():
                shard.engine.update(operation)

    def upsert(self, points: list[models.PointStruct], condition: models.Filter | None, mode: Any) -> None:
        """Insert or replace points; everything is checked before anything is written."""
        converted = []
        for point in points:
            vectors = translate.vectors(point.vector)
            self._check_vectors(vectors)
            converted.append(edge.Point(translate.point_id(point.id), vectors, point.payload or {}))
        update_mode = None if mode is None else getattr(edge.UpdateMode, mode.value.title().replace("_", ""))
        self._update(edge.UpdateOperation.upsert_points(converted, self._filters.filter(condition), update_mode))

    def update_vectors(self, points: list[models.PointVectors], condition: models.Filter | None) -> None:
        """Replace single vectors; a missing point answers 404 after the others were written."""
        converted = []
        for point in points:
            vectors = translate.vectors(point.vector)
            self._check_vectors(vectors)
            converted.append(edge.PointVectors(translate.point_id(point.id), vectors))
        self._update(edge.UpdateOperation.update_vectors(converted, self._filters.filter(condition)))

    def _check_vectors(self, vectors: Any) -> None:
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        dense, sparse = self._collection.dense(), self._collection.sparse()
        for name, value in named.items():
            is_sparse = isinstance(value, edge.SparseVector)
            if name not in (sparse if is_sparse else dense):
                raise wrong_input(f"Not existing vector name error: {name}")
            if is_sparse:
                self._collection.strict.check_sparse(name, len(value.indices))
            elif value and isinstance(value[0], list):
                raise unsupported("multivectors")
            elif len(value) != dense[name]:
                raise wrong_input(
                    f"Vector dimension error: expected dim: {dense[name]}, got {len(value)} for vector '{name}'"
                )

    def delete_points(self, selector: Any) -> None:
        """Delete by ids or by filter."""
        ids, only = self._selected(selector)
        make = edge.UpdateOperation
        self._update(make.delete_points(ids) if only is None else make.delete_points_by_filter(only))

    def set_payload(self, body: models.SetPayload, *, overwrite: bool) -> None:
        """Merge into (or replace) the payload of the selected points."""
        ids, only = self._selected(body)
        make = edge.UpdateOperation
        by_ids, by_filter = (
            (make.overwrite_payload, make.overwrite_payload_by_filter)
            if overwrite
            else (make.set_payload, make.set_payload_by_filter)
        )
        self._update(by_ids(ids, body.payload, body.key) if only is None else by_filter(only, body.payload, body.key))

    def delete_payload(self, body: models.DeletePayload) -> None:
        """Remove keys from the payload of the selected points."""
        ids, only = self._selected(body)
        make = edge.UpdateOperation
        self._update(
            make.delete_payload(ids, body.keys) if only is None else make.delete_payload_by_filter(only, body.keys)
        )

    def clear_payload(self, selector: Any) -> None:
        """Remove the whole payload of the selected points."""
        ids, only = self._selected(selector)
        make = edge.UpdateOperation
        self._update(make.clear_payload(ids) if only is None else make.clear_payload_by_filter(only))

    def delete_vectors(self, body: models.DeleteVectors) -> None:
        """Remove named vectors from the selected points."""
        for name in body.vector:
            self._require_vector(name)
        ids, only = self._selected(body)
        make = edge.UpdateOperation
        self._update(
            make.delete_vectors(ids, body.vector) if only is None else make.delete_vectors_by_filter(only, body.vector)
        )

    def _selected(self, body: Any) -> tuple[list[Any], Any]:
        ids = getattr(body, "points", None)
        only = getattr(body, "filter", None)
        if ids is not None:
            return [translate.point_id(i) for i in ids], None
        if only is None:
            raise ApiError(422, "Validation error in JSON body: [either points or filter must be provided]")
        return [], self._filters.filter(only)

    # Reads

    def _require_vector(self, name: str) -> None:
        if name not in self._collection.dense() and name not in self._collection.sparse():
            raise wrong_input(f"Not existing vector name error: {name}")

    def _stored_vector(self, ident: int | UUID, using: str) -> Any:
        self._require_vector(using)
        records: list[Any] = []
        for shard in self._shards:
            with engine_errors():
                records += shard.engine.retrieve([ident], False, [using] if using else True)
        if not records:
            raise not_found(f"No point with id {ident} found")
        stored = records[0].vector
        found = stored.get(using) if isinstance(stored, dict) else stored
        if found is None:
            raise not_found(f"Point {ident} has no vector {using!r} found")
        return found

    def retrieve(self, ids: list[Any], with_payload: Any, with_vector: Any) -> list[dict[str, Any]]:
        """Points by id, in the order of the engine; missing ones are left out."""
        wanted = [translate.point_id(i) for i in ids]
        payload = translate.payload_selector(with_payload, default=False)
        vector = with_vector if with_vector is not None else False
        found: list[merging.Found] = []
        for shard in self._shards:
            with engine_errors():
                found += [(shard.key, record) for record in shard.engine.retrieve(wanted, payload, vector)]
        return [
            record_json(record, key, with_payload=with_payload not in (None, False), with_vector=with_vector)
            for key, record in merging.once(found)
        ]

    def scroll(self, body: models.ScrollRequest) -> dict[str, Any]:
        """A page of points in the order of their ids (or of a payload key)."""
        limit = 10 if body.limit is None else body.limit
        if limit < 1:
            raise ApiError(422, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
        several = len(self._shards) > 1
        ordered = None if body.order_by is None else order_by(body.order_by)
        request = edge.ScrollRequest(
            offset=None if body.offset is None else translate.point_id(body.offset),
            limit=limit + 1 if several else limit,
            filter=self._filters.filter(body.filter),
            with_payload=translate.payload_selector(body.with_payload, default=True),
            with_vector=body.with_vector if body.with_vector is not None else False,
            order_by=ordered,
        )
        found: list[merging.Found] = []
        following: Any = None
        for shard in self._shards:
            with engine_errors():
                records, following = shard.engine.scroll(request)
            found += [(shard.key, record) for record in records]
        if several:
            found, following = _page(found, limit, body.order_by)
        points = [
            record_json(r, key, with_payload=body.with_payload is not False, with_vector=body.with_vector)
            for key, r in found
        ]
        return {"points": points, "next_page_offset": None if following is None else id_json(following)}

    def count(self, body: models.CountRequest) -> int:
        """Number of points; exact or not, the engine counts."""
        return sum(shard.count(self._filters.filter(body.filter)) for shard in self._shards)

    def query(self, request: models.QueryRequest) -> list[dict[str, Any]]:
        """One universal query, checked."""
        several = len(self._shards) > 1
        with engine_errors():
            built = self._queries.request(merging.across_shards(request) if several else request)
            found = [(shard.key, hit) for shard in self._shards for hit in shard.engine.query(built)]
        if several:
            found = merging.hits(request, found, self._collection.distances())
        return [
            scored_json(
                hit, key, with_payload=request.with_payload not in (None, False), with_vector=request.with_vector
            )
            for key, hit in found
        ]

    def check_query(self, body: models.QueryRequest | models.Prefetch) -> None:
        """Refuse what does not fit the collection, before any query of a batch is answered."""
        query = body.query.nearest if isinstance(body.query, models.NearestQuery) else body.query
        if isinstance(query, list | models.SparseVector):
            using = body.using or ""
            dense, sparse = self._collection.dense(), self._collection.sparse()
            known = sparse if isinstance(query, models.SparseVector) else dense
            if using not in known:
                other = using in dense or using in sparse
                raise wrong_input(
                    f"Conversion between sparse and regular vectors failed for {using}"
                    if other
                    else f"Not existing vector name error: {using}"
                )
            if isinstance(query, list) and query and not isinstance(query[0], list) and len(query) != dense[using]:
                raise wrong_input(f"Vector dimension error: expected dim: {dense[using]}, got {len(query)}")
        for leg in translate.as_list(body.prefetch):
            self.check_query(leg)

    def facet(self, body: models.FacetRequest) -> list[dict[str, Any]]:
        """Values of an indexed field with the number of points that have them."""
        if body.key not in self._collection.indexes:
            raise ApiError(
                400,
                f"Bad request: No appropriate index for faceting: `{body.key}`. "
                "Please create one to facet on this field.",
            )
        limit = 10 if body.limit is None else body.limit
        several = len(self._shards) > 1
        request = edge.FacetRequest(
            body.key, _ALL_VALUES if several else limit, bool(body.exact), self._filters.filter(body.filter)
        )
        with engine_errors():
            found = [hit for shard in self._shards for hit in shard.engine.facet(request).hits]
        pairs = merging.facets(found, limit) if several else [(hit.value, hit.count) for hit in found]
        return [{"value": value, "count": count} for value, count in pairs]


def _page(
    found: list[merging.Found], limit: int, order: models.OrderBy | str | None
) -> tuple[list[merging.Found], Any]:
    """A page of what several shards gave, and where the next one starts."""
    if order is not None:
        descending = isinstance(order, models.OrderBy) and order.direction is models.Direction.DESC
        return merging.by_value(found, descending=descending)[:limit], None
    ordered = merging.by_id(found)
    return ordered[:limit], ordered[limit][1].id if len(ordered) > limit else None
