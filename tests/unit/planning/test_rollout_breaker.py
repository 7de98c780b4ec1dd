"""The breaker inside a wave: who has begun ends, nobody new begins, and never more than the cap at one time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.v1alpha1.reindex_job import ReindexJobStatus
from searchops.api.v1alpha1.search_tenant_status import RebuildStatus
from searchops.planning.model_facts import TenantFact
from searchops.planning.reindex import CreateWorker, plan_reindex
from searchops.planning.rollout import plan_model
from searchops.planning.tenant_facts import CreateReindexJob, DeleteReindexJob, PatchCollection
from searchops.planning.waves import follows, wanted_revision
from unit.planning import reindex_facts as reindex
from unit.planning import rollout_cases as case
from unit.planning import tenant_cases, tenant_rebuild_cases

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
    from searchops.api.v1alpha1.reindex_job import ReindexJob

ACTIVE, CANDIDATE = case.promoted().revision, case.built("b", 2).revision


@dataclass(slots=True)
class Tenant:
    """A tenant with its rebuild: none, queued, running, failed; an attempt or a retry that is queued has begun before.

    Attributes:
        between: the next attempt's job is not made yet.
    """

    name: str
    bound: str = ACTIVE
    rebuild: str = "none"
    attempt: int = 1
    retries: int = 0
    between: bool = False

    @property
    def begun(self) -> bool:
        return self.rebuild in ("running", "failed") or (self.rebuild == "queued" and self.attempt + self.retries > 1)

    def fact(self) -> TenantFact:
        return TenantFact("shops", self.name, {}, self.bound, failed=self.rebuild == "failed")

    def status(self) -> RebuildStatus | None:
        if self.rebuild == "none":
            return None
        name = f"{self.name}-{self.attempt}"
        return RebuildStatus(reindex_job=name, reason="SpaceChanged", attempt=self.attempt, revision=CANDIDATE)

    def job(self) -> ReindexJob | None:
        status = self.status()
        if status is None or self.between:
            return None
        phase = {"queued": "Queued", "running": "Embedding", "failed": "Failed"}[self.rebuild]
        job = tenant_cases.make_job(status.reindex_job, phase=phase)
        started = None if self.rebuild == "queued" else tenant_cases.STAMP
        update = {"started_at": started, "retries": self.retries}
        return job.model_copy(update={"status": job.status.model_copy(update=update)})

    def decide(self, status: EmbeddingModelStatus) -> None:
        following = follows(status.candidate, self.bound, self.status(), self.job())
        wanted = wanted_revision(status, namespace="shops", name=self.name, labels={}, following=following)
        revision = wanted.revision.revision if wanted.revision is not None else None
        if revision == self.bound:
            self.rebuild, self.attempt, self.retries = "none", 1, 0
        elif revision == CANDIDATE and self.rebuild == "none":
            self.rebuild = "queued"
        self.between = False


def start(tenants: list[Tenant], halted: str, cap: int) -> int:
    """Let the reindex planner admit what is queued; how many began that had not begun before."""
    new = 0
    for tenant in tenants:
        job, status = tenant.job(), tenant.status()
        if tenant.rebuild != "queued" or job is None or status is None:
            continue
        running = sum(one.rebuild == "running" for one in tenants)
        waits = reindex.make_tenant(job.metadata.name)
        waits = waits.model_copy(update={"status": waits.status.model_copy(update={"rebuild": status})})
        facts = reindex.make_facts(tenant=waits, running=running, running_limit=cap, halted=halted)
        own = reindex.make_job(job.status, metadata={"name": job.metadata.name})
        if any(isinstance(action, CreateWorker) for action in plan_reindex(own, facts, case.NOW).actions):
            new += not tenant.begun
            tenant.rebuild = "running"
    return new


def finish(tenants: list[Tenant], outcomes: list[str]) -> None:
    failed = [tenant for tenant in tenants if tenant.rebuild == "failed"]
    running = [tenant for tenant in tenants if tenant.rebuild == "running"]
    for tenant, outcome in zip(running, outcomes, strict=False):
        if outcome == "done":
            tenant.bound, tenant.rebuild = CANDIDATE, "none"
        elif outcome == "again":
            tenant.rebuild, tenant.attempt, tenant.between = "queued", tenant.attempt + 1, True
        elif outcome == "failed":
            tenant.rebuild = "failed"
    if "retry" in outcomes and failed:
        failed[0].rebuild, failed[0].retries = "queued", failed[0].retries + 1


def model_in_a_wave(percent: int, cap: int) -> EmbeddingModel:
    wave = case.WAVE
    rollout = {"breaker": {"maxRevertedPercent": percent}, "maxConcurrentReindexes": cap}
    return case.make_model("b", case.rolling(wave=wave), rollout=rollout)


@settings(max_examples=120, deadline=None)
@given(
    count=st.integers(1, 25),
    percent=st.integers(0, 100),
    cap=st.integers(1, 6),
    walk=st.lists(
        st.lists(st.sampled_from(("done", "done", "failed", "on", "again", "retry")), max_size=6),
        min_size=1,
        max_size=25,
    ),
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
        begun_before = [tenant for tenant in tenants if tenant.begun]
        for tenant in tenants:
            tenant.decide(model.status)
        assert all(tenant.begun for tenant in begun_before), "a halt takes no work back"
        begun = start(tenants, model.status.wave.halted or "", cap)
        assert begun == 0 or failed < limit
        assert failed < limit or all(tenant.begun for tenant in tenants if tenant.rebuild == "queued")
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


def begun_before(attempt: int, retries: int | None) -> tuple[Any, Any]:
    """A tenant whose rebuild has begun before, and its job: none is made yet, or one that a person had tried again."""
    name = tenant_rebuild_cases.job_name("d-s2", tenant_rebuild_cases.R2, tenant_rebuild_cases.SETTLED, attempt=attempt)
    rebuild = tenant_rebuild_cases.rebuild_status(name, attempt=attempt)
    tenant = tenant_cases.make_tenant(status={"rebuild": rebuild.to_wire()})
    if retries is None:
        return tenant, None
    job = tenant_cases.make_job(name, phase="Pending")
    return tenant, job.model_copy(update={"status": job.status.model_copy(update={"retries": retries})})


@pytest.mark.parametrize(("attempt", "retries"), [(2, None), (2, 0), (1, 1)])
def test_a_rebuild_between_two_tries_is_not_taken_back_by_a_halt(attempt: int, retries: int | None) -> None:
    tenant, job = begun_before(attempt, retries)
    plan = tenant_rebuild_cases.plan(tenant, halted_facts(job))
    assert not any(isinstance(action, DeleteReindexJob | PatchCollection) for action in plan.actions)
    assert plan.status is not None
    assert plan.status.rebuild == tenant.status.rebuild


@pytest.mark.parametrize(("attempt", "retries"), [(2, 0), (1, 1)])
def test_a_job_of_a_further_try_begins_while_the_wave_is_halted(attempt: int, retries: int) -> None:
    tenant = reindex.make_tenant()
    assert tenant.status.rebuild is not None
    rebuild = tenant.status.rebuild.model_copy(update={"attempt": attempt})
    tenant = tenant.model_copy(update={"status": tenant.status.model_copy(update={"rebuild": rebuild})})
    job = reindex.make_job(ReindexJobStatus(retries=retries))
    plan = plan_reindex(job, reindex.make_facts(tenant=tenant, halted="BreakerOpen"), case.NOW)
    assert [type(action) for action in plan.actions] == [CreateWorker]


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
