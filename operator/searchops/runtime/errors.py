"""The error taxonomy: adapters translate into it, the controller maps it to a requeue.

Nobody else catches library errors. Every message tells a person what was seen, what was wanted and what to do next;
`describe` puts the three together. A call that timed out is *unknown*: it is raised as `Transient` and read back by
the next pass, never repeated blindly.
"""

from __future__ import annotations

DEFAULT_WAIT = 10.0
"""Seconds until a `NotReady` is looked at again, where the raiser knows no better."""


def describe(seen: str, *, wanted: str = "", next_step: str = "") -> str:
    """One line out of what was seen, what was wanted and what to do next."""
    line = seen.rstrip(". ")
    if wanted:
        line = f"{line}; wanted {wanted.rstrip('. ')}"
    return f"{line}. {next_step}" if next_step else line


class ReconcileError(Exception):
    """Base of what a reconcile may raise on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Transient(ReconcileError):  # noqa: N818 - the design's word
    """Something failed that may work next time, or whose effect is unknown: back off, or wait `retry_after` seconds.

    Attributes:
        answered: what was called did answer, if not to this call: its breaker does not count it as silent. None where
            it was not called at all, which tells its breaker nothing.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, answered: bool | None = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.answered = answered


class Terminal(ReconcileError):  # noqa: N818 - the design's word
    """Trying again cannot help: becomes a condition with this PascalCase reason and waits for a new generation."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class NotReady(ReconcileError):  # noqa: N818 - the design's word
    """A normal wait for something else, such as a Job or a server that starts; not counted as a failure."""

    def __init__(self, reason: str, message: str, retry_after: float = DEFAULT_WAIT) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Conflict(ReconcileError):  # noqa: N818 - the design's word
    """Somebody else wrote the object first (409): read it again and decide anew."""
