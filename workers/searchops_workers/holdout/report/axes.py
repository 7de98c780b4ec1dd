"""Axes of the plots: where a value stands, in percent of a plot's width or height.

Percent and not pixels, so that a plot fills whatever width a page has while its letters keep their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EDGE = 5.0
"""Percent left free at both ends of an axis, unless it needs room for its letters: a mark at an end is seen whole."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """One line of the grid, with what it says."""

    value: float
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis; values beyond its ends stand at the ends.

    Attributes:
        edge: percent left free at both ends.
    """

    low: float
    high: float
    edge: float = EDGE
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Percent from the left, or from the bottom."""
        inside = min(max(value, self.low), self.high)
        return round(self.edge + (100 - 2 * self.edge) * (inside - self.low) / (self.high - self.low), 3)

    def holds(self, value: float) -> bool:
        """Whether the value stands on the axis and not beyond an end."""
        return self.low <= value <= self.high


def axis(low: float, high: float, label: Callable[[float], str], wanted: int = 5, edge: float = EDGE) -> Axis:
    """An axis with about `wanted` round ticks that reaches from `low` to `high`.

    Raises:
        ValueError: `high` is not above `low`.
    """
    if not low < high:
        raise ValueError(f"seen an axis from {low} to {high}; wanted low < high")
    step = _step((high - low) / wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    bare = Axis(low, high, edge)
    values = [round(place * step, 12) + 0.0 for place in range(first, last + 1)]
    return Axis(low, high, edge, tuple(Tick(value, bare.at(value), label(value)) for value in values))


def round_up(value: float, wanted: int = 5) -> float:
    """The next multiple of a round step at or above a value."""
    step = _step(value / wanted)
    return math.ceil(value / step - 1e-9) * step


def _step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * factor for factor in _STEPS if size * factor >= rough * (1 - 1e-9))
