"""What is counted of each tenant's searches, for those who compare a tenant with itself.

Only a tenant that a search was answered for has series, since a token that the database has not judged may name any.
Those searched last are kept, so that there are never more than the settings allow. All series of a tenant begin at
once: what asks for the increase of two of them loses the same first searches of both.

They are served on a port of their own: who may search must not read from it which other merchants there are, and how
much they are searched. A thread writes them out, so that ten thousand tenants keep no search waiting for long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from searchops.api.live_signals import BUCKETS, EMPTY_SEARCHES, FAILED_SEARCHES, SEARCH_SECONDS, TENANT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

LABELS = tuple(BUCKETS.values())
BOUNDS = tuple(float(label) for label in LABELS)


@dataclass(slots=True)
class _Counts:
    """Of one tenant.

    Attributes:
        quick: searches by the first bound that they were within; the last are those beyond all.
    """

    quick: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    empty: int = 0
    failed: int = 0


class TenantSearches(Collector):
    """Counts of tenants' searches, bounded in their number.

    Args:
        most: tenants that are counted; 0 counts none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: OrderedDict[str, _Counts] = OrderedDict()
        self._lock = Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    @contextmanager
    def served(self, host: str, port: int | None) -> Iterator[int | None]:
        """Serves the series for as long as it lasts; the port it listens on, None where none is wanted."""
        if port is None:
            yield None
            return
        server, thread = start_http_server(port, host, registry=self.registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def __len__(self) -> int:
        return len(self._tenants)

    def answered(self, tenant: str, seconds: float, *, empty: bool, degraded: bool) -> None:
        """A search was answered.

        Args:
            tenant: ``<namespace>.<name>``.
            seconds: that it took.
            empty: it found nothing.
            degraded: the lexical legs answered alone because the encoder did not.
        """
        if self._most == 0:
            return
        with self._lock:
            counts = self._tenants.get(tenant)
            if counts is None:
                counts = self._tenants[tenant] = _Counts()
                if len(self._tenants) > self._most:
                    self._tenants.popitem(last=False)
            counts.empty += empty
            self._count(tenant, counts, seconds, failed=degraded)

    def failed(self, tenant: str, seconds: float) -> None:
        """A search got no answer; of a tenant that never got one it is not known whether there is such a tenant."""
        with self._lock:
            counts = self._tenants.get(tenant)
            if counts is not None:
                self._count(tenant, counts, seconds, failed=True)

    def _count(self, tenant: str, counts: _Counts, seconds: float, *, failed: bool) -> None:
        self._tenants.move_to_end(tenant)
        counts.quick[bisect_left(BOUNDS, seconds)] += 1
        counts.seconds += seconds
        counts.failed += failed

    def collect(self) -> Iterable[Metric]:
        """Three families; without the time of each series' making, which would double them."""
        searches = HistogramMetricFamily(
            SEARCH_SECONDS, "Time of a tenant's searches, failed ones too.", labels=[TENANT_LABEL]
        )
        empty = CounterMetricFamily(
            EMPTY_SEARCHES.removesuffix("_total"), "A tenant's searches that found nothing.", labels=[TENANT_LABEL]
        )
        failed = CounterMetricFamily(
            FAILED_SEARCHES.removesuffix("_total"),
            "A tenant's searches that got no answer, or that of the lexical legs because the encoder did not answer.",
            labels=[TENANT_LABEL],
        )
        with self._lock:
            known = [(name, replace(counts, quick=[*counts.quick])) for name, counts in self._tenants.items()]
        for tenant, counts in known:
            total = 0
            buckets: list[tuple[str, float]] = []
            for label, count in zip((*LABELS, "+Inf"), counts.quick, strict=True):
                total += count
                buckets.append((label, total))
            searches.add_metric([tenant], buckets=buckets, sum_value=counts.seconds)
            empty.add_metric([tenant], counts.empty)
            failed.add_metric([tenant], counts.failed)
        return (searches, empty, failed)
