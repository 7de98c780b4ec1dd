"""What a tenant's pass is told of backups: its record, and where a lost collection was restored to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from searchops.planning import tenant as planner
from searchops.planning.names import FINALIZER, KEY_DELETED_AT, KEY_RESTORED
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from searchops.api.backup import BackupRecord
    from searchops.api.observed import CellRegistration
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts, TenantSettings
    from searchops.ports import CellDirectory, CellReader


class BackupRecords(Protocol):
    """What is known of tenants' backups; filled by the keeper of backups."""

    def of(self, key: Key, uid: str) -> BackupRecord | None:
        """The tenant's record; None where the store has not been read for this very object."""
        ...


class BackupFacts:
    """Adds to the facts of a pass; other cells are asked only where the tenant's own has lost its collection."""

    def __init__(
        self, cells: CellReader, directory: CellDirectory, settings: TenantSettings, records: BackupRecords | None
    ) -> None:
        self._cells = cells
        self._directory = directory
        self._settings = settings
        self._records = records

    async def added(self, tenant: SearchTenant, facts: TenantFacts) -> TenantFacts:
        """The facts with the tenant's backups."""
        key = Key(tenant.metadata.namespace, tenant.metadata.name)
        if self._records is not None and tenant.spec.backup is not None:
            facts = replace(facts, backup=self._records.of(key, tenant.metadata.uid))
        return replace(facts, restored=await self._restored(tenant, facts)) if self._lost(tenant, facts) else facts

    def _lost(self, tenant: SearchTenant, facts: TenantFacts) -> bool:
        """Whether a tenant that had a collection has none where it lives, or its cell is not registered any more."""
        if planner.cell_of(tenant) is None or FINALIZER not in tenant.metadata.finalizers:
            return False
        if tenant.status.collection is None or tenant.metadata.deletion_timestamp is not None:
            return False
        if facts.cell is None:
            return True
        owner = planner.owner_of(tenant, facts, self._settings)
        held = any(owner.owns(item) and KEY_DELETED_AT not in item.metadata for item in facts.collections)
        return facts.cell.reachable and owner.alias not in facts.cell.aliases and not held

    async def _restored(self, tenant: SearchTenant, facts: TenantFacts) -> str | None:
        """The cell of ours whose alias of this tenant leads to what was restored for it; the latest, if several."""
        owner, claimed = planner.owner_of(tenant, facts, self._settings), planner.cell_of(tenant)
        found: list[tuple[str, str]] = []
        for name, cell in sorted(self._directory.cells().items()):
            if name != claimed and (stamp := await self._stamp(cell, owner, facts)):
                found.append((stamp, name))
        return max(found)[1] if found else None

    async def _stamp(self, cell: CellRegistration, owner: Owner, facts: TenantFacts) -> str:
        state = await self._cells.survey(cell)
        target = state.aliases.get(owner.alias)
        expected = facts.identity.at(cell.name)
        if target is None or state.identity != expected:
            return ""
        collection = await self._cells.describe(cell, target)
        ours = collection is not None and owner.owns(collection) and KEY_DELETED_AT not in collection.metadata
        return collection.metadata.get(KEY_RESTORED, "") if collection is not None and ours else ""
