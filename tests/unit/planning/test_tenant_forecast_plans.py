"""`status.plan`: every kind of change foreseen whole, before it starts, as it runs, and gone when the need is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.v1alpha1.search_tenant_status import PlanStatus, RoomStatus
from searchops.planning.binding_state import BindingContext, BindingState
from searchops.planning.rebuild_rates import MeasuredRate
from searchops.planning.tenant_access import inputs_digest
from searchops.planning.tenant_facts import AddVector, CreateCollection
from searchops.planning.tenant_forecast import (
    WHY_ADOPTED,
    WHY_LARGE,
    WHY_SMALL,
    WHY_TIER,
    Need,
    foresee,
)
from unit.planning import tenant_cases as case
from unit.planning.forecast_cases import (
    BASIS,
    GPU_BASIS,
    LIVE,
    NOW,
    RATES,
    SETTINGS,
    expected,
    facts_of,
    plan,
    shown,
    with_plan,
)
from unit.planning.tenant_rebuild_cases import G1, G2, R1, R2, rebuild_status

if TYPE_CHECKING:
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.tenant_facts import TenantFacts

SPEC_CHANGES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "languages": ({"languages": ["de"]}, "analyser 7b95f9c8 → {analyser} (spec.languages)", {}),
    "document": ({"document": "{title}. {brand}"}, "document '{{title}}' → '{{title}}. {{brand}}' (spec.document)", {}),
    "shards": ({"sharding": {"shards": 2}}, "shards 1 → 2 (spec.sharding.shards)", {}),
    "replicas": ({"sharding": {"replicas": 3}}, "replicas 1 → 3 (spec.sharding.replicas)", {"extra_megabytes": 1}),
}


@pytest.mark.parametrize("kind", SPEC_CHANGES)
def test_what_cannot_change_in_place_is_foreseen_before_anything_is_made(kind: str) -> None:
    spec, change, others = SPEC_CHANGES[kind]
    tenant = case.make_tenant(spec)
    analyser = case.lexical(tenant=tenant).analyser_id
    found = plan(tenant, facts_of(LIVE))
    assert (found.actions, found.requeue_after) == ((), 1.0)
    assert found.status is not None
    assert found.status.rebuild is None
    assert found.status.plan == expected(tenant, change.format(analyser=analyser), **others)
    bound = next(item for item in found.status.conditions if item.type == "ModelBound")
    assert (bound.status, bound.reason) == ("False", "RebuildRequired")
    started = plan(with_plan(tenant, found.status.plan), facts_of(LIVE))
    assert isinstance(started.actions[0], CreateCollection)
    assert started.actions[0].design.name == found.status.plan.collection


def test_an_analyser_of_a_newer_version_is_foreseen_like_a_language() -> None:
    older = case.dense(1)
    older = older.model_copy(update={"analyser": older.analyser.model_copy(update={"version": "0"})})
    live = case.make_collection(older, points=1000)
    tenant = case.make_tenant()
    change = f"analyser {older.analyser_id} → {case.dense(1).analyser_id} (spec.languages)"
    assert shown(tenant, facts_of(live)) == expected(tenant, change)


def test_another_space_is_foreseen_as_a_second_vector_that_needs_no_room() -> None:
    tenant = case.make_tenant()
    facts = facts_of(LIVE, model=case.make_model(case.revision(2)))
    words = {
        "seconds_basis": BASIS.replace(R1, f"{R1}, another revision of the model"),
        "gpu_seconds_basis": GPU_BASIS.replace(R1, f"{R1}, another revision of the model"),
    }
    room = RoomStatus(needed=False, fits=True, collections=1, max_collections=100)
    wanted = expected(
        tenant,
        f"revision {R1} → {R2} (vector d-s1 → d-s2)",
        vector="d-s2",
        strategy="NamedVector",
        why=WHY_SMALL,
        revision=R2,
        collection=G1,
        room=room,
        **words,
    )
    assert shown(tenant, facts) == wanted
    started = plan(with_plan(tenant, wanted), facts)
    assert started.actions[0] == AddVector(G1, "d-s2", 8)


def test_a_large_collection_gets_another_generation_and_the_start_follows_what_was_shown() -> None:
    facts = facts_of(replace(LIVE, points=20_000), model=case.make_model(case.revision(2)))
    found = shown(case.make_tenant(), facts)
    assert found is not None
    assert (found.strategy, found.why, found.collection) == ("BlueGreen", WHY_LARGE, G2)
    fewer = replace(facts, collections=(replace(LIVE, points=19_990),))
    started = plan(with_plan(case.make_tenant(), found), fewer)
    assert isinstance(started.actions[0], CreateCollection)
    fewer = replace(facts, collections=(replace(LIVE, points=10_000),))
    again = plan(with_plan(case.make_tenant(), found), fewer)
    assert again.actions == ()
    assert again.status is not None
    assert again.status.plan is not None
    assert again.status.plan.strategy == "NamedVector"


def test_a_first_model_is_foreseen_from_the_lexical_legs_and_the_unknown_is_called_so() -> None:
    live = case.make_collection(case.lexical(), points=0)
    tenant = case.make_tenant()
    wanted = expected(
        tenant,
        f"revision none → {R1} (vector none → d-s1)",
        strategy="NamedVector",
        why=WHY_SMALL,
        collection=G1,
        documents=0,
        seconds=None,
        seconds_basis="unknown: no ReindexJob of this model has finished, and only finished ones are measured",
        gpu_seconds=None,
        gpu_seconds_basis="unknown: no finished ReindexJob of this model has counted its GPU seconds",
        cost=None,
        cost_basis="unknown: so are the GPU seconds",
        extra_megabytes=0,
        room=RoomStatus(needed=False, fits=True, collections=1, max_collections=100),
    )
    assert shown(tenant, facts_of(live, rates=())) == wanted


def test_what_is_mended_in_place_foresees_nothing() -> None:
    """Fields, quotas and profiles change without a rebuild: the payload index is made on the live collection."""
    fields = [*case.FIELDS, {"name": "brand", "type": "keyword", "role": "Filter"}]
    tenant = case.make_tenant({"fields": fields})
    mended = case.make_collection(case.dense(1, tenant=tenant), tenant=tenant, points=1000)
    assert plan(tenant, facts_of(LIVE)).status is None
    assert shown(tenant, facts_of(mended)) is None


@pytest.mark.parametrize("tier", ["Shared", "ShardKey"])
def test_another_tier_is_a_move_into_a_slice_that_takes_no_room(tier: str) -> None:
    tenant = case.make_tenant({"isolation": tier})
    wanted = expected(
        tenant,
        f"isolation Collection → {tier} (spec.isolation)",
        strategy="Move",
        why=WHY_TIER,
        room=RoomStatus(needed=False, fits=True, collections=1, max_collections=100),
    )
    secrets = {
        name: replace(secret, inputs_digest=inputs_digest_of(tenant, name))
        for name, secret in case.secrets_of(tenant).items()
    }
    assert shown(tenant, facts_of(LIVE, secrets=secrets)) == wanted


def inputs_digest_of(tenant: SearchTenant, name: str) -> str:
    """A Secret in order while the old tier still serves."""
    entry = next(entry for entry in tenant.spec.access if entry.secret_name == name)
    return inputs_digest(entry, case.OWNER, case.make_cell(), SETTINGS)


def context_of(tenant: SearchTenant, facts: TenantFacts) -> BindingContext:
    assert facts.cell is not None
    state = BindingState(case.dense(1), None, None)
    return BindingContext(
        tenant, facts, SETTINGS, case.OWNER, facts.cell, facts.collections[0], state, case.PROFILE, NOW
    )


def test_an_adopted_collection_gets_no_vector_more() -> None:
    adopted = replace(LIVE, metadata={**LIVE.metadata, "searchops.dev/adopted": "theirs"})
    found = shown(case.make_tenant(), facts_of(adopted, model=case.make_model(case.revision(2))))
    assert found is not None
    assert (found.strategy, found.why) == ("BlueGreen", WHY_ADOPTED)


# -- paused, no room, running, gone ------------------------------------------------------------------------------


def test_a_paused_tenant_shows_what_would_happen_and_nothing_starts() -> None:
    tenant = case.make_tenant({"languages": ["de"], "paused": True})
    first = plan(tenant, facts_of(LIVE))
    assert (first.actions, first.requeue_after) == ((), None)
    assert first.status is not None
    assert first.status.plan is not None
    assert first.status.plan.state == "Paused"
    again = plan(tenant.model_copy(update={"status": first.status}), facts_of(LIVE))
    assert again == first
    going = case.make_tenant({"languages": ["de"]})
    assert isinstance(plan(with_plan(going, first.status.plan), facts_of(LIVE)).actions[0], CreateCollection)


def test_without_room_on_the_cell_the_numbers_are_said_and_nothing_starts() -> None:
    cell = case.make_cell(
        {case.ALIAS: G1, f"{case.ALIAS}@b": G1}, (G1, "one", "two"), cell=case.registration(capacity=3)
    )
    tenant = case.make_tenant({"languages": ["de"]})
    facts = facts_of(LIVE, cell=cell)
    found = plan(tenant, facts)
    assert (found.actions, found.requeue_after) == ((), 60.0)
    assert found.status is not None
    assert found.status.plan is not None
    assert found.status.plan.state == "NoRoom"
    assert found.status.plan.room == RoomStatus(needed=True, fits=False, collections=3, max_collections=3)
    message = (
        "a rebuild needs room for one more collection, but cell eu-1 holds 3 of 3 collections; raise maxCollections in "
        "its Secret or remove tenants; nothing is started, and the old side serves meanwhile"
    )
    bound = next(item for item in found.status.conditions if item.type == "ModelBound")
    assert (bound.status, bound.reason, bound.message) == ("False", "NoCapacity", message)
    assert plan(tenant.model_copy(update={"status": found.status}), facts) == found
    roomy = replace(facts, cell=replace(cell, registration=case.registration(capacity=4)))
    assert isinstance(plan(with_plan(tenant, found.status.plan), roomy).actions[0], CreateCollection)


@pytest.mark.parametrize(
    ("maps", "files", "fits", "said"),
    [
        (84, 84, True, ""),
        (None, None, True, ""),
        (85, 84, False, " and has its memory maps at 85 % (limit 85 %) and has its open files at 84 % (limit 85 %)"),
        (84, 85, False, " and has its memory maps at 84 % (limit 85 %) and has its open files at 85 % (limit 85 %)"),
        (None, 85, False, " and has its open files at 85 % (limit 85 %)"),
    ],
)
def test_memory_maps_and_open_files_bound_the_room_too(
    maps: int | None, files: int | None, fits: bool, said: str
) -> None:
    cell = case.make_cell({case.ALIAS: G1, f"{case.ALIAS}@b": G1}, (G1,), maps_percent=maps, files_percent=files)
    found = plan(case.make_tenant({"languages": ["de"]}), facts_of(LIVE, cell=cell))
    assert found.status is not None
    assert found.status.plan is not None
    room = found.status.plan.room
    assert (room.fits, room.maps_percent, room.files_percent) == (fits, maps, files)
    bound = next(item for item in found.status.conditions if item.type == "ModelBound")
    assert (bound.reason == "NoCapacity") is not fits
    assert fits or f"holds 1 of {room.max_collections} collections{said}; raise" in bound.message


@pytest.mark.parametrize(("before", "now", "shows"), [(40, 44, 40), (40, 45, 45), (None, 40, 40), (40, None, None)])
def test_open_files_that_hardly_move_are_not_told_anew(before: int | None, now: int | None, shows: int | None) -> None:
    tenant = case.make_tenant({"languages": ["de"], "paused": True})
    cell = case.make_cell({case.ALIAS: G1, f"{case.ALIAS}@b": G1}, (G1,), files_percent=before)
    first = shown(tenant, facts_of(LIVE, cell=cell))
    assert first is not None
    then = shown(with_plan(tenant, first), facts_of(LIVE, cell=replace(cell, files_percent=now)))
    assert then is not None
    assert then.room.files_percent == shows


def test_a_generation_that_is_there_already_needs_no_room() -> None:
    german = case.make_tenant({"languages": ["de"]})
    bound = case.dense(1, tenant=german)
    side = case.make_collection(bound.model_copy(update={"side": f"{case.ALIAS}@a"}), 2, tenant=german, points=0)
    cell = case.make_cell({case.ALIAS: G1, f"{case.ALIAS}@b": G1}, (G1, G2), cell=case.registration(capacity=2))
    found = shown(german, replace(facts_of(LIVE, cell=cell), collections=(LIVE, side)))
    assert found is not None
    assert found.room == RoomStatus(needed=False, fits=True, collections=2, max_collections=2)


def test_once_it_runs_the_plan_is_what_was_foreseen_whatever_is_measured_since() -> None:
    tenant = case.make_tenant()
    model = case.make_model(case.revision(2))
    foreseen = shown(tenant, facts_of(LIVE, model=model))
    assert foreseen is not None
    since = NOW - timedelta(seconds=10)
    filling = case.make_collection(case.dense(1), pending=case.dense(2, at=since), points=5000)
    facts = facts_of(filling, model=model, rates=(MeasuredRate(R2, 9, 1.0),))
    assert shown(with_plan(tenant, foreseen), facts) == foreseen.model_copy(update={"state": "Started"})


def test_a_lost_status_is_foreseen_again_and_the_rebuild_goes_on() -> None:
    since = NOW - timedelta(seconds=10)
    filling = case.make_collection(case.dense(1), pending=case.dense(2, at=since), points=1000)
    facts = facts_of(filling, model=case.make_model(case.revision(2)))
    first = plan(case.make_tenant(), facts)
    assert (first.actions, first.requeue_after) == ((), 1.0)
    assert first.status is not None
    then = shown(case.make_tenant(status=first.status.to_wire()), facts)
    assert then is not None
    assert then.state == "Started"


def test_another_wish_shows_its_plan_in_the_pass_that_cancels_the_former() -> None:
    name = "acme-1"
    former = case.make_tenant({"languages": ["de"]}, status={"rebuild": rebuild_status(name).to_wire()})
    found = plan(former, facts_of(LIVE))
    assert len(found.actions) == 1
    assert found.status is not None
    assert found.status.plan is not None
    assert (found.status.plan.state, found.status.rebuild) == ("Planned", None)


def test_the_plan_goes_with_the_switch_and_with_the_need() -> None:
    foreseen = shown(case.make_tenant({"languages": ["de"]}), facts_of(LIVE))
    for spec in ({}, {"paused": True}):
        assert shown(with_plan(case.make_tenant(spec), foreseen), facts_of(LIVE)) is None


def test_while_the_model_is_silent_the_plan_stays_as_it_was() -> None:
    foreseen = shown(case.make_tenant({"languages": ["de"]}), facts_of(LIVE))
    silent = facts_of(LIVE, model=case.make_model(spoken=False))
    assert shown(with_plan(case.make_tenant({"languages": ["de"]}), foreseen), silent) == foreseen


# -- a fixed point -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": (MeasuredRate(R1, 4, 639.0, 4, 0.005),)},
        {"points": 1009},
        {},
    ],
    ids=["one more job, the same figures", "points by less than 1 %", "nothing"],
)
def test_what_hardly_moves_moves_no_status(changes: dict[str, Any]) -> None:
    tenant = case.make_tenant({"languages": ["de"], "paused": True})
    first = shown(tenant, facts_of(LIVE))
    live = replace(LIVE, points=changes.get("points", 1000))
    facts = facts_of(live, rates=changes.get("rates", RATES))
    assert shown(with_plan(tenant, first), facts) == first


def test_what_moves_is_told_anew() -> None:
    tenant = case.make_tenant({"languages": ["de"], "paused": True})
    first = shown(tenant, facts_of(LIVE))
    moved = shown(with_plan(tenant, first), facts_of(replace(LIVE, points=100_000)))
    assert moved is not None
    assert (moved.documents, moved.seconds, moved.gpu_seconds, moved.extra_megabytes) == (100_000, 190, 500, 4)


@given(
    points=st.integers(0, 10**9),
    dimension=st.one_of(st.none(), st.integers(1, 65_536)),
    paused=st.booleans(),
    rates=st.lists(
        st.builds(
            MeasuredRate,
            st.sampled_from([R1, R2, None]),
            st.integers(1, 5),
            st.floats(1e-6, 1e9),
            st.just(1),
            st.one_of(st.none(), st.floats(1e-9, 1e6)),
        ),
        max_size=3,
    ),
)
def test_a_plan_is_a_fixed_point_its_figures_bounded_below_and_unknown_without_a_rate(
    points: int, dimension: int | None, paused: bool, rates: list[MeasuredRate]
) -> None:
    tenant = case.make_tenant({"languages": ["de"], "paused": paused})
    facts = facts_of(replace(LIVE, points=points), rates=tuple(rates))
    need = Need(case.dense(1, tenant=tenant).model_copy(update={"dimension": dimension}), ("analyser a → b",))
    found = foresee(context_of(tenant, facts), need)
    assert foresee(context_of(with_plan(tenant, found), facts), need) == found
    assert PlanStatus.model_validate(found.to_wire()) == found
    measured = any(rate.revision is not None for rate in rates)
    assert (found.seconds is None) is not measured
    assert found.seconds is None or found.seconds >= 30
    assert found.gpu_seconds is None or (measured and found.gpu_seconds >= 0)
    assert found.cost is None or found.gpu_seconds is not None
    assert found.extra_megabytes >= 4 * points * (dimension or 0) // 1_000_000
