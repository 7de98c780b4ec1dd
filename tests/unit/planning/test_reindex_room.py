"""A ReindexJob whose cell has no room: its worker stops, nothing is failed, and the work goes on with the room."""

from __future__ import annotations

from searchops.api.tasks import EXIT_BAD_MODEL, EXIT_CELL_FULL
from searchops.planning.cell_room import begun, held_message
from searchops.planning.reindex import CreateWorker, DeleteWorker, HoldCell, plan_reindex
from searchops.planning.reindex_facts import ReindexPlan
from searchops.planning.reindex_report import results_uri
from unit.planning import reindex_facts as case

HOLD = begun("cell eu-1 answered 507", 3, case.NOW)
HELD = {"eu-1": HOLD}
TOLD = "the disk or memory of cell eu-1 is exhausted (507)"
STOPPED = case.make_facts(
    worker=case.worker(failure="Pod failed with exit code 55", failure_reason="PodFailurePolicy"),
    slices=case.slices({"exit_code": EXIT_CELL_FULL, "message": TOLD}),
)


def test_a_worker_that_met_a_full_cell_holds_the_cell_and_fails_nothing() -> None:
    job = case.embedding()
    plan = plan_reindex(job, STOPPED, case.NOW)
    assert (plan.actions, plan.requeue_after) == ((HoldCell("eu-1", TOLD),), 0.0)
    status = case.status_of(plan)
    assert (status.phase, status.retries, status.job, status.finished_at) == ("Queued", 1, None, None)
    assert case.condition(plan, "Ready") == case.condition(plan, "Embedded") == ("False", "CellFull")
    assert case.message(plan, "Embedded") == f"the worker stopped: {TOLD}; it goes on from there once the cell has room"
    again = case.after(job, plan)
    assert results_uri("s3://a", again) != results_uri("s3://a", job), "this try's answers are nobody's from now on"


def test_then_its_job_goes_and_none_is_made_while_the_cell_is_held() -> None:
    first = case.after(case.embedding(), plan_reindex(case.embedding(), STOPPED, case.NOW))
    assert plan_reindex(first, STOPPED, case.NOW) == ReindexPlan((DeleteWorker(case.NAME),), None, 1.0)
    gone = case.make_facts(holds=HELD)
    waiting = case.steady(first, gone)
    assert (waiting.actions, waiting.requeue_after) == ((), 10.0)
    assert case.condition(waiting, "Prepared") == ("False", "CellFull")
    assert case.message(waiting, "Ready") == f"no worker is started: {held_message('eu-1', HOLD)}"
    assert case.status_of(waiting).phase == "Queued"


def test_with_the_room_a_fresh_worker_goes_on_and_a_later_failure_is_its_own() -> None:
    first = case.after(case.embedding(), plan_reindex(case.embedding(), STOPPED, case.NOW))
    started = plan_reindex(first, case.make_facts(), case.NOW)
    (create,) = started.actions
    assert isinstance(create, CreateWorker)
    assert create.order.task.result_uri.endswith("/results-1")  # type: ignore[attr-defined]
    running = case.after(first, started)
    assert case.condition(started, "Embedded") == ("False", "Embedding")
    broken = case.make_facts(
        worker=case.worker(failure="no", failure_reason="PodFailurePolicy"),
        slices=case.slices({"exit_code": EXIT_BAD_MODEL, "message": "another model"}),
    )
    assert case.condition(plan_reindex(running, broken, case.NOW), "Ready") == ("False", "BadModel")


def test_a_worker_that_runs_and_a_side_that_is_verified_are_left_alone_on_a_held_cell() -> None:
    running = case.make_facts(worker=case.worker(active=1))
    job = case.embedding()
    held = case.make_facts(worker=case.worker(active=1), holds=HELD)
    assert plan_reindex(job, held, case.NOW) == plan_reindex(job, running, case.NOW)
    verified = case.verified()
    assert plan_reindex(verified, case.done(holds=HELD), case.NOW) == plan_reindex(verified, case.done(), case.NOW)


def test_another_cells_hold_is_none_of_its_business() -> None:
    other = case.make_facts(holds={"eu-2": HOLD})
    assert plan_reindex(case.make_job(), other, case.NOW) == plan_reindex(case.make_job(), case.make_facts(), case.NOW)
