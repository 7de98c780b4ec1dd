"""What a model's status says whatever the candidate's stage: settled, servers, rollback readiness, the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import (
    EvidenceReference,
    FleetStatus,
    ServersStatus,
    VerdictStatus,
)
from searchops.planning.conditions import Finding, no, stamp, unknown, yes
from searchops.planning.live_signals import signals_finding
from searchops.planning.names import ROLLBACK_ANNOTATION
from searchops.planning.rollout_choice import desired_of, is_active, is_paused, rollback_target
from searchops.planning.rollout_forecast import foresee, what_going_back_takes
from searchops.planning.server_troubles import told_together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.tasks import EvaluateResult
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import ChangeKind, EmbeddingModelStatus
    from searchops.planning.model_facts import ModelFacts, TenantFact
    from searchops.planning.servers import PoolSync

MAX_FAILING = 64


def settled(model: EmbeddingModel, status: EmbeddingModelStatus) -> tuple[Finding, ...]:
    """Findings where there is no candidate: promoted, or rolled back with the reason."""
    desired = desired_of(model)
    active = status.active
    if is_active(status, desired) and active is not None and not _taken_back(model, status):
        return (
            yes("Ready", ModelReason.PROMOTED, f"{active.revision} is active"),
            yes("Progressing", ModelReason.PROMOTED, "nothing is being rolled out"),
        )
    serving = f"{active.revision} stays active" if active else "tenants stay on the lexical legs"
    refused = next(
        (entry for entry in reversed(status.rejected) if entry.digest == desired.digest and entry.gate == desired.gate),
        None,
    )
    if refused is not None:
        message = (
            f"{refused.revision} was refused ({refused.outcome}): {refused.reason}; {serving}; revert "
            "spec.source, or set spec.rollout.retryToken to try the same digest again"
        )
        return (
            no("Ready", ModelReason.REJECTED, message),
            no("Progressing", ModelReason.ROLLED_BACK, message),
            *_last_verdict(status),
        )
    reason = ModelReason.PAUSED if is_paused(model) else ModelReason.WAITING
    message = f"spec.source {model.spec.source.digest[:15]}… is not being rolled out; {serving}"
    if is_paused(model):
        message += "; remove spec.paused or the pause annotation to go on"
    return (no("Ready", reason, message), no("Progressing", reason, message))


def _taken_back(model: EmbeddingModel, status: EmbeddingModelStatus) -> bool:
    """Whether the active revision is about to go back, whether the model is paused or not."""
    return status.active is not None and model.metadata.annotations.get(ROLLBACK_ANNOTATION) == status.active.revision


def _last_verdict(status: EmbeddingModelStatus) -> tuple[Finding, ...]:
    verdict = status.verdict
    if verdict is None:
        return ()
    said = verdict_text(status)
    if verdict.outcome in ("Pass", "Better"):
        return (yes("GatePassed", ModelReason.PASSED, said),)
    reason = ModelReason.REGRESSED if verdict.outcome == "Regressed" else ModelReason.INCONCLUSIVE
    return (no("GatePassed", reason, said),)


def verdict_of(result: EvaluateResult, change: ChangeKind) -> VerdictStatus:
    """An evaluation's answer as the status keeps it."""
    evidence = (
        EvidenceReference(uri=result.evidence_uri, digest=result.evidence_digest) if result.evidence_digest else None
    )
    return VerdictStatus(
        revision=result.revision,
        change=change,
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


def verdict_text(status: EmbeddingModelStatus) -> str:
    """The verdict in one line."""
    verdict = status.verdict
    if verdict is None:
        return "no verdict"
    return f"{verdict.outcome}: {verdict.message or verdict.reason or 'no reason given'}"


def standing(
    model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts, syncs: Sequence[PoolSync], now: datetime
) -> tuple[Finding, ...]:
    """Findings that hold whatever the stage; a stage's own of the same type replace them."""
    findings = [_servers(facts, syncs), _rollback(model, status, facts, now), *signals_finding(model, status, facts)]
    if status.candidate is not None:
        which = f"{status.active.revision} serves" if status.active is not None else "tenants serve the lexical legs"
        message = f"{status.candidate.revision} is on its way; meanwhile {which}"
        findings.append(no("Ready", ModelReason.PROGRESSING, message))
        findings.append(yes("Progressing", ModelReason.PROGRESSING, message))
    return tuple(findings)


def _servers(facts: ModelFacts, syncs: Sequence[PoolSync]) -> Finding:
    if not syncs:
        return no(
            "ServersInSync",
            ModelReason.POOL_NOT_FOUND,
            "spec.serving names no registered pool; create a Secret labelled searchops.dev/pool in the operator's "
            "namespace",
        )
    troubles = [trouble for sync in syncs for trouble in sync.troubles]
    if troubles:
        return no("ServersInSync", ModelReason.OUT_OF_SYNC, told_together(troubles))
    unproved = {name for sync in syncs for name, servers in sync.unproved.items() if servers}
    unread = [f"{name}: {facts.unread_probes[name]}" for name in sorted(unproved & facts.unread_probes.keys())]
    if unread:
        message = f"what servers answer is not compared with its reference vectors: {'; '.join(unread)}"
        return unknown("ServersInSync", ModelReason.ARTIFACTS_UNREADABLE, message)
    total = sum(sync.total for sync in syncs)
    if total == 0:
        return no("ServersInSync", ModelReason.OUT_OF_SYNC, "the pools have no server: check the pools' Secrets")
    extra = len({action.server.url for sync in syncs for action in sync.unloads})
    if extra:
        message = f"{extra} of {total} servers hold revisions that nobody needs any more; they are unloaded"
        message = "; ".join((message, *(text for sync in syncs for text in sync.refused)))
        return no("ServersInSync", ModelReason.OUT_OF_SYNC, message)
    if facts.unread_tenants:
        message = (
            f"{total} of {total} servers hold what they should; nothing is unloaded until the bindings of "
            f"{facts.unread_tenants} tenants are read"
        )
        return yes("ServersInSync", ModelReason.IN_SYNC, message)
    return yes("ServersInSync", ModelReason.IN_SYNC, f"{total} of {total} servers hold exactly what they should")


def _rollback(model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts, now: datetime) -> Finding:
    """Whether tenants could go back at once: the earlier revision is warm and no write has missed its side."""
    if status.active is None:
        return no("RollbackReady", ModelReason.NOTHING_PROMOTED, "nothing is promoted yet: tenants serve lexical legs")
    newest = rollback_target(status, now)
    targets = {newest.revision} if newest is not None else set()
    if status.candidate is not None and status.wave is not None:
        targets.add(status.active.revision)
    followers = [tenant for tenant in facts.tenants if tenant.previous in targets]
    stale = [tenant for tenant in followers if tenant.previous_lacking]
    if stale:
        return no("RollbackReady", ModelReason.STALE_PREVIOUS, _stale(stale))
    if newest is None:
        return no(
            "RollbackReady",
            ModelReason.NO_EARLIER_REVISION,
            "no earlier revision is warm: going back means another build, gate and re-embedding of every tenant"
            + (f": {takes}" if (takes := what_going_back_takes(model, facts, status.active)) else ""),
        )
    uncounted = [tenant for tenant in followers if tenant.previous_lacking is None]
    if uncounted:
        first = uncounted[0]
        message = (
            f"{newest.revision} stays loaded until {newest.retire_after}, but the previous sides of {len(uncounted)} "
            f"tenants are not counted yet ({first.namespace}/{first.name} first)"
        )
        return unknown("RollbackReady", ModelReason.WAITING, message)
    return yes("RollbackReady", ModelReason.WARM, f"{newest.revision} stays loaded until {newest.retire_after}")


def _stale(tenants: Sequence[TenantFact]) -> str:
    worst = max(tenants, key=lambda tenant: tenant.previous_lacking or 0)
    total = sum(tenant.previous_lacking or 0 for tenant in tenants)
    return (
        f"writes missed the previous side of {len(tenants)} tenants, {total} points in all: "
        f"{worst.namespace}/{worst.name} lacks {worst.previous_lacking} points for {worst.previous}; going back would "
        "re-embed these tenants; send the products again that were answered with missedPrevious, and the side is "
        "complete once more"
    )


def fleet_status(status: EmbeddingModelStatus, facts: ModelFacts) -> FleetStatus:
    """Counters over the tenants that name the model.

    Bound means bound to what is being rolled out or active. Held tenants are no part of it: a model is waited for until
    every other one is bound, and one that is held cannot stand in for one that is not.
    """
    target = status.candidate if status.wave is not None and status.candidate is not None else status.active
    free = (tenant for tenant in facts.tenants if not tenant.held)
    bound = sum(1 for tenant in free if target is not None and tenant.bound == target.revision)
    return FleetStatus(
        total=len(facts.tenants),
        bound=bound,
        rebuilding=sum(tenant.rebuilding for tenant in facts.tenants),
        reverted=sum(tenant.failed for tenant in facts.tenants),
        held=sum(tenant.held for tenant in facts.tenants),
    )


def report(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    findings: Sequence[Finding],
    syncs: Sequence[PoolSync],
    now: datetime,
) -> EmbeddingModelStatus:
    """The status to write: counters, conditions and, where there is no candidate, the phase."""
    servers = ServersStatus(
        total=sum(sync.total for sync in syncs),
        in_sync=sum(sync.in_sync for sync in syncs),
        failing=tuple(trouble for sync in syncs for trouble in sync.troubles)[:MAX_FAILING],
    )
    status = status.model_copy(update={"plan": foresee(model, facts, status)})
    merged = {finding.type: finding for finding in (*standing(model, status, facts, syncs, now), *findings)}
    return stamped(
        model, status.model_copy(update={"tenants": fleet_status(status, facts), "servers": servers}), merged, now
    )


def with_findings(model: EmbeddingModel, findings: Sequence[Finding], now: datetime) -> EmbeddingModelStatus:
    """The status as it is, but for the conditions that these findings replace; the phase is not touched."""
    generation = model.metadata.generation
    fresh = stamp(findings, model.status.conditions, generation, now)
    told_now = {condition.type for condition in fresh}
    kept = (condition for condition in model.status.conditions if condition.type not in told_now)
    conditions = tuple(sorted((*fresh, *kept), key=lambda condition: condition.type))
    return model.status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def failed(model: EmbeddingModel, reason: str, message: str, now: datetime) -> EmbeddingModelStatus:
    """The status after a pass that an adapter's error ended: nothing is claimed that was not seen."""
    named = ModelReason(reason) if reason in set(ModelReason) else ModelReason.UNREACHABLE
    return with_findings(model, (no("Ready", named, f"{message} (seen at {format_time(now)})"),), now)


def stamped(
    model: EmbeddingModel, status: EmbeddingModelStatus, findings: dict[str, Finding], now: datetime
) -> EmbeddingModelStatus:
    """The status with these findings as its conditions and this generation as observed."""
    generation = model.metadata.generation
    update: dict[str, object] = {
        "observed_generation": generation,
        "conditions": stamp(findings.values(), model.status.conditions, generation, now),
    }
    ready = findings.get("Ready")
    if ready is not None and status.candidate is None:
        paused = ready.reason in (ModelReason.PAUSED, ModelReason.STATE_UNKNOWN)
        waiting = ready.reason == ModelReason.WAITING
        stays = ready.status == "True" or ready.reason == ModelReason.REGRESSED
        settled_phase = "Promoted" if stays else "RolledBack"
        update["phase"] = "Paused" if paused else "Pending" if waiting else settled_phase
    return status.model_copy(update=update)
