"""One collection's name on a cell behind a wire, and the adapter under test, which looks at the cell anew each time."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.api.observed import CellRegistration

if TYPE_CHECKING:
    from contract.wire import Wire
    from searchops_sandbox.qdrant.cell import QdrantCell

OWNER = (("searchops.dev/fleet", "prod"), ("searchops.dev/uid", "u1"), ("searchops.dev/generation", "1"))


class WiredScene:
    """What one test of writes to a cell needs.

    Attributes:
        double: the cell, which takes orders to fail.
        wire: what the adapter reaches it by.
        cell: the cell's registration, by the wire.
        told: who was told of a full cell, and what it had said.
        ports: the adapter; its clock is ten seconds on at every look, so that no survey is an old one.
        name: of a collection that no other test has.
        alias: of its tenant.
    """

    def __init__(self, double: QdrantCell, wire: Wire) -> None:
        self.double = double
        self.wire = wire
        url = f"http://127.0.0.1:{wire.port}"
        self.cell = CellRegistration("eu-1", {}, (url,), None, 1000, api_key=double.api_key)
        self.told: list[tuple[str, str]] = []
        ticks = itertools.count(0, 10)
        self.ports = QdrantCells(timeout=1.0, now=lambda: float(next(ticks)), full=self.full)
        self.name = f"prod.shop.t{uuid.uuid4().hex[:8]}@g1"
        self.alias = self.name.partition("@")[0]

    def full(self, cell: str, said: str) -> None:
        self.told.append((cell, said))

    async def close(self) -> None:
        """Leave the cell as it was found: no fault, no mark, nothing of this test."""
        await self.double.clear_faults()
        for name in (self.name, f"{self.alias}@g2", MARKER):
            await self.ports.drop_collection(self.cell, name)
        await self.ports.close()
