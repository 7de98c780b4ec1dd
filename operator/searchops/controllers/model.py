"""EmbeddingModel: gather, plan, apply. It loads and unloads servers and makes Jobs; it never touches a collection."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.meta import API_VERSION
from searchops.api.retrieval import BUILTIN_PROFILES
from searchops.api.tasks import ANSWER, BuildResult, EvaluateResult
from searchops.api.v1alpha1.embedding_model import EmbeddingModelStatus
from searchops.controllers.terminal import terminal_status
from searchops.planning import model_facts as act
from searchops.planning import rollout as planner
from searchops.planning.conditions import find
from searchops.planning.jobs import check_template, job_manifest
from searchops.planning.names import CELL_ANNOTATION, is_revision_of, state_map_name
from searchops.planning.rollout_choice import gate_digest, gate_passed
from searchops.planning.rollout_orders import build_job_name, gate_job_name, result_uri
from searchops.runtime.errors import ReconcileError, Terminal, Transient
from searchops.runtime.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from searchops.api.observed import PoolRegistration, ServerState
    from searchops.api.v1alpha1 import EmbeddingModel, SearchTenant
    from searchops.planning.model_facts import JobFacts, ModelAction, ModelFacts, PoolFacts, TenantFact
    from searchops.ports import Artifacts, CellDirectory, EventRecorder, Jobs, ModelServers, StateMaps
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.finalizer import Finalizer
    from searchops.runtime.key import Key
    from searchops.runtime.status import StatusWriter

SAME_COSINE = 0.999
UNIT_NORM_TOLERANCE = 1e-3
PROBES_PER_PASS = 8
UNLOAD_SECONDS = 10.0
"""What one unload may take: it starts only with more of the lease left."""
STATE_KEY = "state"


@dataclass(frozen=True, slots=True)
class ModelPorts:
    """Everything the controller talks to."""

    servers: ModelServers
    directory: CellDirectory
    jobs: Jobs
    artifacts: Artifacts
    state: StateMaps
    events: EventRecorder


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The operator's settings that a model's pass depends on."""

    artifacts: str
    source_allowed: Callable[[str], bool]


class ModelController:
    """One pass over one EmbeddingModel."""

    def __init__(
        self,
        ports: ModelPorts,
        settings: ModelSettings,
        *,
        models: ObjectCache[EmbeddingModel],
        tenants: ObjectCache[SearchTenant],
        status: StatusWriter,
        finalizer: Finalizer,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._models = models
        self._tenants = tenants
        self._status = status
        self._finalizer = finalizer
        self._clock = clock
        self._lease_left = lease_left

    async def reconcile(self, key: Key) -> Result:
        """Gather, plan, apply, one status write."""
        cached = self._models.get(key)
        if cached is None:
            return Result.done()
        try:
            model = self._models.typed(key)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Terminal("InvalidSpec", f"the object does not parse: {where}: {first['msg']}") from error
        assert model is not None  # noqa: S101 - it was cached a line ago, and nothing awaited since
        facts = await self._gather(model)
        plan = planner.plan_model(model, facts, self._clock())
        failure = await self._apply(cached, model, plan.actions)
        if plan.status is not None:
            await self._status.write_if_changed(cached, plan.status.to_wire())
        if failure is not None:
            raise failure
        return Result.done() if plan.requeue_after is None else Result.after(plan.requeue_after)

    # -- gather ------------------------------------------------------------------------------------------------

    async def _gather(self, model: EmbeddingModel) -> ModelFacts:
        spec = model.spec
        pools = self._ports.directory.pools()
        probes = await self._probes(model)
        serving = await self._pool(model, pools.get(spec.serving.pool), probes)
        canary_name = spec.serving.canary_pool or spec.serving.pool
        canary = (
            serving if canary_name == spec.serving.pool else await self._pool(model, pools.get(canary_name), probes)
        )
        build, build_result = await self._build(model)
        gate, gate_result = await self._gate(model)
        tenants = tuple(_tenant_facts(self._tenants, model.metadata.name))
        elsewhere = _bound_elsewhere(self._tenants, model.metadata.name)
        return act.ModelFacts(
            artifacts=self._settings.artifacts,
            profile=BUILTIN_PROFILES.get(spec.gate.profile),
            serving=serving,
            canary=canary,
            build=build,
            build_result=build_result,
            gate=gate,
            gate_result=gate_result,
            tenants=tenants,
            stored=await self._stored(model),
            source_allowed=self._settings.source_allowed(spec.source.uri),
            bound_elsewhere=elsewhere,
            unread_tenants=sum(1 for cached in self._tenants.by_index("model", model.metadata.name) if _unread(cached)),
            bindings_of_this_model=bool(elsewhere)
            or any(
                tenant.bound is not None and is_revision_of(model.metadata.name, tenant.bound) for tenant in tenants
            ),
        )

    async def _stored(self, model: EmbeddingModel) -> EmbeddingModelStatus | None:
        if model.status.next_number is not None:
            return None
        data = await self._ports.state.read(state_map_name(model.metadata.name))
        if data is None or STATE_KEY not in data:
            return None
        try:
            return EmbeddingModelStatus.model_validate_json(data[STATE_KEY])
        except ValidationError as error:
            raise Terminal(
                "StateUnknown",
                f"ConfigMap {state_map_name(model.metadata.name)} cannot be read ({error.error_count()} problems); "
                "restore it from a backup, or delete it where nothing was promoted yet",
            ) from error

    async def _probes(self, model: EmbeddingModel) -> dict[str, tuple[list[str], list[list[float]]]]:
        """FP32 reference vectors of each revision that servers may have to prove; none where they cannot be read."""
        status = model.status
        revisions = [item for item in (status.active, status.candidate, *status.retiring) if item is not None]
        found = {}
        for revision in revisions:
            if revision.probes is None:
                continue
            data = await self._ports.artifacts.read(revision.probes)
            probes = parse_probes(data) if data is not None else None
            if probes is not None:
                found[revision.revision] = probes
        return found

    async def _pool(
        self,
        model: EmbeddingModel,
        registration: PoolRegistration | None,
        probes: dict[str, tuple[list[str], list[list[float]]]],
    ) -> PoolFacts | None:
        if registration is None:
            return None
        servers = await self._ports.servers.survey(registration)
        checks = {
            (server.url, revision): self._infer(server, revision, texts, vectors)
            for server in servers
            for revision, (texts, vectors) in probes.items()
            if server.reachable and server.ready(revision) and is_revision_of(model.metadata.name, revision)
        }
        outcomes = await asyncio.gather(*checks.values())
        return act.PoolFacts(registration, servers, dict(zip(checks, outcomes, strict=True)))

    async def _infer(self, server: ServerState, revision: str, texts: list[str], vectors: list[list[float]]) -> str:
        """Empty where the served vectors are the reference ones, else what is wrong."""
        try:
            served = await self._ports.servers.infer(server, revision, texts)
        except Transient as error:
            return f"inference fails: {error.message}"
        if len(served) != len(vectors):
            return f"{len(served)} vectors for {len(vectors)} texts"
        for text, mine, reference in zip(texts, served, vectors, strict=True):
            problem = compare_vectors(mine, reference)
            if problem:
                return f"{problem} for the probe {text[:40]!r}"
        return ""

    async def _build(self, model: EmbeddingModel) -> tuple[JobFacts | None, BuildResult | None]:
        candidate = model.status.candidate
        if candidate is None or candidate.engine_key is not None:
            return None, None
        name = build_job_name(model, candidate)
        template = model.spec.engine.worker.pod_template
        job = await self._job(name, template, "build", "spec.engine.worker.podTemplate")
        answer = await self._answer(name)
        return job, answer if isinstance(answer, BuildResult) and answer.revision == candidate.revision else None

    async def _gate(self, model: EmbeddingModel) -> tuple[JobFacts | None, EvaluateResult | None]:
        candidate = model.status.candidate
        if candidate is None or candidate.engine_key is None or gate_passed(model.status):
            return None, None
        name = gate_job_name(model, model.status, gate_digest(model.spec))
        template = model.spec.gate.worker.pod_template
        job = await self._job(name, template, "evaluate", "spec.gate.worker.podTemplate")
        answer = await self._answer(name)
        return job, answer if isinstance(answer, EvaluateResult) and answer.revision == candidate.revision else None

    async def _job(self, name: str, template: str, kind: str, field: str) -> JobFacts:
        problem = check_template(template, self._ports.jobs.pod_template(template), kind, field)
        return act.JobFacts(name, await self._ports.jobs.get(name), problem)

    async def _answer(self, job: str) -> BuildResult | EvaluateResult | object | None:
        """The result object first, then a termination message; neither is no answer."""
        facts = act.ModelFacts(artifacts=self._settings.artifacts, profile=None, serving=None, canary=None)
        data = await self._ports.artifacts.read(result_uri(facts, job))
        texts = [data.decode(errors="replace")] if data is not None else list(await self._ports.jobs.answers(job))
        for text in texts:
            try:
                return ANSWER.validate_json(text)
            except ValidationError:
                continue
        return None

    # -- apply -------------------------------------------------------------------------------------------------

    async def _apply(
        self, cached: CachedObject, model: EmbeddingModel, actions: tuple[ModelAction, ...]
    ) -> ReconcileError | None:
        """In order, but servers are independent: each gets its own row of loads, and one that fails stops no other."""
        rows: dict[str, list[ModelAction]] = {}
        for action in actions:
            if isinstance(action, act.LoadModel | act.UnloadModel):
                rows.setdefault(action.server.url, []).append(action)
        outcomes = await asyncio.gather(*(self._on_server(row) for row in rows.values()))
        for action in actions:
            match action:
                case act.AddFinalizer():
                    await self._finalizer.add(cached)
                case act.RemoveFinalizer():
                    await self._finalizer.remove(cached)
                case act.WriteState(status=status):
                    await self._ports.state.write(state_map_name(model.metadata.name), {STATE_KEY: _kept(status)})
                case act.CreateJob(order=order, template=name):
                    template = self._ports.jobs.pod_template(name)
                    if template is None:
                        raise Transient(f"PodTemplate {name} is gone; it is read again")
                    await self._ports.jobs.create(job_manifest(order, template), None)
                case act.DeleteJob(name=name):
                    await self._ports.jobs.delete(name)
                case act.EmitEvent(reason=reason, message=message, warning=warning):
                    self._ports.events.record(_reference(cached), reason, message, warning=warning)
        return next((outcome for outcome in outcomes if outcome is not None), None)

    async def _on_server(self, row: Iterable[ModelAction]) -> ReconcileError | None:
        for action in row:
            try:
                if isinstance(action, act.LoadModel):
                    await self._ports.servers.load(action.server, action.model)
                elif isinstance(action, act.UnloadModel):
                    if self._lease_left() <= UNLOAD_SECONDS:
                        raise Transient("too little of the lease is left to unload a model; it is read again", 2.0)
                    await self._ports.servers.unload(action.server, action.model)
            except Transient as error:
                return error
        return None

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        """A terminal error as the Ready condition and an event."""
        cached = self._models.get(key)
        if cached is None:
            return
        await self._status.write_if_changed(cached, terminal_status(cached, error, self._clock()))
        self._ports.events.record(_reference(cached), error.reason, error.message, warning=True)


def parse_probes(data: bytes) -> tuple[list[str], list[list[float]]] | None:
    """Texts and their reference vectors, at most `PROBES_PER_PASS`; None where the file proves nothing."""
    try:
        parsed = json.loads(data)
        texts, vectors = parsed["texts"][:PROBES_PER_PASS], parsed["vectors"][:PROBES_PER_PASS]
    except (ValueError, KeyError, TypeError):
        return None
    return (texts, vectors) if texts and len(texts) == len(vectors) else None


def compare_vectors(mine: list[float], reference: list[float]) -> str:
    """Empty where two unit vectors are the same to cosine 0.999, else what is wrong."""
    if len(mine) != len(reference):
        return f"dimension {len(mine)}, wanted {len(reference)}"
    if not all(math.isfinite(value) for value in mine):
        return "a vector that is not finite"
    norm = math.sqrt(math.fsum(value * value for value in mine))
    if abs(norm - 1) > UNIT_NORM_TOLERANCE:
        return f"norm {norm:.4f}, wanted 1"
    cosine = math.fsum(one * other for one, other in zip(mine, reference, strict=True)) / norm
    return "" if cosine >= SAME_COSINE else f"cosine {cosine:.5f} to the FP32 reference, wanted at least {SAME_COSINE}"


def _kept(status: EmbeddingModelStatus) -> str:
    """What must survive a lost status."""
    kept = EmbeddingModelStatus(
        active=status.active,
        retiring=status.retiring,
        rejected=status.rejected,
        history=status.history,
        next_number=status.next_number,
    )
    return json.dumps(kept.to_wire(), sort_keys=True)


def _tenant_facts(tenants: ObjectCache[SearchTenant], model: str) -> Iterable[TenantFact]:
    """The tenants that name the model. One that does not parse counts as held: it cannot follow, and keeps its side."""
    for cached in tenants.by_index("model", model):
        bound, previous = _bindings(cached)
        try:
            tenant = tenants.typed(cached.key)
        except ValidationError:
            yield act.TenantFact(cached.key.namespace, cached.key.name, cached.labels, bound, previous, held=True)
            continue
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            continue
        status = tenant.status
        condition = find(status.conditions, "ModelBound")
        yield act.TenantFact(
            namespace=tenant.metadata.namespace,
            name=tenant.metadata.name,
            labels=tenant.metadata.labels,
            bound=bound,
            previous=previous,
            rebuilding=status.rebuild is not None,
            failed=condition is not None and condition.reason == "RebuildFailed",
            held=tenant.spec.paused or tenant.spec.model.revision is not None,
        )


def _bindings(cached: CachedObject) -> tuple[str | None, str | None]:
    """The revisions that a tenant's binding and its previous one name, read from an object that may not parse."""
    binding, previous = (cached.status.get(name) or {} for name in ("binding", "previous"))
    return binding.get("revision"), previous.get("revision")


def _bound_elsewhere(tenants: ObjectCache[SearchTenant], model: str) -> tuple[str, ...]:
    """Revisions of this model that tenants are bound to though they name another model, or are being deleted."""
    own = {cached.key for cached in tenants.by_index("model", model) if not cached.deleting}
    named = {revision for cached in tenants if cached.key not in own for revision in _bindings(cached)}
    return tuple(sorted(revision for revision in named if revision is not None and is_revision_of(model, revision)))


def _unread(cached: CachedObject) -> bool:
    """Whether the tenant has a cell, so may be bound, and its status does not say to what."""
    return CELL_ANNOTATION in cached.annotations and not cached.status.get("binding")


def _reference(cached: CachedObject) -> dict[str, str]:
    return {"apiVersion": API_VERSION, "kind": "EmbeddingModel", "name": cached.key.name, "uid": cached.uid}


def status_of(cached: CachedObject) -> Any:
    """What of a model's status concerns its tenants: only a change of this wakes them."""
    status = cached.status
    return {name: status.get(name) for name in ("active", "candidate", "wave", "retiring")}
