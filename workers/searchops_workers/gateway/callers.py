"""Who calls: the tenant's token says which alias and which cell, and who judges whether it is genuine.

Most tokens are signed by a cell's key, which the gateway does not hold: it verifies nothing of them and forwards them
with every request, so that it can read nothing that the caller cannot. Those of tenants that share a collection say
``enforcedBy: Gateway`` and are signed by a key of the gateway's. It verifies them, and they go no further: the caller
that comes of one has no token to forward. What says ``enforcedBy`` is never forwarded, and what does not is never
verified, so that no token is good for both.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import jwt

from searchops.api.shared import ENFORCED_BY_GATEWAY
from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKEN_BYTES = 8_192
TENANT = re.compile(
    r"^(?P<namespace>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)\.(?P<name>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$"
)
WRITE = "prw"
ENFORCED_BY = "enforcedBy"
LEEWAY_SECONDS = 30
"""How long a token outlives its ``exp``: as much as the database grants."""
REGISTERED_KEY = "token"


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's credentials, which the database judges.

    Attributes:
        tenant: ``<namespace>.<name>`` of the path.
        alias: the tenant's alias, as the token names it.
        cell: the cell's name, as the token names it.
        collections: every name that the token opens, with its right.
    """

    tenant: str
    alias: str
    cell: str
    collections: dict[str, str]
    token: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Stands for the token where it must not be kept."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    @property
    def may_write(self) -> bool:
        """Whether the token claims the right to write points."""
        return self.collections.get(self.alias) == WRITE

    @property
    def own(self) -> bool:
        """The token is the caller's."""
        return False

    def scope(self, side: str) -> Scope:
        """All of what a name of the tenant points to, as far as the database lets the token."""
        return Scope.whole(side)


@dataclass(frozen=True, slots=True)
class Registration:
    """What must stand in a cell's register for a token to be valid.

    Attributes:
        collection: the register, as the token names it.
        value: of the token's entry.
    """

    collection: str
    value: str


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """A caller whose token we verified, without the token.

    Attributes:
        tenant: ``<namespace>.<name>`` of the path.
        alias: the tenant's alias, as the token names it.
        cell: the cell's name, as the token names it.
        uid: of the SearchTenant.
        entry: its access entry.
        may_write: whether the token has the right to write points.
        registration: None where the token was signed while tokens were not revocable.
    """

    tenant: str
    alias: str
    cell: str
    uid: str
    entry: str
    may_write: bool
    registration: Registration | None


AnyCaller: TypeAlias = Caller | VerifiedCaller


def read_caller(tenant: str, authorization: str | None, keys: Sequence[str] = ()) -> AnyCaller:
    """The caller of a request to a tenant's path.

    Args:
        tenant: of the path.
        authorization: the header.
        keys: of the gateway's; a token that says so must be signed by one of them.

    Raises:
        Problem: 401 without a readable or genuine token, 403 where it opens another tenant, 404 for a path that names
            none, 503 where there is no key to verify with.
    """
    if TENANT.match(tenant) is None:
        raise Problem(404, f"{tenant!r} names no tenant; wanted <namespace>.<name>", code="no-such-tenant")
    token = _bearer(authorization)
    claims = _claims(token)
    if ENFORCED_BY in claims:
        return _verified_caller(tenant, _verified(token, keys))
    collections, alias = _opened(claims, tenant)
    return Caller(tenant, alias, _cell(claims), collections, token)


def _verified_caller(tenant: str, claims: dict[str, Any]) -> VerifiedCaller:
    if claims.get(ENFORCED_BY) != ENFORCED_BY_GATEWAY:
        raise _bad(f"claim `{ENFORCED_BY}` is not {ENFORCED_BY_GATEWAY!r}")
    collections, alias = _opened(claims, tenant)
    subject = claims.get("subject")
    uid, slash, entry = subject.partition("/") if isinstance(subject, str) else ("", "", "")
    if not uid or not slash or not entry:
        raise _bad("claim `subject` names no uid and entry")
    registration = _registration(claims["value_exists"]) if "value_exists" in claims else None
    return VerifiedCaller(tenant, alias, _cell(claims), uid, entry, collections.get(alias) == WRITE, registration)


def _verified(token: str, keys: Sequence[str]) -> dict[str, Any]:
    """The claims of a token that one of our keys signed, and that has not ended.

    Raises:
        Problem: 401, or 503 without a key.
    """
    if not keys:
        raise Problem(
            503,
            "the token is one of a tenant that shares a collection, and this gateway has no key to verify it with; "
            "wait until the operator has written it, or see SEARCHOPS_GATEWAY_CREDENTIALS and the chart's "
            "gateway.credentialsSecret",
            code="no-shared-credential",
            retry_after=10,
        )
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=["HS256"], leeway=LEEWAY_SECONDS, options={"require": ["exp"]}
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.ExpiredSignatureError as error:
            raise Problem(
                401,
                "the token has ended; use the one that stands in the tenant's Secret now, which is renewed in time",
                code="token-expired",
            ) from error
        except jwt.PyJWTError as error:
            raise _bad(type(error).__name__) from error
        return claims
    raise _bad("no key of this gateway signed it")


def _bad(seen: str) -> Problem:
    return Problem(
        401, f"the token is not valid: {seen}; use the value of `token` in the tenant's Secret", code="bad-credentials"
    )


def _registration(claim: Any) -> Registration:
    """The claim ``value_exists`` as the operator writes it: one register, one value."""
    matches = claim.get("matches") if isinstance(claim, dict) else None
    match = matches[0] if isinstance(matches, list) and len(matches) == 1 else None
    if isinstance(match, dict) and match.get("key") == REGISTERED_KEY and isinstance(claim.get("collection"), str):
        value = match.get("value")
        if isinstance(value, str) and value:
            return Registration(claim["collection"], value)
    raise _bad("claim `value_exists` names no value of a register")


def _opened(claims: dict[str, Any], tenant: str) -> tuple[dict[str, str], str]:
    """Every name that a token opens, and the tenant's alias among them.

    Raises:
        Problem: 403 where the token opens another tenant.
    """
    collections = _collections(claims)
    alias = next((name for name in collections if _is_alias_of(name, tenant)), None)
    if alias is None:
        raise Problem(
            403,
            f"the token does not open tenant {tenant}; use the token of that tenant's own Secret",
            code="other-tenant",
        )
    return collections, alias


def _cell(claims: dict[str, Any]) -> str:
    cell = claims.get("cell")
    if not isinstance(cell, str) or not cell:
        raise Problem(
            403,
            "the token has no claim `cell`: it was not issued for the gateway; use the tenant's access Secret",
            code="not-a-gateway-token",
        )
    return cell


def require_write(caller: AnyCaller) -> None:
    """Refuse a token that only reads before anything is encoded for it.

    Raises:
        Problem: 403.
    """
    if not caller.may_write:
        raise Problem(
            403,
            "the token may search and not write; use the Secret of an access entry with role Index",
            code="read-only-token",
        )


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Problem(401, "wanted the header `Authorization: Bearer <the tenant's token>`", code="no-credentials")
    if len(token) > MAX_TOKEN_BYTES:
        raise Problem(401, f"the token is longer than {MAX_TOKEN_BYTES} bytes", code="bad-credentials")
    return token


def _claims(token: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise Problem(
            401,
            "the token is no JSON Web Token; use the value of `token` in the tenant's Secret",
            code="bad-credentials",
        ) from error
    return claims


def _collections(claims: dict[str, Any]) -> dict[str, str]:
    access = claims.get("access")
    if not isinstance(access, list):
        return {}
    return {
        str(entry["collection"]): str(entry.get("access", ""))
        for entry in access
        if isinstance(entry, dict) and isinstance(entry.get("collection"), str)
    }


def _is_alias_of(alias: str, tenant: str) -> bool:
    """``<fleet>.<namespace>.<name>``: the fleet is one label, so the rest must be the whole tenant."""
    fleet, _, rest = alias.partition(".")
    return bool(fleet) and rest == tenant
