"""The engine's shards of one collection: one, or where sharding is custom one for each shard key.

A shard key has a shard of its own, as on the server: equal ids under two keys are two points, dropping a key drops its
points, IDF and rates are a shard's own.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import qdrant_edge as edge
from qdrant_client.http import models

from searchops_sandbox.qdrant import config as configuration
from searchops_sandbox.qdrant import indexes
from searchops_sandbox.qdrant.errors import ApiError, bad_request, engine_errors, not_found, unsupported, wrong_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

ACTIVE, PARTIAL = "Active", "Partial"
Key = int | str


class Shard:
    """One engine shard in a folder of its own.

    Args:
        folder: where it lives.
        number: as the server numbers shards.
        key: its shard key; None where sharding is automatic.
        state: `Active`, or `Partial`, which serves nothing.
    """

    def __init__(self, folder: Path, number: int, key: Key | None = None, state: str = ACTIVE) -> None:
        self.folder = folder
        self.number = number
        self.key = key
        self.state = state
        self._opened: Any = None

    @property
    def engine(self) -> Any:
        """The engine's shard, loaded on first use."""
        self.open()
        return self._opened

    def create(self, config: Mapping[str, Any]) -> None:
        """Make it, empty."""
        self.folder.mkdir(parents=True)
        with engine_errors():
            self._opened = edge.EdgeShard.create(str(self.folder), configuration.engine_config(dict(config)))

    def open(self) -> None:
        """Load it; its write-ahead log is replayed."""
        if self._opened is None:
            with engine_errors():
                self._opened = edge.EdgeShard.load(str(self.folder))

    def reopen(self, config: Mapping[str, Any]) -> None:
        """Load it with other settings."""
        self.close()
        with engine_errors():
            self._opened = edge.EdgeShard.load(str(self.folder), configuration.engine_config(dict(config)))

    def close(self, *, flush: bool = True) -> None:
        """Release it; flushed, unless it is being removed."""
        if self._opened is not None:
            with engine_errors():
                if flush:
                    self._opened.flush()
                self._opened.close()
            self._opened = None

    def count(self, only: Any = None) -> int:
        """Exact number of points."""
        with engine_errors():
            return int(self.engine.count(edge.CountRequest(True, only)))


class Shards:
    """All shards of a collection, in the order in which they were made.

    Args:
        folder: the collection's.
        custom: whether each has a shard key.
        keys: what `listed` gave, for custom sharding.
    """

    def __init__(self, folder: Path, *, custom: bool, keys: Iterable[Mapping[str, Any]] = ()) -> None:
        self._folder = folder
        self.custom = custom
        self._all = [Shard(self._place(k["number"]), k["number"], k["key"], k["state"]) for k in keys]
        if not custom:
            self._all = [Shard(folder / "shard", 0)]
        known = {shard.folder for shard in self._all}
        for leftover in [path for path in self._keys_folder.glob("*") if path not in known]:
            shutil.rmtree(leftover)  # made or dropped while the process was killed: never acknowledged, or gone

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _keys_folder(self) -> Path:
        return self._folder / "keys"

    def _place(self, number: int) -> Path:
        return self._keys_folder / str(number)

    def listed(self) -> list[dict[str, Any]]:
        """The shard keys, as they are stored."""
        return [{"key": s.key, "number": s.number, "state": s.state} for s in self._all if s.key is not None]

    def add(self, key: Key, state: str, config: Mapping[str, Any], fields: Mapping[str, Any], release: Any) -> None:
        """A shard for a new key, with the collection's vectors and payload indexes.

        Args:
            key: the shard key, not there yet.
            state: of the new shard.
            config: the collection's.
            fields: its payload indexes, as they are reported.
            release: major and minor version that the double answers as.
        """
        number = max((shard.number for shard in self._all), default=0) + 1
        shard = Shard(self._place(number), number, key, state)
        try:
            shard.create(config)
            for field, entry in fields.items():
                schema = indexes.reported(entry, release)
                with engine_errors():
                    shard.engine.update(edge.UpdateOperation.create_field_index(field, schema))
        except BaseException:
            shutil.rmtree(shard.folder, ignore_errors=True)
            raise
        self._all.append(shard)

    def remove(self, key: Key) -> Shard:
        """Take the shard of a key out; its folder is the caller's to remove, once that is saved."""
        shard = self.find(key)
        if shard is None:
            raise bad_request(f"Sharding key {shown(key)} does not exist for the collection")
        self._all.remove(shard)
        return shard

    def find(self, key: Key) -> Shard | None:
        """The shard of a key."""
        return next((shard for shard in self._all if same(shard.key, key)), None)

    # Selection

    def to_read(self, selector: Any) -> list[Shard]:
        """The shards that a read is answered from: those of its keys, all without one.

        Raises:
            ApiError: 400 for an unknown key, 404 where neither target nor fallback is there, 500 for a shard that is
                not ready.
        """
        if isinstance(selector, models.ShardKeyWithFallback):
            chosen = [self._target_or_fallback(selector)]
        elif selector is None:
            chosen = list(self._all)
        else:
            chosen = [self._known(key, bad_request) for key in _keys(selector)]
        for shard in chosen:
            if shard.state != ACTIVE:
                raise ApiError(
                    500, f"Service internal error: The replica set for shard {shard.number} has no active replica"
                )
        return chosen

    def to_write(self, selector: Any) -> list[Shard]:
        """The shards that a write goes to; with custom sharding it must name a key.

        Raises:
            ApiError: 400 without a key or for an unknown one, 404 where neither target nor fallback is there, 501 for
                a shard that is being filled.
        """
        if selector is None:
            if self.custom:
                raise wrong_input("Shard key not specified")
            return list(self._all)
        if isinstance(selector, models.ShardKeyWithFallback):
            target = self.find(selector.target)
            if target is not None and target.state != ACTIVE:
                raise unsupported("writes to a target that is being filled (the server writes to target and fallback)")
            return [self._target_or_fallback(selector)]
        return [self._known(key, wrong_input) for key in _keys(selector)]

    def _known(self, key: Key, refusal: Any) -> Shard:
        shard = self.find(key)
        if shard is None:
            error: ApiError = refusal(f"Shard key {shown(key)} not found")
            raise error
        return shard

    def _target_or_fallback(self, selector: models.ShardKeyWithFallback) -> Shard:
        target, fallback = self.find(selector.target), self.find(selector.fallback)
        if target is not None and target.state == ACTIVE:
            return target
        if fallback is not None:
            return fallback
        raise not_found(
            f"Neither target shard key {shown(selector.target)} "
            f"nor fallback shard key {shown(selector.fallback)} exist not found"
        )


def _keys(selector: Any) -> list[Key]:
    keys = list(dict.fromkeys(selector)) if isinstance(selector, list) else [selector]
    if not keys:
        raise wrong_input("Shard key not specified")
    return keys


def same(one: Key | None, other: Key | None) -> bool:
    """Whether two shard keys are one; the number 1 and the text 1 are two."""
    return type(one) is type(other) and one == other


def shown(key: Key) -> str:
    """A shard key as the server's messages show it."""
    return json.dumps(key)
