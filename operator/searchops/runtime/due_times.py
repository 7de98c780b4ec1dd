"""Moments at which keys are to be looked at again: a heap that forgets what nobody waits for any more."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

SLACK = 64
"""Moments that may be stale before the heap is made anew, whatever the number of keys."""


class DueTimes(Generic[K]):
    """Keys by the moment they are due.

    Args:
        live: whether a key still stands for a moment; those that do not are dropped as the heap grows.
    """

    def __init__(self, live: Callable[[K, float], bool]) -> None:
        self._live = live
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def earliest(self) -> float | None:
        """The next moment, or None where there is none."""
        return self._heap[0][0] if self._heap else None

    def add(self, key: K, moment: float, *, keys: int) -> None:
        """Note a moment; `keys` is how many keys there are, to which the heap is kept in proportion."""
        self._sequence += 1
        heapq.heappush(self._heap, (moment, self._sequence, key))
        if len(self._heap) > 3 * keys + SLACK:
            self._compact()

    def until(self, now: float) -> Iterator[tuple[K, float]]:
        """Take out what is due, earliest first."""
        while self._heap and self._heap[0][0] <= now:
            moment, _, key = heapq.heappop(self._heap)
            yield key, moment

    def _compact(self) -> None:
        kept: dict[tuple[K, float], tuple[float, int, K]] = {}
        for item in self._heap:
            moment, _, key = item
            if self._live(key, moment):
                kept[(key, moment)] = item
        self._heap = list(kept.values())
        heapq.heapify(self._heap)
