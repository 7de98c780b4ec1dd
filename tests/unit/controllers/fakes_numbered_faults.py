"""External calls that fail once, before or after taking effect, and the API server behind the status writer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

from searchops.runtime.errors import Conflict, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.runtime.cache import ObjectCache

T = TypeVar("T")


class Faults:
    """Every external call goes through here, is counted, and one of them may fail."""

    def __init__(self, fail_at: int | None = None, *, after: bool = False) -> None:
        self.calls: list[str] = []
        self.fail_at = fail_at
        self.after = after
        self.failed = False

    def call(self, name: str, effect: Callable[[], T]) -> T:
        index = len(self.calls)
        self.calls.append(name)
        chosen = index == self.fail_at
        if chosen and not self.after:
            self.failed = True
            raise Transient(f"{name} did not answer")
        result = effect()
        if chosen:
            self.failed = True
            raise Transient(f"{name} answered too late")
        return result


class FakeApi:
    """Objects of one kind with resourceVersions; what is written comes back by the watch when it is delivered."""

    def __init__(self, faults: Faults, cache: ObjectCache[Any]) -> None:
        self.faults = faults
        self.cache = cache
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.status_writes = 0

    def put(self, raw: Mapping[str, Any]) -> None:
        self.version += 1
        stored = copy.deepcopy(dict(raw))
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[stored["metadata"]["name"]] = stored

    def deliver(self) -> None:
        """The watch shows everything, and what is gone."""
        for raw in self.objects.values():
            self.cache.apply("MODIFIED", copy.deepcopy(raw))
        for cached in self.cache.list():
            if cached.key.name not in self.objects:
                self.cache.apply("DELETED", dict(cached.raw))

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        self.status_writes += 1
        return self.faults.call("status", lambda: self._patch(name, body))

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        wrapped = {"metadata": body["metadata"]}
        return self.faults.call("metadata", lambda: self._patch(name, wrapped))

    def _patch(self, name: str, body: Mapping[str, Any]) -> str:
        raw = self.objects[name]
        if body["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
            raise Conflict(f"{name} was written by somebody else")
        changed = _merge(raw, body)
        if changed == raw:
            return str(raw["metadata"]["resourceVersion"])
        self.put(changed)
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            del self.objects[name]
        return str(self.version)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result
