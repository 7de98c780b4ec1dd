"""Whole plans from nothing to a published collection, and everything that stands in the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from searchops.api.observed import CellIdentity, SearchProbe
from searchops.planning.names import FINALIZER
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_facts import (
    AddFinalizer,
    ClaimCell,
    CreateCollection,
    CreateIndex,
    EmitEvent,
    PatchCollection,
    PointAlias,
    TenantFacts,
    TenantPlan,
    WriteAccessSecret,
)
from unit.planning import tenant_cases as case

ALIAS, NOW, SETTINGS = case.ALIAS, case.NOW, case.SETTINGS


def plan(tenant: Any, facts: TenantFacts) -> TenantPlan:
    return plan_tenant(tenant, facts, SETTINGS, NOW)


def test_placement_and_finalizer_are_one_write_before_anything_else() -> None:
    tenant = case.make_tenant(annotations={}, finalizers=[])
    facts = case.make_facts(cell=case.make_cell())
    assert plan(tenant, replace(facts, cell=None)) == TenantPlan((AddFinalizer("eu-1"),), None, 0.0)


def test_an_annotated_cell_is_kept_when_only_the_finalizer_is_missing() -> None:
    tenant = case.make_tenant(annotations={"searchops.dev/cell": "us-9"}, finalizers=[])
    assert plan(tenant, case.make_facts(cell=case.make_cell())) == TenantPlan((AddFinalizer("us-9"),), None, 0.0)


def test_the_status_remembers_the_cell_where_the_annotation_is_lost() -> None:
    tenant = case.make_tenant(annotations={}, status={"cell": "us-9"})
    assert plan(tenant, case.make_facts(cell=case.make_cell())) == TenantPlan((AddFinalizer("us-9"),), None, 0.0)


def test_nothing_is_placed_while_a_matching_cell_is_silent() -> None:
    silent = case.make_cell(cell=case.registration("eu-2"), reachable=False, error="timed out")
    facts = replace(case.make_facts(cell=case.make_cell()), cell=None, cells=(case.make_cell(), silent))
    message = (
        f"cell eu-2 has not answered (timed out); nothing is placed until it does, because the alias {ALIAS} may be "
        "there"
    )
    others = {"Placed": ("False", "CellUnreachable", message)}
    expected = case.unready_status("CellUnreachable", message, phase="Pending", others=others)
    assert plan(case.make_tenant(annotations={}, finalizers=[]), facts) == TenantPlan((), expected, 30.0)


def test_an_unclaimed_cell_is_claimed_before_any_ddl() -> None:
    facts = case.make_facts(cell=case.make_cell(identity=None))
    claim = ClaimCell(CellIdentity("prod", "eu-1", "cluster-1"))
    assert plan(case.make_tenant(), facts) == TenantPlan((claim,), None, 0.0)


def test_provisioning_is_collection_then_indexes_then_side_then_alias() -> None:
    name = f"{ALIAS}@g1"
    design = case.design_of(case.lexical(at=NOW))
    expected = (
        CreateCollection(design),
        CreateIndex(name, "_deleted", "integer"),
        CreateIndex(name, "_missed", "keyword"),
        CreateIndex(name, "_version", "integer"),
        CreateIndex(name, "price", "float"),
        CreateIndex(name, "sku", "keyword"),
        PointAlias(f"{ALIAS}@b", name),
        PointAlias(ALIAS, name),
        EmitEvent("Provisioned", f"{name} on cell eu-1"),
    )
    assert design.dense == ()
    assert plan(case.make_tenant(), case.make_facts()) == TenantPlan(expected, None, 0.0)


def test_after_a_crash_between_create_and_alias_only_what_is_missing_is_made() -> None:
    made = case.make_collection(
        case.lexical(), indexes={"_deleted": "integer", "_missed": "keyword", "_version": "integer"}
    )
    facts = case.make_facts(made, cell=case.make_cell({}, (made.name,)))
    expected = (
        CreateIndex(made.name, "price", "float"),
        CreateIndex(made.name, "sku", "keyword"),
        PointAlias(f"{ALIAS}@b", made.name),
        PointAlias(ALIAS, made.name),
    )
    assert plan(case.make_tenant(), facts) == TenantPlan(expected, None, 0.0)


def test_a_lost_alias_goes_back_to_the_live_generation_never_to_one_that_is_being_filled() -> None:
    live = case.make_collection(case.dense(1), pending=case.dense(2, 2))
    filling = case.make_collection(case.dense(2, 2), 2)
    facts = case.make_facts(live, filling, cell=case.make_cell({}, (live.name, filling.name)))
    sides = (PointAlias(f"{ALIAS}@b", live.name), PointAlias(f"{ALIAS}@a", filling.name))
    expected = TenantPlan((*sides, PointAlias(ALIAS, live.name)), None, 0.0)
    assert plan(case.make_tenant(), facts) == expected
    assert plan(case.make_tenant(status={"collection": live.name}), facts) == expected


def test_a_lost_alias_goes_to_the_newer_generation_once_the_switch_was_written() -> None:
    before = case.make_collection(case.dense(1), pending=case.dense(2, 2))
    after = case.make_collection(case.dense(2, 2), 2, previous=case.dense(1))
    facts = case.make_facts(before, after, cell=case.make_cell({}, (before.name, after.name)))
    sides = (PointAlias(f"{ALIAS}@a", after.name), PointAlias(f"{ALIAS}@b", before.name))
    expected = TenantPlan((*sides, PointAlias(ALIAS, after.name)), None, 0.0)
    assert plan(case.make_tenant(), facts) == expected


@pytest.mark.parametrize("reason", ["Provisioned", "CollectionLost", "CellUnreachable"])
def test_a_collection_that_is_gone_is_never_created_empty(reason: str) -> None:
    """Neither on the first pass nor after the loss was said, nor after an outage in between."""
    truth = {"Provisioned": "True", "CollectionLost": "False", "CellUnreachable": "Unknown"}[reason]
    condition = {
        "type": "Provisioned",
        "status": truth,
        "reason": reason,
        "observedGeneration": 3,
        "lastTransitionTime": case.STAMP,
    }
    status = {"collection": f"{ALIAS}@g1", "cell": "eu-1", "conditions": [condition]}
    tenant = case.make_tenant(status=status)
    message = (
        f"collection {ALIAS}@g1 was there and is gone from cell eu-1; restore it from a snapshot, or delete and "
        "re-create the tenant to start empty; nothing is created by itself"
    )
    found = {name: ("False", "CollectionLost", message) for name in ("Provisioned", "Ready")}
    expected = tenant.status.model_copy(
        update={"observed_generation": 3, "phase": "Degraded", "conditions": case.conditions_of(found)}
    )
    assert plan(tenant, case.make_facts()) == TenantPlan((), expected, 60.0)


def test_a_strangers_generation_is_passed_over_and_left_alone() -> None:
    stranger = case.make_collection(case.lexical())
    stranger = case.rebind(stranger, uid="uid-before", deleted_at=case.STAMP, namespace_uid="ns-before")
    facts = case.make_facts(stranger, cell=case.make_cell({}, (stranger.name,)))
    first = plan(case.make_tenant(), facts).actions
    assert first[0] == CreateCollection(case.design_of(case.lexical(2, at=NOW), 2))
    assert first[-2:-1] == (PointAlias(ALIAS, f"{ALIAS}@g2"),)


@pytest.mark.parametrize("name", [ALIAS, f"{ALIAS}@a", f"{ALIAS}@b"])
@pytest.mark.parametrize("described", [True, False])
def test_a_foreign_alias_is_a_conflict_and_nothing_is_touched(name: str, *, described: bool) -> None:
    foreign = case.rebind(case.make_collection(case.lexical(7), 7), uid="somebody-else", namespace_uid="another")
    cell = case.make_cell({name: foreign.name}, (foreign.name,))
    message = (
        f"alias {name} on cell eu-1 points to {foreign.name}, whose metadata is not this tenant's; it is neither "
        "written, re-pointed nor dropped; rename the tenant or remove that alias by hand"
    )
    expected = case.unready_status("Conflict", message, phase="Degraded")
    facts = case.make_facts(cell=cell, collections=(foreign,)) if described else case.make_facts(cell=cell)
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected, 60.0)


def test_a_binding_that_cannot_be_read_is_never_overwritten() -> None:
    broken = case.rebind(case.make_collection(case.lexical()), binding="{")
    found = plan(case.make_tenant(), case.make_facts(broken))
    assert found.actions == ()
    assert found.status is not None
    assert [item.reason for item in found.status.conditions] == ["Conflict"]


def test_a_cell_of_another_cluster_is_not_written() -> None:
    cell = case.make_cell(identity=CellIdentity("prod", "eu-1", "cluster-2"))
    message = (
        "cell eu-1 says it is cell 'eu-1' of fleet 'prod' in cluster cluster-2, wanted 'eu-1', 'prod', cluster-1; "
        "correct the URL in the cell's Secret; nothing is written"
    )
    expected = case.unready_status("CellIdentityMismatch", message, phase="Degraded")
    assert plan(case.make_tenant(), case.make_facts(cell=cell)) == TenantPlan((), expected, 60.0)


def test_a_silent_cell_makes_unknown_never_lost() -> None:
    cell = case.make_cell(reachable=False, error="refused")
    message = "cell eu-1 does not answer (refused); nothing is changed until it does"
    others = {
        "Placed": ("True", "Placed", "on cell eu-1"),
        "Provisioned": ("Unknown", "CellUnreachable", message),
        "Searchable": ("Unknown", "CellUnreachable", message),
    }
    expected = case.unready_status("CellUnreachable", message, phase="Degraded", others=others)
    assert plan(case.make_tenant(), case.make_facts(cell=cell)) == TenantPlan((), expected, 10.0)


def test_a_weak_cell_key_stops_everything() -> None:
    cell = case.make_cell(cell=case.registration(api_key="k" * 31))
    message = (
        "the apiKey of cell eu-1 is shorter than 32 bytes: every tenant would hold a MAC of it; set a longer one on "
        "the server and in the cell's Secret"
    )
    expected = case.unready_status("CellKeyTooWeak", message, phase="Degraded")
    assert plan(case.make_tenant(), case.make_facts(cell=cell)) == TenantPlan((), expected, 60.0)


def test_an_unregistered_cell_is_said() -> None:
    facts = replace(case.make_facts(), cell=None, cells=())
    message = "cell 'eu-1' is not registered any more; restore its Secret, or delete the tenant to give it up"
    expected = case.unready_status("CellMissing", message, phase="Degraded")
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected, 30.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"isolation": "Shared", "backup": {"schedule": "0 3 * * *"}},
            "spec.backup with spec.isolation Shared is not supported: snapshots are of whole collections; remove it",
        ),
        (
            {"isolation": "ShardKey", "deletionPolicy": "Snapshot"},
            "spec.deletionPolicy Snapshot with spec.isolation ShardKey is not supported: snapshots are of whole "
            "collections; use Retain or Delete",
        ),
        (
            {"isolation": "Shared", "sharding": {"shards": 2}},
            "spec.sharding.shards 2 with spec.isolation Shared is not supported: remove it",
        ),
        (
            {"isolation": "Shared", "access": [{"name": "w", "role": "Index", "secretName": "w", "direct": True}]},
            "spec.access: direct with spec.isolation Shared is not supported: only the gateway writes to a shared "
            "collection; remove it",
        ),
    ],
)
def test_a_field_that_is_not_served_is_named(spec: dict[str, Any], said: str) -> None:
    expected = case.unready_status("NotSupported", f"{said}; nothing was changed", phase="NotSupported")
    assert plan(case.make_tenant(spec), case.make_facts()) == TenantPlan((), expected)


def test_an_unknown_profile_is_an_invalid_spec() -> None:
    found = plan(case.make_tenant({"retrieval": {"profile": "mine"}}), case.make_facts())
    message = "spec.retrieval.profile 'mine' is not built in; name one or give it inline"
    assert found == TenantPlan((), case.unready_status("InvalidSpec", message, phase="InvalidSpec"))


@pytest.mark.parametrize(
    ("tenant", "facts", "what"),
    [
        (
            case.make_tenant({"paused": True}, annotations={}, finalizers=[]),
            replace(case.make_facts(cell=case.make_cell()), cell=None),
            "the tenant is not placed",
        ),
        (
            case.make_tenant({"paused": True}),
            case.make_facts(cell=case.make_cell(identity=None)),
            "cell eu-1 is not claimed yet",
        ),
        (case.make_tenant({"paused": True}), case.make_facts(), "its collection is not there or not published"),
    ],
)
def test_a_paused_tenant_gets_nothing_made(tenant: Any, facts: TenantFacts, what: str) -> None:
    message = f"spec.paused: {what}, and nothing is made until it is lifted"
    assert plan(tenant, facts) == TenantPlan((), case.unready_status("Paused", message, phase="Paused"))


def test_a_paused_tenant_keeps_its_binding_whatever_its_model_wants() -> None:
    old = case.dense(1)
    facts = case.make_facts(case.make_collection(old), model=case.make_model(case.revision(2)))
    said = "spec.paused: the binding is left as it is; status.plan foresees the rebuild that waits"
    expected = case.expected_status(old, conditions={"ModelBound": ("Unknown", "Paused", said)}, phase="Paused")
    kept = tuple(item for item in expected.conditions if item.type != "AccessReady")
    expected = expected.model_copy(update={"conditions": kept, "access_secrets": ()})
    found = plan(case.make_tenant({"paused": True}), facts)
    assert found.status is not None
    assert found.status.plan is not None
    assert replace(found, status=found.status.model_copy(update={"plan": None})) == TenantPlan((), expected)


def test_missing_index_side_and_strict_mode_are_mended_in_place() -> None:
    live = case.make_collection(
        case.lexical(), indexes={"_deleted": "integer", "_missed": "keyword", "_version": "integer"}, strict=None
    )
    design = case.design_of(case.lexical())
    expected = (
        CreateIndex(live.name, "price", "float"),
        CreateIndex(live.name, "sku", "keyword"),
        PointAlias(f"{ALIAS}@b", live.name),
        PatchCollection(live.name, (), design.strict),
    )
    assert plan(case.make_tenant(), case.make_facts(live, sides=False)) == TenantPlan(expected, None, 0.0)


def test_a_provisioned_tenant_without_secrets_gets_them_and_says_nothing_yet() -> None:
    facts = case.make_facts(case.make_collection(case.lexical()), secrets={}, probe=None)
    found = plan(case.make_tenant(), facts)
    assert [type(action) for action in found.actions] == [WriteAccessSecret, WriteAccessSecret]
    assert (found.status, found.requeue_after) == (None, 0.0)


def test_a_tenant_without_an_active_revision_is_ready_on_the_lexical_legs() -> None:
    bound = case.lexical()
    message = "EmbeddingModel enc has no active revision: the lexical legs serve"
    expected = case.expected_status(bound, conditions={"ModelBound": ("False", "NoActiveRevision", message)})
    facts = case.make_facts(case.make_collection(bound))
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected)


def test_a_failing_search_is_not_ready_and_is_asked_again() -> None:
    bound = case.dense(1)
    facts = case.make_facts(
        case.make_collection(bound), model=case.make_model(case.revision(1)), probe=SearchProbe(False, "403")
    )
    said = "a real query through the alias with the tenant's token failed: 403"
    conditions = {
        "Searchable": ("False", "SearchFailed", said),
        "Ready": ("False", "SearchFailed", f"Searchable: {said}"),
    }
    expected = case.expected_status(bound, conditions=conditions, phase="Progressing")
    assert plan(case.make_tenant(), facts) == TenantPlan((), expected, 10.0)


def test_a_failing_search_is_asked_again_soon_although_a_rollback_window_is_open() -> None:
    bound = case.dense(2, at=NOW)
    live = case.make_collection(bound, previous=case.dense(1))
    facts = case.make_facts(live, model=case.make_model(case.revision(2)), probe=SearchProbe(False, "403"))
    assert plan(case.make_tenant(), facts).requeue_after == 10.0


def test_usage_moves_by_one_percent_or_more_only() -> None:
    bound, model = case.dense(1), case.make_model(case.revision(1))
    tenant = case.make_tenant(status={"usage": {"points": 1000}})
    for points, shown in ((1009, 1000), (1010, 1010), (991, 1000), (990, 990)):
        facts = case.make_facts(case.make_collection(bound, points=points), model=model)
        status = plan(tenant, facts).status
        assert status is not None and status.usage is not None
        assert status.usage.points == shown


def test_a_full_quota_is_said() -> None:
    tenant = case.make_tenant({"quotas": {"maxPoints": 100}})
    live = case.make_collection(case.dense(1), tenant=tenant)
    status = plan(tenant, case.make_facts(live, model=case.make_model(case.revision(1)))).status
    assert status is not None
    found = {item.type: item.reason for item in status.conditions}
    assert (found["QuotaOK"], found["Ready"]) == ("QuotaExceeded", "Ready")


def test_a_tenant_that_goes_without_our_finalizer_is_left_alone() -> None:
    tenant = case.make_tenant(deletionTimestamp=case.STAMP, finalizers=["other.dev/x"])
    assert FINALIZER not in tenant.metadata.finalizers
    assert plan(tenant, case.make_facts(case.make_collection(case.lexical()))) == TenantPlan((), None)
