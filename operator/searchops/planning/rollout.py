"""The whole life of a model as one pure function: ``(spec, status, facts, now) -> plan``, restartable from status.

Resolve, build, load on the canary pool, verify, gate, load on the serving pool, waves, promote; anything wrong takes
the candidate back. The rollout starts from the last *promoted* revision, however many candidates came between.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.planning.conditions import no, unknown
from searchops.planning.live_signals import signal_poll, with_signals
from searchops.planning.model_facts import (
    AddFinalizer,
    ModelAction,
    ModelFacts,
    ModelPlan,
    WriteState,
)
from searchops.planning.names import FINALIZER, ROLLBACK_ANNOTATION
from searchops.planning.reevaluation import reevaluate
from searchops.planning.rollout_choice import choose, is_paused, reject, restore
from searchops.planning.rollout_deletion import plan_deletion
from searchops.planning.rollout_report import report, settled, stamped
from searchops.planning.rollout_stages import Stage, advance
from searchops.planning.rollout_waves import watch_wave
from searchops.planning.server_troubles import hurried
from searchops.planning.servers import PoolSync, distinct, sync_pools

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus

SERVER_POLL_SECONDS = 3.0
POOL_POLL_SECONDS = 30.0
UNKNOWN_POLL_SECONDS = 60.0
BINDING_POLL_SECONDS = 5.0


def plan_model(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    """One pass over one EmbeddingModel.

    Args:
        model: the object as cached.
        facts: everything that was read for it.
        now: the time of the pass.
    """
    if model.metadata.deletion_timestamp is not None:
        return plan_deletion(model, facts, now)
    if FINALIZER not in model.metadata.finalizers:
        return ModelPlan((AddFinalizer(),), None, 0.0)
    status = model.status
    if status.active is None and status.next_number is None:
        if facts.stored is not None:
            status = restore(status, facts.stored)
        elif facts.bindings_of_this_model:
            return _state_unknown(model, facts, now)
        elif facts.unread_tenants:
            return _bindings_unread(model, facts, now)
    choice = choose(model, facts, status, now)
    if choice is not None:
        serving, canary = sync_pools(model, facts, choice.status, now, acting=False)
        findings = settled(model, choice.status) if choice.status.candidate is None else ()
        return _finish(model, facts, Stage(choice.status, findings, choice.actions, 0.0), serving, canary, (), now)
    return _drive(model, facts, status, now)


def _drive(model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime) -> ModelPlan:
    """Keep every server in step with the wanted set, and move the candidate one stage."""
    status, retired = _retire(status, now)
    serving, canary = sync_pools(model, facts, status, now)
    actions: list[ModelAction] = list(retired)
    for sync in distinct(facts, serving, canary):
        actions += [*sync.unloads, *sync.loads]
    candidate = status.candidate
    if candidate is not None:
        status, told = with_signals(model, facts, status, now)
        actions += told
        status = watch_wave(model, facts, status, serving, now, paused=is_paused(model))
    if candidate is None:
        stage = _settled(model, facts, status, serving, now)
    elif model.metadata.annotations.get(ROLLBACK_ANNOTATION) == candidate.revision:
        taken = ("RolledBack", f"taken back by the annotation {ROLLBACK_ANNOTATION}", None)
        stage = _rejected(model, Stage(status, (), rejection=taken), now)
    elif is_paused(model):
        message = f"paused with candidate {candidate.revision}; remove spec.paused or the pause annotation to go on"
        findings = (no("Progressing", ModelReason.PAUSED, message), no("Ready", ModelReason.PAUSED, message))
        stage = Stage(status.model_copy(update={"phase": "Paused"}), findings, (), None)
    else:
        stage = advance(model, facts, status, serving, canary, now)
        stage = _rejected(model, stage, now)
    return _finish(model, facts, stage, serving, canary, tuple(actions), now)


def _settled(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, serving: PoolSync | None, now: datetime
) -> Stage:
    """Nothing is on its way: what is active is evaluated again when it is due, unless all is paused."""
    said, wake = settled(model, status), _next_retirement(status, now)
    if is_paused(model):
        return Stage(status, said, (), wake)
    stage = reevaluate(model, facts, status, serving, now)
    told = {finding.type for finding in said if finding.type == "GatePassed"}
    heard = (finding for finding in stage.findings if finding.type not in told or finding.status == "False")
    requeue = stage.requeue if wake is None else _sooner(stage.requeue, wake)
    return replace(stage, findings=(*said, *heard), requeue=requeue)


def _rejected(model: EmbeddingModel, stage: Stage, now: datetime) -> Stage:
    if stage.rejection is None:
        return stage
    outcome, reason, evidence = stage.rejection
    choice = reject(model, stage.status, outcome, reason, now, evidence)
    return replace(
        stage,
        status=choice.status,
        findings=settled(model, choice.status),
        actions=(*stage.actions, *choice.actions),
        requeue=0.0,
        rejection=None,
    )


def _finish(
    model: EmbeddingModel,
    facts: ModelFacts,
    stage: Stage,
    serving: PoolSync | None,
    canary: PoolSync | None,
    sync_actions: tuple[ModelAction, ...],
    now: datetime,
) -> ModelPlan:
    syncs = distinct(facts, serving, canary)
    status = report(model, facts, stage.status, stage.findings, syncs, now)
    total, in_sync = sum(sync.total for sync in syncs), sum(sync.in_sync for sync in syncs)
    poll = signal_poll(model, stage.status)
    requeue = stage.requeue if poll is None else _sooner(stage.requeue, poll)
    troubles = [trouble for sync in syncs for trouble in sync.troubles]
    if in_sync < total and (hurried(troubles, now) or not troubles):
        requeue = _sooner(requeue, SERVER_POLL_SECONDS)
    elif in_sync < total or total == 0:
        requeue = _sooner(requeue, POOL_POLL_SECONDS)
    return ModelPlan((*sync_actions, *stage.actions), status, requeue)


def _sooner(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


def _retire(status: EmbeddingModelStatus, now: datetime) -> tuple[EmbeddingModelStatus, tuple[WriteState, ...]]:
    """Revisions whose window has ended are no longer wanted; the ConfigMap hears of it first."""
    kept = tuple(item for item in status.retiring if item.retire_after and parse_time(item.retire_after) > now)
    if kept == status.retiring:
        return status, ()
    updated = status.model_copy(update={"retiring": kept})
    return updated, (WriteState(updated),)


def _next_retirement(status: EmbeddingModelStatus, now: datetime) -> float | None:
    """Seconds until the next window ends; nothing else wakes a settled model for that."""
    ends = [parse_time(item.retire_after) for item in status.retiring if item.retire_after]
    return max(1.0, (min(ends) - now).total_seconds()) if ends else None


def _state_unknown(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    bound = sum(tenant.bound is not None for tenant in facts.tenants)
    message = (
        f"neither status nor the ConfigMap searchops-model-{model.metadata.name} says what is active, yet "
        f"{bound or len(facts.bound_elsewhere)} tenants are bound to revisions of this model; "
        "bindings are kept; restore the ConfigMap from a backup to go on"
    )
    findings = (no("Ready", ModelReason.STATE_UNKNOWN, message), no("Progressing", ModelReason.STATE_UNKNOWN, message))
    status = stamped(model, model.status, {finding.type: finding for finding in findings}, now)
    return ModelPlan((), status, UNKNOWN_POLL_SECONDS)


def _bindings_unread(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    """A model without any record may be a new one or a lost one; what its tenants are bound to tells."""
    message = (
        f"the bindings of {facts.unread_tenants} tenants that have a cell are not read yet; until they are, it is "
        "unknown whether this model is new"
    )
    findings = (
        unknown("Ready", ModelReason.WAITING, message),
        unknown("Progressing", ModelReason.WAITING, message),
    )
    status = stamped(model, model.status, {finding.type: finding for finding in findings}, now)
    return ModelPlan((), status, BINDING_POLL_SECONDS)
