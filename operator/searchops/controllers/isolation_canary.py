"""The isolation canary at work: a few foreign tokens tried at every turn, spread over all tenants and the period."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

from searchops.api.observed import CanaryResult, Trial
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.isolation_canary import Answers, Resident, Visit, judge, of_all, round_of, visits_due
from searchops.planning.names import ACCESS_SECRET_TYPE, CELL_ANNOTATION
from searchops.runtime.errors import ReconcileError
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.api.observed import CellRegistration, CollectionState
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.isolation_canary import Judgement
    from searchops.ports import AccessSecrets, CellDirectory, EventRecorder, TokenTrials
    from searchops.runtime.cache import ObjectCache

logger = logging.getLogger(__name__)


class CanaryMetrics(Protocol):
    """Counts what the canary proves."""

    def isolation_broken(self) -> None:
        """A token opened what it must not open."""
        ...

    def visited(self, outcome: Literal["held", "broken", "unknown"]) -> None:
        """A visit has ended."""
        ...


class Slices(Protocol):
    """Where slices of shared collections stand."""

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection or slice, or None."""
        ...


MOST = 256
"""Visits of one turn; far above what 10,000 tenants need over a period of hours."""
AT_ONCE = 4
LONGEST_TURN = 60.0
SHORTEST_TURN = 1.0


def turn_seconds(period: float) -> float:
    """Time between two turns: a turn looks at every tenant in memory, so it is a small part of the period only."""
    return min(LONGEST_TURN, max(SHORTEST_TURN, period / 20))


class IsolationCanary:
    """One turn visits whoever is due, and again every pair that was found broken.

    Args:
        period: seconds between two visits of one tenant.
        gateway_url: where tokens are tried too; empty: only at the database.
        cells: tells in which shared collection a slice stands.
        tenants: every cached SearchTenant.
        wake: asks for a pass over a tenant, which then says what was found.
        wall: seconds since the epoch.

    Attributes:
        turn: seconds between two turns.
    """

    def __init__(
        self,
        *,
        period: float,
        gateway_url: str,
        directory: CellDirectory,
        cells: Slices,
        secrets: AccessSecrets,
        trials: TokenTrials,
        tenants: ObjectCache[SearchTenant],
        wake: Callable[[Key], Any],
        events: EventRecorder,
        metrics: CanaryMetrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._period = period
        self.turn = turn_seconds(period)
        self._gateway_url = gateway_url
        self._directory = directory
        self._cells = cells
        self._secrets = secrets
        self._trials = trials
        self._tenants = tenants
        self._wake = wake
        self._events = events
        self._metrics = metrics
        self._wall = wall
        self._last: dict[str, int] = {}
        self._broken: dict[tuple[Key, Key], str] = {}
        self._held: set[Key] = set()
        self._uids: dict[Key, str] = {}

    def result(self, tenant: tuple[str, str]) -> CanaryResult | None:
        """What the last visits of a tenant have shown; a breach holds until the very same try is refused."""
        for pair, message in self._broken.items():
            if tenant in pair:
                return CanaryResult(message)
        return CanaryResult() if tenant in self._held else None

    async def run_once(self) -> int:
        """One turn; returns how many visits proved something."""
        residents = {_key(item): item for item in self._residents()}
        self._forget(residents)
        due = list(visits_due(residents.values(), self._last, self._wall(), self._period, most=MOST))
        again = [Visit(residents[guest], residents[host]) for guest, host in self._broken]
        limit = asyncio.Semaphore(AT_ONCE)

        async def visit(one: Visit) -> bool:
            async with limit:
                return await self._visit(one)

        return sum(await asyncio.gather(*(visit(one) for one in [*again, *due])))

    def _residents(self) -> list[Resident]:
        found = []
        for cached in self._tenants:
            cell, alias = cached.annotations.get(CELL_ANNOTATION), cached.status.get("alias")
            spec = cached.raw.get("spec", {})
            entries = sorted(spec.get("access") or [], key=lambda entry: entry.get("role") != "Search")
            if cell is None or not alias or not entries or cached.deleting:
                continue
            self._uids[cached.key] = cached.uid
            found.append(
                Resident(
                    cached.key.namespace,
                    cached.key.name,
                    cached.uid,
                    cell,
                    alias,
                    tuple(entry["secretName"] for entry in entries),
                    tier=(cached.status.get("isolation") or {}).get("mode") or spec.get("isolation", "Collection"),
                    collection=cached.status.get("collection") or "",
                )
            )
        return found

    def _forget(self, residents: dict[Key, Resident]) -> None:
        uids = {item.uid for item in residents.values()}
        self._last = {uid: number for uid, number in self._last.items() if uid in uids}
        self._held &= residents.keys()
        self._uids = {key: self._uids[key] for key in residents}
        for pair in [pair for pair in self._broken if not set(pair) <= residents.keys()]:
            del self._broken[pair]

    async def _visit(self, visit: Visit) -> bool:
        """Read the token, try it, judge. A turn counts as taken when it proved something."""
        try:
            token = await self._token(visit.guest)
        except ReconcileError as error:
            logger.debug("the canary could not read a Secret", extra={"error": str(error)})
            token = ""
        judgement = judge(visit, await self._answers(visit, token))
        self._take_in(visit, judgement)
        proved = bool(judgement.broken) or judgement.held
        self._metrics.visited("broken" if judgement.broken else "held" if judgement.held else "unknown")
        # One that proved nothing waits for its next turn too: a silent cell must not be asked by all its tenants.
        self._last[visit.guest.uid] = max(
            self._last.get(visit.guest.uid, 0), round_of(visit.guest, self._wall(), self._period)
        )
        return proved

    async def _token(self, guest: Resident) -> str:
        for name in guest.secrets:
            found = await self._secrets.read(guest.namespace, name)
            if found is not None and (found.type, found.owner_uid) == (ACCESS_SECRET_TYPE, guest.uid) and found.token:
                return found.token
        return ""

    async def _answers(self, visit: Visit, token: str) -> Answers:
        cell = self._directory.cells().get(visit.host.cell)
        if cell is None or not token:
            return Answers(Trial.UNKNOWN, None, None)
        own, at_gateway = Trial.UNKNOWN, None
        if visit.guest.enforced_by_database:
            own = await self._trials.at_cell(cell, visit.guest.alias, token)
        names = await self._names(cell, visit.host)
        at_cell = of_all([await self._trials.at_cell(cell, name, token) for name in names])
        if self._gateway_url:
            at_gateway = await self._trials.at_gateway(self._gateway_url, visit.host.tenant, token)
            if not visit.guest.enforced_by_database:
                own = await self._trials.at_gateway(self._gateway_url, visit.guest.tenant, token)
        return Answers(own, at_cell, at_gateway)

    async def _names(self, cell: CellRegistration, host: Resident) -> tuple[str, ...]:
        """What the database would give the host's points by; none where that is not known just now."""
        if host.enforced_by_database:
            return host.names_at_database
        try:
            found = await self._cells.describe(cell, host.collection)
        except ReconcileError as error:
            logger.debug("the canary could not find a slice", extra={"cell": cell.name, "error": str(error)})
            return ()
        return () if found is None or found.slice is None else (found.slice.collection,)

    def _take_in(self, visit: Visit, judgement: Judgement) -> None:
        pair = (_key(visit.guest), _key(visit.host))
        before = {key: self.result(key) for key in pair}
        if judgement.broken:
            if pair not in self._broken:
                self._metrics.isolation_broken()
                self._tell(pair, judgement.broken)
            self._broken[pair] = judgement.broken
        elif judgement.held:
            self._broken.pop(pair, None)
            self._held.update(pair)
        for key in pair:
            after = self.result(key)
            if after != before[key] and (judgement.broken or before[key] is not None or self._was_broken(key)):
                self._wake(key)

    def _was_broken(self, key: Key) -> bool:
        """Whether the tenant's status tells of a breach that an earlier process saw."""
        cached = self._tenants.get(key)
        conditions = (cached.status.get("conditions") or []) if cached is not None else []
        return any(item["type"] == "Isolated" and item["status"] != "True" for item in conditions)

    def _tell(self, pair: tuple[Key, Key], message: str) -> None:
        logger.error("tenants are not isolated", extra={"detail": message})
        for key in pair:
            reference = {
                "apiVersion": "searchops.dev/v1alpha1",
                "kind": "SearchTenant",
                "namespace": key.namespace,
                "name": key.name,
                "uid": self._uids.get(key, ""),
            }
            self._events.record(reference, str(TenantReason.ISOLATION_BROKEN), message, warning=True)


def _key(resident: Resident) -> Key:
    return Key(resident.namespace, resident.name)
