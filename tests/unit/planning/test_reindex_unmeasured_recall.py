"""Recall that cannot be measured is said, tried again, and waited for no longer than the job's deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.planning.reindex import plan_reindex
from unit.planning.reindex_facts import NOW, at, condition, done, embedding, later, message, status_of, steady
from unit.planning.reindex_facts import worker as worker_state

SAID = "cell eu-1: measure recall of g2: no answer within 15 s"
UNKNOWN = done(recall=None, recall_error=SAID)


def test_it_is_said_and_tried_again() -> None:
    plan = steady(embedding(), UNKNOWN)
    assert (plan.actions, status_of(plan).phase, plan.requeue_after) == ((), "Indexing", 10.0)
    assert condition(plan, "Verified") == condition(plan, "Ready") == ("False", "Verifying")
    assert message(plan, "Verified") == f"recall could not be measured: {SAID}; it is tried again"


@given(st.integers(0, 6 * 3600))
def test_no_moment_before_the_deadline_ends_the_job(seconds: int) -> None:
    assert status_of(plan_reindex(embedding(), UNKNOWN, later(seconds=seconds))).phase == "Indexing"


@pytest.mark.parametrize(
    ("ended", "last"), [({}, {"hours": 6}), ({"hours": 5, "minutes": 59}, {"hours": 6, "minutes": 9})]
)
def test_the_deadline_ends_it_and_workers_that_ended_late_leave_a_while(
    ended: dict[str, int], last: dict[str, int]
) -> None:
    worker = worker_state(complete=True, completion_time=at(**ended))
    facts = done(recall=None, recall_error=SAID, worker=worker)
    job = embedding()
    assert status_of(plan_reindex(job, facts, later(**last))).phase == "Indexing"
    plan = plan_reindex(job, facts, later(**{**last, "minutes": last.get("minutes", 0) + 2}))
    assert (status_of(plan).phase, condition(plan, "Verified")) == ("Failed", ("False", "DeadlineExceeded"))
    assert SAID in message(plan, "Ready")
    assert "the old binding is untouched" in message(plan, "Ready")


def test_a_measurement_that_succeeds_after_all_verifies() -> None:
    job = embedding()
    held = job.model_copy(update={"status": status_of(plan_reindex(job, UNKNOWN, NOW))})
    plan = plan_reindex(held, done(), later(minutes=1))
    assert (status_of(plan).phase, condition(plan, "Verified")) == ("Verified", ("True", "Verified"))
