"""The label that keeps a namespace while a protected tenant is inside.

An admission policy refuses to delete a namespace that carries it. It is set and removed by what the cache of tenants
shows; a label of another value is a person's own and is left alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from searchops.planning.names import PROTECTED_BY_TENANTS
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from searchops.ports import NamespaceLabels
    from searchops.runtime.cache import CachedObject, ObjectCache

logger = logging.getLogger(__name__)

PROTECTED_INDEX = "protected"


def protected_namespace(cached: CachedObject) -> Iterable[str]:
    """The index: the namespace of each tenant that asks for protection."""
    return (cached.key.namespace,) if cached.raw.get("spec", {}).get("deletionProtection") is True else ()


class NamespaceProtection:
    """Sets the label with the first protected tenant of a namespace, removes it after the last.

    Args:
        tenants: every tenant, complete.
    """

    def __init__(self, labels: NamespaceLabels, tenants: ObjectCache[Any]) -> None:
        self._labels = labels
        self._tenants = tenants
        self._labelled: set[str] = set()
        tenants.add_index(PROTECTED_INDEX, protected_namespace)

    def _wanted(self, namespace: str) -> bool:
        return bool(self._tenants.by_index(PROTECTED_INDEX, namespace))

    async def look(self, namespace: str) -> None:
        """After a change of one tenant; costs a look into memory where nothing has to be done.

        Raises:
            ReconcileError: the label could not be read or written.
        """
        wanted = self._wanted(namespace)
        if wanted == (namespace in self._labelled):
            return
        if wanted:
            await self._labels.protect(namespace)
            self._labelled.add(namespace)
        else:
            await self._release(namespace)

    async def _release(self, namespace: str) -> None:
        await self._labels.release(namespace)
        self._labelled.discard(namespace)
        if self._wanted(namespace):  # protected while the label was on its way off
            await self._labels.protect(namespace)
            self._labelled.add(namespace)

    async def run_once(self) -> None:
        """Compare every namespace: what a person changed, and what happened while no operator ran."""
        try:
            values = await self._labels.labelled()
        except ReconcileError as error:
            logger.warning("labels of namespaces were not read; it is tried next time", extra={"error": str(error)})
            return
        self._labelled = set(values)
        ours = {name for name, value in values.items() if value == PROTECTED_BY_TENANTS}
        wanted = {name for cached in self._tenants.list() for name in protected_namespace(cached)}
        for namespace in sorted((wanted - self._labelled) | (ours - wanted)):
            try:
                await self.look(namespace)
            except ReconcileError as error:
                logger.warning(
                    "the protection of a namespace was not changed; it is tried next time",
                    extra={"tenant_namespace": namespace, "error": str(error)},
                )
