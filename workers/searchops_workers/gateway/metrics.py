"""What the gateway counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from searchops_workers.gateway.tenant_searches import TenantSearches

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """Metrics in a registry of their own.

    No label carries a tenant's name, of which there are too many; what has it stands apart, in `tenants`.

    Args:
        tenant_series: tenants whose searches are counted each by itself.
    """

    def __init__(self, tenant_series: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.tenants = TenantSearches(tenant_series)
        self.requests = Counter(
            "searchops_gateway_requests_total", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "searchops_gateway_request_seconds",
            "Time of a request.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.searches = Counter(
            "searchops_gateway_searches_total", "Searches by the legs that answered.", ("legs",), registry=self.registry
        )
        self.degraded = Counter(
            "searchops_gateway_degraded_searches_total",
            "Searches that the lexical legs answered alone because the encoder did not.",
            registry=self.registry,
        )
        self.rate_limited = Counter(
            "searchops_gateway_rate_limited_total",
            "Requests refused because a merchant's rate is used up, here or by strict mode on the cell.",
            ("route", "by"),
            registry=self.registry,
        )
        self.cell_full = Counter(
            "searchops_gateway_cell_full_total",
            "Writes refused because the tenant's cell is out of disk or memory.",
            ("cell",),
            registry=self.registry,
        )
        self.rate_buckets = Gauge(
            "searchops_gateway_rate_buckets",
            "Tenants' rates that are partly used, by tenant and kind of request.",
            registry=self.registry,
        )
        self.products = Counter(
            "searchops_gateway_products_total", "Products of bulk requests.", ("outcome",), registry=self.registry
        )
        self.missed_previous = Counter(
            "searchops_gateway_previous_side_missed_total",
            "Writes that reached the bound side and not the previous one: a rollback has to rebuild.",
            registry=self.registry,
        )
        self.foreign = Counter(
            "searchops_gateway_foreign_points_total",
            "Points of another tenant that a shared collection gave back; they were dropped. More than 0 is a fault.",
            registry=self.registry,
        )
        self.stale_credentials = Gauge(
            "searchops_gateway_credentials_unreadable",
            "1 while the credentials' file cannot be read: the last good ones are in use, or none.",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "searchops_gateway_requests_in_flight", "Requests under way or waiting.", ("kind",), registry=self.registry
        )

    def expose(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
