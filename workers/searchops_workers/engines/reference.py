"""What FP32 torch says of a checkpoint, encoded once: builds of the same checkpoint on other hardware find it kept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from searchops_workers.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors

FILE = "reference.npy"


class References(Protocol):
    """Where files are kept under a recipe: the same place as engines."""

    def find_engine(self, recipe: str, into: Path) -> dict[str, Any] | None:
        """Copy the files into a folder; their description, or None."""
        ...

    def keep_engine(self, recipe: str, description: dict[str, Any], files: tuple[Path, ...]) -> None:
        """Keep files under a recipe."""
        ...


def kept_reference(
    kept: References, recipe: str, folder: Path, texts: Sequence[str], encode: Callable[[], Vectors]
) -> tuple[Vectors, bool]:
    """The reference vectors of the texts and whether they were found; encoded and kept where they were not.

    Args:
        kept: where.
        recipe: everything that the vectors follow from: checkpoint, texts, cut, versions.
        folder: scratch.
        texts: one row each.
        encode: makes them; the import of torch and sentence-transformers alone costs more than a small model's vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = kept.find_engine(recipe, folder)
    if description is not None:
        found = _read(folder / FILE, str(description["files"].get(FILE)))
        if found is not None and found.shape[:1] == (len(texts),):
            return found, True
    vectors = encode()
    sink = io.BytesIO()
    np.save(sink, vectors, allow_pickle=False)
    (folder / FILE).write_bytes(sink.getvalue())
    if np.isfinite(vectors).all():
        kept.keep_engine(recipe, {"files": {FILE: file_digest(folder / FILE)}}, (folder / FILE,))
    return vectors, False


def _read(path: Path, digest: str) -> Vectors | None:
    """None where the file is damaged: it is made again then."""
    try:
        if file_digest(path) != digest:
            return None
        found: Vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found
