"""What a rollout would take: told before anyone approves, from what was measured, and stable while it waits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RolloutPlanStatus, WaveForecast
from searchops.planning.rebuild_rates import GpuPrices, MeasuredRate
from searchops.planning.rollout_forecast import foresee
from searchops.planning.waves import position
from unit.planning.rollout_cases import (
    after,
    at,
    built,
    facts_of,
    make_model,
    message,
    promoted,
    recorded,
    status_of,
    steady,
    tenant,
    wave,
)

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelFacts, TenantFact

R1 = promoted("a", 1)
R2 = built("b", 2)
RATES = (MeasuredRate(R1.revision, jobs=3, slowest=100.0, gpu_jobs=3, dearest=0.01),)
WAVES: list[dict[str, Any]] = [
    {"name": "canary", "selector": {"matchLabels": {"tier": "canary"}}, "soak": "10m"},
    {"name": "half", "percent": 50, "soak": "1h"},
    {"name": "all", "percent": 100},
]
#: By the hash of their names: two in the lower half, two in the upper.
LOW = [name for name in (f"t{n}" for n in range(40)) if position("shops", name) < 0.5][:2]
HIGH = [name for name in (f"t{n}" for n in range(40)) if position("shops", name) >= 0.5][:2]


def waiting(**update: Any) -> EmbeddingModel:
    status = EmbeddingModelStatus(active=R1, candidate=R2, next_number=3, phase="Gating", observed_generation=7)
    rollout = {"waves": WAVES, "maxConcurrentReindexes": 2, "approval": "BeforeFirstWave"}
    return make_model("b", status.model_copy(update=update), rollout=rollout)


def fleet() -> tuple[TenantFact, ...]:
    canary = replace(tenant("special", R1, documents=1000, replicas=2), labels={"tier": "canary"})
    low = [tenant(name, R1, documents=5000) for name in LOW]
    high = [tenant(name, R1, documents=2000) for name in HIGH]
    return (canary, *low, *high, tenant("pinned", R1, documents=9000, held=True))


def facts(model: EmbeddingModel, **update: Any) -> ModelFacts:
    given_facts: dict[str, Any] = {
        "tenants": fleet(),
        "rates": RATES,
        "settle_seconds": 30.0,
        "most_reindexes": 8,
        "prices": GpuPrices("EUR", {"a10": "1.10"}),
        "worker_labels": {"searchops.dev/gpu": "a10"},
    }
    return facts_of(model, **{**given_facts, **update})


def foreseen(model: EmbeddingModel, **update: Any) -> RolloutPlanStatus:
    plan = foresee(model, facts(model, **update), model.status)
    assert plan is not None
    return plan


def test_every_wave_has_its_tenants_documents_and_end() -> None:
    plan = foreseen(waiting())
    assert plan == RolloutPlanStatus(
        revision=R2.revision,
        space_change="Incompatible",
        tenants=5,
        documents=15_000,
        waves=(
            # 30 s for the gateways and 1000 documents at 100/s; two at one time do not split one tenant.
            WaveForecast(name="canary", tenants=1, documents=1000, seconds=40, finish_seconds=40),
            # Two of 80 s each at one time, at most 160/2 + 80/2; ten minutes' soak of the canary before.
            WaveForecast(name="half", tenants=2, documents=10_000, seconds=120, finish_seconds=760),
            WaveForecast(name="all", tenants=2, documents=4000, seconds=75, finish_seconds=4435),
        ),
        seconds=4435,
        seconds_basis=plan.seconds_basis,
        gpu_seconds=150,
        gpu_seconds_basis=plan.gpu_seconds_basis,
        cost={"amount": "0.05", "currency": "EUR"},
        cost_basis="1.10 EUR a GPU-hour of a10",
        # 16,000 points with replicas × 384 dimensions × 4 bytes = 24.6 MB.
        extra_megabytes=25,
    )
    assert "3 jobs of shop-r1-" in plan.seconds_basis
    assert "another revision of the model" in plan.seconds_basis
    assert "at most 2 at one time" in plan.seconds_basis
    assert "waiting for approval" in plan.seconds_basis
    assert "other rebuilds" not in plan.seconds_basis, "this model's own take turns, and their turns are in it"


def test_the_fleets_own_limit_bounds_the_models() -> None:
    assert [item.seconds for item in foreseen(waiting(), most_reindexes=1).waves] == [40, 160, 100]


def test_what_nobody_measured_is_unknown_and_says_why() -> None:
    plan = foreseen(waiting(), rates=())
    assert (plan.seconds, plan.gpu_seconds, plan.cost) == (None, None, None)
    assert [(item.tenants, item.seconds, item.finish_seconds) for item in plan.waves] == [
        (1, None, None),
        (2, None, None),
        (2, None, None),
    ]
    assert plan.seconds_basis == (
        "unknown: no ReindexJob of this model has finished, and only finished ones are measured"
    )
    assert (plan.documents, plan.extra_megabytes) == (15_000, 25)


def test_the_same_space_embeds_nothing_and_only_its_soaks_take_time() -> None:
    same = R2.model_copy(update={"space": R1.space, "space_change": "Same"})
    plan = foreseen(waiting(candidate=same), rates=())
    assert (plan.tenants, plan.documents, plan.extra_megabytes, plan.gpu_seconds) == (5, 0, 0, 0)
    assert [item.finish_seconds for item in plan.waves] == [0, 600, 4200]
    assert "tenants switch at once" in plan.seconds_basis
    assert plan.cost is None


def test_a_tenant_that_has_the_vectors_already_is_not_embedded() -> None:
    """A revert inside the window: previous sides that lack nothing, and tenants that had switched before."""
    there = [replace(item, previous=R2.revision, previous_lacking=0) for item in fleet()[:2]]
    bound = replace(fleet()[2], bound=R2.revision)
    behind = replace(fleet()[3], previous=R2.revision, previous_lacking=4)
    uncounted = replace(fleet()[4], previous=R2.revision)
    plan = foreseen(waiting(), tenants=(*there, bound, behind, uncounted))
    assert (plan.tenants, plan.documents, plan.extra_megabytes) == (5, 4000, 7)
    assert [(item.tenants, item.documents, item.seconds) for item in plan.waves] == [
        (1, 0, 0),
        (2, 0, 0),
        (2, 4000, 75),
    ]
    whole = tuple(replace(item, previous=R2.revision, previous_lacking=0) for item in fleet())
    plan = foreseen(waiting(), tenants=whole, rates=())
    assert (plan.tenants, plan.documents, plan.gpu_seconds, plan.extra_megabytes) == (5, 0, 0, 0)
    assert [item.finish_seconds for item in plan.waves] == [0, 600, 4200]
    assert plan.seconds_basis == "tenants switch at once, and nothing is embedded: their vectors are there"


def test_an_edited_spec_is_foreseen_anew_also_where_the_tenants_are_the_same() -> None:
    before = foreseen(waiting())
    canary: dict[str, Any] = {**WAVES[0], "soak": "24h"}
    rollout = {"waves": [canary, *WAVES[1:]], "maxConcurrentReindexes": 1}
    status = EmbeddingModelStatus(active=R1, candidate=R2, next_number=3, plan=before, observed_generation=6)
    edited = make_model("b", status, rollout=rollout)
    plan = foreseen(edited)
    assert [item.finish_seconds for item in plan.waves] == [40, 40 + 86_400 + 160, 40 + 86_400 + 160 + 3600 + 100]
    assert "at most 1 at one time" in plan.seconds_basis
    seen = make_model("b", status.model_copy(update={"observed_generation": 7, "plan": plan}), rollout=rollout)
    assert foreseen(seen, rates=(replace(RATES[0], slowest=400.0),)) == plan


def test_without_tenants_nothing_is_moved() -> None:
    plan = foreseen(waiting(), tenants=(), rates=())
    assert (plan.tenants, plan.seconds, plan.gpu_seconds_basis) == (0, 4200, "no tenant is to be moved")


def test_it_is_there_before_the_approval_that_it_is_read_for_and_goes_with_the_candidate() -> None:
    model = waiting(verdict=recorded("Pass").model_copy(update={"revision": R2.revision}))
    plan = steady(model, facts(model))
    assert status_of(plan).phase == "AwaitingApproval"
    assert status_of(plan).plan == foreseen(model)
    assert "searchops plan model shop" in message(plan, "Progressing")
    settled = make_model("a", EmbeddingModelStatus(active=R1, next_number=3, plan=foreseen(model)))
    assert status_of(steady(settled, facts(settled))).plan is None
    fresh = waiting(candidate=built("b", 2, space_change=None, engine_key=None))
    assert foresee(fresh, facts(fresh), fresh.status) is None


@pytest.mark.parametrize(
    ("change", "told_anew"),
    [
        ({}, False),
        ({"rates": (replace(RATES[0], slowest=400.0),)}, False),
        ({"rates": ()}, True),
        ({"prices": GpuPrices()}, True),
        ({"tenants": fleet()[:-2]}, True),
        ({"tenants": tuple(replace(item, documents=item.documents + 1) for item in fleet())}, False),
        ({"tenants": tuple(replace(item, documents=item.documents + 100) for item in fleet())}, True),
    ],
)
def test_while_it_waits_it_is_told_anew_only_where_something_has_moved(change: dict[str, Any], told_anew: bool) -> None:
    model = waiting()
    before = foreseen(model)
    model = waiting(plan=before)
    assert (foreseen(model, **change) != before) == told_anew


def test_while_waves_run_it_stays_as_it_was_foreseen_and_another_candidates_is_forgotten() -> None:
    before = foreseen(waiting())
    running = waiting(plan=before, wave=wave(1, "0.5"))
    assert foresee(running, facts(running, tenants=()), running.status) == before
    other = waiting(plan=before.model_copy(update={"revision": "shop-r9-99999999"}), wave=wave(1, "0.5"))
    assert foresee(other, facts(other), other.status) is None


def test_a_plan_that_has_not_moved_is_no_write() -> None:
    model = waiting(verdict=recorded("Pass").model_copy(update={"revision": R2.revision}))
    first = after(model, steady(model, facts(model)))
    again = steady(first, facts(first))
    assert status_of(again) == first.status


def test_without_an_earlier_revision_going_back_has_its_price() -> None:
    model = make_model("a", EmbeddingModelStatus(active=R1, next_number=3))
    said = message(steady(model, facts(model)), "RollbackReady")
    assert said == (
        "no earlier revision is warm: going back means another build, gate and re-embedding of every tenant: "
        # 300 s in all and 80 s for the longest, eight at one time: 300/8 + 80·7/8 = 107.5, in two digits.
        "about 15000 documents of 5 tenants, about 110 s with 8 rebuilds at one time, 150 GPU seconds, 0.05 EUR"
    )
    unmeasured = message(steady(model, facts(model, rates=())), "RollbackReady")
    assert unmeasured.endswith("in a time that no finished ReindexJob of this model has measured")
    earlier = promoted("c", 1, retire_after=at(hours=5))
    warm = make_model("a", EmbeddingModelStatus(active=R1, next_number=3, retiring=(earlier,)))
    assert "documents" not in message(steady(warm, facts(warm)), "RollbackReady")


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=30), st.integers(1, 9))
def test_no_order_of_the_tenants_takes_longer_than_foreseen(documents: list[int], at_once: int) -> None:
    """Whoever is free takes the next: the end of such a schedule, played, is never after the bound."""
    model = make_model(
        "b",
        EmbeddingModelStatus(active=R1, candidate=R2, next_number=3),
        rollout={"waves": [{"name": "all", "percent": 100}], "maxConcurrentReindexes": at_once},
    )
    tenants = tuple(tenant(f"t{n}", R1, documents=count) for n, count in enumerate(documents))
    plan = foreseen(model, tenants=tenants, most_reindexes=100)
    free = [0.0] * at_once
    for count in documents:
        free.sort()
        free[0] += 30.0 + count / 100.0
    assert plan.seconds is not None
    assert max(free) <= plan.seconds + 1e-6
    assert plan.seconds <= 1.2 * (2 * max(free)) + 10, "never more than twice the time, and two digits"
