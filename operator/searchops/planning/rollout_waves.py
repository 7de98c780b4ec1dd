"""Waves: the candidate reaches the tenants step by step, each step watched before the next.

The model never touches a tenant's collection: it publishes ``{wave, fraction, selectors, halted}`` and counts what the
tenants say of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import HistoryEntry, PromotedStatus, WaveStatus
from searchops.planning.conditions import Finding, no, yes
from searchops.planning.live_signals import SIGNAL_POLL_SECONDS, awaited_signals, degraded_signal
from searchops.planning.model_facts import EmitEvent, WriteState
from searchops.planning.names import APPROVE_ANNOTATION, ROLLBACK_ANNOTATION
from searchops.planning.server_troubles import told
from searchops.planning.waves import in_wave

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus
    from searchops.planning.model_facts import ModelAction, ModelFacts, TenantFact
    from searchops.planning.servers import PoolSync

MAX_HISTORY = 30
MAX_PROMOTED = 5
"""Revisions whose Good queries gate A′ holds a candidate to."""
WAVE_POLL_SECONDS = 15.0
ILL_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class WaveStep:
    """Where the waves stand after a pass."""

    status: EmbeddingModelStatus
    findings: tuple[Finding, ...]
    actions: tuple[ModelAction, ...] = ()
    requeue: float | None = None
    rejection: tuple[str, str, str | None] | None = None


def run_waves(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    candidate: RevisionStatus,
    serving: PoolSync,
    now: datetime,
) -> WaveStep:
    """Start, watch or end a wave."""
    wave = status.wave
    expected = _expected(facts, wave) if wave is not None else []
    broken, worse = _breaker(model, expected, candidate.revision), degraded_signal(model, status)
    if broken is not None or worse is not None:
        reason = ModelReason.BREAKER_OPEN if broken is not None else ModelReason.SIGNAL_DEGRADED
        said = (no("Progressing", reason, broken or worse or ""), no("Ready", reason, broken or worse or ""))
        return WaveStep(status.model_copy(update={"phase": "Paused"}), said)
    ill = ill_target(status, serving, now)
    if ill is not None:
        return WaveStep(status, (yes("Progressing", ModelReason.ROLLBACK_TARGET_ILL, ill),), (), WAVE_POLL_SECONDS)
    if wave is None:
        return _start(model, status, candidate, 0, now)
    bound = [tenant for tenant in expected if tenant.bound == candidate.revision]
    if len(bound) < len(expected):
        message = f"wave {wave.name}: {len(bound)} of {len(expected)} tenants bound to {candidate.revision}"
        rolling = status.model_copy(update={"phase": "Rolling"})
        return WaveStep(rolling, (yes("Progressing", ModelReason.ROLLING, message),), (), WAVE_POLL_SECONDS)
    return _soak(model, status, candidate, wave, now)


def ill_target(status: EmbeddingModelStatus, serving: PoolSync | None, now: datetime) -> str | None:
    """Why nobody may leave the active revision now: where it is not served everywhere there is no way back to it.

    A server that was lost a moment ago is waited for first: every change of a halt wakes every tenant of the model.
    """
    active = status.active
    seen = _ill(active.revision, serving, now) if active is not None else None
    if active is None or seen is None:
        return None
    return (
        f"{active.revision}, which tenants would go back to, is not served everywhere, so no further tenant leaves it: "
        f"{seen}"
    )


def _ill(revision: str, serving: PoolSync | None, now: datetime) -> str | None:
    """What lastingly keeps a revision from being served everywhere; a pool that nothing is known of serves nothing."""
    if serving is None:
        return "the pool is not registered"
    lasting = [
        trouble
        for trouble in serving.troubles
        if trouble.revision == revision and parse_time(trouble.since) + ILL_AFTER <= now
    ]
    if serving.total and not lasting:
        return None
    return "; ".join(told(trouble) for trouble in lasting) or "the pool has no server"


def watch_wave(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    serving: PoolSync | None,
    now: datetime,
    *,
    paused: bool,
) -> EmbeddingModelStatus:
    """Whether the wave under way may start further tenants, whatever else the candidate waits for in this pass.

    Every tenant decides for itself, so a halt that is not published stops nobody.
    """
    wave, candidate = status.wave, status.candidate
    if wave is None or candidate is None:
        return status
    broken = _breaker(model, _expected(facts, wave), candidate.revision) is not None
    worse = degraded_signal(model, status) is not None
    ill = ill_target(status, serving, now) is not None
    unserved = _ill(candidate.revision, serving, now) is not None
    why = {
        "Paused": paused,
        "BreakerOpen": broken,
        "SignalDegraded": worse,
        "RollbackTargetIll": ill,
        "CandidateIll": unserved,
    }
    halted = next((name for name, holds in why.items() if holds), None)
    return status.model_copy(update={"wave": wave.model_copy(update={"halted": halted})})


def _expected(facts: ModelFacts, wave: WaveStatus) -> list[TenantFact]:
    """The tenants that the wave waits for."""
    inside = (tenant for tenant in facts.tenants if in_wave(wave, tenant.namespace, tenant.name, tenant.labels))
    return [tenant for tenant in inside if not tenant.held]


def _breaker(model: EmbeddingModel, expected: list[TenantFact], revision: str) -> str | None:
    """Why no further tenant may begin: the share is of those that tried, so a wide wave stops as early as a narrow."""
    reverted = [tenant for tenant in expected if tenant.failed]
    tried = len(reverted) + sum(tenant.bound == revision and not tenant.failed for tenant in expected)
    limit = max(1.0, tried * model.spec.rollout.breaker.max_reverted_percent / 100)
    if len(reverted) < limit or not reverted:
        return None
    first = reverted[0]
    return (
        f"{len(reverted)} of {tried} tenants that tried could not follow "
        f"({first.namespace}/{first.name} first), "
        f"the bound is {limit:g}; no further tenant is started; mend what their ModelBound condition names and delete "
        "their failed ReindexJobs, or "
        f"take the candidate back: annotate {ROLLBACK_ANNOTATION} with its revision"
    )


def _soak(
    model: EmbeddingModel, status: EmbeddingModelStatus, candidate: RevisionStatus, wave: WaveStatus, now: datetime
) -> WaveStep:
    declared = model.spec.rollout.waves[wave.index] if wave.index < len(model.spec.rollout.waves) else None
    soak = parse_duration(declared.soak) if declared is not None and declared.soak else timedelta(0)
    if wave.soak_until is None and soak > timedelta(0):
        wave = wave.model_copy(update={"soak_until": format_time(now + soak)})
        status = status.model_copy(update={"wave": wave})
    if wave.soak_until is not None and parse_time(wave.soak_until) > now:
        left = (parse_time(wave.soak_until) - now).total_seconds()
        message = f"wave {wave.name} is complete and watched until {wave.soak_until}"
        soaking = status.model_copy(update={"phase": "Soaking"})
        return WaveStep(soaking, (yes("Progressing", ModelReason.SOAKING, message),), (), max(0.5, left))
    awaited = awaited_signals(model, status)
    if awaited is not None:
        finding = yes("Progressing", ModelReason.SIGNALS_UNKNOWN, f"wave {wave.name} is complete and waits: {awaited}")
        return WaveStep(status.model_copy(update={"phase": "Soaking"}), (finding,), (), SIGNAL_POLL_SECONDS)
    following = min(wave.index + 1, len(model.spec.rollout.waves) - 1)
    if following > wave.index or float(wave.fraction) < 1:
        return _start(model, status, candidate, following, now)
    return _promote(model, status, candidate, now)


def _approved(model: EmbeddingModel, candidate: RevisionStatus, index: int) -> bool:
    """Approval binds to a revision and never carries over to the next one."""
    rule = model.spec.rollout.approval
    if rule == "None" or (rule == "BeforeFirstWave" and index > 0):
        return True
    granted = {model.spec.rollout.approve, model.metadata.annotations.get(APPROVE_ANNOTATION, "")}
    if rule == "BeforeFirstWave":
        return candidate.revision in granted
    wanted = {f"{candidate.revision}/{index}"} | ({candidate.revision} if index == 0 else set())
    return bool(granted & wanted)


def _start(
    model: EmbeddingModel, status: EmbeddingModelStatus, candidate: RevisionStatus, index: int, now: datetime
) -> WaveStep:
    declared = model.spec.rollout.waves[index]
    if not _approved(model, candidate, index):
        token = candidate.revision if index == 0 else f"{candidate.revision}/{index}"
        message = (
            f"wave {declared.name} waits for approval: set spec.rollout.approve or annotate "
            f"{APPROVE_ANNOTATION}={token}; what it would take is in status.plan (searchops plan model "
            f"{model.metadata.name})"
        )
        waiting = status.model_copy(update={"phase": "AwaitingApproval"})
        return WaveStep(waiting, (no("Progressing", ModelReason.AWAITING_APPROVAL, message),))
    before = status.wave
    reached = float(before.fraction) if before is not None else 0.0
    share = declared.percent / 100 if declared.percent is not None else 0.0
    fraction = f"{max(reached, share):g}"
    selectors = before.selectors if before is not None else ()
    if declared.selector is not None:
        selectors = (*selectors, declared.selector)
    wave = WaveStatus(
        name=declared.name, index=index, started_at=format_time(now), fraction=fraction, selectors=selectors
    )
    started = status.model_copy(update={"wave": wave, "phase": "Rolling"})
    message = f"wave {wave.name} started for {candidate.revision}"
    finding = yes("Progressing", ModelReason.ROLLING, message)
    return WaveStep(started, (finding,), (EmitEvent("WaveStarted", message),), 1.0)


def _promote(model: EmbeddingModel, status: EmbeddingModelStatus, candidate: RevisionStatus, now: datetime) -> WaveStep:
    window = parse_duration(model.spec.rollout.rollback_window)
    retiring = [item for item in status.retiring if item.revision != candidate.revision]
    if status.active is not None:
        retiring.append(status.active.model_copy(update={"retire_after": format_time(now + window)}))
    update = {"promoted_at": format_time(now), "retire_after": None, "evidence": _evidence(status, candidate)}
    promoted = candidate.model_copy(update={**update, "attempt": 1})
    kept = {item.revision: item for item in status.promoted}
    for item in (status.active, promoted):  # an active one that was promoted before these were kept is remembered too
        if item is not None and item.evidence is not None:
            kept.pop(item.revision, None)
            kept[item.revision] = PromotedStatus(revision=item.revision, evidence=item.evidence)
    entry = HistoryEntry(revision=candidate.revision, event="Promoted", at=format_time(now))
    updated = status.model_copy(
        update={
            "active": promoted,
            "candidate": None,
            "wave": None,
            "retiring": tuple(retiring)[-10:],
            "history": (*status.history, entry)[-MAX_HISTORY:],
            "phase": "Promoted",
            "promoted": tuple(kept.values())[-MAX_PROMOTED:],
        }
    )
    message = f"{candidate.revision} is active"
    findings = (yes("Ready", ModelReason.PROMOTED, message), yes("Progressing", ModelReason.PROMOTED, message))
    return WaveStep(updated, findings, (WriteState(updated), EmitEvent("Promoted", message)), 0.0)


def _evidence(status: EmbeddingModelStatus, candidate: RevisionStatus) -> str | None:
    """The evidence that later candidates are held to: of the gate Job's first holdout, which leads to all the others'.

    The verdict itself refers to that of the worst holdout alone.
    """
    verdict = status.verdict
    if verdict is None or verdict.evidence is None:
        return candidate.evidence
    judged = [item.evidence for item in status.attempts if item.digest == candidate.digest]
    return judged[-1] if judged else verdict.evidence.uri
