"""What a person asks of a ReindexJob: each field is honoured, or refused by its name with what would do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.v1alpha1.reindex_job import CostStatus, ReindexJob, ReindexJobStatus
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_budget import gpus_of
from searchops.planning.reindex_facts import CreateWorker, DeleteSelf, DeleteWorker, ReindexPlan
from searchops.planning.reindex_request import may_switch
from unit.planning import reindex_facts as case

CATALOGUE = {"uri": "s3://catalogues/shops/c.jsonl"}
NAMED: dict[str, Any] = {"target": case.collection(1)}


@pytest.mark.parametrize(
    ("spec", "facts", "field", "would_do"),
    [
        ({"strategy": "NamedVector"}, {}, "spec.strategy is NamedVector", "set spec.strategy to Auto or BlueGreen"),
        ({"strategy": "BlueGreen"}, NAMED, "spec.strategy is BlueGreen", "set spec.strategy to Auto or NamedVector"),
        ({"source": CATALOGUE}, NAMED, "spec.source.uri is s3://catalogues", "set spec.source to fromCollection: true"),
    ],
)
def test_what_the_prepared_side_cannot_give_is_refused_by_the_fields_name(
    spec: dict[str, Any], facts: dict[str, Any], field: str, would_do: str
) -> None:
    plan = case.steady(case.make_job(**spec), case.make_facts(**facts))
    assert plan.actions == ()
    assert case.condition(plan, "Ready") == ("False", "NotSupported")
    assert field in case.message(plan, "Prepared")
    assert case.message(plan, "Prepared").endswith(would_do)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ({"strategy": "Auto"}, {}),
        ({"strategy": "BlueGreen"}, {}),
        ({"strategy": "BlueGreen", "source": CATALOGUE}, {}),
        ({"strategy": "NamedVector"}, NAMED),
    ],
)
def test_what_fits_is_done(spec: dict[str, Any], facts: dict[str, Any]) -> None:
    plan = plan_reindex(case.make_job(**spec), case.make_facts(**facts), case.NOW)
    (action,) = plan.actions
    assert isinstance(action, CreateWorker)


def waiting(**annotations: str) -> ReindexJob:
    named = {f"searchops.dev/{name}": value for name, value in annotations.items()}
    return case.make_job(case.verified().status, cutover="Manual", metadata={"annotations": named})


def test_a_manual_cutover_stops_at_verified_and_says_what_to_write_where() -> None:
    plan = case.steady(waiting(), case.done())
    assert (plan.actions, case.status_of(plan).phase) == ((), "Verified")
    assert case.condition(plan, "Switched") == ("False", "AwaitingApproval")
    assert case.condition(plan, "Verified") == ("True", "Verified")
    assert f"searchops approve acme-1 {case.REVISION} --kind reindex -n shops" in case.message(plan, "Ready"), (
        "a command that can be copied"
    )
    assert not may_switch(waiting())


def test_only_the_right_word_approves() -> None:
    wrong = waiting(approve="shop-r9-cccccccc")
    assert not may_switch(wrong)
    assert "is 'shop-r9-cccccccc'" in case.message(plan_reindex(wrong, case.done(), case.NOW), "Switched")
    right = waiting(approve=case.REVISION)
    assert may_switch(right)
    assert case.condition(plan_reindex(right, case.done(), case.NOW), "Switched") == ("False", "Waiting")
    assert may_switch(case.verified()), "an automatic one asks nobody"


def failed(**metadata: Any) -> ReindexJob:
    job = case.make_job(case.embedding().status)
    job = case.after(job, plan_reindex(job, case.done(lacking=1, slices=case.slices({"exit_code": 1})), case.NOW))
    assert job.status.phase == "Failed"
    return case.make_job(job.status, metadata=metadata)


def test_a_failure_is_remembered_while_its_tenant_waits_for_it_and_gone_after() -> None:
    plan = plan_reindex(failed(), case.make_facts(), case.later(days=40))
    assert plan == ReindexPlan((), None, 3600.0)
    unknown = case.make_facts(tenant=None, tenant_unreadable=True)
    assert plan_reindex(failed(), unknown, case.later(days=40)).actions == (), "unknown is not gone"
    for tenant in (case.make_tenant("acme-2"), case.make_tenant(None), None):
        plan = plan_reindex(failed(), case.make_facts(tenant=tenant), case.later(days=40))
        assert plan.actions == (DeleteSelf(),)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"annotations": {"searchops.dev/retry": "mended"}}, "searchops.dev/retry is now 'mended'"),
        ({"generation": 2}, "the spec is of generation 2"),
    ],
)
def test_a_new_word_or_spec_tries_again_once_the_old_worker_is_gone(metadata: dict[str, Any], said: str) -> None:
    job = failed(**metadata)
    dead = case.make_facts(worker=case.worker(failure="x"))
    assert plan_reindex(job, dead, case.NOW) == ReindexPlan((DeleteWorker(case.NAME),), None, 1.0)
    plan = plan_reindex(job, case.make_facts(), case.NOW)
    status = case.status_of(plan)
    assert (status.phase, status.retries, status.finished_at, status.job) == ("Pending", 1, None, None)
    assert said in case.message(plan, "Ready")
    again = case.make_job(status, metadata=metadata)
    (action,) = plan_reindex(again, case.make_facts(), case.NOW).actions
    assert isinstance(action, CreateWorker)
    assert action.order.task.model_dump()["result_uri"].endswith("/results-1")


def test_a_retry_of_a_job_that_nobody_waits_for_changes_nothing() -> None:
    job = failed(annotations={"searchops.dev/retry": "mended"})
    plan = plan_reindex(job, case.make_facts(tenant=case.make_tenant("acme-2")), case.NOW)
    assert (plan.actions, plan.status) == ((), None)


def test_a_new_generation_of_a_finished_job_is_seen_and_changes_nothing() -> None:
    over = case.embedding().status.model_copy(update={"phase": "Cancelled", "finished_at": case.at()})
    plan = plan_reindex(case.make_job(over, metadata={"generation": 5}), case.make_facts(), case.later(hours=1))
    status = case.status_of(plan)
    assert (plan.actions, status.phase, status.observed_generation) == ((), "Cancelled", 5)


def spending(seconds: int, rate: str | None = None, *, hours: str = "1") -> ReindexJob:
    cost = CostStatus(gpu_seconds=seconds, as_of=case.at(), documents_before=0, documents_per_gpu_second=rate)
    status = case.embedding().status.model_copy(update={"cost": cost})
    return case.make_job(status, budget={"maxGpuHours": hours})


def test_a_start_that_cannot_be_paid_for_is_not_made_and_says_every_figure() -> None:
    job = case.make_job(budget={"maxGpuHours": "1"})
    plan = case.steady(job, case.make_facts(measured_rate=0.01))
    assert plan.actions == ()
    assert case.condition(plan, "Ready") == ("False", "BudgetExceeded")
    assert case.message(plan, "Embedded").startswith(
        "spec.budget.maxGpuHours is 1: 0.00 GPU-hours are spent, 60 of 100 documents remain and need about 1.67 more "
        "at 0.01 documents a GPU-second"
    )
    assert "raise spec.budget.maxGpuHours to at least 1.67" in case.message(plan, "Embedded")
    for facts in ({"measured_rate": 0.02}, {"measured_rate": None}):
        assert len(plan_reindex(job, case.make_facts(**facts), case.NOW).actions) == 1


@pytest.mark.parametrize(
    ("seconds", "rate", "lacking", "held"),
    [
        (3599, None, 60, False),
        (3600, None, 60, True),
        (3600, None, None, True),
        (3600, None, 0, False),
        (1800, "0.034", 60, False),
        (1800, "0.028", 60, False),
        (1800, "0.027", 60, True),
    ],
)
def test_running_work_is_held_when_the_bound_is_spent_or_will_not_do(
    seconds: int, rate: str | None, lacking: int | None, held: bool
) -> None:
    facts = case.make_facts(worker=case.worker(active=2, start_time=case.at()), lacking=lacking)
    plan = plan_reindex(spending(seconds, rate), facts, case.NOW)
    assert (plan.actions == (DeleteWorker(case.NAME),)) is held
    if held:
        status = case.status_of(plan)
        assert (status.phase, status.job, status.finished_at) == ("Pending", None, None), "held, not failed"
        assert f"{seconds / 3600:.2f} GPU-hours are spent" in case.message(plan, "Ready")
        rest = case.make_facts(lacking=lacking)
        assert case.steady(case.make_job(status, budget={"maxGpuHours": "1"}), rest).actions == ()
        more = case.make_job(status, budget={"maxGpuHours": "9"})
        assert len(plan_reindex(more, rest, case.NOW).actions) == 1, "it goes on from there"


def test_a_cell_that_is_silent_does_not_let_a_spent_budget_run_on() -> None:
    facts = case.make_facts(cell=None, lacking=None, worker=case.worker(active=2, start_time=case.at()))
    plan = plan_reindex(spending(3600), facts, case.NOW)
    assert plan.actions == (DeleteWorker(case.NAME),)
    assert "how many documents remain could not be counted" in case.message(plan, "Ready")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 4))
def test_gpu_seconds_are_workers_times_gpus_times_the_time_that_passed(
    steps: list[int], workers: int, gpus: int
) -> None:
    job, passed, phase = case.embedding(), 0, ReindexJobStatus().phase
    for step in steps:
        passed += step
        facts = case.make_facts(worker=case.worker(active=workers, start_time=case.at()), gpus=gpus)
        job = case.after(job, plan_reindex(job, facts, case.later(seconds=passed)))
        phase = job.status.phase
    assert phase == "Embedding"
    cost = job.status.cost
    counted = 0.0 if cost is None or cost.as_of is None else cost.gpu_seconds / workers / gpus
    assert passed - 10 < counted <= passed


@pytest.mark.parametrize(
    ("limits", "gpus"), [({}, 1), ({"nvidia.com/gpu": "2"}, 2), ({"cpu": "8"}, 1), ({"amd.com/gpu": 1}, 1)]
)
def test_gpus_of_a_template(limits: dict[str, Any], gpus: int) -> None:
    containers = [{"name": "worker", "resources": {"limits": limits}}, {"name": "side"}]
    assert gpus_of({"template": {"spec": {"containers": containers}}}) == gpus
    assert gpus_of(None) == 1
