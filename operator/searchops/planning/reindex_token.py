"""What a reindex worker's token opens, how long it holds, and when the Job's Secret needs a fresh one.

It opens the collections that points are read from and written to, as the database knows them: for a slice that is the
shared collection, since no token can be narrowed to a slice. Such a token stays in the operator's own namespace, with
the operator's own code, and ends with the Job.

A queue such as Kueue suspends a Job for as long as it likes, and the Job's own deadline counts from its resumption.
The token in its Secret is therefore signed anew while the Job waits, so that it outlasts the whole run whenever that
begins; Pods read the Secret as they start.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import parse_duration, parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.reindex_job import ReindexJob
    from searchops.planning.reindex import ReindexFacts

SLACK = timedelta(hours=1)
"""How much longer than the deadline a token holds: a run may begin that long after it was signed."""
RENEW_AFTER = SLACK / 2


def physical(side: CollectionState) -> str:
    """The collection that the points of a side stand in."""
    return side.slice.collection if side.slice is not None else side.name


def access_of(source: CollectionState, target: CollectionState) -> list[dict[str, str]]:
    """`prw` on what is written and `r` on what is read; what is both is named once, with the greater right."""
    access = [{"collection": physical(target), "access": "prw"}]
    if physical(source) != physical(target):
        access.append({"collection": physical(source), "access": "r"})
    return access


def token_expiry(job: ReindexJob, now: datetime) -> datetime:
    """When a token that is signed now ends."""
    return now + parse_duration(job.spec.budget.deadline) + SLACK


def needs_fresh_token(job: ReindexJob, facts: ReindexFacts, signed_at: datetime | None, now: datetime) -> bool:
    """Whether the token in the Job's Secret may end before a run that begins now, or that has begun late.

    Args:
        job: the ReindexJob.
        facts: what this pass read; with a side of the rebuild unknown nothing is signed.
        signed_at: when this process signed the token last; else it is as old as the Job, for all that is known.
        now: the moment of this pass.
    """
    worker = facts.worker
    if worker is None or worker.complete or worker.failure:
        return False
    if not (facts.pending and facts.source and facts.target and facts.cell):
        return False
    made = signed_at or _time(job.status.started_at)
    begins = now if worker.suspended else _time(worker.start_time)
    return made is not None and begins is not None and begins - made >= RENEW_AFTER


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
