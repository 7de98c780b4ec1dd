"""Per cell: which key signs tokens while it is rotated, and whether the register of tokens is there at all."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from searchops.planning.key_rotation import RotationFacts, RotationPhase, RotationRecord, plan_rotation
from searchops.planning.names import CELL_ANNOTATION, cell_state_map_name, tokens_collection
from searchops.planning.tenant_access import key_id
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from searchops.api.observed import CellRegistration
    from searchops.planning.key_rotation import RotationPlan
    from searchops.planning.tenant_facts import TenantSettings
    from searchops.ports import CellDirectory, CellReader, KeyProbe, StateMaps
    from searchops.runtime.cache import CachedObject
    from searchops.runtime.key import Key

logger = logging.getLogger(__name__)

SETTLED = (RotationPhase.IDLE,)


class CellAccessMetrics(Protocol):
    """Tells how far rotations are, and whether registers are there."""

    def rotation(self, cell: str, phase: str, resigned: int, total: int) -> None:
        """A cell's keys were looked at."""
        ...

    def register_lost(self, cell: str, *, lost: bool) -> None:
        """A cell's collections were looked at."""
        ...


class CellAccess:
    """Decides with which key tokens are signed; the tenants ask it at every pass and tell it what they found.

    Args:
        tenants: every cached SearchTenant.
        wake: asks for a pass over a tenant.
    """

    def __init__(
        self,
        *,
        settings: TenantSettings,
        directory: CellDirectory,
        cells: CellReader,
        probe: KeyProbe,
        state: StateMaps,
        tenants: Iterable[CachedObject],
        wake: Callable[[Key], Any],
        metrics: CellAccessMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._cells = cells
        self._probe = probe
        self._state = state
        self._tenants = tenants
        self._wake = wake
        self._metrics = metrics
        self._clock = clock
        self._plans: dict[str, RotationPlan] = {}
        self._written: dict[str, dict[str, str]] = {}
        self._seen: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}

    # -- what tenants ask and tell -----------------------------------------------------------------------------

    def signing(self, cell: CellRegistration) -> CellRegistration | None:
        """The cell with the key that signs now; None while a second key is there and nothing is decided."""
        if cell.problem:
            return None
        if not cell.alt_api_key:
            return cell
        plan = self._plans.get(cell.name)
        if plan is None or plan.signing is None:
            return None
        if plan.signing == key_id(cell.api_key):
            return cell
        if plan.signing == key_id(cell.alt_api_key):
            return replace(cell, api_key=cell.alt_api_key)
        return None  # the Secret was edited since: the next round decides

    def saw(self, tenant: tuple[str, str], cell: str, key_ids: Sequence[str]) -> None:
        """Which key signed each token that a tenant's Secrets hold."""
        self._seen[tenant] = (cell, tuple(key_ids))

    def forget(self, tenant: tuple[str, str]) -> None:
        """The tenant is gone."""
        self._seen.pop(tenant, None)

    # -- rounds ------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """One look at every cell; one that fails holds back no other."""
        cells = self._directory.cells()
        residents = self._residents()
        await asyncio.gather(
            *(self._look(registration, residents.get(name, [])) for name, registration in sorted(cells.items()))
        )
        for name in set(self._plans) - set(cells):
            del self._plans[name]

    def _residents(self) -> dict[str, list[CachedObject]]:
        found: dict[str, list[CachedObject]] = {}
        for cached in self._tenants:
            cell = cached.annotations.get(CELL_ANNOTATION)
            if cell is not None and not cached.deleting and cached.raw.get("spec", {}).get("access"):
                found.setdefault(cell, []).append(cached)
        return found

    async def _look(self, cell: CellRegistration, residents: list[CachedObject]) -> None:
        if cell.problem:
            return  # what its key is now is unknown, so nothing of a rotation is moved on
        try:
            await self._rotate(cell, residents)
            if self._settings.revocable:
                await self._register(cell, residents)
        except ReconcileError as error:
            logger.warning("looking after a cell's access failed", extra={"cell": cell.name, "error": str(error)})

    async def _rotate(self, cell: CellRegistration, residents: list[CachedObject]) -> None:
        name = cell_state_map_name(cell.name)
        if cell.name not in self._written:
            self._written[cell.name] = await self._state.read(name) or {}
        facts = await self._facts(cell, residents, _record(self._written[cell.name]))
        plan = plan_rotation(facts, self._clock(), self._settings.token_lifetime)
        data = _data(plan)
        if data != self._written[cell.name]:  # kept first: what is signed with must be known after a restart
            try:
                await self._state.write(name, data)
            except ReconcileError:
                self._written.pop(cell.name, None)  # its effect is unknown: it is read again
                raise
            self._written[cell.name] = data
        before = self._plans.get(cell.name)
        self._plans[cell.name] = plan
        self._tell(cell, before, plan)
        if before is None or before.signing != plan.signing:
            for cached in residents:
                if plan.signing is not None and any(key != plan.signing for key in self._keys_of(cached, cell.name)):
                    self._wake(cached.key)

    async def _facts(
        self, cell: CellRegistration, residents: list[CachedObject], record: RotationRecord | None
    ) -> RotationFacts:
        nodes: dict[str, bool | None] = {}
        if cell.alt_api_key:
            answers = await asyncio.gather(*(self._probe.accepts(cell, url, cell.alt_api_key) for url in cell.urls))
            nodes = dict(zip(cell.urls, answers, strict=True))
        unread = [cached for cached in residents if self._seen.get(cached.key, ("",))[0] != cell.name]
        tokens = Counter(key for cached in residents for key in self._keys_of(cached, cell.name))
        holders: dict[str, list[str]] = {}
        for cached in residents if cell.alt_api_key or record is not None else ():
            for key in set(self._keys_of(cached, cell.name)):
                holders.setdefault(key, []).append(str(cached.key))
        return RotationFacts(
            cell=cell.name,
            primary=key_id(cell.api_key),
            alternative=key_id(cell.alt_api_key) if cell.alt_api_key else None,
            alternative_strong=replace(cell, api_key=cell.alt_api_key).key_is_strong,
            record=record,
            nodes=nodes,
            tokens=tokens,
            unseen=len(unread),
            holders={key: tuple(names) for key, names in holders.items()},
            unread=tuple(str(cached.key) for cached in unread),
        )

    def _keys_of(self, cached: CachedObject, cell: str) -> tuple[str, ...]:
        seen = self._seen.get(cached.key)
        return seen[1] if seen is not None and seen[0] == cell else ()

    def _tell(self, cell: CellRegistration, before: RotationPlan | None, plan: RotationPlan) -> None:
        self._metrics.rotation(cell.name, str(plan.phase), plan.resigned, plan.total)
        changed = before is not None and before.phase is not plan.phase
        if changed or (before is None and plan.phase not in SETTLED):
            extra = {"cell": cell.name, "phase": str(plan.phase), "detail": plan.message}
            logger.info("the rotation of a cell's key has moved", extra=extra)

    async def _register(self, cell: CellRegistration, residents: list[CachedObject]) -> None:
        """Without the register the database refuses every token: whoever has one is woken to enter it again."""
        state = await self._cells.survey(cell)
        if not state.reachable:
            return
        name = tokens_collection(self._settings.fleet)
        holders = [cached for cached in residents if cached.status.get("accessSecrets")]
        lost = bool(holders) and name not in state.collections
        self._metrics.register_lost(cell.name, lost=lost)
        if lost:
            logger.error(
                "the register of tokens is gone from a cell, so its database refuses every tenant's token; it is made "
                "anew",
                extra={"cell": cell.name, "collection": name, "tenants": len(holders)},
            )
            for cached in holders:
                self._wake(cached.key)


def _record(data: Mapping[str, str]) -> RotationRecord | None:
    try:
        return RotationRecord.model_validate_json(data.get("record", ""))
    except ValidationError:
        return None


def _data(plan: RotationPlan) -> dict[str, str]:
    return {
        "record": plan.record.model_dump_json() if plan.record is not None else "",
        "phase": str(plan.phase),
        "message": plan.message,
        "resigned": str(plan.resigned),
        "total": str(plan.total),
    }
