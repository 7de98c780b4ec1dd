"""A cell that is out of disk or memory: what is held there, for how long, and how its tenants say so.

The hold is the cell's, whoever met it first. It ends when a write has proved that there is room again, and not before;
the proof is tried ever more rarely, and where a hold begins again soon after its end it goes on at that pace, so that
a cell at its brim is not asked to death.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_time
from searchops.api.room import MOST_SAID, CellHold
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import Finding, no

if TYPE_CHECKING:
    from datetime import datetime

ROOM_MAP = "searchops-full-cells"
"""The ConfigMap that keeps the holds: a new process must not place tenants where the old one knew better."""
ROOM_KEY = "holds"
FIRST_TRY = timedelta(minutes=1)
LONGEST_WAIT = timedelta(minutes=10)
AGAIN_WITHIN = timedelta(minutes=20)
"""A hold that begins so soon after the last one ended is taken for the same trouble."""


def begun(said: str, tenants: int, now: datetime, *, tries: int = 0) -> CellHold:
    """A hold that begins; `tries` are those of one that ended a while ago."""
    due = format_time(now + _wait(tries))
    return CellHold(said=said[:MOST_SAID], since=format_time(now), tenants=tenants, tries=tries, next_try=due)


def still_held(hold: CellHold, now: datetime) -> CellHold:
    """The hold after a proof that failed, or that nobody answered."""
    tries = hold.tries + 1
    return hold.model_copy(update={"tries": tries, "next_try": format_time(now + _wait(tries))})


def is_due(hold: CellHold, now: datetime) -> bool:
    """Whether room is to be proved now; a record that tells no time is due, and the next proof mends it."""
    try:
        return now >= parse_time(hold.next_try)
    except ValueError:
        return True


def tries_of_earlier(ended: tuple[datetime, int] | None, now: datetime) -> int:
    """With how many tries a hold begins whose cell ended one before, at that moment and after so many."""
    return ended[1] + 1 if ended is not None and now - ended[0] <= AGAIN_WITHIN else 0


def held_message(cell: str, hold: CellHold) -> str:
    """Why nothing begins on the cell, with numbers, and what to do next; the same for as long as the hold lasts."""
    return (
        f"cell {cell} is out of disk or memory since {hold.since}, with {hold.tenants} tenants on it: writes are "
        "refused there, searches go on, and nothing is placed or filled there; free room, raise the server's limits or "
        f"add a cell; room is tried for every {_minutes(FIRST_TRY)} to {_minutes(LONGEST_WAIT)} minutes, and the hold "
        f"ends by itself. It said: {hold.said}"
    )


def full_finding(cell: str, hold: CellHold, points: int | None = None) -> Finding:
    """The condition QuotaOK of a tenant on the cell: it is not the tenant's own quota that is used up."""
    own = "" if points is None else f"this tenant has {points} points there (estimated); "
    return no("QuotaOK", TenantReason.CELL_FULL, f"{own}{held_message(cell, hold)}")


def _wait(tries: int) -> timedelta:
    return min(LONGEST_WAIT, FIRST_TRY * (1 << min(tries, 10)))


def _minutes(span: timedelta) -> int:
    return int(span.total_seconds() // 60)
