"""What the watch has shown of one kind: objects by namespace and name, with a read-your-writes guard.

Only the event loop touches a cache, so nothing here locks. Raw objects are kept as they came, less what no controller
reads (`managedFields`, the last-applied annotation), because 10,000 of them are in memory at all times.
"""

from __future__ import annotations

import re
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from searchops.runtime.key import Key

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

T = TypeVar("T")

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
TOMBSTONES = 16_384
GUARD_SECONDS = 10.0
SHARED_TEXT = 80
"""Characters of a text that objects may well have in common; an interned text is freed with its last object."""

_COMPARABLE = re.compile(r"[1-9][0-9]*")


def compare_versions(one: str, other: str) -> int | None:
    """Order of two resourceVersions of one kind: -1, 0, 1, or None where they cannot be ordered.

    Kubernetes 1.35 and later promise that versions which are decimal numbers without a leading zero may be compared
    as numbers (KEP-5504); all others may only be compared for equality.
    """
    if one == other:
        return 0
    if not (_COMPARABLE.fullmatch(one) and _COMPARABLE.fullmatch(other)):
        return None
    return -1 if int(one) < int(other) else 1


class Change(StrEnum):
    """What an event did to the cache."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    ECHO = "echo"
    """Our own last write came back, and no reconcile was put off for it: there is nothing new to decide."""
    UNCHANGED = "unchanged"
    """The version that is cached already, as after a relist."""
    OUTDATED = "outdated"
    """Older than what is cached, or of an object that is known to be gone: ignored."""


class Freshness(StrEnum):
    """Whether a reconcile may trust the cached object."""

    FRESH = "fresh"
    BEHIND = "behind"
    """Older than our last write: wait for the watch."""
    OVERDUE = "overdue"
    """Older than our last write for longer than the bound: read it live."""


@dataclass(frozen=True, slots=True)
class CachedObject:
    """One object as the watch showed it last. `raw` is shared: nobody changes it."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    raw: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """`metadata`."""
        found: Mapping[str, Any] = self.raw["metadata"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """`metadata.labels`, never None."""
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """`metadata.annotations`, never None."""
        return self.metadata.get("annotations") or {}

    @property
    def finalizers(self) -> tuple[str, ...]:
        """`metadata.finalizers`."""
        return tuple(self.metadata.get("finalizers") or ())

    @property
    def deleting(self) -> bool:
        """Whether the object has a deletionTimestamp."""
        return bool(self.metadata.get("deletionTimestamp"))

    @property
    def status(self) -> Mapping[str, Any]:
        """`status`, never None."""
        return self.raw.get("status") or {}


def _load(raw: Mapping[str, Any]) -> CachedObject:
    metadata = {name: value for name, value in raw["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and LAST_APPLIED in annotations:
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != LAST_APPLIED}
    return CachedObject(
        key=Key(metadata.get("namespace") or "", metadata["name"]),
        uid=metadata.get("uid") or "",
        resource_version=metadata.get("resourceVersion") or "",
        generation=int(metadata.get("generation") or 0),
        raw=_compact({**raw, "metadata": metadata}),
    )


def _compact(value: Any) -> Any:
    """An equal value whose names and short texts are one object with those of all others.

    What a decoder makes of each event has its own copy of every "True", "lastTransitionTime" and "keyword": of ten
    thousand tenants with nine conditions that is half of what the cache takes (measured: 13.3 KB each against 7.0).
    """
    kind = type(value)
    if kind is dict:
        return {sys.intern(name): _compact(item) for name, item in value.items()}
    if kind is list:
        return [_compact(item) for item in value]
    if kind is str and len(value) <= SHARED_TEXT:
        return sys.intern(value)
    return value


@dataclass(slots=True)
class _Note:
    resource_version: str
    since: float
    awaited: bool = False


class ObjectCache(Generic[T]):
    """The cache of one kind.

    Args:
        plural: the kind's plural, as writers and readers want it.
        parse: makes the typed object out of the raw one; it runs at each `typed`, so that objects are kept once.
        guard_seconds: how long the guard waits for the watch before it asks for a live read.
        now: monotonic seconds.

    Attributes:
        arrivals: how many objects have come in so far.
    """

    def __init__(
        self,
        plural: str,
        parse: Callable[[Mapping[str, Any]], T],
        *,
        guard_seconds: float = GUARD_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plural = plural
        self._parse = parse
        self._guard_seconds = guard_seconds
        self._now = now
        self._objects: dict[Key, CachedObject] = {}
        self._notes: dict[Key, _Note] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._arrived: dict[Key, int] = {}
        self.arrivals = 0
        self._indices: dict[str, _Index] = {}
        self._listeners: list[Callable[[Change, CachedObject], None]] = []

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, key: Key) -> CachedObject | None:
        """The object, or None."""
        return self._objects.get(key)

    def typed(self, key: Key) -> T | None:
        """The parsed object, or None; raises what `parse` raises where the object does not parse."""
        found = self._objects.get(key)
        return None if found is None else self._parse(found.raw)

    def list(self) -> list[CachedObject]:
        """Every object."""
        return list(self._objects.values())

    def arrival(self, key: Key) -> int:
        """The number that `arrivals` had when this very object, by its uid, came in; beyond all where it is not here.

        What is read after it was taken is read while the object was known to be there, or later.
        """
        return self._arrived.get(key, self.arrivals + 1)

    def keys(self) -> builtins.list[Key]:
        """Every key."""
        return list(self._objects)

    def uids(self) -> set[str]:
        """Every uid."""
        return {found.uid for found in self._objects.values()}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[CachedObject]:
        return iter(self.list())

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def by_index(self, index: str, value: Hashable) -> builtins.list[CachedObject]:
        """Objects that the index files under this value."""
        return [self._objects[key] for key in self._indices[index].keys_of(value)]

    def index_values(self, index: str) -> builtins.list[Hashable]:
        """The values under which the index files any object."""
        return self._indices[index].values()

    def count(self, index: str, value: Hashable) -> int:
        """How many objects the index files under this value."""
        return len(self._indices[index].keys_of(value))

    # -- setting up --------------------------------------------------------------------------------------------

    def add_index(self, index: str, values: Callable[[CachedObject], Iterable[Hashable]]) -> None:
        """File every object under some values, such as the owner that its labels name."""
        made = self._indices[index] = _Index(values)
        for found in self._objects.values():
            made.put(found)

    def subscribe(self, listener: Callable[[Change, CachedObject], None]) -> Callable[[], None]:
        """Call the listener after each event with what it did; returns the way to stop it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- events ------------------------------------------------------------------------------------------------

    def apply(self, event_type: str | None, raw: Mapping[str, Any]) -> Change:
        """Take in a watch event, or an object of a list (type None), in whatever order they come."""
        seen = _load(raw)
        change = self._delete(seen) if event_type == "DELETED" else self._upsert(seen)
        for listener in tuple(self._listeners):
            listener(change, seen)
        return change

    def drop(self, key: Key, uid: str) -> bool:
        """Forget an object that a live read has shown to be gone; False where another one is there by now."""
        found = self._objects.get(key)
        if found is None or found.uid != uid:
            return False
        self._remove(found)
        for listener in tuple(self._listeners):
            listener(Change.DELETED, found)
        return True

    def _upsert(self, seen: CachedObject) -> Change:
        cached = self._objects.get(seen.key)
        if seen.uid in self._gone:
            return Change.OUTDATED
        order = None if cached is None else compare_versions(seen.resource_version, cached.resource_version)
        if order == 0:
            return Change.UNCHANGED
        if order == -1:
            return Change.OUTDATED
        if cached is not None and cached.uid != seen.uid:
            self._remove(cached)
        if cached is None or cached.uid != seen.uid:
            self.arrivals += 1
            self._arrived[seen.key] = self.arrivals
        self._objects[seen.key] = seen
        for index in self._indices.values():
            index.put(seen)
        if self._settle(seen):
            return Change.ECHO
        return Change.ADDED if cached is None or cached.uid != seen.uid else Change.MODIFIED

    def _delete(self, seen: CachedObject) -> Change:
        cached = self._objects.get(seen.key)
        self._bury(seen.uid)
        if cached is None or cached.uid != seen.uid:
            return Change.OUTDATED
        self._remove(cached)
        return Change.DELETED

    def _remove(self, cached: CachedObject) -> None:
        del self._objects[cached.key]
        del self._arrived[cached.key]
        self._notes.pop(cached.key, None)
        for index in self._indices.values():
            index.discard(cached.key)
        self._bury(cached.uid)

    def _bury(self, uid: str) -> None:
        """Remember a uid that is gone, so that a late event or read does not bring it back: uids are never re-used."""
        if uid:
            self._gone[uid] = None
            if len(self._gone) > TOMBSTONES:
                self._gone.popitem(last=False)

    # -- read-your-writes --------------------------------------------------------------------------------------

    def note_write(self, key: Key, resource_version: str) -> None:
        """Remember the version that our last write made; a cache that is behind it is not trusted."""
        cached = self._objects.get(key)
        if cached is None:
            return
        order = compare_versions(cached.resource_version, resource_version)
        if order is not None and order >= 0:
            self._notes.pop(key, None)
            return
        self._notes[key] = _Note(resource_version, self._now())

    def freshness(self, key: Key) -> Freshness:
        """Whether the cached object has our last write; asking marks the key as waiting for it."""
        note = self._notes.get(key)
        if note is None:
            return Freshness.FRESH
        note.awaited = True
        return Freshness.OVERDUE if self._now() - note.since > self._guard_seconds else Freshness.BEHIND

    def is_stale(self, key: Key) -> bool:
        """Whether the cached object is older than our last write."""
        return self.freshness(key) is not Freshness.FRESH

    def accept_live(self, key: Key, uid: str, raw: Mapping[str, Any] | None) -> None:
        """Take in a live read of an object that was cached under this uid, and end the guard's wait for it."""
        self._notes.pop(key, None)
        if raw is None:
            self.drop(key, uid)
        else:
            self.apply("MODIFIED", raw)

    def _settle(self, seen: CachedObject) -> bool:
        """Drop the note that this version fulfils; True where it is exactly our write and nobody waits for it."""
        note = self._notes.get(seen.key)
        if note is None:
            return False
        order = compare_versions(seen.resource_version, note.resource_version)
        if order is None or order < 0:
            return False
        del self._notes[seen.key]
        return order == 0 and not note.awaited


class _Index:
    def __init__(self, values: Callable[[CachedObject], Iterable[Hashable]]) -> None:
        self._values = values
        self._keys: dict[Hashable, dict[Key, None]] = {}
        self._filed: dict[Key, tuple[Hashable, ...]] = {}

    def put(self, seen: CachedObject) -> None:
        values = tuple(self._values(seen))
        if values == self._filed.get(seen.key, ()):
            return
        self.discard(seen.key)
        if values:
            self._filed[seen.key] = values
        for value in values:
            self._keys.setdefault(value, {})[seen.key] = None

    def discard(self, key: Key) -> None:
        for value in self._filed.pop(key, ()):
            keys = self._keys[value]
            keys.pop(key, None)
            if not keys:
                del self._keys[value]

    def values(self) -> list[Hashable]:
        return list(self._keys)

    def keys_of(self, value: Hashable) -> list[Key]:
        return list(self._keys.get(value, ()))
