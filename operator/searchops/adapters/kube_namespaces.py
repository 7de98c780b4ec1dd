"""The label of protected namespaces over the API server: nothing else of a namespace is ever written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchops.adapters.kube_api import KubeApi

NAMESPACES = "/api/v1/namespaces"
PROTECTED_LABEL = "searchops.dev/protected"
PROTECTED_BY_TENANTS = "tenants"


class KubeNamespaceLabels:
    """Reads the labelled namespaces; sets and removes the label."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def labelled(self) -> dict[str, str]:
        """The label's value by namespace."""
        items = await self._api.list(NAMESPACES, label_selector=PROTECTED_LABEL, metadata_only=True)
        return {item["metadata"]["name"]: item["metadata"]["labels"][PROTECTED_LABEL] for item in items}

    async def protect(self, namespace: str) -> None:
        """Set the label; one that is there, with whatever value, stays. A namespace that is gone needs none."""
        found = await self._api.get(f"{NAMESPACES}/{namespace}")
        if found is None or PROTECTED_LABEL in found["metadata"].get("labels", {}):
            return
        await self._patch(namespace, found["metadata"]["resourceVersion"], PROTECTED_BY_TENANTS)

    async def release(self, namespace: str) -> None:
        """Remove the label where it is ours."""
        found = await self._api.get(f"{NAMESPACES}/{namespace}")
        if found is None or found["metadata"].get("labels", {}).get(PROTECTED_LABEL) != PROTECTED_BY_TENANTS:
            return
        await self._patch(namespace, found["metadata"]["resourceVersion"], None)

    async def _patch(self, namespace: str, seen: str, value: str | None) -> None:
        body = {"metadata": {"resourceVersion": seen, "labels": {PROTECTED_LABEL: value}}}
        await self._api.patch(f"{NAMESPACES}/{namespace}", body)
