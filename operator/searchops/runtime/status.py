"""The only status write of a reconcile: one, or none where nothing has changed in meaning."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from searchops.runtime.cache import CachedObject, ObjectCache

logger = logging.getLogger(__name__)

TRANSITION = "lastTransitionTime"


class ObjectWriter(Protocol):
    """Merge-patches of one object. Each raises `Conflict` on 409 and `Transient` where it cannot tell."""

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch ``/status``; returns the new resourceVersion."""
        ...

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch the object; returns the new resourceVersion."""
        ...


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes `new` out of `old`: removed keys become null, lists go whole."""
    patch: dict[str, Any] = {}
    for name in old.keys() - new.keys():
        if old[name] is not None:
            patch[name] = None
    for name, wanted in new.items():
        found = old.get(name)
        if isinstance(found, dict) and isinstance(wanted, dict):
            inner = merge_patch(found, wanted)
            if inner:
                patch[name] = inner
        elif found != wanted:
            patch[name] = wanted
    return patch


def keep_transition_times(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The new conditions, each with the old transition time where its status is the same, in the old order.

    The order is kept so that a plan which lists them differently is no change; new types follow in their own order.
    """
    before = {condition.get("type"): condition for condition in old}
    places = {kind: place for place, kind in enumerate(before)}
    stamped: list[Mapping[str, Any]] = []
    for condition in new:
        known = before.get(condition.get("type"))
        if known is not None and known.get("status") == condition.get("status") and known.get(TRANSITION):
            condition = {**condition, TRANSITION: known[TRANSITION]}
        stamped.append(condition)
    return sorted(stamped, key=lambda condition: places.get(condition.get("type"), len(places)))


def without_none(value: Any) -> Any:
    """The value as the API server keeps it: keys without a value are not there."""
    if isinstance(value, dict):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [without_none(inner) for inner in value]
    return value


class StatusWriter:
    """Writes the status of one kind.

    Args:
        writer: the API server.
        cache: the kind's cache, which is told of each write.
        throttle: waited for before each write.
        redact: takes secrets out of a condition's message: it may quote what a server answered.
    """

    def __init__(
        self,
        writer: ObjectWriter,
        cache: ObjectCache[Any],
        *,
        throttle: Callable[[], Awaitable[None]] | None = None,
        redact: Callable[[str], str] = lambda message: message,
    ) -> None:
        self._writer = writer
        self._cache = cache
        self._throttle = throttle
        self._redact = redact

    async def write_if_changed(self, cached: CachedObject, new_status: Mapping[str, Any]) -> bool:
        """Make the status of this object what is given, whole; False where it is that already.

        The write is guarded by the resourceVersion of `cached`, never by its uid, which patches of custom resources
        do not check.

        Raises:
            Conflict: the object has changed since it was cached.
        """
        old = cached.status
        new = without_none(new_status)
        if "conditions" in new:
            said = [{**one, "message": self._redact(one.get("message", ""))} for one in new["conditions"]]
            new["conditions"] = keep_transition_times(old.get("conditions") or (), said)
        patch = merge_patch(without_none(old), new)
        if not patch:
            return False
        if self._throttle is not None:
            await self._throttle()
        body = {"metadata": {"resourceVersion": cached.resource_version}, "status": patch}
        key = cached.key
        version = await self._writer.patch_status(self._cache.plural, key.namespace, key.name, body)
        if version == cached.resource_version:
            seen = {"plural": self._cache.plural, "key": str(key), "fields": sorted(patch)}
            logger.error(
                "a status write changed nothing: its fields are pruned by the CRD; apply the CRD's", extra=seen
            )
            return False
        self._cache.note_write(key, version)
        return True
