"""Tokens that the gateway verifies itself: what is genuine, what is refused, and that none is good for both ways."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops_workers.gateway.callers import (
    LEEWAY_SECONDS,
    Caller,
    Registration,
    VerifiedCaller,
    read_caller,
    require_write,
)
from searchops_workers.gateway.problems import Problem
from unit.workers.gateway.shared_parts import ALIAS, KEY, OTHER_KEY, REGISTER, TENANT, UID, claims, token

VERIFIED = VerifiedCaller(
    tenant=TENANT,
    alias=ALIAS,
    cell="eu-1",
    uid=UID,
    entry="indexer",
    may_write=True,
    registration=Registration(REGISTER, f"{UID}/indexer/1"),
)


def read(text: str, tenant: str = TENANT, keys: tuple[str, ...] = (KEY,)) -> Any:
    return read_caller(tenant, f"Bearer {text}", keys)


def refusal(text: str, tenant: str = TENANT, keys: tuple[str, ...] = (KEY,)) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        read(text, tenant, keys)
    assert text not in caught.value.detail
    return caught.value.status, caught.value.code


def test_a_genuine_token_is_a_caller_without_a_token() -> None:
    assert read(token()) == VERIFIED
    assert not hasattr(read(token()), "token")


def test_each_of_the_gateways_keys_is_accepted_and_no_other() -> None:
    keys = (OTHER_KEY, KEY)
    assert read(token(), keys=keys) == read(token(key=OTHER_KEY), keys=keys) == VERIFIED
    assert refusal(token(key="a-forger-has-none-of-the-gateways-keys")) == (401, "bad-credentials")


def test_a_token_that_only_reads_may_not_write() -> None:
    caller = read(token(access=[{"collection": ALIAS, "access": "r"}]))
    with pytest.raises(Problem) as caught:
        require_write(caller)
    assert caught.value.code == "read-only-token"


def unsigned(header: dict[str, str], body: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body)]
    return ".".join((*parts, signature))


def test_no_other_algorithm_is_taken_whatever_the_header_says() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    long_key = KEY * 2
    genuine = token().rpartition(".")[2]
    for text, keys in (
        (unsigned({"alg": "none", "typ": "JWT"}, claims()), (KEY,)),
        (unsigned({"alg": "None", "typ": "JWT"}, claims()), (KEY,)),
        (unsigned({"alg": "HS256", "typ": "JWT"}, claims()), (KEY,)),
        (unsigned({"alg": "none", "typ": "JWT"}, claims(), genuine), (KEY,)),
        (token(key=pem, algorithm="RS256"), (KEY,)),
        (token(key=long_key, algorithm="HS512"), (long_key,)),
    ):
        assert refusal(text, keys=keys) == (401, "bad-credentials")


def test_a_token_that_was_changed_is_forged() -> None:
    header, _, signature = token().split(".")
    other = token(access=[{"collection": "prod.m.other", "access": "prw"}]).split(".")[1]
    assert refusal(f"{header}.{other}.{signature}", "m.other") == (401, "bad-credentials")


def test_a_token_ends_and_one_without_an_end_is_none() -> None:
    now = int(time.time())
    assert read(token(exp=now - LEEWAY_SECONDS + 20)) == VERIFIED
    assert refusal(token(exp=now - LEEWAY_SECONDS - 20)) == (401, "token-expired")
    assert refusal(token(exp=None)) == (401, "bad-credentials")
    assert refusal(token(exp="soon")) == (401, "bad-credentials")
    assert refusal(token(key="a-forger-has-none-of-the-gateways-keys", exp=now - 999)) == (401, "bad-credentials")


def test_a_token_opens_its_own_tenant_and_nothing_else() -> None:
    assert refusal(token(), "m.other") == (403, "other-tenant")
    assert refusal(token(access=[{"collection": f"{ALIAS}@a", "access": "prw"}])) == (403, "other-tenant")
    assert refusal(token(access="m")) == (403, "other-tenant")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"subject": None}, 401),
        ({"subject": 7}, 401),
        ({"subject": UID}, 401),
        ({"subject": "/indexer"}, 401),
        ({"subject": f"{UID}/"}, 401),
        ({"cell": None}, 403),
        ({"enforcedBy": "Database"}, 401),
        ({"enforcedBy": ""}, 401),
        ({"enforcedBy": ["Gateway"]}, 401),
        ({"value_exists": {"collection": REGISTER, "matches": []}}, 401),
        ({"value_exists": {"collection": REGISTER, "matches": [{"key": "uid", "value": UID}]}}, 401),
        ({"value_exists": {"collection": REGISTER, "matches": [{"key": "token", "value": 1}]}}, 401),
        ({"value_exists": {"collection": 1, "matches": [{"key": "token", "value": "x"}]}}, 401),
        ({"value_exists": {"matches": [{"key": "token", "value": "x"}]}}, 401),
        (
            {
                "value_exists": {
                    "collection": REGISTER,
                    "matches": [{"key": "token", "value": "x"}, {"key": "token", "value": "y"}],
                }
            },
            401,
        ),
        ({"value_exists": "x"}, 401),
    ],
)
def test_claims_that_say_too_little_are_refused_though_the_signature_is_genuine(
    changes: dict[str, Any], status: int
) -> None:
    assert refusal(token(**changes))[0] == status


def test_without_a_key_nothing_is_verified_and_nothing_is_forwarded() -> None:
    assert refusal(token(), keys=()) == (503, "no-shared-credential")
    assert refusal(token(key=OTHER_KEY, enforcedBy="Database"), keys=()) == (503, "no-shared-credential")


def test_a_token_that_does_not_say_so_is_forwarded_though_a_key_of_ours_signed_it() -> None:
    """The database has never seen that key and refuses it; here it opens no shared collection."""
    text = token(enforcedBy=None)
    caller = read(text)
    assert isinstance(caller, Caller)
    assert (caller.token, caller.own) == (text, False)


@settings(deadline=None)
@given(
    st.sampled_from([None, "Gateway", "Database", "", 0, False, [], {}]), st.sampled_from([KEY, OTHER_KEY, "x" * 32])
)
def test_no_token_is_good_for_both_ways(enforced: Any, key: str) -> None:
    body = claims(enforcedBy=None) if enforced is None else {**claims(), "enforcedBy": enforced}
    text = jwt.encode(body, key, algorithm="HS256")
    try:
        caller = read(text)
    except Problem:
        assert "enforcedBy" in body
    else:
        assert isinstance(caller, VerifiedCaller if "enforcedBy" in body else Caller)
        assert isinstance(caller, Caller) or (key, enforced) == (KEY, "Gateway")
