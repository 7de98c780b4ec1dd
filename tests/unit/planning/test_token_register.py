"""The register of tokens: entered before a token is signed, revoked before its Secret goes, filled again when lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import CellIdentity, RegisterState, TokenGrant
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import inputs_digest, token_claims
from searchops.planning.tenant_facts import (
    DeleteAccessSecret,
    EmitEvent,
    GrantTokens,
    PrepareRegister,
    RevokeTokens,
    TenantFacts,
    TenantPlan,
    WriteAccessSecret,
)
from searchops.planning.token_register import grant_id
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import AccessSecretState
    from searchops.api.v1alpha1.search_tenant import AccessEntry, SearchTenant

SETTINGS = replace(case.SETTINGS, revocable=True)
IDENTITY = CellIdentity("prod", "eu-1", "cluster-1")
SEARCH, INDEX = case.make_tenant().spec.access
VALUES = {"storefront": "uid-1/storefront/aaaaaaaaaaaa", "indexer": "uid-1/indexer/bbbbbbbbbbbb"}


def grant(entry: AccessEntry, value: str | None = None, *, uid: str = "uid-1") -> TokenGrant:
    return TokenGrant(grant_id(uid, entry.name), value or VALUES[entry.name], uid, entry.name, entry.secret_name)


GRANTS = (grant(SEARCH), grant(INDEX))


def secrets() -> dict[str, AccessSecretState]:
    found = {}
    for entry in (SEARCH, INDEX):
        made = case.secrets_of()[entry.secret_name]
        digest = inputs_digest(entry, case.OWNER, case.make_cell(), SETTINGS)
        found[entry.secret_name] = replace(made, inputs_digest=digest, token_id=VALUES[entry.name])
    return found


def facts(register: RegisterState | None, held: dict[str, AccessSecretState] | None = None) -> TenantFacts:
    return case.make_facts(
        case.make_collection(case.dense(1)),
        model=case.make_model(case.revision(1)),
        secrets=secrets() if held is None else held,
        register=register,
    )


def plan(given: TenantFacts, tenant: SearchTenant | None = None) -> TenantPlan:
    return plan_tenant(tenant or case.make_tenant(), given, SETTINGS, case.NOW)


def write(entry: AccessEntry, value: str) -> WriteAccessSecret:
    return WriteAccessSecret(entry, inputs_digest(entry, case.OWNER, case.make_cell(), SETTINGS), value)


def test_a_new_tenant_on_a_new_cell_gets_the_register_then_its_entries_then_its_tokens() -> None:
    found = plan(facts(RegisterState(exists=False), {}))
    prepare, entered, first, second = found.actions
    assert prepare == PrepareRegister(IDENTITY, 1)
    assert isinstance(entered, GrantTokens)
    values = [item.value for item in entered.grants]
    assert [item.entry for item in entered.grants] == ["storefront", "indexer"]
    assert [first, second] == [write(SEARCH, values[0]), write(INDEX, values[1])]
    assert len(set(values)) == 2
    assert found.status is None


def test_a_register_that_is_as_it_should_needs_nothing() -> None:
    assert plan(facts(RegisterState(True, IDENTITY, GRANTS))).actions == ()


def test_a_register_whose_making_was_cut_short_gets_its_indexes_and_nobody_calls_it_lost() -> None:
    tenant = case.make_tenant(status={"accessSecrets": ["acme-indexer", "acme-storefront"]})
    half = RegisterState(True, IDENTITY, GRANTS, indexed=False)
    assert plan(facts(half), tenant).actions == (PrepareRegister(IDENTITY, 1),)


def test_a_lost_register_is_filled_with_the_values_that_clients_hold_and_said_aloud() -> None:
    tenant = case.make_tenant(status={"accessSecrets": ["acme-indexer", "acme-storefront"]})
    found = plan(facts(RegisterState(exists=False)), tenant)
    prepare, event, entered = found.actions
    assert prepare == PrepareRegister(IDENTITY, 1)
    assert isinstance(event, EmitEvent)
    assert (event.reason, event.warning) == ("TokenRegisterLost", True)
    assert entered == GrantTokens(GRANTS)


def test_a_point_that_somebody_removed_or_changed_is_entered_again() -> None:
    for broken in ((GRANTS[0],), (GRANTS[0], replace(GRANTS[1], value="else"))):
        assert plan(facts(RegisterState(True, IDENTITY, broken))).actions == (GrantTokens((GRANTS[1],)),)


def test_removing_an_entry_revokes_first_and_then_removes_the_secret_though_the_status_was_lost() -> None:
    tenant = case.make_tenant({"access": [case.ACCESS[0]]}, status={})
    found = plan(facts(RegisterState(True, IDENTITY, GRANTS)), tenant)
    assert found.actions == (RevokeTokens((GRANTS[1].id,)), DeleteAccessSecret("acme-indexer"))


def test_an_entry_that_was_removed_while_the_tenant_was_away_is_revoked_too() -> None:
    former = (grant(SEARCH, "uid-0/storefront/cccccccccccc", uid="uid-0"), grant(INDEX, uid="uid-0"))
    register = RegisterState(True, IDENTITY, (grant(SEARCH),), former)
    without = case.make_tenant({"access": [SEARCH.to_wire()]})
    planned = plan(facts(register), without)
    assert [item for item in planned.actions if isinstance(item, RevokeTokens)] == [
        RevokeTokens((grant_id("uid-0", INDEX.name),))
    ]
    assert plan(facts(replace(register, grants=GRANTS))) == plan(facts(RegisterState(True, IDENTITY, GRANTS)))


def test_a_secret_that_is_not_ours_is_not_removed_because_the_register_names_it() -> None:
    tenant = case.make_tenant({"access": [case.ACCESS[0]]}, status={})
    held = secrets()
    held["acme-indexer"] = replace(held["acme-indexer"], owner_uid="somebody-else")
    found = plan(facts(RegisterState(True, IDENTITY, GRANTS), held), tenant)
    assert found.actions == (RevokeTokens((GRANTS[1].id,)),)


def test_an_entry_whose_secret_was_deleted_gets_another_value_so_that_the_old_token_ends() -> None:
    held = secrets()
    del held["acme-storefront"]
    entered, written = plan(facts(RegisterState(True, IDENTITY, GRANTS), held)).actions
    assert isinstance(entered, GrantTokens)
    (fresh,) = entered.grants
    assert fresh.id == GRANTS[0].id
    assert fresh.value != GRANTS[0].value
    assert written == write(SEARCH, fresh.value)


def test_renewal_keeps_the_value_since_clients_hold_the_old_token_still() -> None:
    held = secrets()
    held["acme-storefront"] = replace(held["acme-storefront"], renew_at=case.STAMP)
    found = plan(facts(RegisterState(True, IDENTITY, GRANTS), held))
    assert found.actions == (write(SEARCH, VALUES["storefront"]),)


def test_a_value_copied_from_another_tenants_secret_is_not_taken() -> None:
    held = secrets()
    held["acme-storefront"] = replace(held["acme-storefront"], token_id="uid-2/storefront/cccccccccccc")
    entered, written = plan(facts(RegisterState(True, IDENTITY, GRANTS), held)).actions
    assert isinstance(entered, GrantTokens)
    assert entered.grants[0].value.startswith("uid-1/storefront/")
    assert written == write(SEARCH, entered.grants[0].value)


def test_a_register_of_somebody_else_is_never_written_and_nothing_is_signed() -> None:
    for owner in (None, CellIdentity("other", "eu-1", "cluster-1"), CellIdentity("prod", "eu-1", "cluster-2")):
        found = plan(facts(RegisterState(True, owner), {}))
        assert found.actions == ()
        assert found.status is not None
        access = next(item for item in found.status.conditions if item.type == "AccessReady")
        assert (access.status, access.reason) == ("False", "Conflict")
        assert "prod@tokens on cell eu-1 is not this operator's" in access.message


def test_a_register_that_could_not_be_read_signs_nothing() -> None:
    found = plan(facts(None, {}))
    assert found.actions == ()
    assert found.status is not None
    assert next(item for item in found.status.conditions if item.type == "Ready").status == "False"


def test_the_token_claims_its_entry_and_the_register_of_its_fleet() -> None:
    claims = token_claims(
        SEARCH, case.OWNER, "eu-1", issued=case.NOW, lifetime=SETTINGS.token_lifetime, token_id=VALUES["storefront"]
    )
    assert claims["value_exists"] == {
        "collection": "prod@tokens",
        "matches": [{"key": "token", "value": VALUES["storefront"]}],
    }
    assert "prod@tokens" not in {entry["collection"] for entry in claims["access"]}


def test_switching_revocation_off_signs_every_token_anew_without_the_claim() -> None:
    found = plan_tenant(case.make_tenant(), facts(None), case.SETTINGS, case.NOW)
    plain = {entry.name: inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS) for entry in (SEARCH, INDEX)}
    assert found.actions == (
        WriteAccessSecret(SEARCH, plain["storefront"], ""),
        WriteAccessSecret(INDEX, plain["indexer"], ""),
    )


ENTRY = st.sampled_from(["storefront", "indexer", "gone", "other"])


@given(
    entered=st.lists(st.tuples(ENTRY, st.sampled_from(["v1", "v2"]), st.sampled_from(["s1", "acme-indexer"]))),
    held=st.sets(st.sampled_from(["acme-storefront", "acme-indexer", "s1"])),
    exists=st.booleans(),
    owners=st.sampled_from(["uid-1", "uid-2"]),
)
def test_applying_a_plan_once_leaves_nothing_to_do_and_touches_only_our_own(
    entered: list[tuple[str, str, str]], held: set[str], exists: bool, owners: str
) -> None:
    own = {name: replace(secrets()["acme-indexer"], name=name, owner_uid=owners) for name in held}
    grants = tuple(
        {
            name: TokenGrant(grant_id("uid-1", name), value, "uid-1", name, secret) for name, value, secret in entered
        }.values()
    )
    state = RegisterState(exists, IDENTITY if exists else None, grants if exists else ())
    found = plan(facts(state, own))
    after = {item.id: item for item in state.grants}
    for action in found.actions:
        match action:
            case GrantTokens(grants=new):
                after |= {item.id: item for item in new}
            case RevokeTokens(ids=ids):
                after = {ident: item for ident, item in after.items() if ident not in ids}
            case DeleteAccessSecret(name=name):
                assert own.pop(name).owner_uid == "uid-1"
            case WriteAccessSecret(entry=entry, inputs_digest=digest, token_id=value):
                assert own.get(entry.secret_name) is None or own[entry.secret_name].owner_uid == "uid-1"
                assert value in {item.value for item in after.values()}
                own[entry.secret_name] = replace(
                    secrets()[entry.secret_name], name=entry.secret_name, inputs_digest=digest, token_id=value
                )
    again = plan(facts(RegisterState(True, IDENTITY, tuple(after.values())), own))
    assert again.actions == ()


def test_every_point_is_of_its_tenant_and_entry_alone() -> None:
    ids = {grant_id(uid, entry) for uid in ("uid-1", "uid-2") for entry in ("storefront", "indexer")}
    assert len(ids) == 4
