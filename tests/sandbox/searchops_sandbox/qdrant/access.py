"""API keys and HS256 tokens: who may do what to which *name* (the check comes before alias resolution)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import jwt

from searchops_sandbox.qdrant.errors import ApiError, forbidden

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LEEWAY_SECONDS = 30
"""How long a token outlives its `exp`, as the server grants."""

_KNOWN_CLAIMS = frozenset(
    {"exp", "access", "value_exists", "subject", "iat", "nbf", "iss", "aud", "sub", "jti", "cell"}
)


class Need(Enum):
    """What a request wants of a collection."""

    READ = "read points and the collection's description"
    EXTRAS = "read cluster information and snapshots"
    POINTS = "write points"
    MANAGE = "write indexes, vectors and snapshots"


def _plain(status: int, message: str) -> ApiError:
    return ApiError(status, message, plain=True)


@dataclass(frozen=True)
class Access:
    """Rights of one request: global (`r` or `m`), or by collection name (`r`, `rw` or `prw`)."""

    level: str | None
    collections: Mapping[str, str]

    def check_global(self, *, manage: bool) -> None:
        """Require access to the whole server.

        Raises:
            ApiError: 403.
        """
        if self.level is None:
            raise forbidden("Global access is required")
        if manage and self.level != "m":
            raise forbidden("Global manage access is required")

    def check(self, name: str, need: Need) -> None:
        """Require `need` on the collection or alias exactly as the request names it.

        Raises:
            ApiError: 403.
        """
        writes = need in {Need.POINTS, Need.MANAGE}
        if self.level is not None:
            if writes and self.level != "m":
                raise forbidden("Global manage access is required")
            return
        granted = self.collections.get(name)
        if granted is None:
            raise forbidden(f"Access to collection {name} is required")
        if need in {Need.EXTRAS, Need.MANAGE} and granted == "prw":
            raise forbidden(f"Only points access is allowed for collection {name}")
        if writes and granted == "r":
            raise forbidden(f"Write access to collection {name} is required")

    def sees(self, name: str) -> bool:
        """Whether listings show this collection."""
        return self.level is not None or name in self.collections


FULL = Access(level="m", collections={})


class Authenticator:
    """Checks the `api-key` header or the bearer token of a request.

    Args:
        keys: every accepted key; tokens signed with any of them verify. Empty: no authentication at all.
        value_exists: tells whether a collection holds a point with the given payload values.
    """

    def __init__(self, keys: Sequence[str], value_exists: Callable[[str, Sequence[Mapping[str, Any]]], bool]) -> None:
        self._keys = tuple(keys)
        self._value_exists = value_exists

    def accept(self, keys: Sequence[str]) -> None:
        """Accept exactly these keys from now on."""
        self._keys = tuple(keys)

    def authenticate(self, headers: Mapping[str, str]) -> Access:
        """Return the rights that the credentials give.

        Raises:
            ApiError: 401 or 403, plain text.
        """
        if not self._keys:
            return FULL
        credential = headers.get("api-key")
        if credential is None:
            authorization = headers.get("authorization", "")
            scheme, _, value = authorization.partition(" ")
            credential = value.strip() if scheme.lower() == "bearer" else None
        if not credential:
            raise _plain(401, "Must provide an API key or an Authorization bearer token")
        if any(hmac.compare_digest(credential.encode(), key.encode()) for key in self._keys):
            return FULL
        claims = self._decode(credential)
        access = _parse_access(claims)
        if "value_exists" in claims and not self._holds(claims["value_exists"]):
            raise _plain(401, "Invalid JWT, stateful validation failed")
        return access

    def _decode(self, token: str) -> dict[str, Any]:
        failures: list[ApiError] = []
        for key in self._keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=["HS256"],
                    leeway=LEEWAY_SECONDS,
                    options={"verify_aud": False, "verify_iat": False, "verify_nbf": False, "verify_sub": False},
                )
                return claims
            except jwt.ExpiredSignatureError:
                failures.append(_plain(403, "ExpiredSignature"))
            except jwt.InvalidSignatureError:
                failures.append(_plain(403, "InvalidSignature"))
            except jwt.InvalidTokenError:
                continue
        raise failures[0] if failures else _plain(401, "Invalid API key or JWT")

    def _holds(self, claim: Any) -> bool:
        if not isinstance(claim, dict) or not isinstance(claim.get("collection"), str):
            raise _plain(401, "value_exists: missing field `collection`")
        matches = claim.get("matches")
        if not isinstance(matches, list) or not all(
            isinstance(m, dict) and {"key", "value"} <= set(m) for m in matches
        ):
            raise _plain(401, "value_exists: missing field `matches`")
        return self._value_exists(claim["collection"], matches)


def _parse_access(claims: Mapping[str, Any]) -> Access:
    unknown = set(claims) - _KNOWN_CLAIMS
    if unknown:
        raise _plain(401, f"claim {sorted(unknown)[0]!r} is not known to the double, which ignores no claim silently")
    access = claims.get("access")
    if access is None:
        return FULL
    if isinstance(access, str):
        if access not in {"r", "m"}:
            raise _plain(401, f"access: unknown variant `{access}`, expected `r` or `m`")
        return Access(level=access, collections={})
    if not isinstance(access, list):
        raise _plain(401, "access: data did not match any variant")
    granted: dict[str, str] = {}
    for index, entry in enumerate(access):
        if not isinstance(entry, dict) or entry.get("access") not in {"r", "rw", "prw"} or "collection" not in entry:
            raise _plain(401, f"access[{index}]: expected collection and access r, rw or prw")
        if "payload" in entry:
            raise _plain(401, f"access[{index}].payload: The 'payload' constraint is deprecated and should not be used")
        granted[str(entry["collection"])] = entry["access"]
    return Access(level=None, collections=granted)
