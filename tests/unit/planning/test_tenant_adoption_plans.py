"""Adoption: two people's word, nothing taken out, kept for good; and everything that is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from searchops.api.observed import CollectionState
from searchops.planning.names import (
    ADOPT_ANNOTATION,
    CELL_ANNOTATION,
    KEY_ADOPTED,
    KEY_BINDING,
    KEY_FLEET,
    KEY_GENERATION,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_NAMESPACE_UID,
    KEY_RATES,
    KEY_UID,
)
from searchops.planning.schema import rates_of
from searchops.planning.tenant_facts import (
    AddFinalizer,
    CreateCollection,
    DropCollection,
    EmitEvent,
    PatchCollection,
    PointAlias,
    RemoveVector,
    TenantFacts,
    TenantPlan,
)
from unit.planning import tenant_cases as case

ALIAS, NOW = case.ALIAS, case.NOW
B, OLD = f"{ALIAS}@b", "shop-products"


def plan(tenant: Any, facts: TenantFacts) -> TenantPlan:
    return case.plan_once_foreseen(tenant, facts)


def asking(name: str = OLD, spec: dict[str, Any] | None = None, **metadata: Any) -> Any:
    return case.make_tenant(spec, annotations={CELL_ANNOTATION: "eu-1", ADOPT_ANNOTATION: name}, **metadata)


def found(
    item: CollectionState | None, *, aliases: dict[str, str] | None = None, adoptable: tuple[str, ...] = (OLD,)
) -> TenantFacts:
    registration = replace(case.registration(), adoptable=frozenset(adoptable))
    cell = case.make_cell(aliases or {}, (item.name,) if item else (), cell=registration)
    return case.make_facts(*([item] if item else []), cell=cell)


def strangers(**changes: Any) -> CollectionState:
    """A collection that somebody else made, with one unnamed vector."""
    return replace(CollectionState(OLD, 7, {}, frozenset(), {"price": "integer"}, 1, 1, None, {}), **changes)


def adopted(**changes: Any) -> CollectionState:
    """One that fits, as it stands after the adoption."""
    return replace(case.rebind(case.make_collection(case.lexical()), adopted="true"), name=OLD, **changes)


def test_it_is_owned_bound_and_published_under_its_own_name() -> None:
    tenant = asking()
    values = {
        KEY_ADOPTED: "true",
        KEY_BINDING: case.lexical(at=NOW).to_metadata(),
        KEY_FLEET: "prod",
        KEY_GENERATION: "1",
        KEY_NAME: "acme",
        KEY_NAMESPACE: "shop",
        KEY_NAMESPACE_UID: "ns-uid",
        KEY_RATES: rates_of(tenant.spec).to_metadata(),
        KEY_UID: "uid-1",
    }
    said = EmitEvent("Adopted", f"{OLD} on cell eu-1 is this tenant's now; it is kept whatever the policy")
    expected = (PatchCollection(OLD, tuple(sorted(values.items()))), PointAlias(B, OLD), PointAlias(ALIAS, OLD), said)
    assert plan(tenant, found(strangers())) == TenantPlan(expected, None, 0.0)


def test_after_a_crash_before_the_alias_only_the_aliases_are_missing() -> None:
    assert plan(asking(), found(adopted())) == TenantPlan((PointAlias(B, OLD), PointAlias(ALIAS, OLD)), None, 0.0)


@pytest.mark.parametrize(
    ("tenant", "facts", "said"),
    [
        (asking(), found(strangers(), adoptable=()), f"{OLD} is not under adoptable in the Secret of cell eu-1"),
        (asking("gone"), found(None, adoptable=("gone",)), "there is no collection gone on cell eu-1"),
        (
            asking(),
            found(strangers(metadata={KEY_FLEET: "prod", KEY_UID: "uid-9"})),
            f"the metadata of {OLD} names an owner already (fleet 'prod', uid 'uid-9')",
        ),
        (
            asking(),
            found(strangers(metadata={KEY_FLEET: "dev"})),
            f"the metadata of {OLD} names an owner already (fleet 'dev')",
        ),
        (
            asking(),
            found(strangers(), aliases={"prod.shop.other": OLD}),
            f"alias prod.shop.other of another tenant points to {OLD}",
        ),
        (
            asking("prod.shop.other@g1"),
            found(None, adoptable=("prod.shop.other@g1",)),
            "prod.shop.other@g1 is named like a generation of a tenant",
        ),
    ],
)
def test_a_refusal_names_its_reason_and_nothing_is_created_instead(tenant: Any, facts: TenantFacts, said: str) -> None:
    refused = plan(tenant, facts)
    assert refused.status is not None
    assert (refused.actions, refused.requeue_after) == ((), 60.0)
    conditions = {item.type: (item.reason, item.message) for item in refused.status.conditions}
    assert set(conditions) == {"Provisioned", "Ready"}
    for reason, message in conditions.values():
        assert reason == "AdoptionRefused"
        assert message.startswith(f"annotation {ADOPT_ANNOTATION}: {said}")
        assert message.endswith("; nothing is created or changed")


def test_a_tenant_that_has_data_adopts_nothing_more() -> None:
    live = case.make_collection(case.dense(1))
    registration = replace(case.registration(), adoptable=frozenset({OLD}))
    cell = case.make_cell({ALIAS: live.name, B: live.name}, (live.name, OLD), cell=registration)
    facts = case.make_facts(live, strangers(), cell=cell, model=case.make_model(case.revision(1)))
    assert plan(asking(), facts).actions == ()


PUBLISHED = {ALIAS: OLD, B: OLD}


def test_what_does_not_fit_is_said_and_rebuilt_beside_it_and_nothing_in_it_is_touched() -> None:
    """Unnamed vectors, no lexical legs, an index of another type: one patch of it, which names the new side."""
    metadata = dict(adopted().metadata)
    facts = found(strangers(metadata=metadata, indexes={"price": "integer", "sku": "keyword"}), aliases=PUBLISHED)
    first = plan(asking(), facts)
    assert [type(action) for action in first.actions if getattr(action, "collection", "") == OLD] == []
    assert isinstance(first.actions[0], CreateCollection)
    assert first.actions[0].design.name == f"{ALIAS}@g2"
    paused = plan(asking(spec={"paused": True}), facts)
    assert (paused.actions, paused.status is not None) == ((), True)
    assert paused.status is not None
    schema = next(item for item in paused.status.conditions if item.type == "SchemaInSync")
    assert (schema.status, schema.reason) == ("False", "RebuildRequired")
    assert "vectors lex-" in schema.message


def test_a_vector_that_was_there_before_is_never_removed_and_none_is_added() -> None:
    item = adopted(dense={"theirs": 8})
    facts = replace(found(item, aliases=PUBLISHED), model=case.make_model())
    assert not [action for action in plan(asking(), facts).actions if isinstance(action, RemoveVector)]
    wanted = plan(asking(), replace(facts, model=case.make_model(case.revision(1)))).actions
    assert isinstance(wanted[0], CreateCollection)
    assert wanted[0].design.name == f"{ALIAS}@g2"


def test_once_another_generation_serves_it_stays_where_it_is() -> None:
    live = case.make_collection(case.dense(1, 2), 2)
    cell = case.make_cell({ALIAS: live.name, f"{ALIAS}@a": live.name, B: OLD}, (live.name, OLD))
    facts = case.make_facts(live, adopted(), cell=cell, model=case.make_model(case.revision(1)))
    assert not [action for action in plan(asking(), facts).actions if isinstance(action, DropCollection)]


def test_the_tenant_is_placed_where_its_collection_stands() -> None:
    listed = replace(case.registration("eu-2"), adoptable=frozenset({OLD}))
    cells = (case.make_cell(cell=case.registration("eu-1")), case.make_cell({}, (OLD,), cell=listed))
    tenant = case.make_tenant(annotations={ADOPT_ANNOTATION: OLD}, finalizers=[])
    facts = replace(case.make_facts(cell=cells[0]), cell=None, cells=cells, held={"eu-2": (strangers(),)})
    assert plan(tenant, facts) == TenantPlan((AddFinalizer("eu-2"),), None, 0.0)
