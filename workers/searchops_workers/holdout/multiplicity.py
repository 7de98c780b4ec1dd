"""Many tests at once (Holm), and the same holdout many times (wear)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops_workers.holdout.intervals import ALPHA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

MAX_ATTEMPTS = 10
"""Attempts on one family, across versions, after which its holdout part is worn."""


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values (Holm 1979), in the order given; reject those ≤ α for a family-wise error of at most α."""
    count = len(p_values)
    adjusted = [0.0] * count
    running = 0.0
    for place, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (count - place) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


@dataclass(frozen=True, slots=True)
class Wear:
    """How often the families of a gate were asked before.

    Attributes:
        recent: earlier candidate digests tried on the same part within 30 days: each halves α.
        total: earlier attempts on the most used family, across versions of the holdout.
        lost: URIs of evidence that is gone or damaged: those attempts count for every family.
    """

    recent: int = 0
    total: int = 0
    lost: tuple[str, ...] = ()

    @property
    def alpha(self) -> float:
        """α, α/2, α/4 …: asking again until something passes must not get cheaper."""
        return ALPHA / (1 << min(self.recent, MAX_ATTEMPTS))

    @property
    def worn(self) -> bool:
        """Whether the part may no longer promote anything."""
        return max(self.total, self.recent) >= MAX_ATTEMPTS


@dataclass(frozen=True, slots=True)
class Attempt:
    """One evaluation that has been answered by a verdict."""

    candidate: str
    families: frozenset[str]
    at: datetime


def wear_of(attempts: Iterable[Attempt], families: frozenset[str], candidate: str, since: datetime) -> Wear:
    """Wear of some families before `candidate` (a digest) is tried on them: its own earlier attempts do not count.

    Args:
        attempts: all that are remembered.
        families: of the part that is about to be used.
        candidate: digest of the candidate.
        since: the beginning of the window, 30 days ago.
    """
    recent: dict[str, set[str]] = {}
    total: dict[str, set[str]] = {}
    for attempt in attempts:
        if attempt.candidate == candidate:
            continue
        for family in attempt.families & families:
            total.setdefault(family, set()).add(attempt.candidate)
            if attempt.at >= since:
                recent.setdefault(family, set()).add(attempt.candidate)
    return Wear(max(map(len, recent.values()), default=0), max(map(len, total.values()), default=0))
