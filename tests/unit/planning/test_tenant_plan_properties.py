"""With random facts: a plan never drops, overwrites or re-points what is not ours; done twice it changes nothing."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import get_args

from hypothesis import HealthCheck, given, settings

from searchops.planning.names import KEY_DELETED_AT
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_facts import (
    AddFinalizer,
    CreateCollection,
    DeleteAccessSecret,
    DeleteReindexJob,
    GrantTokens,
    PointAlias,
    PrepareRegister,
    RemoveFinalizer,
    RevokeTokens,
    StartTrial,
    StopTrial,
    TenantAction,
    WriteAccessSecret,
)
from unit.planning import tenant_cases as case
from unit.planning.tenant_random_world import ALIAS, DDL, World, worlds

CHANGES = (*DDL, WriteAccessSecret, DeleteAccessSecret)
RUNS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RUNS
@given(world=worlds())
def test_a_plan_touches_nothing_that_is_not_ours_and_twice_is_as_once(world: World) -> None:
    before = {name: item for name, item in world.collections.items() if not world.owned(name)}
    plan = plan_tenant(world.tenant, world.seen(), world.settings, case.NOW)
    world.apply(plan.actions)
    assert world.wrongs == []
    for name, item in before.items():
        assert world.collections[name] == item or world.owned(name), f"{name} was changed and is not ours"
    once = copy.deepcopy(world.picture())
    world.apply(plan.actions)
    assert world.picture() == once
    assert world.wrongs == []


@RUNS
@given(world=worlds())
def test_passes_one_after_another_never_lose_a_collection_that_is_not_ours_and_come_to_an_end(world: World) -> None:
    points = {name: item.points for name, item in world.collections.items()}
    mine = {name for name in points if world.owned(name)}
    now = case.NOW
    for _ in range(14):
        plan = plan_tenant(world.tenant, world.seen(), world.settings, now)
        shown = world.follow(plan)
        assert world.wrongs == []
        if RemoveFinalizer() in plan.actions:
            break
        if not shown and not any(isinstance(action, DDL) for action in plan.actions):
            break
        now += timedelta(seconds=31)
    else:
        raise AssertionError(f"no end: {plan.actions}")
    assert {name for name in points if name not in world.collections} <= mine
    if world.tenant.metadata.deletion_timestamp is not None:
        assert {name: world.collections[name].points for name in points} == points, "a deletion drops nothing itself"


@RUNS
@given(world=worlds())
def test_where_nothing_is_left_to_do_a_second_plan_is_the_first_and_changes_nothing(world: World) -> None:
    now = case.NOW
    for _ in range(20):
        plan = plan_tenant(world.tenant, world.seen(), world.settings, now)
        shown = world.follow(plan)
        assert world.wrongs == []
        if RemoveFinalizer() in plan.actions:
            break
        if not shown and not any(isinstance(action, CHANGES) for action in plan.actions):
            break
        now += timedelta(seconds=31)
    before = copy.deepcopy(world.picture())
    first = plan_tenant(world.tenant, world.seen(), world.settings, now)
    world.apply(first.actions)
    if RemoveFinalizer() not in first.actions:
        assert not [action for action in first.actions if isinstance(action, CHANGES)]
        assert plan_tenant(world.tenant, world.seen(), world.settings, now) == first
        assert world.picture() == before


@RUNS
@given(world=worlds())
def test_a_secret_that_is_not_this_tenants_is_never_written_over_nor_deleted(world: World) -> None:
    foreign = {name: item for name, item in world.secrets.items() if item.owner_uid == "uid-a" or item.type == "Opaque"}
    for _ in range(3):
        plan = plan_tenant(world.tenant, world.seen(), world.settings, case.NOW)
        world.follow(plan)
        assert world.wrongs == []
    assert {name: world.secrets.get(name) for name in foreign} == foreign


def test_the_random_worlds_bring_forth_every_action_that_a_plan_has() -> None:
    """What no world asks for is proved of nothing: so each kind is seen."""
    seen: Counter[str] = Counter()

    @settings(RUNS, max_examples=400, derandomize=True, database=None)
    @given(world=worlds())
    def plans(world: World) -> None:
        now = case.NOW
        for _ in range(5):
            plan = plan_tenant(world.tenant, world.seen(), world.settings, now)
            seen.update(type(action).__name__ for action in plan.actions)
            world.follow(plan)
            now += timedelta(seconds=31)

    plans()
    elsewhere = {AddFinalizer, PrepareRegister, GrantTokens, RevokeTokens, DeleteReindexJob, StartTrial, StopTrial}
    wanted = {kind.__name__ for kind in get_args(TenantAction) if kind not in elsewhere}
    assert {name for name in wanted if not seen[name]} == set()


@RUNS
@given(world=worlds())
def test_what_a_deletion_leaves_is_never_published_and_always_noted(world: World) -> None:
    world.tenant = world.tenant.model_copy(
        update={"metadata": world.tenant.metadata.model_copy(update={"deletion_timestamp": case.STAMP})}
    )
    plan = plan_tenant(world.tenant, world.seen(), world.settings, case.NOW)
    seen = {item.name for item in world.seen().collections}
    if RemoveFinalizer() not in plan.actions:
        assert plan.actions == ()
        return
    world.apply(plan.actions)
    reachable = world.cell.reachable
    for name, item in world.collections.items():
        if reachable and name in seen and world.owned(name):
            assert KEY_DELETED_AT in item.metadata
            assert world.aliases.get(ALIAS) != name


@RUNS
@given(world=worlds())
def test_nothing_empty_is_published_while_data_of_ours_is_there(world: World) -> None:
    """Whatever was lost (status, alias, annotation of adoption): a tenant with data is never given an empty side."""
    spec = world.tenant.spec.model_copy(update={"languages": ("en",)})
    world.tenant = world.tenant.model_copy(update={"spec": spec})
    world.facts = replace(world.facts, model=case.make_model())
    plan = plan_tenant(world.tenant, world.seen(), world.settings, case.NOW)
    created = {action.design.name for action in plan.actions if isinstance(action, CreateCollection)}
    pointed = {action.collection for action in plan.actions if isinstance(action, PointAlias) and action.alias == ALIAS}
    if pointed & created:
        assert not [name for name, item in world.collections.items() if world.owned(name) and name.startswith(ALIAS)]
