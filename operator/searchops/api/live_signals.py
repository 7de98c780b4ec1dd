"""What the gateway counts for each tenant, and what the operator asks of it: one set of names for both.

The label is ``tenant`` and not ``namespace`` and ``name``: whoever scrapes a Pod in Kubernetes gives every series a
label ``namespace`` of that Pod, and the two would meet.
"""

from __future__ import annotations

from typing import Literal

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


def tenant_label(namespace: str, name: str) -> str:
    """A tenant's value of the label."""
    return f"{namespace}.{name}"
