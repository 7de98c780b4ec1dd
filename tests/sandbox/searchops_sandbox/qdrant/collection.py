"""One collection: the engine's shard, the configuration beside it, and the operations that the API offers."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import config as configuration
from searchops_sandbox.qdrant import indexes, translate
from searchops_sandbox.qdrant.errors import ApiError, from_engine, not_found, unsupported, wrong_input
from searchops_sandbox.qdrant.queries import QueryTranslator, order_by
from searchops_sandbox.qdrant.results import id_json, record_json, scored_json, write_json
from searchops_sandbox.qdrant.strict import StrictMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

SAMPLE = 64
"""Points read to estimate the size of payloads and sparse vectors."""


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's errors, its panics included, into API errors."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        raise from_engine(error) from error
    except BaseException as error:
        # The binding's PanicException is a BaseException; anything else of that kind is not ours.
        if type(error).__name__ != "PanicException":
            raise
        raise from_engine(error) from error


class Collection:
    """A named collection in its own folder: `config.json` and `shard/`.

    Args:
        name: physical name.
        folder: where it lives.
        state: what `config.json` holds: `config` and `indexes`.
        release: major and minor version that the double answers as.
        clock: seconds, monotonic; for the rate limits.
    """

    def __init__(
        self, name: str, folder: Path, state: dict[str, Any], release: tuple[int, int], clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.folder = folder
        self.config: dict[str, Any] = state["config"]
        self.indexes: dict[str, Any] = state["indexes"]
        self.snapshots_created = 0
        self._release = release
        self._clock = clock
        self._opened: Any = None
        self._operation = 0
        self._filters = translate.FilterTranslator(release)
        self._queries = QueryTranslator(release, self._stored_vector)
        self.strict = self._strict_mode()

    @classmethod
    def create(
        cls, name: str, folder: Path, config: dict[str, Any], release: tuple[int, int], clock: Callable[[], float]
    ) -> Collection:
        """Make the shard, then the configuration: a folder without one was never acknowledged."""
        (folder / "shard").mkdir(parents=True)
        collection = cls(name, folder, {"config": config, "indexes": {}}, release, clock)
        with engine_errors():
            collection._opened = edge.EdgeShard.create(str(folder / "shard"), configuration.engine_config(config))
        collection.save()
        return collection

    def save(self) -> None:
        """Write the configuration so that a SIGKILL leaves the old or the new one."""
        write_json(self.folder / "config.json", {"name": self.name, "config": self.config, "indexes": self.indexes})

    def close(self) -> None:
        """Flush and release the shard."""
        if self._opened is not None:
            with engine_errors():
                self._opened.flush()
                self._opened.close()
            self._opened = None

    def discard(self) -> None:
        """Release the shard of a collection that is being removed."""
        if self._opened is not None:
            with engine_errors():
                self._opened.close()
            self._opened = None

    @property
    def _shard(self) -> Any:
        if self._opened is None:
            with engine_errors():
                self._opened = edge.EdgeShard.load(str(self.folder / "shard"))
        return self._opened

    def _strict_mode(self) -> StrictMode:
        passes = 2 if self._release < (1, 19) else 1
        return StrictMode(self.config.get("strict_mode_config"), self._clock, passes)

    # Description

    @property
    def custom_sharding(self) -> bool:
        """Whether writes need a shard key (and, without cluster mode, can never have one)."""
        return bool(self.config["params"].get("sharding_method") == "custom")

    def index_types(self) -> dict[str, str]:
        """Type of each payload index, by field."""
        return {field: entry["data_type"] for field, entry in self.indexes.items()}

    def points_count(self) -> int:
        """Exact number of points."""
        if self.custom_sharding:
            return 0
        with engine_errors():
            return int(self._shard.count(edge.CountRequest(True)))

    def describe(self) -> dict[str, Any]:
        """What `GET /collections/{name}` answers."""
        with engine_errors():
            info = self._shard.info()
        schema = {}
        for field, entry in self.indexes.items():
            known = info.payload_schema.get(field)
            schema[field] = {**entry, "points": known.points if known else 0}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": info.indexed_vectors_count,
            "points_count": self.points_count(),
            "segments_count": 0 if self.custom_sharding else info.segments_count,
            "config": self.config,
            "payload_schema": schema,
            "update_queue": {"length": 0},
        }

    def dense(self) -> dict[str, int]:
        """Size of each dense vector, by name."""
        vectors = self.config["params"]["vectors"]
        if "size" in vectors:
            return {"": vectors["size"]}
        return {name: params["size"] for name, params in vectors.items()}

    def sparse(self) -> list[str]:
        """Names of the sparse vectors."""
        return list(self.config["params"].get("sparse_vectors", {}))

    def vector_counts(self) -> dict[str, int]:
        """How many points carry each vector."""
        counts = {}
        for name in [*self.dense(), *self.sparse()]:
            only = edge.Filter(must=[edge.HasVectorCondition(name)])
            with engine_errors():
                counts[name] = int(self._shard.count(edge.CountRequest(True, only)))
        return counts

    def vector_bytes(self) -> int:
        """Estimated bytes of all vectors: exact for dense ones, from a sample for sparse ones."""
        counts = self.vector_counts()
        total = sum(counts[name] * size * 4 for name, size in self.dense().items())
        for name in self.sparse():
            if counts[name]:
                sample = self._sample(edge.Filter(must=[edge.HasVectorCondition(name)]), vectors=[name])
                lengths = [len(record.vector[name].indices) for record in sample]
                total += counts[name] * 8 * sum(lengths) // max(1, len(lengths))
        return total

    def payload_bytes(self) -> int:
        """Estimated bytes of all payloads, from a sample."""
        sample = self._sample(None, payload=True)
        size = sum(len(json.dumps(record.payload or {}, default=str)) for record in sample)
        return self.points_count() * size // max(1, len(sample))

    def _sample(self, only: Any, *, vectors: Any = False, payload: bool = False) -> list[Any]:
        with engine_errors():
            records, _ = self._shard.scroll(edge.ScrollRequest(None, SAMPLE, only, payload, vectors))
        return list(records)

    # Definition

    def patch(self, body: models.UpdateCollection) -> None:
        """Change what can be changed in place; engine settings by closing and loading the shard."""
        changed = configuration.patched(self.config, body, self._release)
        engine_keys = ("hnsw_config", "optimizer_config", "params")
        reopen = any(changed[key] != self.config[key] for key in engine_keys)
        self.config = changed
        self.save()
        if reopen:
            self.close()
            with engine_errors():
                self._opened = edge.EdgeShard.load(str(self.folder / "shard"), configuration.engine_config(self.config))
        if body.strict_mode_config is not None:
            before = self.strict
            self.strict = self._strict_mode()
            self.strict.keeps_buckets_of(before)

    def create_index(self, field: str, schema: Any) -> None:
        """Add a payload index; another type replaces the present one, the same again changes nothing."""
        entry, engine_schema = indexes.translate(schema, self._release)
        if field not in self.indexes:
            self.strict.check_index_count(len(self.indexes))
        self._update(edge.UpdateOperation.create_field_index(field, engine_schema))
        self.indexes[field] = entry
        self.save()

    def delete_index(self, field: str) -> None:
        """Remove a payload index; one that is not there is no error."""
        self._update(edge.UpdateOperation.delete_field_index(field))
        self.indexes.pop(field, None)
        self.save()

    def create_vector(self, name: str, body: models.DenseVectorNameConfig | models.SparseVectorNameConfig) -> None:
        """Add a named vector; one that is there already is no error and stays as it is."""
        params = self.config["params"]
        if "size" in params["vectors"]:
            raise wrong_input("Cannot add a named vector to a collection with an unnamed vector")
        if name in self.dense() or name in self.sparse():
            return
        if isinstance(body, models.DenseVectorNameConfig):
            given = configuration.dump(body.dense)
            if given.get("multivector_config") is not None:
                raise unsupported("named vectors with multivector_config")
            self._update(
                edge.UpdateOperation.create_dense_vector(
                    name,
                    given["size"],
                    configuration.distance(given["distance"]),
                    None,
                    configuration.datatype(given.get("datatype")),
                )
            )
            params["vectors"] = {**params["vectors"], name: given}
        else:
            given = configuration.dump(body.sparse)
            self._update(
                edge.UpdateOperation.create_sparse_vector(
                    name, configuration.modifier(given.get("modifier")), configuration.datatype(given.get("datatype"))
                )
            )
            stored = {"modifier": given["modifier"]} if "modifier" in given else {}
            if "datatype" in given:
                stored["index"] = {"datatype": given["datatype"]}
            params["sparse_vectors"] = {**params.get("sparse_vectors", {}), name: stored}
        self.save()

    def delete_vector(self, name: str) -> None:
        """Remove a named vector from the definition and from every point; a missing one is no error."""
        params = self.config["params"]
        if name in self.dense():
            kind = "vectors"
        elif name in self.sparse():
            kind = "sparse_vectors"
        else:
            return
        self._update(edge.UpdateOperation.delete_vector_name(name))
        params[kind] = {n: p for n, p in params[kind].items() if n != name}
        self.save()

    # Points: writes

    def next_operation(self) -> int:
        """Number of the latest operation."""
        self._operation += 1
        return self._operation

    def _update(self, operation: Any) -> None:
        with engine_errors():
            self._shard.update(operation)

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
        dense, sparse = self.dense(), self.sparse()
        for name, value in named.items():
            is_sparse = isinstance(value, edge.SparseVector)
            if name not in (sparse if is_sparse else dense):
                raise wrong_input(f"Not existing vector name error: {name}")
            if is_sparse:
                self.strict.check_sparse(name, len(value.indices))
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

    # Points: reads

    def _require_vector(self, name: str) -> None:
        if name not in self.dense() and name not in self.sparse():
            raise wrong_input(f"Not existing vector name error: {name}")

    def _stored_vector(self, ident: int | UUID, using: str) -> Any:
        self._require_vector(using)
        with engine_errors():
            records = self._shard.retrieve([ident], False, [using] if using else True)
        if not records:
            raise not_found(f"No point with id {ident} found")
        stored = records[0].vector
        found = stored.get(using) if isinstance(stored, dict) else stored
        if found is None:
            raise not_found(f"Point {ident} has no vector {using!r} found")
        return found

    def retrieve(self, ids: list[Any], with_payload: Any, with_vector: Any) -> list[dict[str, Any]]:
        """Points by id, in the order of the engine; missing ones are left out."""
        with engine_errors():
            records = self._shard.retrieve(
                [translate.point_id(i) for i in ids],
                translate.payload_selector(with_payload, default=True),
                with_vector if with_vector is not None else False,
            )
        return [record_json(r, with_payload=with_payload is not False, with_vector=with_vector) for r in records]

    def scroll(self, body: models.ScrollRequest) -> dict[str, Any]:
        """A page of points in the order of their ids (or of a payload key)."""
        limit = 10 if body.limit is None else body.limit
        if limit < 1:
            raise ApiError(422, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
        request = edge.ScrollRequest(
            offset=None if body.offset is None else translate.point_id(body.offset),
            limit=limit,
            filter=self._filters.filter(body.filter),
            with_payload=translate.payload_selector(body.with_payload, default=True),
            with_vector=body.with_vector if body.with_vector is not None else False,
            order_by=None if body.order_by is None else order_by(body.order_by),
        )
        with engine_errors():
            records, following = self._shard.scroll(request)
        points = [
            record_json(r, with_payload=body.with_payload is not False, with_vector=body.with_vector) for r in records
        ]
        return {"points": points, "next_page_offset": None if following is None else id_json(following)}

    def count(self, body: models.CountRequest) -> int:
        """Number of points; exact or not, the engine counts."""
        exact = True if body.exact is None else body.exact
        with engine_errors():
            return int(self._shard.count(edge.CountRequest(exact, self._filters.filter(body.filter))))

    def query(self, requests: list[models.QueryRequest]) -> list[list[dict[str, Any]]]:
        """A batch of universal queries."""
        for request in requests:
            self._check_query(request)
        with engine_errors():
            built = [self._queries.request(request) for request in requests]
            found = [self._shard.query(request) for request in built]
        return [
            [
                scored_json(p, with_payload=r.with_payload not in (None, False), with_vector=r.with_vector)
                for p in points
            ]
            for r, points in zip(requests, found, strict=True)
        ]

    def _check_query(self, body: models.QueryRequest | models.Prefetch) -> None:
        query = body.query.nearest if isinstance(body.query, models.NearestQuery) else body.query
        if isinstance(query, list | models.SparseVector):
            using = body.using or ""
            dense, sparse = self.dense(), self.sparse()
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
            self._check_query(leg)

    def facet(self, body: models.FacetRequest) -> list[dict[str, Any]]:
        """Values of an indexed field with the number of points that have them."""
        if body.key not in self.indexes:
            raise ApiError(
                400,
                f"Bad request: No appropriate index for faceting: `{body.key}`. "
                "Please create one to facet on this field.",
            )
        request = edge.FacetRequest(
            body.key, 10 if body.limit is None else body.limit, bool(body.exact), self._filters.filter(body.filter)
        )
        with engine_errors():
            hits = self._shard.facet(request).hits
        return [{"value": hit.value, "count": hit.count} for hit in hits]
