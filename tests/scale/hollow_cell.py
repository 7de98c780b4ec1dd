"""A double of a cell whose collections with vectors cost no engine: they are defined and described, and hold nothing.

The engine takes 20 ms of CPU time over a collection with its indexes, on cores that a benchmark of whoever asks for it
shares with it, and its threads go on. Requests, rights, strict mode, configuration and the register of tokens (which
has no vectors) are the sandbox's double's own. ``python -m scale.hollow_cell`` takes the arguments of that double.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import qdrant_edge

from searchops_sandbox.qdrant import __main__ as double
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_sandbox.qdrant.config import PLACEHOLDER

ENGINE = qdrant_edge.EdgeShard
MODULE = "searchops_sandbox.qdrant"


class HollowShard:
    """As much of the engine's shard as is asked of one that is empty; definitions are kept beside it, no points."""

    indexed_vectors_count = 0
    segments_count = 1
    payload_schema: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def create(folder: str, config: Any) -> Any:
        """The engine's own where no vector is defined."""
        vectors = {*(config.vectors or ()), *(config.sparse_vectors or ())}
        return HollowShard() if vectors - {PLACEHOLDER} else ENGINE.create(folder, config)

    def info(self) -> HollowShard:
        """Sizes."""
        return self

    def count(self, _: Any) -> int:
        """Points."""
        return 0

    def scroll(self, _: Any) -> tuple[list[Any], None]:
        """A page."""
        return [], None

    def query(self, _: Any) -> list[Any]:
        """Hits."""
        return []

    def update(self, _: Any) -> None:
        """An index or a vector is defined."""

    def flush(self) -> None:
        """Nothing to write."""

    def close(self) -> None:
        """Nothing to close."""


class HollowCell(QdrantCell):
    """Such a cell as a process of its own; a real binary, where one is named, is what it is."""

    def _double_argv(self, environment: dict[str, str]) -> list[str]:
        argv = super()._double_argv(environment)
        tests = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join([tests, environment["PYTHONPATH"]])
        return [f"{Path(__file__).parent.name}.{Path(__file__).stem}" if part == MODULE else part for part in argv]


if __name__ == "__main__":
    qdrant_edge.EdgeShard = HollowShard  # type: ignore[misc, assignment]
    sys.exit(double.main())
