"""One collection: the engine's shards, the configuration beside them, and the operations that the API offers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import config as configuration
from searchops_sandbox.qdrant import indexes
from searchops_sandbox.qdrant.errors import bad_request, engine_errors, unsupported, wrong_input
from searchops_sandbox.qdrant.points import Points
from searchops_sandbox.qdrant.results import write_json
from searchops_sandbox.qdrant.shards import ACTIVE, PARTIAL, Key, Shard, Shards, shown
from searchops_sandbox.qdrant.strict import StrictMode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLE = 64
"""Points read to estimate the size of payloads and sparse vectors."""


class Collection:
    """A named collection in its own folder: `config.json` and `shard/`, or with custom sharding `keys/<number>/`.

    Args:
        name: physical name.
        folder: where it lives.
        state: what `config.json` holds: `config`, `indexes` and, where there are any, `shard_keys`.
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
        self.shards = Shards(folder, custom=self.custom_sharding, keys=state.get("shard_keys", ()))
        self._operation = 0
        self.strict = self._strict_mode()

    @classmethod
    def create(
        cls, name: str, folder: Path, config: dict[str, Any], release: tuple[int, int], clock: Callable[[], float]
    ) -> Collection:
        """Make the shard, then the configuration: a folder without one was never acknowledged."""
        folder.mkdir(parents=True)
        collection = cls(name, folder, {"config": config, "indexes": {}}, release, clock)
        for shard in collection.shards:
            shard.create(config)
        collection.save()
        return collection

    def save(self) -> None:
        """Write the configuration so that a SIGKILL leaves the old or the new one."""
        state: dict[str, Any] = {"name": self.name, "config": self.config, "indexes": self.indexes}
        if self.custom_sharding:
            state["shard_keys"] = self.shards.listed()
        write_json(self.folder / "config.json", state)

    def open(self) -> None:
        """Load every shard."""
        for shard in self.shards:
            shard.open()

    def close(self) -> None:
        """Flush and release every shard."""
        for shard in self.shards:
            shard.close()

    def discard(self) -> None:
        """Release the shards of a collection that is being removed."""
        for shard in self.shards:
            shard.close(flush=False)

    @property
    def points(self) -> Points:
        """The points of all shards."""
        return self.points_of(list(self.shards))

    def points_of(self, shards: list[Shard]) -> Points:
        """The points of these shards."""
        return Points(self, self._release, shards)

    def _strict_mode(self) -> StrictMode:
        passes = 2 if self._release < (1, 19) else 1
        return StrictMode(self.config.get("strict_mode_config"), self._clock, passes)

    # Description

    @property
    def custom_sharding(self) -> bool:
        """Whether writes need a shard key (which, without cluster mode, can never be made)."""
        return bool(self.config["params"].get("sharding_method") == "custom")

    def index_types(self) -> dict[str, str]:
        """Type of each payload index, by field."""
        return {field: entry["data_type"] for field, entry in self.indexes.items()}

    def points_count(self) -> int:
        """Exact number of points."""
        return sum(shard.count() for shard in self.shards)

    def describe(self) -> dict[str, Any]:
        """What `GET /collections/{name}` answers."""
        with engine_errors():
            infos = [shard.engine.info() for shard in self.shards]
        schema = {}
        for field, entry in self.indexes.items():
            known = [info.payload_schema.get(field) for info in infos]
            schema[field] = {**entry, "points": sum(part.points for part in known if part)}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": sum(info.indexed_vectors_count for info in infos),
            "points_count": self.points_count(),
            "segments_count": sum(info.segments_count for info in infos),
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

    def distances(self) -> dict[str, str]:
        """Distance of each dense vector, by name."""
        vectors = self.config["params"]["vectors"]
        if "size" in vectors:
            return {"": vectors["distance"]}
        return {name: params["distance"] for name, params in vectors.items()}

    def sparse(self) -> list[str]:
        """Names of the sparse vectors."""
        return list(self.config["params"].get("sparse_vectors", {}))

    def vector_counts(self) -> dict[str, int]:
        """How many points carry each vector."""
        counts = {}
        for name in [*self.dense(), *self.sparse()]:
            only = edge.Filter(must=[edge.HasVectorCondition(name)])
            counts[name] = sum(shard.count(only) for shard in self.shards)
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
        records: list[Any] = []
        for shard in self.shards:
            if len(records) < SAMPLE:
                with engine_errors():
                    found, _ = shard.engine.scroll(
                        edge.ScrollRequest(None, SAMPLE - len(records), only, payload, vectors)
                    )
                records += found
        return records

    # Definition

    def patch(self, body: models.UpdateCollection) -> None:
        """Change what can be changed in place; engine settings by closing and loading the shards."""
        changed = configuration.patched(self.config, body, self._release)
        engine_keys = ("hnsw_config", "optimizer_config", "params")
        reopen = any(changed[key] != self.config[key] for key in engine_keys)
        self.config = changed
        self.save()
        if reopen:
            for shard in self.shards:
                shard.reopen(self.config)
        if body.strict_mode_config is not None:
            before = self.strict
            self.strict = self._strict_mode()
            self.strict.keeps_buckets_of(before)

    def create_shard_key(self, body: models.CreateShardingKey) -> None:
        """Add a shard for a new key, on this only node.

        Raises:
            ApiError: 400 for automatic sharding or a key that is there, 501 for what one node cannot show.
        """
        key = shown(body.shard_key)
        if not self.custom_sharding:
            raise bad_request(f"Shard Key {key} cannot be created with Auto sharding method")
        if self.shards.find(body.shard_key) is not None:
            raise bad_request(f"Sharding key {key} already exists for collection {self.name}")
        if (body.shards_number or 1) != 1:
            raise unsupported("shards_number above 1 (one engine shard a shard key)")
        if body.placement is not None:
            raise unsupported("placement of a shard key (one node)")
        state = ACTIVE if body.initial_state is None else body.initial_state.value
        if state not in (ACTIVE, PARTIAL):
            raise unsupported(f"initial_state {state}")
        self.shards.add(body.shard_key, state, self.config, self.indexes, self._release)
        self.save()

    def delete_shard_key(self, key: Key) -> None:
        """Drop a key with its points.

        Raises:
            ApiError: 400 for automatic sharding or an unknown key.
        """
        if not self.custom_sharding:
            raise bad_request(f"Shard Key {shown(key)} cannot be removed with Auto sharding method")
        shard = self.shards.remove(key)
        self.save()
        shard.close(flush=False)
        shutil.rmtree(shard.folder)

    def create_index(self, field: str, schema: Any) -> None:
        """Add a payload index; another type replaces the present one, the same again changes nothing."""
        entry, engine_schema = indexes.translate(schema, self._release)
        if field not in self.indexes:
            self.strict.check_index_count(len(self.indexes))
        self.update(edge.UpdateOperation.create_field_index(field, engine_schema))
        self.indexes[field] = entry
        self.save()

    def delete_index(self, field: str) -> None:
        """Remove a payload index; one that is not there is no error."""
        self.update(edge.UpdateOperation.delete_field_index(field))
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
            self.update(
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
            self.update(
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
        self.update(edge.UpdateOperation.delete_vector_name(name))
        params[kind] = {n: p for n, p in params[kind].items() if n != name}
        self.save()

    # Writing

    def next_operation(self) -> int:
        """Number of the latest operation."""
        self._operation += 1
        return self._operation

    def update(self, operation: Any) -> None:
        """Apply one of the engine's operations to every shard."""
        for shard in self.shards:
            with engine_errors():
                shard.engine.update(operation)
