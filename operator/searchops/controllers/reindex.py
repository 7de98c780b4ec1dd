"""ReindexJob: gather, plan, apply. It makes one Indexed Job and counts in the database; it moves no alias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from searchops.api.meta import API_VERSION
from searchops.api.tasks import ANSWER, SliceResult
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.controllers.terminal import terminal_status
from searchops.planning import reindex as planner
from searchops.planning.binding_state import read_bindings
from searchops.planning.jobs import check_template, job_manifest
from searchops.planning.names import KEY_FLEET, KEY_UID, alias_name, generation_of, side_alias
from searchops.planning.reindex_budget import gpus_of
from searchops.planning.reindex_report import results_uri, worker_name
from searchops.ports import Jobs
from searchops.runtime.errors import NotReady, Terminal, Transient
from searchops.runtime.key import Key
from searchops.runtime.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CollectionState, RecallSample
    from searchops.api.retrieval import Binding
    from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
    from searchops.planning.reindex_facts import ReindexAction, ReindexFacts
    from searchops.ports import (
        Artifacts,
        CellDirectory,
        CellReader,
        CellRooms,
        EventRecorder,
        ReindexJobs,
        TokenSigner,
    )
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.finalizer import Finalizer
    from searchops.runtime.status import StatusWriter


LASTING_FAILURES = 2
"""Passes in a row that fail before the status says so."""


class RecallReader(Protocol):
    """Approximate against exact search, by the database itself."""

    async def recall(self, cell: CellRegistration, collection: str, vector: str) -> RecallSample:
        """Both ways with stored vectors of the collection as queries; a hundred searches, so never on every pass."""
        ...


class WorkerJobs(Jobs, Protocol):
    """Worker Jobs whose Secrets may need a fresh token before they run."""

    async def renew_secret(self, name: str, uid: str, secret: Mapping[str, str]) -> None:
        """Replace the content of the Secret that this very Job owns; Pods that start from now on read it."""
        ...


@dataclass(frozen=True, slots=True)
class ReindexPorts:
    """Everything the controller talks to."""

    cells: CellReader
    recall: RecallReader
    directory: CellDirectory
    jobs: WorkerJobs
    artifacts: Artifacts
    signer: TokenSigner
    reindex_jobs: ReindexJobs
    rooms: CellRooms
    events: EventRecorder


@dataclass(frozen=True, slots=True)
class ReindexSettings:
    """The operator's settings that a ReindexJob's pass depends on."""

    fleet: str
    artifacts: str
    fleet_limit: int
    catalogue_allowed: Callable[[str, str], bool]


class ReindexController:
    """One pass over one ReindexJob."""

    def __init__(
        self,
        ports: ReindexPorts,
        settings: ReindexSettings,
        *,
        reindexes: ObjectCache[ReindexJob],
        tenants: ObjectCache[SearchTenant],
        models: ObjectCache[EmbeddingModel],
        status: StatusWriter,
        finalizer: Finalizer,
        clock: Callable[[], datetime],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._reindexes = reindexes
        self._tenants = tenants
        self._models = models
        self._status = status
        self._finalizer = finalizer
        self._clock = clock
        self._started: set[Key] = set()
        self._signed: dict[Key, datetime] = {}
        self._failures: dict[Key, int] = {}

    async def reconcile(self, key: Key) -> Result:
        """Gather, plan, apply, one status write."""
        cached = self._reindexes.get(key)
        if cached is None:
            self._forget(key)
            self._failures.pop(key, None)
            return Result.done()
        try:
            job = self._reindexes.typed(key)
        except ValidationError as error:
            raise Terminal("InvalidSpec", f"the object does not parse: {error.errors()[0]['msg']}") from error
        assert job is not None  # noqa: S101 - it was cached a line ago, and nothing awaited since
        try:
            facts = await self._gather(job)
            if facts.worker is None:
                self._forget(key)
            plan = planner.plan_reindex(job, facts, self._clock())
            failure = None
            match plan.actions:
                case (planner.MeasureRecall(collection=collection, vector=vector),) if facts.cell is not None:
                    facts, failure = await self._measured(facts, facts.cell, collection, vector)
                    plan = planner.plan_reindex(job, facts, self._clock())
            for action in plan.actions:
                await self._act(cached, facts, action)
            await self._renew(key, job, facts)
        except (NotReady, Transient) as error:
            await self._say(cached, job, error)
            raise
        self._failures.pop(key, None)
        if plan.status is not None:
            await self._status.write_if_changed(cached, plan.status.to_wire())
            self._tell(cached, job, plan.status.phase or "")
            if failure is not None and plan.status.phase not in planner.FINISHED:
                raise failure
        return Result.done() if plan.requeue_after is None else Result.after(plan.requeue_after)

    async def _measured(
        self, facts: ReindexFacts, cell: CellRegistration, collection: str, vector: str
    ) -> tuple[ReindexFacts, NotReady | Transient | None]:
        """The facts with recall, or with why it is unknown: the plan bounds how long that may last."""
        try:
            return replace(facts, recall=await self._ports.recall.recall(cell, collection, vector)), None
        except (NotReady, Transient) as error:
            return replace(facts, recall_error=error.message), error

    async def _say(self, cached: CachedObject, job: ReindexJob, error: NotReady | Transient) -> None:
        """A failure that lasts is said in the status, once for each generation; one hiccup is not flapped about."""
        count = self._failures[cached.key] = self._failures.get(cached.key, 0) + 1
        status = planner.failing(job, error.message, self._clock())
        if count < LASTING_FAILURES or status is None:
            return
        await self._status.write_if_changed(cached, status.to_wire())
        self._ports.events.record(_reference(cached), str(ReindexReason.WAITING), error.message, warning=True)

    def _forget(self, key: Key) -> None:
        """There is no worker Job (any more)."""
        self._started.discard(key)
        self._signed.pop(key, None)

    async def _renew(self, key: Key, job: ReindexJob, facts: ReindexFacts) -> None:
        """A worker that its queue holds back finds a token that outlasts its run, whenever that begins."""
        now = self._clock()
        claims = planner.renewed_claims(job, facts, self._signed.get(key), now)
        if claims is None or facts.worker is None or facts.cell is None:
            return
        token = self._ports.signer.sign(facts.cell, claims)
        await self._ports.jobs.renew_secret(facts.worker.name, facts.worker.uid, {"token": token})
        self._signed[key] = now

    def _tell(self, cached: CachedObject, job: ReindexJob, phase: str) -> None:
        if phase in ("Verified", "Switched", "Failed", "Cancelled") and job.status.phase != phase:
            message = f"{job.spec.tenant} → {job.spec.revision}: {phase}"
            self._ports.events.record(_reference(cached), phase, message, warning=phase == "Failed")

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        """A terminal error as the Ready condition and an event."""
        cached = self._reindexes.get(key)
        if cached is None:
            return
        await self._status.write_if_changed(cached, terminal_status(cached, error, self._clock()))
        self._ports.events.record(_reference(cached), error.reason, error.message, warning=True)

    # -- gather ------------------------------------------------------------------------------------------------

    async def _gather(self, job: ReindexJob) -> ReindexFacts:
        """Every read of a pass. What is deleted or over needs its worker alone: no other store holds it up."""
        key = Key(job.metadata.namespace, job.spec.tenant)
        tenant = self._tenant(key)
        name = worker_name(job.metadata)
        worker = await self._ports.jobs.get(name)
        over = job.metadata.deletion_timestamp is not None or job.status.phase in planner.FINISHED
        template = self._ports.jobs.pod_template(job.spec.worker.pod_template)
        facts = planner.ReindexFacts(
            tenant=tenant,
            tenant_unreadable=tenant is None and key in self._tenants,
            artifacts=self._settings.artifacts,
            worker=worker,
            template=check_template(job.spec.worker.pod_template, template, "reindex", "spec.worker.podTemplate"),
            gpus=gpus_of(template),
            slices=await self._slices(job, name) if worker is not None and not over else (),
            source_allowed=job.spec.source.uri is None
            or self._settings.catalogue_allowed(job.spec.source.uri, job.metadata.namespace),
        )
        if tenant is None or over:
            return facts
        model = self._model(tenant.spec.model.name)
        running, fleet = self._running(job, tenant.spec.model.name)
        pools = self._ports.directory.pools()
        pool = pools.get(model.spec.serving.pool) if model is not None else None
        limit = model.spec.rollout.max_concurrent_reindexes if model is not None else 1
        facts = replace(
            facts,
            running=running,
            running_limit=limit,
            halted=_halted(model, job.spec.revision),
            fleet_running=fleet,
            fleet_limit=self._settings.fleet_limit,
            measured_rate=self._measured_rate(job),
            servers=pool.grpc_urls if pool is not None else (),
            holds=await self._ports.rooms.holds(),
        )
        return await self._sides(facts, tenant)

    async def _sides(self, facts: ReindexFacts, tenant: SearchTenant) -> ReindexFacts:
        """The live collection, the side under construction, and exact counts of both."""
        cell = self._ports.directory.cells().get(tenant.status.cell or "")
        if cell is None:
            return facts
        state = await self._ports.cells.survey(cell)
        alias = alias_name(self._settings.fleet, tenant.metadata.namespace, tenant.metadata.name)
        live = state.aliases.get(alias)
        if not state.reachable or live is None:
            return facts
        source = await self._ports.cells.describe(cell, live)
        if source is None or not self._owned(tenant, source):
            return replace(facts, cell=cell, source=source)
        bindings = read_bindings(source)
        pending = bindings.pending if bindings is not None else None
        if pending is None or pending.side not in (None, *(side_alias(alias, number) for number in (0, 1))):
            return replace(facts, cell=cell, source=source)
        own_side = side_alias(alias, generation_of(alias, live) or 1)
        target_name = live if pending.side in (None, own_side) else state.aliases.get(pending.side or "")
        target = source if target_name == live else await self._describe(cell, target_name)
        if target is not None and not self._owned(tenant, target):
            target = None
        facts = replace(facts, cell=cell, source=source, target=target, pending=pending)
        if target is None:
            return facts
        return await self._counts(facts, cell, source, target, pending)

    def _owned(self, tenant: SearchTenant, found: CollectionState) -> bool:
        """A worker's token is on both sides: neither may be anybody else's, whatever an alias says."""
        said = found.metadata.get(KEY_FLEET), found.metadata.get(KEY_UID)
        return said == (self._settings.fleet, tenant.metadata.uid)

    async def _describe(self, cell: CellRegistration, name: str | None) -> CollectionState | None:
        return await self._ports.cells.describe(cell, name) if name is not None else None

    async def _counts(
        self,
        facts: ReindexFacts,
        cell: CellRegistration,
        source: CollectionState,
        target: CollectionState,
        pending: Binding,
    ) -> ReindexFacts:
        documents = await self._ports.cells.count(cell, source.name)
        lacking = 0
        if pending.vector is not None:
            if pending.vector not in target.dense:
                return replace(facts, documents=documents)
            lacking = await self._ports.cells.count(cell, target.name, lacking=pending.vector)
        if target.name != source.name:
            lacking += max(0, documents - await self._ports.cells.count(cell, target.name))
        return replace(facts, documents=documents, lacking=lacking)

    async def _slices(self, job: ReindexJob, name: str) -> tuple[SliceResult, ...]:
        """Answers of the slices: result objects first, then termination messages."""
        prefix = results_uri(self._settings.artifacts, job)
        found: dict[int, SliceResult] = {}
        for index in range(job.spec.slices):
            data = await self._ports.artifacts.read(f"{prefix}/slice-{index}.json")
            if data is not None:
                _keep(found, data.decode(errors="replace"))
        if len(found) < job.spec.slices:
            for text in reversed(await self._ports.jobs.answers(name)):
                _keep(found, text)
        return tuple(found[index] for index in sorted(found))

    def _running(self, job: ReindexJob, model: str) -> tuple[int, int]:
        """Other ReindexJobs that hold a worker Job: of this model, and of the fleet. Starts are counted at once."""
        own = Key(job.metadata.namespace, job.metadata.name)
        of_model = fleet = 0
        for cached in self._reindexes:
            phase = cached.status.get("phase")
            active = phase in ("Embedding", "Indexing") or (
                cached.key in self._started and phase in (None, "Pending", "Queued")
            )
            if cached.key == own or not active:
                continue
            fleet += 1
            tenant = self._tenant(Key(cached.key.namespace, cached.raw["spec"]["tenant"]))
            of_model += tenant is not None and tenant.spec.model.name == model
        return of_model, fleet

    def _measured_rate(self, job: ReindexJob) -> float | None:
        """Documents a GPU-second that other rebuilds to the same revision reached, in the middle of them."""
        own = Key(job.metadata.namespace, job.metadata.name)
        rates = []
        for cached in self._reindexes:
            told = (cached.status.get("cost") or {}).get("documentsPerGpuSecond")
            if cached.key != own and told and cached.raw["spec"].get("revision") == job.spec.revision:
                rates.append(float(told))
        return median(rates) if rates else None

    def _tenant(self, key: Key) -> SearchTenant | None:
        try:
            return self._tenants.typed(key)
        except ValidationError:
            return None

    def _model(self, name: str) -> EmbeddingModel | None:
        try:
            return self._models.typed(Key("", name))
        except ValidationError:
            return None

    # -- apply -------------------------------------------------------------------------------------------------

    async def _act(self, cached: CachedObject, facts: ReindexFacts, action: ReindexAction) -> None:
        match action:
            case planner.AddFinalizer():
                await self._finalizer.add(cached)
            case planner.RemoveFinalizer():
                await self._finalizer.remove(cached)
            case planner.DeleteWorker(name=name):
                await self._ports.jobs.delete(name)
            case planner.DeleteSelf():
                await self._ports.reindex_jobs.delete(cached.key.namespace, cached.key.name, known_uid=cached.uid)
            case planner.HoldCell(cell=cell, said=said):
                self._ports.rooms.full(cell, said)
            case planner.MeasureRecall():
                raise Transient("the cell went away before recall was measured; it is read again")
            case planner.CreateWorker(order=order, template=name):
                template = self._ports.jobs.pod_template(name)
                if template is None or facts.cell is None or order.secret_claims is None:
                    raise Transient(f"PodTemplate {name} or the cell is gone; they are read again")
                token = self._ports.signer.sign(facts.cell, order.secret_claims)
                self._started.add(cached.key)
                await self._ports.jobs.create(job_manifest(order, template), {"token": token})


def _halted(model: EmbeddingModel | None, revision: str | None) -> str:
    """Why rebuilds for a candidate may not begin now; empty where they may."""
    status = model.status if model is not None else None
    if status is None or status.candidate is None or status.wave is None or status.candidate.revision != revision:
        return ""
    return status.wave.halted or ""


def _keep(found: dict[int, SliceResult], text: str) -> None:
    try:
        answer = ANSWER.validate_json(text)
    except ValidationError:
        return
    if isinstance(answer, SliceResult):
        found[answer.slice] = answer


def _reference(cached: CachedObject) -> dict[str, str]:
    return {
        "apiVersion": API_VERSION,
        "kind": "ReindexJob",
        "namespace": cached.key.namespace,
        "name": cached.key.name,
        "uid": cached.uid,
    }
