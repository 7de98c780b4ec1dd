"""Whether a tenant's own pinned queries let it follow its model: a trial by a worker Job, before this tenant moves.

The trial is the tenant's alone. A set that is broken, or that a revision loses, holds back its own tenant and nobody
else; the fleet's verdict rests on the model's holdouts. It is asked for every move forward that the model makes, and
for none that a person makes (a revision or another model that the spec names), nor for going back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_time
from searchops.api.tasks import PinnedTask
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.api.v1alpha1.search_tenant_status import PinnedStatus
from searchops.planning.conditions import Finding, no, unknown
from searchops.planning.jobs import JobOrder
from searchops.planning.names import job_name, revision_number
from searchops.planning.schema import dense_binding
from searchops.planning.tenant_facts import EmitEvent, StartTrial, StopTrial

if TYPE_CHECKING:
    from searchops.api.meta import ArtifactReference
    from searchops.api.tasks import PinnedResult
    from searchops.api.v1alpha1.embedding_model_status import RevisionStatus
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.binding_state import BindingContext
    from searchops.planning.tenant_facts import TenantAction, TrialFacts
    from searchops.planning.waves import Wanted

FIELD = "spec.gate.pinned"
DEADLINE = timedelta(hours=1)
POLL_SECONDS = 15.0
TURN_SECONDS = 30.0
RETRY_FIRST = timedelta(minutes=5)
RETRY_MOST = timedelta(hours=6)
HELD_BACK = (
    TenantReason.PINNED_QUERIES_LOST,
    TenantReason.PINNED_QUERIES_UNDECIDED,
    TenantReason.PINNED_QUERIES_INVALID,
)
"""Reasons of ModelBound with which a tenant stays where it is: no wave waits for it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a trial stands.

    Attributes:
        finding: why the tenant does not follow; None lets it.
        decided: whether it stands until something else is asked, so that what was begun for it may be taken away.
    """

    status: PinnedStatus | None
    finding: Finding | None = None
    actions: tuple[TenantAction, ...] = ()
    requeue: float | None = None
    decided: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """A set, on a revision, for a tenant that is bound to another one."""

    reference: ArtifactReference
    revision: RevisionStatus
    incumbent: str | None

    def same(self, status: PinnedStatus | None) -> bool:
        """Whether a status is about this very question."""
        if status is None:
            return False
        asked = (self.revision.revision, self.incumbent, self.reference.digest)
        return (status.revision, status.incumbent, status.digest) == asked


def plan_trial(context: BindingContext, wanted: Wanted) -> Trial | None:
    """What the pinned queries say to the next revision; None where nothing is asked of them."""
    question = _question(context, wanted)
    if question is None:
        return None
    before = context.tenant.status.pinned
    status = before if question.same(before) else None
    if status is not None and status.outcome == "Pass":
        return Trial(status)
    facts = context.facts.trial
    if facts is None:
        return Trial(status, _tried("this process does not try pinned queries yet", context), requeue=TURN_SECONDS)
    if not facts.allowed:
        said = f"{question.reference.uri} is outside what this namespace may read"
        said += f" ({', '.join(facts.prefixes) or 'no prefix is allowed'}); move the set, or ask for a prefix"
        return Trial(status, _invalid(said, context), decided=True)
    if status is not None and status.outcome == "Running":
        return _running(context, question, status, facts)
    if status is not None and status.outcome in ("Regressed", "Inconclusive"):
        return Trial(status, _judged(status, context), decided=True)
    if status is not None and status.retry_at is not None and parse_time(status.retry_at) > context.now:
        left = (parse_time(status.retry_at) - context.now).total_seconds()
        return Trial(status, _judged(status, context), requeue=max(1.0, left), decided=True)
    return _start(context, question, status, facts)


def recorded(tenant: SearchTenant) -> PinnedStatus | None:
    """What stays of the last trial where none is asked for now: its outcome, and never one that nobody waits for."""
    last = tenant.status.pinned
    declared = tenant.spec.gate is not None and tenant.spec.gate.pinned is not None
    return last if declared and last is not None and last.outcome != "Running" else None


def dropped_trial(context: BindingContext, status: PinnedStatus | None) -> tuple[StopTrial, ...]:
    """What ends the Job that was waited for, where its question will not be asked again.

    A wave that is halted asks it again once it goes on, and finds the answer of a Job that was left to run.

    Args:
        context: of the pass, with the status of before.
        status: of the pinned queries after this pass.
    """
    last, model, spec = context.tenant.status.pinned, context.facts.model, context.tenant.spec
    if last is None or last.outcome != "Running" or last.job is None or model is None:
        return ()
    if status is not None and status.job == last.job:
        return ()
    declared = spec.gate.pinned if spec.gate is not None else None
    known = {item.revision for item in (model.status.candidate, model.status.active) if item is not None}
    same_set = declared is not None and declared.digest == last.digest
    if same_set and last.revision in known and last.incumbent == context.state.binding.revision:
        return ()
    return (StopTrial(last.job),)


def bound_revision(context: BindingContext) -> RevisionStatus | None:
    """What the model says of the revision that the tenant is bound to; None where it does not know it any more."""
    if context.facts.model is None:
        return None
    published = context.facts.model.status
    known = (published.active, published.candidate, *published.retiring)
    return next((item for item in known if item is not None and item.revision == context.state.binding.revision), None)


def _question(context: BindingContext, wanted: Wanted) -> _Question | None:
    spec, binding = context.tenant.spec, context.state.binding
    if spec.gate is None or spec.gate.pinned is None or wanted.revision is None:
        return None
    if wanted.why not in ("Active", "Candidate") or binding.model not in (None, spec.model.name):
        return None
    before = revision_number(binding.revision) if binding.revision is not None else 0
    if before >= wanted.revision.number:
        return None
    return _Question(spec.gate.pinned, wanted.revision, binding.revision)


def _running(context: BindingContext, question: _Question, status: PinnedStatus, facts: TrialFacts) -> Trial:
    answer, job = facts.answer, facts.job
    if answer is not None and answer.revision == status.revision:
        return _answered(context, status, answer)
    ended = job is not None and (job.complete or bool(job.failure))
    if facts.unread and (job is None or ended):
        message = f"it is unknown whether Job {status.job} has answered: {facts.unread}"
        return Trial(status, unknown("ModelBound", TenantReason.PINNED_QUERIES_TRIED, message), requeue=POLL_SECONDS)
    if job is None:
        return _start(context, question, status, facts)
    if not ended:
        return Trial(status, _under_way(status, context), requeue=POLL_SECONDS)
    seen = f"{job.failure_reason} {job.failure}".strip() or "it is complete"
    return _put_off(context, status, "Failed", f"Job {status.job} ended without an answer ({seen})")


def _answered(context: BindingContext, status: PinnedStatus, answer: PinnedResult) -> Trial:
    """The outcome is written first; what follows from it is the next pass."""
    evidence = {"evidence": answer.evidence_uri or None, "evidence_digest": answer.evidence_digest or None}
    known = status.model_copy(
        update={
            "lost": tuple(query[:256] for query in answer.lost),
            "lost_total": answer.lost_total,
            "of": answer.of,
            **evidence,
        }
    )
    if answer.outcome == "Invalid":
        return _put_off(context, known, "Invalid", answer.message)
    outcome = "Pass" if answer.outcome in ("Pass", "Better") else answer.outcome
    judged = known.model_copy(update={"outcome": outcome, "message": answer.message or None, "retry_at": None})
    if outcome == "Pass":
        said = f"all {judged.of} hold on {judged.revision}; the tenant follows"
        return Trial(judged, _tried(said, context), requeue=0.5)
    finding = _judged(judged, context)
    return Trial(judged, finding, (_event(finding),), decided=True)


def _put_off(context: BindingContext, status: PinnedStatus, outcome: str, message: str) -> Trial:
    """Neither an answer nor a verdict: tried again later and later, for ever, while only this tenant waits."""
    wait = min(RETRY_FIRST * 2 ** min(status.attempt - 1, 10), RETRY_MOST)
    later = {"outcome": outcome, "message": message[:1024], "retry_at": format_time(context.now + wait)}
    put_off = status.model_copy(update=later)
    finding = _judged(put_off, context)
    return Trial(put_off, finding, (_event(finding),), wait.total_seconds(), decided=True)


def _start(context: BindingContext, question: _Question, status: PinnedStatus | None, facts: TrialFacts) -> Trial:
    if facts.problem is not None:
        return Trial(status, _invalid(facts.problem.message, context), requeue=TURN_SECONDS, decided=True)
    attempt = 1
    if status is not None:
        attempt = status.attempt + (status.outcome != "Running")
    if not facts.servers:
        said = "the serving pool of its model is not registered"
        return Trial(status, _tried(said, context, attempt), requeue=TURN_SECONDS)
    if facts.running >= facts.most:
        said = f"waits for its turn: {facts.running} trials run, {facts.most} may at one time"
        return Trial(status, _tried(said, context, attempt), requeue=TURN_SECONDS)
    started = PinnedStatus(
        revision=question.revision.revision,
        incumbent=question.incumbent,
        digest=question.reference.digest,
        outcome="Running",
        job=_job_name(context.tenant, question, attempt),
        attempt=attempt,
    )
    order = _order(context, question, started, facts)
    return Trial(started, _under_way(started, context), (StartTrial(order, facts.template),), POLL_SECONDS)


def _job_name(tenant: SearchTenant, question: _Question, attempt: int) -> str:
    """Another set, revision, incumbent or attempt is another Job; the same one is made once."""
    incumbent = question.incumbent or "lexical"
    inputs = (question.reference.digest, question.revision.revision, incumbent, str(attempt))
    return job_name("pinned", tenant.metadata.uid, *inputs)


def _order(context: BindingContext, question: _Question, status: PinnedStatus, facts: TrialFacts) -> JobOrder:
    tenant = context.tenant
    task = PinnedTask(
        field=FIELD,
        pinned=question.reference,
        within=facts.prefixes,
        incumbent=context.state.binding,
        candidate=dense_binding(tenant.spec, context.profile, question.revision, context.side, context.now),
        servers=facts.servers,
        evidence_uri=f"{facts.artifacts}/evidence/{status.job}.json",
        result_uri=trial_result_uri(facts.artifacts, status.job),
    )
    return JobOrder(status.job, "evaluate", task, tenant.metadata, "SearchTenant", DEADLINE)


def trial_result_uri(artifacts: str, job: str) -> str:
    """Where a trial's Job writes its answer first."""
    return f"{artifacts}/results/{job}.json"


def _under_way(status: PinnedStatus, context: BindingContext) -> Finding:
    return _tried(f"Job {status.job} tries them on {status.revision}", context, status.attempt)


def _tried(what: str, context: BindingContext, attempt: int = 1) -> Finding:
    """What is waited for. From the second attempt on nobody else waits with the tenant."""
    if attempt > 1:
        return _invalid(f"{what}, attempt {attempt}", context)
    message = f"{FIELD}: {what}; {_kept(context)} meanwhile"
    return no("ModelBound", TenantReason.PINNED_QUERIES_TRIED, message)


def _invalid(what: str, context: BindingContext) -> Finding:
    return no("ModelBound", TenantReason.PINNED_QUERIES_INVALID, f"{FIELD}: {what}; {_kept(context)}")


def _judged(status: PinnedStatus, context: BindingContext) -> Finding:
    """What an outcome that is no Pass says."""
    if status.outcome in ("Invalid", "Failed"):
        said = (status.message or "").removeprefix(f"{FIELD}: ")
        return _invalid(f"{said}; tried again at {status.retry_at}", context)
    lost = status.outcome == "Regressed"
    reason = TenantReason.PINNED_QUERIES_LOST if lost else TenantReason.PINNED_QUERIES_UNDECIDED
    what = f"{status.revision} would lose" if lost else f"{status.revision} may lose"
    named = ", ".join(status.lost) + (", …" if status.lost_total > len(status.lost) else "")
    queries = f"{status.lost_total} of {status.of} pinned queries ({named})" if status.lost else "pinned queries"
    detail = status.message if not status.lost else f"evidence: {status.evidence}"
    return no("ModelBound", reason, f"{FIELD}: {what} {queries}; {detail}; {_kept(context)}"[:2048])


def _kept(context: BindingContext) -> str:
    return f"the tenant keeps {context.state.binding.revision or 'the lexical legs'}"


def _event(finding: Finding) -> EmitEvent:
    return EmitEvent(str(finding.reason), finding.message, warning=True)
