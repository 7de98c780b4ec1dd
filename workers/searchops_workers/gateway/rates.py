"""Merchants' rates: a token bucket a tenant and kind of request, refused with the time at which it makes sense again.

A bucket holds one minute's worth and refills evenly, which is also how the database's strict mode counts behind it. It
is kept as one number, the moment at which it will be full again (the generic cell rate algorithm): no rounding adds
up, a changed rate applies at once, and a bucket that is full need not be kept at all. Libraries were looked at: those
that limit in memory keep every request's time (``limits``' moving window, ``pyrate-limiter``), count fixed windows that
let twice the rate through at their border, or wait instead of refusing (``aiolimiter``); their clocks are their own.

Every gateway counts for itself; what several let through together is bounded by strict mode on the cell.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.api.rates import MerchantRates
    from searchops_workers.gateway.callers import AnyCaller

Kind = Literal["searches", "writes"]

MINUTE = 60.0
KEPT = 40_000
"""Two kinds of 20,000 tenants, a few megabytes. Beyond it the least recently used count as full."""
_SLACK = 1e-6
_FIELDS = {"searches": "searchesPerMinute", "writes": "writesPerMinute"}


class RateExceeded(Problem):
    """The merchant's own rate is used up; refused here, before anything is encoded or asked of the cell."""


class Rates:
    """The buckets of all tenants.

    Args:
        clock: monotonic seconds.
        kept: buckets in memory at most.
    """

    def __init__(self, *, clock: Callable[[], float], kept: int = KEPT) -> None:
        self._clock = clock
        self._kept = kept
        self._full_at: OrderedDict[tuple[str, str, Kind], float] = OrderedDict()

    def __len__(self) -> int:
        """Buckets that are not full."""
        return len(self._full_at)

    def take(self, caller: AnyCaller, rates: MerchantRates, kind: Kind, cost: int = 1) -> None:
        """Take one search, or so many products, out of the caller's bucket; a refusal takes nothing.

        Only for a caller who was accepted, by the database or here: a forged token must not use up a merchant's rate.

        Raises:
            RateExceeded: 429 with Retry-After.
            Problem: 413 where a request is larger than a whole minute's worth and would be refused on every try.
        """
        limit = rates.searches_per_minute if kind == "searches" else rates.writes_per_minute
        if limit == 0:
            return
        if cost > limit:
            raise _above_rate(caller, kind, limit, cost)
        now = self._clock()
        self._forget_full(now)
        key = (caller.cell, caller.alias, kind)
        full_at = max(self._full_at.get(key, now), now) + cost * MINUTE / limit
        wait = full_at - now - MINUTE
        if wait > _SLACK:
            raise _exceeded(caller, kind, limit, wait)
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        while len(self._full_at) > self._kept:
            self._full_at.popitem(last=False)

    def _forget_full(self, now: float) -> None:
        """Drop up to two buckets that are full again, least recently used first: more than a request can add."""
        for _ in range(2):
            key = next(iter(self._full_at), None)
            if key is None or self._full_at[key] > now:
                return
            del self._full_at[key]


def _limit(kind: Kind, limit: int) -> dict[str, object]:
    return {"field": f"spec.quotas.{_FIELDS[kind]}", "perMinute": limit}


def _exceeded(caller: AnyCaller, kind: Kind, limit: int, wait: float) -> RateExceeded:
    seconds = math.ceil(wait - _SLACK)
    return RateExceeded(
        429,
        f"tenant {caller.tenant} has used up its {_FIELDS[kind]}, which is {limit}; send the request again in "
        f"{seconds} s, or have spec.quotas.{_FIELDS[kind]} of its SearchTenant raised",
        code="rate-limited",
        retry_after=seconds,
        extra={"tenant": caller.tenant, "limit": _limit(kind, limit)},
    )


def _above_rate(caller: AnyCaller, kind: Kind, limit: int, cost: int) -> Problem:
    return Problem(
        413,
        f"{cost} items in one request, and the {_FIELDS[kind]} of tenant {caller.tenant} is {limit}; send at most "
        f"{limit} items at once, or have spec.quotas.{_FIELDS[kind]} of its SearchTenant raised",
        code="batch-above-rate",
        extra={"tenant": caller.tenant, "limit": _limit(kind, limit)},
    )
