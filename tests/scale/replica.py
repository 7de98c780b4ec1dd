"""One replica as the operator wires it, tenants only: triggers, cache, queue, barrier, controller; ports in memory."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from scale.access import NoGateway, OneKey, Register, RoomyCells, SilentCanary
from searchops.adapters.tokens import CellKeySigner
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.controllers.model import status_of
from searchops.controllers.tenant import TenantController, TenantPorts
from searchops.controllers.tenant_lanes import limits_for
from searchops.planning.names import FINALIZER
from searchops.planning.tenant_facts import TenantSettings
from searchops.runtime.barrier import Barrier
from searchops.runtime.cache import ObjectCache
from searchops.runtime.controller import Controller, ControllerOptions
from searchops.runtime.dependency import Dependencies
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.queue import WorkQueue
from searchops.runtime.source import Source
from searchops.runtime.status import StatusWriter
from searchops.telemetry.logs import reconcile_scope
from searchops.telemetry.metrics import Telemetry
from searchops.triggers import MODEL_INDEX, Watched, on_model, on_tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scale.fleet import ApiServer, Cells, Events, ReindexJobs, Secrets
    from searchops.runtime.cache import CachedObject
    from searchops.runtime.key import Identity, Key
    from searchops.runtime.result import Result

MODELS = "embeddingmodels"
TENANTS = "searchtenants"
WORKERS = 20
SETTINGS = TenantSettings(
    "prod", "http://gateway.search:8080", timedelta(days=30), timedelta(seconds=30), revocable=True
)


@dataclass(frozen=True)
class World:
    """Everything outside the replica."""

    cells: Cells
    secrets: Secrets
    reindex_jobs: ReindexJobs
    events: Events
    register: Register = field(default_factory=Register)


class Replica:
    """The operator's parts for SearchTenants.

    Args:
        world: ports in memory.
        listed: what a metadata-only LIST of the tenants answers.
    """

    def __init__(self, world: World, listed: Sequence[Identity] = ()) -> None:
        self.passes: Counter[Key] = Counter()
        self.failures: list[str] = []
        self._world = world
        self._listed = listed
        self._telemetry = Telemetry()
        self._wanted = 0
        self._reached = asyncio.Event()
        self.tenants: ObjectCache[Any] = ObjectCache(TENANTS, SearchTenant.model_validate)
        self.models: ObjectCache[Any] = ObjectCache(MODELS, EmbeddingModel.model_validate)
        self.reindexes: ObjectCache[Any] = ObjectCache("reindexjobs", ReindexJob.model_validate)
        self.tenants.add_index(MODEL_INDEX, _model_of)
        self.queue: WorkQueue[Key] = WorkQueue(TENANTS, metrics=self._telemetry.runtime)
        self._watched = Watched(
            tenants=self.tenants,
            models=self.models,
            reindexes=self.reindexes,
            tenant_queue=self.queue,
            model_queue=WorkQueue(MODELS),
            reindex_queue=WorkQueue("reindexjobs"),
            apply_secret=lambda *_: False,
            apply_slice=lambda *_: False,
            templates={},
            model_view=status_of,
        )

    def deliver(self, event_type: str | None, plural: str, raw: dict[str, Any]) -> None:
        """A watch event, or (type None) an object of the initial list, through the operator's own triggers."""
        if plural == TENANTS:
            on_tenant(self._watched, event_type, raw)
        else:
            on_model(self._watched, event_type, raw)

    async def run(self, api: ApiServer) -> None:
        """Open the barrier when the cache is full, then work until cancelled."""
        dependencies = Dependencies(limits_for(WORKERS), rng=random.Random(0))
        self._domain = self._controller(api, dependencies)
        source = Source(self.tenants, self._list, self._read, self.queue.add)
        barrier = Barrier([source])
        controller = Controller(
            "searchtenant",
            self.queue,
            self.tenants,
            self._reconcile,
            read=self._read,
            fatal=lambda error: self.failures.append(f"fatal: {error!r}"),
            options=ControllerOptions(workers=WORKERS),
            on_terminal=self._domain.on_terminal,
            dependencies=dependencies,
            gate=barrier,
            metrics=self._telemetry.runtime,
            scope=reconcile_scope,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(barrier.run())
                group.create_task(controller.run())
        finally:
            dependencies.close()

    async def settled(self, tenants: int, *, timeout: float) -> None:
        """Wait until so many tenants have had a pass and nothing is left to do.

        Raises:
            TimeoutError: naming how far it got.
        """
        self._wanted = tenants
        try:
            async with asyncio.timeout(timeout):
                if len(self.passes) < tenants:
                    await self._reached.wait()
                await self._quiet()
        except TimeoutError as error:
            seen = f"{len(self.passes)} of {tenants} tenants, {self.queue.snapshot()}, {self.failures[:3]}"
            raise TimeoutError(f"not settled within {timeout:g} s: {seen}") from error

    def unready(self) -> list[str]:
        """Tenants whose cached status is not Ready."""
        return [str(found.key) for found in self.tenants if not _ready(found)]

    async def _quiet(self) -> None:
        """Nothing is queued or running, and still is not once the events of the last writes have come."""
        rests = 0
        while rests < 2:
            seen = self.queue.snapshot()
            busy = seen.changes or seen.resyncs or seen.delayed or seen.parked or seen.running
            rests = 0 if busy else rests + 1
            await asyncio.sleep(0.005)

    async def _reconcile(self, key: Key) -> Result:
        try:
            result = await self._domain.reconcile(key)
        except Exception as error:
            if type(error).__name__ != "DependencyBusy":
                self.failures.append(f"{key}: {error!r}")
                self._passed(key)
            raise
        self._passed(key)
        return result

    def _passed(self, key: Key) -> None:
        self.passes[key] += 1
        if len(self.passes) == self._wanted:
            self._reached.set()

    async def _list(self) -> Sequence[Identity]:
        return self._listed

    async def _read(self, key: Key) -> dict[str, Any] | None:
        found = self.tenants.get(key)
        return dict(found.raw) if found is not None else None

    def _controller(self, api: ApiServer, dependencies: Dependencies) -> TenantController:
        world = self._world
        return TenantController(
            TenantPorts(
                cells=world.cells,
                ddl=world.cells,
                directory=world.cells,
                objects=api,
                secrets=world.secrets,
                register=world.register,
                keys=OneKey(),
                canary=SilentCanary(),
                gateway_keys=NoGateway(),
                trials=NoGateway(),
                rooms=RoomyCells(),
                signer=CellKeySigner(),
                reindex_jobs=world.reindex_jobs,
                events=world.events,
            ),
            SETTINGS,
            tenants=self.tenants,
            models=self.models,
            reindexes=self.reindexes,
            status=StatusWriter(api, self.tenants),
            finalizer=Finalizer(FINALIZER, api, self.tenants),
            dependencies=dependencies,
            clock=lambda: datetime.now(UTC),
            lease_left=lambda: 15.0,
        )


def _model_of(cached: CachedObject) -> tuple[str, ...]:
    return (cached.raw["spec"]["model"]["name"],)


def _ready(cached: CachedObject) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in cached.status.get("conditions", ()))
