"""A ReindexJob on a cell without room: its worker is stopped, the cell is held, and the work goes on once it has some.

It is no failure of the job: what is embedded stays, no attempt is used up, and the old binding is untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.tasks import EXIT_CELL_FULL
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.planning.cell_room import held_message
from searchops.planning.conditions import find, no
from searchops.planning.reindex_facts import DeleteWorker, HoldCell, ReindexPlan
from searchops.planning.reindex_report import not_ready, report

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.reindex_job import ReindexJob
    from searchops.planning.reindex_facts import ReindexFacts

QUEUE_POLL_SECONDS = 10.0
RETRY_POLL_SECONDS = 1.0


def waits_for_room(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """The plan of a job whose worker may not start, because its cell is held; None where it may."""
    hold = facts.holds.get(facts.cell.name) if facts.cell is not None else None
    if hold is None or facts.cell is None:
        return None
    message = f"no worker is started: {held_message(facts.cell.name, hold)}"
    finding = no("Prepared", ReindexReason.CELL_FULL, message)
    return ReindexPlan((), report(job, facts, now, "Queued", (finding, not_ready(finding))), QUEUE_POLL_SECONDS)


def met_full_cell(job: ReindexJob, facts: ReindexFacts, now: datetime) -> ReindexPlan | None:
    """The plan of a job whose worker ended because the cell is full; None where it ended for another reason.

    The status is written before the worker Job goes: from then on the answers of this try are read as nobody's, and a
    later failure is not taken for this one.
    """
    told = next((item for item in facts.slices if item.exit_code == EXIT_CELL_FULL), None)
    before = find(job.status.conditions, "Embedded")
    if before is not None and before.reason == ReindexReason.CELL_FULL and facts.worker is not None:
        return ReindexPlan((DeleteWorker(facts.worker.name),), None, RETRY_POLL_SECONDS)
    if told is None or facts.cell is None:
        return None
    message = f"the worker stopped: {told.message}; it goes on from there once the cell has room"
    finding = no("Embedded", ReindexReason.CELL_FULL, message)
    status = report(job, facts, now, "Queued", (finding, not_ready(finding)))
    again = status.model_copy(update={"job": None, "retries": job.status.retries + 1})
    return ReindexPlan((HoldCell(facts.cell.name, told.message),), again, 0.0)
