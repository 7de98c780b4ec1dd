"""Holds of cells as a test sets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.room import CellHold


class FakeRooms:
    """`CellRooms` that a test sets; what it was told is kept."""

    def __init__(self) -> None:
        self.held: dict[str, CellHold] = {}
        self.told: list[tuple[str, str]] = []

    async def holds(self) -> Mapping[str, CellHold]:
        return dict(self.held)

    def full(self, cell: str, said: str) -> None:
        self.told.append((cell, said))
