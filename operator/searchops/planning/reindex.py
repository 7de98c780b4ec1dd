"""One pass over one ReindexJob as a pure function: queue, one Indexed Job, exact counts, Verified.

The job never moves an alias or a binding: it ends at Verified, and reports Switched when it *reads* that the tenant
did it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import parse_duration, parse_time
from searchops.api.tasks import (
    EXIT_BAD_MODEL,
    EXIT_SOURCE_UNREADABLE,
    EXIT_TOO_MANY_FAILURES,
    CellAddress,
    ReindexTask,
    SliceResult,
)
from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexReason
from searchops.planning.conditions import Finding, holds, no, yes
from searchops.planning.jobs import JobOrder, TemplateProblem
from searchops.planning.names import FINALIZER
from searchops.planning.reindex_report import progress_of, report, worker_name
from searchops.planning.reindex_token import needs_fresh_token, token_expiry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CollectionState, JobState
    from searchops.api.retrieval import Binding
    from searchops.api.v1alpha1.reindex_job import ReindexJob, ReindexJobStatus
    from searchops.api.v1alpha1.search_tenant import SearchTenant

POLL_SECONDS = 5.0
QUEUE_POLL_SECONDS = 10.0
SAMPLE_COSINE = 0.9999
"""A stored vector against a fresh encoding: batch shapes move real encoders by about 1e-6."""
EXIT_REASONS = {
    EXIT_BAD_MODEL: ReindexReason.BAD_MODEL,
    EXIT_TOO_MANY_FAILURES: ReindexReason.TOO_MANY_FAILURES,
    EXIT_SOURCE_UNREADABLE: ReindexReason.SOURCE_UNREADABLE,
}
FINAL = ("Complete", "Ready")
AWAITS_SWITCH = no("Switched", ReindexReason.WAITING, "verified; the tenant switches")
FINISHED: tuple[JobPhase, ...] = ("Switched", "Failed", "Cancelled")


@dataclass(frozen=True, slots=True)
class ReindexFacts:
    """Everything that a pass over one ReindexJob read.

    Attributes:
        tenant_unreadable: the tenant is there, and does not parse.
        pending: the side under construction, from the metadata of the live collection.
        source: the live collection.
        target: the collection that is written (the same for NamedVector).
        documents: exact number of live points of the source.
        lacking: exact number of those that the target side does not have yet.
        slices: answers of the finished slices, by index.
        running: ReindexJobs of the same model that hold a worker Job, and of the whole fleet.
        halted: why the wave of this revision starts nobody now; empty where it does.
    """

    tenant: SearchTenant | None
    artifacts: str
    cell: CellRegistration | None = None
    pending: Binding | None = None
    source: CollectionState | None = None
    target: CollectionState | None = None
    documents: int = 0
    lacking: int | None = None
    servers: tuple[str, ...] = ()
    template: TemplateProblem | None = None
    worker: JobState | None = None
    answers: tuple[str, ...] = ()
    slices: tuple[SliceResult, ...] = ()
    running: int = 0
    running_limit: int = 8
    halted: str = ""
    fleet_running: int = 0
    fleet_limit: int = 32
    source_allowed: bool = True
    tenant_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the object until its worker Job is gone."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go: the last write."""


@dataclass(frozen=True, slots=True)
class CreateWorker:
    """Create the Indexed Job once."""

    order: JobOrder
    template: str


@dataclass(frozen=True, slots=True)
class DeleteWorker:
    """Stop the Indexed Job."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteSelf:
    """A finished ReindexJob past its time to live."""


ReindexAction = AddFinalizer | RemoveFinalizer | CreateWorker | DeleteWorker | DeleteSelf


@dataclass(frozen=True, slots=True)
class ReindexPlan:
    """What to do, what to say (None: nothing), and when to look again (None: when something changes)."""

    actions: tuple[ReindexAction, ...]
    status: ReindexJobStatus | None
    requeue_after: float | None = None


def plan_reindex(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """Decide what a ReindexJob needs."""
    name = worker_name(job.metadata)
    if job.metadata.deletion_timestamp is not None:
        if FINALIZER not in job.metadata.finalizers:
            return ReindexPlan((), None)
        stop = (DeleteWorker(name),) if facts.worker is not None else ()
        return ReindexPlan((*stop, RemoveFinalizer()), None)
    if job.status.phase in FINISHED:
        return _finished(job, facts, now)
    if FINALIZER not in job.metadata.finalizers:
        return ReindexPlan((AddFinalizer(),), None, 0.0)
    blocked = _blocked(job, facts, now)
    if blocked is not None:
        return blocked
    if holds(job.status.conditions, "Verified"):
        findings = (AWAITS_SWITCH, _not_ready(AWAITS_SWITCH))
        return ReindexPlan((), report(job, facts, now, "Verified", findings), POLL_SECONDS)
    if facts.worker is None:
        return _queue(job, facts, now, name)
    if facts.worker.failure:
        return _worker_failed(job, facts, now)
    if facts.worker.complete:
        return _verify(job, facts, now)
    if job.status.job is None:
        return _create(job, facts, now, name)
    if facts.worker.suspended:
        finding = no("Embedded", ReindexReason.QUEUED, f"Job {name} is suspended by its queue")
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, _not_ready(finding))), POLL_SECONDS)
    return ReindexPlan((), _embedding(job, facts, now, name), POLL_SECONDS)


def _embedding(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> ReindexJobStatus:
    """Work under way: the message carries the counters of the status, which are throttled."""
    progress, _ = progress_of(job, facts, "Embedding", now)
    seen = (
        "how many documents are embedded is unknown"
        if progress is None
        else f"{progress.embedded} of {progress.documents} documents are embedded"
    )
    finding = no("Embedded", ReindexReason.EMBEDDING, f"Job {name}: {seen}")
    return report(job, facts, now, "Embedding", (finding, _not_ready(finding)))


def _finished(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    ended = parse_time(job.status.finished_at) if job.status.finished_at else now
    left = (ended + parse_duration(job.spec.ttl_after_finished) - now).total_seconds()
    if left <= 0:
        return ReindexPlan((DeleteSelf(),), None)
    stop: tuple[ReindexAction, ...] = ()
    if facts.worker is not None and not facts.worker.complete and not facts.worker.failure:
        stop = (DeleteWorker(facts.worker.name),)
    return ReindexPlan(stop, None, left)


def _blocked(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Whatever stands before the work; None where it may go on."""
    tenant = facts.tenant
    if facts.tenant_unreadable:
        message = f"spec.tenant {job.spec.tenant!r} does not parse; look at its Ready condition"
        return _waiting(job, facts, now, ReindexReason.WAITING, message)
    if tenant is None:
        message = f"spec.tenant {job.spec.tenant!r} does not exist"
        if _has_begun(job, facts):
            return _cancelled(job, facts, now, message)
        return _waiting(job, facts, now, ReindexReason.TENANT_NOT_FOUND, message)
    bound = tenant.status.binding.revision if tenant.status.binding is not None else None
    named = tenant.status.rebuild.reindex_job if tenant.status.rebuild is not None else None
    if named != job.metadata.name:
        if holds(job.status.conditions, "Verified") and bound == job.spec.revision:
            switched = yes("Switched", ReindexReason.SWITCHED, f"the tenant is bound to {bound}")
            findings = (switched, *(yes(kind, ReindexReason.COMPLETE, "verified and switched") for kind in FINAL))
            return ReindexPlan((), report(job, facts, now, "Switched", findings, finished=True), 0.0)
        if _has_begun(job, facts):
            message = f"tenant {tenant.metadata.name} does not wait for this job any more (it names {named or 'none'})"
            return _cancelled(job, facts, now, message)
        message = f"tenant {tenant.metadata.name} names {named or 'no ReindexJob'} in status.rebuild, not this one"
        return _waiting(job, facts, now, ReindexReason.NOT_NAMED_BY_TENANT, message)
    if holds(job.status.conditions, "Verified"):
        return None
    if job.spec.suspend:
        return _suspended(job, facts, now)
    if not facts.source_allowed:
        message = f"spec.source.uri {job.spec.source.uri}: its prefix is not allowed for this namespace by the settings"
        return _waiting(job, facts, now, ReindexReason.SOURCE_NOT_ALLOWED, message)
    if facts.cell is None or facts.source is None:
        return _waiting(job, facts, now, ReindexReason.CELL_UNREACHABLE, "the tenant's collection could not be read")
    if facts.pending is None or facts.pending.revision != job.spec.revision or facts.target is None:
        return _waiting(job, facts, now, ReindexReason.PREPARING, "the tenant has not prepared the target side yet")
    return None


def _has_begun(job: ReindexJob, facts: ReindexFacts) -> bool:
    return facts.worker is not None or job.status.started_at is not None


def _cancelled(job: ReindexJob, facts: ReindexFacts, now: datetime, message: str) -> ReindexPlan:
    finding = no("Ready", ReindexReason.CANCELLED, message)
    stop = (DeleteWorker(facts.worker.name),) if facts.worker is not None else ()
    return ReindexPlan(stop, report(job, facts, now, "Cancelled", (finding,), finished=True), 0.0)


def _suspended(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """Hold the work: the Job goes, its cursors stay, and the next one goes on from there."""
    finding = no("Prepared", ReindexReason.SUSPENDED, "spec.suspend is true")
    over = facts.worker is None or facts.worker.complete or bool(facts.worker.failure)
    stop = () if over or facts.worker is None else (DeleteWorker(facts.worker.name),)
    status = report(job, facts, now, "Pending", (finding, _not_ready(finding)))
    return ReindexPlan(stop, status if over else status.model_copy(update={"job": None}), QUEUE_POLL_SECONDS)


def _waiting(job: ReindexJob, facts: ReindexFacts, now: datetime, reason: ReindexReason, message: str) -> ReindexPlan:
    """Wait for something else; work that is under way goes on and keeps its phase, because it still counts."""
    phase: JobPhase = "Pending"
    findings = [no("Ready", reason, message), no("Prepared", reason, message)]
    if facts.worker is not None and job.status.phase is not None:
        phase, findings = job.status.phase, findings[:1]
    return ReindexPlan((), report(job, facts, now, phase, findings), QUEUE_POLL_SECONDS)


def _not_ready(finding: Finding) -> Finding:
    return Finding("Ready", "False", finding.reason, finding.message)


def _queue(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> ReindexPlan:
    if facts.template is not None:
        missing = facts.template.missing
        reason = ReindexReason.POD_TEMPLATE_NOT_FOUND if missing else ReindexReason.POD_TEMPLATE_NOT_ALLOWED
        return _waiting(job, facts, now, reason, facts.template.message)
    if facts.halted and job.status.started_at is None:
        finding = no("Prepared", ReindexReason.QUEUED, f"the wave of {job.spec.revision} is halted ({facts.halted})")
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, _not_ready(finding))), QUEUE_POLL_SECONDS)
    if facts.running >= facts.running_limit or facts.fleet_running >= facts.fleet_limit:
        message = (
            f"{facts.running} of {facts.running_limit} reindexes of the model and {facts.fleet_running} of "
            f"{facts.fleet_limit} of the fleet are running"
        )
        finding = no("Prepared", ReindexReason.QUEUED, message)
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, _not_ready(finding))), QUEUE_POLL_SECONDS)
    return _create(job, facts, now, name)


def _create(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> ReindexPlan:
    """Create the Job and its Secret; again until the status says that both are there, which changes nothing twice."""
    order = _order(job, facts, now, name)
    made = no("Embedded", ReindexReason.EMBEDDING, f"Job {name} is created")
    prepared = yes("Prepared", ReindexReason.PREPARED, "the target side is there and every gateway writes both")
    findings = (prepared, made, _not_ready(made))
    create = CreateWorker(order, job.spec.worker.pod_template)
    status = report(job, facts, now, "Embedding", findings, started=True, created=True)
    return ReindexPlan((create,), status, POLL_SECONDS)


def renewed_claims(
    job: ReindexJob, facts: ReindexFacts, signed_at: datetime | None, now: datetime
) -> Mapping[str, Any] | None:
    """Claims of the token that the Job's Secret should hold from now on; None where the one it holds will do."""
    if not needs_fresh_token(job, facts, signed_at, now):
        return None
    return _order(job, facts, now, worker_name(job.metadata)).secret_claims


def _order(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> JobOrder:
    """The worker's task, and a token on exactly the collections it names: `r` source, `prw` target."""
    assert facts.pending and facts.source and facts.target and facts.cell  # noqa: S101 - checked by _blocked
    named = facts.source.name == facts.target.name
    deadline = parse_duration(job.spec.budget.deadline)
    access = [{"collection": facts.target.name, "access": "prw"}]
    if not named and job.spec.source.uri is None:
        access.append({"collection": facts.source.name, "access": "r"})
    claims = {
        "exp": int(token_expiry(job, now).timestamp()),
        "access": access,
        "subject": f"{job.metadata.uid}/worker",
        "cell": facts.cell.name,
    }
    state = f"{facts.artifacts}/reindex/{job.metadata.uid}"
    task = ReindexTask(
        tenant=f"{job.metadata.namespace}/{job.spec.tenant}",
        strategy="NamedVector" if named else "BlueGreen",
        cell=CellAddress(
            url=facts.cell.urls[0] if facts.cell.urls else "",
            others=facts.cell.urls[1:],
            grpc_port=facts.cell.grpc_port,
            ca_cert=facts.cell.ca_cert,
        ),
        source_collection=facts.source.name if job.spec.source.uri is None else None,
        source_uri=job.spec.source.uri,
        target_collection=facts.target.name,
        target=facts.pending,
        manifest_digest=facts.pending.manifest_digest,
        servers=facts.servers,
        slices=job.spec.slices,
        max_points_per_second=job.spec.budget.max_points_per_second,
        max_failed_percent=job.spec.failures.max_percent,
        state=state,
        result_uri=f"{state}/results",
    )
    return JobOrder(
        name,
        "reindex",
        task,
        job.metadata,
        "ReindexJob",
        deadline,
        completions=job.spec.slices,
        cell=facts.cell.name,
        secret_claims=claims,
    )


def _verify(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """Exact counts of the database and sampled re-encodings of the workers; unknown is never success."""
    failed = sum(item.failed for item in facts.slices)
    if len(facts.slices) < job.spec.slices:
        message = f"{len(facts.slices)} of {job.spec.slices} slices left an answer though the Job is complete"
        return _failed(job, facts, now, ReindexReason.WORKER_FAILED, message)
    refused = next((item for item in facts.slices if item.exit_code), None)
    if refused is not None:
        message = f"slice {refused.slice} answered with exit code {refused.exit_code}: {refused.message}"
        return _failed(job, facts, now, EXIT_REASONS.get(refused.exit_code, ReindexReason.WORKER_FAILED), message)
    limit = facts.documents * float(job.spec.failures.max_percent) / 100
    if failed > limit:
        message = (
            f"{failed} of {facts.documents} documents could not be embedded, spec.failures.maxPercent "
            f"{job.spec.failures.max_percent} allows {limit:g}; they are listed in the dead letters"
        )
        return _failed(job, facts, now, ReindexReason.TOO_MANY_FAILURES, message)
    cosines = [item.sample_min_cosine for item in facts.slices if item.sample_min_cosine is not None]
    dense = facts.pending is not None and facts.pending.vector is not None
    if dense and not cosines and any(item.embedded for item in facts.slices):
        message = "documents were embedded, but no stored vector was compared with a fresh encoding"
        return _failed(job, facts, now, ReindexReason.WORKER_FAILED, message)
    if not all(cosine >= SAMPLE_COSINE for cosine in cosines):
        message = (
            f"a stored vector and a fresh encoding have cosine {min(cosines):.6f}, wanted at least {SAMPLE_COSINE}"
        )
        return _failed(job, facts, now, ReindexReason.BAD_MODEL, message)
    if facts.lacking is None or facts.lacking > failed:
        message = (
            f"{facts.lacking} of {facts.documents} live documents are not on the target side, {failed} dead-lettered"
        )
        if facts.worker is not None and _age(facts.worker.completion_time, now) > timedelta(minutes=5):
            return _failed(job, facts, now, ReindexReason.COUNT_MISMATCH, message)
        finding = no("Verified", ReindexReason.COUNT_MISMATCH, message)
        return ReindexPlan((), report(job, facts, now, "Indexing", (finding, _not_ready(finding))), POLL_SECONDS)
    target = facts.target
    if target is None or target.pending_updates or target.status not in ("green", "grey", "yellow"):
        seen = "unknown" if target is None else f"{target.pending_updates} updates queued, status {target.status}"
        finding = no("Indexed", ReindexReason.INDEXING, f"the target is still being indexed ({seen})")
        return ReindexPlan((), report(job, facts, now, "Indexing", (finding, _not_ready(finding))), POLL_SECONDS)
    said = f"{facts.documents - failed} of {facts.documents} documents, {failed} dead-lettered, counted exactly"
    findings = (
        yes("Embedded", ReindexReason.EMBEDDED, said),
        yes("Indexed", ReindexReason.INDEXED, "no update is queued"),
        yes(
            "Verified",
            ReindexReason.VERIFIED,
            f"{said}; {sum(item.sampled for item in facts.slices)} re-encoded samples equal",
        ),
        AWAITS_SWITCH,
        _not_ready(AWAITS_SWITCH),
    )
    return ReindexPlan((), report(job, facts, now, "Verified", findings), POLL_SECONDS)


def _age(text: str, now: datetime) -> timedelta:
    return now - parse_time(text) if text else timedelta(0)


def _worker_failed(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    assert facts.worker is not None  # noqa: S101 - checked by the caller
    if facts.worker.failure_reason == "DeadlineExceeded":
        message = f"the work did not end within spec.budget.deadline {job.spec.budget.deadline}"
        return _failed(job, facts, now, ReindexReason.DEADLINE_EXCEEDED, message)
    told = next((item for item in facts.slices if item.exit_code), None)
    message = told.message if told is not None else f"{facts.worker.failure_reason}: {facts.worker.failure}"
    reason = EXIT_REASONS.get(told.exit_code if told is not None else 0, ReindexReason.WORKER_FAILED)
    return _failed(job, facts, now, reason, message)


def _failed(job: ReindexJob, facts: ReindexFacts, now: datetime, reason: ReindexReason, message: str) -> ReindexPlan:
    said = f"{message}; the old binding is untouched"
    findings = (no("Verified", reason, said), no("Complete", reason, said), no("Ready", reason, said))
    return ReindexPlan((), report(job, facts, now, "Failed", findings, finished=True), 0.0)
