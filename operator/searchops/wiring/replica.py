"""One replica from its start to its end: watches, the Lease, what only its holder does, and the shutting down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from searchops.adapters.access_probes import AccessProbes
from searchops.adapters.directory import RegisteredDirectory
from searchops.adapters.kube import KubeEvents, KubeLease, KubeObjects, KubeStateMaps
from searchops.adapters.kube_api import KubeApi
from searchops.adapters.kube_jobs import KubeJobs
from searchops.adapters.kube_namespaces import KubeNamespaceLabels
from searchops.adapters.prometheus import PrometheusSignals
from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.shared_cells import SharedCells
from searchops.adapters.triton import TritonServers
from searchops.controllers.cell_room import TURN_SECONDS
from searchops.controllers.cell_sweep import CellSweep
from searchops.controllers.cell_watch import CellWatch
from searchops.controllers.job_sweep import JobSweep
from searchops.controllers.model import status_of
from searchops.controllers.namespace_protection import NamespaceProtection
from searchops.controllers.tenant_lanes import limits_for
from searchops.planning.names import slice_key
from searchops.planning.schema import INDEXING_THRESHOLD_POINTS
from searchops.runtime.barrier import Barrier
from searchops.runtime.dependency import Dependencies
from searchops.runtime.ghost_sweep import GhostSweep
from searchops.runtime.leader import LeaderElector, LeaseLost
from searchops.runtime.queue import Priority
from searchops.runtime.recorder import EventRecorder
from searchops.runtime.resync import Resync
from searchops.runtime.token_bucket import TokenBucket
from searchops.telemetry.logs import configure_logging
from searchops.telemetry.metrics import Telemetry
from searchops.telemetry.redaction import Redactor
from searchops.telemetry.serving import serve
from searchops.triggers import Watched, kinds_registry, namespace_registry
from searchops.wiring.controllers import (
    EVENT_REASONS,
    Parts,
    make_backup_keeper,
    make_controllers,
    make_kinds,
    make_last_snapshots,
)
from searchops.wiring.garbage_collection import keep_what_is_there, relax
from searchops.wiring.keepers import (
    Ways,
    make_cell_access,
    make_cell_rooms,
    make_gateway_credentials,
    make_isolation_canary,
)
from searchops.wiring.watches import all_set, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from aiohttp import web

    from searchops.settings import OperatorSettings

logger = logging.getLogger(__name__)

LEASE_NAME = "searchops-operator"
GHOST_SECONDS = 1800.0
JOB_SWEEP_SECONDS = 600.0
FIRST_LOOK_SECONDS = 30.0
"""After the start: the first passes over all tenants have gone by then, and placements want the cells' numbers."""
SHUTDOWN_SECONDS = 8.0


class Operator:
    """One replica: keeps warm caches, works while it holds the Lease, ends when it loses it."""

    def __init__(self, settings: OperatorSettings, api: KubeApi, *, redactor: Redactor) -> None:
        self._settings = settings
        self._api = api
        self._telemetry = Telemetry()
        identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
        limits = limits_for(settings.tenant_workers)
        self._dependencies = Dependencies(limits, rng=random.Random())  # noqa: S311 - jitter, no secret
        bucket = TokenBucket(settings.writes_per_second, max(1, int(settings.writes_per_second)))
        self._objects = KubeObjects(api)
        self._raw_cells = QdrantCells(full=lambda cell, said: self._rooms.full(cell, said))
        self._cells = SharedCells(
            self._raw_cells,
            fleet=settings.fleet,
            tenants_each=settings.shared_tenants,
            slice_key=slice_key,
            indexing_threshold=INDEXING_THRESHOLD_POINTS,
            made=self._shared_made,
        )
        self._servers = TritonServers()
        self._signals = signals_of(settings)
        self._protect = redactor.protect
        self._directory = RegisteredDirectory(protect=redactor.protect)
        self._templates: dict[str, Mapping[str, Any]] = {}
        self._events = EventRecorder(
            KubeEvents(api, instance=identity, now=_now, fallback_namespace=settings.namespace),
            EVENT_REASONS,
            redact=redactor.text,
        )
        self._elector = LeaderElector(KubeLease(api, settings.namespace, LEASE_NAME), identity)
        self._kinds = make_kinds(self._objects, bucket, redactor, self._telemetry)
        self._probes = AccessProbes()
        ways = self._ways()
        self._access = make_cell_access(ways)
        self._canary = make_isolation_canary(ways)
        self._gateway = make_gateway_credentials(ways, self._access)
        self._rooms = make_cell_rooms(ways)
        self._sources = [kind.source for kind in self._kinds.all]
        self._barrier = Barrier(self._sources)
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._protection = NamespaceProtection(KubeNamespaceLabels(api), self._kinds.tenants.cache)
        parts = self._parts()
        self._controllers = make_controllers(parts, self._kinds, self._barrier)
        self._keeper = make_backup_keeper(parts, self._kinds)
        self._snapshots = make_last_snapshots(parts)

    def _shared_made(self, _cell: str) -> None:
        self._gateway.changed()

    def _ways(self) -> Ways:
        return Ways(
            settings=self._settings,
            api=self._api,
            directory=self._directory,
            raw_cells=self._raw_cells,
            cells=self._cells,
            objects=self._objects,
            probes=self._probes,
            tenants=self._kinds.tenants,
            events=self._events,
            telemetry=self._telemetry,
            clock=_now,
            protect=self._protect,
        )

    def _parts(self) -> Parts:
        return Parts(
            settings=self._settings,
            api=self._api,
            raw_cells=self._raw_cells,
            cells=self._cells,
            access=self._access,
            gateway=self._gateway,
            probes=self._probes,
            canary=self._canary,
            rooms=self._rooms,
            servers=self._servers,
            signals=self._signals,
            directory=self._directory,
            objects=self._objects,
            templates=self._templates,
            events=self._events,
            dependencies=self._dependencies,
            telemetry=self._telemetry,
            clock=_now,
            lease_left=self._elector.remaining,
            protection=self._protection,
            fatal=self._fatal,
        )

    def _fatal(self, error: BaseException) -> None:
        self._fault = error
        self._stop.set()

    async def run(self) -> int:
        """Run until a signal, a lost lease or a fault; returns the exit status."""
        watched = self._watched()
        ready = [asyncio.Event(), asyncio.Event()]
        watches = [
            asyncio.create_task(watch(kinds_registry(watched), ready[0], namespaces=()), name="watch-kinds"),
            asyncio.create_task(
                watch(namespace_registry(watched), ready[1], namespaces=(self._settings.namespace,)),
                name="watch-namespace",
            ),
        ]
        runner = await self._serve()
        tasks: list[asyncio.Task[Any]] = []
        try:
            if not await all_set(ready, watches):
                logger.critical("a watch ended before it began; see the lines above", extra={"part": "watch"})
                return 1
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            tasks = [asyncio.create_task(job) for job in self._standing()]
            stopping = asyncio.create_task(self._stop.wait(), name="stop")
            done, _ = await asyncio.wait([stopping, *tasks, *watches], return_when=asyncio.FIRST_COMPLETED)
            return self._status_of(done, stopping)
        finally:
            await self._shut_down(tasks, watches, runner)

    def _status_of(self, done: set[asyncio.Task[Any]], stopping: asyncio.Task[Any]) -> int:
        for task in done:
            if task is stopping:
                continue
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeaseLost):
                logger.error(
                    "the lease is lost: the process ends, so that no two replicas act", extra={"error": str(error)}
                )
            else:
                logger.critical("a part ended that should not", extra={"part": task.get_name()}, exc_info=error)
            return 1
        return 1 if self._fault is not None else 0

    def _standing(self) -> list[Coroutine[Any, Any, Any]]:
        return [
            self._open_barrier(),
            self._elector.run(self._lead),
            GhostSweep(self._sources, interval=GHOST_SECONDS).run(),
        ]

    async def _open_barrier(self) -> None:
        await self._barrier.run()
        keep_what_is_there()
        await asyncio.Event().wait()

    async def _lead(self) -> None:
        """What only the holder of the Lease does."""
        periods = {kind.cache.plural: self._settings.resync_minutes * 60 for kind in self._kinds.all}
        periods[self._kinds.tenants.cache.plural] = self._settings.tenant_resync_minutes * 60
        async with asyncio.TaskGroup() as group:
            for controller in self._controllers:
                group.create_task(controller.run())
            for kind in self._kinds.all:
                period = periods[kind.cache.plural]
                group.create_task(Resync(kind.cache, kind.queue, period=period).run())
            group.create_task(self._events.run())
            group.create_task(self._sweep_cells())
            group.create_task(self._sweep_jobs())
            group.create_task(self._watch_cells())
            group.create_task(self._keep_backups())
            group.create_task(self._repeat(self._access.run_once, self._settings.cell_access_seconds))
            group.create_task(self._keep_gateway())
            group.create_task(self._repeat(self._rooms.run_once, TURN_SECONDS))
            if self._settings.isolation_canary_minutes:
                group.create_task(self._repeat(self._canary.run_once, self._canary.turn))

    async def _sweep_jobs(self) -> None:
        sweep = JobSweep(
            jobs=KubeJobs(self._api, self._settings.namespace, template=self._templates.get),
            objects=self._objects,
            caches={
                "EmbeddingModel": self._kinds.models.cache,
                "ReindexJob": self._kinds.reindexes.cache,
            },
            lease_left=self._elector.remaining,
        )
        await self._barrier.wait()
        while True:
            await asyncio.sleep(JOB_SWEEP_SECONDS)
            await sweep.run_once()

    async def _keep_backups(self) -> None:
        await self._barrier.wait()
        while True:
            await self._keeper.run_once()
            await asyncio.sleep(self._settings.backup_round_seconds)

    async def _keep_gateway(self) -> None:
        await self._barrier.wait()
        await self._gateway.run()

    async def _repeat(self, turn: Callable[[], Coroutine[Any, Any, Any]], seconds: float) -> None:
        await self._barrier.wait()
        while True:
            await turn()
            await asyncio.sleep(seconds)

    async def _sweep_cells(self) -> None:
        sweep = CellSweep(
            fleet=self._settings.fleet,
            directory=self._directory,
            cells=self._cells,
            ddl=self._cells,
            objects=self._objects,
            dependencies=self._dependencies,
            clock=_now,
            lease_left=self._elector.remaining,
            clock_skew=self._settings.clock_skew,
            snapshots=self._snapshots,
            overdue=self._telemetry.domain.overdue,
        )
        await self._barrier.wait()
        while True:
            await self._protection.run_once()
            await asyncio.sleep(self._settings.cell_sweep_minutes * 60)
            await sweep.run_once()

    async def _watch_cells(self) -> None:
        tenants = self._kinds.tenants
        watching = CellWatch(
            fleet=self._settings.fleet,
            directory=self._directory,
            cells=self._cells,
            tenants=tenants.cache,
            ask=lambda key: tenants.queue.add(key, Priority.RESYNC),
            state=KubeStateMaps(self._api, self._settings.namespace),
            metrics=self._telemetry.domain,
        )
        await self._barrier.wait()
        period = self._settings.drift_minutes * 60
        await asyncio.sleep(min(FIRST_LOOK_SECONDS, period))
        while True:
            await watching.run_once()
            await asyncio.sleep(period)

    def _watched(self) -> Watched:
        kinds = self._kinds
        return Watched(
            tenants=kinds.tenants.cache,
            models=kinds.models.cache,
            reindexes=kinds.reindexes.cache,
            tenant_queue=kinds.tenants.queue,
            model_queue=kinds.models.queue,
            reindex_queue=kinds.reindexes.queue,
            apply_secret=self._directory.apply_secret,
            apply_slice=self._directory.apply_slice,
            templates=self._templates,
            model_view=status_of,
        )

    async def _serve(self) -> web.AppRunner:
        self._telemetry.watch(
            queues=[kind.queue for kind in self._kinds.all],
            dependencies=self._dependencies,
            lease_remaining=self._elector.remaining,
            caches={kind.cache.plural: kind.cache.__len__ for kind in self._kinds.all},
        )
        return await serve(
            (self._settings.probe_port, self._settings.metrics_port),
            missing=lambda: None if self._barrier.is_open else self._barrier.missing(),
            exposition=self._telemetry.exposition,
        )

    async def _shut_down(
        self, tasks: list[asyncio.Task[Any]], watches: list[asyncio.Task[Any]], runner: web.AppRunner
    ) -> None:
        """Work first, then the Lease (the elector releases it), then events, then the watches."""
        for controller in self._controllers:
            controller.stop()
        for task in tasks:
            task.cancel()
        started = time.monotonic()
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)
        await self._events.flush(max(0.5, SHUTDOWN_SECONDS - (time.monotonic() - started)))
        for task in watches:
            task.cancel()
        await asyncio.wait(watches, timeout=2.0)
        await runner.cleanup()
        self._dependencies.close()
        for part in (self._raw_cells, self._probes, self._servers, self._signals, self._api):
            if part is None:
                continue
            with contextlib.suppress(Exception):
                await part.close()


def signals_of(settings: OperatorSettings) -> PrometheusSignals | None:
    """What live signals are read from; None where nothing is configured."""
    if not settings.prometheus_url:
        return None
    return PrometheusSignals(
        settings.prometheus_url, token_file=settings.prometheus_token_file, matchers=settings.prometheus_labels
    )


def _now() -> datetime:
    return datetime.now(UTC)


async def run_operator(settings: OperatorSettings) -> int:
    """Connect and run one replica; returns the exit status."""
    relax()
    redactor = Redactor()
    configure_logging(style=settings.log_format, redactor=redactor, level=settings.log_level)
    for chatty in ("httpx", "httpcore", "kopf.objects"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    api = await KubeApi.connect(settings.kubeconfig)
    return await Operator(settings, api, redactor=redactor).run()
