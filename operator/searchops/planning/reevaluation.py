"""The gate, asked again of what is promoted: by the clock, and when what a model answers with has changed.

While the rollback window is open the question is the gate's own: is the active revision worse than what tenants would
go back to? If it is, they go back. Afterwards there is nothing to go back to, so the active revision is held to its own
answers of the day it was judged: that tells a Triton image or a change of retrieval that made it worse.

A question is kept in the status before its Job is made, and its answer before anything follows from it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.retrieval import ANALYSER_VERSION, MEASURED_AVG_LEN_LEX, MEASURED_AVG_LEN_TRI
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import ReevaluationQuestion, ReevaluationStatus, Surroundings
from searchops.planning.conditions import Finding, no, unknown, yes
from searchops.planning.model_facts import CreateJob, DeleteJob, EmitEvent
from searchops.planning.names import short_hash
from searchops.planning.rollout_choice import (
    Refused,
    desired_of,
    gate_digest,
    is_active,
    retry_token,
    roll_back,
    rollback_target,
)
from searchops.planning.rollout_orders import (
    AGAINST_ITSELF,
    AGAINST_LEXICAL,
    reevaluation_order,
)
from searchops.planning.rollout_report import settled, verdict_of
from searchops.planning.rollout_stages import (
    JOB_POLL_SECONDS,
    MAX_ATTEMPTS,
    POOL_POLL_SECONDS,
    STORE_POLL_SECONDS,
    Stage,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.tasks import EvaluateResult
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import (
        ChangeKind,
        EmbeddingModelStatus,
        RevisionStatus,
    )
    from searchops.planning.model_facts import JobFacts, ModelFacts
    from searchops.planning.servers import PoolSync

Why = Literal["Scheduled", "TritonChanged", "RetrievalChanged", "GateChanged", "RetryToken"]
NEVER = timedelta(0)


def surroundings_of(model: EmbeddingModel, facts: ModelFacts) -> Surroundings | None:
    """What the active revision answers with besides itself; None while that is unknown or changing.

    Servers that state different versions are being replaced: what they answer together is nobody's answer.
    """
    if facts.serving is None or facts.profile is None:
        return None
    servers = facts.serving.servers
    versions = {server.version if server.reachable else "" for server in servers}
    if len(versions) != 1 or "" in versions:
        return None
    retrieval = (
        facts.profile.model_dump_json(by_alias=True),
        ANALYSER_VERSION,
        str(MEASURED_AVG_LEN_LEX),
        str(MEASURED_AVG_LEN_TRI),
    )
    return Surroundings(
        triton=versions.pop(), retrieval=short_hash(*retrieval, length=12), gate=gate_digest(model.spec)
    )


def reevaluate(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, serving: PoolSync | None, now: datetime
) -> Stage:
    """One pass over the re-evaluation of a model without a candidate.

    Args:
        model: the object.
        facts: what was read.
        status: with an active revision or without.
        serving: the serving pool, compared with what it should hold.
        now: the time of the pass.
    """
    active = status.active
    if active is None:
        return Stage(status.model_copy(update={"reevaluation": None}), ())
    around = surroundings_of(model, facts)
    known = status.reevaluation
    if known is None or known.revision != active.revision:
        known = ReevaluationStatus(
            revision=active.revision, at=format_time(now), surroundings=around, retry_token=retry_token(model)
        )
    elif known.surroundings is None and around is not None:
        known = known.model_copy(update={"surroundings": around})
    status = status.model_copy(update={"reevaluation": known})
    if known.asked is not None:
        return _follow(model, facts, status, known.asked, now)
    if _goes_back(model, status, known, now):
        return _go_back(model, facts, status, serving, now)
    why = _due(model, status, around, now)
    if why is None or around is None or serving is None:
        left = _until_due(model, known, now)
        return Stage(status, _standing(status), (), left if left is None or left > 0 else POOL_POLL_SECONDS)
    return _ask(model, facts, status, serving, why, around, now)


def _due(model: EmbeddingModel, status: EmbeddingModelStatus, around: Surroundings | None, now: datetime) -> Why | None:
    """Why the gate is to be asked again; None where it is not."""
    known = status.reevaluation
    before = known.surroundings if known is not None else None
    if known is None or around is None or before is None:
        return None
    if around.triton != before.triton:
        return "TritonChanged"
    if around.retrieval != before.retrieval:
        return "RetrievalChanged"
    if around.gate != before.gate:
        return "GateChanged"
    if retry_token(model) != known.retry_token and is_active(status, desired_of(model)):
        return "RetryToken"
    left = _until_due(model, known, now)
    return "Scheduled" if left is not None and left <= 0 else None


def _until_due(model: EmbeddingModel, known: ReevaluationStatus, now: datetime) -> float | None:
    """Seconds until the clock asks; None where it never does."""
    every = parse_duration(model.spec.gate.reevaluate_every)
    return None if every == NEVER else (parse_time(known.at) + every - now).total_seconds()


def _is_open(model: EmbeddingModel, active: RevisionStatus, now: datetime) -> bool:
    """Whether tenants could still go back to what they had before this revision."""
    window = parse_duration(model.spec.rollout.rollback_window)
    return active.promoted_at is not None and parse_time(active.promoted_at) + window > now


def _against(model: EmbeddingModel, status: EmbeddingModelStatus, now: datetime) -> str:
    """What the active revision is compared with."""
    active = status.active
    assert active is not None, "only what is active is evaluated again"  # noqa: S101 - caller's invariant
    if not _is_open(model, active, now):
        return AGAINST_ITSELF
    target = rollback_target(status, now)
    return target.revision if target is not None else AGAINST_LEXICAL


def _ask(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    serving: PoolSync,
    why: Why,
    around: Surroundings,
    now: datetime,
) -> Stage:
    """Write the question down; its Job follows in the next pass."""
    active, known = status.active, status.reevaluation
    assert active is not None and known is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    against = _against(model, status, now)
    sides = (active.revision, *((against,) if against not in (AGAINST_ITSELF, AGAINST_LEXICAL) else ()))
    waiting = [text for revision in sides for text in serving.waits_for(revision)]
    if waiting or serving.total == 0:
        seen = "; ".join(waiting) or "the pool has no server"
        said = f"{_asked_because(why)}, once every server serves both sides: {seen}"
        return Stage(status, _told(status, unknown("GatePassed", ModelReason.WAITING, said)), (), POOL_POLL_SECONDS)
    if against == AGAINST_ITSELF and active.evidence is None:
        nothing = (
            f"{_asked_because(why)}, but no evidence of {active.revision} is kept, so there is nothing to compare it "
            "with; the next candidate's gate compares both"
        )
        put_down = _unanswered(status, known, around, retry_token(model), nothing, now)
        return Stage(put_down, _standing(put_down), (), 0.0)
    question = ReevaluationQuestion(
        against=against, why=why, surroundings=around, retry_token=retry_token(model), at=format_time(now)
    )
    asked = status.model_copy(update={"reevaluation": known.model_copy(update={"asked": question})})
    event = EmitEvent("ReevaluationAsked", f"{active.revision} is evaluated again against {against}: {why}")
    return Stage(asked, _standing(asked), (event,), 0.0)


def _asked_because(why: str) -> str:
    return f"what is active is to be evaluated again ({why})"


def _unanswered(
    status: EmbeddingModelStatus,
    known: ReevaluationStatus,
    around: Surroundings,
    token: str,
    message: str,
    now: datetime,
) -> EmbeddingModelStatus:
    """The question is put down without an answer, until the clock or another change asks again."""
    update = {
        "at": format_time(now),
        "surroundings": around,
        "retry_token": token,
        "asked": None,
        "unanswered": message[:1024],
    }
    return status.model_copy(update={"reevaluation": known.model_copy(update=update)})


def _follow(
    model: EmbeddingModel,
    facts: ModelFacts,
    status: EmbeddingModelStatus,
    question: ReevaluationQuestion,
    now: datetime,
) -> Stage:
    """A question that was asked: its Job, and its answer."""
    job, known = facts.reevaluation, status.reevaluation
    assert known is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    if question.against != _against(model, status, now):
        stop = (DeleteJob(job.name, job.state.uid),) if job is not None and job.state is not None else ()
        dropped = status.model_copy(update={"reevaluation": known.model_copy(update={"asked": None})})
        return Stage(dropped, _standing(dropped), stop, 0.0)
    if facts.reevaluation_result is not None:
        return _answered(status, known, question, facts.reevaluation_result)
    if job is None or facts.serving is None or facts.profile is None:
        return Stage(status, _standing(status), (), POOL_POLL_SECONDS)
    running = job.state is not None and not (job.state.complete or job.state.failure)
    if job.unread and not running:
        message = f"it is unknown whether Job {job.name} has answered: {job.unread}"
        unread = unknown("GatePassed", ModelReason.ARTIFACTS_UNREADABLE, message)
        return Stage(status, _told(status, unread), (), STORE_POLL_SECONDS)
    if job.problem is not None:
        reason = ModelReason.POD_TEMPLATE_NOT_FOUND if job.problem.missing else ModelReason.POD_TEMPLATE_NOT_ALLOWED
        message = f"{_asked_because(question.why)}: {job.problem.message}"
        return Stage(status, _told(status, unknown("GatePassed", reason, message)), (), POOL_POLL_SECONDS)
    if job.state is None:
        order = reevaluation_order(model, facts, status, rollback_target(status, now), job.name, now)
        create = CreateJob(order, model.spec.gate.worker.pod_template)
        return Stage(status, _standing(status), (create,), JOB_POLL_SECONDS)
    return Stage(status, _standing(status), (), JOB_POLL_SECONDS) if running else _ended(status, known, job, now)


def _ended(status: EmbeddingModelStatus, known: ReevaluationStatus, job: JobFacts, now: datetime) -> Stage:
    """A Job that ended and said nothing: a new attempt while some are left, then it is put down; never a verdict."""
    question = known.asked
    assert question is not None and job.state is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    stop = (DeleteJob(job.name, job.state.uid),)
    if question.attempt < MAX_ATTEMPTS:
        again = question.model_copy(update={"attempt": question.attempt + 1})
        retried = status.model_copy(update={"reevaluation": known.model_copy(update={"asked": again})})
        return Stage(retried, _standing(retried), stop, 1.0)
    seen = f"{job.state.failure_reason} {job.state.failure}".strip() or "it is complete"
    message = (
        f"Job {job.name} ended without an answer ({seen}), as {MAX_ATTEMPTS} attempts did; look at its Pods' logs, "
        "then set spec.rollout.retryToken to ask again"
    )
    put_down = _unanswered(status, known, question.surroundings, question.retry_token, message, now)
    warning = EmitEvent("ReevaluationUnanswered", message, warning=True)
    return Stage(put_down, _standing(put_down), (*stop, warning), 0.0)


def _answered(
    status: EmbeddingModelStatus, known: ReevaluationStatus, question: ReevaluationQuestion, result: EvaluateResult
) -> Stage:
    """The verdict is told and written first; what follows from it is the next pass."""
    update = {
        "at": question.at,
        "surroundings": question.surroundings,
        "retry_token": question.retry_token,
        "asked": None,
        "against": question.against,
        "verdict": verdict_of(result, _change_of(status, question.against)),
        "unanswered": None,
    }
    answered = status.model_copy(update={"reevaluation": known.model_copy(update=update)})
    message = f"{result.revision} against {question.against}: {result.outcome} {result.message}".strip()
    event = EmitEvent("Reevaluated", message, warning=result.outcome in ("Regressed", "Invalid"))
    return Stage(answered, _standing(answered), (event,), 0.0)


def _change_of(status: EmbeddingModelStatus, against: str) -> ChangeKind:
    if against == AGAINST_LEXICAL:
        return "First"
    active = status.active
    target = next((item for item in status.retiring if item.revision == against), None)
    same = target is None or (active is not None and target.space == active.space)
    return "Repackage" if same else "Model"


def _goes_back(model: EmbeddingModel, status: EmbeddingModelStatus, known: ReevaluationStatus, now: datetime) -> bool:
    """Whether the last answer takes the active revision back: it lost against what is still there to go back to."""
    lost = known.verdict is not None and known.verdict.outcome == "Regressed" and known.against != AGAINST_ITSELF
    return lost and known.against == _against(model, status, now) and model.spec.gate.mode == "Enforce"


def _go_back(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, serving: PoolSync | None, now: datetime
) -> Stage:
    """Tenants go back, once every server serves what they go back to: a target that is ill would be worse."""
    known, target = status.reevaluation, rollback_target(status, now)
    assert known is not None and known.verdict is not None, "checked by the caller"  # noqa: S101 - caller's invariant
    said = f"{known.verdict.message or known.verdict.reason or 'no reason given'}"
    if target is not None and (serving is None or not serving.serves(target.revision)):
        missing = "; ".join(serving.waits_for(target.revision)) if serving is not None else "the pool is not registered"
        message = (
            f"Regressed against {target.revision}, but nobody goes back to it until every server serves it: {missing}; "
            f"what was seen: {said}"
        )
        findings = tuple(no(kind, ModelReason.REGRESSED, message) for kind in ("GatePassed", "Ready"))
        return Stage(status, findings, (), POOL_POLL_SECONDS)
    why = Refused("Regressed", f"evaluated again after it was promoted: {said}", known.verdict.evidence)
    choice = roll_back(model, facts, status, why, now)
    updated = choice.status.model_copy(update={"reevaluation": None, "verdict": known.verdict})
    return Stage(updated, settled(model, updated), choice.actions, 0.0)


def _standing(status: EmbeddingModelStatus) -> tuple[Finding, ...]:
    """What is known of the active revision by its last answer."""
    known = status.reevaluation
    if known is None:
        return ()
    if known.asked is not None:
        message = f"{_asked_because(known.asked.why)} against {known.asked.against}; {_last(known)}"
    else:
        message = _last(known)
    if known.unanswered is not None:
        message = f"{known.unanswered}; {message}"
    outcome = known.verdict.outcome if known.verdict is not None else "Pass"
    if outcome == "Regressed":
        advice = f"{message}; correct what changed, or roll out another revision"
        return tuple(no(kind, ModelReason.REGRESSED, advice) for kind in ("GatePassed", "Ready"))
    if known.unanswered is not None:
        return (unknown("GatePassed", ModelReason.GATE_INVALID, message),)
    if outcome in ("Pass", "Better"):
        return (yes("GatePassed", ModelReason.PASSED, message),)
    reason = ModelReason.INCONCLUSIVE if outcome == "Inconclusive" else ModelReason.GATE_INVALID
    return (unknown("GatePassed", reason, message),)


def _told(status: EmbeddingModelStatus, finding: Finding) -> tuple[Finding, ...]:
    """A finding of this pass, but where the last answer was Regressed that stands until another answer."""
    standing = _standing(status)
    return standing if any(one.reason == ModelReason.REGRESSED for one in standing) else (finding,)


def _last(known: ReevaluationStatus) -> str:
    verdict = known.verdict
    if verdict is None:
        return f"{known.revision} was let through before it was promoted"
    said = verdict.message or verdict.reason or "no reason given"
    return f"evaluated again at {known.at} against {known.against}: {verdict.outcome}: {said}"
