"""Access Secrets: written, renewed, never merged into what is not ours; and claims that no token may exceed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import format_time
from searchops.planning.names import ACCESS_SECRET_TYPE
from searchops.planning.schema import Owner
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import inputs_digest, renew_at, token_claims
from searchops.planning.tenant_facts import DeleteAccessSecret, TenantFacts, TenantPlan, WriteAccessSecret
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.search_tenant import AccessEntry

NOW = case.NOW
SEARCH, INDEX = case.make_tenant().spec.access


def facts_with(secrets: dict[str, Any]) -> TenantFacts:
    return case.make_facts(
        case.make_collection(case.dense(1)), model=case.make_model(case.revision(1)), secrets=secrets
    )


def plan(tenant: Any, secrets: dict[str, Any]) -> TenantPlan:
    return plan_tenant(tenant, facts_with(secrets), case.SETTINGS, NOW)


def write(entry: AccessEntry) -> WriteAccessSecret:
    return WriteAccessSecret(entry, inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS))


def test_every_entry_gets_its_secret() -> None:
    assert plan(case.make_tenant(), {}) == TenantPlan((write(SEARCH), write(INDEX)), None, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"renew_at": format_time(NOW)},
        {"renew_at": "nonsense"},
        {"inputs_digest": "sha256:other"},
    ],
)
def test_a_secret_that_is_due_or_differs_is_written_again(change: dict[str, Any]) -> None:
    secrets = case.secrets_of()
    secrets["acme-storefront"] = replace(secrets["acme-storefront"], **change)
    assert plan(case.make_tenant(), secrets) == TenantPlan((write(SEARCH),), None, 0.0)


def test_a_new_cell_key_or_gateway_writes_every_secret_again() -> None:
    for changed in (case.make_cell(cell=case.registration(api_key="x" * 40)), case.make_cell()):
        settings = case.SETTINGS if changed != case.make_cell() else replace(case.SETTINGS, gateway_url="https://new")
        before = inputs_digest(SEARCH, case.OWNER, case.make_cell(), case.SETTINGS)
        assert inputs_digest(SEARCH, case.OWNER, changed, settings) != before


@pytest.mark.parametrize("change", [{"type": "Opaque"}, {"owner_uid": "somebody-else"}])
def test_a_name_that_is_taken_is_a_conflict_and_never_merged_into(change: dict[str, Any]) -> None:
    secrets = case.secrets_of()
    secrets["acme-indexer"] = replace(secrets["acme-indexer"], **change)
    said = (
        f"spec.access: the Secret name acme-indexer (type {secrets['acme-indexer'].type}) is taken by something else "
        "in namespace shop; it is never merged into; choose another secretName or remove that Secret"
    )
    conditions = {
        "AccessReady": ("False", "SecretConflict", said),
        "Ready": ("False", "SecretConflict", f"AccessReady: {said}"),
    }
    expected = case.expected_status(case.dense(1), conditions=conditions, phase="Progressing")
    assert plan(case.make_tenant(), secrets) == TenantPlan((), expected)


def test_the_secret_of_a_removed_entry_is_deleted_only_where_it_is_ours() -> None:
    secrets = case.secrets_of()
    ours = replace(secrets["acme-indexer"], name="gone")
    secrets |= {
        "gone": ours,
        "typed": replace(ours, name="typed", type="Opaque"),
        "owned": replace(ours, name="owned", owner_uid="somebody-else"),
    }
    tenant = case.make_tenant(status={"accessSecrets": ["acme-indexer", "gone", "never", "owned", "typed"]})
    assert plan(tenant, secrets) == TenantPlan((DeleteAccessSecret("gone"),), None, 0.0)


def test_a_search_token_reads_the_alias_and_an_index_token_writes_both_sides() -> None:
    issued, life = NOW, timedelta(days=30)
    alias = case.ALIAS
    expires = int((NOW + life).timestamp())
    assert token_claims(SEARCH, case.OWNER, "eu-1", issued=issued, lifetime=life) == {
        "exp": expires,
        "access": [{"collection": alias, "access": "r"}],
        "subject": "uid-1/storefront",
        "cell": "eu-1",
    }
    assert token_claims(INDEX, case.OWNER, "eu-1", issued=issued, lifetime=life)["access"] == [
        {"collection": name, "access": "prw"} for name in (alias, f"{alias}@a", f"{alias}@b")
    ]


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)


@given(fleet=NAMES, one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES), role=st.sampled_from([SEARCH, INDEX]))
def test_no_token_names_what_belongs_to_another_tenant(
    fleet: str, one: tuple[str, str], other: tuple[str, str], role: AccessEntry
) -> None:
    mine, theirs = (Owner(fleet, "uid", namespace, "ns", name) for namespace, name in (one, other))
    claims = token_claims(role, mine, "cell", issued=NOW, lifetime=timedelta(days=1))
    named = {entry["collection"] for entry in claims["access"]}
    assert named
    prefix = f"{theirs.alias}@"
    touched = {name for name in named if name == theirs.alias or name.startswith(prefix)}
    assert touched == (named if one == other else set())


@given(uid=st.uuids().map(str), days=st.integers(1, 365))
def test_renewal_is_between_four_tenths_and_half_of_the_lifetime(uid: str, days: int) -> None:
    life = timedelta(days=days)
    moment = renew_at(replace(case.OWNER, uid=uid), SEARCH, NOW, life)
    assert life * 0.4 - timedelta(seconds=1) <= moment - NOW <= life * 0.5
    assert moment == renew_at(replace(case.OWNER, uid=uid), SEARCH, NOW, life)


def test_the_type_of_our_secrets_is_the_documented_one() -> None:
    assert ACCESS_SECRET_TYPE == "searchops.dev/access"


DIRECT = {"access": [case.ACCESS[0], {**case.ACCESS[1], "direct": True}]}


def test_a_direct_writer_gets_a_secret_of_its_own_content_and_the_condition_says_what_it_costs() -> None:
    tenant = case.make_tenant(DIRECT)
    writer = tenant.spec.access[1]
    assert plan(tenant, case.secrets_of()) == TenantPlan((write(writer),), None, 0.0)
    found = plan(tenant, case.secrets_of(tenant))
    assert found.status is not None
    access = next(item for item in found.status.conditions if item.type == "AccessReady")
    assert (access.status, access.reason) == ("True", "TokensIssued")
    assert "indexer may write to the database itself" in access.message
    assert "every cutover is Manual" in access.message
