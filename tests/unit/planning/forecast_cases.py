"""What the plans foreseen for a tenant are compared with: a live collection, measured rates, a whole forecast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from searchops.api.v1alpha1.search_tenant_status import CostForecast, PlanStatus, RoomStatus
from searchops.planning.rebuild_rates import GPU_LABEL, GpuPrices, MeasuredRate
from searchops.planning.schema import schema_digest
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_forecast import (
    WHY_SCHEMA,
)
from unit.planning import tenant_cases as case
from unit.planning.tenant_rebuild_cases import G2, R1

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.tenant_facts import TenantFacts, TenantPlan

NOW = case.NOW
SETTINGS = replace(case.SETTINGS, prices=GpuPrices("EUR", {"a10": "1.10"}))
ACTIVE = case.make_model(case.revision(1))
RATES = (MeasuredRate(R1, 3, 640.0, 3, 0.005),)
WAIT = "30 s for the gateways are in it, waiting for other rebuilds is not"
BASIS = f"measured on 3 jobs of {R1}, slowest 640/s from its first worker to the switch; {WAIT}"
GPU_BASIS = f"measured on 3 jobs of {R1}, dearest 5 GPU seconds a thousand points"
PRICE = "1.10 EUR a GPU-hour of a10"


def facts_of(live: CollectionState, **changes: Any) -> TenantFacts:
    measured = {"rates": RATES, "worker_labels": {GPU_LABEL: "a10"}, "model": ACTIVE, **changes}
    return case.make_facts(live, **measured)


def plan(tenant: SearchTenant, facts: TenantFacts) -> TenantPlan:
    return plan_tenant(tenant, facts, SETTINGS, NOW)


def shown(tenant: SearchTenant, facts: TenantFacts) -> PlanStatus | None:
    status = plan(tenant, facts).status
    assert status is not None
    return status.plan


def with_plan(tenant: SearchTenant, found: PlanStatus | None) -> SearchTenant:
    return tenant.model_copy(update={"status": tenant.status.model_copy(update={"plan": found})})


def expected(tenant: SearchTenant, *changes: str, vector: str | None = "d-s1", **others: Any) -> PlanStatus:
    """A rebuild of 1,000 documents with the active revision into another generation."""
    values: dict[str, Any] = {
        "state": "Planned",
        "changes": changes,
        "strategy": "BlueGreen",
        "why": WHY_SCHEMA,
        "target_space": f"{vector or 'lexical'}/{schema_digest(tenant.spec)}",
        "revision": R1,
        "collection": G2,
        "vector": vector,
        "documents": 1000,
        "seconds": 32,
        "seconds_basis": BASIS,
        "gpu_seconds": 5,
        "gpu_seconds_basis": GPU_BASIS,
        "cost": CostForecast(amount="0.01", currency="EUR"),
        "cost_basis": PRICE,
        "extra_megabytes": 1,
        "room": RoomStatus(needed=True, fits=True, collections=1, max_collections=100),
    }
    return PlanStatus(**{**values, **others})


LIVE = case.make_collection(case.dense(1), points=1000)
