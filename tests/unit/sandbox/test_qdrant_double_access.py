"""Keys and tokens of the double, without a process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from searchops_sandbox.qdrant.access import Access, Authenticator, Need
from searchops_sandbox.qdrant.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY = "first-key-of-at-least-32-characters"
ALT = "second-key-of-at-least-32-character"


def never(name: str, matches: Sequence[Mapping[str, Any]]) -> bool:
    raise AssertionError("no token here claims value_exists")


def token(key: str = KEY, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {jwt.encode(claims, key, algorithm='HS256')}"}


def authenticate(headers: dict[str, str], *keys: str) -> Access:
    return Authenticator(keys or (KEY, ALT), never).authenticate(headers)


def refused(headers: dict[str, str], *keys: str) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        authenticate(headers, *keys)
    assert refusal.value.plain
    return refusal.value


def allowed(access: Access, name: str, need: Need) -> bool:
    try:
        access.check(name, need)
    except ApiError as error:
        assert error.status == 403
        return False
    return True


@pytest.mark.parametrize("key", [KEY, ALT])
def test_both_keys_and_tokens_of_both_keys_are_accepted(key: str) -> None:
    assert authenticate({"api-key": key}).level == "m"
    assert authenticate({"authorization": f"Bearer {key}"}).level == "m"
    assert authenticate(token(key, access="r")).level == "r"


def test_a_dropped_key_revokes_its_tokens() -> None:
    assert refused(token(ALT, access="r"), KEY).status == 403
    assert refused({"api-key": ALT}, KEY).status == 401


def test_without_keys_everyone_is_admitted() -> None:
    assert Authenticator((), never).authenticate({}).level == "m"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"api-key": "guess"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer not.a.token"}, 401),
        ({"authorization": f"Bearer {jwt.encode({'access': 'm'}, '', algorithm='none')}"}, 401),
        (token("an-unknown-key-of-at-least-32-chars", access="m"), 403),
        (token(access="x"), 401),
        (token(access=[{"collection": "a", "access": "all"}]), 401),
        (token(access=[{"collection": "a", "access": "r", "payload": {"t": 1}}]), 401),
        (token(access="r", exp=int(time.time()) - 60), 403),
        (token(access="r", surprise=True), 401),
    ],
)
def test_refusals(headers: dict[str, str], status: int) -> None:
    assert refused(headers).status == status


def test_expiry_has_thirty_seconds_of_leeway() -> None:
    assert authenticate(token(access="r", exp=int(time.time()) - 20)).level == "r"


def test_no_access_claim_is_full_access() -> None:
    assert authenticate(token(subject="x")).level == "m"


@pytest.mark.parametrize(
    ("granted", "needs"),
    [
        ("r", {Need.READ, Need.EXTRAS}),
        ("prw", {Need.READ, Need.POINTS}),
        ("rw", {Need.READ, Need.EXTRAS, Need.POINTS, Need.MANAGE}),
    ],
)
def test_collection_rights(granted: str, needs: set[Need]) -> None:
    access = authenticate(token(access=[{"collection": "a", "access": granted}]))
    assert {need for need in Need if allowed(access, "a", need)} == needs
    assert not any(allowed(access, "b", need) for need in Need)
    assert access.sees("a")
    assert not access.sees("b")
    with pytest.raises(ApiError):
        access.check_global(manage=False)


def test_global_rights() -> None:
    reader, manager = authenticate(token(access="r")), authenticate(token(access="m"))
    reader.check_global(manage=False)
    with pytest.raises(ApiError):
        reader.check_global(manage=True)
    manager.check_global(manage=True)
    assert {need for need in Need if allowed(reader, "any", need)} == {Need.READ, Need.EXTRAS}
    assert all(allowed(manager, "any", need) for need in Need)


@pytest.mark.parametrize("there", [True, False])
def test_value_exists_asks_the_named_collection(there: bool) -> None:
    asked = []

    def lookup(name: str, matches: Sequence[Mapping[str, Any]]) -> bool:
        asked.append((name, list(matches)))
        return there

    claim = {"collection": "tokens", "matches": [{"key": "jti", "value": "7"}]}
    authenticator = Authenticator((KEY,), lookup)
    if there:
        assert authenticator.authenticate(token(access="r", value_exists=claim)).level == "r"
    else:
        with pytest.raises(ApiError):
            authenticator.authenticate(token(access="r", value_exists=claim))
    assert asked == [("tokens", [{"key": "jti", "value": "7"}])]
