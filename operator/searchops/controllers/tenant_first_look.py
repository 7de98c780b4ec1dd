"""A process's first pass over a tenant in order: the planner decides on the cell's bulk read, without reads of its own.

A restart would else cost every tenant two Secrets, a description and a query, 40,000 requests for 10,000 tenants in
which nothing has changed. What a bulk read does not show (payload indexes, Secrets, whether a query answers) is taken
as the status says it, for a tenant whose status says that it is Ready at this very generation, and only where the same
version of the operator, with the same settings and the same Secret of the cell, has looked at every tenant of the cell
whole before. The planner then has to find nothing to do and nothing to say; else the pass is an ordinary one. The
resync, whose phase no restart moves, goes on to look at every tenant whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from searchops import __version__
from searchops.api.meta import format_time
from searchops.api.observed import AccessSecretState, CellState, SearchProbe
from searchops.controllers.pass_reads import PassReads
from searchops.planning import tenant as planner
from searchops.planning.drift import as_read
from searchops.planning.names import ACCESS_SECRET_TYPE, CELL_ANNOTATION, tokens_collection
from searchops.planning.schema import Owner
from searchops.planning.tenant_access import inputs_digest, key_id
from searchops.runtime.errors import ReconcileError, Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from searchops.api.observed import CellContents, CellRegistration, CollectionState
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.controllers.tenant_gather import TenantPorts
    from searchops.planning.tenant_facts import TenantFacts, TenantPlan, TenantSettings
    from searchops.ports import StateMaps
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.key import Key

    Decide = Callable[[SearchTenant, PassReads], Awaitable[tuple[TenantFacts, TenantPlan]]]

logger = logging.getLogger(__name__)

MAP = "searchops-tenants"
"""By cell, a digest of what its tenants' Secrets follow from, where every tenant was looked at with it."""
FRESH_SECONDS = 30.0
"""How old a bulk read may be: as many tenants as a cell holds are decided on one."""
ASSUMED_LIFETIME = timedelta(days=1)


def build_of(package: Path) -> str:
    """Digest of a package's source: an image may be built anew without a new version."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


class BulkReader(Protocol):
    """The bulk read of a cell."""

    async def contents(self, cell: CellRegistration) -> CellContents:
        """Every collection's configuration and every alias."""
        ...


class FirstLook:
    """Passes over tenants that were there when the process started.

    Args:
        bulk: reads of whole cells.
        state: keeps which operator has looked at every tenant whole.
        now: monotonic seconds.
        build: of the code that runs; another one looks at every tenant whole first.
    """

    def __init__(
        self,
        bulk: BulkReader,
        state: StateMaps,
        ports: TenantPorts,
        settings: TenantSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        clock: Callable[[], datetime],
        now: Callable[[], float] = time.monotonic,
        build: str = "",
    ) -> None:
        self._build = build
        self._bulk = bulk
        self._state = state
        self._ports = ports
        self._settings = settings
        self._tenants = tenants
        self._clock = clock
        self._now = now
        self._waiting: set[Key] | None = None
        self._homes: dict[Key, str] = {}
        self._unproved: dict[str, set[Key]] = {}
        self._began: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        self._read = False
        self._lock = asyncio.Lock()
        self._contents: dict[str, tuple[float, asyncio.Task[CellContents]]] = {}

    async def expects(self, key: Key) -> bool:
        """Whether this is the process's first pass over a tenant that claims to be in order.

        Raises:
            Transient: the mark of its cell, which another operator made, could not be taken back.
        """
        waiting = await self._started()
        cached = self._tenants.get(key)
        await self._met(cached.annotations.get(CELL_ANNOTATION, "") if cached is not None else "")
        return key in waiting

    async def decided(self, tenant: SearchTenant, key: Key, decide: Decide) -> TenantPlan | None:
        """What the planner says of it by the bulk read; None where that is not enough.

        Args:
            tenant: one that is expected.
            key: its own.
            decide: gathers by the given reads, and plans.
        """
        cell = self._ports.directory.cells().get(planner.cell_of(tenant) or "")
        plan = None
        if cell is not None and self._is_marked(cell) and _in_order(tenant):
            try:
                _, plan = await decide(tenant, await self._reads(tenant, cell))
            except ReconcileError as error:
                logger.debug("a bulk read did not do", extra={"tenant": str(key), "error": str(error)})
        self._done(key)
        return plan if plan is not None and not plan.actions and plan.status == tenant.status else None

    async def looked(self, key: Key, cell: str | None = None) -> None:
        """An ordinary pass over this tenant has ended well, or it is gone.

        A cell whose Secret was changed meanwhile keeps no mark: its tenants were looked at in part with either.
        """
        self._done(key)
        name = self._homes.pop(key, cell)
        found = self._ports.directory.cells().get(name or "")
        if self._waiting is None or name is None or found is None:
            return
        mark = self._mark(found)
        left = self._unproved.get(name, set())
        left.discard(key)
        if self._began.setdefault(name, mark) != mark:
            mark = ""
        elif left:
            return
        if self._marks.get(name, "") == mark:
            return
        before, self._marks[name] = self._marks.get(name, ""), mark
        try:
            await self._state.write(MAP, {name: mark})
        except ReconcileError as error:
            self._marks[name] = before
            logger.warning("it was not kept who has looked at the tenants", extra={"cell": name, "error": str(error)})

    def _is_marked(self, cell: CellRegistration) -> bool:
        mark = self._mark(cell)
        return bool(mark) and self._marks.get(cell.name) == mark

    def _mark(self, cell: CellRegistration) -> str:
        """This version with these settings and this registration; a cell with a second key has none."""
        if cell.alt_api_key:
            return ""
        parts = (__version__, self._build, repr(self._settings), *cell.urls, str(cell.grpc_port), cell.ca_cert or "")
        return hashlib.sha256("\0".join((*parts, key_id(cell.api_key))).encode()).hexdigest()

    async def _started(self) -> set[Key]:
        """Tenants whose first pass is still to come; once it is known who looked at them before."""
        async with self._lock:
            if self._waiting is None:
                self._marks = await self._kept()
                there = [cached for cached in self._tenants if _claims(cached)]
                self._homes = {cached.key: cached.annotations.get(CELL_ANNOTATION, "") for cached in there}
                for key, name in self._homes.items():
                    self._unproved.setdefault(name, set()).add(key)
                self._waiting = {cached.key for cached in there}
            return self._waiting

    async def _met(self, name: str) -> None:
        """Take back a cell's mark that is not ours before anything there is changed: its maker saw what we change now.

        Else a process with other settings that dies half-way would leave the mark of the one before it. A cell is met
        with the first pass over a tenant of it, once it is registered: a directory that is still filling, or lost,
        says nothing about a mark. Where the kept marks could not be read, each may be another's: that much is tried,
        and holds nobody up.
        """
        cell = self._ports.directory.cells().get(name)
        if cell is None or name in self._began:
            return
        async with self._lock:
            if name in self._began:
                return
            if (self._marks.get(name) or not self._read) and not self._is_marked(cell):
                try:
                    await self._state.write(MAP, {name: ""})
                except ReconcileError as error:
                    if not self._marks.get(name):  # perhaps there is none; it is tried again with the next pass
                        return
                    raise Transient(f"who has looked at the tenants of cell {name} cannot be kept: {error}") from error
                self._marks[name] = ""
            self._began[name] = self._mark(cell)
            if self._is_marked(cell):
                self._unproved.pop(name, None)

    async def _kept(self) -> dict[str, str]:
        try:
            found = dict(await self._state.read(MAP) or {})
        except ReconcileError as error:
            logger.warning("who has looked at the tenants is unknown; each is read", extra={"error": str(error)})
            return {}
        self._read = True
        return found

    def _done(self, key: Key) -> None:
        if self._waiting is not None:
            self._waiting.discard(key)
            if not self._waiting:
                self._contents.clear()

    async def _reads(self, tenant: SearchTenant, cell: CellRegistration) -> Assumed:
        contents = await self._of(cell)
        name = tokens_collection(self._settings.fleet)
        grants: dict[str, str] = {}
        if self._settings.revocable:
            exists = name in contents.collections
            register = await self._ports.register.read(cell, name, tenant.metadata.uid, exists=exists)
            grants = {grant.entry: grant.value for grant in register.grants}
        return Assumed(self._ports, contents, tenant, self._secrets(tenant, contents, grants))

    def _secrets(
        self, tenant: SearchTenant, contents: CellContents, grants: Mapping[str, str]
    ) -> dict[str, AccessSecretState]:
        """Each entry's Secret as this operator would have written it; none where the register has no such entry."""
        cell, found = CellState(contents.registration, reachable=True), {}
        metadata = tenant.metadata
        owner = Owner(self._settings.fleet, metadata.uid, metadata.namespace, "", metadata.name)
        key = contents.registration.api_key
        ends = format_time(self._clock() + ASSUMED_LIFETIME)
        for entry in tenant.spec.access:
            if self._settings.revocable and entry.name not in grants:
                continue
            found[entry.secret_name] = AccessSecretState(
                entry.secret_name,
                ACCESS_SECRET_TYPE,
                owner.uid,
                inputs_digest(entry, owner, cell, self._settings, signing=key),
                ends,
                token="assumed",  # noqa: S106 - no token: it is never shown to anybody
                tenant=owner.name,
                token_id=grants.get(entry.name, ""),
                key_id=key_id(key),
            )
        return found

    async def _of(self, cell: CellRegistration) -> CellContents:
        """The bulk read that all passes over a cell share."""
        at, task = self._contents.get(cell.name, (0.0, None))
        if task is None or self._now() - at > FRESH_SECONDS or (task.done() and task.exception() is not None):
            task = asyncio.get_running_loop().create_task(self._bulk.contents(cell))
            self._contents[cell.name] = self._now(), task
        return await asyncio.shield(task)


class Assumed(PassReads):
    """The bulk read in the place of reads of the tenant's own; what it does not tell is as the status says.

    Its tokens count as seen, of the cell's one key: the mark says that every tenant's were. Else the numbers that are
    kept of a cell's tokens would change for an hour after each start.
    """

    def __init__(
        self, ports: TenantPorts, contents: CellContents, tenant: SearchTenant, secrets: dict[str, AccessSecretState]
    ) -> None:
        super().__init__(ports.cells, ports.secrets)
        self._contents = contents
        self._tenant = tenant
        self._assumed = secrets

    async def collection(self, cell: CellRegistration, name: str) -> CollectionState | None:
        """A collection as the bulk read shows it, with the indexes that are declared and the points that are shown."""
        found = self._contents.collections.get(name)
        shown = self._tenant.status.usage
        points = 0 if shown is None else shown.points
        return None if found is None else replace(as_read(found, self._tenant), points=points)

    async def secret(self, namespace: str, name: str) -> AccessSecretState | None:
        """A Secret as this operator would have written it."""
        del namespace
        return self._assumed.get(name)

    async def probe(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """A query that was answered when the status said so."""
        del cell, alias, vector, token
        return SearchProbe(True)


def _claims(cached: CachedObject) -> bool:
    """Whether the status says Ready at this very generation; the object is not parsed for that."""
    status = cached.status
    current = status.get("observedGeneration") == cached.generation and not cached.deleting
    return current and any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))


def _in_order(tenant: SearchTenant) -> bool:
    """Whether nothing is under way that a clock, a count or another object moves on."""
    status = tenant.status
    quiet = status.rebuild is None and status.previous is None and not tenant.spec.paused
    whole = status.collection is not None and status.alias is not None and tenant.spec.isolation == "Collection"
    return quiet and whole and status.observed_generation == tenant.metadata.generation
