"""Deletion: what goes, what is noted, what is kept, what is waited for; and which tombstones are due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity
from searchops.planning.names import KEY_DELETED_AT, KEY_DROP_AFTER, KEY_POLICY, KEY_WAS_LIVE
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_deletion import deletion_failed, tombstones_due
from searchops.planning.tenant_facts import (
    DeleteAccessSecret,
    DeleteReindexJob,
    EmitEvent,
    PatchCollection,
    RemoveAlias,
    RemoveFinalizer,
    TenantFacts,
    TenantPlan,
)
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.search_tenant import SearchTenant

ALIAS, NOW = case.ALIAS, case.NOW
A, B, G1, G2 = f"{ALIAS}@a", f"{ALIAS}@b", f"{ALIAS}@g1", f"{ALIAS}@g2"
SECRETS = (DeleteAccessSecret("acme-indexer"), DeleteAccessSecret("acme-storefront"))
RETAINED = EmitEvent("Deleted", f"{ALIAS} is unpublished; its data is kept")
DROPPED = EmitEvent("Deleted", f"{ALIAS} is unpublished; its data is dropped 72h from now")
STORED = EmitEvent("Deleted", f"{ALIAS} is unpublished; its data is stored as a snapshot and dropped 72h from now")


def going(policy: str, **changes: Any) -> SearchTenant:
    spec = {"deletionPolicy": policy, **changes.pop("spec", {})}
    return case.make_tenant(spec, deletionTimestamp=case.STAMP, **changes)


def plan(tenant: SearchTenant, facts: TenantFacts) -> TenantPlan:
    return plan_tenant(tenant, facts, case.SETTINGS, NOW)


def note(collection: str, policy: str, *, live: bool = True) -> PatchCollection:
    values: list[tuple[str, str | None]] = [(KEY_DELETED_AT, case.STAMP), (KEY_POLICY, policy)]
    if live:
        values.append((KEY_WAS_LIVE, "true"))
    if policy != "Retain":
        values.append((KEY_DROP_AFTER, format_time(NOW + timedelta(hours=72))))
    return PatchCollection(collection, tuple(sorted(values)), None)


def provisioned() -> TenantFacts:
    return case.make_facts(case.make_collection(case.dense(1)))


@pytest.mark.parametrize(
    ("policy", "spec"),
    [("Retain", {}), ("Delete", {"deletionProtection": True}), ("Snapshot", {"deletionProtection": True})],
)
def test_retain_unpublishes_notes_and_keeps_secrets_and_data(policy: str, spec: dict[str, Any]) -> None:
    """A protected tenant is retained whatever its policy."""
    expected = (RemoveAlias(ALIAS), RemoveAlias(B), note(G1, "Retain"), RETAINED, RemoveFinalizer())
    assert plan(going(policy, spec=spec), provisioned()) == TenantPlan(expected, None)


@pytest.mark.parametrize(("policy", "said"), [("Delete", DROPPED), ("Snapshot", STORED)])
def test_delete_removes_secrets_and_says_when_the_data_may_go(policy: str, said: EmitEvent) -> None:
    expected = (RemoveAlias(ALIAS), RemoveAlias(B), note(G1, policy), *SECRETS, said, RemoveFinalizer())
    assert plan(going(policy), provisioned()) == TenantPlan(expected, None)


@pytest.mark.parametrize("policy", ["Retain", "Snapshot", "Delete"])
def test_what_was_adopted_is_kept_whatever_the_policy(policy: str) -> None:
    adopted = replace(case.rebind(case.make_collection(case.dense(1)), adopted="true"), name="shop-products")
    cell = case.make_cell({ALIAS: "shop-products", B: "shop-products"}, ("shop-products",))
    found = plan(going(policy), case.make_facts(adopted, cell=cell))
    assert found.actions[:3] == (RemoveAlias(ALIAS), RemoveAlias(B), note("shop-products", "Retain"))


def test_a_deletion_that_was_cut_off_after_the_aliases_marks_what_the_status_shows_as_live() -> None:
    first, second = case.make_collection(case.dense(1)), case.make_collection(case.dense(2, 2), 2)
    facts = case.make_facts(first, second, cell=case.make_cell({}, (G1, G2)))
    expected = (note(G1, "Retain", live=False), note(G2, "Retain"), RETAINED, RemoveFinalizer())
    assert plan(going("Retain", status={"collection": G2}), facts) == TenantPlan(expected, None)


def test_a_deletion_mid_rebuild_stops_the_job_and_notes_both_generations() -> None:
    live = case.make_collection(case.dense(1), pending=case.dense(2, 2))
    rebuild = {"reindexJob": "acme-x", "reason": "SpaceChanged", "attempt": 1}
    facts = case.make_facts(live, case.make_collection(case.dense(2, 2), 2))
    expected = (
        DeleteReindexJob("acme-x"),
        RemoveAlias(ALIAS),
        RemoveAlias(A),
        RemoveAlias(B),
        note(G1, "Retain"),
        note(G2, "Retain", live=False),
        RETAINED,
        RemoveFinalizer(),
    )
    assert plan(going("Retain", status={"rebuild": rebuild}), facts) == TenantPlan(expected, None)


def test_a_deletion_that_was_cut_off_goes_on_without_a_new_note() -> None:
    noted = case.rebind(case.make_collection(case.dense(1)), deleted_at=case.STAMP, policy="Delete")
    facts = case.make_facts(noted, cell=case.make_cell({}, (G1,)), secrets={})
    assert plan(going("Delete"), facts) == TenantPlan((DROPPED, RemoveFinalizer()), None)


def test_what_is_not_ours_is_neither_unpublished_nor_noted() -> None:
    foreign = case.rebind(case.make_collection(case.dense(1)), uid="the-survivor")
    secrets = {name: replace(item, owner_uid="the-survivor") for name, item in case.secrets_of().items()}
    facts = case.make_facts(foreign, secrets=secrets)
    assert plan(going("Delete"), facts) == TenantPlan((DROPPED, RemoveFinalizer()), None)


WAITS = 'remove its Secret or annotate the tenant with searchops.dev/abandon: "true"'
SILENT = case.make_cell({ALIAS: G1}, (G1,), reachable=False, error="refused")
STRANGE = case.make_cell({ALIAS: G1, B: G1}, (G1,), identity=CellIdentity("prod", "eu-1", "copy"))
NAMELESS = case.make_cell({ALIAS: G1, B: G1}, (G1,), identity=None)


@pytest.mark.parametrize(
    ("cell", "trouble"),
    [
        (SILENT, "which does not answer (refused)"),
        (
            STRANGE,
            "which says it is cell 'eu-1' of fleet 'prod' in cluster copy, wanted 'eu-1', 'prod', cluster-1",
        ),
        (NAMELESS, "which says it is no identity, wanted 'eu-1', 'prod', cluster-1"),
    ],
)
def test_a_cell_that_may_not_be_written_is_waited_for_unless_abandoned(cell: Any, trouble: str) -> None:
    live = case.make_collection(case.dense(1))
    facts = case.make_facts(live, cell=cell)
    message = f"deletion waits for cell eu-1, {trouble}; where it is gone for good, {WAITS}"
    expected = case.unready_status("Deleting", message, phase="Deleting")
    assert plan(going("Delete"), facts) == TenantPlan((), expected, 10.0)
    annotations = {"searchops.dev/cell": "eu-1", "searchops.dev/abandon": "true"}
    given_up = plan(going("Delete", annotations=annotations), facts)
    said = f"{ALIAS} is given up (searchops.dev/abandon): its cell was not asked, and has it as it was"
    assert given_up == TenantPlan((*SECRETS, EmitEvent("Deleted", said), RemoveFinalizer()), None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "cell eu-1 answered 503 to describe demo.shop.acme@g1",
            "deletion waits for cell eu-1, which cannot be read or written just now (cell eu-1 answered 503 to "
            f"describe demo.shop.acme@g1); where it is gone for good, {WAITS}",
        ),
        ("GET /api/v1/secrets: no answer", "deletion waits: GET /api/v1/secrets: no answer; it is tried again"),
    ],
)
def test_a_deletion_whose_pass_failed_says_what_it_waits_for_and_keeps_its_phase(error: str, message: str) -> None:
    found = deletion_failed(going("Delete"), "eu-1", error, NOW)
    assert found == case.unready_status("Deleting", message, phase="Deleting")


def test_an_unclaimed_cell_without_our_collections_holds_nobody_back() -> None:
    facts = case.make_facts(cell=case.make_cell(identity=None), secrets={})
    assert plan(going("Delete"), facts) == TenantPlan((DROPPED, RemoveFinalizer()), None)


def test_the_finalizer_lets_go_when_the_cells_secret_is_gone() -> None:
    facts = replace(provisioned(), cell=None, cells=(), collections=(), secrets={})
    assert plan(going("Delete"), facts) == TenantPlan((DROPPED, RemoveFinalizer()), None)


def test_deletion_comes_before_everything_else_even_an_unsupported_field() -> None:
    found = plan(going("Retain", spec={"isolation": "Shared", "paused": True}), provisioned())
    assert found.actions[-1] == RemoveFinalizer()


# -- tombstones --------------------------------------------------------------------------------------------------


def tombstone(**changes: str | None) -> Any:
    made = case.make_collection(case.dense(1))
    values: dict[str, str | None] = {
        "deleted_at": format_time(NOW - timedelta(hours=73)),
        "drop_after": format_time(NOW - timedelta(hours=1)),
        "policy": "Delete",
    }
    return case.rebind(made, **{**values, **changes})


def test_a_tombstone_past_its_time_is_due() -> None:
    assert tombstones_due("prod", (tombstone(),), NOW) == (tombstone(),)


@pytest.mark.parametrize(
    "changes",
    [
        {"deleted_at": None},
        {"drop_after": None},
        {"drop_after": "soon"},
        {"drop_after": format_time(NOW + timedelta(seconds=1))},
        {"policy": "Retain"},
        {"policy": None},
        {"fleet": "other"},
        {"fleet": None},
        {"name": None},
        {"namespace": None},
        {"binding": None},
        {"adopted": "true"},
    ],
)
def test_anything_that_is_not_plainly_a_due_tombstone_of_this_fleet_stays(changes: dict[str, str | None]) -> None:
    assert tombstones_due("prod", (tombstone(**changes),), NOW) == ()


@given(hours=st.integers(0, 1000), asked=st.integers(-1000, 1000))
def test_a_tombstone_is_never_due_before_its_time(hours: int, asked: int) -> None:
    after = NOW + timedelta(hours=hours)
    due = tombstones_due("prod", (tombstone(drop_after=format_time(after)),), NOW + timedelta(hours=asked))
    assert bool(due) is (asked >= hours)
