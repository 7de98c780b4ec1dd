"""What a ReindexJob has to show before it is Verified, and how each lack of it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from searchops.api.observed import RecallSample
from searchops.api.v1alpha1.reindex_job import CostStatus
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_facts import (
    MeasureRecall,
    ReindexPlan,
)
from unit.planning.reindex_facts import (
    ALIAS,
    NOW,
    PENDING,
    after,
    at,
    collection,
    condition,
    done,
    embedding,
    later,
    make_facts,
    make_job,
    message,
    slices,
    status_of,
    steady,
    worker,
)


def test_verified_needs_every_slice_exact_counts_and_samples() -> None:
    plan = steady(embedding(), done())
    assert plan.actions == ()
    status = status_of(plan)
    assert (status.phase, status.cost) == ("Verified", CostStatus(gpu_seconds=6, documents_before=100, as_of=at()))
    assert [condition(plan, kind)[0] for kind in ("Embedded", "Indexed", "Verified", "Ready")] == [
        "True",
        "True",
        "True",
        "False",
    ]
    assert "48 re-encoded samples equal; recall@10 0.980 over 50 queries" in message(plan, "Verified")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"slices": slices({})}, "WorkerFailed"),
        ({"slices": ()}, "WorkerFailed"),
        ({"slices": slices({}, {"failed": 1}), "lacking": 1}, "TooManyFailures"),
        ({"slices": slices({}, {"sample_min_cosine": 0.9998})}, "BadModel"),
        ({"slices": slices({}, {"sample_min_cosine": float("nan")})}, "BadModel"),
        ({"slices": slices({"sample_min_cosine": None}, {"sample_min_cosine": None})}, "WorkerFailed"),
        ({"slices": slices({}, {"exit_code": 50, "message": "another digest"})}, "BadModel"),
        ({"slices": slices({}, {"exit_code": 1})}, "WorkerFailed"),
        ({"slices": slices({}, {"left_out": 3})}, "CountMismatch"),
    ],
)
def test_a_complete_job_that_is_not_as_it_should_be_fails(facts: dict[str, Any], reason: str) -> None:
    plan = steady(embedding(), done(**facts))
    status = status_of(plan)
    assert (status.phase, status.finished_at) == ("Failed", at())
    assert condition(plan, "Verified") == ("False", reason)
    assert "the old binding is untouched" in message(plan, "Ready")


def test_a_few_poison_documents_are_within_the_bound() -> None:
    job = make_job(embedding().status, failures={"maxPercent": "2"})
    facts = done(slices=slices({"failed": 1}, {"failed": 1}), lacking=2)
    plan = steady(job, facts)
    assert status_of(plan).phase == "Verified"
    assert "98 of 100" in message(plan, "Verified")
    assert status_of(plan_reindex(job, replace(facts, lacking=3), NOW)).phase == "Indexing"


def test_lexical_work_needs_no_samples() -> None:
    lexical = PENDING.model_copy(update={"vector": None, "encoder": None})
    answers = slices({"sample_min_cosine": None}, {"sample_min_cosine": None})
    assert status_of(plan_reindex(embedding(), done(pending=lexical, slices=answers), NOW)).phase == "Verified"


@pytest.mark.parametrize("lacking", [1, None])
def test_a_count_that_does_not_come_out_is_waited_for_and_then_fails(lacking: int | None) -> None:
    facts = done(lacking=lacking)
    plan = steady(embedding(), facts)
    assert (status_of(plan).phase, condition(plan, "Verified")) == ("Indexing", ("False", "CountMismatch"))
    assert plan.requeue_after == 5.0
    plan = plan_reindex(after(embedding(), plan), facts, later(minutes=6))
    assert (status_of(plan).phase, condition(plan, "Ready")) == ("Failed", ("False", "CountMismatch"))


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({"pending_updates": 3}, "status green, 3 updates queued"),
        ({"status": "yellow", "indexed_vectors": 70, "points": 100}, "status yellow, 0 updates queued, 70 vectors"),
        ({"status": "grey"}, "grey waits for an update of the collection"),
        ({"status": "red", "optimizer_error": "no space left"}, "the optimiser says no space left"),
        ({"status": "unknown"}, "status unknown"),
    ],
)
def test_the_target_must_have_taken_everything_in_and_be_indexed(state: dict[str, Any], seen: str) -> None:
    plan = steady(embedding(), done(target=collection(2, **state)))
    assert (status_of(plan).phase, condition(plan, "Indexed")) == ("Indexing", ("False", "Indexing"))
    assert (plan.actions, plan.requeue_after) == ((), 10.0)
    assert seen in message(plan, "Ready")


def test_indexing_is_waited_for_until_the_deadline_and_then_fails_with_its_figures() -> None:
    job = make_job(embedding().status, budget={"deadline": "2h"})
    facts = done(target=collection(2, status="yellow", indexed_vectors=70))
    plan = plan_reindex(job, facts, later(hours=2))
    assert status_of(plan).phase == "Indexing"
    plan = plan_reindex(job, facts, later(hours=2, seconds=1))
    assert condition(plan, "Ready") == ("False", "DeadlineExceeded")
    assert "70 vectors indexed" in message(plan, "Ready")
    late = done(target=facts.target, worker=worker(complete=True, completion_time=at(hours=2)))
    assert status_of(plan_reindex(job, late, later(hours=2, minutes=10))).phase == "Indexing", "never less than that"
    assert status_of(plan_reindex(job, late, later(hours=2, minutes=11))).phase == "Failed"


def test_recall_is_measured_once_everything_else_is_as_it_should_be() -> None:
    measured = MeasureRecall(f"{ALIAS}@g2", "d-space")
    assert plan_reindex(embedding(), done(recall=None), NOW) == ReindexPlan((measured,), None, 5.0)
    for unready in ({"lacking": 1}, {"target": collection(2, status="yellow")}, {"slices": slices({})}):
        plan = plan_reindex(embedding(), done(recall=None, **unready), NOW)
        assert plan.actions == (), "a hundred searches are not made for nothing"


@pytest.mark.parametrize(("found", "phase"), [(475, "Verified"), (474, "Failed"), (0, "Failed")])
def test_a_side_that_misses_what_exact_search_finds_is_not_switched_to(found: int, phase: str) -> None:
    plan = steady(embedding(), done(recall=RecallSample(50, 10, 500, found)))
    assert status_of(plan).phase == phase
    if phase == "Failed":
        assert condition(plan, "Verified") == ("False", "RecallTooLow")
        assert f"{found / 500:.3f} over 50 sampled documents ({found} of 500 hits), wanted at least 0.95" in message(
            plan, "Ready"
        )


def test_a_side_of_which_nothing_could_be_sampled_is_verified_only_if_it_is_empty() -> None:
    nothing = RecallSample(0, 10, 0, 0)
    plan = steady(embedding(), done(recall=nothing))
    assert (status_of(plan).phase, condition(plan, "Verified")) == ("Indexing", ("False", "Verifying"))
    empty = slices({"embedded": 0, "sampled": 0, "sample_min_cosine": None})
    job = make_job(embedding().status, slices=1)
    assert status_of(plan_reindex(job, done(recall=nothing, documents=0, slices=empty), NOW)).phase == "Verified"


@pytest.mark.parametrize(
    ("failure", "answers", "reason"),
    [
        ("DeadlineExceeded", slices({"exit_code": 50}), "DeadlineExceeded"),
        ("PodFailurePolicy", slices({"exit_code": 50, "message": "x"}), "BadModel"),
        ("PodFailurePolicy", slices({}, {"exit_code": 51}), "TooManyFailures"),
        ("PodFailurePolicy", slices({"exit_code": 52}), "SourceUnreadable"),
        ("BackoffLimitExceeded", (), "WorkerFailed"),
    ],
)
def test_a_worker_that_failed_says_why(failure: str, answers: Any, reason: str) -> None:
    facts = make_facts(worker=worker(failure="it stopped", failure_reason=failure), slices=answers)
    plan = steady(embedding(), facts)
    assert (status_of(plan).phase, condition(plan, "Ready")) == ("Failed", ("False", reason))
