"""What keeps a tenant from being judged where cells have shared collections: records and collections unread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.shared import record_key
from searchops.api.v1alpha1.search_tenant import TenantReason

if TYPE_CHECKING:
    from searchops.api.observed import CellState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.schema import Owner


def shared_trouble(tenant: SearchTenant, owner: Owner, cell: CellState) -> tuple[TenantReason, str] | None:
    """Why nothing may be decided on this tenant; None where all that may be its own was read.

    What cannot be read is never taken for what is not there: the tenant would be made anew and empty beside its data.
    """
    if owner.uid in cell.unreadable:
        return TenantReason.CONFLICT, (
            f"the tenant's record, metadata key {record_key(owner.uid)} of a shared collection on cell {cell.name}, "
            "cannot be read by this version; nothing is written; run the version that wrote it, or restore that key; "
            "do not delete the tenant to start empty: its points stand there still"
        )
    if cell.unread and _may_share(tenant):
        return TenantReason.CELL_UNREACHABLE, (
            f"{', '.join(sorted(cell.unread))} on cell {cell.name} cannot be read, and the tenant's points may stand "
            "there; nothing is changed until it can; the cell's other tenants go on"
        )
    return None


def points_to_shared(owner: Owner, cell: CellState) -> str:
    """An alias of the tenant's name that points to a shared collection, which nobody of us makes; empty where none."""
    names = (owner.alias, f"{owner.alias}@a", f"{owner.alias}@b")
    return next((name for name in names if cell.aliases.get(name) in cell.shared), "")


def _may_share(tenant: SearchTenant) -> bool:
    seen = tenant.status.isolation
    alone = tenant.spec.isolation == "Collection" and seen is not None and seen.mode == "Collection"
    return not alone or tenant.status.rebuild is not None
