"""Raw objects and in-memory doubles that the runtime's tests share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Conflict, Transient
from searchops.runtime.key import Identity, Key
from searchops.runtime.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping


def raw_object(name: str, *, uid: str = "", version: str = "1", **metadata: Any) -> dict[str, Any]:
    status = metadata.pop("status", None)
    raw: dict[str, Any] = {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": version,
            "generation": 1,
            **metadata,
        }
    }
    if status is not None:
        raw["status"] = status
    return raw


class FakeApi:
    """The API server for one kind: versions, merge patches guarded by resourceVersion, lists, injected failures."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.version = 100
        self.writes: list[tuple[str, Mapping[str, Any]]] = []
        self.fail_lists = 0
        self.fail_reads: set[Key] = set()
        self.enqueued: list[Key] = []
        self.reads = 0

    def put(self, name: str, *, uid: str = "", **metadata: Any) -> dict[str, Any]:
        self.version += 1
        made = raw_object(name, uid=uid, version=str(self.version), **metadata)
        self.objects[Key("shop", name)] = made
        return made

    def delete(self, name: str) -> dict[str, Any]:
        self.version += 1
        gone = self.objects.pop(Key("shop", name))
        return {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}

    async def list_metadata(self) -> list[Identity]:
        await asyncio.sleep(0)
        if self.fail_lists:
            self.fail_lists -= 1
            raise Transient("the API server answered 503 to LIST; wanted 200")
        return [
            Identity(key, raw["metadata"]["uid"], raw["metadata"]["resourceVersion"])
            for key, raw in self.objects.items()
        ]

    async def read(self, key: Key) -> Mapping[str, Any] | None:
        await asyncio.sleep(0)
        self.reads += 1
        if key in self.fail_reads:
            raise Transient("the API server answered 503 to GET; wanted 200 or 404")
        return self.objects.get(key)

    def source(self, cache: ObjectCache[Any]) -> Source:
        return Source(cache, self.list_metadata, self.read, self.enqueued.append)

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return self._patch("status", plural, Key(namespace, name), body)

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return self._patch("metadata", plural, Key(namespace, name), body)

    def _patch(self, part: str, plural: str, key: Key, body: Mapping[str, Any]) -> str:
        raw = self.objects[key]
        self.writes.append((f"{plural}/{part}", body))
        wanted = body["metadata"]["resourceVersion"]
        current = raw["metadata"]["resourceVersion"]
        if wanted != current:
            raise Conflict(f"{key} is at {current}; wanted {wanted}")
        changed: dict[str, Any] = apply_merge_patch(raw, body)
        if changed == raw:
            return str(current)
        self.version += 1
        changed["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = changed
        return str(self.version)


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply_merge_patch(result.get(name), value)
    return result


def make_cache(**options: Any) -> ObjectCache[str]:
    return ObjectCache("things", lambda raw: str(raw["metadata"]["name"]), **options)
