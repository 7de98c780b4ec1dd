"""The stages of a candidate, in order: build, load on the canary pool, verify, gate, load on the serving pool, waves.

Each stage either says "done, go on" or stops the pass with what it waits for. Unknown is never success: a Job that is
complete without an answer is a new attempt, a server that says READY is believed only after a real inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.tasks import (
    EXIT_ACCURACY,
    EXIT_BAD_CHECKPOINT,
    EXIT_DIGEST_MISMATCH,
    Arm,
    BuildTask,
    EngineProfile,
    EvaluateTask,
    Founder,
)
from searchops.api.v1alpha1.embedding_model import EvidenceReference, ModelReason, VerdictStatus
from searchops.planning.conditions import Finding, no, yes
from searchops.planning.jobs import JobOrder
from searchops.planning.model_facts import CreateJob, DeleteJob, EmitEvent
from searchops.planning.names import job_name, space_id
from searchops.planning.rollout_waves import run_waves

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.tasks import BuildResult, EvaluateResult
    from searchops.api.v1alpha1.embedding_model import ChangeKind, EmbeddingModel, EmbeddingModelStatus, RevisionStatus
    from searchops.planning.model_facts import JobFacts, ModelAction, ModelFacts
    from searchops.planning.servers import PoolSync

SAME_SPACE_COSINE = 0.999
BUILD_DEADLINE = timedelta(hours=4)
GATE_DEADLINE = timedelta(hours=4)
JOB_POLL_SECONDS = 15.0
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a pass over the candidate stopped.

    Attributes:
        rejection: (outcome, reason, evidence URI) where the candidate is to be taken back.
    """

    status: EmbeddingModelStatus
    findings: tuple[Finding, ...]
    actions: tuple[ModelAction, ...] = ()
    requeue: float | None = None
    rejection: tuple[str, str, str | None] | None = None


def build_job_name(model: EmbeddingModel, revision: RevisionStatus) -> str:
    """The build Job of a revision and attempt."""
    return job_name("build", model.metadata.uid, revision.revision, _token(model), str(revision.attempt))


def gate_job_name(model: EmbeddingModel, status: EmbeddingModelStatus, gate: str) -> str:
    """The gate Job: another incumbent, gate or attempt is another question."""
    candidate = status.candidate
    assert candidate is not None, "a gate Job belongs to a candidate"  # noqa: S101 - caller's invariant
    incumbent = status.active.revision if status.active else "lexical"
    return job_name(
        "gate", model.metadata.uid, candidate.revision, incumbent, gate, _token(model), str(candidate.attempt)
    )


def _token(model: EmbeddingModel) -> str:
    return model.spec.rollout.retry_token


def advance(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    serving: PoolSync | None,
    canary: PoolSync | None,
    attempts: int,
    now: datetime,
) -> Stage:
    """Move the candidate as far as the facts allow in one pass."""
    candidate = status.candidate
    assert candidate is not None, "advance needs a candidate"  # noqa: S101 - caller's invariant
    findings: list[Finding] = []
    if candidate.engine_key is None:
        stage = _build(model, facts, status, candidate)
        if stage.status.candidate is None or stage.status.candidate.engine_key is None:
            return stage
        return Stage(stage.status, stage.findings, stage.actions, 0.0)
    findings.append(yes("EngineBuilt", ModelReason.BUILT, f"{candidate.backend}, space {candidate.space}"))
    if canary is None or serving is None:
        message = (
            f"spec.serving: pool {model.spec.serving.canary_pool or model.spec.serving.pool!r} is not registered; "
            "create a Secret labelled searchops.dev/pool in the operator's namespace"
        )
        return Stage(status, (*findings, no("Loaded", ModelReason.POOL_NOT_FOUND, message)), (), 30.0)
    if not canary.serves(candidate.revision):
        return _waiting_for_servers(status, findings, candidate.revision, canary)
    findings.append(yes("Loaded", ModelReason.LOADED, f"every canary server serves {candidate.revision}"))
    findings.append(yes("Verified", ModelReason.VERIFIED, "served vectors match the FP32 reference on every server"))
    undecided = _gate(model, facts, status, candidate, attempts, tuple(findings))
    if undecided is not None:
        return undecided
    verdict = status.verdict
    passed = (
        "judged before: still warm" if verdict is None else f"{verdict.outcome}: {verdict.message or 'gates A-D hold'}"
    )
    reason = ModelReason.SKIPPED_WARM if verdict is None else ModelReason.PASSED
    findings.append(yes("GatePassed", reason, passed))
    if model.spec.gate.mode == "DryRun":
        message = "spec.gate.mode is DryRun: the verdict is shown and nothing is rolled out"
        return Stage(status, (*findings, no("Progressing", ModelReason.DRY_RUN, message)), (), None)
    if not serving.serves(candidate.revision):
        return _waiting_for_servers(status, findings, candidate.revision, serving)
    waves = run_waves(model, facts, status, candidate, now)
    return Stage(waves.status, (*findings, *waves.findings), waves.actions, waves.requeue, waves.rejection)


def _waiting_for_servers(status: EmbeddingModelStatus, findings: list[Finding], revision: str, sync: PoolSync) -> Stage:
    missing = "; ".join(sync.missing.get(revision, ())) or "the pool has no server"
    inference = any("says" in problem for problem in sync.missing.get(revision, ()))
    kind, reason = ("Verified", ModelReason.VERIFY_FAILED) if inference else ("Loaded", ModelReason.LOADING)
    phase = "Verifying" if inference else "Loading"
    finding = no(kind, reason, f"waiting for every server: {missing}")
    progressing = no("Progressing", reason, f"waiting for servers to serve {revision}")
    return Stage(status.model_copy(update={"phase": phase}), (*findings, finding, progressing), (), 3.0)


def _build(model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, candidate: RevisionStatus) -> Stage:
    building = status.model_copy(update={"phase": "Building"})
    job = facts.build
    if not facts.source_allowed:
        message = f"spec.source.uri {model.spec.source.uri}: its prefix is not allowed by the operator's settings"
        return _stuck(status, "EngineBuilt", ModelReason.SOURCE_NOT_ALLOWED, message)
    if job is None or facts.serving is None:
        message = f"spec.serving.pool {model.spec.serving.pool!r} is not registered"
        return _stuck(status, "EngineBuilt", ModelReason.POOL_NOT_FOUND, message)
    result = facts.build_result
    if result is not None and result.exit_code == 0:
        return _built(status, candidate, result)
    if result is not None:
        return _build_failed(status, candidate, result)
    if job.problem is not None:
        reason = ModelReason.POD_TEMPLATE_NOT_FOUND if job.problem.missing else ModelReason.POD_TEMPLATE_NOT_ALLOWED
        return _stuck(status, "EngineBuilt", reason, job.problem.message)
    waiting = no("EngineBuilt", ModelReason.BUILDING, f"Job {job.name} builds {candidate.revision}")
    if job.state is None:
        order = _build_order(model, facts, status, candidate, job.name)
        create = CreateJob(order, model.spec.engine.worker.pod_template)
        return Stage(building, (waiting,), (create,), JOB_POLL_SECONDS)
    if job.state.complete or job.state.failure:
        return _without_answer(building, candidate, job, "EngineBuilt", ModelReason.BUILD_FAILED)
    return Stage(building, (waiting,), (), JOB_POLL_SECONDS)


def _without_answer(
    status: EmbeddingModelStatus, candidate: RevisionStatus, job: JobFacts, condition: str, reason: ModelReason
) -> Stage:
    """A Job that ended and said nothing: a new attempt while some are left, then a pause; never a verdict."""
    seen = f"{job.state.failure_reason} {job.state.failure}".strip() if job.state is not None else ""
    seen = seen or "it is complete"
    if candidate.attempt < MAX_ATTEMPTS:
        again = candidate.model_copy(update={"attempt": candidate.attempt + 1})
        message = f"Job {job.name} ended without an answer ({seen}); attempt {again.attempt} of {MAX_ATTEMPTS} follows"
        updated = status.model_copy(update={"candidate": again})
        return Stage(updated, (no(condition, reason, message),), (DeleteJob(job.name),), 1.0)
    message = (
        f"Job {job.name} ended without an answer ({seen}), as {MAX_ATTEMPTS} attempts did; look at its Pods' logs, "
        "then set spec.rollout.retryToken to try again"
    )
    return _stuck(status, condition, reason, message)


def _stuck(status: EmbeddingModelStatus, condition: str, reason: ModelReason, message: str) -> Stage:
    paused = status.model_copy(update={"phase": "Paused"})
    findings = (no(condition, reason, message), no("Progressing", reason, message), no("Ready", reason, message))
    return Stage(paused, findings, (), 30.0)


def _build_failed(status: EmbeddingModelStatus, candidate: RevisionStatus, result: BuildResult) -> Stage:
    reason = {
        EXIT_DIGEST_MISMATCH: ModelReason.DIGEST_MISMATCH,
        EXIT_BAD_CHECKPOINT: ModelReason.BAD_CHECKPOINT,
        EXIT_ACCURACY: ModelReason.ACCURACY_FAILED,
    }.get(result.exit_code, ModelReason.BUILD_FAILED)
    message = f"{candidate.revision} was not built: {result.message}; change spec.source or set spec.rollout.retryToken"
    return _stuck(status, "EngineBuilt", reason, message)


def _built(status: EmbeddingModelStatus, candidate: RevisionStatus, result: BuildResult) -> Stage:
    """The measured space: the founder's id where every anchor is equal, else an id of its own."""
    active = status.active
    cosine = result.anchor_cosine.get(active.space or "", -1.0) if active is not None else -1.0
    same = active is not None and active.space is not None and cosine >= SAME_SPACE_COSINE
    if same and active is not None:
        space, founder = active.space, active.founder or active.revision
        anchors = active.anchors
    else:
        founder = candidate.revision
        space = space_id(result.fingerprint, result.precision, result.max_tokens, founder)
        anchors = result.anchors
    built = candidate.model_copy(
        update={
            "space": space,
            "space_change": "Same" if same else "Incompatible",
            "founder": founder,
            "dimension": result.dimension,
            "max_tokens": result.max_tokens,
            "engine_key": result.engine_key,
            "manifest_digest": result.manifest_digest,
            "backend": f"{result.backend} {result.precision}".strip(),
            "anchors": anchors,
            "probes": result.probes,
        }
    )
    smallest = result.accuracy.min_cosine if result.accuracy is not None else float("nan")
    why = f"; {result.backend_reason}" if result.backend_reason else ""
    message = f"{built.backend}, smallest cosine to FP32 {smallest:.6f}, space {space} ({built.space_change}){why}"
    event = EmitEvent("EngineBuilt", f"{candidate.revision}: {message}")
    updated = status.model_copy(update={"candidate": built, "phase": "Loading"})
    return Stage(updated, (yes("EngineBuilt", ModelReason.BUILT, message),), (event,), 0.0)


def _build_order(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, candidate: RevisionStatus, name: str
) -> JobOrder:
    spec = model.spec
    pools = [pool.registration for pool in (facts.canary, facts.serving) if pool is not None]
    folder = f"{facts.artifacts}/models/{model.metadata.name}/{candidate.revision}"
    active = status.active
    founders = (Founder(space=active.space, anchors=active.anchors),) if _has_anchors(active) and active else ()
    task = BuildTask(
        model=model.metadata.name,
        revision=candidate.revision,
        number=candidate.number,
        source=spec.source,
        engine=EngineProfile(
            backend=spec.engine.backend,
            precision=spec.engine.precision,
            max_batch=spec.engine.max_batch,
            buckets=spec.engine.buckets,
        ),
        accelerator=pools[0].accelerator,
        repositories=tuple(dict.fromkeys(pool.repository for pool in pools)),
        artifacts=folder,
        holdouts=spec.gate.holdouts,
        founders=founders,
        result_uri=result_uri(facts, name),
    )
    return JobOrder(name, "build", task, model.metadata, "EmbeddingModel", BUILD_DEADLINE)


def _has_anchors(active: RevisionStatus | None) -> bool:
    return active is not None and active.space is not None and active.anchors is not None


def result_uri(facts: ModelFacts, job: str) -> str:
    """Where a Job of a model writes its answer first."""
    return f"{facts.artifacts}/results/{job}.json"


def change_kind(model: EmbeddingModel, status: EmbeddingModelStatus) -> ChangeKind:
    """Which margins apply: the measured space decides, unless the spec does."""
    if model.spec.gate.change != "Auto":
        return model.spec.gate.change
    if status.active is None:
        return "First"
    candidate = status.candidate
    return "Repackage" if candidate is not None and candidate.space_change == "Same" else "Model"


def _gate(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    candidate: RevisionStatus,
    attempts: int,
    findings: tuple[Finding, ...],
) -> Stage | None:
    """None where the candidate has passed."""
    if candidate.promoted_at is not None:
        return None
    verdict = status.verdict
    if verdict is not None and verdict.revision == candidate.revision:
        if verdict.outcome in ("Pass", "Better"):
            return None
        return _judge(model, status, verdict, findings)
    gating = status.model_copy(update={"phase": "Gating"})
    job, result = facts.gate, facts.gate_result
    if result is not None:
        event = EmitEvent("VerdictReached", f"{candidate.revision}: {result.outcome} {result.message}".strip())
        updated = gating.model_copy(update={"verdict": _verdict(model, status, result)})
        return Stage(updated, findings, (event,), 0.0)
    if job is None or facts.profile is None:
        message = f"spec.gate.profile {model.spec.gate.profile!r} is not a built-in retrieval profile"
        return _with(findings, _stuck(status, "GatePassed", ModelReason.INVALID_SPEC, message))
    if job.problem is not None:
        reason = ModelReason.POD_TEMPLATE_NOT_FOUND if job.problem.missing else ModelReason.POD_TEMPLATE_NOT_ALLOWED
        return _with(findings, _stuck(status, "GatePassed", reason, job.problem.message))
    waiting = no("GatePassed", ModelReason.GATING, f"Job {job.name} evaluates {candidate.revision}")
    if job.state is None:
        order = _gate_order(model, facts, status, candidate, attempts, job.name)
        create = CreateJob(order, model.spec.gate.worker.pod_template)
        return Stage(gating, (*findings, waiting), (create,), JOB_POLL_SECONDS)
    if job.state.complete or job.state.failure:
        return _with(findings, _without_answer(gating, candidate, job, "GatePassed", ModelReason.GATE_INVALID))
    return Stage(gating, (*findings, waiting), (), JOB_POLL_SECONDS)


def _with(findings: tuple[Finding, ...], stage: Stage) -> Stage:
    return Stage(stage.status, (*findings, *stage.findings), stage.actions, stage.requeue, stage.rejection)


def _verdict(model: EmbeddingModel, status: EmbeddingModelStatus, result: EvaluateResult) -> VerdictStatus:
    evidence = (
        EvidenceReference(uri=result.evidence_uri, digest=result.evidence_digest) if result.evidence_digest else None
    )
    return VerdictStatus(
        revision=result.revision,
        change=change_kind(model, status),
        outcome=result.outcome,
        lost=result.lost,
        of=result.of,
        loss_bound=result.loss_bound or None,
        ndcg_delta=result.ndcg_delta or None,
        ndcg_interval=result.ndcg_interval,
        reason=result.reason[:256] or None,
        message=result.message[:2048] or None,
        evidence=evidence,
    )


def _judge(
    model: EmbeddingModel, status: EmbeddingModelStatus, verdict: VerdictStatus, findings: tuple[Finding, ...]
) -> Stage:
    said = f"{verdict.outcome}: {verdict.message or verdict.reason or 'no reason given'}"
    evidence = verdict.evidence.uri if verdict.evidence is not None else None
    rolls_back = verdict.outcome == "Regressed" or (
        verdict.outcome == "Inconclusive" and model.spec.gate.on_inconclusive == "Rollback"
    )
    if rolls_back and model.spec.gate.mode == "Enforce":
        reason = ModelReason.REGRESSED if verdict.outcome == "Regressed" else ModelReason.INCONCLUSIVE
        finding = no("GatePassed", reason, said)
        return Stage(status, (*findings, finding), (), 0.0, (verdict.outcome, said, evidence))
    reason = {
        "Inconclusive": ModelReason.INCONCLUSIVE,
        "Invalid": ModelReason.GATE_INVALID,
        "Regressed": ModelReason.REGRESSED,
    }[verdict.outcome]
    paused = status.model_copy(update={"phase": "Paused"})
    wanted = f"{said}; nothing is promoted; settle what it names, then set spec.rollout.retryToken to gate again"
    return Stage(paused, (*findings, no("GatePassed", reason, wanted), no("Progressing", reason, wanted)), (), None)


def _gate_order(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    candidate: RevisionStatus,
    attempts: int,
    name: str,
) -> JobOrder:
    assert facts.canary is not None and facts.profile is not None, "checked by the caller"  # noqa: S101
    active = status.active
    incumbent = (
        Arm(revision=active.revision, encoder=active.revision, space=active.space, dimension=active.dimension)
        if active is not None
        else Arm(revision="lexical")
    )
    anchored = [item.evidence for item in (active, *status.retiring) if item is not None and item.evidence is not None]
    task = EvaluateTask(
        model=model.metadata.name,
        change=change_kind(model, status),
        incumbent=incumbent,
        candidate=Arm(
            revision=candidate.revision,
            encoder=candidate.revision,
            space=candidate.space,
            dimension=candidate.dimension,
        ),
        servers=facts.canary.registration.grpc_urls,
        holdouts=model.spec.gate.holdouts,
        margins=model.spec.gate.margins,
        profile=facts.profile,
        attempts=attempts,
        anchored=tuple(anchored[:5]),
        embeddings=f"{facts.artifacts}/embeddings",
        evidence_uri=f"{facts.artifacts}/evidence/{name}.json",
        result_uri=result_uri(facts, name),
    )
    return JobOrder(name, "evaluate", task, model.metadata, "EmbeddingModel", GATE_DEADLINE)
