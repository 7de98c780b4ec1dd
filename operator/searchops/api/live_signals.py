"""What the gateway counts for each tenant, and what the operator asks of it: one set of names for both.

The label is ``tenant`` and not ``namespace`` and ``name``: whoever scrapes a Pod in Kubernetes gives every series a
label ``namespace`` of that Pod, and the two would meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

SignalName = Literal["ZeroResults", "Errors", "SlowSearches"]
SlowerThan = Literal["100ms", "250ms", "500ms", "1s", "2500ms"]
SignalWindow = Literal["1h", "6h", "24h"]

TENANT_LABEL = "tenant"
"""``<namespace>.<name>``, as in the gateway's paths; neither part can hold a dot."""
SEARCH_SECONDS = "searchops_gateway_tenant_search_seconds"
"""Histogram over every search of the tenant, failed ones too."""
EMPTY_SEARCHES = "searchops_gateway_tenant_empty_searches_total"
FAILED_SEARCHES = "searchops_gateway_tenant_failed_searches_total"
BUCKETS: dict[SlowerThan, str] = {"100ms": "0.1", "250ms": "0.25", "500ms": "0.5", "1s": "1.0", "2500ms": "2.5"}
"""Bounds in seconds as the label ``le`` has them, by the words of `EmbeddingModel.spec.rollout.signals`."""

HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Share:
    """What part of a tenant's searches a signal counts.

    Attributes:
        of: all of its searches in a window.
        part: those that the signal counts.
    """

    of: float
    part: float


@dataclass(frozen=True, slots=True)
class Window:
    """Whole hours that a signal is asked about, for all tenants at once.

    Attributes:
        start: of the hours after the switch; those before are a week earlier.
    """

    signal: SignalName
    slower_than: SlowerThan | None
    start: datetime
    hours: int

    @property
    def end(self) -> datetime:
        """When it is over."""
        return self.start + HOUR * self.hours

    @property
    def before(self) -> Window:
        """The same hours of the same weekday before the switch."""
        return Window(self.signal, self.slower_than, self.start - WEEK, self.hours)


def tenant_label(namespace: str, name: str) -> str:
    """A tenant's value of the label."""
    return f"{namespace}.{name}"
