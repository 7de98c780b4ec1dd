"""Whether a filled side may be switched to: exact counts, samples, an idle optimiser, recall. Unknown never is."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import parse_duration, parse_time
from searchops.api.tasks import EXIT_BAD_MODEL, EXIT_SOURCE_UNREADABLE, EXIT_TOO_MANY_FAILURES
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.planning.conditions import no, yes
from searchops.planning.reindex_facts import MeasureRecall, ReindexPlan
from searchops.planning.reindex_report import not_ready, report
from searchops.planning.reindex_request import awaits_switch
from searchops.planning.reindex_token import physical

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.reindex_job import ReindexJob
    from searchops.planning.reindex_facts import ReindexFacts

POLL_SECONDS = 5.0
INDEXING_POLL_SECONDS = 10.0
SAMPLE_COSINE = 0.9999
"""A stored vector against a fresh encoding: batch shapes move real encoders by about 1e-6."""
MIN_RECALL = 0.95
"""Hits of approximate search among those of exact search, on sampled documents as queries."""
COUNT_PATIENCE = timedelta(minutes=5)
INDEXING_PATIENCE = timedelta(minutes=10)
"""How long the optimiser has at the least, however late the workers ended."""
EXIT_REASONS = {
    EXIT_BAD_MODEL: ReindexReason.BAD_MODEL,
    EXIT_TOO_MANY_FAILURES: ReindexReason.TOO_MANY_FAILURES,
    EXIT_SOURCE_UNREADABLE: ReindexReason.SOURCE_UNREADABLE,
}


def verify(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """The plan of a job whose workers are done."""
    return (
        _answers(job, facts, now)
        or _samples(job, facts, now)
        or _counts(job, facts, now)
        or _indexed(job, facts, now)
        or _recall(job, facts, now)
        or _verified(job, facts, now)
    )


def worker_failed(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """The plan of a job whose workers gave up."""
    assert facts.worker is not None  # noqa: S101 - checked by the caller
    if facts.worker.failure_reason == "DeadlineExceeded":
        message = f"the work did not end within spec.budget.deadline {job.spec.budget.deadline}"
        return failed(job, facts, now, ReindexReason.DEADLINE_EXCEEDED, message)
    told = next((item for item in facts.slices if item.exit_code), None)
    message = told.message if told is not None else f"{facts.worker.failure_reason}: {facts.worker.failure}"
    reason = EXIT_REASONS.get(told.exit_code if told is not None else 0, ReindexReason.WORKER_FAILED)
    return failed(job, facts, now, reason, message)


def failed(job: ReindexJob, facts: ReindexFacts, now: datetime, reason: ReindexReason, message: str) -> ReindexPlan:
    """The end of this attempt."""
    said = f"{message}; the old binding is untouched"
    findings = (no("Verified", reason, said), no("Complete", reason, said), no("Ready", reason, said))
    return ReindexPlan((), report(job, facts, now, "Failed", findings, finished=True), 0.0)


def _answers(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Every slice said that it is done, and not too much was dead-lettered."""
    if len(facts.slices) < job.spec.slices:
        message = f"{len(facts.slices)} of {job.spec.slices} slices left an answer though the Job is complete"
        return failed(job, facts, now, ReindexReason.WORKER_FAILED, message)
    refused = next((item for item in facts.slices if item.exit_code), None)
    if refused is not None:
        message = f"slice {refused.slice} answered with exit code {refused.exit_code}: {refused.message}"
        return failed(job, facts, now, EXIT_REASONS.get(refused.exit_code, ReindexReason.WORKER_FAILED), message)
    lost = _dead(facts)
    limit = facts.documents * float(job.spec.failures.max_percent) / 100
    if lost > limit:
        message = (
            f"{lost} of {facts.documents} documents could not be embedded, spec.failures.maxPercent "
            f"{job.spec.failures.max_percent} allows {limit:g}; they are listed in the dead letters"
        )
        return failed(job, facts, now, ReindexReason.TOO_MANY_FAILURES, message)
    return None


def _samples(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Stored vectors are what the model says of their documents."""
    cosines = [item.sample_min_cosine for item in facts.slices if item.sample_min_cosine is not None]
    if _dense(facts) and not cosines and any(item.embedded for item in facts.slices):
        message = "documents were embedded, but no stored vector was compared with a fresh encoding"
        return failed(job, facts, now, ReindexReason.WORKER_FAILED, message)
    if not all(cosine >= SAMPLE_COSINE for cosine in cosines):
        message = (
            f"a stored vector and a fresh encoding have cosine {min(cosines):.6f}, wanted at least {SAMPLE_COSINE}"
        )
        return failed(job, facts, now, ReindexReason.BAD_MODEL, message)
    return None


def _counts(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Every live document is on the target side; a catalogue that leaves some out is no source for this tenant."""
    lost = _dead(facts)
    left_out = sum(item.left_out for item in facts.slices)
    if left_out:
        message = (
            f"{left_out} live documents are neither in spec.source.uri {job.spec.source.uri} nor written since; a "
            "switch would lose them; delete them from the tenant, add them to the catalogue, or set spec.source to "
            "fromCollection: true"
        )
        return failed(job, facts, now, ReindexReason.COUNT_MISMATCH, message)
    if facts.lacking is not None and facts.lacking <= lost:
        return None
    message = f"{facts.lacking} of {facts.documents} live documents are not on the target side, {lost} dead-lettered"
    if now - _ended(facts, now) > COUNT_PATIENCE:
        return failed(job, facts, now, ReindexReason.COUNT_MISMATCH, message)
    finding = no("Verified", ReindexReason.COUNT_MISMATCH, message)
    return ReindexPlan((), report(job, facts, now, "Indexing", (finding, not_ready(finding))), POLL_SECONDS)


def _indexed(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Green and nothing queued: a yellow side is searched, but slowly, and its recall is not yet what it will be."""
    target = facts.target
    if target is not None and (_quiet(target) or _as_quiet_as_it_gets(target, now - _ended(facts, now))):
        return None
    seen = "the target could not be read" if target is None else _figures(target)
    if now > _patience_ends(job, facts, now):
        message = (
            f"the target was still not indexed at the end of spec.budget.deadline {job.spec.budget.deadline}: {seen}; "
            "look at the cell's optimiser, its memory and its disk"
        )
        return failed(job, facts, now, ReindexReason.DEADLINE_EXCEEDED, message)
    finding = no("Indexed", ReindexReason.INDEXING, f"the target is still being indexed: {seen}, wanted green and 0")
    return ReindexPlan((), report(job, facts, now, "Indexing", (finding, not_ready(finding))), INDEXING_POLL_SECONDS)


def _quiet(target: CollectionState) -> bool:
    return target.status == "green" and not target.pending_updates


def _as_quiet_as_it_gets(target: CollectionState, waited: timedelta) -> bool:
    """A shared collection whose other tenants go on writing may never be idle: after a while recall alone decides."""
    working = target.status in ("green", "yellow") and not target.optimizer_error
    return target.slice is not None and working and waited > INDEXING_PATIENCE


def _patience_ends(job: ReindexJob, facts: ReindexFacts, now: datetime) -> datetime:
    """Until when the database is waited for: the job's deadline, and a while after workers that ended late."""
    started = parse_time(job.status.started_at) if job.status.started_at else now
    return max(started + parse_duration(job.spec.budget.deadline), _ended(facts, now) + INDEXING_PATIENCE)


def _figures(target: CollectionState) -> str:
    vectors = "unknown" if target.indexed_vectors is None else str(target.indexed_vectors)
    parts = [
        f"status {target.status}",
        f"{target.pending_updates} updates queued",
        f"{vectors} vectors indexed of {target.points} points",
    ]
    if target.optimizer_error:
        parts.append(f"the optimiser says {target.optimizer_error}")
    if target.status == "grey":
        parts.append("grey waits for an update of the collection before it optimises")
    return ", ".join(parts)


def _recall(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """Approximate search finds what exact search finds."""
    if not _dense(facts):
        return None
    assert facts.target is not None  # noqa: S101 - checked by _indexed
    assert facts.pending is not None  # noqa: S101 - a dense side is pending
    recall = facts.recall
    if recall is None and facts.recall_error:
        return _unmeasured(job, facts, now)
    if recall is None:
        return ReindexPlan((MeasureRecall(facts.target.name, facts.pending.vector or ""),), None, POLL_SECONDS)
    if recall.queries == 0:
        if facts.documents <= _dead(facts):
            return None
        finding = no("Verified", ReindexReason.VERIFYING, "no document of the target could be sampled; read again")
        return ReindexPlan((), report(job, facts, now, "Indexing", (finding, not_ready(finding))), POLL_SECONDS)
    if recall.share >= MIN_RECALL:
        return None
    message = (
        f"recall@{recall.top} of approximate against exact search is {recall.share:.3f} over {recall.queries} sampled "
        f"documents ({recall.found} of {recall.wanted} hits), wanted at least {MIN_RECALL}; raise "
        f"hnsw_config.{_edges(facts.target)} or ef_construct of {physical(facts.target)}, then try again"
    )
    return failed(job, facts, now, ReindexReason.RECALL_TOO_LOW, message)


def _edges(target: CollectionState) -> str:
    """The setting of the graph that searches of this side walk: a shared collection has one a tenant, and no other."""
    return "m" if target.slice is None else "payload_m"


def _unmeasured(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    """Recall that is not known is not good enough, and is not waited for past the deadline."""
    seen = f"recall could not be measured: {facts.recall_error}"
    if now > _patience_ends(job, facts, now):
        message = (
            f"{seen}; it went on so to the end of spec.budget.deadline {job.spec.budget.deadline}; look at the cell, "
            "then try again"
        )
        return failed(job, facts, now, ReindexReason.DEADLINE_EXCEEDED, message)
    finding = no("Verified", ReindexReason.VERIFYING, f"{seen}; it is tried again")
    status = report(job, facts, now, "Indexing", (finding, not_ready(finding)))
    return ReindexPlan((), status, INDEXING_POLL_SECONDS)


def _verified(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan:
    lost = _dead(facts)
    said = f"{facts.documents - lost} of {facts.documents} documents, {lost} dead-lettered, counted exactly"
    sampled = f"{sum(item.sampled for item in facts.slices)} re-encoded samples equal"
    recall = facts.recall
    if recall is not None and recall.queries:
        sampled += f"; recall@{recall.top} {recall.share:.3f} over {recall.queries} queries"
    waits = awaits_switch(job)
    findings = (
        yes("Embedded", ReindexReason.EMBEDDED, said),
        yes("Indexed", ReindexReason.INDEXED, _indexed_so(facts)),
        yes("Verified", ReindexReason.VERIFIED, f"{said}; {sampled}"),
        waits,
        not_ready(waits),
    )
    return ReindexPlan((), report(job, facts, now, "Verified", findings), POLL_SECONDS)


def _indexed_so(facts: ReindexFacts) -> str:
    if facts.target is None or _quiet(facts.target):
        return "green, and no update is queued"
    return f"{physical(facts.target)} is shared and was not waited for any longer: {_figures(facts.target)}"


def _dense(facts: ReindexFacts) -> bool:
    return facts.pending is not None and facts.pending.vector is not None


def _dead(facts: ReindexFacts) -> int:
    return sum(item.failed for item in facts.slices)


def _ended(facts: ReindexFacts, now: datetime) -> datetime:
    ended = facts.worker.completion_time if facts.worker is not None else ""
    return parse_time(ended) if ended else now
