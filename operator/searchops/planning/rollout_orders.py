"""The worker Jobs of a candidate: their names, which are functions of their inputs, and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.tasks import Arm, BuildTask, EarlierAttempt, EngineProfile, EvaluateTask, Founder
from searchops.planning.jobs import JobOrder
from searchops.planning.names import job_name
from searchops.planning.rollout_choice import earlier_attempts, retry_token

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import (
        ChangeKind,
        EmbeddingModelStatus,
        ReevaluationQuestion,
        RevisionStatus,
    )
    from searchops.planning.model_facts import ModelFacts

BUILD_DEADLINE = timedelta(hours=4)
GATE_DEADLINE = timedelta(hours=4)
WEAR_WINDOW = timedelta(days=30)
MOST_ANCHORED = 5
AGAINST_ITSELF = "Itself"
AGAINST_LEXICAL = "Lexical"


def build_job_name(model: EmbeddingModel, revision: RevisionStatus) -> str:
    """The build Job of a revision and attempt."""
    return job_name("build", model.metadata.uid, revision.revision, retry_token(model), str(revision.attempt))


def gate_job_name(model: EmbeddingModel, status: EmbeddingModelStatus, gate: str) -> str:
    """The gate Job: another incumbent, gate or attempt is another question."""
    candidate = status.candidate
    assert candidate is not None, "a gate Job belongs to a candidate"  # noqa: S101 - caller's invariant
    incumbent = status.active.revision if status.active else "lexical"
    return job_name(
        "gate", model.metadata.uid, candidate.revision, incumbent, gate, retry_token(model), str(candidate.attempt)
    )


def result_uri(facts: ModelFacts, job: str) -> str:
    """Where a Job of a model writes its answer first."""
    return f"{facts.artifacts}/results/{job}.json"


def evidence_uri(facts: ModelFacts, job: str) -> str:
    """Where a gate Job writes the evidence document of its first holdout."""
    return f"{facts.artifacts}/evidence/{job}.json"


def change_kind(model: EmbeddingModel, status: EmbeddingModelStatus) -> ChangeKind:
    """Which margins apply: the measured space decides, unless the spec does."""
    if model.spec.gate.change != "Auto":
        return model.spec.gate.change
    if status.active is None:
        return "First"
    candidate = status.candidate
    return "Repackage" if candidate is not None and candidate.space_change == "Same" else "Model"


def build_order(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, candidate: RevisionStatus, name: str
) -> JobOrder:
    """What the build Job is given: the checkpoint, the engine profile and the spaces that it may turn out to share."""
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


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared with what, where it is served, and what was asked before.

    Attributes:
        change: which margins apply.
        incumbent: what tenants have, or had.
        candidate: what is judged.
        servers: gRPC addresses of the servers that both are served by.
        earlier: verdicts on other digests, which have worn the holdouts.
    """

    change: ChangeKind
    incumbent: Arm
    candidate: Arm
    servers: tuple[str, ...]
    earlier: tuple[EarlierAttempt, ...] = ()


def served_arm(revision: RevisionStatus | None) -> Arm:
    """A revision as servers answer with it; without one, the lexical legs."""
    if revision is None:
        return Arm(revision="lexical")
    name = revision.revision
    return Arm(revision=name, encoder=name, space=revision.space, dimension=revision.dimension)


def gate_order(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    candidate: RevisionStatus,
    name: str,
    now: datetime,
) -> JobOrder:
    """What the gate Job is given: both arms through the canary pool on the same holdouts, margins and profile."""
    assert facts.canary is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    earlier = tuple(
        EarlierAttempt(digest=item.digest, at=item.at, evidence=item.evidence)
        for item in earlier_attempts(status, candidate.digest)
    )
    servers = facts.canary.registration.grpc_urls
    sides = Sides(change_kind(model, status), served_arm(status.active), served_arm(candidate), servers, earlier)
    return _evaluation(model, facts, status, sides, name, now)


def reevaluation_job_name(model: EmbeddingModel, active: RevisionStatus, question: ReevaluationQuestion) -> str:
    """The Job of one question and attempt; the same question asked at another time is another one."""
    uid, attempt = model.metadata.uid, str(question.attempt)
    return job_name("regate", uid, active.revision, question.against, question.at, attempt)


def reevaluation_order(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    target: RevisionStatus | None,
    name: str,
    now: datetime,
) -> JobOrder:
    """What the Job of a re-evaluation is given: the active revision as its tenants are served with it.

    Nothing new is let through by its answer, so no level is lowered for what was tried on the holdout before.

    Args:
        model: the object.
        facts: what was read.
        status: whose active revision is judged, and whose question says against what.
        target: what tenants would go back to, where that is asked and is a revision.
        name: of the Job.
        now: the time of the pass.
    """
    active, known = status.active, status.reevaluation
    assert facts.serving is not None and active is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    assert known is not None and known.asked is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    change: ChangeKind
    if known.asked.against == AGAINST_ITSELF:
        incumbent, change = Arm(revision=active.revision, recorded=active.evidence), "Repackage"
    else:
        same = target is not None and target.space == active.space
        incumbent, change = served_arm(target), "First" if target is None else "Repackage" if same else "Model"
    servers = facts.serving.registration.grpc_urls
    return _evaluation(model, facts, status, Sides(change, incumbent, served_arm(active), servers), name, now)


def _anchored(status: EmbeddingModelStatus) -> tuple[str, ...]:
    """Evidence of the last promoted revisions, the newest first, long after they are retired; none was taken back.

    A status that was written before promotions were kept knows those that are still warm.
    """
    taken_back = {entry.revision for entry in status.rejected}
    warm = (item for item in (status.active, *reversed(status.retiring)) if item is not None)
    kept = [item.evidence for item in reversed(status.promoted)]
    kept += [item.evidence for item in warm if item.evidence is not None and item.revision not in taken_back]
    return tuple(dict.fromkeys(kept))[:MOST_ANCHORED]


def _evaluation(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    sides: Sides,
    name: str,
    now: datetime,
) -> JobOrder:
    assert facts.profile is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    task = EvaluateTask(
        model=model.metadata.name,
        change=sides.change,
        incumbent=sides.incumbent,
        candidate=sides.candidate,
        servers=sides.servers,
        holdouts=model.spec.gate.holdouts,
        margins=model.spec.gate.margins,
        profile=facts.profile,
        earlier=sides.earlier,
        recent_since=format_time(now - WEAR_WINDOW),
        anchored=_anchored(status),
        embeddings=f"{facts.artifacts}/embeddings",
        evidence_uri=evidence_uri(facts, name),
        result_uri=result_uri(facts, name),
    )
    return JobOrder(name, "evaluate", task, model.metadata, "EmbeddingModel", GATE_DEADLINE)
