"""Exponential back-off with jitter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class BackOff:
    """Doubles from `base` to `cap` seconds; jitter takes away up to that share, so a delay never exceeds the cap."""

    base: float = 0.5
    cap: float = 300.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap or not 0 <= self.jitter < 1:
            raise ValueError(f"{self!r}: wanted 0 < base <= cap and 0 <= jitter < 1")

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures in a row (1 is the first)."""
        doublings = min(max(failures, 1) - 1, 62)
        return min(self.cap, self.base * 2.0**doublings) * (1.0 - self.jitter * rng.random())
