"""Open clients of the cells: one a cell and key; an edited Secret makes a new one, and what nobody uses is closed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from qdrant_client import AsyncQdrantClient

from searchops.adapters.cell_nodes import CellNodes
from searchops.runtime.errors import NotReady, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.api.observed import CellRegistration

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
"""How long a client is kept that nobody asks for: longer than any request may still be under way."""
SWEEP_SECONDS = 10.0
ANY_NODE = "http://cell"
"""Stands in for the address in the client; `CellNodes` puts the node's in its place."""


@dataclass(slots=True)
class Connection:
    """A client of one cell.

    Attributes:
        nodes: where its requests go.
        lock: held over a survey.
        surveyed: the node that the last survey saw; a write goes to no other, since a survey reads whose cell it is.
        version: what each node said it is, and when (monotonic seconds).
    """

    client: AsyncQdrantClient
    nodes: CellNodes
    used_at: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    surveyed: int | None = None
    version: dict[int, tuple[str, float]] = field(default_factory=dict)

    def must_be_surveyed(self) -> bool:
        """Whether another node answers now than the one whose identity was read."""
        return self.surveyed is not None and self.surveyed != self.nodes.current


class CellConnections:
    """Clients by cell, addresses and key.

    Args:
        timeout: seconds that one request may take.
        now: monotonic seconds.
    """

    def __init__(self, *, timeout: float, now: Callable[[], float]) -> None:
        self._timeout = max(1, math.ceil(timeout))
        self._now = now
        self._idle = max(IDLE_SECONDS, 4.0 * self._timeout)
        self._open: dict[str, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._swept_at = now()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, cell: CellRegistration) -> Connection:
        """The cell's client.

        Raises:
            NotReady: the cell's Secret cannot be used, names no address, or a certificate that cannot be read.
        """
        now = self._now()
        self._sweep(now)
        parts = (cell.name, *cell.urls, cell.api_key, cell.ca_cert or "", cell.problem)
        identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        found = self._open.get(identity)
        if found is None:
            found = self._open[identity] = self._connect(cell, now)
        found.used_at = now
        return found

    async def close(self) -> None:
        """Close every client, and wait for those that are being closed."""
        for connection in self._open.values():
            await connection.client.close()
        self._open.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _sweep(self, now: float) -> None:
        """Close what a replaced Secret, or a cell that is registered no more, has left behind."""
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for identity in [key for key, held in self._open.items() if now - held.used_at > self._idle]:
            closing = asyncio.get_running_loop().create_task(self._open.pop(identity).client.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a cell's idle connection did not close well", extra={"error": repr(error)})

    def _connect(self, cell: CellRegistration, now: float) -> Connection:
        """The credential goes as a header, which the library neither warns of nor prints."""
        if cell.problem:
            raise NotReady("CellUnreachable", f"cell {cell.name}: {cell.problem}")
        if not cell.urls:
            seen = f"cell {cell.name}: its Secret names no node, and no Service with ready endpoints"
            raise NotReady("CellUnreachable", describe(seen, wanted="nodes or service", next_step="Correct it."))
        try:
            nodes = CellNodes(cell.urls, verify=_verify(cell), timeout=self._timeout)
        except (ValueError, httpx.InvalidURL) as error:
            seen = f"cell {cell.name}: an address of its Secret is none ({error})"
            raise NotReady(
                "CellUnreachable", describe(seen, wanted="http(s)://host:port", next_step="Correct it.")
            ) from error
        client = AsyncQdrantClient(
            url=ANY_NODE,
            headers={"api-key": cell.api_key} if cell.api_key else None,
            timeout=self._timeout,
            check_compatibility=False,
            prefer_grpc=False,
            transport=nodes,
        )
        return Connection(client, nodes, now)


def surveyed_first(cell: CellRegistration, what: str, nodes: CellNodes) -> Transient:
    """The refusal of a write at a node that no survey has seen; while any node answers, the breaker stays closed."""
    seen = f"cell {cell.name}: another node answers than the one that was surveyed; {what} is put off"
    return Transient(describe(seen, next_step="The next pass surveys it, identity included."), answered=nodes.answering)


def _verify(cell: CellRegistration) -> ssl.SSLContext | bool:
    if cell.ca_cert is None:
        return True
    try:
        return ssl.create_default_context(cadata=cell.ca_cert)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise NotReady(
            "CellUnreachable",
            f"cell {cell.name}: caCert of its Secret cannot be read ({error}); wanted PEM. Correct it.",
        ) from error
