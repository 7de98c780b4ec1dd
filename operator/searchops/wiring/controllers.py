"""The three kinds with their caches, queues and writers, and the controllers over them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchops.adapters.artifacts import ArtifactStore
from searchops.adapters.kube import KubeReindexJobs, KubeStateMaps
from searchops.adapters.kube_backup_jobs import KubeBackupJobs
from searchops.adapters.kube_jobs import KubeJobs
from searchops.adapters.kube_secrets import KubeAccessSecrets
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.adapters.tokens import CellKeySigner
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.controllers.backup import BackupBook, BackupKeeper, BackupPorts
from searchops.controllers.cell_watch import CELL_INDEX, cells_of
from searchops.controllers.last_snapshots import LastSnapshotJobs
from searchops.controllers.model import ModelController, ModelPorts, ModelSettings
from searchops.controllers.pinned_trials import PinnedTrials, TrialSettings
from searchops.controllers.reindex import ReindexController, ReindexPorts, ReindexSettings
from searchops.controllers.tenant import TenantController, TenantPorts
from searchops.controllers.tenant_first_look import FirstLook, build_of
from searchops.planning.names import FINALIZER
from searchops.planning.tenant_facts import TenantSettings
from searchops.runtime.cache import ObjectCache
from searchops.runtime.controller import Controller, ControllerOptions
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.queue import WorkQueue
from searchops.runtime.source import Source
from searchops.runtime.status import StatusWriter
from searchops.telemetry.logs import reconcile_scope
from searchops.triggers import MODEL_INDEX

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from searchops.adapters.access_probes import AccessProbes
    from searchops.adapters.directory import RegisteredDirectory
    from searchops.adapters.kube import KubeObjects
    from searchops.adapters.kube_api import KubeApi
    from searchops.adapters.prometheus import PrometheusSignals
    from searchops.adapters.qdrant import QdrantCells
    from searchops.adapters.shared_cells import SharedCells
    from searchops.adapters.triton import TritonServers
    from searchops.controllers.cell_access import CellAccess
    from searchops.controllers.cell_room import CellRooms
    from searchops.controllers.gateway_credentials import GatewayCredentialKeeper
    from searchops.controllers.isolation_canary import IsolationCanary
    from searchops.controllers.namespace_protection import NamespaceProtection
    from searchops.runtime.barrier import Barrier
    from searchops.runtime.cache import CachedObject
    from searchops.runtime.dependency import Dependencies
    from searchops.runtime.key import Key
    from searchops.runtime.recorder import EventRecorder
    from searchops.runtime.token_bucket import TokenBucket
    from searchops.settings import OperatorSettings
    from searchops.telemetry.metrics import Telemetry
    from searchops.telemetry.redaction import Redactor

TRANSITIONS = (
    "CandidateChosen",
    "CandidateRejected",
    "EngineBuilt",
    "VerdictReached",
    "ReevaluationAsked",
    "Reevaluated",
    "ReevaluationUnanswered",
    "WaveStarted",
    "Promoted",
    "Provisioned",
    "Reclaimed",
    "Adopted",
    "BindingSwitched",
    "Deleted",
    "Restored",
    "Forbidden",
    "NotFound",
    "Failed",
    "StateUnknown",
)
EVENT_REASONS = frozenset({*TRANSITIONS, *map(str, TenantReason), *map(str, ModelReason), *map(str, ReindexReason)})


@dataclass(slots=True)
class Kind:
    """One kind's cache, queue and writers."""

    cache: ObjectCache[Any]
    queue: WorkQueue[Key]
    status: StatusWriter
    finalizer: Finalizer
    source: Source


@dataclass(frozen=True, slots=True)
class Kinds:
    """Our three kinds."""

    tenants: Kind
    models: Kind
    reindexes: Kind

    @property
    def all(self) -> tuple[Kind, Kind, Kind]:
        """Every kind."""
        return self.tenants, self.models, self.reindexes


@dataclass(frozen=True, slots=True)
class Parts:
    """What the controllers share: the settings, the ways out, and what they wait for.

    Attributes:
        lease_left: seconds for which this process is certainly the only one that acts.
        fatal: told when a worker died.
        signals: what live signals are read from; None where nothing is configured.
        book: what is known of tenants' backups.
    """

    settings: OperatorSettings
    api: KubeApi
    raw_cells: QdrantCells
    cells: SharedCells
    access: CellAccess
    gateway: GatewayCredentialKeeper
    probes: AccessProbes
    canary: IsolationCanary
    rooms: CellRooms
    servers: TritonServers
    signals: PrometheusSignals | None
    directory: RegisteredDirectory
    objects: KubeObjects
    templates: Mapping[str, Mapping[str, Any]]
    events: EventRecorder
    dependencies: Dependencies
    telemetry: Telemetry
    clock: Callable[[], datetime]
    lease_left: Callable[[], float]
    protection: NamespaceProtection
    fatal: Callable[[BaseException], None]
    book: BackupBook = field(default_factory=BackupBook)


def make_kinds(objects: KubeObjects, bucket: TokenBucket, redactor: Redactor, telemetry: Telemetry) -> Kinds:
    """Caches and queues, empty still; every write goes through the bucket and every message through the redactor."""

    def kind(plural: str, parse: Callable[[Any], Any]) -> Kind:
        cache: ObjectCache[Any] = ObjectCache(plural, parse)
        queue: WorkQueue[Key] = WorkQueue(plural, metrics=telemetry.runtime)
        writer = StatusWriter(objects, cache, throttle=bucket.acquire, redact=redactor.text)
        finalizer = Finalizer(FINALIZER, objects, cache, throttle=bucket.acquire)
        source = Source(cache, lambda: objects.list_metadata(plural), _reader(objects, plural), queue.add)
        return Kind(cache, queue, writer, finalizer, source)

    kinds = Kinds(
        kind("searchtenants", SearchTenant.model_validate),
        kind("embeddingmodels", EmbeddingModel.model_validate),
        kind("reindexjobs", ReindexJob.model_validate),
    )
    kinds.tenants.cache.add_index(MODEL_INDEX, _model_of)
    kinds.tenants.cache.add_index(CELL_INDEX, cells_of)
    return kinds


def _reader(objects: KubeObjects, plural: str) -> Callable[[Key], Coroutine[Any, Any, Mapping[str, Any] | None]]:
    async def read(key: Key) -> Mapping[str, Any] | None:
        return await objects.get(plural, key.namespace, key.name)

    return read


def _model_of(cached: CachedObject) -> tuple[str, ...]:
    name = cached.raw.get("spec", {}).get("model", {}).get("name")
    return (name,) if name else ()


def make_controllers(parts: Parts, kinds: Kinds, gate: Barrier) -> list[Controller]:
    """One controller a kind; none works before the gate is open."""
    settings, signer, artifacts = parts.settings, CellKeySigner(), ArtifactStore()
    jobs = KubeJobs(parts.api, settings.namespace, template=parts.templates.get)
    reindex_jobs = KubeReindexJobs(parts.api)
    trials = PinnedTrials(
        jobs,
        artifacts,
        parts.directory,
        TrialSettings(settings.artifacts, settings.prefixes_of, settings.catalogue_allowed, settings.max_pinned_trials),
        tenants=kinds.tenants.cache,
        clock=parts.clock,
    )
    tenant = _tenant_controller(parts, kinds, signer, reindex_jobs, trials)
    model = _model_controller(parts, kinds, jobs, artifacts)
    reindex = _reindex_controller(parts, kinds, signer, jobs, reindex_jobs, artifacts)

    def controller(
        name: str, kind: Kind, domain: TenantController | ModelController | ReindexController, workers: int
    ) -> Controller:
        return Controller(
            name,
            kind.queue,
            kind.cache,
            domain.reconcile,
            read=kind.source.read,
            fatal=parts.fatal,
            options=ControllerOptions(workers=workers),
            on_terminal=domain.on_terminal,
            dependencies=parts.dependencies,
            gate=gate,
            metrics=parts.telemetry.runtime,
            scope=reconcile_scope,
        )

    return [
        controller("searchtenant", kinds.tenants, tenant, settings.tenant_workers),
        controller("embeddingmodel", kinds.models, model, settings.model_workers),
        controller("reindexjob", kinds.reindexes, reindex, settings.reindex_workers),
    ]


def tenant_settings(settings: OperatorSettings) -> TenantSettings:
    """What tenants' plans depend on."""
    return TenantSettings(
        settings.fleet,
        settings.gateway_url,
        settings.token_lifetime,
        settings.binding_settle,
        clock_skew=settings.clock_skew,
        backups=settings.backups,
        reclaim=settings.reclaim,
        revocable=settings.revocable_tokens,
        prices=settings.prices,
    )


def _tenant_controller(
    parts: Parts, kinds: Kinds, signer: CellKeySigner, reindex_jobs: KubeReindexJobs, trials: PinnedTrials
) -> TenantController:
    ports = TenantPorts(
        cells=parts.cells,
        ddl=parts.cells,
        directory=parts.directory,
        objects=parts.objects,
        secrets=KubeAccessSecrets(parts.api),
        register=QdrantTokens(parts.raw_cells),
        keys=parts.access,
        canary=parts.canary,
        gateway_keys=parts.gateway,
        trials=parts.probes,
        rooms=parts.rooms,
        signer=signer,
        reindex_jobs=reindex_jobs,
        events=parts.events,
    )
    first = FirstLook(
        parts.cells,
        KubeStateMaps(parts.api, parts.settings.namespace),
        ports,
        tenant_settings(parts.settings),
        tenants=kinds.tenants.cache,
        clock=parts.clock,
        build=build_of(Path(__file__).parents[1]),
    )
    return TenantController(
        ports,
        tenant_settings(parts.settings),
        tenants=kinds.tenants.cache,
        models=kinds.models.cache,
        reindexes=kinds.reindexes.cache,
        status=kinds.tenants.status,
        finalizer=kinds.tenants.finalizer,
        dependencies=parts.dependencies,
        clock=parts.clock,
        lease_left=parts.lease_left,
        monotonic=time.monotonic,
        protection=parts.protection,
        records=parts.book,
        pinned=trials,
        first=first,
        templates=parts.templates.get,
    )


def make_last_snapshots(parts: Parts) -> LastSnapshotJobs:
    """The snapshots that the policy Snapshot wants before a drop."""
    settings = parts.settings
    jobs = KubeJobs(parts.api, settings.namespace, template=parts.templates.get)
    return LastSnapshotJobs(jobs, ArtifactStore(), CellKeySigner(), settings.backups, clock=parts.clock)


def make_backup_keeper(parts: Parts, kinds: Kinds) -> BackupKeeper:
    """Who starts backups and proofs; the leader runs it again and again."""
    settings = parts.settings
    ports = BackupPorts(
        cells=parts.cells,
        directory=parts.directory,
        objects=parts.objects,
        jobs=KubeBackupJobs(parts.api, settings.namespace, template=parts.templates.get),
        artifacts=ArtifactStore(),
        signer=CellKeySigner(),
        events=parts.events,
        metrics=parts.telemetry.domain,
    )
    return BackupKeeper(
        ports,
        settings.backups,
        parts.book,
        tenants=kinds.tenants.cache,
        look_at=kinds.tenants.queue.add,
        clock=parts.clock,
    )


def _model_controller(parts: Parts, kinds: Kinds, jobs: KubeJobs, artifacts: ArtifactStore) -> ModelController:
    settings = parts.settings
    ports = ModelPorts(
        servers=parts.servers,
        directory=parts.directory,
        jobs=jobs,
        artifacts=artifacts,
        state=KubeStateMaps(parts.api, settings.namespace),
        events=parts.events,
        signals=parts.signals,
    )
    return ModelController(
        ports,
        ModelSettings(
            settings.artifacts,
            settings.source_allowed,
            prices=settings.prices,
            settle=settings.binding_settle,
            most_reindexes=settings.max_reindexes,
        ),
        models=kinds.models.cache,
        tenants=kinds.tenants.cache,
        reindexes=kinds.reindexes.cache,
        status=kinds.models.status,
        finalizer=kinds.models.finalizer,
        clock=parts.clock,
        lease_left=parts.lease_left,
    )


def _reindex_controller(
    parts: Parts,
    kinds: Kinds,
    signer: CellKeySigner,
    jobs: KubeJobs,
    reindex_jobs: KubeReindexJobs,
    artifacts: ArtifactStore,
) -> ReindexController:
    settings = parts.settings
    ports = ReindexPorts(
        cells=parts.cells,
        recall=parts.cells,
        directory=parts.directory,
        jobs=jobs,
        artifacts=artifacts,
        signer=signer,
        reindex_jobs=reindex_jobs,
        rooms=parts.rooms,
        events=parts.events,
    )
    return ReindexController(
        ports,
        ReindexSettings(settings.fleet, settings.artifacts, settings.max_reindexes, settings.catalogue_allowed),
        reindexes=kinds.reindexes.cache,
        tenants=kinds.tenants.cache,
        models=kinds.models.cache,
        status=kinds.reindexes.status,
        finalizer=kinds.reindexes.finalizer,
        clock=parts.clock,
    )
