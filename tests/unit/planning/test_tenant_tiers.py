"""The shared tiers: what a slice is made of, who signs its tokens, and how a tenant gets from tier to tier."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import lexical_vector, trigram_vector
from searchops.api.shared import SliceAddress
from searchops.api.v1alpha1.search_tenant_status import IsolationStatus
from searchops.planning import tenant_facts as act
from searchops.planning.schema import INDEXING_THRESHOLD_POINTS, SHARED_STRICT, layout_of
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import inputs_digest, token_claims
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState, Tier
    from searchops.api.v1alpha1.search_tenant import SearchTenant

GATEWAY_KEY = "g" * 48
SHARED = case.make_tenant({"isolation": "Shared"})
SLICED = pytest.mark.parametrize("tier", ["Shared", "ShardKey"])


def slice_of(tenant: SearchTenant, generation: int = 1, **changes: Any) -> CollectionState:
    """A generation of the tenant as the adapter shows it."""
    tier = tenant.spec.isolation
    assert tier != "Collection"
    address = SliceAddress(tier, f"prod@shared-{layout_of(tenant.spec)}-0", f"slice-{generation:04}")
    binding = changes.pop("binding", None) or case.lexical(generation, tenant=tenant)
    found = case.make_collection(binding, generation, tenant=tenant, **changes)
    return replace(found, slice=address, layout=layout_of(tenant.spec))


def facts_of(tenant: SearchTenant, *collections: CollectionState, **changes: Any) -> act.TenantFacts:
    """Facts with Secrets as the tier of the live generation wants them."""
    tier = collections[0].tier if collections else "Collection"
    secrets = case.secrets_of(tenant)
    if tier != "Collection":
        for entry in tenant.spec.access:
            digest = inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS, signing=GATEWAY_KEY, tier=tier)
            secrets[entry.secret_name] = replace(secrets[entry.secret_name], inputs_digest=digest)
    return case.make_facts(*collections, **{"secrets": secrets, "gateway_key": GATEWAY_KEY, **changes})


def plan(tenant: SearchTenant, facts: act.TenantFacts) -> act.TenantPlan:
    return case.plan_once_foreseen(tenant, facts)


@SLICED
def test_a_tenant_is_made_as_a_slice_with_no_limit_of_its_own(tier: Tier) -> None:
    tenant = case.make_tenant({"isolation": tier})
    design = case.design_of(case.lexical(at=case.NOW, tenant=tenant), tenant=tenant)
    assert (design.tier, design.layout, design.strict) == (tier, layout_of(tenant.spec), SHARED_STRICT)
    name = f"{case.ALIAS}@g1"
    found = plan(tenant, facts_of(tenant))
    assert found == act.TenantPlan(
        (
            act.CreateCollection(design),
            *(act.CreateIndex(name, field, kind) for field, kind in design.indexes),
            act.PointAlias(f"{case.ALIAS}@b", name),
            act.PointAlias(case.ALIAS, name),
            act.EmitEvent("Provisioned", f"{name} on cell eu-1"),
        ),
        None,
        0.0,
    )


@SLICED
def test_a_ready_slice_says_that_the_gateway_enforces_its_isolation_and_where_it_stands(tier: Tier) -> None:
    tenant = case.make_tenant({"isolation": tier})
    live = slice_of(tenant)
    found = plan(tenant, facts_of(tenant, live))
    address = live.slice
    assert address is not None
    standing = f"{live.name} behind {case.ALIAS}: slice {address.key} of {address.collection}"
    conditions = {
        "Provisioned": ("True", "Provisioned", standing),
        "ModelBound": ("True", "NoActiveRevision", ""),
    }
    assert found.status is not None
    said = {item.type: item for item in found.status.conditions}
    assert found.actions == ()
    assert found.status.isolation == IsolationStatus(mode=tier, enforced_by="Gateway")
    assert (said["Provisioned"].message, said["Ready"].status) == (conditions["Provisioned"][2], "True")


def test_a_slices_tokens_are_signed_anew_with_the_gateways_key() -> None:
    facts = replace(facts_of(SHARED, slice_of(SHARED)), secrets=case.secrets_of(SHARED))
    found = plan(SHARED, facts)
    written = [action for action in found.actions if isinstance(action, act.WriteAccessSecret)]
    assert [(action.entry.name, action.tier) for action in written] == [("storefront", "Shared"), ("indexer", "Shared")]
    assert plan(SHARED, facts_of(SHARED, slice_of(SHARED))).actions == ()


def test_without_the_gateways_key_nothing_is_signed_and_nothing_is_taken_away() -> None:
    facts = facts_of(SHARED, slice_of(SHARED), gateway_key=None, secrets={})
    found = plan(SHARED, facts)
    assert found.actions == ()
    assert found.status is not None
    access = next(item for item in found.status.conditions if item.type == "AccessReady")
    assert (access.status, access.reason) == ("Unknown", "Waiting")


@pytest.mark.parametrize(
    ("before", "after"),
    [("Collection", "Shared"), ("Shared", "Collection"), ("Shared", "ShardKey"), ("ShardKey", "Collection")],
)
def test_a_change_of_tier_is_a_rebuild_into_the_next_generation(before: Tier, after: Tier) -> None:
    old, new = case.make_tenant({"isolation": before}), case.make_tenant({"isolation": after})
    live = case.make_collection(case.lexical(tenant=old), tenant=old) if before == "Collection" else slice_of(old)
    found = plan(new, facts_of(new, live))
    (create, *rest) = found.actions
    assert isinstance(create, act.CreateCollection)
    assert (create.design.name, create.design.tier) == (f"{case.ALIAS}@g2", after)
    assert create.design.layout == layout_of(new.spec)
    assert {type(action) for action in rest} == {act.CreateIndex, act.PointAlias}
    assert act.PointAlias(case.ALIAS, create.design.name) not in rest, "the old tier serves until all is there"
    assert not any(isinstance(action, act.CreateIndex) and action.collection == live.name for action in rest)


def test_a_field_of_another_type_moves_a_slice_to_another_shared_collection_and_leaves_the_old_indexes() -> None:
    fields = [*case.FIELDS[:2], {"name": "price", "type": "keyword", "role": "Filter"}]
    new = case.make_tenant({"isolation": "Shared", "fields": fields})
    found = plan(new, facts_of(new, slice_of(SHARED)))
    (create, *rest) = found.actions
    assert isinstance(create, act.CreateCollection)
    assert create.design.layout == layout_of(new.spec) != layout_of(SHARED.spec)
    assert not any(isinstance(action, act.CreateIndex) and action.collection == f"{case.ALIAS}@g1" for action in rest)


def test_a_new_vector_space_is_filled_beside_the_old_one_in_the_same_slice() -> None:
    live = slice_of(SHARED, binding=case.dense(1, tenant=SHARED))
    model = case.make_model(case.revision(2))
    found = plan(SHARED, facts_of(SHARED, live, model=model))
    vector, patch = found.actions
    assert vector == act.AddVector(live.name, "d-s2", 8)
    assert isinstance(patch, act.PatchCollection)


def test_what_other_tenants_have_in_the_collection_is_no_difference() -> None:
    live = slice_of(SHARED)
    a8 = case.lexical(tenant=SHARED).analyser_id
    assert live.sparse == {lexical_vector(a8), trigram_vector(a8)}
    crowded = replace(live, indexes={**live.indexes, "colour": "keyword"})
    assert plan(SHARED, facts_of(SHARED, crowded)).actions == ()


@given(
    tier=st.sampled_from(["Collection", "Shared", "ShardKey"]),
    role=st.sampled_from(["Search", "Index"]),
    direct=st.booleans(),
    value=st.sampled_from(["", "uid-1/x/0"]),
)
def test_no_token_for_a_tenant_names_a_collection_and_a_shared_ones_is_for_the_gateway(
    tier: Tier, role: str, direct: bool, value: str
) -> None:
    """Its names are the tenant's own: none of them ever points to a shared collection."""
    tenant = case.make_tenant({"access": [{"name": "x", "role": role, "secretName": "x", "direct": direct}]})
    claims = token_claims(
        tenant.spec.access[0],
        case.OWNER,
        "eu-1",
        issued=case.NOW,
        lifetime=case.SETTINGS.token_lifetime,
        token_id=value,
        tier=tier,
    )
    names = {item["collection"] for item in claims["access"]}
    sides = {f"{case.ALIAS}@a", f"{case.ALIAS}@b"} if tier == "Collection" and role == "Index" else set()
    assert names == {case.ALIAS} | sides
    assert claims.get("enforcedBy") == (None if tier == "Collection" else "Gateway")


@given(
    isolation=st.sampled_from(["Collection", "Shared", "ShardKey"]),
    live=st.sampled_from(["Collection", "Shared", "ShardKey"]),
    rotation=st.booleans(),
)
def test_whatever_is_wanted_who_signs_follows_from_the_tier_that_serves(
    isolation: Tier, live: Tier, rotation: bool
) -> None:
    wanted, serving = case.make_tenant({"isolation": isolation}), case.make_tenant({"isolation": live})
    found = case.make_collection(case.lexical(), tenant=serving) if live == "Collection" else slice_of(serving)
    signing = None if rotation else case.registration()
    facts = replace(facts_of(serving, found), secrets={}, signing=signing)
    actions = plan(wanted, facts).actions
    written = [action for action in actions if isinstance(action, act.WriteAccessSecret)]
    assert {action.tier for action in written} == {live}


@pytest.mark.parametrize(("more", "strategy"), [(-1, "NamedVector"), (0, "BlueGreen")])
def test_a_second_vector_is_no_small_matter_where_others_points_share_the_index(more: int, strategy: str) -> None:
    live = slice_of(SHARED, points_beside=INDEXING_THRESHOLD_POINTS + more)
    assert live.points == 100
    found = plan_tenant(
        SHARED, facts_of(SHARED, live, model=case.make_model(case.revision(2))), case.SETTINGS, case.NOW
    )
    assert found.status is not None
    assert found.status.plan is not None
    assert found.status.plan.strategy == strategy
    assert ("of all its tenants" in (found.status.plan.why or "")) is (strategy == "BlueGreen")
