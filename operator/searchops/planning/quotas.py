"""How much of its bounds a merchant uses, as the status tells it: estimates, since exact counts of all are not free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.api.v1alpha1.search_tenant_status import UsageStatus
from searchops.planning.cell_room import full_finding
from searchops.planning.conditions import Finding, no, yes

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.api.room import CellHold
    from searchops.api.v1alpha1.search_tenant import SearchTenant

NEAR_PERCENT = 90
BYTES_A_DIMENSION = 4
MEGABYTE = 1_000_000


def room_finding(tenant: SearchTenant, current: CollectionState, cell: str, hold: CellHold | None) -> Finding:
    """The condition QuotaOK on a cell that may be held: both are said where both bind."""
    own = quota_finding(tenant, current)
    if hold is None:
        return own
    held = full_finding(cell, hold, usage(tenant, current).points)
    message = held.message if own.status == "True" else f"{held.message}. Besides: {own.message}"
    return no("QuotaOK", TenantReason.CELL_FULL, message)


def quota_finding(tenant: SearchTenant, current: CollectionState) -> Finding:
    """The condition QuotaOK as far as the tenant's own goes; one that is nearly used up still holds, and says so."""
    quotas = tenant.spec.quotas
    megabytes, size = quotas.max_vector_megabytes, vector_bytes(current.points, current)
    used = []
    if quotas.max_points:
        said = f"{current.points} points (estimated), spec.quotas.maxPoints allows {quotas.max_points}"
        used.append((current.points * 100 // quotas.max_points, said))
    if megabytes:
        said = f"{size // MEGABYTE} MB of dense vectors (estimated), spec.quotas.maxVectorMegabytes allows {megabytes}"
        used.append((size * 100 // (megabytes * MEGABYTE), said))
    full = [said for percent, said in used if percent >= 100]
    if full:
        refused = "new products are refused by the gateway" if current.slice else "writes are refused"
        return no("QuotaOK", TenantReason.QUOTA_EXCEEDED, f"{'; '.join(full)}: {refused}; raise it")
    near = [f"{percent} %: {said}" for percent, said in used if percent >= NEAR_PERCENT]
    if near:
        return yes("QuotaOK", TenantReason.NEAR_QUOTA, f"{'; '.join(near)}: raise it before writes are refused")
    return yes("QuotaOK", TenantReason.WITHIN_QUOTA, "within spec.quotas")


def usage(tenant: SearchTenant, current: CollectionState) -> UsageStatus:
    """Points, moved only by 1 % or more (a status must not change on every pass), and what follows from them."""
    before = tenant.status.usage
    points = current.points
    if before is not None and not moved(before.points, points):
        points = before.points
    quotas, size = tenant.spec.quotas, vector_bytes(points, current)
    megabytes = quotas.max_vector_megabytes
    return UsageStatus(
        points=points,
        points_quota_percent=points * 100 // quotas.max_points if quotas.max_points else None,
        vector_megabytes=size // MEGABYTE or None,
        vector_quota_percent=size * 100 // (megabytes * MEGABYTE) if megabytes else None,
        estimated=True,
    )


def vector_bytes(points: int, collection: CollectionState) -> int:
    """Bytes of dense vectors if every point has each of them; lexical vectors are not in it."""
    return points * sum(collection.dense.values()) * BYTES_A_DIMENSION


def moved(before: int | None, points: int) -> bool:
    """Whether a number of points is worth telling anew: it moved by 1 % or more."""
    return abs(points - (before or 0)) * 100 >= max(before or 0, 1)
