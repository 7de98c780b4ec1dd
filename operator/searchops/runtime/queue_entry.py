"""What a work queue knows of one key, and what it tells of itself as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """A change goes before a resync and before the initial list."""

    CHANGE = 0
    RESYNC = 1


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue at one moment; times in seconds."""

    changes: int
    resyncs: int
    delayed: int
    parked: int
    running: int
    unfinished_seconds: float
    longest_running_seconds: float
    refused: int

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return self.changes + self.resyncs


@dataclass(slots=True)
class Entry:
    """One key: where it stands, since when, and what was asked of it meanwhile."""

    ready: Priority | None = None
    ready_since: float = 0.0
    running: Priority | None = None
    running_since: float = 0.0
    again: Priority | None = None
    parked: Priority | None = None
    parked_until: float = 0.0
    due: float | None = None
    due_priority: Priority = Priority.CHANGE
    failures: int = 0

    @property
    def idle(self) -> bool:
        """Nothing is to be done for the key."""
        return self.ready is self.running is self.again is self.parked is self.due is None

    def stands_for(self, moment: float) -> bool:
        """Whether the key is still to be looked at at this moment."""
        return self.due == moment or (self.parked is not None and self.parked_until == moment)


def more_urgent(one: Priority | None, other: Priority) -> Priority:
    """The more urgent of the two."""
    return other if one is None else min(one, other)
