"""Puts the operator together: settings in, running tasks out. The only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import kopf
from aiohttp import web

from searchops.adapters.artifacts import ArtifactStore
from searchops.adapters.directory import RegisteredDirectory
from searchops.adapters.kube import (
    KubeAccessSecrets,
    KubeEvents,
    KubeJobs,
    KubeLease,
    KubeObjects,
    KubeReindexJobs,
    KubeStateMaps,
)
from searchops.adapters.kube_api import KubeApi
from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.tokens import CellKeySigner
from searchops.adapters.triton import TritonServers
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.controllers.cell_sweep import CellSweep
from searchops.controllers.model import ModelController, ModelPorts, ModelSettings, status_of
from searchops.controllers.reindex import ReindexController, ReindexPorts, ReindexSettings
from searchops.controllers.tenant import TenantController, TenantPorts
from searchops.planning.names import FINALIZER
from searchops.planning.tenant_facts import TenantSettings
from searchops.runtime.barrier import Barrier
from searchops.runtime.cache import ObjectCache
from searchops.runtime.controller import Controller, ControllerOptions
from searchops.runtime.dependency import Dependencies
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.ghost_sweep import GhostSweep
from searchops.runtime.leader import LeaderElector, LeaseLost
from searchops.runtime.queue import WorkQueue
from searchops.runtime.recorder import EventRecorder
from searchops.runtime.resync import Resync
from searchops.runtime.source import Source
from searchops.runtime.status import StatusWriter
from searchops.runtime.token_bucket import TokenBucket
from searchops.telemetry.logs import configure_logging, reconcile_scope
from searchops.telemetry.metrics import Telemetry
from searchops.telemetry.redaction import Redactor
from searchops.triggers import MODEL_INDEX, Watched, kinds_registry, namespace_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from searchops.runtime.cache import CachedObject
    from searchops.runtime.key import Key
    from searchops.settings import OperatorSettings

logger = logging.getLogger(__name__)

TRANSITIONS = (
    "CandidateChosen",
    "CandidateRejected",
    "EngineBuilt",
    "VerdictReached",
    "WaveStarted",
    "Promoted",
    "Provisioned",
    "BindingSwitched",
    "Deleted",
    "Forbidden",
    "NotFound",
    "Failed",
    "StateUnknown",
)
EVENT_REASONS = frozenset({*TRANSITIONS, *map(str, TenantReason), *map(str, ModelReason), *map(str, ReindexReason)})
LEASE_NAME = "searchops-operator"
GHOST_SECONDS = 1800.0
SHUTDOWN_SECONDS = 8.0


@dataclass(slots=True)
class _Kind:
    """One kind's cache, queue and writers."""

    cache: ObjectCache[Any]
    queue: WorkQueue[Key]
    status: StatusWriter
    finalizer: Finalizer
    source: Source


class Operator:
    """One replica: keeps warm caches, works while it holds the Lease, ends when it loses it."""

    def __init__(self, settings: OperatorSettings, api: KubeApi, *, redactor: Redactor) -> None:
        self._settings = settings
        self._api = api
        self._telemetry = Telemetry()
        self._redactor = redactor
        identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
        self._dependencies = Dependencies(rng=random.Random())  # noqa: S311 - jitter, no secret
        self._bucket = TokenBucket(settings.writes_per_second, max(1, int(settings.writes_per_second)))
        self._objects = KubeObjects(api)
        self._cells = QdrantCells()
        self._servers = TritonServers()
        self._directory = RegisteredDirectory(protect=redactor.protect)
        self._templates: dict[str, Mapping[str, Any]] = {}
        self._events = EventRecorder(
            KubeEvents(api, instance=identity, now=_now, fallback_namespace=settings.namespace),
            EVENT_REASONS,
            redact=redactor.text,
        )
        self._elector = LeaderElector(KubeLease(api, settings.namespace, LEASE_NAME), identity)
        self._tenants = self._kind("searchtenants", SearchTenant.model_validate)
        self._models = self._kind("embeddingmodels", EmbeddingModel.model_validate)
        self._reindexes = self._kind("reindexjobs", ReindexJob.model_validate)
        self._tenants.cache.add_index(MODEL_INDEX, _model_of)
        self._sources = [kind.source for kind in (self._tenants, self._models, self._reindexes)]
        self._barrier = Barrier(self._sources)
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._controllers = self._make_controllers()

    def _kind(self, plural: str, parse: Callable[[Any], Any]) -> _Kind:
        cache: ObjectCache[Any] = ObjectCache(plural, parse)
        queue: WorkQueue[Key] = WorkQueue(plural, metrics=self._telemetry.runtime)
        writer = StatusWriter(self._objects, cache, throttle=self._bucket.acquire, redact=self._redactor.text)
        finalizer = Finalizer(FINALIZER, self._objects, cache, throttle=self._bucket.acquire)
        source = Source(cache, lambda: self._objects.list_metadata(plural), self._reader(plural), queue.add)
        return _Kind(cache, queue, writer, finalizer, source)

    def _reader(self, plural: str) -> Callable[[Key], Coroutine[Any, Any, Mapping[str, Any] | None]]:
        async def read(key: Key) -> Mapping[str, Any] | None:
            return await self._objects.get(plural, key.namespace, key.name)

        return read

    def _make_controllers(self) -> list[Controller]:
        settings = self._settings
        jobs = KubeJobs(self._api, settings.namespace, template=self._templates.get)
        reindex_jobs = KubeReindexJobs(self._api)
        artifacts, signer = ArtifactStore(), CellKeySigner()
        tenant = TenantController(
            TenantPorts(
                cells=self._cells,
                ddl=self._cells,
                directory=self._directory,
                objects=self._objects,
                secrets=KubeAccessSecrets(self._api),
                signer=signer,
                reindex_jobs=reindex_jobs,
                events=self._events,
            ),
            TenantSettings(settings.fleet, settings.gateway_url, settings.token_lifetime, settings.binding_settle),
            tenants=self._tenants.cache,
            models=self._models.cache,
            reindexes=self._reindexes.cache,
            status=self._tenants.status,
            finalizer=self._tenants.finalizer,
            dependencies=self._dependencies,
            clock=_now,
            lease_left=self._elector.remaining,
        )
        model = ModelController(
            ModelPorts(
                servers=self._servers,
                directory=self._directory,
                jobs=jobs,
                artifacts=artifacts,
                state=KubeStateMaps(self._api, settings.namespace),
                events=self._events,
            ),
            ModelSettings(settings.artifacts, settings.source_allowed),
            models=self._models.cache,
            tenants=self._tenants.cache,
            status=self._models.status,
            finalizer=self._models.finalizer,
            clock=_now,
            lease_left=self._elector.remaining,
        )
        reindex = ReindexController(
            ReindexPorts(
                cells=self._cells,
                directory=self._directory,
                jobs=jobs,
                artifacts=artifacts,
                signer=signer,
                reindex_jobs=reindex_jobs,
                events=self._events,
            ),
            ReindexSettings(settings.fleet, settings.artifacts, settings.max_reindexes, settings.catalogue_allowed),
            reindexes=self._reindexes.cache,
            tenants=self._tenants.cache,
            models=self._models.cache,
            status=self._reindexes.status,
            finalizer=self._reindexes.finalizer,
            clock=_now,
        )
        return [
            self._controller("searchtenant", self._tenants, tenant, settings.tenant_workers),
            self._controller("embeddingmodel", self._models, model, settings.model_workers),
            self._controller("reindexjob", self._reindexes, reindex, settings.reindex_workers),
        ]

    def _controller(
        self,
        name: str,
        kind: _Kind,
        domain: TenantController | ModelController | ReindexController,
        workers: int,
    ) -> Controller:
        return Controller(
            name,
            kind.queue,
            kind.cache,
            domain.reconcile,
            read=kind.source.read,
            fatal=self._fatal,
            options=ControllerOptions(workers=workers),
            on_terminal=domain.on_terminal,
            dependencies=self._dependencies,
            gate=self._barrier,
            metrics=self._telemetry.runtime,
            scope=reconcile_scope,
        )

    def _fatal(self, error: BaseException) -> None:
        self._fault = error
        self._stop.set()

    async def run(self) -> int:
        """Run until a signal, a lost lease or a fault; returns the exit status."""
        watched = self._watched()
        ready = [asyncio.Event(), asyncio.Event()]
        watches = [
            asyncio.create_task(self._watch(kinds_registry(watched), ready[0], clusterwide=True), name="watch-kinds"),
            asyncio.create_task(self._watch(namespace_registry(watched), ready[1]), name="watch-namespace"),
        ]
        runner = await self._serve()
        tasks: list[asyncio.Task[Any]] = []
        try:
            if not await _all_set(ready, watches):
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
        await asyncio.Event().wait()

    async def _lead(self) -> None:
        """What only the holder of the Lease does."""
        kinds = (self._tenants, self._models, self._reindexes)
        period = self._settings.resync_minutes * 60
        async with asyncio.TaskGroup() as group:
            for controller in self._controllers:
                group.create_task(controller.run())
            for kind in kinds:
                group.create_task(Resync(kind.cache, kind.queue, period=period).run())
            group.create_task(self._events.run())
            group.create_task(self._sweep_cells())

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
        )
        await self._barrier.wait()
        while True:
            await asyncio.sleep(self._settings.cell_sweep_minutes * 60)
            await sweep.run_once()

    def _watched(self) -> Watched:
        return Watched(
            tenants=self._tenants.cache,
            models=self._models.cache,
            reindexes=self._reindexes.cache,
            tenant_queue=self._tenants.queue,
            model_queue=self._models.queue,
            reindex_queue=self._reindexes.queue,
            apply_secret=self._directory.apply_secret,
            apply_slice=self._directory.apply_slice,
            templates=self._templates,
            model_view=status_of,
        )

    async def _watch(self, registry: kopf.OperatorRegistry, ready: asyncio.Event, *, clusterwide: bool = False) -> None:
        """Kopf as the host of watches: no scanning, no peering, no posting; it writes nothing."""
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.chunk_size = 500
        settings.queueing.idle_timeout = 0.1
        namespaces = () if clusterwide else (self._settings.namespace,)
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=clusterwide,
            namespaces=namespaces,
            ready_flag=ready,
        )

    async def _serve(self) -> web.AppRunner:
        """Probes and metrics. Live means that the loop runs; ready means that the caches are full."""

        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_: web.Request) -> web.Response:
            if self._barrier.is_open:
                return web.Response(text="ok\n")
            return web.Response(status=503, text=f"caches are filling: {self._barrier.missing()}\n")

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self._telemetry.exposition(), content_type="text/plain")

        application = web.Application()
        application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        for port in dict.fromkeys((self._settings.probe_port, self._settings.metrics_port)):
            await web.TCPSite(runner, port=port).start()
        self._telemetry.watch(
            queues=[self._tenants.queue, self._models.queue, self._reindexes.queue],
            dependencies=self._dependencies,
            lease_remaining=self._elector.remaining,
            caches={kind.cache.plural: kind.cache.__len__ for kind in (self._tenants, self._models, self._reindexes)},
        )
        return runner

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
        for watch in watches:
            watch.cancel()
        await asyncio.wait(watches, timeout=2.0)
        await runner.cleanup()
        self._dependencies.close()
        for part in (self._cells, self._servers, self._api):
            with contextlib.suppress(Exception):
                await part.close()


async def _all_set(flags: list[asyncio.Event], watches: list[asyncio.Task[None]]) -> bool:
    """Wait for every flag; False where a watch ends first: nothing would ever set its flag then."""
    waiting: asyncio.Future[Any] = asyncio.gather(*(flag.wait() for flag in flags))
    parts: list[asyncio.Future[Any]] = [waiting, *watches]
    await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        return True
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for watch in watches:
        if watch.done() and not watch.cancelled() and (error := watch.exception()) is not None:
            logger.critical("a watch failed at its start", exc_info=error)
    return False


def _model_of(cached: CachedObject) -> tuple[str, ...]:
    name = cached.raw.get("spec", {}).get("model", {}).get("name")
    return (name,) if name else ()


def _now() -> datetime:
    return datetime.now(UTC)


async def run_operator(settings: OperatorSettings) -> int:
    """Connect and run one replica; returns the exit status."""
    redactor = Redactor()
    configure_logging(style=settings.log_format, redactor=redactor, level=settings.log_level)
    for chatty in ("httpx", "httpcore", "kopf.objects"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    api = await KubeApi.connect(settings.kubeconfig)
    return await Operator(settings, api, redactor=redactor).run()
