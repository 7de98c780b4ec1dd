"""The stages of a candidate, in order: build, load on the canary pool, verify, gate, load on the serving pool, waves.

Each stage either says "done, go on" or stops the pass with what it waits for. Unknown is never success: a Job that is
complete without an answer is a new attempt, a server that says READY is believed only after a real inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.tasks import (
    EXIT_ACCURACY,
    EXIT_BAD_CHECKPOINT,
    EXIT_DIGEST_MISMATCH,
    FINAL_EXIT_CODES,
)
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import AttemptStatus
from searchops.planning.conditions import Finding, no, unknown, yes
from searchops.planning.model_facts import CreateJob, DeleteJob, EmitEvent, WriteState
from searchops.planning.names import space_id
from searchops.planning.rollout_choice import gate_passed, with_attempt
from searchops.planning.rollout_orders import build_order, change_kind, evidence_uri, gate_order
from searchops.planning.rollout_report import verdict_of, verdict_text
from searchops.planning.rollout_waves import run_waves
from searchops.planning.server_troubles import MAX_RELOADS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.tasks import BuildResult, EvaluateResult
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus, VerdictStatus
    from searchops.planning.model_facts import JobFacts, ModelAction, ModelFacts
    from searchops.planning.servers import PoolSync

SAME_SPACE_COSINE = 0.999
JOB_POLL_SECONDS = 15.0
POOL_POLL_SECONDS = 30.0
STORE_POLL_SECONDS = 15.0
SUPERSEDE_POLL_SECONDS = 2.0
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


def advance(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    serving: PoolSync | None,
    canary: PoolSync | None,
    now: datetime,
) -> Stage:
    """Move the candidate as far as the facts allow in one pass."""
    candidate = status.candidate
    assert candidate is not None, "advance needs a candidate"  # noqa: S101 - caller's invariant
    findings: list[Finding] = []
    if facts.superseded:
        return _superseding(facts, status)
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
        unregistered = (
            no("Loaded", ModelReason.POOL_NOT_FOUND, message),
            no("Progressing", ModelReason.POOL_NOT_FOUND, message),
        )
        return Stage(status, (*findings, *unregistered), (), 30.0)
    if not canary.serves(candidate.revision):
        return _waiting_for_servers(facts, status, findings, candidate.revision, canary)
    findings.append(yes("Loaded", ModelReason.LOADED, f"every canary server serves {candidate.revision}"))
    findings.append(yes("Verified", ModelReason.VERIFIED, "served vectors match the FP32 reference on every server"))
    if not gate_passed(status):
        return _gate(model, facts, status, canary, tuple(findings), now)
    warm = status.verdict is None
    reason = ModelReason.SKIPPED_WARM if warm else ModelReason.PASSED
    findings.append(yes("GatePassed", reason, "judged before: still warm" if warm else verdict_text(status)))
    if model.spec.gate.mode == "DryRun":
        message = "spec.gate.mode is DryRun: the verdict is shown and nothing is rolled out"
        return Stage(status, (*findings, no("Progressing", ModelReason.DRY_RUN, message)), (), None)
    if not serving.serves(candidate.revision):
        return _waiting_for_servers(facts, status, findings, candidate.revision, serving)
    waves = run_waves(model, facts, status, candidate, serving, now)
    return Stage(waves.status, (*findings, *waves.findings), waves.actions, waves.requeue, waves.rejection)


def _waiting_for_servers(
    facts: ModelFacts, status: EmbeddingModelStatus, findings: Sequence[Finding], revision: str, sync: PoolSync
) -> Stage:
    """The pass that follows comes with the servers' own patience; the artifact store is looked at calmly."""
    missing = "; ".join(sync.waits_for(revision)) or "the pool has no server"
    loaded = sync.total > 0 and (revision in sync.broken or not sync.missing.get(revision))
    unread = facts.unread_probes.get(revision)
    if loaded and unread is not None and revision not in sync.broken:
        message = f"no server's vectors can be proved: the reference vectors of {revision} are not read: {unread}"
        said = (
            unknown("Verified", ModelReason.ARTIFACTS_UNREADABLE, message),
            unknown("Progressing", ModelReason.ARTIFACTS_UNREADABLE, message),
        )
        return Stage(status.model_copy(update={"phase": "Verifying"}), (*findings, *said), (), STORE_POLL_SECONDS)
    troubles = [trouble for trouble in sync.troubles if trouble.revision == revision]
    unloadable = any(trouble.reason == "NotLoaded" and trouble.attempts >= MAX_ATTEMPTS for trouble in troubles)
    unmendable = any(trouble.reason == "WrongVectors" and trouble.reloads >= MAX_RELOADS for trouble in troubles)
    not_loaded = ModelReason.LOAD_FAILED if unloadable else ModelReason.LOADING
    kind, reason = ("Verified", ModelReason.VERIFY_FAILED) if loaded else ("Loaded", not_loaded)
    phase = "Verifying" if loaded else "Loading"
    finding = no(kind, reason, f"waiting for every server: {missing}")
    if unmendable if loaded else unloadable:
        progressing = no("Progressing", reason, f"servers were tried in vain, and a person is needed: {missing}")
    else:
        progressing = yes("Progressing", reason, f"waiting for servers to serve {revision}")
    waiting = status.model_copy(update={"phase": phase})
    return Stage(waiting, (*findings, finding, progressing), (), POOL_POLL_SECONDS)


def _unread(status: EmbeddingModelStatus, condition: str, job: JobFacts) -> Stage:
    """Whether the Job has answered is not known: neither another attempt nor a verdict may follow from that."""
    message = f"it is unknown whether Job {job.name} has answered: {job.unread}"
    findings = (
        unknown(condition, ModelReason.ARTIFACTS_UNREADABLE, message),
        unknown("Progressing", ModelReason.ARTIFACTS_UNREADABLE, message),
    )
    return Stage(status, findings, (), STORE_POLL_SECONDS)


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
    running = job.state is not None and not (job.state.complete or job.state.failure)
    if result is not None and (result.exit_code in FINAL_EXIT_CODES or not running):
        return _build_failed(status, candidate, result)
    if result is None and job.unread and not running:
        return _unread(building, "EngineBuilt", job)
    if job.problem is not None:
        reason = ModelReason.POD_TEMPLATE_NOT_FOUND if job.problem.missing else ModelReason.POD_TEMPLATE_NOT_ALLOWED
        return _stuck(status, "EngineBuilt", reason, job.problem.message)
    waiting = no("EngineBuilt", ModelReason.BUILDING, _building(job, candidate, result))
    if job.state is None:
        order = build_order(model, facts, status, candidate, job.name)
        create = CreateJob(order, model.spec.engine.worker.pod_template)
        return Stage(building, (waiting,), (create,), JOB_POLL_SECONDS)
    if job.state.complete or job.state.failure:
        return _without_answer(building, candidate, job, "EngineBuilt", ModelReason.BUILD_FAILED)
    return Stage(building, (waiting,), (), JOB_POLL_SECONDS)


def _building(job: JobFacts, candidate: RevisionStatus, result: BuildResult | None) -> str:
    """What the Job does; where a try of its own has failed already, why: a full volume is not found out hours later."""
    said = f"Job {job.name} builds {candidate.revision}"
    if result is None:
        return said
    return (
        f"{said} again: its last try ended with exit code {result.exit_code}: {result.message}; it goes on by itself "
        "once that is put right"
    )


def _superseding(facts: ModelFacts, status: EmbeddingModelStatus) -> Stage:
    """What runs for an earlier question ends first: two Jobs must not build or judge one revision at the same time."""
    names = ", ".join(job.name for job in facts.superseded)
    building = facts.build is not None
    condition, reason = ("EngineBuilt", ModelReason.BUILDING) if building else ("GatePassed", ModelReason.GATING)
    message = f"Job {names} is being stopped, because a changed spec or retry token asks for another one, which follows"
    stop = tuple(DeleteJob(job.name, job.uid) for job in facts.superseded)
    ending = status.model_copy(update={"phase": "Building" if building else "Gating"})
    return Stage(ending, (no(condition, reason, message),), stop, SUPERSEDE_POLL_SECONDS)


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
        stop = (DeleteJob(job.name, job.state.uid),) if job.state is not None else ()
        return Stage(updated, (no(condition, reason, message),), stop, 1.0)
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
            "attempt": 1,
        }
    )
    smallest = result.accuracy.min_cosine if result.accuracy is not None else float("nan")
    why = f"; {result.backend_reason}" if result.backend_reason else ""
    message = f"{built.backend}, smallest cosine to FP32 {smallest:.6f}, space {space} ({built.space_change}){why}"
    event = EmitEvent("EngineBuilt", f"{candidate.revision}: {message}")
    updated = status.model_copy(update={"candidate": built, "phase": "Loading"})
    return Stage(updated, (yes("EngineBuilt", ModelReason.BUILT, message),), (event,), 0.0)


def _gate(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    canary: PoolSync,
    findings: tuple[Finding, ...],
    now: datetime,
) -> Stage:
    """The gate of a candidate that has not passed.

    A verdict that holds it back stands while its Job's answer is there: a new retry token, holdout or margin is
    another Job.
    """
    candidate = status.candidate
    assert candidate is not None, "only a candidate is gated"  # noqa: S101 - caller's invariant
    job, result = facts.gate, facts.gate_result
    if result is not None:
        return _answered(model, facts, status, result, findings, now)
    if job is None or facts.profile is None:
        message = f"spec.gate.profile {model.spec.gate.profile!r} is not a built-in retrieval profile"
        return _with(findings, _stuck(status, "GatePassed", ModelReason.INVALID_SPEC, message))
    running = job.state is not None and not (job.state.complete or job.state.failure)
    if job.unread and not running:
        return _with(findings, _unread(status.model_copy(update={"phase": "Gating"}), "GatePassed", job))
    if job.problem is not None:
        reason = ModelReason.POD_TEMPLATE_NOT_FOUND if job.problem.missing else ModelReason.POD_TEMPLATE_NOT_ALLOWED
        return _with(findings, _stuck(status, "GatePassed", reason, job.problem.message))
    gating = status.model_copy(update={"phase": "Gating", "verdict": None})
    waiting = no("GatePassed", ModelReason.GATING, f"Job {job.name} evaluates {candidate.revision}")
    if job.state is None:
        active = status.active
        if active is not None and not canary.serves(active.revision):
            return _waiting_for_servers(facts, gating, findings, active.revision, canary)
        order = gate_order(model, facts, status, candidate, job.name, now)
        create = CreateJob(order, model.spec.gate.worker.pod_template)
        return Stage(gating, (*findings, waiting), (create,), JOB_POLL_SECONDS)
    if job.state.complete or job.state.failure:
        return _with(findings, _without_answer(gating, candidate, job, "GatePassed", ModelReason.GATE_INVALID))
    return Stage(gating, (*findings, waiting), (), JOB_POLL_SECONDS)


def _answered(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    result: EvaluateResult,
    findings: tuple[Finding, ...],
    now: datetime,
) -> Stage:
    """The verdict is told and written first, and kept with what it has worn; what follows from it is the next pass."""
    verdict = verdict_of(result, change_kind(model, status))
    if status.verdict != verdict:
        event = EmitEvent("VerdictReached", f"{result.revision}: {result.outcome} {result.message}".strip())
        updated = status.model_copy(update={"phase": "Gating", "verdict": verdict})
        said = no("GatePassed", ModelReason.GATING, f"the verdict is {verdict_text(updated)}")
        candidate = status.candidate
        if result.outcome == "Invalid" or candidate is None or facts.gate is None:
            return Stage(updated, (*findings, said), (event,), 0.0)
        attempt = AttemptStatus(
            digest=candidate.digest, at=format_time(now), evidence=evidence_uri(facts, facts.gate.name)
        )
        updated = with_attempt(updated, attempt)
        return Stage(updated, (*findings, said), (WriteState(updated), event), 0.0)
    return _judge(model, status, verdict, findings)


def _with(findings: tuple[Finding, ...], stage: Stage) -> Stage:
    return Stage(stage.status, (*findings, *stage.findings), stage.actions, stage.requeue, stage.rejection)


def _judge(
    model: EmbeddingModel, status: EmbeddingModelStatus, verdict: VerdictStatus, findings: tuple[Finding, ...]
) -> Stage:
    said = verdict_text(status)
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
    held = (no("GatePassed", reason, wanted), no("Progressing", reason, wanted), no("Ready", reason, wanted))
    return Stage(paused, (*findings, *held), (), None)
