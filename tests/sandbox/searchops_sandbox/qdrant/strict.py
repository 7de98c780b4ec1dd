"""Strict mode: the caps of one collection, with the server's messages, and two token buckets a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client.http import models

from searchops_sandbox.qdrant.errors import ApiError, bad_request, rate_limited, unsupported
from searchops_sandbox.qdrant.translate import as_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from searchops_sandbox.qdrant.collection import Collection

_UNSUPPORTED = ("multivector_config", "max_resident_memory_percent", "search_max_oversampling")


def validate(config: Mapping[str, Any]) -> None:
    """Refuse settings that a server refuses (a limit of zero) and those that the double would not enforce.

    Raises:
        ApiError: 422 or 501.
    """
    for key, value in config.items():
        if key in _UNSUPPORTED:
            raise unsupported(f"strict_mode_config.{key}")
        zero_is_wrong = isinstance(value, int) and not isinstance(value, bool) and value < 1
        if zero_is_wrong and key != "max_payload_index_count":
            raise ApiError(
                422,
                "Validation error in JSON body: "
                f"[strict_mode_config.{key}: value {value} invalid, must be 1 or larger]",
            )


class Bucket:
    """A token bucket refilled evenly over a minute.

    Args:
        kind: `Read` or `Write`, for the message.
        per_minute: capacity and refill.
        clock: seconds, monotonic.
    """

    def __init__(self, kind: str, per_minute: int, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60.0
        self._clock = clock
        self._tokens = self._capacity
        self._at = clock()

    def take(self, cost: int) -> None:
        """Take `cost` tokens, all or none.

        Raises:
            ApiError: 429, or 400 where the cost is above the capacity and no waiting helps.
        """
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if cost > self._capacity:
            raise ApiError(
                429,
                f"Rate limiting exceeded: {self._kind} rate limit exceeded: Operation requires {cost} tokens "
                f"but the maximum is {self._capacity:.0f}. Please, split the request into smaller ones",
            )
        # The tolerance covers rounding of the refill, not generosity.
        if self._tokens + 1e-9 < cost:
            raise rate_limited(self._kind, needed=cost, available=self._tokens, per_second=self._per_second)
        self._tokens -= cost


class StrictMode:
    """Enforces one collection's strict mode.

    Args:
        config: the collection's `strict_mode_config`, or None.
        clock: seconds, monotonic.
        write_passes: how often one write passes the limiter: twice on 1.18, whose recorded exchanges show a batch
            of 3 emptying a bucket of 6; once from 1.19 on.
    """

    def __init__(self, config: Mapping[str, Any] | None, clock: Callable[[], float], write_passes: int) -> None:
        self._config: Mapping[str, Any] = config if config and config.get("enabled") else {}
        self._write_passes = write_passes
        self._clock = clock
        self._read: dict[Any, Bucket] = {}
        self._write: dict[Any, Bucket] = {}

    def _bucket(self, kind: str, shard: Any) -> Bucket | None:
        limit = self._config.get(f"{kind.lower()}_rate_limit")
        if limit is None:
            return None
        buckets = self._read if kind == "Read" else self._write
        # A number and a text that look alike are two shard keys.
        return buckets.setdefault((type(shard), shard), Bucket(kind, limit, self._clock))

    def keeps_buckets_of(self, other: StrictMode) -> None:
        """Go on with the tokens of `other` where the rates are unchanged."""
        if self._config.get("read_rate_limit") == other._config.get("read_rate_limit"):
            self._read = other._read
        if self._config.get("write_rate_limit") == other._config.get("write_rate_limit"):
            self._write = other._write

    def take_read(self, cost: int, shards: Sequence[Any] = (None,)) -> None:
        """Charge a read to each of these shards (by their keys): the rates are of a shard."""
        for shard in shards:
            if (bucket := self._bucket("Read", shard)) is not None:
                bucket.take(cost)

    def take_write(self, cost: int, shards: Sequence[Any] = (None,)) -> None:
        """Charge a write to each of these shards (by their keys)."""
        for shard in shards:
            if (bucket := self._bucket("Write", shard)) is not None:
                for _ in range(self._write_passes):
                    bucket.take(max(1, cost))

    def limit(self, value: int | None, key: str, label: str) -> None:
        """Cap a number of the request."""
        cap = self._config.get(key)
        if cap is not None and value is not None and value > cap:
            raise bad_request(
                f'Limit exceeded {value} > {cap} for "{label}". Help: Reduce the "{label}" parameter to or below {cap}.'
            )

    def check_filter(self, value: models.Filter | None, collection: Collection, *, update: bool) -> None:
        """Require an index for every field that a filter names, and cap the filter's size."""
        if value is None or not self._config:
            return
        key = "unindexed_filtering_update" if update else "unindexed_filtering_retrieve"
        conditions = list(walk(value))
        if self._config.get(key) is False:
            for condition in conditions:
                _require_index(condition, collection.index_types())
        cap = self._config.get("filter_max_conditions")
        if cap is not None and len(conditions) > cap:
            raise bad_request(
                f"Filter condition limit reached ({len(conditions)} > {cap}). "
                "Help: Reduce the amount of conditions of your filter."
            )
        cap = self._config.get("condition_max_size")
        size = max((condition_size(c) for c in conditions), default=0)
        if cap is not None and size > cap:
            raise bad_request(
                f"Condition size limit reached ({size} > {cap}). Help: Reduce the size of your condition."
            )

    def check_params(self, params: models.SearchParams | None) -> None:
        """Cap `hnsw_ef` and refuse exact search where that is not allowed."""
        if params is None or not self._config:
            return
        self.limit(params.hnsw_ef, "search_max_hnsw_ef", "hnsw_ef")
        self.check_exact(bool(params.exact))

    def check_exact(self, exact: bool) -> None:
        """Refuse exact requests where they are not allowed."""
        if exact and self._config.get("search_allow_exact") is False:
            raise bad_request('Exact search disabled!. Help: Set "exact" to false.')

    def check_sizes(self, collection: Collection) -> None:
        """Refuse further points in a collection that has reached a cap (the batch itself is not counted)."""
        cap = self._config.get("max_collection_vector_size_bytes")
        if cap is not None and collection.vector_bytes() >= cap:
            raise bad_request(f"Max vector storage size limit of {cap / 1024**2:g}MB reached!")
        self.check_payload_size(collection)
        cap = self._config.get("max_points_count")
        if cap is not None and collection.points_count() >= cap:
            raise bad_request(f"Max points count limit of {cap} reached!")

    def check_payload_size(self, collection: Collection) -> None:
        """Refuse further payload in a collection that has reached its cap."""
        cap = self._config.get("max_collection_payload_size_bytes")
        if cap is not None and collection.payload_bytes() >= cap:
            raise bad_request(f"Max payload storage size limit of {cap / 1024**2:g}MB reached!")

    def check_formula(self, formula: Any, collection: Collection) -> None:
        """Require an index for every payload field that a formula reads."""
        if self._config.get("unindexed_filtering_retrieve") is not False:
            return
        for leaf in formula_leaves(formula):
            if isinstance(leaf, str):
                key = leaf.split("[")[0]
                if key != "$score" and collection.index_types().get(key) not in {"float", "integer"}:
                    raise _missing_index(key, ("float", "integer"))
            else:
                _require_index(leaf, collection.index_types())

    def check_sparse(self, name: str, length: int) -> None:
        """Cap the number of indices of one sparse vector."""
        cap = (self._config.get("sparse_config") or {}).get(name, {}).get("max_length")
        if cap is not None and length > cap:
            raise bad_request(f"Sparse vector '{name}' has a limit of {cap} indices, but {length} were provided!")

    def check_index_count(self, present: int) -> None:
        """Cap the number of payload indexes."""
        cap = self._config.get("max_payload_index_count")
        if cap is not None and present >= cap:
            raise bad_request(f"Collection already has the maximum number of payload indices ({cap})")


def walk(value: models.Filter) -> Iterator[Any]:
    """Every leaf condition of a filter."""
    parts = [*as_list(value.must), *as_list(value.should), *as_list(value.must_not)]
    if value.min_should is not None:
        parts += value.min_should.conditions
    for part in parts:
        if isinstance(part, models.Filter):
            yield from walk(part)
        else:
            yield part
            if isinstance(part, models.NestedCondition):
                yield from walk(part.nested.filter)


def formula_leaves(value: Any) -> Iterator[Any]:
    """Payload keys (as strings) and conditions that a scoring formula reads."""
    if isinstance(value, bool | int | float):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, models.DatetimeKeyExpression):
        yield models.FieldCondition(key=value.datetime_key, range=models.DatetimeRange())
    elif isinstance(value, models.GeoDistance):
        point = value.geo_distance.origin
        yield models.FieldCondition(key=value.geo_distance.to, geo_radius=models.GeoRadius(center=point, radius=1.0))
    elif isinstance(value, models.Filter):
        yield from walk(value)
    elif isinstance(value, list):
        for item in value:
            yield from formula_leaves(item)
    elif type(value).__name__.endswith("Condition"):
        yield value
    elif not isinstance(value, models.DatetimeExpression):
        for name in type(value).model_fields:
            item = getattr(value, name)
            if item is not None:
                yield from formula_leaves(item)


def conditions_count(value: models.Filter | None) -> int:
    """Number of leaf conditions; the read limiter charges each."""
    return 0 if value is None else sum(1 for _ in walk(value))


def condition_size(condition: Any) -> int:
    """Number of inputs of one condition, as far as it can have many."""
    if isinstance(condition, models.HasIdCondition):
        return len(condition.has_id)
    match = getattr(condition, "match", None)
    if isinstance(match, models.MatchAny):
        return len(match.any)
    if isinstance(match, models.MatchExcept):
        return len(match.except_)
    return 0


def _wanted_types(condition: models.FieldCondition) -> tuple[str, ...]:
    match: Any = condition.match
    if isinstance(match, models.MatchText | models.MatchTextAny | models.MatchPhrase):
        return ("text",)
    if match is not None:
        value = getattr(match, "value", None)
        values = (
            [value] if value is not None else list(getattr(match, "any", None) or getattr(match, "except_", None) or [])
        )
        if values and isinstance(values[0], bool):
            return ("bool",)
        if values and isinstance(values[0], int):
            return ("integer",)
        return ("keyword", "uuid") if values and isinstance(values[0], str) else ("keyword",)
    if isinstance(condition.range, models.Range):
        return ("float", "integer")
    if isinstance(condition.range, models.DatetimeRange):
        return ("datetime",)
    if condition.geo_bounding_box or condition.geo_radius or condition.geo_polygon:
        return ("geo",)
    return ()


def _require_index(condition: Any, present: Mapping[str, str]) -> None:
    wanted: tuple[str, ...] = ()
    if isinstance(condition, models.IsEmptyCondition):
        key = condition.is_empty.key
    elif isinstance(condition, models.IsNullCondition):
        key = condition.is_null.key
    elif isinstance(condition, models.FieldCondition):
        key, wanted = condition.key, _wanted_types(condition)
    else:
        return
    have = present.get(key)
    if have is not None and (not wanted or have in wanted):
        return
    raise _missing_index(key, wanted)


def _missing_index(key: str, wanted: tuple[str, ...]) -> ApiError:
    types = ", ".join(sorted(wanted)) if wanted else "any"
    return bad_request(
        f'Index required but not found for "{key}" of one of the following types: [{types}]. '
        "Help: Create an index for this key or use a different filter."
    )
