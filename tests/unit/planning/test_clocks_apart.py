"""Clocks of operator, database and a former operator ten minutes apart: no wait is negative, endless or short."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchops.api.meta import format_time
from searchops.api.v1alpha1.search_tenant import AccessEntry
from searchops.controllers.tenant_gather import PROBE_TOKEN_LIFETIME
from searchops.planning.clocks import CLOCK_SKEW, seconds_left
from searchops.planning.names import KEY_PENDING, KEY_PREVIOUS, KEY_RELEASED_AT
from searchops.planning.reindex_token import RENEW_AFTER, SLACK
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import renew_at, token_claims
from searchops.planning.tenant_deletion import tombstones_due
from searchops.planning.tenant_facts import CreateReindexJob, PatchCollection
from searchops.settings import OperatorSettings
from unit.planning import tenant_cases as case

NOW = case.NOW
SETTLE = timedelta(seconds=30)
MINUTES = timedelta(minutes=1)
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
APART = st.timedeltas(-CLOCK_SKEW, CLOCK_SKEW)
SKEWED = replace(case.SETTINGS, clock_skew=CLOCK_SKEW)


AGES = st.timedeltas(timedelta(0), timedelta(days=9))


@CALM
@given(ahead=APART, seen=st.one_of(st.none(), st.floats(0, 10_000)), age=AGES)
def test_a_wait_is_never_negative_and_never_longer_than_itself(
    ahead: timedelta, seen: float | None, age: timedelta
) -> None:
    left = seconds_left(format_time(NOW - age + ahead), SETTLE, NOW, skew=CLOCK_SKEW, seen_for=seen)
    assert 0.0 <= left <= 30.0


@CALM
@given(ahead=APART, seen=st.floats(0, 29))
def test_a_wait_that_this_process_has_not_seen_through_is_not_over_because_another_clock_says_so(
    ahead: timedelta, seen: float
) -> None:
    """Written just before it was first seen, by a clock that is anything up to ten minutes away."""
    written = format_time(NOW - timedelta(seconds=seen) + ahead)
    assert seconds_left(written, SETTLE, NOW, skew=CLOCK_SKEW, seen_for=seen) == pytest.approx(30 - seen)


@CALM
@given(ahead=APART, seen=st.floats(30, 10_000))
def test_a_wait_that_was_seen_through_is_over_whatever_the_clock_of_the_writer(ahead: timedelta, seen: float) -> None:
    written = format_time(NOW - timedelta(seconds=seen) + ahead)
    assert seconds_left(written, SETTLE, NOW, skew=CLOCK_SKEW, seen_for=seen) == 0.0


def test_what_is_older_than_any_two_clocks_explain_is_not_waited_for_again_by_a_new_process() -> None:
    written = format_time(NOW - CLOCK_SKEW - SETTLE)
    assert seconds_left(written, SETTLE, NOW, skew=CLOCK_SKEW, seen_for=0.0) == 0.0
    assert seconds_left("yesterday", SETTLE, NOW, skew=CLOCK_SKEW, seen_for=0.0) == 0.0


@pytest.mark.parametrize("ahead", [-10, -1, 1, 10], ids=lambda minutes: f"{minutes} min")
def test_a_rebuild_is_not_filled_before_every_gateway_writes_both_sides(ahead: int) -> None:
    """Whoever wrote `pending`: documents written meanwhile by its old value would be lost."""
    pending = case.dense(2, at=NOW + ahead * MINUTES)
    live = case.make_collection(case.dense(1), pending=pending)
    facts = case.make_facts(live, model=case.make_model(case.revision(2)))
    tenant = case.foreseen(case.make_tenant(), facts)
    for seen, begins in ((0.0, False), (29.0, False), (30.0, True)):
        plan = plan_tenant(tenant, replace(facts, seen_for={KEY_PENDING: seen}), SKEWED, NOW)
        assert any(isinstance(action, CreateReindexJob) for action in plan.actions) is begins
        assert plan.requeue_after is not None and 0 < plan.requeue_after <= 30


@pytest.mark.parametrize("ahead", [-10, 10], ids=lambda minutes: f"{minutes} min")
def test_nothing_unnamed_is_removed_before_every_gateway_has_let_go_of_it(ahead: int) -> None:
    bound = case.dense(1)
    live = case.make_collection(bound, released=NOW + ahead * MINUTES)
    live = replace(live, dense={**live.dense, "d-s7": 8})
    facts = case.make_facts(live, model=case.make_model(case.revision(1)))
    early = plan_tenant(case.make_tenant(), replace(facts, seen_for={KEY_RELEASED_AT: 29.0}), SKEWED, NOW)
    assert early.actions == ()
    assert early.requeue_after == 1.0
    late = plan_tenant(case.make_tenant(), replace(facts, seen_for={KEY_RELEASED_AT: 30.0}), SKEWED, NOW)
    assert [type(action).__name__ for action in late.actions] == ["RemoveVector"]


@CALM
@given(ahead=APART)
def test_the_side_for_a_rollback_is_kept_for_the_whole_window(ahead: timedelta) -> None:
    """The true end of 72 hours, seen by a clock that is off by up to ten minutes from the one that began them."""
    began = NOW - timedelta(hours=72) + timedelta(seconds=1)
    previous = case.dense(1, at=case.LONG_AGO)
    live = case.make_collection(case.dense(2, at=began), previous=previous)
    facts = case.make_facts(live, model=case.make_model(case.revision(2)))
    plan = plan_tenant(case.make_tenant(), facts, SKEWED, NOW + ahead)
    assert plan.actions == ()
    assert plan.requeue_after is not None and plan.requeue_after >= 1.0
    much_later = plan_tenant(case.make_tenant(), facts, SKEWED, NOW + ahead + 2 * CLOCK_SKEW + MINUTES)
    unnamed = [item for item in much_later.actions if isinstance(item, PatchCollection)]
    assert (KEY_PREVIOUS, None) in unnamed[0].metadata


@CALM
@given(writer=APART, reader=APART)
def test_a_deleted_tenants_data_outlasts_its_window_by_every_clock(writer: timedelta, reader: timedelta) -> None:
    """Deleted by one clock and swept by another, up to ten minutes apart from each other."""
    if abs(writer - reader) > CLOCK_SKEW:
        writer = reader
    gone = case.rebind(
        case.make_collection(case.dense(1)),
        policy="Delete",
        deleted_at=format_time(NOW + writer),
        drop_after=format_time(NOW + writer + timedelta(hours=1)),
    )

    def due(true: datetime) -> bool:
        return bool(tombstones_due("prod", (gone,), true + reader - CLOCK_SKEW))

    assert not due(NOW + timedelta(hours=1) - timedelta(seconds=1))
    assert due(NOW + timedelta(hours=1) + 2 * CLOCK_SKEW)


@CALM
@given(writer=APART, reader=APART)
def test_a_tenant_that_comes_back_within_its_window_has_its_data_by_every_clock(
    writer: timedelta, reader: timedelta
) -> None:
    if abs(writer - reader) > CLOCK_SKEW:
        writer = reader
    gone = case.rebind(
        case.make_collection(case.dense(1)),
        uid="uid-0",
        policy="Delete",
        deleted_at=format_time(NOW + writer),
        drop_after=format_time(NOW + writer + timedelta(hours=72)),
    )
    facts = case.make_facts(gone, cell=case.make_cell({}, (gone.name,)))
    back = NOW + timedelta(hours=72) - timedelta(seconds=1) + reader
    plan = plan_tenant(case.make_tenant(), facts, SKEWED, back)
    assert [item.collection for item in plan.actions if isinstance(item, PatchCollection)] == [gone.name]


ENTRY = AccessEntry(name="storefront", role="Search", secret_name="storefront")
SHORTEST = timedelta(days=1)
"""The least that SEARCHOPS_TOKEN_LIFETIME_DAYS allows."""


@CALM
@given(operator=APART, database=APART, share=st.floats(0, 1))
def test_no_token_is_refused_between_its_writing_and_its_renewal(
    operator: timedelta, database: timedelta, share: float
) -> None:
    """It has no beginning, and its end is far behind its renewal."""
    issued = NOW + operator
    claims = token_claims(ENTRY, case.OWNER, "eu-1", issued=issued, lifetime=SHORTEST)
    assert not {"iat", "nbf"} & set(claims)
    renewed = renew_at(case.OWNER, ENTRY, issued, SHORTEST) - operator
    asked = NOW + (renewed - NOW) * share
    assert claims["exp"] > (asked + database).timestamp()
    assert timedelta(0) < renewed - NOW <= SHORTEST / 2


def test_tokens_of_a_moment_outlast_two_clocks_ten_minutes_apart_each_its_own_way() -> None:
    assert PROBE_TOKEN_LIFETIME > 2 * CLOCK_SKEW
    assert SLACK - RENEW_AFTER > 2 * CLOCK_SKEW, "a worker's token that is not signed anew holds for its whole deadline"


def test_the_settings_default_is_what_the_plans_are_made_for() -> None:
    assert OperatorSettings(artifacts="s3://x").clock_skew == CLOCK_SKEW
