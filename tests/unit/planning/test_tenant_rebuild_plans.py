"""Whole plans of a rebuild in place: prepare, wait for the gateways, fill, switch; and every way it ends early."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.planning.tenant_facts import (
    AddVector,
    CreateReindexJob,
    DeleteReindexJob,
    EmitEvent,
    RemoveVector,
    TenantPlan,
)
from unit.planning import tenant_cases as case
from unit.planning.tenant_rebuild_cases import (
    G1,
    MODEL,
    NOW,
    R1,
    R2,
    SETTLED,
    B,
    job_name,
    named_vector,
    patch,
    plan,
    rebuild_status,
    rebuilding,
)

if TYPE_CHECKING:
    from searchops.api.v1alpha1.search_tenant import SearchTenant


def test_first_the_vector_and_pending_so_that_gateways_write_both() -> None:
    live = case.make_collection(case.dense(1))
    expected = (AddVector(G1, "d-s2", 8), patch(G1, pending=case.dense(2, at=NOW)))
    assert plan(case.make_tenant(), case.make_facts(live, model=MODEL)) == TenantPlan(expected, None, 0.0)


def test_from_the_lexical_legs_to_a_first_model_is_the_same_path() -> None:
    live = case.make_collection(case.lexical())
    expected = (AddVector(G1, "d-s2", 8), patch(G1, pending=case.dense(2, at=NOW)))
    assert plan(case.make_tenant(), case.make_facts(live, model=MODEL)) == TenantPlan(expected, None, 0.0)


def test_the_backfill_waits_until_every_gateway_must_have_seen_pending() -> None:
    since = NOW - timedelta(seconds=10)
    status = case.expected_status(
        case.dense(1),
        phase="Progressing",
        conditions=rebuilding(),
        rebuild=rebuild_status(job_name("d-s2", R2, since)),
    )
    assert plan(case.make_tenant(), case.make_facts(named_vector(since), model=MODEL)) == TenantPlan((), status, 20.0)


def test_then_one_reindex_job_that_the_status_names_in_the_same_pass() -> None:
    name = job_name("d-s2", R2, SETTLED)
    status = case.expected_status(
        case.dense(1), phase="Progressing", conditions=rebuilding(), rebuild=rebuild_status(name)
    )
    create = CreateReindexJob(name, R2, "NamedVector", 2, "gpu")
    found = plan(case.make_tenant(), case.make_facts(named_vector(), model=MODEL))
    assert found == TenantPlan((create,), status, 15.0)


def waiting_tenant(name: str, **changes: Any) -> SearchTenant:
    return case.make_tenant(status={"rebuild": rebuild_status(name, started=SETTLED, **changes).to_wire()})


def test_a_running_job_is_waited_for() -> None:
    name = job_name("d-s2", R2, SETTLED)
    status = case.expected_status(
        case.dense(1), phase="Progressing", conditions=rebuilding(), rebuild=rebuild_status(name, started=SETTLED)
    )
    facts = case.make_facts(named_vector(), model=MODEL, reindex=case.make_job(name, phase="Embedding"))
    assert plan(waiting_tenant(name), facts) == TenantPlan((), status, 15.0)


@pytest.mark.parametrize("lacking", [{}, {(B, "d-s2"): 1}])
def test_a_verified_job_is_not_believed_while_the_database_lacks_points(lacking: dict[tuple[str, str], int]) -> None:
    name = job_name("d-s2", R2, SETTLED)
    job = case.make_job(name, phase="Verified", verified=True)
    facts = case.make_facts(named_vector(), model=MODEL, reindex=job, lacking=lacking)
    assert plan(waiting_tenant(name), facts).actions == ()


def test_the_named_vector_switch_is_one_metadata_patch() -> None:
    name = job_name("d-s2", R2, SETTLED)
    job = case.make_job(name, phase="Verified", verified=True)
    facts = case.make_facts(named_vector(), model=MODEL, reindex=job, lacking={(B, "d-s2"): 0})
    expected = (
        patch(G1, binding=case.dense(2, at=NOW), previous=case.dense(1), pending=None),
        EmitEvent("BindingSwitched", f"{R1} → {R2}"),
    )
    assert plan(waiting_tenant(name), facts) == TenantPlan(expected, None, 0.0)


def test_dead_letters_within_the_jobs_bound_do_not_hold_the_switch_back() -> None:
    name = job_name("d-s2", R2, SETTLED)
    job = case.make_job(name, phase="Verified", verified=True)
    progress = {"documents": 100, "embedded": 98, "failed": 2}
    job = type(job).model_validate({**job.to_wire(), "status": {**job.status.to_wire(), "progress": progress}})
    for lacking, switched in ((2, True), (3, False)):
        facts = case.make_facts(named_vector(), model=MODEL, reindex=job, lacking={(B, "d-s2"): lacking})
        assert bool(plan(waiting_tenant(name), facts).actions) is switched


def test_a_finished_job_of_an_earlier_rebuild_is_not_taken_for_this_one() -> None:
    """The same candidate comes back within the life of the first job's object: it is filled, and verified, anew."""
    earlier = job_name("d-s2", R2, case.LONG_AGO)
    job = case.make_job(earlier, phase="Switched", verified=True)
    facts = case.make_facts(named_vector(), model=MODEL, reindex=job, lacking={(B, "d-s2"): 0})
    found = plan(case.make_tenant(), facts)
    assert found.actions == (CreateReindexJob(job_name("d-s2", R2, SETTLED), R2, "NamedVector", 2, "gpu"),)


def test_another_candidate_cancels_the_rebuild_first() -> None:
    name = job_name("d-s2", R2, SETTLED)
    facts = case.make_facts(named_vector(), model=case.make_model(case.revision(3)))
    status = case.expected_status(case.dense(1), phase="Progressing", conditions=rebuilding())
    assert plan(waiting_tenant(name), facts) == TenantPlan((DeleteReindexJob(name),), status, 0.0)
    after = (AddVector(G1, "d-s3", 8), patch(G1, pending=case.dense(3, at=NOW)))
    assert plan(case.make_tenant(), facts) == TenantPlan(after, None, 0.0)


def test_a_half_filled_vector_is_removed_before_it_is_filled_again() -> None:
    """Writes of the time in which nothing named it have missed it; it is removed once no gateway writes it."""
    half = case.make_collection(case.dense(1), dense={"d-s1": 8, "d-s2": 8}, released=case.LONG_AGO)
    facts = case.make_facts(half, model=MODEL)
    assert plan(case.make_tenant(), facts) == TenantPlan((RemoveVector(G1, "d-s2"),), None, 0.0)
    fresh = case.make_collection(case.dense(1), dense={"d-s1": 8, "d-s2": 8}, released=NOW - timedelta(seconds=10))
    found = plan(case.make_tenant(), case.make_facts(fresh, model=MODEL))
    assert (found.actions, found.requeue_after) == ((), 20.0)


def test_a_failed_rebuild_is_tried_again_under_another_name() -> None:
    name, following = (job_name("d-s2", R2, SETTLED, attempt=number) for number in (1, 2))
    facts = case.make_facts(named_vector(), model=MODEL, reindex=case.make_job(name, phase="Failed"))
    status = case.expected_status(
        case.dense(1),
        phase="Progressing",
        conditions=rebuilding(),
        rebuild=rebuild_status(following, attempt=2),
    )
    assert plan(waiting_tenant(name), facts) == TenantPlan((), status, 1.0)
    facts = replace(facts, reindex=None)
    found = plan(waiting_tenant(following, attempt=2), facts)
    assert found.actions == (CreateReindexJob(following, R2, "NamedVector", 2, "gpu"),)


def test_after_three_attempts_a_person_is_asked_and_the_old_binding_serves() -> None:
    name = job_name("d-s2", R2, SETTLED, attempt=3)
    job = case.make_job(name, phase="Failed", message="exit 50")
    facts = case.make_facts(named_vector(), model=MODEL, reindex=job)
    said = (
        f"ReindexJob {name} failed, as 3 attempts did (exit 50); {R1} go on serving; mend the cause, then delete the "
        "ReindexJob to try again"
    )
    conditions = {
        "ModelBound": ("False", "RebuildFailed", said),
        "Ready": ("False", "RebuildFailed", f"ModelBound: {said}"),
    }
    status = case.expected_status(
        case.dense(1),
        phase="Progressing",
        conditions=conditions,
        rebuild=rebuild_status(name, attempt=3, started=SETTLED),
    )
    assert plan(waiting_tenant(name, attempt=3), facts) == TenantPlan((), status, 60.0)


def test_another_revision_starts_again_at_the_first_attempt() -> None:
    name = job_name("d-s2", R2, SETTLED, attempt=3)
    facts = case.make_facts(named_vector(), model=case.make_model(case.revision(3, "s2")))
    found = plan(waiting_tenant(name, attempt=3), facts)
    assert found.actions == (DeleteReindexJob(name),)
    assert found.status is not None
    assert found.status.rebuild is None


# -- BlueGreen ---------------------------------------------------------------------------------------------------
