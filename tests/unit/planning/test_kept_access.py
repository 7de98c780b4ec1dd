"""A paused tenant's tokens: what was handed out stays valid with the rights it has, and nothing else is changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.tokens import CellKeySigner
from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity, RegisterState, TokenGrant
from searchops.api.shared import SliceAddress
from searchops.planning.kept_access import role_of
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import inputs_digest, token_claims
from searchops.planning.tenant_facts import GrantTokens, PrepareRegister, TenantPlan, WriteAccessSecret
from searchops.planning.token_register import grant_id
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import AccessSecretState
    from searchops.api.v1alpha1.search_tenant import AccessEntry

REVOCABLE = replace(case.SETTINGS, revocable=True)
IDENTITY = CellIdentity("prod", "eu-1", "cluster-1")
SEARCH, INDEX = case.make_tenant().spec.access
OTHER_KEY = "n" * 40
GATEWAY = "g" * 40


def token(entry: AccessEntry, value: str = "") -> str:
    claims = token_claims(
        entry, case.OWNER, "eu-1", issued=case.NOW, lifetime=case.SETTINGS.token_lifetime, token_id=value
    )
    return CellKeySigner().sign(case.registration(), claims)


def held(*entries: AccessEntry, **changes: Any) -> dict[str, AccessSecretState]:
    """Secrets as they were written for these entries."""
    found = case.secrets_of()
    made = {}
    for entry in entries:
        digest = inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS)
        written = {"inputs_digest": digest, "token": token(entry), **changes}
        made[entry.secret_name] = replace(found[entry.secret_name], **written)
    return made


def plan(secrets: dict[str, AccessSecretState], spec: dict[str, Any] | None = None, **facts: Any) -> TenantPlan:
    tenant = case.make_tenant({"paused": True, **(spec or {})})
    live = case.make_collection(case.dense(1))
    settings = facts.pop("settings", case.SETTINGS)
    given_facts = case.make_facts(live, model=case.make_model(case.revision(1)), secrets=secrets, **facts)
    return plan_tenant(tenant, given_facts, settings, case.NOW)


def write(entry: AccessEntry, **more: Any) -> WriteAccessSecret:
    return WriteAccessSecret(entry, inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS, **more))


def test_tokens_that_are_good_are_left_alone() -> None:
    found = plan(held(SEARCH, INDEX))
    assert found.actions == ()
    assert found.status is not None
    assert found.status.phase == "Paused"


def test_a_token_that_is_due_is_renewed_so_that_a_pause_takes_no_shop_down() -> None:
    due = format_time(case.NOW)
    assert plan(held(SEARCH, INDEX, renew_at=due)) == TenantPlan((write(SEARCH), write(INDEX)), None, 0.0)


def test_a_rotation_is_not_held_up_by_a_paused_tenant() -> None:
    signing = replace(case.registration(), api_key=OTHER_KEY)
    found = plan(held(SEARCH, INDEX), signing=signing)
    assert found == TenantPlan((write(SEARCH, signing=OTHER_KEY), write(INDEX, signing=OTHER_KEY)), None, 0.0)


@pytest.mark.parametrize(
    "spec",
    [
        {"access": case.ACCESS[:1]},
        {"access": []},
        {"access": [*case.ACCESS, {"name": "more", "role": "Search", "secretName": "acme-more"}]},
        {"access": [{**case.ACCESS[0], "role": "Index"}, case.ACCESS[1]]},
        {"access": [{**case.ACCESS[0], "secretName": "acme-elsewhere"}, case.ACCESS[1]]},
    ],
    ids=["entry removed", "all removed", "entry added", "role changed", "Secret renamed"],
)
def test_what_the_spec_has_changed_meanwhile_waits(spec: dict[str, Any]) -> None:
    assert plan(held(SEARCH, INDEX), spec).actions == ()


def test_a_token_that_is_renewed_keeps_the_rights_it_has_whatever_the_spec_says_by_now() -> None:
    spec = {"access": [{**case.ACCESS[0], "role": "Index"}, case.ACCESS[1]]}
    found = plan(held(SEARCH, renew_at=format_time(case.NOW)), spec)
    assert found == TenantPlan((write(SEARCH),), None, 0.0)


@pytest.mark.parametrize("change", [{"type": "Opaque"}, {"owner_uid": "somebody"}, {"token": ""}, {"token": "a.b.c"}])
def test_what_is_not_ours_or_cannot_be_told_is_left_as_it_is(change: dict[str, str]) -> None:
    assert plan(held(SEARCH, INDEX, **{"renew_at": format_time(case.NOW), **change})).actions == ()
    assert plan({}).actions == (), "a Secret that is gone is made when the pause is lifted"


def test_a_lost_register_is_filled_with_the_tokens_that_are_out_and_nothing_is_revoked() -> None:
    values = {entry.name: f"uid-1/{entry.name}/v1" for entry in (SEARCH, INDEX)}
    secrets = {}
    for entry in (SEARCH, INDEX):
        found = held(entry)[entry.secret_name]
        digest = inputs_digest(entry, case.OWNER, case.make_cell(), REVOCABLE)
        secrets[entry.secret_name] = replace(
            found, token_id=values[entry.name], inputs_digest=digest, token=token(entry, values[entry.name])
        )
    grants = tuple(
        TokenGrant(grant_id("uid-1", entry.name), values[entry.name], "uid-1", entry.name, entry.secret_name)
        for entry in (SEARCH, INDEX)
    )
    lost = plan(secrets, settings=REVOCABLE, register=RegisterState(exists=False))
    assert lost.actions == (PrepareRegister(IDENTITY, 1), GrantTokens(grants))
    there = RegisterState(True, IDENTITY, grants)
    assert plan(secrets, settings=REVOCABLE, register=there).actions == ()
    removed = {"access": case.ACCESS[:1]}
    assert plan(secrets, removed, settings=REVOCABLE, register=there).actions == (), "it is revoked when it is lifted"


def test_an_entry_that_is_changed_while_paused_is_renewed_as_its_secret_has_it() -> None:
    """Its way to the database and its name in the register are what its clients hold."""
    due = {"renew_at": format_time(case.NOW), "token_id": "uid-1/indexer/abc"}
    renamed = {"access": [{**case.ACCESS[1], "name": "writer", "direct": True}]}
    (found,) = [action for action in plan(held(INDEX, **due), renamed).actions if isinstance(action, WriteAccessSecret)]
    assert (found.entry.name, found.entry.direct) == ("indexer", None)
    kept = held(INDEX, addressed=True, **due)
    (found,) = [action for action in plan(kept, renamed).actions if isinstance(action, WriteAccessSecret)]
    assert (found.entry.name, found.entry.direct) == ("indexer", True)


def test_a_token_that_no_key_of_ours_has_signed_is_not_renewed_into_more_rights() -> None:
    forged = CellKeySigner().sign(
        case.registration(api_key="x" * 40),
        token_claims(INDEX, case.OWNER, "eu-1", issued=case.NOW, lifetime=timedelta(days=1)),
    )
    assert plan(held(SEARCH, token=forged, inputs_digest="sha256:none")).actions == ()


@pytest.mark.parametrize("key", [None, GATEWAY])
def test_a_shared_tenants_tokens_are_signed_with_the_gateways_key_or_not_at_all(key: str | None) -> None:
    live = replace(case.make_collection(case.dense(1)), slice=SliceAddress("Shared", "prod@shared-x-0", "slice-0001"))
    tenant = case.make_tenant({"paused": True})
    facts = case.make_facts(
        live,
        model=case.make_model(case.revision(1)),
        secrets=held(SEARCH, INDEX, renew_at=format_time(case.NOW)),
        gateway_key=key,
    )
    actions = plan_tenant(tenant, facts, case.SETTINGS, case.NOW).actions
    if key is None:
        assert actions == ()
        return
    digests = [
        inputs_digest(entry, case.OWNER, case.make_cell(), case.SETTINGS, signing=key, tier="Shared")
        for entry in (SEARCH, INDEX)
    ]
    assert actions == tuple(
        WriteAccessSecret(entry, digest, "", "Shared") for entry, digest in zip((SEARCH, INDEX), digests, strict=True)
    )


@given(st.text(max_size=40) | st.binary(max_size=20).map(lambda raw: f"a.{raw.hex()}.c"))
def test_no_word_is_taken_for_a_token(word: str) -> None:
    assert role_of(word, (case.KEY,)) is None


@given(
    role=st.sampled_from(["Search", "Index"]), direct=st.booleans(), value=st.text(max_size=9), days=st.integers(1, 99)
)
def test_the_role_of_every_token_of_ours_is_read_back(role: str, direct: bool, value: str, days: int) -> None:
    entry = SEARCH.model_copy(update={"role": role, "direct": direct})
    lifetime = timedelta(days=days)
    claims = token_claims(entry, case.OWNER, "eu-1", issued=case.NOW, lifetime=lifetime, token_id=value)
    token = CellKeySigner().sign(case.registration(), claims)
    assert role_of(token, ("x" * 40, case.KEY)) == role
    assert role_of(token, ("x" * 40,)) is None, "what none of our keys has signed may be anybody's"
