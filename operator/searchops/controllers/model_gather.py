"""Everything that a pass over one EmbeddingModel reads."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from searchops.api.retrieval import BUILTIN_PROFILES
from searchops.api.tasks import ANSWER, BuildResult, EvaluateResult
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
from searchops.controllers.model_followers import Followers
from searchops.controllers.model_signals import ModelSignals
from searchops.planning import model_facts as act
from searchops.planning.jobs import check_template
from searchops.planning.names import is_revision_of, state_map_name
from searchops.planning.rebuild_rates import NO_PRICES, GpuPrices
from searchops.planning.rollout_choice import gate_digest, gate_passed
from searchops.planning.rollout_orders import build_job_name, gate_job_name, reevaluation_job_name, result_uri
from searchops.runtime.errors import Terminal, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.api.observed import JobState, PoolRegistration, ServerState
    from searchops.api.v1alpha1 import EmbeddingModel, SearchTenant
    from searchops.controllers.model_signals import SignalSource
    from searchops.controllers.reindex_rates import ReindexRates
    from searchops.planning.model_facts import JobFacts, ModelFacts, PoolFacts
    from searchops.ports import (
        Artifacts,
        CellDirectory,
        EventRecorder,
        ModelJobs,
        ModelServers,
        StateMaps,
    )
    from searchops.runtime.cache import ObjectCache

SAME_COSINE = 0.999
UNIT_NORM_TOLERANCE = 1e-3
PROBES_PER_PASS = 8
STATE_KEY = "state"
Probes = tuple[list[str], list[list[float]]]
"""Texts and their FP32 reference vectors, one each."""


@dataclass(frozen=True, slots=True)
class ModelPorts:
    """Everything the controller talks to; without `signals` live signals are unknown."""

    servers: ModelServers
    directory: CellDirectory
    jobs: ModelJobs
    artifacts: Artifacts
    state: StateMaps
    events: EventRecorder
    signals: SignalSource | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The operator's settings that a model's pass depends on."""

    artifacts: str
    source_allowed: Callable[[str], bool]
    prices: GpuPrices = NO_PRICES
    settle: timedelta = timedelta(0)
    most_reindexes: int = 1


class ModelGatherer:
    """Reads what a model's plan is made from, through ports and caches.

    Attributes:
        refusals: per (server URL, Triton model): what was said to the last load or unload that failed, in this process.
    """

    def __init__(
        self,
        ports: ModelPorts,
        settings: ModelSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        rates: ReindexRates,
        clock: Callable[[], datetime],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._followers = Followers(tenants)
        self._rates = rates
        self._signals = ModelSignals(ports.signals, clock)
        self.refusals: dict[tuple[str, str], str] = {}

    async def gather(self, model: EmbeddingModel) -> ModelFacts:
        """Every read of a pass; of a deleted model only what its deletion needs.

        An artifact store that is silent ends no pass: what it would prove is unknown, and everything else goes on.
        """
        spec = model.spec
        pools = self._ports.directory.pools()
        tenants = self._followers.of(model.metadata.name)
        elsewhere = self._followers.bound_elsewhere(model.metadata.name)
        leaving = model.metadata.deletion_timestamp is not None
        probes, unread = ({}, {}) if leaving and not (tenants or elsewhere) else await self._probes(model)
        serving = await self._pool(model, pools.get(spec.serving.pool), probes)
        canary_name = spec.serving.canary_pool or spec.serving.pool
        canary = (
            serving if canary_name == spec.serving.pool else await self._pool(model, pools.get(canary_name), probes)
        )
        jobs = await self._jobs(model)
        build, build_result = (None, None) if leaving else await self._build(model, jobs)
        gate, gate_result = (None, None) if leaving else await self._gate(model, jobs)
        again, again_result = (None, None) if leaving else await self._reevaluation(model, jobs)
        template = self._ports.jobs.pod_template(spec.engine.worker.pod_template)
        return act.ModelFacts(
            artifacts=self._settings.artifacts,
            profile=BUILTIN_PROFILES.get(spec.gate.profile),
            serving=serving,
            canary=canary,
            build=build,
            build_result=build_result,
            gate=gate,
            gate_result=gate_result,
            reevaluation=again,
            reevaluation_result=again_result,
            tenants=tenants,
            stored=None if leaving else await self._stored(model),
            source_allowed=self._settings.source_allowed(spec.source.uri),
            bound_elsewhere=elsewhere,
            unread_tenants=self._followers.unread(model.metadata.name),
            bindings_of_this_model=bool(elsewhere)
            or any(
                tenant.bound is not None and is_revision_of(model.metadata.name, tenant.bound) for tenant in tenants
            ),
            jobs=tuple(job for job in jobs if leaving or not (job.complete or job.failure)),
            unread_probes=unread,
            rates=self._rates.of(model.metadata.name),
            prices=self._settings.prices,
            worker_labels=None if template is None else template.get("metadata", {}).get("labels") or {},
            settle_seconds=self._settings.settle.total_seconds(),
            most_reindexes=self._settings.most_reindexes,
            signals=await self._signals.of(model, tenants),
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

    async def _probes(self, model: EmbeddingModel) -> tuple[dict[str, Probes], dict[str, str]]:
        """FP32 reference vectors of each revision that servers may have to prove, and why there are none of others.

        All at once, so that a store that hangs costs a pass one wait and not one for each revision.
        """
        status = model.status
        known = (status.active, status.candidate, *status.retiring)
        uris = {item.revision: item.probes for item in known if item is not None and item.probes is not None}
        read = await asyncio.gather(*(self._probe(uri) for uri in uris.values()))
        found = dict(zip(uris, read, strict=True))
        good = {name: seen for name, seen in found.items() if not isinstance(seen, str)}
        return good, {name: seen for name, seen in found.items() if isinstance(seen, str)}

    async def _probe(self, uri: str) -> Probes | str:
        """The reference vectors at a URI, or why there are none."""
        try:
            data = await self._ports.artifacts.read(uri)
        except Transient as error:
            return error.message
        wanted = "texts and their vectors as the build kept them; restore the file from a backup, or build again"
        if data is None:
            return describe(f"artifact {uri} is not there", wanted=wanted)
        return parse_probes(data) or describe(f"artifact {uri} holds no reference vectors", wanted=wanted)

    async def _pool(
        self,
        model: EmbeddingModel,
        registration: PoolRegistration | None,
        probes: dict[str, Probes],
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
        urls = {server.url for server in servers}
        refusals = {key: said for key, said in self.refusals.items() if key[0] in urls}
        return act.PoolFacts(registration, servers, dict(zip(checks, outcomes, strict=True)), refusals)

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

    async def _jobs(self, model: EmbeddingModel) -> tuple[JobState, ...]:
        """The model's worker Jobs; one without a candidate, that is not evaluated again, has none to wait for."""
        known = model.status.reevaluation
        waits = model.status.candidate is not None or (known is not None and known.asked is not None)
        if not waits and model.metadata.deletion_timestamp is None:
            return ()
        return await self._ports.jobs.owned(model.metadata.uid)

    async def _build(
        self, model: EmbeddingModel, jobs: tuple[JobState, ...]
    ) -> tuple[JobFacts | None, BuildResult | None]:
        candidate = model.status.candidate
        if candidate is None or candidate.engine_key is not None:
            return None, None
        name = build_job_name(model, candidate)
        template = model.spec.engine.worker.pod_template
        job = self._job(name, template, "build", "spec.engine.worker.podTemplate", jobs)
        answer, unread = await self._answer(name)
        job = replace(job, unread=unread)
        return job, answer if isinstance(answer, BuildResult) and answer.revision == candidate.revision else None

    async def _gate(
        self, model: EmbeddingModel, jobs: tuple[JobState, ...]
    ) -> tuple[JobFacts | None, EvaluateResult | None]:
        candidate = model.status.candidate
        if candidate is None or candidate.engine_key is None or gate_passed(model.status):
            return None, None
        name = gate_job_name(model, model.status, gate_digest(model.spec))
        return await self._evaluation(model, name, candidate.revision, jobs)

    async def _reevaluation(
        self, model: EmbeddingModel, jobs: tuple[JobState, ...]
    ) -> tuple[JobFacts | None, EvaluateResult | None]:
        active, known = model.status.active, model.status.reevaluation
        if model.status.candidate is not None or active is None or known is None or known.asked is None:
            return None, None
        if known.revision != active.revision:
            return None, None
        name = reevaluation_job_name(model, active, known.asked)
        return await self._evaluation(model, name, active.revision, jobs)

    async def _evaluation(
        self, model: EmbeddingModel, name: str, revision: str, jobs: tuple[JobState, ...]
    ) -> tuple[JobFacts, EvaluateResult | None]:
        template = model.spec.gate.worker.pod_template
        job = self._job(name, template, "evaluate", "spec.gate.worker.podTemplate", jobs)
        answer, unread = await self._answer(name)
        job = replace(job, unread=unread)
        return job, answer if isinstance(answer, EvaluateResult) and answer.revision == revision else None

    def _job(self, name: str, template: str, kind: str, field: str, jobs: tuple[JobState, ...]) -> JobFacts:
        problem = check_template(template, self._ports.jobs.pod_template(template), kind, field)
        return act.JobFacts(name, next((job for job in jobs if job.name == name), None), problem)

    async def _answer(self, job: str) -> tuple[BuildResult | EvaluateResult | object | None, str]:
        """The result object first, then a termination message; neither is no answer.

        With it, why that is unknown: a store that does not say whether there is a result is no sign that there is none.
        """
        facts = act.ModelFacts(artifacts=self._settings.artifacts, profile=None, serving=None, canary=None)
        data, unread = None, ""
        try:
            data = await self._ports.artifacts.read(result_uri(facts, job))
        except Transient as error:
            unread = error.message
        texts = [data.decode(errors="replace")] if data is not None else list(await self._ports.jobs.answers(job))
        for text in texts:
            try:
                return ANSWER.validate_json(text), ""
            except ValidationError:
                continue
        return None, unread


def parse_probes(data: bytes) -> Probes | None:
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
