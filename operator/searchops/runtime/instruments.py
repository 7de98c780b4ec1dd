"""What the runtime reports of itself; `searchops.telemetry` turns it into metrics. The `No…` classes report nothing."""

from __future__ import annotations

from typing import Literal, Protocol

ReconcileOutcome = Literal["success", "error", "requeue", "requeue_after"]
"""The values of controller-runtime's label `result`."""
DropCause = Literal["repeated", "rate", "full", "refused"]
"""Why an event was not written."""


class QueueMetrics(Protocol):
    """What a queue reports as it happens; depths are read from `WorkQueue.snapshot`. Times are in seconds."""

    def added(self, queue: str) -> None:
        """A key was asked for."""
        ...

    def started(self, queue: str, waited: float) -> None:
        """A key was handed to a worker after so long in line."""
        ...

    def finished(self, queue: str, worked: float) -> None:
        """A worker gave a key back after so long."""
        ...

    def retried(self, queue: str) -> None:
        """A key was put off by its back-off."""
        ...


class ReconcileMetrics(Protocol):
    """What a controller reports of its reconciles."""

    def workers(self, controller: str, maximum: int) -> None:
        """So many workers were started."""
        ...

    def busy(self, controller: str, change: int) -> None:
        """A worker took up (+1) or laid down (-1) a key."""
        ...

    def reconciled(self, controller: str, outcome: ReconcileOutcome, seconds: float) -> None:
        """A reconcile ended."""
        ...

    def failed(self, controller: str, *, terminal: bool) -> None:
        """A reconcile raised an error, counted beside its outcome."""
        ...


class EventMetrics(Protocol):
    """What the event recorder reports."""

    def dropped(self, cause: DropCause) -> None:
        """An event was not written."""
        ...


class NoQueueMetrics:
    """Reports nothing."""

    def added(self, queue: str) -> None:
        """Ignore."""

    def started(self, queue: str, waited: float) -> None:
        """Ignore."""

    def finished(self, queue: str, worked: float) -> None:
        """Ignore."""

    def retried(self, queue: str) -> None:
        """Ignore."""


class NoReconcileMetrics:
    """Reports nothing."""

    def workers(self, controller: str, maximum: int) -> None:
        """Ignore."""

    def busy(self, controller: str, change: int) -> None:
        """Ignore."""

    def reconciled(self, controller: str, outcome: ReconcileOutcome, seconds: float) -> None:
        """Ignore."""

    def failed(self, controller: str, *, terminal: bool) -> None:
        """Ignore."""


class NoEventMetrics:
    """Reports nothing."""

    def dropped(self, cause: DropCause) -> None:
        """Ignore."""
