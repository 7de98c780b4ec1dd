"""One ReindexJob from the queue to Verified, and every way in which it does not get there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from searchops.api.v1alpha1.reindex_job import ProgressStatus, TargetStatus
from searchops.planning.jobs import TemplateProblem, job_manifest
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_facts import (
    AddFinalizer,
    CreateWorker,
    DeleteSelf,
    DeleteWorker,
    ReindexPlan,
    RemoveFinalizer,
)
from unit.planning.reindex_facts import (
    ALIAS,
    NAME,
    NOW,
    PENDING,
    REVISION,
    after,
    at,
    collection,
    condition,
    embedding,
    later,
    make_facts,
    make_job,
    make_tenant,
    message,
    status_of,
    steady,
    verified,
    worker,
)


def order_of(plan: ReindexPlan) -> CreateWorker:
    assert len(plan.actions) == 1
    action = plan.actions[0]
    assert isinstance(action, CreateWorker)
    return action


def test_the_finalizer_comes_before_everything() -> None:
    job = make_job(metadata={"finalizers": []})
    assert plan_reindex(job, make_facts(), NOW) == ReindexPlan((AddFinalizer(),), None, 0.0)


def test_a_prepared_job_makes_one_indexed_worker_and_says_so() -> None:
    plan = plan_reindex(make_job(), make_facts(), NOW)
    order = order_of(plan).order
    assert (order.name, order.completions, order.cell, order_of(plan).template) == (NAME, 2, "eu-1", "cpu")
    task = json.loads(order.task.model_dump_json(by_alias=True))
    assert task.pop("target")["vector"] == "d-space"
    assert task == {
        "kind": "reindex",
        "tenant": "shops/acme",
        "strategy": "BlueGreen",
        "cell": {"url": "http://cell:6333", "others": [], "grpcPort": 6334, "caCert": None, "name": "eu-1"},
        "sourceCollection": f"{ALIAS}@g1",
        "sourceUri": None,
        "targetCollection": f"{ALIAS}@g2",
        "manifestDigest": "m" * 8,
        "sourceSlice": None,
        "targetSlice": None,
        "servers": ["triton:8001"],
        "slices": 2,
        "batch": 64,
        "maxPointsPerSecond": 0,
        "maxFailedPercent": "0.5",
        "state": "s3://artifacts/reindex/uid-rj",
        "resultUri": "s3://artifacts/reindex/uid-rj/results",
    }
    status = status_of(plan)
    assert (status.phase, status.job, status.started_at) == ("Embedding", NAME, at())
    assert status.strategy is not None
    assert status.strategy.chosen == "BlueGreen"
    assert "20000 points" in status.strategy.reason
    assert status.cost is None, "no worker was seen yet"
    assert status.target == TargetStatus(collection=f"{ALIAS}@g2", vector="d-space")
    assert condition(plan, "Prepared") == ("True", "Prepared")
    manifest = job_manifest(order, {"template": {"spec": {"containers": [{"name": "worker"}]}}})
    assert manifest["spec"]["completionMode"] == "Indexed"
    assert (manifest["spec"]["completions"], manifest["spec"]["parallelism"]) == (2, 2)
    assert manifest["spec"]["activeDeadlineSeconds"] == 6 * 3600
    environment = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    assert environment[1] == {
        "name": "SEARCHOPS_CELL_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": NAME, "key": "token"}},
    }
    assert "prw" not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("facts", "spec", "access"),
    [
        ({}, {}, [(f"{ALIAS}@g2", "prw"), (f"{ALIAS}@g1", "r")]),
        ({"target": collection(1)}, {}, [(f"{ALIAS}@g1", "prw")]),
        (
            {},
            {"source": {"uri": "s3://catalogues/shops/c.jsonl"}},
            [(f"{ALIAS}@g2", "prw"), (f"{ALIAS}@g1", "r")],
        ),
    ],
    ids=["blue-green", "named-vector", "catalogue"],
)
def test_the_token_names_exactly_the_collections_and_ends_at_the_deadline(
    facts: dict[str, Any], spec: dict[str, Any], access: list[tuple[str, str]]
) -> None:
    job = make_job(**spec, budget={"deadline": "2h"})
    order = order_of(plan_reindex(job, make_facts(**facts), NOW)).order
    assert order.secret_claims == {
        "exp": int(later(hours=3).timestamp()),
        "access": [{"collection": name, "access": right} for name, right in access],
        "subject": "uid-rj/worker",
        "cell": "eu-1",
    }


@pytest.mark.parametrize(
    ("counts", "queued"),
    [
        ({"running": 7}, False),
        ({"running": 8}, True),
        ({"fleet_running": 31}, False),
        ({"fleet_running": 32}, True),
    ],
)
def test_the_limits_of_the_model_and_of_the_fleet_queue_it(counts: dict[str, int], queued: bool) -> None:
    facts = make_facts(**counts)
    plan = plan_reindex(make_job(), facts, NOW)
    assert (status_of(plan).phase == "Queued") is queued
    assert (plan.actions == ()) is queued
    if queued:
        plan = steady(make_job(), facts)
        assert (condition(plan, "Ready"), plan.requeue_after) == (("False", "Queued"), 10.0)
        assert status_of(plan).started_at is None


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"tenant": None}, "TenantNotFound"),
        ({"tenant": None, "tenant_unreadable": True}, "Waiting"),
        ({"tenant": make_tenant("acme-2")}, "NotNamedByTenant"),
        ({"tenant": make_tenant(None)}, "NotNamedByTenant"),
        ({"source_allowed": False}, "SourceNotAllowed"),
        ({"cell": None}, "CellUnreachable"),
        ({"source": None}, "CellUnreachable"),
        ({"pending": None}, "Preparing"),
        ({"pending": PENDING.model_copy(update={"revision": "shop-r9-cccccccc"})}, "Preparing"),
        ({"target": None}, "Preparing"),
        ({"template": TemplateProblem(True, "there is none")}, "PodTemplateNotFound"),
        ({"template": TemplateProblem(False, "not labelled")}, "PodTemplateNotAllowed"),
    ],
)
def test_nothing_is_made_before_everything_is_there(facts: dict[str, Any], reason: str) -> None:
    plan = steady(make_job(), make_facts(**facts))
    assert (plan.actions, status_of(plan).phase, plan.requeue_after) == ((), "Pending", 10.0)
    assert condition(plan, "Ready") == ("False", reason)


def test_a_worker_whose_secret_may_be_missing_is_made_again_until_the_status_names_it() -> None:
    """The Job was created and the answer was lost: creating it again changes nothing but the Secret."""
    facts = make_facts(worker=worker(active=2))
    assert order_of(plan_reindex(make_job(), facts, NOW)).order.name == NAME
    assert plan_reindex(embedding(), facts, NOW).actions == ()


def test_progress_is_written_at_most_every_ten_seconds_and_messages_follow_it() -> None:
    job = embedding()
    plan = plan_reindex(job, make_facts(worker=worker(active=2), lacking=50), later(seconds=10))
    assert status_of(plan).progress == ProgressStatus(
        documents=100, embedded=50, points_per_second=5, eta_seconds=10, percent=50
    )
    assert "50 of 100" in message(plan, "Embedded")
    job = after(job, plan)
    plan = plan_reindex(job, make_facts(worker=worker(active=2), lacking=40), later(seconds=19))
    assert status_of(plan).to_wire() == job.status.to_wire()
    plan = plan_reindex(job, make_facts(worker=worker(active=2), lacking=40), later(seconds=20))
    assert "60 of 100" in message(plan, "Ready")


def test_what_could_not_be_counted_is_not_called_embedded() -> None:
    job = make_job(embedding().status.model_copy(update={"progress": None, "progress_at": None}))
    plan = steady(job, make_facts(worker=worker(active=2), lacking=None))
    assert "unknown" in message(plan, "Embedded")


def test_a_suspended_worker_is_queued_by_its_queue() -> None:
    plan = steady(embedding(), make_facts(worker=worker(suspended=True)))
    assert (plan.actions, status_of(plan).phase) == ((), "Queued")


def test_a_suspended_job_stops_its_worker_and_goes_on_later() -> None:
    job = make_job(embedding().status, suspend=True)
    plan = plan_reindex(job, make_facts(worker=worker(active=2)), NOW)
    assert plan.actions == (DeleteWorker(NAME),)
    assert (status_of(plan).phase, status_of(plan).job) == ("Pending", None)
    held = after(job, plan)
    assert steady(held, make_facts()).actions == ()
    again = order_of(plan_reindex(make_job(held.status), make_facts(), later(hours=1)))
    assert again.order.name == NAME


@pytest.mark.parametrize("tenant", [make_tenant("acme-2"), make_tenant(None), None])
@pytest.mark.parametrize("there", [True, False])
def test_it_is_cancelled_when_its_tenant_no_longer_waits_for_it(tenant: Any, there: bool) -> None:
    facts = make_facts(tenant=tenant, worker=worker(active=2) if there else None)
    plan = plan_reindex(embedding(), facts, later(minutes=5))
    assert plan.actions == ((DeleteWorker(NAME),) if there else ())
    status = status_of(plan)
    assert (status.phase, status.finished_at) == ("Cancelled", at(minutes=5))
    assert condition(plan, "Ready") == ("False", "Cancelled")


def test_a_tenant_that_does_not_parse_cancels_nothing() -> None:
    facts = make_facts(tenant=None, tenant_unreadable=True, worker=worker(active=2))
    plan = steady(embedding(), facts)
    assert (plan.actions, status_of(plan).phase) == ((), "Embedding")


@pytest.mark.parametrize("facts", [{"cell": None}, {"source": None}, {"pending": None}])
def test_work_under_way_keeps_its_phase_while_the_cell_does_not_answer(facts: dict[str, Any]) -> None:
    plan = steady(embedding(), make_facts(worker=worker(active=2), **facts))
    assert (plan.actions, status_of(plan).phase) == ((), "Embedding")
    assert condition(plan, "Ready")[0] == "False"
    assert condition(plan, "Prepared") == ("True", "Prepared")


def test_verified_stays_verified_whatever_becomes_of_the_worker_and_of_pending() -> None:
    for facts in (make_facts(), make_facts(cell=None), make_facts(pending=None), make_facts(running=9)):
        plan = steady(verified(), facts)
        assert (plan.actions, status_of(plan).phase) == ((), "Verified")
        assert condition(plan, "Verified") == ("True", "Verified")


@pytest.mark.parametrize(("bound", "phase"), [(REVISION, "Switched"), ("shop-r1-aaaaaaaa", "Cancelled")])
def test_switched_is_read_from_the_tenant_and_never_done(bound: str, phase: str) -> None:
    plan = plan_reindex(verified(), make_facts(tenant=make_tenant(None, bound)), later(minutes=1))
    assert (plan.actions, status_of(plan).phase) == ((), phase)
    assert status_of(plan).finished_at == at(minutes=1)


def test_a_binding_without_a_verification_is_no_switch() -> None:
    facts = make_facts(tenant=make_tenant(None, REVISION), worker=worker(active=1))
    assert status_of(plan_reindex(embedding(), facts, NOW)).phase == "Cancelled"


def test_a_finished_job_stops_its_worker_and_goes_after_its_time() -> None:
    job = make_job(embedding().status.model_copy(update={"phase": "Cancelled", "finished_at": at()}))
    plan = plan_reindex(job, make_facts(worker=worker(active=1)), later(hours=1))
    assert plan == ReindexPlan((DeleteWorker(NAME),), None, 71 * 3600.0)
    assert plan_reindex(job, make_facts(worker=worker(complete=True)), later(hours=1)).actions == ()
    assert plan_reindex(job, make_facts(), later(hours=72)) == ReindexPlan((DeleteSelf(),), None)


def test_a_deleted_job_takes_its_worker_along() -> None:
    job = make_job(embedding().status, metadata={"deletionTimestamp": at()})
    plan = plan_reindex(job, make_facts(worker=worker(active=1)), NOW)
    assert plan == ReindexPlan((DeleteWorker(NAME), RemoveFinalizer()), None)
    assert plan_reindex(job, make_facts(), NOW) == ReindexPlan((RemoveFinalizer(),), None)
    released = make_job(embedding().status, metadata={"deletionTimestamp": at(), "finalizers": []})
    assert plan_reindex(released, make_facts(), NOW) == ReindexPlan((), None)
