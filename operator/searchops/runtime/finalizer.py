"""Our finalizer: set before the first outside effect, together with annotations; removed as the last write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.status import ObjectWriter


class Finalizer:
    """One finalizer on the objects of one kind; every write is guarded by the cached resourceVersion.

    Args:
        name: the finalizer, such as ``example.dev/cleanup``.
        writer: the API server.
        cache: the kind's cache, which is told of each write.
        throttle: waited for before each write.
    """

    def __init__(
        self,
        name: str,
        writer: ObjectWriter,
        cache: ObjectCache[Any],
        *,
        throttle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._writer = writer
        self._cache = cache
        self._throttle = throttle

    def present(self, cached: CachedObject) -> bool:
        """Whether the object has it."""
        return self.name in cached.finalizers

    async def add(self, cached: CachedObject, annotations: Mapping[str, str] | None = None) -> bool:
        """Set the finalizer and the annotations in one patch; False where all are there already.

        An object that is being deleted takes no new finalizers: there only annotations are written.

        Raises:
            Conflict: the object has changed since it was cached.
        """
        metadata: dict[str, Any] = {}
        if not self.present(cached) and not cached.deleting:
            metadata["finalizers"] = [*cached.finalizers, self.name]
        missing = {name: text for name, text in (annotations or {}).items() if cached.annotations.get(name) != text}
        if missing:
            metadata["annotations"] = missing
        return await self._patch(cached, metadata)

    async def annotate(self, cached: CachedObject, annotations: Mapping[str, str | None]) -> bool:
        """Set annotations, or remove those that are None; False where nothing differs.

        Raises:
            Conflict: the object has changed since it was cached.
        """
        changed = {name: text for name, text in annotations.items() if cached.annotations.get(name) != text}
        return await self._patch(cached, {"annotations": changed} if changed else {})

    async def remove(self, cached: CachedObject) -> bool:
        """Take the finalizer off; False where it is not there.

        Raises:
            Conflict: the object has changed since it was cached.
        """
        if not self.present(cached):
            return False
        return await self._patch(cached, {"finalizers": [name for name in cached.finalizers if name != self.name]})

    async def _patch(self, cached: CachedObject, metadata: Mapping[str, Any]) -> bool:
        if not metadata:
            return False
        if self._throttle is not None:
            await self._throttle()
        body = {"metadata": {"resourceVersion": cached.resource_version, **metadata}}
        key = cached.key
        version = await self._writer.patch_metadata(self._cache.plural, key.namespace, key.name, body)
        self._cache.note_write(key, version)
        return True
