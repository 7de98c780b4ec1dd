"""The one interface behind which ONNX Runtime, TensorRT and TensorRT-RTX build engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.engines.accuracy import GraphRunner

Progress = Callable[[str], None]
"""Takes one line a step; for logs and people."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One engine to build.

    Attributes:
        onnx: the exported graph.
        target: file to write where the backend compiles; folder is there.
        max_batch: largest batch of a profile.
        buckets: sequence lengths; one optimisation profile each.
        timing_cache: kept between builds on the same device and versions.
        progress: takes one line a step.
    """

    onnx: Path
    target: Path
    max_batch: int
    buckets: tuple[int, ...]
    timing_cache: Path | None
    progress: Progress


class Backend(Protocol):
    """Builds engines of one kind and runs them."""

    @property
    def name(self) -> str:
        """As the status names it."""
        ...

    def preflight(self) -> str:
        """The hardware that engines are built for, found out before a runtime is imported.

        Raises:
            BuildError: stage NO_GPU.
        """
        ...

    def runtimes(self) -> dict[str, str]:
        """Versions that decide what is built; part of the engine key."""
        ...

    def build(self, request: EngineRequest) -> Path:
        """The engine file.

        Raises:
            BuildError: stage PARSE or ENGINE.
        """
        ...

    def runner(self, engine: Path) -> GraphRunner:
        """Something that runs the engine.

        Raises:
            BuildError: stage ENGINE or NO_GPU.
        """
        ...
