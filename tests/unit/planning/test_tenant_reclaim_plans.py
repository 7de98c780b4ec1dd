"""Taking data back: what is taken, in which order, and what never is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity
from searchops.planning.names import (
    KEY_DELETED_AT,
    KEY_DROP_AFTER,
    KEY_FORMER_UID,
    KEY_NAMESPACE_UID,
    KEY_POLICY,
    KEY_UID,
    KEY_WAS_LIVE,
)
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_facts import (
    AddFinalizer,
    CreateCollection,
    EmitEvent,
    PatchCollection,
    PointAlias,
    TenantFacts,
    TenantPlan,
)
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState

ALIAS, NOW = case.ALIAS, case.NOW
A, B, G1, G2 = f"{ALIAS}@a", f"{ALIAS}@b", f"{ALIAS}@g1", f"{ALIAS}@g2"
FLEET = replace(case.SETTINGS, reclaim="Fleet")


def plan(tenant: Any, facts: TenantFacts, settings: Any = case.SETTINGS) -> TenantPlan:
    return plan_tenant(tenant, facts, settings, NOW)


def left(generation: int = 1, *, hours: float = 1, **values: str | None) -> CollectionState:
    """What a former object of this name left: deleted so long ago, retained."""
    stamp = format_time(NOW - timedelta(hours=hours))
    note = {"uid": "uid-0", "deleted_at": stamp, "policy": "Retain", **values}
    return case.rebind(case.make_collection(case.dense(1, generation), generation), **note)


def found(*collections: CollectionState, aliases: dict[str, str] | None = None) -> TenantFacts:
    cell = case.make_cell(aliases or {}, tuple(item.name for item in collections))
    return case.make_facts(*collections, cell=cell)


def take(name: str, former: str | None = "uid-0") -> PatchCollection:
    values: dict[str, str | None] = {
        KEY_DELETED_AT: None,
        KEY_DROP_AFTER: None,
        KEY_POLICY: None,
        KEY_UID: "uid-1",
        KEY_NAMESPACE_UID: "ns-uid",
    }
    if former is not None:
        values[KEY_FORMER_UID] = former
    return PatchCollection(name, tuple(sorted(values.items())), None)


def told(*names: str) -> EmitEvent:
    return EmitEvent("Reclaimed", f"{', '.join(names)} on cell eu-1 taken back with their data")


def test_what_was_retained_is_taken_back_by_one_patch_and_nothing_else_in_that_pass() -> None:
    assert plan(case.make_tenant(), found(left())) == TenantPlan((take(G1), told(G1)), None, 0.0)


@pytest.mark.parametrize("policy", ["Delete", "Snapshot"])
def test_so_is_what_is_to_be_dropped_as_long_as_it_was_promised(policy: str) -> None:
    tenant = case.make_tenant({"undeleteWindow": "1h"})
    for hours, back in ((-1, False), (0, True), (1, True)):
        item = left(hours=5, policy=policy, drop_after=format_time(NOW + timedelta(hours=hours)))
        assert (plan(tenant, found(item)).actions[0] == take(G1)) is back


@pytest.mark.parametrize(("hours", "back"), [(71.9, True), (72, True), (72.1, False)])
def test_the_window_ends(hours: float, *, back: bool) -> None:
    actions = plan(case.make_tenant(), found(left(hours=hours))).actions
    assert isinstance(actions[0], PatchCollection if back else CreateCollection)
    assert back or actions[0] == CreateCollection(case.design_of(case.lexical(2, at=NOW), 2))


def test_what_was_left_without_a_note_is_taken_back_at_any_time_alias_and_all() -> None:
    item = case.rebind(case.make_collection(case.dense(1)), uid="uid-0")
    expected = TenantPlan((take(G1), told(G1)), None, 0.0)
    assert plan(case.make_tenant(), found(item, aliases={ALIAS: G1, B: G1})) == expected
    assert plan(case.make_tenant(), found(item)) == expected


def test_an_object_that_is_back_with_its_uid_and_status_takes_its_data_however_late() -> None:
    tenant = case.make_tenant(status={"collection": G1, "cell": "eu-1"})
    item = left(hours=1000, uid="uid-1", policy="Delete", drop_after=case.STAMP)
    assert plan(tenant, found(item)) == TenantPlan((take(G1, None), told(G1)), None, 0.0)


@pytest.mark.parametrize(
    "values",
    [{"namespace_uid": "ns-before"}, {"namespace": "other"}, {"name": "other"}, {"fleet": "dev"}, {"uid": None}],
)
def test_what_another_left_is_not_taken(values: dict[str, Any]) -> None:
    actions = plan(case.make_tenant(), found(left(**values))).actions
    assert actions[0] == CreateCollection(case.design_of(case.lexical(2, at=NOW), 2))


def test_in_disaster_recovery_the_namespace_need_not_be_the_same_one() -> None:
    facts = found(left(namespace_uid="ns-before"))
    assert plan(case.make_tenant(), facts, FLEET) == TenantPlan((take(G1), told(G1)), None, 0.0)
    others: tuple[dict[str, Any], ...] = ({"namespace": "other"}, {"name": "other"}, {"fleet": "dev"})
    for values in others:
        assert isinstance(plan(case.make_tenant(), found(left(**values)), FLEET).actions[0], CreateCollection)


def test_both_generations_are_taken_and_a_process_that_died_between_them_goes_on() -> None:
    first, second = left(), left(2)
    both = plan(case.make_tenant(), found(first, second))
    assert both == TenantPlan((take(G1), take(G2), told(G1, G2)), None, 0.0)
    done = case.rebind(case.make_collection(case.dense(1)), former_uid="uid-0")
    for hours in (1, 1000):  # the window may have ended meanwhile
        rest = plan(case.make_tenant(), found(done, left(2, hours=hours)))
        assert rest == TenantPlan((take(G2), told(G2)), None, 0.0)


def test_two_former_owners_are_never_mixed_the_later_one_is_taken() -> None:
    older, newer = left(hours=9), left(2, hours=3, uid="uid-a")
    assert plan(case.make_tenant(), found(older, newer)).actions[0] == take(G2, "uid-a")
    mine = case.rebind(case.make_collection(case.dense(1, 2), 2), former_uid="uid-a")
    facts = case.make_facts(mine, older, live=2, model=case.make_model(case.revision(1)))
    after = plan(case.make_tenant(), facts)
    assert not [action for action in after.actions if getattr(action, "collection", "") == G1]


def test_a_tenant_with_data_of_its_own_takes_nothing() -> None:
    mine = case.make_collection(case.dense(1, 2), 2)
    facts = case.make_facts(mine, left(), live=2, sides=False, model=case.make_model(case.revision(1)))
    assert plan(case.make_tenant(), facts) == TenantPlan((PointAlias(A, G2),), None, 0.0)


def test_a_paused_tenant_takes_nothing_back_and_says_so() -> None:
    status = plan(case.make_tenant({"paused": True}), found(left())).status
    assert status is not None
    assert [(item.reason, item.message) for item in status.conditions] == [
        ("Paused", "spec.paused: its data is not taken back, and nothing is made until it is lifted")
    ]


def test_nothing_is_taken_on_a_cell_that_is_not_ours() -> None:
    facts = found(left())
    for cell in (
        replace(facts.cells[0], identity=CellIdentity("prod", "eu-1", "copy")),
        replace(facts.cells[0], reachable=False),
    ):
        assert plan(case.make_tenant(), replace(facts, cell=cell)).actions == ()


# -- afterwards --------------------------------------------------------------------------------------------------


def taken(generation: int = 1, **values: str | None) -> CollectionState:
    made = case.make_collection(case.dense(1, generation), generation)
    return case.rebind(made, **{"former_uid": "uid-0", **values})


def test_after_the_taking_the_aliases_come_back_the_public_one_last() -> None:
    assert plan(case.make_tenant(), found(taken())).actions == (PointAlias(B, G1), PointAlias(ALIAS, G1))


def test_the_alias_goes_back_to_what_the_deletion_marked() -> None:
    first, second = taken(was_live="true"), taken(2)
    actions = plan(case.make_tenant(), found(first, second)).actions
    assert actions == (PointAlias(B, G1), PointAlias(ALIAS, G1))


def test_the_mark_is_removed_once_the_alias_stands() -> None:
    facts = case.make_facts(taken(was_live="true"), model=case.make_model(case.revision(1)))
    expected = TenantPlan((PatchCollection(G1, ((KEY_WAS_LIVE, None),), None),), None, 0.0)
    assert plan(case.make_tenant(), facts) == expected


def test_a_side_that_the_live_generation_names_comes_back_before_anything_is_written_to_it() -> None:
    live = case.make_collection(case.dense(2, 2), 2, previous=case.dense(1))
    facts = found(case.make_collection(case.dense(1)), live)
    actions = plan(case.make_tenant(), facts).actions
    assert actions == (PointAlias(A, G2), PointAlias(B, G1), PointAlias(ALIAS, G2))
    lost = case.make_facts(live, case.make_collection(case.dense(1)), cell=case.make_cell({ALIAS: G2, A: G2}, (G1, G2)))
    assert plan(case.make_tenant(), lost).actions == (PointAlias(B, G1),)


def test_after_a_switch_back_the_alias_goes_to_the_generation_that_was_bound_last() -> None:
    back = case.make_collection(case.dense(1, at=NOW), previous=case.dense(2, 2))
    other = case.make_collection(case.dense(2, 2), 2, previous=case.dense(1))
    assert plan(case.make_tenant(), found(back, other)).actions[-1] == PointAlias(ALIAS, G1)


def test_a_generation_that_was_never_served_is_never_published() -> None:
    """A rebuild was cancelled: nothing names the half-filled generation, and it is younger than what was served."""
    live, half = case.make_collection(case.dense(1)), case.make_collection(case.dense(2, 2, at=NOW), 2)
    assert plan(case.make_tenant(), found(live, half)).actions[-1] == PointAlias(ALIAS, G1)


# -- where -------------------------------------------------------------------------------------------------------


def placing(**held: tuple[CollectionState, ...]) -> TenantFacts:
    cells = tuple(case.make_cell(cell=case.registration(name)) for name in ("eu-1", "eu-2", "eu-3"))
    by_cell = {name.replace("_", "-"): items for name, items in held.items()}
    return replace(case.make_facts(cell=cells[0]), cell=None, cells=cells, held=by_cell)


def new() -> Any:
    return case.make_tenant({"placement": {"cellSelector": {"matchLabels": {"a": "b"}}}}, annotations={}, finalizers=[])


def test_the_cell_with_the_data_is_the_tenants_cell_whatever_its_selector_says() -> None:
    assert plan(new(), placing(eu_3=(left(),))) == TenantPlan((AddFinalizer("eu-3"),), None, 0.0)
    later = placing(eu_2=(left(hours=9),), eu_3=(left(2, hours=1),))
    assert plan(new(), later) == TenantPlan((AddFinalizer("eu-3"),), None, 0.0)
    own = placing(eu_2=(taken(),), eu_3=(left(hours=1),))
    assert plan(new(), own) == TenantPlan((AddFinalizer("eu-2"),), None, 0.0)


@pytest.mark.parametrize("values", [{"namespace_uid": "ns-before"}, {"hours": 100}, {"name": "other"}])
def test_data_that_may_not_be_taken_draws_nobody(values: dict[str, Any]) -> None:
    assert plan(new(), placing(eu_3=(left(**values),))).actions == ()


def test_a_strangers_cell_draws_nobody() -> None:
    facts = placing(eu_3=(left(),))
    strange = replace(facts.cells[2], identity=CellIdentity("prod", "eu-3", "copy"))
    assert plan(new(), replace(facts, cells=(*facts.cells[:2], strange))).actions == ()
