"""Times that another process wrote, by a clock that may differ from this one's.

Nothing is given up early: what ends at a written moment ends later by as much as two clocks may differ. A wait for
something that takes seconds cannot be widened like that; it counts from when this process first saw what is waited for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time

if TYPE_CHECKING:
    from datetime import datetime

CLOCK_SKEW = timedelta(minutes=10)
"""By how much two clocks are expected to differ at most, where no setting says otherwise."""


def seconds_left(
    written: str, settle: timedelta, now: datetime, *, skew: timedelta, seen_for: float | None = None
) -> float:
    """Seconds of a wait that began when `written` was; never negative, never longer than the wait itself.

    Args:
        written: the moment, by the clock of whoever wrote it; a text that is no time is waited for no more.
        settle: how long the wait is.
        now: this process's time.
        skew: by how much the two clocks may differ.
        seen_for: seconds for which this process has seen it written; None where that is not known.
    """
    try:
        age = now - parse_time(written)
    except ValueError:
        return 0.0
    if age >= settle + skew:
        return 0.0
    waited = age.total_seconds() if seen_for is None else seen_for
    return min(max(settle.total_seconds() - waited, 0.0), settle.total_seconds())
