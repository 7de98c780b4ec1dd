"""What a cell refuses for want of room or rate, told apart: the whole cell's, one tenant's quota, one tenant's rate.

A client has to know which: a rate is waited for, a quota is raised by the merchant's contract, and a full cell is for
the platform team, whatever the merchant does. Searches need no room and go on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from searchops.api.room import says_full
from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

DETAIL = 300
PAUSE_SECONDS = 5.0
"""For how long writes to a full cell are refused without asking it: they would be encoded for nothing."""
COME_BACK_SECONDS = 60.0
"""After how long a client is told to try a full cell again."""
_RATES = {"Read rate": "searchesPerMinute", "Write rate": "writesPerMinute"}
WAY_OUT = "have it raised (a removed product counts until the next rebuild); trying again does not help"
_QUOTAS = {"Max points count": "maxPoints", "Max vector storage size": "maxVectorMegabytes"}
_TOO_BIG_FOR_RATE = "split the request"
_TOO_LARGE = "message larger than max"


class CellFull(Problem):
    """The cell is out of disk or memory: no tenant's writes are taken there."""

    def __init__(self, cell: str, said: str, *, retry_after: float = COME_BACK_SECONDS) -> None:
        super().__init__(
            507,
            f"the tenant's cell {cell} is out of disk or memory, which is no quota of the tenant: no writes are taken "
            "there and searches go on; nothing is wrong with the request; send it again later, or have room made on "
            f"the cell ({said})",
            code="cell-full",
            retry_after=retry_after,
            extra={"cell": cell},
        )
        self.said = said


def refused(cell: str, status: int, body: str, retry_after: float | None, *, shared: bool) -> Problem | None:
    """What a refusal of the cell means, where it is one of room or rate; None where it is something else.

    Args:
        cell: its name.
        status: as it answered, or as gRPC's code stands for.
        body: what it said.
        retry_after: seconds after which it wants to be asked again.
        shared: whether the collection is shared, so that its limits are no merchant's own.
    """
    said = body[:DETAIL]
    if says_full(status, body):
        return CellFull(cell, said)
    if status == 429:
        return _rate(said, retry_after, shared=shared)
    if status == 413:
        detail = f"the database takes no request that large: {said}; send smaller batches"
        return Problem(413, detail, code="body-too-large")
    quota = next((field for words, field in _QUOTAS.items() if words in body), None) if status == 400 else None
    if quota is None:
        return None
    whose, limit = _limit(quota, shared=shared)
    detail = f"{whose} is used up: {said}; {WAY_OUT}"
    return Problem(422, detail, code="quota-exceeded", extra=limit)


def require_points(points: int, maximum: int) -> None:
    """Refuse new products of a tenant that shares its collection, as strict mode does for one that does not.

    Args:
        points: that the tenant has, as counted a moment ago.
        maximum: that it may have; 0 is no bound.

    Raises:
        Problem: 422, in the words that a refusal of the database has.
    """
    if maximum and points >= maximum:
        raise Problem(
            422,
            f"spec.quotas.maxPoints of the tenant is used up: {points} points, {maximum} allowed; {WAY_OUT}",
            code="quota-exceeded",
            extra={"limit": {"field": "spec.quotas.maxPoints", "enforcedBy": "Gateway"}},
        )


def exhausted(details: str, retry_after: str | None) -> int:
    """The HTTP status of gRPC's RESOURCE_EXHAUSTED, which stands for three of them."""
    if _TOO_LARGE in details:
        return 413
    return 429 if retry_after is not None or "rate limit" in details.lower() else 507


def _rate(said: str, retry_after: float | None, *, shared: bool) -> Problem:
    field = next((name for words, name in _RATES.items() if words in said), None)
    whose, limit = _limit(field, shared=shared)
    if _TOO_BIG_FOR_RATE in said:
        return Problem(413, f"one request is above {whose}: {said}", code="batch-above-rate", extra=limit)
    after = retry_after or 1.0
    detail = f"{whose} is used up, as the database counts it: {said}; send the request again in {math.ceil(after)} s"
    return Problem(429, detail, code="rate-limited", retry_after=after, extra=limit)


def _limit(field: str | None, *, shared: bool) -> tuple[str, dict[str, Any]]:
    """Whose limit it is in words, and as members of the problem."""
    if shared:
        return "a limit of the shared collection", {"limit": {"enforcedBy": "Database"}}
    if field is None:
        return "a rate of the tenant", {}
    name = f"spec.quotas.{field}"
    return f"{name} of the tenant's SearchTenant", {"limit": {"field": name, "enforcedBy": "Database"}}


class Room:
    """Cells that have just refused a write for want of room.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, str]] = {}

    def require(self, cell: str) -> None:
        """Refuse a write before anything is encoded for it, for a moment after the cell has refused one.

        Raises:
            CellFull: as the cell would, were it asked.
        """
        until, said = self._until.get(cell, (0.0, ""))
        left = until - self._clock()
        if left > 0:
            raise CellFull(cell, said, retry_after=max(left, 1.0))
        self._until.pop(cell, None)

    def met(self, cell: str, problem: CellFull) -> None:
        """A cell has refused a write; what was refused here already prolongs nothing."""
        self._until.setdefault(cell, (self._clock() + PAUSE_SECONDS, problem.said))
