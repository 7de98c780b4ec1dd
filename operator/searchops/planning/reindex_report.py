"""What a ReindexJob's status says: conditions, throttled counters, cost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.reindex_job import ProgressStatus, ReindexReason, StrategyStatus, TargetStatus
from searchops.planning.conditions import Finding, find, stamp
from searchops.planning.names import RETRY_ANNOTATION, job_name
from searchops.planning.reindex_budget import cost_of
from searchops.planning.reindex_request import WHY, chosen_strategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.meta import ObjectMeta
    from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexJob, ReindexJobStatus
    from searchops.planning.reindex_facts import ReindexFacts

PROGRESS_INTERVAL = timedelta(seconds=10)


def worker_name(metadata: ObjectMeta) -> str:
    """The worker Job's name: a function of the ReindexJob's uid alone."""
    return job_name("reindex", metadata.uid)


def results_uri(artifacts: str, job: ReindexJob) -> str:
    """Where the slices' answers are; those of a try that failed are not read as answers of the next one."""
    tried = f"-{job.status.retries}" if job.status.retries else ""
    return f"{artifacts}/reindex/{job.metadata.uid}/results{tried}"


def not_ready(finding: Finding) -> Finding:
    """The same as the Ready condition."""
    return Finding("Ready", "False", finding.reason, finding.message)


def report(
    job: ReindexJob,
    facts: ReindexFacts,
    now: datetime,
    phase: JobPhase,
    findings: Sequence[Finding],
    *,
    started: bool = False,
    finished: bool = False,
    created: bool = False,
) -> ReindexJobStatus:
    """The status to write; conditions that this pass says nothing about stay.

    `created` says that the worker Job and its Secret are certainly there: `status.job` names it only then.
    """
    generation = job.metadata.generation
    stamped = stamp(findings, job.status.conditions, generation, now)
    seen = {condition.type for condition in stamped}
    kept = tuple(item for item in job.status.conditions if item.type not in seen)
    progress, at = progress_of(job, facts, phase, now)
    update: dict[str, object] = {
        "observed_generation": generation,
        "phase": phase,
        "conditions": tuple(sorted((*stamped, *kept), key=lambda item: item.type)),
        "job": worker_name(job.metadata) if created else job.status.job,
        "progress": progress,
        "progress_at": at,
        "cost": cost_of(job, facts, phase, now),
        "retry_token": job.metadata.annotations.get(RETRY_ANNOTATION, "")[:256] or None,
    }
    if facts.pending is not None and facts.target is not None and facts.source is not None:
        chosen = chosen_strategy(facts.source, facts.target)
        update["strategy"] = StrategyStatus(chosen=chosen, reason=WHY[chosen])
        update["target"] = TargetStatus(collection=facts.target.name, vector=facts.pending.vector)
    if started and job.status.started_at is None:
        update["started_at"] = format_time(now)
    if finished:
        update["finished_at"] = format_time(now)
    return job.status.model_copy(update=update)


def failing_status(job: ReindexJob, message: str, now: datetime) -> ReindexJobStatus | None:
    """The old status with a Ready that tells what fails; None where it tells of this generation already.

    Which generation and which retry were acted on stays as it is: this pass has acted on neither.
    """
    before = find(job.status.conditions, "Ready")
    told = before is not None and before.observed_generation == job.metadata.generation
    if before is not None and told and before.message.startswith(message[:80]):
        return None
    finding = Finding("Ready", "False", ReindexReason.WAITING, message)
    stamped = stamp((finding,), job.status.conditions, job.metadata.generation, now)
    kept = tuple(item for item in job.status.conditions if item.type != "Ready")
    conditions = tuple(sorted((*stamped, *kept), key=lambda item: item.type))
    return job.status.model_copy(update={"conditions": conditions, "phase": job.status.phase or "Pending"})


def progress_of(
    job: ReindexJob, facts: ReindexFacts, phase: JobPhase, now: datetime
) -> tuple[ProgressStatus | None, str | None]:
    """Counters, at most every 10 s, and once more when the phase moves."""
    before, at = job.status.progress, job.status.progress_at
    if facts.lacking is None or facts.source is None:
        return before, at
    fresh = at is None or now - parse_time(at) >= PROGRESS_INTERVAL or job.status.phase != phase
    if before is not None and not fresh:
        return before, at
    failed = sum(item.failed for item in facts.slices)
    done = max(0, facts.documents - facts.lacking)
    started = parse_time(job.status.started_at) if job.status.started_at else now
    elapsed = max(1.0, (now - started).total_seconds())
    rate = (
        int(done / elapsed)
        if facts.lacking
        else (before.points_per_second if before is not None else int(done / elapsed))
    )
    left = facts.lacking // rate if rate and facts.lacking else 0
    percent = 100 if facts.documents == 0 else done * 100 // facts.documents
    progress = ProgressStatus(
        documents=facts.documents,
        embedded=done,
        failed=failed,
        points_per_second=rate,
        eta_seconds=left if rate else None,
        percent=percent,
    )
    if before == progress:
        return before, at
    return progress, format_time(now)
