"""The whole life of a model as one pure function: ``(spec, status, facts, now) -> plan``, restartable from status.

Resolve, build, load on the canary pool, verify, gate, load on the serving pool, waves, promote; anything wrong takes
the candidate back. The rollout starts from the last *promoted* revision, however many candidates came between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.v1alpha1.embedding_model import (
    EmbeddingModelStatus,
    FleetStatus,
    HistoryEntry,
    ModelReason,
    RejectedStatus,
    RevisionStatus,
    ServersStatus,
)
from searchops.planning.conditions import Finding, no, stamp, unknown, yes
from searchops.planning.model_facts import (
    AddFinalizer,
    DeleteJob,
    EmitEvent,
    ModelAction,
    ModelFacts,
    ModelPlan,
    RemoveFinalizer,
    UnloadModel,
    WriteState,
)
from searchops.planning.names import (
    FINALIZER,
    PAUSE_ANNOTATION,
    RETRY_ANNOTATION,
    ROLLBACK_ANNOTATION,
    is_revision_of,
    revision_name,
    short_hash,
)
from searchops.planning.rollout_stages import Stage, advance
from searchops.planning.servers import PoolSync, sync_pool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel, EmbeddingModelSpec

MAX_HISTORY = 30
MAX_REJECTED = 20
WEAR_WINDOW = timedelta(days=30)
SERVER_POLL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Desired:
    """What the spec asks for, as keys that can be compared with what was built or refused."""

    digest: str
    profile: str
    gate: str
    retry_token: str


def desired_of(model: EmbeddingModel) -> Desired:
    """The comparable keys of a spec."""
    spec = model.spec
    engine = spec.engine.model_dump_json(by_alias=True, exclude={"worker"})
    return Desired(
        digest=spec.source.digest,
        profile=short_hash(engine, length=12),
        gate=gate_digest(spec),
        retry_token=spec.rollout.retry_token + model.metadata.annotations.get(RETRY_ANNOTATION, ""),
    )


def gate_digest(spec: EmbeddingModelSpec) -> str:
    """The rules a verdict was given under: another holdout, margin or profile is another question."""
    gate = spec.gate.model_dump_json(by_alias=True, exclude={"worker", "mode", "on_inconclusive"})
    return short_hash(gate, length=12)


def plan_model(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    """One pass over one EmbeddingModel.

    Args:
        model: the object as cached.
        facts: everything that was read for it.
        now: the time of the pass.
    """
    if model.metadata.deletion_timestamp is not None:
        return _delete(model, facts, now)
    if FINALIZER not in model.metadata.finalizers:
        return ModelPlan((AddFinalizer(),), None, 0.0)
    status = model.status
    if status.active is None and status.next_number is None:
        if facts.stored is not None:
            status = _restore(status, facts.stored)
        elif facts.bindings_of_this_model:
            return _state_unknown(model, facts, now)
    status, actions = _choose_candidate(model, facts, status, now)
    if actions:
        return ModelPlan((*actions, WriteState(status)), _stamped(model, status, now), 0.0)
    return _drive(model, facts, status, now)


def _restore(status: EmbeddingModelStatus, stored: EmbeddingModelStatus) -> EmbeddingModelStatus:
    return status.model_copy(
        update={
            "active": stored.active,
            "retiring": stored.retiring,
            "rejected": stored.rejected,
            "next_number": stored.next_number,
        }
    )


def _choose_candidate(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime
) -> tuple[EmbeddingModelStatus, list[ModelAction]]:
    """The candidate that the spec asks for; actions only where the choice changed."""
    desired = desired_of(model)
    wanted = (desired.digest, desired.profile)
    candidate = status.candidate
    dropped: list[ModelAction] = [DeleteJob(job.name) for job in (facts.build, facts.gate) if job is not None]
    if status.active is not None and (status.active.digest, status.active.profile_digest) == wanted:
        return (_without_candidate(status, now), dropped) if candidate is not None else (status, [])
    if is_rejected(status.rejected, desired):
        return (_without_candidate(status, now), dropped) if candidate is not None else (status, [])
    if candidate is not None and (candidate.digest, candidate.profile_digest) == wanted:
        return status, []
    return _new_candidate(model, status, desired, now, dropped if candidate is not None else [])


def _new_candidate(
    model: EmbeddingModel,
    status: EmbeddingModelStatus,
    desired: Desired,
    now: datetime,
    dropped: list[ModelAction],
) -> tuple[EmbeddingModelStatus, list[ModelAction]]:
    superseded = _without_candidate(status, now) if status.candidate is not None else status
    warm = _warm(superseded.retiring, desired, now)
    if warm is not None:
        remaining = tuple(item for item in superseded.retiring if item.revision != warm.revision)
        chosen = warm.model_copy(update={"retire_after": None, "space_change": _space_change(superseded, warm)})
        update = {"candidate": chosen, "retiring": remaining, "wave": None, "verdict": None}
        event = EmitEvent(
            "CandidateChosen", f"{warm.revision} is still warm inside the rollback window: build and gate are skipped"
        )
        return superseded.model_copy(update=update), [*dropped, event]
    number = superseded.next_number or 1
    chosen = RevisionStatus(
        revision=revision_name(model.metadata.name, number, desired.digest),
        number=number,
        digest=desired.digest,
        profile_digest=desired.profile,
    )
    update = {"candidate": chosen, "next_number": number + 1, "wave": None, "verdict": None}
    return superseded.model_copy(update=update), [
        *dropped,
        EmitEvent("CandidateChosen", f"{chosen.revision} will be built from {model.spec.source.uri}"),
    ]


def _space_change(status: EmbeddingModelStatus, revision: RevisionStatus) -> str:
    same = status.active is not None and status.active.space == revision.space
    return "Same" if same else "Incompatible"


def _without_candidate(status: EmbeddingModelStatus, now: datetime) -> EmbeddingModelStatus:
    """The status after the candidate was superseded; tenants already bound to it go back by the wave rule."""
    candidate = status.candidate
    history = status.history
    if candidate is not None:
        entry = HistoryEntry(revision=candidate.revision, event="Superseded", at=format_time(now))
        history = (*history, entry)[-MAX_HISTORY:]
    return status.model_copy(update={"candidate": None, "wave": None, "verdict": None, "history": history})


def _warm(retiring: Sequence[RevisionStatus], desired: Desired, now: datetime) -> RevisionStatus | None:
    for revision in retiring:
        inside = revision.retire_after is not None and parse_time(revision.retire_after) > now
        if inside and (revision.digest, revision.profile_digest) == (desired.digest, desired.profile):
            return revision
    return None


def is_rejected(rejected: Sequence[RejectedStatus], desired: Desired) -> bool:
    """Whether this digest was refused under this gate and nobody asked to try again."""
    return any(
        (entry.digest, entry.gate, entry.retry_token) == (desired.digest, desired.gate, desired.retry_token)
        for entry in rejected
    )


def wear_attempts(status: EmbeddingModelStatus, now: datetime) -> int:
    """Earlier digests decided within 30 days: each halves the α of the next (rollout design, *Wear*)."""
    recent = [entry for entry in status.history if entry.event in ("Promoted", "Rejected")]
    return len({entry.revision for entry in recent if parse_time(entry.at) > now - WEAR_WINDOW})


def _drive(model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime) -> ModelPlan:
    """Keep every server in step with the wanted set, and move the candidate one stage."""
    name = model.metadata.name
    status = _retire(status, now)
    paused = model.spec.paused or PAUSE_ANNOTATION in model.metadata.annotations
    serving = sync_pool(name, facts.serving, wanted_on_serving(status, facts)) if facts.serving else None
    canary = sync_pool(name, facts.canary, wanted_on_canary(status, facts)) if facts.canary else None
    actions: list[ModelAction] = []
    for sync in _distinct(facts, serving, canary):
        actions += [*sync.unloads, *sync.loads]
    rollback = model.metadata.annotations.get(ROLLBACK_ANNOTATION)
    candidate = status.candidate
    if candidate is not None and rollback == candidate.revision:
        status, more = reject(
            model, status, "RolledBack", "taken back by the annotation searchops.dev/rollback", now, None
        )
        stage = Stage(status, _settled(model, status), tuple(more), 0.0)
    elif candidate is None:
        stage = Stage(status, _settled(model, status), (), None)
    elif paused:
        message = f"paused with candidate {candidate.revision}; remove spec.paused or the pause annotation to go on"
        findings = (no("Progressing", ModelReason.PAUSED, message),)
        stage = Stage(status.model_copy(update={"phase": "Paused"}), findings, (), None)
    else:
        stage = advance(model, facts, status, serving, canary, wear_attempts(status, now), now)
        if stage.rejection is not None:
            outcome, reason, evidence = stage.rejection
            rejected, more = reject(model, stage.status, outcome, reason, now, evidence)
            stage = replace(
                stage, status=rejected, findings=_settled(model, rejected), actions=(*stage.actions, *more), requeue=0.0
            )
    return _finish(model, facts, stage, serving, canary, tuple(actions), now)


def _finish(
    model: EmbeddingModel,
    facts: ModelFacts,
    stage: Stage,
    serving: PoolSync | None,
    canary: PoolSync | None,
    sync_actions: tuple[ModelAction, ...],
    now: datetime,
) -> ModelPlan:
    syncs = _distinct(facts, serving, canary)
    status = stage.status
    total, in_sync = sum(sync.total for sync in syncs), sum(sync.in_sync for sync in syncs)
    servers = ServersStatus(total=total, in_sync=in_sync)
    status = status.model_copy(update={"tenants": fleet_status(status, facts), "servers": servers})
    findings = {finding.type: finding for finding in (*_standing(status, facts, syncs, now), *stage.findings)}
    status = _stamped(model, status, now, tuple(findings.values()))
    requeue = stage.requeue
    if in_sync < total or total == 0:
        requeue = SERVER_POLL_SECONDS if requeue is None else min(requeue, SERVER_POLL_SECONDS)
    return ModelPlan((*sync_actions, *stage.actions), status, requeue)


def _distinct(facts: ModelFacts, serving: PoolSync | None, canary: PoolSync | None) -> tuple[PoolSync, ...]:
    """The pools' syncs, once where canary and serving are the same pool."""
    same = facts.serving is not None and facts.canary is not None
    if same and facts.serving.registration.name == facts.canary.registration.name:  # type: ignore[union-attr]
        return (canary,) if canary is not None else ()
    return tuple(sync for sync in (serving, canary) if sync is not None)


def wanted_on_serving(status: EmbeddingModelStatus, facts: ModelFacts) -> tuple[str, ...]:
    """Active, what bindings name, what a rollback may need, and a candidate that the gate let through."""
    wanted = _base_wanted(status, facts)
    candidate = status.candidate
    if candidate is not None and (gate_passed(status) or _one_pool(facts)) and candidate.engine_key:
        wanted.append(candidate.revision)
    return tuple(dict.fromkeys(wanted))


def wanted_on_canary(status: EmbeddingModelStatus, facts: ModelFacts) -> tuple[str, ...]:
    """Incumbent and candidate: both are evaluated there."""
    wanted = _base_wanted(status, facts) if _one_pool(facts) else []
    if status.active is not None:
        wanted.append(status.active.revision)
    if status.candidate is not None and status.candidate.engine_key:
        wanted.append(status.candidate.revision)
    return tuple(dict.fromkeys(wanted))


def _one_pool(facts: ModelFacts) -> bool:
    if facts.serving is None or facts.canary is None:
        return False
    return facts.serving.registration.name == facts.canary.registration.name


def _base_wanted(status: EmbeddingModelStatus, facts: ModelFacts) -> list[str]:
    wanted = [status.active.revision] if status.active is not None else []
    wanted += [revision.revision for revision in status.retiring]
    for tenant in facts.tenants:
        wanted += [revision for revision in (tenant.bound, tenant.previous) if revision is not None]
    return wanted


def gate_passed(status: EmbeddingModelStatus) -> bool:
    """Whether the candidate's own verdict lets it through; a warm revision was judged before."""
    candidate, verdict = status.candidate, status.verdict
    if candidate is None:
        return False
    if candidate.promoted_at is not None:
        return True
    return verdict is not None and verdict.revision == candidate.revision and verdict.outcome in ("Pass", "Better")


def _retire(status: EmbeddingModelStatus, now: datetime) -> EmbeddingModelStatus:
    kept = tuple(item for item in status.retiring if item.retire_after and parse_time(item.retire_after) > now)
    return status if kept == status.retiring else status.model_copy(update={"retiring": kept})


def fleet_status(status: EmbeddingModelStatus, facts: ModelFacts) -> FleetStatus:
    """Counters over the tenants that name the model; bound means bound to what is being rolled out or active."""
    target = status.candidate if status.wave is not None and status.candidate is not None else status.active
    bound = sum(1 for tenant in facts.tenants if target is not None and tenant.bound == target.revision)
    return FleetStatus(
        total=len(facts.tenants),
        bound=bound,
        rebuilding=sum(tenant.rebuilding for tenant in facts.tenants),
        reverted=sum(tenant.failed for tenant in facts.tenants),
        held=sum(tenant.held for tenant in facts.tenants),
    )


def reject(
    model: EmbeddingModel,
    status: EmbeddingModelStatus,
    outcome: str,
    reason: str,
    now: datetime,
    evidence: str | None,
) -> tuple[EmbeddingModelStatus, list[ModelAction]]:
    """Take the candidate back and remember it, so that syncing the same commit again does nothing."""
    candidate = status.candidate
    assert candidate is not None, "only a candidate can be rejected"  # noqa: S101 - caller's invariant
    desired = desired_of(model)
    verdict = status.verdict
    entry = RejectedStatus(
        revision=candidate.revision,
        digest=desired.digest,
        gate=desired.gate,
        outcome=outcome,
        reason=reason[:1024],
        retry_token=desired.retry_token,
        at=format_time(now),
        evidence=verdict.evidence if verdict is not None and evidence is not None else None,
    )
    history = HistoryEntry(revision=candidate.revision, event="Rejected", at=format_time(now), message=outcome)
    updated = status.model_copy(
        update={
            "candidate": None,
            "wave": None,
            "rejected": (*status.rejected, entry)[-MAX_REJECTED:],
            "history": (*status.history, history)[-MAX_HISTORY:],
            "phase": "RolledBack",
        }
    )
    event = EmitEvent("CandidateRejected", f"{candidate.revision} is {outcome}: {reason}", warning=True)
    return updated, [WriteState(updated), event]


def _settled(model: EmbeddingModel, status: EmbeddingModelStatus) -> tuple[Finding, ...]:
    """Findings where there is no candidate: promoted, or rolled back with the reason."""
    desired = desired_of(model)
    refused = next(
        (entry for entry in reversed(status.rejected) if entry.digest == desired.digest and entry.gate == desired.gate),
        None,
    )
    active = status.active
    if active is not None and (active.digest, active.profile_digest) == (desired.digest, desired.profile):
        return (
            yes("Ready", ModelReason.PROMOTED, f"{active.revision} is active"),
            yes("Progressing", ModelReason.PROMOTED, "nothing is being rolled out"),
        )
    if refused is not None:
        serving = f"{active.revision} stays active" if active else "tenants stay on the lexical legs"
        message = (
            f"{refused.revision} was refused ({refused.outcome}): {refused.reason}; {serving}; revert "
            "spec.source, or set spec.rollout.retryToken to try the same digest again"
        )
        return (
            no("Ready", ModelReason.REJECTED, message),
            no("Progressing", ModelReason.ROLLED_BACK, message),
        )
    return (unknown("Progressing", ModelReason.WAITING, "no candidate was chosen yet"),)


def _standing(
    status: EmbeddingModelStatus, facts: ModelFacts, syncs: Sequence[PoolSync], now: datetime
) -> tuple[Finding, ...]:
    """Findings that hold whatever the stage: servers, rollback readiness, and Ready where nothing else says."""
    findings = [_servers_finding(facts, syncs), _rollback_finding(status, now)]
    if status.candidate is not None:
        which = f"{status.active.revision} serves" if status.active is not None else "tenants serve the lexical legs"
        findings.append(
            no("Ready", ModelReason.PROGRESSING, f"{status.candidate.revision} is on its way; meanwhile {which}")
        )
    return tuple(findings)


def _servers_finding(facts: ModelFacts, syncs: Sequence[PoolSync]) -> Finding:
    if not syncs:
        return no("ServersInSync", ModelReason.POOL_NOT_FOUND, "spec.serving names no registered pool")
    problems = [problem for sync in syncs for problems in sync.missing.values() for problem in problems]
    if problems:
        return no("ServersInSync", ModelReason.OUT_OF_SYNC, "; ".join(dict.fromkeys(problems)))
    total = sum(sync.total for sync in syncs)
    if total == 0:
        return no("ServersInSync", ModelReason.OUT_OF_SYNC, "the pools have no server: check the pools' Secrets")
    return yes("ServersInSync", ModelReason.IN_SYNC, f"{total} of {total} servers hold exactly what they should")


def _rollback_finding(status: EmbeddingModelStatus, now: datetime) -> Finding:
    if status.active is None:
        return no("RollbackReady", ModelReason.NOTHING_PROMOTED, "nothing is promoted yet: tenants serve lexical legs")
    warm = [item for item in status.retiring if item.retire_after and parse_time(item.retire_after) > now]
    if not warm:
        return no(
            "RollbackReady",
            ModelReason.NO_EARLIER_REVISION,
            "no earlier revision is warm: going back means another build, gate and re-embedding of every tenant",
        )
    newest = warm[-1]
    return yes("RollbackReady", ModelReason.WARM, f"{newest.revision} stays loaded until {newest.retire_after}")


def _stamped(
    model: EmbeddingModel, status: EmbeddingModelStatus, now: datetime, findings: tuple[Finding, ...] | None = None
) -> EmbeddingModelStatus:
    generation = model.metadata.generation
    update: dict[str, object] = {"observed_generation": generation}
    if findings is not None:
        update["conditions"] = stamp(findings, model.status.conditions, generation, now)
        ready = next((finding for finding in findings if finding.type == "Ready"), None)
        if ready is not None and status.candidate is None:
            update["phase"] = "Promoted" if ready.status == "True" else "RolledBack"
    return status.model_copy(update=update)


def _state_unknown(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    message = (
        f"neither status nor the ConfigMap searchops-model-{model.metadata.name} says what is active, yet "
        f"{sum(tenant.bound is not None for tenant in facts.tenants)} tenants are bound to revisions of this model; "
        "bindings are kept; restore the ConfigMap from a backup to go on"
    )
    findings = (no("Ready", ModelReason.STATE_UNKNOWN, message), no("Progressing", ModelReason.STATE_UNKNOWN, message))
    status = _stamped(model, model.status, now, findings).model_copy(update={"phase": "Paused"})
    return ModelPlan((), status, 60.0)


def _delete(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    if FINALIZER not in model.metadata.finalizers:
        return ModelPlan((), None)
    if facts.tenants:
        first = facts.tenants[0]
        message = (
            f"{len(facts.tenants)} tenants still name this model ({first.namespace}/{first.name} among them); "
            "point them at another model or delete them first"
        )
        findings = (no("Ready", ModelReason.IN_USE, message),)
        return ModelPlan((), _stamped(model, model.status, now, findings), 30.0)
    actions: list[ModelAction] = [DeleteJob(job.name) for job in (facts.build, facts.gate) if job is not None]
    for pool in (facts.serving, facts.canary):
        for server in pool.servers if pool is not None else ():
            owned = [name for name in server.models if is_revision_of(model.metadata.name, name)]
            loaded = [name for name in owned if server.models[name] == "READY"]
            actions += [UnloadModel(server, name) for name in sorted(loaded, key=len)]
    return ModelPlan((*actions, RemoveFinalizer()), None)


def rollback_deadline(spec: EmbeddingModelSpec, now: datetime) -> str:
    """Until when a revision that was replaced now stays warm."""
    return format_time(now + parse_duration(spec.rollout.rollback_window))
