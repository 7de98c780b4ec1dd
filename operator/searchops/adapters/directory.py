"""Cells and pools from Secrets, and the addresses behind a Service from its EndpointSlices."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from searchops.adapters.cell_secrets import KEYS, MOST_PORT, decoded, number_of, read_cell
from searchops.api.observed import PoolRegistration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.api.observed import CellRegistration

logger = logging.getLogger(__name__)

CELL_LABEL = "searchops.dev/cell"
POOL_LABEL = "searchops.dev/pool"
DRAIN = "searchops.dev/drain"
"""Label or annotation of a cell's Secret: no new tenant goes there."""
SERVICE_LABEL = "kubernetes.io/service-name"
DEFAULT_PORTS = {"cell": 6333, "http": 8000, "grpc": 8001}


class RegisteredDirectory:
    """What the watch has shown of the operator's own namespace.

    Args:
        protect: told of each key, so that no log, status or event can carry it.
    """

    def __init__(self, *, protect: Callable[[str], None] = lambda _: None) -> None:
        self._protect = protect
        self._secrets: dict[str, Mapping[str, Any]] = {}
        self._slices: dict[str, Mapping[str, Any]] = {}
        self._cells: dict[str, CellRegistration] = {}
        self._pools: dict[str, PoolRegistration] = {}
        self._problems: dict[str, str] = {}

    def cells(self) -> Mapping[str, CellRegistration]:
        """Every registered cell by name."""
        return self._cells

    def pools(self) -> Mapping[str, PoolRegistration]:
        """Every registered pool by name."""
        return self._pools

    def apply_secret(self, event_type: str | None, raw: Mapping[str, Any]) -> bool:
        """Take in a Secret's event; True where a cell or pool changed."""
        name = raw["metadata"]["name"]
        labels = raw["metadata"].get("labels") or {}
        ours = labels.get(CELL_LABEL) == "true" or labels.get(POOL_LABEL) == "true"
        if event_type == "DELETED" or not ours:
            gone = self._secrets.pop(name, None) is not None
            return self._rebuild() if gone else False
        self._secrets[name] = raw
        return self._rebuild()

    def apply_slice(self, event_type: str | None, raw: Mapping[str, Any]) -> bool:
        """Take in an EndpointSlice's event; True where a cell or pool changed."""
        name = raw["metadata"]["name"]
        if event_type == "DELETED":
            self._slices.pop(name, None)
        else:
            self._slices[name] = raw
        return self._rebuild()

    def _rebuild(self) -> bool:
        before = (self._cells, self._pools)
        cells: dict[str, CellRegistration] = {}
        pools: dict[str, PoolRegistration] = {}
        problems: dict[str, str] = {}
        for name, raw in sorted(self._secrets.items()):
            labels = raw["metadata"].get("labels") or {}
            if labels.get(CELL_LABEL) == "true":
                cells[name] = cell = self._cell(raw)
                if cell.problem:
                    problems[name] = cell.problem
                continue
            try:
                pools[name] = self._pool(name, decoded(raw))
            except ValueError as error:
                problems[name] = str(error)
        self._report(problems)
        self._cells, self._pools = cells, pools
        return (cells, pools) != before

    def _report(self, problems: dict[str, str]) -> None:
        """Log each problem once, not at every event of the namespace."""
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                logger.error(
                    "a Secret that registers a cell or pool cannot be used; correct it",
                    extra={"secret": name, "problem": problem},
                )
        self._problems = problems

    def _cell(self, raw: Mapping[str, Any]) -> CellRegistration:
        labels, notes = (raw["metadata"].get(key) or {} for key in ("labels", "annotations"))
        drained = "true" in (labels.get(DRAIN), notes.get(DRAIN))
        self._protect_keys(raw)
        return read_cell(raw, draining=drained, addresses=lambda data: self._addresses(data, "cell"))

    def _protect_keys(self, raw: Mapping[str, Any]) -> None:
        """Before anything is said of it: a key that cannot be used is one all the same."""
        for name in KEYS:
            try:
                text = decoded({"data": {name: (raw.get("data") or {}).get(name) or ""}})[name]
            except ValueError:
                continue
            if text:
                self._protect(text)

    def _pool(self, name: str, data: Mapping[str, str]) -> PoolRegistration:
        urls = tuple(data.get("urls", "").split()) or self._addresses(data, "http")
        grpc_urls = tuple(data.get("grpcUrls", "").split())
        if not grpc_urls and data.get("service"):
            grpc_urls = tuple(item.removeprefix("http://") for item in self._addresses(data, "grpc"))
        if len(urls) != len(grpc_urls):
            raise ValueError(f"{len(urls)} urls and {len(grpc_urls)} grpcUrls; wanted one of each per server, in order")
        return PoolRegistration(
            name=name,
            urls=urls,
            grpc_urls=grpc_urls,
            repository=data.get("repository", ""),
            accelerator=data.get("accelerator", "cpu"),
        )

    def _addresses(self, data: Mapping[str, str], kind: str) -> tuple[str, ...]:
        """Every ready address of a Service's EndpointSlices."""
        service = data.get("service")
        if not service:
            return ()
        port = number_of(data, f"{kind}Port", MOST_PORT) or DEFAULT_PORTS[kind]
        scheme = "https" if kind == "cell" and data.get("caCert") else "http"
        found: set[str] = set()
        for raw in self._slices.values():
            if (raw["metadata"].get("labels") or {}).get(SERVICE_LABEL) != service:
                continue
            for endpoint in raw.get("endpoints") or []:
                if (endpoint.get("conditions") or {}).get("ready") is not False:  # unset means ready
                    addresses = endpoint.get("addresses") or []
                    found.update(f"{scheme}://{_bracketed(address)}:{port}" for address in addresses)
        return tuple(sorted(found))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
