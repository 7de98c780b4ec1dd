"""Which revision is the candidate: what the spec asks for, what was refused before, what is still warm.

Every change of the choice is a pass of its own: the ConfigMap first, then the status, then the servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import AttemptStatus, HistoryEntry, RejectedStatus, RevisionStatus
from searchops.planning.model_facts import DeleteJob, EmitEvent, WriteState
from searchops.planning.names import (
    PAUSE_ANNOTATION,
    RETRY_ANNOTATION,
    ROLLBACK_ANNOTATION,
    revision_name,
    short_hash,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel, EmbeddingModelSpec
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, EvidenceReference
    from searchops.planning.model_facts import ModelAction, ModelFacts

MAX_HISTORY = 30
MAX_REJECTED = 20
MAX_RETIRING = 10
MAX_TOKEN = 128
MAX_ATTEMPTS_KEPT = 50


@dataclass(frozen=True, slots=True)
class Desired:
    """What the spec asks for, as keys that can be compared with what was built or refused."""

    digest: str
    profile: str
    gate: str
    retry_token: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a revision is taken back: how it is remembered."""

    outcome: str
    reason: str
    evidence: EvidenceReference | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A change of the candidate or of the active revision, with what it brings along."""

    status: EmbeddingModelStatus
    actions: tuple[ModelAction, ...]


def desired_of(model: EmbeddingModel) -> Desired:
    """The comparable keys of a spec."""
    spec = model.spec
    engine = spec.engine.model_dump_json(by_alias=True, exclude={"worker"})
    return Desired(
        digest=spec.source.digest,
        profile=short_hash(engine, length=12),
        gate=gate_digest(spec),
        retry_token=retry_token(model),
    )


def gate_digest(spec: EmbeddingModelSpec) -> str:
    """The rules a verdict was given under: another holdout, margin or profile is another question."""
    apart = {"worker", "mode", "on_inconclusive", "reevaluate_every"}
    gate = spec.gate.model_dump_json(by_alias=True, exclude=apart)
    return short_hash(gate, length=12)


def retry_token(model: EmbeddingModel) -> str:
    """What asks for another try: the spec's token and the annotation that the Argo action sets."""
    annotation = model.metadata.annotations.get(RETRY_ANNOTATION, "")[:MAX_TOKEN]
    token = model.spec.rollout.retry_token
    return f"{token}+{annotation}" if annotation else token


def is_paused(model: EmbeddingModel) -> bool:
    """Whether nothing may change until a person says so."""
    return model.spec.paused or PAUSE_ANNOTATION in model.metadata.annotations


def is_active(status: EmbeddingModelStatus, desired: Desired) -> bool:
    """Whether the active revision is what the spec asks for."""
    active = status.active
    return active is not None and (active.digest, active.profile_digest) == (desired.digest, desired.profile)


def gate_passed(status: EmbeddingModelStatus) -> bool:
    """Whether the candidate's own verdict lets it through; a warm revision was judged before."""
    candidate, verdict = status.candidate, status.verdict
    if candidate is None:
        return False
    if candidate.promoted_at is not None:
        return True
    return verdict is not None and verdict.revision == candidate.revision and verdict.outcome in ("Pass", "Better")


def restore(status: EmbeddingModelStatus, stored: EmbeddingModelStatus) -> EmbeddingModelStatus:
    """What the ConfigMap kept of a status that was lost."""
    return status.model_copy(
        update={
            "active": stored.active,
            "retiring": stored.retiring,
            "rejected": stored.rejected,
            "history": stored.history,
            "attempts": stored.attempts,
            "promoted": stored.promoted,
            "reevaluation": stored.reevaluation,
            "next_number": stored.next_number,
        }
    )


def choose(model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime) -> Choice | None:
    """The candidate that the spec asks for; None where nothing changes.

    A pause holds back what the operator would do by itself, and not the way back that a person asks for.
    """
    active, candidate = status.active, status.candidate
    if active is not None and model.metadata.annotations.get(ROLLBACK_ANNOTATION) == active.revision:
        asked = Refused("RolledBack", f"taken back after promotion by the annotation {ROLLBACK_ANNOTATION}")
        return roll_back(model, facts, status, asked, now)
    if is_paused(model):
        return None
    desired = desired_of(model)
    if is_active(status, desired) or is_rejected(status.rejected, desired):
        return _supersede(facts, status, candidate, now) if candidate is not None else None
    if candidate is not None and (candidate.digest, candidate.profile_digest) == (desired.digest, desired.profile):
        return None
    return _new_candidate(model, facts, status, desired, now)


def _dropped_jobs(facts: ModelFacts) -> tuple[DeleteJob, ...]:
    """Every Job of the model: the awaited ones, and those that still run for an earlier question."""
    jobs = (facts.build, facts.gate, facts.reevaluation)
    awaited = [job.state for job in jobs if job is not None and job.state is not None]
    return tuple(DeleteJob(job.name, job.uid) for job in (*awaited, *facts.superseded))


def _supersede(facts: ModelFacts, status: EmbeddingModelStatus, candidate: RevisionStatus, now: datetime) -> Choice:
    dropped = without_candidate(status, now)
    message = f"{candidate.revision} is no longer what the spec asks for; its tenants go back"
    event = EmitEvent(str(ModelReason.SUPERSEDED), message)
    return Choice(dropped, (WriteState(dropped), *_dropped_jobs(facts), event))


def _new_candidate(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, desired: Desired, now: datetime
) -> Choice:
    jobs = _dropped_jobs(facts)
    before = without_candidate(status, now)
    warm = _warm(before, desired, now)
    if warm is not None:
        remaining = tuple(item for item in before.retiring if item.revision != warm.revision)
        chosen = warm.model_copy(update={"space_change": _space_change(before, warm)})
        update: dict[str, object] = {"candidate": chosen, "retiring": remaining}
        message = f"{warm.revision} is still warm inside the rollback window: build and gate are skipped"
    else:
        number = before.next_number or 1
        chosen = RevisionStatus(
            revision=revision_name(model.metadata.name, number, desired.digest),
            number=number,
            digest=desired.digest,
            profile_digest=desired.profile,
        )
        update = {"candidate": chosen, "next_number": number + 1}
        message = f"{chosen.revision} will be built from {model.spec.source.uri}"
    updated = before.model_copy(update={**update, "wave": None, "verdict": None, "phase": "Pending"})
    return Choice(updated, (WriteState(updated), *jobs, EmitEvent("CandidateChosen", message)))


def _space_change(status: EmbeddingModelStatus, revision: RevisionStatus) -> str:
    same = status.active is not None and status.active.space == revision.space
    return "Same" if same else "Incompatible"


def without_candidate(status: EmbeddingModelStatus, now: datetime) -> EmbeddingModelStatus:
    """The status after the candidate was superseded; tenants already bound to it go back by the wave rule.

    The outcome of a verdict that was reached stays in the history.
    """
    candidate, verdict = status.candidate, status.verdict
    if candidate is None:
        return status
    judged = verdict.outcome if verdict is not None and verdict.revision == candidate.revision else None
    reason = str(ModelReason.SUPERSEDED)
    entry = HistoryEntry(revision=candidate.revision, event=reason, at=format_time(now), message=judged)
    return status.model_copy(
        update={
            "candidate": None,
            "wave": None,
            "verdict": None,
            "retiring": _with_warm(status.retiring, candidate, now),
            "history": (*status.history, entry)[-MAX_HISTORY:],
        }
    )


def _with_warm(
    retiring: tuple[RevisionStatus, ...], candidate: RevisionStatus, now: datetime
) -> tuple[RevisionStatus, ...]:
    """A warm candidate that is dropped stays warm for what is left of its window."""
    if candidate.retire_after is None or parse_time(candidate.retire_after) <= now:
        return retiring
    return (*retiring, candidate)[-MAX_RETIRING:]


def _warm(status: EmbeddingModelStatus, desired: Desired, now: datetime) -> RevisionStatus | None:
    """A revision that tenants had and may have again as it is; one that was taken back has to be gated like a new."""
    taken_back = {entry.revision for entry in status.rejected}
    for revision in status.retiring:
        inside = revision.retire_after is not None and parse_time(revision.retire_after) > now
        same = (revision.digest, revision.profile_digest) == (desired.digest, desired.profile)
        if inside and same and revision.revision not in taken_back:
            return revision
    return None


def is_rejected(rejected: Sequence[RejectedStatus], desired: Desired) -> bool:
    """Whether this digest was refused under this gate and nobody asked to try again."""
    return any(
        (entry.digest, entry.gate, entry.retry_token) == (desired.digest, desired.gate, desired.retry_token)
        for entry in rejected
    )


def with_attempt(status: EmbeddingModelStatus, attempt: AttemptStatus) -> EmbeddingModelStatus:
    """The status once a verdict was reached: another try of one digest asks nothing new, so only its last counts."""
    others = tuple(item for item in status.attempts if item.digest != attempt.digest)
    return status.model_copy(update={"attempts": (*others, attempt)[-MAX_ATTEMPTS_KEPT:]})


def earlier_attempts(status: EmbeddingModelStatus, digest: str) -> tuple[AttemptStatus, ...]:
    """Verdicts on other digests, however old: within 30 days each halves α, and a family bears ten in all."""
    return tuple(item for item in status.attempts if item.digest != digest)


def reject(
    model: EmbeddingModel,
    status: EmbeddingModelStatus,
    outcome: str,
    reason: str,
    now: datetime,
    evidence: str | None,
) -> Choice:
    """Take the candidate back and remember it, so that syncing the same commit again does nothing.

    The verdict stays in the status for people.
    """
    candidate = status.candidate
    assert candidate is not None, "only a candidate can be rejected"  # noqa: S101 - caller's invariant
    verdict = status.verdict
    entry = _refusal(model, candidate, outcome, reason, now).model_copy(
        update={"evidence": verdict.evidence if verdict is not None and evidence is not None else None}
    )
    history = HistoryEntry(revision=candidate.revision, event="Rejected", at=format_time(now), message=outcome)
    updated = status.model_copy(
        update={
            "candidate": None,
            "wave": None,
            "retiring": _with_warm(status.retiring, candidate, now),
            "rejected": (*status.rejected, entry)[-MAX_REJECTED:],
            "history": (*status.history, history)[-MAX_HISTORY:],
            "phase": "RolledBack",
        }
    )
    event = EmitEvent("CandidateRejected", f"{candidate.revision} is {outcome}: {reason}", warning=True)
    return Choice(updated, (WriteState(updated), event))


def _refusal(
    model: EmbeddingModel, revision: RevisionStatus, outcome: str, reason: str, now: datetime
) -> RejectedStatus:
    desired = desired_of(model)
    return RejectedStatus(
        revision=revision.revision,
        digest=revision.digest,
        gate=desired.gate,
        outcome=outcome,
        reason=reason[:1024],
        retry_token=desired.retry_token,
        at=format_time(now),
    )


def rollback_target(status: EmbeddingModelStatus, now: datetime) -> RevisionStatus | None:
    """The revision that tenants would go back to; None is the lexical legs.

    It is the newest warm one that was promoted before the active one: what was itself taken back, or never promoted,
    is no place to go back to.
    """
    before = status.active.promoted_at if status.active is not None else None
    warm = [
        item
        for item in status.retiring
        if item.retire_after and parse_time(item.retire_after) > now and item.promoted_at
    ]
    earlier = [item for item in warm if before is None or parse_time(item.promoted_at or "") <= parse_time(before)]
    return earlier[-1] if earlier else None


def roll_back(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, why: Refused, now: datetime
) -> Choice:
    """Back to what was active before, or to the lexical legs where that is gone; tenants follow by the wave rule."""
    active = status.active
    assert active is not None, "only what is active can be rolled back"  # noqa: S101 - caller's invariant
    before = without_candidate(status, now)
    target = rollback_target(before, now)
    window = parse_duration(model.spec.rollout.rollback_window)
    remaining = [item for item in before.retiring if target is None or item.revision != target.revision]
    remaining.append(active.model_copy(update={"retire_after": format_time(now + window)}))
    entry = _refusal(model, active, why.outcome, why.reason, now).model_copy(update={"evidence": why.evidence})
    history = HistoryEntry(revision=active.revision, event="RolledBack", at=format_time(now))
    updated = before.model_copy(
        update={
            "active": target.model_copy(update={"retire_after": None}) if target is not None else None,
            "retiring": tuple(remaining)[-MAX_RETIRING:],
            "rejected": (*before.rejected, entry)[-MAX_REJECTED:],
            "history": (*before.history, history)[-MAX_HISTORY:],
            "phase": "RolledBack",
            "promoted": tuple(item for item in before.promoted if item.revision != active.revision),
        }
    )
    back = target.revision if target is not None else "the lexical legs"
    event = EmitEvent(
        str(ModelReason.ROLLED_BACK),
        f"{active.revision} is {why.outcome} and taken back; tenants go to {back}"
        if why.outcome != "RolledBack"
        else f"{active.revision} is taken back; tenants go to {back}",
        warning=True,
    )
    return Choice(updated, (WriteState(updated), *_dropped_jobs(facts), event))
