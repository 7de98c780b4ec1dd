"""What a reconcile returns: nothing left to do, or look again after a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of a reconcile that did not fail; `requeue_after` is in seconds, None means wait for a change."""

    requeue_after: float | None = None

    @classmethod
    def done(cls) -> Result:
        """Nothing is left to do until the object, a child or the resync brings the key back."""
        return cls()

    @classmethod
    def after(cls, seconds: float) -> Result:
        """Look again after so many seconds, even if nothing changes.

        Raises:
            ValueError: where the number is negative.
        """
        if seconds < 0:
            raise ValueError(f"requeue after {seconds} s: wanted a number of seconds of at least 0; use 0 for at once")
        return cls(requeue_after=seconds)

    def earliest(self, other: Result) -> Result:
        """The one of both that looks again sooner."""
        if self.requeue_after is None:
            return other
        if other.requeue_after is None:
            return self
        return self if self.requeue_after <= other.requeue_after else other
