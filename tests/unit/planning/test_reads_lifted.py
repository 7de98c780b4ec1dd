"""Reads of a rebuild are neither refused nor the shoppers': no read rate while a side is filled, and again after it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.planning.schema import NO_LIMIT
from searchops.planning.tenant_facts import CreateCollection, PatchCollection
from unit.planning import tenant_cases as case
from unit.planning import tenant_rebuild_cases as rebuild

if TYPE_CHECKING:
    from searchops.api.observed import StrictMode

QUOTAS = {"quotas": {"searchesPerMinute": 30, "writesPerMinute": 600, "maxVectorMegabytes": 4}}
TENANT = case.make_tenant(QUOTAS)
WRITTEN = case.design_of(case.dense(1), tenant=TENANT).strict


def mended(**sides: Any) -> StrictMode | None:
    """Strict mode that a pass writes to a collection that has the merchant's, whatever its sides are."""
    live = case.make_collection(case.dense(1), tenant=TENANT, strict=WRITTEN, **sides)
    plan = rebuild.plan(TENANT, case.make_facts(live, model=rebuild.MODEL))
    patches = [action for action in plan.actions if isinstance(action, PatchCollection) and action.strict is not None]
    return patches[0].strict if patches else None


def test_the_merchants_rate_is_six_tokens_a_search_and_stands_while_nothing_is_rebuilt() -> None:
    assert (WRITTEN.reads_per_minute, mended()) == (180, None)


def test_a_side_that_is_filled_lifts_reads_and_writes_before_its_job_is_made() -> None:
    strict = mended(pending=case.dense(2, at=rebuild.SETTLED))
    assert strict is not None
    assert (strict.reads_per_minute, strict.writes_per_minute, strict.max_vector_bytes) == (
        NO_LIMIT,
        NO_LIMIT,
        8_000_000,
    )


def test_a_side_that_is_only_kept_lifts_writes_and_gives_the_reads_back() -> None:
    strict = mended(previous=case.dense(2, at=case.NOW - timedelta(hours=1)))
    assert strict is not None
    assert (strict.reads_per_minute, strict.writes_per_minute) == (180, NO_LIMIT)


@pytest.mark.parametrize("sides", [{}, {"previous": case.dense(2)}])
def test_once_nothing_is_filled_any_more_lifted_reads_are_taken_back(sides: Any) -> None:
    lifted = case.design_of(case.dense(1), tenant=TENANT, lifted=True, filling=True).strict
    live = case.make_collection(case.dense(1), tenant=TENANT, strict=lifted, **sides)
    plan = rebuild.plan(TENANT, case.make_facts(live, model=case.make_model(case.revision(1))))
    (patch,) = [action for action in plan.actions if isinstance(action, PatchCollection)]
    assert patch.strict is not None
    assert patch.strict.reads_per_minute == 180


def test_a_generation_that_is_filled_beside_the_live_one_is_made_so() -> None:
    german = case.make_tenant({**QUOTAS, "languages": ["de"]})
    live = case.make_collection(case.dense(1, tenant=TENANT), tenant=TENANT)
    plan = rebuild.plan(german, case.make_facts(live, model=case.make_model(case.revision(1))))
    (made,) = [action for action in plan.actions if isinstance(action, CreateCollection)]
    assert (made.design.strict.reads_per_minute, made.design.strict.writes_per_minute) == (NO_LIMIT, NO_LIMIT)
