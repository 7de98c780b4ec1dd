"""SearchTenant: gather, plan, apply. All reading and writing of a tenant's collection happens here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.meta import API_VERSION
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.controllers.pass_reads import PassReads
from searchops.controllers.tenant_backups import BackupFacts
from searchops.controllers.tenant_gather import TenantGatherer, TenantPorts
from searchops.controllers.tenant_lanes import Lanes
from searchops.controllers.tenant_writes import TenantWrites
from searchops.controllers.terminal import terminal_status
from searchops.controllers.unreadable_tenant import to_let_go
from searchops.planning import tenant as planner
from searchops.planning import tenant_facts as act
from searchops.planning.names import CELL_ANNOTATION, OWNER_UID_LABEL
from searchops.planning.tenant_deletion import abandoned, deletion_failed
from searchops.runtime.errors import NotReady, Terminal, Transient
from searchops.runtime.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
    from searchops.controllers.namespace_protection import NamespaceProtection
    from searchops.controllers.pinned_trials import PinnedTrials
    from searchops.controllers.tenant_backups import BackupRecords
    from searchops.controllers.tenant_first_look import FirstLook
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantPlan, TenantSettings
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.dependency import Dependencies
    from searchops.runtime.finalizer import Finalizer
    from searchops.runtime.key import Key
    from searchops.runtime.status import StatusWriter

__all__ = ["TenantController", "TenantPorts"]

logger = logging.getLogger(__name__)

MORE_ROUNDS = 4
"""Rounds of one pass after its first; a plan that never comes to an end goes back to the queue."""
NOT_DDL = (
    act.AddFinalizer,
    act.RemoveFinalizer,
    act.EmitEvent,
    act.WriteAccessSecret,
    act.DeleteAccessSecret,
    act.GrantTokens,
    act.RevokeTokens,
    act.CreateReindexJob,
    act.DeleteReindexJob,
    act.StartTrial,
    act.StopTrial,
)
OF_REGISTER = (act.PrepareRegister, act.GrantTokens, act.RevokeTokens)


class TenantController:
    """One pass over one tenant.

    Args:
        lease_left: seconds for which this process is certainly the only one that acts.
        monotonic: seconds of a clock that nobody sets; by `clock` where none is given.
        records: what is known of the tenants' backups.
        pinned: tries the tenants' own pinned queries; without it no tenant that has some follows a new revision.
        protection: looks after the label of the tenant's namespace at the end of each pass.
        first: decides a process's first pass over a tenant in order by the cell's bulk read.
        templates: the PodTemplates of the operator's namespace by name; their labels say what a GPU-hour costs.
    """

    def __init__(
        self,
        ports: TenantPorts,
        settings: TenantSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        models: ObjectCache[EmbeddingModel],
        reindexes: ObjectCache[ReindexJob],
        status: StatusWriter,
        finalizer: Finalizer,
        dependencies: Dependencies,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
        monotonic: Callable[[], float] | None = None,
        records: BackupRecords | None = None,
        pinned: PinnedTrials | None = None,
        protection: NamespaceProtection | None = None,
        first: FirstLook | None = None,
        templates: Callable[[str], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        self._protection = protection
        self._first = first
        self._ports = ports
        self._settings = settings
        self._tenants = tenants
        self._status = status
        self._finalizer = finalizer
        self._lanes = Lanes(dependencies)
        self._clock = clock
        self._writes = TenantWrites(ports, settings, clock=clock, lease_left=lease_left)
        self._gatherer = TenantGatherer(
            ports,
            settings,
            tenants=tenants,
            models=models,
            reindexes=reindexes,
            clock=clock,
            monotonic=monotonic,
            templates=templates,
        )
        self._pinned = pinned
        self._backups = BackupFacts(ports.cells, ports.directory, settings, records)

    async def reconcile(self, key: Key) -> Result:
        """Gather, plan, apply, one status write."""
        cached = self._tenants.get(key)
        if cached is None:
            self._gatherer.forget(key)
            self._lanes.forget(key)
            await self._protect(key)
            if self._first is not None:
                await self._first.looked(key)
            return Result.done()
        try:
            tenant = self._tenants.typed(key)
        except ValidationError as error:
            tenant = to_let_go(cached.raw)
            if tenant is None:
                raise Terminal("InvalidSpec", f"the object does not parse: {_first(error)}") from error
        assert tenant is not None  # noqa: S101 - it was cached a line ago, and nothing awaited since
        try:
            plan = await self._first_pass(cached, tenant) or await self._pass(cached, tenant)
        except (NotReady, Transient) as error:
            await self._say(cached, tenant, error)
            raise
        if plan.status is not None:
            await self._status.write_if_changed(cached, plan.status.to_wire())
        await self._protect(key)
        if self._first is not None and plan.status is not None:
            await self._first.looked(key, planner.cell_of(tenant))
        return Result.done() if plan.requeue_after is None else Result.after(plan.requeue_after)

    async def _first_pass(self, cached: CachedObject, tenant: SearchTenant) -> TenantPlan | None:
        """The first of this process where the cell's bulk read is enough for it."""
        if self._first is None or not await self._first.expects(cached.key):
            return None
        async with self._lanes.reading(planner.cell_of(tenant)):
            return await self._first.decided(tenant, cached.key, self._decide)

    async def _protect(self, key: Key) -> None:
        """The label of the namespace; a refusal is logged, since search goes on without it."""
        if self._protection is None:
            return
        try:
            await self._protection.look(key.namespace)
        except (Terminal, NotReady) as error:
            logger.warning(
                "the namespace of a tenant could not be labelled; its deletion is not refused",
                extra={"tenant_namespace": key.namespace, "error": error.message},
            )

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        """A terminal error as the Ready condition and an event."""
        cached = self._tenants.get(key)
        if cached is None:
            return
        status = terminal_status(cached, error, self._clock())
        await self._status.write_if_changed(cached, status)
        self._ports.events.record(_reference(cached), error.reason, error.message, warning=True)

    async def _say(self, cached: CachedObject, tenant: SearchTenant, error: NotReady | Transient) -> None:
        """A failure that may last is said in the status; a hiccup of a provisioned tenant is not flapped about.

        The same failure is said once for each generation: who changed the spec is told that it did not help.
        """
        reason = error.reason if isinstance(error, NotReady) else ""
        reason = reason if reason in set(TenantReason) else str(TenantReason.CELL_UNREACHABLE)
        deleting = tenant.metadata.deletion_timestamp is not None
        if reason == TenantReason.CELL_FULL and not deleting and await self._say_full(cached, tenant):
            return
        ready = next((item for item in tenant.status.conditions if item.type == "Ready"), None)
        if deleting:
            reason = str(TenantReason.DELETING)
        elif ready is not None and ready.status == "True":
            return
        current = ready is not None and ready.observed_generation == tenant.metadata.generation
        if ready is not None and current and error.message[:80] in ready.message:
            return
        if deleting:
            status = deletion_failed(tenant, planner.cell_of(tenant), error.message, self._clock())
        else:
            status = planner.failed(tenant, reason, error.message, self._clock())
        await self._status.write_if_changed(cached, status.to_wire())
        if ready is None or not current or ready.reason != reason:
            self._ports.events.record(_reference(cached), reason, error.message, warning=True)

    async def _say_full(self, cached: CachedObject, tenant: SearchTenant) -> bool:
        """A write of the pass met a full cell: a tenant that serves goes on, and says why its writes do not."""
        cell = planner.cell_of(tenant) or ""
        hold = (await self._ports.rooms.holds()).get(cell)
        if hold is None:
            return False
        await self._status.write_if_changed(cached, planner.held(tenant, cell, hold, self._clock()).to_wire())
        return True

    # -- apply -------------------------------------------------------------------------------------------------

    async def _pass(self, cached: CachedObject, tenant: SearchTenant) -> TenantPlan:
        """Rounds until one has nothing more to do at once; a change of the object meanwhile ends them.

        What a round made is seen by the next one, which would otherwise be a pass of its own that reads it all again.
        """
        reads = PassReads(self._ports.cells, self._ports.secrets)
        plan = await self._round(cached, tenant, reads)
        for _ in range(MORE_ROUNDS):
            if not _goes_on(plan) or self._tenants.get(cached.key) is not cached:
                break
            plan = await self._round(cached, tenant, reads)
        return plan

    async def _round(self, cached: CachedObject, tenant: SearchTenant, reads: PassReads) -> TenantPlan:
        """Gather, plan and apply; the cell's one DDL slot is held over all of the actions.

        A round that is expected to write takes the slot before it reads, so that what it waits for is not read twice.
        """
        key, cell = cached.key, None if abandoned(tenant) else planner.cell_of(tenant)
        if cell is not None and self._lanes.writes_first(key, cell, provisioned=tenant.status.collection is not None):
            async with self._lanes.writing(key, cell) as held:
                held.judges = False
                facts, plan = await self._decide(tenant, reads)
                held.judges = _has_ddl(plan)
                await self._apply(cached, tenant, facts, plan, reads)
            self._lanes.wrote(key, whole=True)
            return plan
        async with self._lanes.reading(cell):
            facts, plan = await self._decide(tenant, reads)
        if facts.cell is not None and _has_ddl(plan):
            async with self._lanes.writing(key, facts.cell.name):
                self._lanes.wrote(key, whole=False)
                await self._apply(cached, tenant, facts, plan, reads)
                self._lanes.wrote(key, whole=True)
        else:
            await self._apply(cached, tenant, facts, plan, reads)
        return plan

    async def _decide(self, tenant: SearchTenant, reads: PassReads) -> tuple[TenantFacts, TenantPlan]:
        facts = await self._backups.added(tenant, await self._gatherer.gather(tenant, reads))
        if self._pinned is not None:
            facts = await self._pinned.added(tenant, facts)
        return facts, planner.plan_tenant(tenant, facts, self._settings, self._clock())

    async def _apply(
        self, cached: CachedObject, tenant: SearchTenant, facts: TenantFacts, plan: TenantPlan, reads: PassReads
    ) -> None:
        owner = planner.owner_of(tenant, facts, self._settings)
        await self._apply_each(cached, tenant, facts, owner, plan.actions, reads)

    async def _apply_each(
        self,
        cached: CachedObject,
        tenant: SearchTenant,
        facts: TenantFacts,
        owner: Owner,
        actions: tuple[TenantAction, ...],
        reads: PassReads,
    ) -> None:
        for action in actions:
            match action:
                case act.AddFinalizer(cell=cell):
                    self._lanes.forget(cached.key)
                    self._gatherer.grant(cached.key, cell)
                    await self._finalizer.add(cached, {CELL_ANNOTATION: cell})
                case act.RemoveFinalizer():
                    self._gatherer.forget(cached.key)
                    self._lanes.forget(cached.key)
                    await self._finalizer.remove(cached)
                case act.EmitEvent(reason=reason, message=message, warning=warning):
                    self._ports.events.record(_reference(cached), reason, message, warning=warning)
                case act.WriteAccessSecret():
                    reads.wrote_secret(await self._writes.secret(facts, owner, action))
                case act.DeleteAccessSecret(name=name):
                    reads.removed_secret(name)
                    await self._ports.secrets.delete(owner.namespace, name, owner_uid=owner.uid)
                case act.CreateReindexJob():
                    await self._ports.reindex_jobs.create(owner.namespace, _reindex_body(tenant, action))
                case act.DeleteReindexJob(name=name):
                    await self._ports.reindex_jobs.delete(owner.namespace, name, known_uid=owner.uid)
                case act.StartTrial() | act.StopTrial():
                    if self._pinned is not None:
                        await self._pinned.apply(action)
                case _:
                    if not isinstance(action, OF_REGISTER):
                        reads.wrote_cell()
                    await self._writes.on_cell(facts, action)


def _goes_on(plan: TenantPlan) -> bool:
    """Whether the next round finds something to do at once; a write of the object itself comes back by the watch."""
    own = (act.AddFinalizer, act.RemoveFinalizer)
    at_once = plan.status is None and plan.requeue_after == 0.0
    return at_once and bool(plan.actions) and not any(isinstance(action, own) for action in plan.actions)


def _has_ddl(plan: TenantPlan) -> bool:
    return any(not isinstance(action, NOT_DDL) for action in plan.actions)


def _reindex_body(tenant: SearchTenant, action: act.CreateReindexJob) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "tenant": tenant.metadata.name,
        "strategy": action.strategy,
        "cutover": action.cutover,
        "slices": action.slices,
        "source": {"fromCollection": True},
        "worker": {"podTemplate": action.pod_template},
    }
    if action.revision is not None:
        spec["revision"] = action.revision
    owner = {
        "apiVersion": API_VERSION,
        "kind": "SearchTenant",
        "name": tenant.metadata.name,
        "uid": tenant.metadata.uid,
        "controller": True,
    }
    metadata = {
        "name": action.name,
        "namespace": tenant.metadata.namespace,
        "labels": {OWNER_UID_LABEL: tenant.metadata.uid},
        "ownerReferences": [owner],
    }
    return {"kind": "ReindexJob", "metadata": metadata, "spec": spec}


def _reference(cached: CachedObject) -> dict[str, str]:
    return {
        "apiVersion": API_VERSION,
        "kind": "SearchTenant",
        "namespace": cached.key.namespace,
        "name": cached.key.name,
        "uid": cached.uid,
    }


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
