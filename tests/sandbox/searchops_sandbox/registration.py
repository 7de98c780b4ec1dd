"""Cells and pools as the operator finds them: labelled Secrets in its namespace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from searchops_sandbox.kubernetes_api import KubernetesApi

Json = dict[str, Any]
NAMESPACE: Final = "searchops-system"
CELL_LABEL: Final = "searchops.dev/cell"
POOL_LABEL: Final = "searchops.dev/pool"
MAX_COLLECTIONS: Final = 200


@dataclass(frozen=True, slots=True)
class CellEntry:
    """A Qdrant cluster to register; the key is kept out of `repr`."""

    name: str
    nodes: tuple[str, ...]
    grpc_port: int
    api_key: str = field(repr=False)
    labels: Mapping[str, str]
    max_collections: int = MAX_COLLECTIONS

    def secret(self, namespace: str) -> Json:
        """The Secret."""
        content = {
            "nodes": "\n".join(self.nodes),
            "grpcPort": str(self.grpc_port),
            "apiKey": self.api_key,
            "maxCollections": str(self.max_collections),
        }
        return _secret(self.name, namespace, {**self.labels, CELL_LABEL: "true"}, content)


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A set of Triton servers over one repository to register; `urls` and `grpc_urls` in the same order."""

    name: str
    urls: tuple[str, ...]
    grpc_urls: tuple[str, ...]
    repository: Path
    accelerator: str = "cpu"

    def secret(self, namespace: str) -> Json:
        """The Secret."""
        content = {
            "urls": "\n".join(self.urls),
            "grpcUrls": "\n".join(self.grpc_urls),
            "repository": str(self.repository),
            "accelerator": self.accelerator,
        }
        return _secret(self.name, namespace, {POOL_LABEL: "true"}, content)


async def register_cells_and_pools(
    api: KubernetesApi, cells: Iterable[CellEntry], pools: Iterable[PoolEntry], *, namespace: str = NAMESPACE
) -> None:
    """Makes the namespace where it is missing and applies one Secret for each cell and pool.

    Raises:
        ApiError: where the API server refuses.
    """
    try:
        await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    except ApiError as error:
        if error.status != 409:
            raise
    entries: list[CellEntry | PoolEntry] = [*cells, *pools]
    for entry in entries:
        await api.apply(f"/api/v1/namespaces/{namespace}/secrets/{entry.name}", entry.secret(namespace))


def _secret(name: str, namespace: str, labels: Mapping[str, str], content: Mapping[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "stringData": dict(content),
    }
