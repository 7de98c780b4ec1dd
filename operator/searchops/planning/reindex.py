"""One pass over one ReindexJob as a pure function: queue, one Indexed Job, exact counts, Verified.

The job never moves an alias or a binding: it ends at Verified, and reports Switched when it *reads* that the tenant
did it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops.api.meta import parse_duration, parse_time
from searchops.api.tasks import CellAddress, ReindexTask
from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexReason
from searchops.planning.conditions import holds, no, yes
from searchops.planning.jobs import JobOrder
from searchops.planning.names import FINALIZER
from searchops.planning.reindex_budget import over_budget
from searchops.planning.reindex_facts import (
    AddFinalizer,
    CreateWorker,
    DeleteSelf,
    DeleteWorker,
    HoldCell,
    MeasureRecall,
    ReindexAction,
    ReindexFacts,
    ReindexPlan,
    RemoveFinalizer,
)
from searchops.planning.reindex_report import failing_status, not_ready, progress_of, report, results_uri, worker_name
from searchops.planning.reindex_request import awaits_switch, refusal, retry_cause
from searchops.planning.reindex_room import met_full_cell, waits_for_room
from searchops.planning.reindex_token import access_of, needs_fresh_token, physical, token_expiry
from searchops.planning.reindex_verify import POLL_SECONDS, verify, worker_failed
from searchops.planning.waves import has_begun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.v1alpha1.reindex_job import ReindexJob, ReindexJobStatus
    from searchops.api.v1alpha1.search_tenant_status import RebuildStatus

__all__ = [
    "AddFinalizer",
    "CreateWorker",
    "DeleteSelf",
    "DeleteWorker",
    "HoldCell",
    "MeasureRecall",
    "ReindexAction",
    "ReindexFacts",
    "ReindexPlan",
    "RemoveFinalizer",
    "failing",
    "plan_reindex",
]

QUEUE_POLL_SECONDS = 10.0
RETRY_POLL_SECONDS = 1.0
KEPT_POLL_SECONDS = 3600.0
FINAL = ("Complete", "Ready")
FINISHED: tuple[JobPhase, ...] = ("Switched", "Failed", "Cancelled")


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
        waits = awaits_switch(job)
        findings = (waits, not_ready(waits))
        return ReindexPlan((), report(job, facts, now, "Verified", findings), POLL_SECONDS)
    if facts.worker is None:
        return _queue(job, facts, now, name)
    if facts.worker.failure:
        return met_full_cell(job, facts, now) or worker_failed(job, facts, now)
    if facts.worker.complete:
        return verify(job, facts, now)
    if job.status.job is None:
        return _create(job, facts, now, name)
    if facts.worker.suspended:
        finding = no("Embedded", ReindexReason.QUEUED, f"Job {name} is suspended by its queue")
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, not_ready(finding))), POLL_SECONDS)
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
    return report(job, facts, now, "Embedding", (finding, not_ready(finding)))


def failing(job: ReindexJob, message: str, now: datetime) -> ReindexJobStatus | None:
    """What a job says whose passes fail; None where it says so already, or where it is over and nothing is held up."""
    if job.status.phase in FINISHED and job.metadata.deletion_timestamp is None:
        return None
    return failing_status(job, message, now)


def _finished(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """Over. A failure is remembered as long as the tenant waits for this very job: deleting it would try again."""
    remembered = job.status.phase == "Failed" and (facts.tenant_unreadable or _named(job, facts))
    cause = retry_cause(job) if remembered and not facts.tenant_unreadable else None
    if cause is not None:
        return _retry(job, facts, now, cause)
    ended = parse_time(job.status.finished_at) if job.status.finished_at else now
    left = (ended + parse_duration(job.spec.ttl_after_finished) - now).total_seconds()
    if left <= 0 and not remembered:
        return ReindexPlan((DeleteSelf(),), None)
    stop: tuple[ReindexAction, ...] = ()
    if facts.worker is not None and not facts.worker.complete and not facts.worker.failure:
        stop = (DeleteWorker(facts.worker.name),)
    seen = job.status.observed_generation == job.metadata.generation
    status = None if seen or job.status.phase is None else report(job, facts, now, job.status.phase, ())
    return ReindexPlan(stop, status, left if left > 0 else KEPT_POLL_SECONDS)


def _retry(job: ReindexJob, facts: ReindexFacts, now: datetime, cause: str) -> ReindexPlan:
    """Once the failed worker Job is gone, the same job from the start; what is embedded stays embedded."""
    if facts.worker is not None:
        return ReindexPlan((DeleteWorker(facts.worker.name),), None, RETRY_POLL_SECONDS)
    finding = no("Ready", ReindexReason.RETRIED, f"tried again: {cause}")
    clean = job.status.model_copy(
        update={
            "conditions": (),
            "finished_at": None,
            "started_at": None,
            "job": None,
            "retries": job.status.retries + 1,
        }
    )
    again = job.model_copy(update={"status": clean})
    return ReindexPlan((), report(again, facts, now, "Pending", (finding,)), 0.0)


def _rebuild(facts: ReindexFacts) -> RebuildStatus | None:
    return facts.tenant.status.rebuild if facts.tenant is not None else None


def _named(job: ReindexJob, facts: ReindexFacts) -> bool:
    rebuild = _rebuild(facts)
    return rebuild is not None and rebuild.reindex_job == job.metadata.name


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
        if _has_begun(job, facts) or holds(job.status.conditions, "Verified"):
            message = f"tenant {tenant.metadata.name} does not wait for this job any more (it names {named or 'none'})"
            return _cancelled(job, facts, now, message)
        message = f"tenant {tenant.metadata.name} names {named or 'no ReindexJob'} in status.rebuild, not this one"
        return _waiting(job, facts, now, ReindexReason.NOT_NAMED_BY_TENANT, message)
    return None if holds(job.status.conditions, "Verified") else _unprepared(job, facts, now)


def _unprepared(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Whatever holds the work of a job that its tenant waits for."""
    if job.spec.suspend:
        return _suspended(job, facts, now)
    held = over_budget(job, facts, now)
    if held is not None:
        return _held(job, facts, now, held)
    if not facts.source_allowed:
        message = f"spec.source.uri {job.spec.source.uri}: its prefix is not allowed for this namespace by the settings"
        return _waiting(job, facts, now, ReindexReason.SOURCE_NOT_ALLOWED, message)
    if facts.cell is None or facts.source is None:
        return _waiting(job, facts, now, ReindexReason.CELL_UNREACHABLE, "the tenant's collection could not be read")
    if facts.pending is None or facts.pending.revision != job.spec.revision or facts.target is None:
        return _waiting(job, facts, now, ReindexReason.PREPARING, "the tenant has not prepared the target side yet")
    refused = refusal(job, facts.source, facts.target)
    if refused is not None:
        return _waiting(job, facts, now, ReindexReason.NOT_SUPPORTED, refused)
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
    status = report(job, facts, now, "Pending", (finding, not_ready(finding)))
    return ReindexPlan(stop, status if over else status.model_copy(update={"job": None}), QUEUE_POLL_SECONDS)


def _held(job: ReindexJob, facts: ReindexFacts, now: datetime, message: str) -> ReindexPlan:
    """Spend no more: the Job goes or is not made; the database says where the next one goes on."""
    finding = no("Embedded", ReindexReason.BUDGET_EXCEEDED, message)
    status = report(job, facts, now, "Pending", (finding, not_ready(finding)))
    stop = (DeleteWorker(facts.worker.name),) if facts.worker is not None else ()
    return ReindexPlan(stop, status.model_copy(update={"job": None}), QUEUE_POLL_SECONDS)


def _waiting(job: ReindexJob, facts: ReindexFacts, now: datetime, reason: ReindexReason, message: str) -> ReindexPlan:
    """Wait for something else; work that is under way goes on and keeps its phase, because it still counts."""
    phase: JobPhase = "Pending"
    findings = [no("Ready", reason, message), no("Prepared", reason, message)]
    if facts.worker is not None and job.status.phase is not None:
        phase, findings = job.status.phase, findings[:1]
    return ReindexPlan((), report(job, facts, now, phase, findings), QUEUE_POLL_SECONDS)


def _queue(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> ReindexPlan:
    if facts.template is not None:
        missing = facts.template.missing
        reason = ReindexReason.POD_TEMPLATE_NOT_FOUND if missing else ReindexReason.POD_TEMPLATE_NOT_ALLOWED
        return _waiting(job, facts, now, reason, facts.template.message)
    full = waits_for_room(job, facts, now)
    if full is not None:
        return full
    if facts.halted and not has_begun(_rebuild(facts), job):
        finding = no("Prepared", ReindexReason.QUEUED, f"the wave of {job.spec.revision} is halted ({facts.halted})")
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, not_ready(finding))), QUEUE_POLL_SECONDS)
    if facts.running >= facts.running_limit or facts.fleet_running >= facts.fleet_limit:
        message = (
            f"{facts.running} of {facts.running_limit} reindexes of the model and {facts.fleet_running} of "
            f"{facts.fleet_limit} of the fleet are running"
        )
        finding = no("Prepared", ReindexReason.QUEUED, message)
        return ReindexPlan((), report(job, facts, now, "Queued", (finding, not_ready(finding))), QUEUE_POLL_SECONDS)
    return _create(job, facts, now, name)


def _create(job: ReindexJob, facts: ReindexFacts, now: datetime, name: str) -> ReindexPlan:
    """Create the Job and its Secret; again until the status says that both are there, which changes nothing twice."""
    order = _order(job, facts, now, name)
    made = no("Embedded", ReindexReason.EMBEDDING, f"Job {name} is created")
    prepared = yes("Prepared", ReindexReason.PREPARED, "the target side is there and every gateway writes both")
    findings = (prepared, made, not_ready(made))
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
    """The worker's task, and a token on exactly the collections it names."""
    assert facts.pending and facts.source and facts.target and facts.cell  # noqa: S101 - checked by _blocked
    named = facts.source.name == facts.target.name
    deadline = parse_duration(job.spec.budget.deadline)
    claims = {
        "exp": int(token_expiry(job, now).timestamp()),
        "access": access_of(facts.source, facts.target),
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
            name=facts.cell.name,
        ),
        source_collection=physical(facts.source),
        source_slice=facts.source.slice,
        source_uri=job.spec.source.uri,
        target_collection=physical(facts.target),
        target_slice=facts.target.slice,
        target=facts.pending,
        manifest_digest=facts.pending.manifest_digest,
        servers=facts.servers,
        slices=job.spec.slices,
        max_points_per_second=job.spec.budget.max_points_per_second,
        max_failed_percent=job.spec.failures.max_percent,
        state=state,
        result_uri=results_uri(facts.artifacts, job),
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
