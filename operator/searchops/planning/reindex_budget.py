"""GPU-hours of a ReindexJob: what is spent, what the rest is expected to need, and whether the budget allows it.

A worker counts as at least one GPU while it runs: one without a GPU of its own keeps one of the pool's busy.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.reindex_job import CostStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexJob
    from searchops.planning.reindex_facts import ReindexFacts

COST_INTERVAL = timedelta(seconds=10)
MEASURED_AFTER = 60
"""GPU-seconds of a job's own after which its own rate is believed; until then start-up is most of what is seen."""
PROJECTION_SLACK = 1.1
"""How far a running job's expected total may pass the budget: a rate that wavers must not stop and start it."""
HOUR = 3600.0


def gpus_of(template: Mapping[str, Any] | None) -> int:
    """GPUs that one worker of this PodTemplate keeps busy."""
    containers = (template or {}).get("template", {}).get("spec", {}).get("containers", [])
    asked = 0
    for container in containers:
        limits = container.get("resources", {}).get("limits", {})
        counts = [str(value) for resource, value in limits.items() if resource.endswith("/gpu")]
        asked += sum(int(count) for count in counts if count.isdecimal())
    return max(1, asked)


def cost_of(job: ReindexJob, facts: ReindexFacts, phase: JobPhase, now: datetime) -> CostStatus | None:
    """The cost so far for the status, at most every 10 s and once more when the phase moves."""
    before = job.status.cost
    done = max(0, facts.documents - facts.lacking) if facts.lacking is not None else None
    if before is None:
        if facts.worker is None or done is None:
            return None
        before = CostStatus(documents_before=done)
    if facts.worker is None:
        return before
    at = parse_time(before.as_of) if before.as_of is not None else None
    if at is not None and now - at < COST_INTERVAL and job.status.phase == phase:
        return before
    spent = _spent(before, facts, now)
    if spent == before.gpu_seconds:
        return before
    update: dict[str, object] = {"gpu_seconds": spent, "as_of": format_time(now)}
    if done is not None and spent >= MEASURED_AFTER and done > before.documents_before:
        update["documents_per_gpu_second"] = f"{(done - before.documents_before) / spent:.3f}"
    return before.model_copy(update=update)


def _spent(before: CostStatus, facts: ReindexFacts, now: datetime) -> int:
    """GPU-seconds: pods that run now since the last look; what ended Jobs' slices say where that is more."""
    worker = facts.worker
    if worker is None:
        return before.gpu_seconds
    running = 0.0
    if worker.active and worker.start_time:
        since = parse_time(worker.start_time)
        if before.as_of is not None:
            since = max(since, parse_time(before.as_of))
        running = max(0.0, (now.replace(microsecond=0) - since).total_seconds()) * worker.active
    told = sum(item.seconds for item in facts.slices) if worker.complete or worker.failure else 0.0
    gpus = facts.gpus if facts.pending is None or facts.pending.encoder is not None else 0
    return max(before.gpu_seconds + int(running * gpus), int(told * gpus))


def over_budget(job: ReindexJob, facts: ReindexFacts, now: datetime) -> str | None:
    """What the budget forbids, with every figure and what to do; None where the work may start or go on.

    Without any measured rate nothing can be foreseen: the work starts, and what is spent is the bound.
    """
    limit = job.spec.budget.max_gpu_hours
    if limit is None or facts.lacking == 0 or (facts.pending is not None and facts.pending.encoder is None):
        return None
    active = facts.worker is not None and not facts.worker.complete and not facts.worker.failure
    if facts.worker is not None and not active:
        return None  # all is spent; what it was spent on is judged by itself
    cost = cost_of(job, facts, "Pending", now) or CostStatus()
    allowed, spent = float(limit) * HOUR, cost.gpu_seconds
    rate = float(cost.documents_per_gpu_second or 0) or facts.measured_rate
    needed = facts.lacking / rate if rate and facts.lacking is not None else None
    most = allowed * (PROJECTION_SLACK if active else 1.0)
    if spent < allowed and (needed is None or spent + needed <= most):
        return None
    return _explained(job, facts, spent / HOUR, needed / HOUR if needed is not None else None, rate)


def _explained(job: ReindexJob, facts: ReindexFacts, spent: float, needed: float | None, rate: float | None) -> str:
    if facts.lacking is None:
        rest = "how many documents remain could not be counted"
    elif needed is None:
        rest = f"{facts.lacking} of {facts.documents} documents remain, at a rate that was not measured yet"
    else:
        rest = (
            f"{facts.lacking} of {facts.documents} documents remain and need about {needed:.2f} more "
            f"at {rate:.3g} documents a GPU-second"
        )
    least = f"at least {spent + needed:.2f}" if needed is not None else f"more than {spent:.2f}"
    return (
        f"spec.budget.maxGpuHours is {job.spec.budget.max_gpu_hours}: {spent:.2f} GPU-hours are spent, {rest}; the "
        f"work is held and what was embedded is kept; raise spec.budget.maxGpuHours to {least} to go on from there, or "
        "delete the ReindexJob"
    )
