"""The one interface that search, gate and reindex see, and the checks that every answer passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from searchops_workers.encoders.errors import BadVectors

if TYPE_CHECKING:
    from collections.abc import Sequence

Vectors = NDArray[np.float32]
NORM_TOLERANCE = 2e-3
"""How far a served vector's length may be from 1. FP16 rounding moves it by less than 1e-3."""


class Encoder(Protocol):
    """Turns texts into vectors of unit length, in the order of the texts."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut, special tokens included."""
        ...

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text.

        Raises:
            EncoderError: one of its subclasses; never a partial answer.
        """
        ...

    async def close(self) -> None:
        """Give back connections and threads; the encoder is not usable afterwards."""
        ...


def check_vectors(vectors: NDArray[np.floating], *, count: int, dimension: int, source: str) -> Vectors:
    """The vectors as float32, or an error that names the first bad one.

    Raises:
        BadVectors: on a wrong shape, a value that is not finite, or a length that is not 1.
    """
    if vectors.shape != (count, dimension):
        raise BadVectors(f"{source} answered with shape {vectors.shape}, wanted {(count, dimension)}")
    checked: Vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise BadVectors(
            f"{source} answered {bad.size} of {count} vectors with values that are not finite (first: text {bad[0]}); "
            "the model or its precision is broken: build it with a wider precision, or refuse the checkpoint"
        )
    norms = np.linalg.norm(checked, axis=1)
    wrong = np.flatnonzero(np.abs(norms - 1.0) > NORM_TOLERANCE)
    if wrong.size:
        raise BadVectors(
            f"{source} answered text {wrong[0]} with a vector of length {norms[wrong[0]]:.4f}, wanted 1 "
            f"(within {NORM_TOLERANCE:g}): the normalisation is missing from the exported model"
        )
    return checked
