"""RollbackReady: warm is not enough, a side that writes have missed is no way back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
from searchops.planning.tenant import plan_tenant
from unit.planning import rollout_cases as case
from unit.planning import tenant_cases

if TYPE_CHECKING:
    from searchops.planning.model_facts import ModelPlan, TenantFact

OLD = case.promoted("a", 1, retire_after=case.at(hours=40))
NEW = case.promoted("b", 2)


def follower(name: str, lacking: int | None, previous: str = OLD.revision) -> TenantFact:
    return replace(case.tenant(name, NEW), previous=previous, previous_lacking=lacking)


def planned(*tenants: TenantFact) -> ModelPlan:
    model = case.make_model("b", EmbeddingModelStatus(active=NEW, retiring=(OLD,), next_number=3))
    return case.steady(model, case.facts_of(model, tenants=tenants))


def test_every_side_that_is_complete_is_a_way_back() -> None:
    assert case.condition(planned(follower("one", 0), follower("two", 0)), "RollbackReady") == ("True", "Warm")


def test_missed_writes_are_told_with_tenant_counts_and_what_to_do() -> None:
    plan = planned(follower("one", 0), follower("two", 3), follower("three", 12))
    assert case.condition(plan, "RollbackReady") == ("False", "StalePrevious")
    said = case.message(plan, "RollbackReady")
    for part in ("2 tenants", "15 points", "shops/three lacks 12", OLD.revision, "missedPrevious", "re-embed"):
        assert part in said
    assert case.condition(plan, "Ready") == ("True", "Promoted")


def test_a_side_that_is_not_counted_is_unknown_and_never_a_way_back() -> None:
    plan = planned(follower("one", None), follower("two", 0))
    assert case.condition(plan, "RollbackReady") == ("Unknown", "Waiting")
    assert "shops/one" in case.message(plan, "RollbackReady")


def test_a_previous_side_that_no_rollback_would_use_is_not_asked_about() -> None:
    assert case.condition(planned(follower("one", 9, "shop-r9-99999999")), "RollbackReady") == ("True", "Warm")


def test_in_a_wave_the_way_back_is_the_active_revision() -> None:
    model = case.make_model("b", case.rolling(wave=case.WAVE))
    back = replace(case.tenant("one", case.built("b", 2)), previous=case.promoted().revision, previous_lacking=1)
    waiting = case.tenant("two", case.promoted())
    plan = case.steady(model, case.facts_of(model, gate=None, tenants=(back, waiting)))
    assert case.condition(plan, "RollbackReady") == ("False", "StalePrevious")


@pytest.mark.parametrize("lacking", [0, 4, None])
def test_a_tenant_says_what_its_previous_side_lacks(lacking: int | None) -> None:
    previous = tenant_cases.dense(1)
    live = tenant_cases.make_collection(tenant_cases.dense(2, at=tenant_cases.NOW), previous=previous)
    counted = {} if lacking is None else {(f"{tenant_cases.ALIAS}@b", "d-s1"): lacking}
    model = tenant_cases.make_model(tenant_cases.revision(2), retiring=(tenant_cases.revision(1),))
    facts = tenant_cases.make_facts(live, model=model, lacking=counted)
    plan = plan_tenant(tenant_cases.make_tenant(), facts, tenant_cases.SETTINGS, tenant_cases.NOW)
    assert plan.status is not None
    assert plan.status.previous is not None
    assert plan.status.previous.lacking == lacking
