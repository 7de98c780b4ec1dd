"""The breaker inside a wave: who has begun ends, nobody new begins, and never more than the cap at one time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.planning.model_facts import TenantFact
from searchops.planning.reindex import CreateWorker, plan_reindex
from searchops.planning.rollout import plan_model
from searchops.planning.tenant_facts import CreateReindexJob, DeleteReindexJob
from searchops.planning.waves import wanted_revision

if TYPE_CHECKING:
    from tests.unit.planning import reindex_facts as reindex
    from tests.unit.planning import rollout_cases as case
    from tests.unit.planning import tenant_cases, tenant_rebuild_cases

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel, EmbeddingModelStatus
else:
    from unit.planning import reindex_facts as reindex
    from unit.planning import rollout_cases as case
    from unit.planning import tenant_cases, tenant_rebuild_cases

ACTIVE, CANDIDATE = case.promoted().revision, case.built("b", 2).revision


@dataclass(slots=True)
class Tenant:
    """A tenant with its rebuild: none, queued, running, failed."""

    name: str
    bound: str = ACTIVE
    rebuild: str = "none"

    def fact(self) -> TenantFact:
        return TenantFact("shops", self.name, {}, self.bound, failed=self.rebuild == "failed")

    def decide(self, status: EmbeddingModelStatus) -> None:
        following = self.bound == CANDIDATE or self.rebuild in ("running", "failed")
        wanted = wanted_revision(status, namespace="shops", name=self.name, labels={}, following=following)
        revision = wanted.revision.revision if wanted.revision is not None else None
        if revision == self.bound:
            self.rebuild = "none"
        elif revision == CANDIDATE and self.rebuild == "none":
            self.rebuild = "queued"


def start(tenants: list[Tenant], halted: str, cap: int) -> int:
    """Let the reindex planner admit what is queued; how many began."""
    begun = 0
    for tenant in tenants:
        if tenant.rebuild != "queued":
            continue
        running = sum(one.rebuild == "running" for one in tenants)
        facts = reindex.make_facts(running=running, running_limit=cap, halted=halted)
        if any(
            isinstance(action, CreateWorker) for action in plan_reindex(reindex.make_job(), facts, case.NOW).actions
        ):
            tenant.rebuild = "running"
            begun += 1
    return begun


def finish(tenants: list[Tenant], outcomes: list[str]) -> None:
    running = [tenant for tenant in tenants if tenant.rebuild == "running"]
    for tenant, outcome in zip(running, outcomes, strict=False):
        if outcome == "done":
            tenant.bound, tenant.rebuild = CANDIDATE, "none"
        elif outcome == "failed":
            tenant.rebuild = "failed"


def model_in_a_wave(percent: int, cap: int) -> EmbeddingModel:
    wave = case.WAVE
    rollout = {"breaker": {"maxRevertedPercent": percent}, "maxConcurrentReindexes": cap}
    return case.make_model("b", case.rolling(wave=wave), rollout=rollout)


@settings(max_examples=120, deadline=None)
@given(
    count=st.integers(1, 25),
    percent=st.integers(0, 100),
    cap=st.integers(1, 6),
    walk=st.lists(st.lists(st.sampled_from(("done", "done", "failed", "on")), max_size=6), min_size=1, max_size=25),
)
def test_the_breaker_always_stops_and_the_cap_is_never_exceeded(
    count: int, percent: int, cap: int, walk: list[list[str]]
) -> None:
    tenants = [Tenant(f"t{number}") for number in range(count)]
    model = model_in_a_wave(percent, cap)
    for outcomes in walk:
        facts = case.facts_of(model, gate=None, tenants=tuple(tenant.fact() for tenant in tenants))
        model = case.after(model, plan_model(model, facts, case.NOW))
        if model.status.candidate is None:
            break
        failed = sum(tenant.rebuild == "failed" for tenant in tenants)
        tried = failed + sum(tenant.bound == CANDIDATE for tenant in tenants)
        limit = max(1.0, tried * percent / 100)
        assert model.status.wave is not None
        assert (model.status.wave.halted == "BreakerOpen") is (failed >= limit)
        for tenant in tenants:
            tenant.decide(model.status)
        begun = start(tenants, model.status.wave.halted or "", cap)
        assert begun == 0 or failed < limit
        assert failed < limit or not any(tenant.rebuild == "queued" for tenant in tenants)
        assert sum(tenant.rebuild == "running" for tenant in tenants) <= cap
        assert failed == sum(tenant.rebuild == "failed" for tenant in tenants), "a halt forgives nobody"
        finish(tenants, outcomes)
    failed = sum(tenant.rebuild == "failed" for tenant in tenants)
    active = model.status.active
    assert active is not None
    assert active.revision == ACTIVE or (failed == 0 and all(tenant.bound == CANDIDATE for tenant in tenants))


def test_the_breaker_stops_the_wave_while_the_rollout_waits_for_a_server() -> None:
    model = model_in_a_wave(2, 8)
    down = case.server("s2", reachable=False, error="refused")
    serving = case.pool("default", case.server("s1", ACTIVE, CANDIDATE), down)
    failed = case.tenant("t", case.promoted(), failed=True)
    plan = case.steady(model, case.facts_of(model, gate=None, serving=serving, tenants=(failed,)))
    wave = case.status_of(plan).wave
    assert wave is not None
    assert (wave.halted, case.condition(plan, "Loaded")) == ("BreakerOpen", ("False", "Loading"))


def test_a_breaker_that_closes_lets_the_wave_go_on() -> None:
    model = case.make_model("b", case.rolling(wave=case.WAVE.model_copy(update={"halted": "BreakerOpen"})))
    facts = case.facts_of(model, gate=None, tenants=(case.tenant("t", case.promoted()),))
    plan = case.steady(model, facts)
    assert (case.status_of(plan).wave, case.status_of(plan).phase) == (case.WAVE, "Rolling")


def halted_facts(job: Any = None) -> Any:
    """A tenant of a halted wave, whose second vector is prepared."""
    model = tenant_cases.make_model(tenant_cases.revision(1), candidate=tenant_cases.revision(2), fraction="1")
    wave = model.status.wave
    assert wave is not None
    halted = wave.model_copy(update={"halted": "BreakerOpen"})
    model = model.model_copy(update={"status": model.status.model_copy(update={"wave": halted})})
    return tenant_cases.make_facts(tenant_rebuild_cases.named_vector(), model=model, reindex=job)


@pytest.mark.parametrize("phase", ["Pending", "Queued", None])
def test_a_rebuild_that_has_not_begun_is_cancelled_by_a_halt(phase: str | None) -> None:
    name = tenant_rebuild_cases.job_name("d-s2", tenant_rebuild_cases.R2, tenant_rebuild_cases.SETTLED)
    rebuild = tenant_rebuild_cases.rebuild_status(name)
    tenant = tenant_cases.make_tenant(status={"rebuild": rebuild.to_wire()})
    plan = tenant_rebuild_cases.plan(tenant, halted_facts(tenant_cases.make_job(name, phase=phase)))
    pending_gone = tenant_rebuild_cases.patch(tenant_rebuild_cases.G1, pending=None)
    assert plan.actions == (DeleteReindexJob(name), pending_gone)


@pytest.mark.parametrize("phase", ["Embedding", "Failed"])
def test_a_rebuild_that_has_begun_goes_on_through_a_halt(phase: str) -> None:
    name = tenant_rebuild_cases.job_name("d-s2", tenant_rebuild_cases.R2, tenant_rebuild_cases.SETTLED, attempt=3)
    rebuild = tenant_rebuild_cases.rebuild_status(name, attempt=3)
    tenant = tenant_cases.make_tenant(status={"rebuild": rebuild.to_wire()})
    job = tenant_cases.make_job(name, phase=phase)
    begun = job.model_copy(update={"status": job.status.model_copy(update={"started_at": tenant_cases.STAMP})})
    plan = tenant_rebuild_cases.plan(tenant, halted_facts(begun))
    assert plan.actions == ()
    assert plan.status is not None
    assert plan.status.rebuild is not None
    assert plan.status.rebuild.reindex_job == name


def test_a_tenant_that_has_not_prepared_anything_keeps_its_side() -> None:
    facts = halted_facts()
    live = tenant_cases.make_collection(tenant_cases.dense(1))
    plan = tenant_rebuild_cases.plan(tenant_cases.make_tenant(), replace(facts, collections=(live,)))
    assert not any(isinstance(action, CreateReindexJob) for action in plan.actions)
    assert plan.status is not None
    assert plan.status.rebuild is None
    bound = next(one for one in plan.status.conditions if one.type == "ModelBound")
    assert (bound.status, bound.reason) == ("True", "Bound")


def test_a_queued_reindex_job_does_not_begin_while_the_wave_is_halted() -> None:
    plan = reindex.steady(reindex.make_job(), reindex.make_facts(halted="BreakerOpen"))
    assert (plan.actions, reindex.status_of(plan).phase) == ((), "Queued")
    assert "halted (BreakerOpen)" in reindex.message(plan, "Ready")
