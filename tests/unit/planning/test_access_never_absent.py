"""`access` is in every token of every kind, and a signer refuses whatever lacks it: without it a token opens all.

Tokens are made in five places: of a tenant's entries, of the query that proves a tenant searchable, of reindex
workers, of backups with the last snapshot before a drop, and of proofs, which alone may manage a cell.
"""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from searchops.adapters.tokens import RIGHTS, CellKeySigner
from searchops.api.v1alpha1.search_tenant import AccessEntry
from searchops.planning.backup import BackupSettings, Candidate, Due
from searchops.planning.backup_jobs import backup_order, prove_order
from searchops.planning.clocks import CLOCK_SKEW
from searchops.planning.last_snapshot import last_snapshot_due, last_snapshot_order
from searchops.planning.reindex import CreateWorker, plan_reindex, renewed_claims
from searchops.planning.schema import Owner
from searchops.planning.tenant_access import token_claims
from searchops.runtime.errors import Terminal
from unit.planning import reindex_facts as job_case
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import Tier

SIGNER = CellKeySigner()
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
ANY_TEXT = st.text(max_size=30)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
LIFETIMES = st.timedeltas(timedelta(seconds=1), timedelta(days=3650))
ENTRIES = st.fixed_dictionaries(
    {"name": NAMES, "role": st.sampled_from(["Search", "Index"]), "secretName": NAMES},
    optional={"direct": st.booleans()},
).map(AccessEntry.model_validate)
OWNERS = st.builds(Owner, NAMES, st.uuids().map(str), NAMES, st.uuids().map(str) | st.just(""), NAMES)


def opened(claims: dict[str, Any]) -> list[tuple[str, str]]:
    """What a token for these claims opens, after it was signed and read as a database reads it."""
    token = SIGNER.sign(case.registration(), claims)
    options = {"verify_exp": False, "verify_sub": False}
    read = jwt.decode(token, case.KEY, algorithms=["HS256"], options=options)  # type: ignore[arg-type]
    assert isinstance(read["access"], list)
    assert read["access"]
    assert isinstance(read["exp"], int)
    return [(item["collection"], item["access"]) for item in read["access"]]


@given(
    entry=ENTRIES,
    owner=OWNERS,
    cell=NAMES,
    issued=MOMENTS,
    lifetime=LIFETIMES,
    token_id=ANY_TEXT,
    tier=st.sampled_from(["Collection", "ShardKey", "Shared"]),
)
def test_of_every_entry_with_every_flag_on_every_tier(
    entry: AccessEntry, owner: Owner, cell: str, issued: datetime, lifetime: timedelta, token_id: str, tier: Tier
) -> None:
    claims = token_claims(entry, owner, cell, issued=issued, lifetime=lifetime, token_id=token_id, tier=tier)
    names = opened(claims)
    right = "r" if entry.role == "Search" else "prw"
    assert {given_right for _, given_right in names} == {right}
    assert names[0][0] == owner.alias
    assert all(name == owner.alias or name.startswith(f"{owner.alias}@") for name, _ in names), "one tenant's own"
    assert claims["exp"] == int((issued + lifetime).timestamp())
    assert ("enforcedBy" in claims) == (tier != "Collection"), "the gateway knows its own"


@given(
    named=st.booleans(),
    slices=st.integers(1, 16),
    hours=st.integers(1, 200),
    uid=st.uuids().map(str),
    source=NAMES,
    target=NAMES,
    now=MOMENTS,
    late=st.timedeltas(timedelta(0), timedelta(days=30)),
)
def test_of_every_reindex_job_now_and_when_its_token_is_renewed(
    named: bool, slices: int, hours: int, uid: str, source: str, target: str, now: datetime, late: timedelta
) -> None:
    assume(named or source != target)
    job = job_case.make_job(metadata={"uid": uid}, slices=slices, budget={"deadline": f"{hours}h"})
    live = replace(job_case.collection(1), name=source)
    side = live if named else replace(job_case.collection(2), name=target)
    facts = job_case.make_facts(source=live, target=side)
    (create,) = plan_reindex(job, facts, now).actions
    assert isinstance(create, CreateWorker)
    first = dict(create.order.secret_claims or {})
    wanted = [(source, "prw")] if named else [(target, "prw"), (source, "r")]
    assert opened(first) == wanted, "exactly the collections that the task names"
    assert (first["exp"], first["subject"]) == (int((now + timedelta(hours=hours + 1)).timestamp()), f"{uid}/worker")
    waits = replace(facts, worker=job_case.worker(suspended=True))
    renewed = renewed_claims(job, waits, now, now + late)
    if renewed is not None:
        assert opened(dict(renewed)) == wanted
        assert renewed["exp"] > first["exp"]


RULES = st.builds(
    lambda fleet, hours: BackupSettings(fleet, "s3://bucket/ops", "cpu", deadline=timedelta(hours=hours)),
    NAMES,
    st.integers(1, 99),
)
CANDIDATES = st.builds(Candidate, st.uuids().map(str), NAMES, NAMES, st.just("0 3 * * *"), st.integers(1, 9), MOMENTS)


@given(who=CANDIDATES, rules=RULES, collection=NAMES, now=MOMENTS, attempt=st.integers(1, 9))
def test_of_every_backup_and_of_the_last_snapshot_before_a_drop(
    who: Candidate, rules: BackupSettings, collection: str, now: datetime, attempt: int
) -> None:
    due = Due(who, "backup", "20261124T030000Z", attempt, now)
    claims = dict(backup_order(due, case.registration(), collection, rules, now).secret_claims or {})
    assert opened(claims) == [(collection, "rw")]
    gone = replace(case.make_collection(case.dense(1)), name=f"{case.ALIAS}@g1")
    gone = case.rebind(gone, deleted_at=case.STAMP)
    last = last_snapshot_order(last_snapshot_due(gone), case.registration(), gone, rules, now)
    assert opened(dict(last.secret_claims or {})) == [(gone.name, "rw")]


@given(who=CANDIDATES, rules=RULES, now=MOMENTS, attempt=st.integers(1, 9))
def test_of_every_proof_which_alone_may_manage_and_ends_soon(
    who: Candidate, rules: BackupSettings, now: datetime, attempt: int
) -> None:
    due = Due(who, "prove", "20261124T030000Z", attempt, now)
    claims = dict(prove_order(due, case.registration(), rules, now).secret_claims or {})
    with pytest.raises(Terminal):
        SIGNER.sign(case.registration(), claims)
    token = SIGNER.sign_manage(case.registration(), claims)
    read = jwt.decode(token, case.KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert (read["access"], read["exp"]) == ("m", int((now + rules.deadline * 2 + CLOCK_SKEW).timestamp()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["", "m", "r", "rw", "prw", "R", "collection", "*"])
NEARLY = st.fixed_dictionaries(
    {}, optional={"collection": JSON | WORDS | NAMES, "access": JSON | WORDS, "payload": JSON}
)


@example(access=[{"collection": "x", "access": ["r"]}], others={})
@example(access=[{"collection": "x", "access": {}}], others={})
@given(access=JSON | WORDS | st.lists(NEARLY | JSON, max_size=3), others=st.dictionaries(ANY_TEXT, JSON, max_size=3))
def test_whatever_is_asked_for_is_signed_with_names_and_rights_or_not_at_all(access: Any, others: Any) -> None:
    claims = {"exp": 4_000_000_000, **{key: value for key, value in others.items() if key not in _REGISTERED}}
    claims["access"] = access
    try:
        names = opened(claims)
    except Terminal:
        return
    assert isinstance(access, list)
    assert len(names) == len(access), "none is dropped in silence"
    assert all(name and right in RIGHTS for name, right in names)


_REGISTERED = ("access", "exp", "iss", "iat", "nbf", "aud", "sub", "jti")


@given(claims=st.dictionaries(ANY_TEXT | st.sampled_from(["Access", "ACCESS", "access "]), JSON, max_size=4))
def test_claims_without_access_are_never_signed_by_either_way(claims: dict[str, Any]) -> None:
    claims.pop("access", None)
    with pytest.raises(Terminal, match="never signed"):
        SIGNER.sign(case.registration(), claims)
    with pytest.raises(Terminal):
        SIGNER.sign_manage(case.registration(), claims)


@given(access=JSON | st.lists(NEARLY, min_size=1, max_size=2), ends=JSON)
def test_what_may_manage_says_so_in_one_word_and_has_an_end(access: Any, ends: Any) -> None:
    claims = {"access": access, "exp": ends}
    assume(not (access == "m" and isinstance(ends, int) and not isinstance(ends, bool)))
    with pytest.raises(Terminal):
        SIGNER.sign_manage(case.registration(), claims)


@given(key=st.text(string.printable, max_size=60), days=st.integers(1, 9))
def test_no_key_that_could_be_guessed_signs_anything(key: str, days: int) -> None:
    cell = case.registration(api_key=key)
    entry = AccessEntry(name="storefront", role="Search", secret_name="acme")
    claims = token_claims(entry, case.OWNER, "eu-1", issued=case.NOW, lifetime=timedelta(days=days))
    if len(key.encode()) >= 32:
        assert SIGNER.sign(cell, claims)
        return
    for sign, asked in ((SIGNER.sign, claims), (SIGNER.sign_manage, {**claims, "access": "m"})):
        with pytest.raises(Terminal) as refused:
            sign(cell, asked)
        assert refused.value.reason == "CellKeyTooWeak"
        assert not key.strip() or key not in str(refused.value) or len(key) < 4
