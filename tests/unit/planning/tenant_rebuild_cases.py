"""What the plans of a rebuild are compared with: names, statuses and conditions of a tenant that is being rebuilt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import format_time
from searchops.api.v1alpha1.search_tenant_status import RebuildStatus
from searchops.planning.names import KEY_BINDING, KEY_PENDING, KEY_PREVIOUS, KEY_RELEASED_AT, reindex_job_name
from searchops.planning.schema import schema_digest
from searchops.planning.tenant_facts import PatchCollection
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.retrieval import Binding
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.tenant_facts import TenantFacts, TenantPlan

ALIAS, NOW = case.ALIAS, case.NOW
A, B = f"{ALIAS}@a", f"{ALIAS}@b"
G1, G2 = f"{ALIAS}@g1", f"{ALIAS}@g2"
R1, R2 = case.revision(1).revision, case.revision(2).revision
SETTLED = NOW - timedelta(seconds=31)
MODEL = case.make_model(case.revision(2))


def plan(tenant: SearchTenant, facts: TenantFacts) -> TenantPlan:
    return case.plan_once_foreseen(tenant, facts)


def patch(collection: str, **bindings: Binding | None) -> PatchCollection:
    names = {"binding": KEY_BINDING, "pending": KEY_PENDING, "previous": KEY_PREVIOUS}
    values: dict[str, str | None] = {
        names[name]: None if item is None else item.to_metadata() for name, item in bindings.items()
    }
    return PatchCollection(collection, tuple(sorted({**values, KEY_RELEASED_AT: case.STAMP}.items())))


def job_name(
    vector: str | None,
    revision: str | None,
    since: datetime,
    *,
    attempt: int = 1,
    tenant: SearchTenant | None = None,
) -> str:
    schema = schema_digest((tenant or case.make_tenant()).spec)
    parts = f"{schema}/{revision or ''}/{format_time(since)}"
    return reindex_job_name("acme", "uid-1", vector or "lexical", parts, attempt)


def rebuild_status(
    name: str,
    *,
    reason: str = "SpaceChanged",
    attempt: int = 1,
    vector: str = "d-s2",
    revision: str | None = R2,
    started: datetime = NOW,
    tenant: SearchTenant | None = None,
) -> RebuildStatus:
    schema = schema_digest((tenant or case.make_tenant()).spec)
    return RebuildStatus(
        reindex_job=name,
        reason=reason,
        attempt=attempt,
        target_space=f"{vector}/{schema}",
        revision=revision,
        started_at=format_time(started),
    )


def rebuilding(reason: str = "SpaceChanged", **others: tuple[str, str, str]) -> dict[str, tuple[str, str, str]]:
    said = f"a rebuild is under way: {reason}; the old side serves meanwhile"
    found = {"ModelBound": ("False", "Rebuilding", said), "Ready": ("False", "Rebuilding", f"ModelBound: {said}")}
    return {**found, **others}


def named_vector(since: datetime = SETTLED, **changes: Any) -> Any:
    """A live collection whose second vector is being filled."""
    return case.make_collection(case.dense(1), pending=case.dense(2, at=since), **changes)
