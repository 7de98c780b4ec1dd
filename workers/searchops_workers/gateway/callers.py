"""Who calls: the tenant's token says which alias and which cell; the database alone decides whether it is genuine.

The gateway holds no key of any cell and verifies nothing: it forwards the token with every request, so it can read
nothing that the caller cannot.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import jwt

from searchops_workers.gateway.problems import Problem

MAX_TOKEN_BYTES = 8_192
TENANT = re.compile(
    r"^(?P<namespace>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)\.(?P<name>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$"
)
WRITE = "prw"


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's credentials.

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


def read_caller(tenant: str, authorization: str | None) -> Caller:
    """The caller of a request to a tenant's path.

    Raises:
        Problem: 401 without a readable token, 403 where it opens another tenant, 404 for a path that names none.
    """
    if TENANT.match(tenant) is None:
        raise Problem(404, f"{tenant!r} names no tenant; wanted <namespace>.<name>", code="no-such-tenant")
    token = _bearer(authorization)
    claims = _claims(token)
    collections = _collections(claims)
    alias = next((name for name in collections if _is_alias_of(name, tenant)), None)
    if alias is None:
        raise Problem(
            403,
            f"the token does not open tenant {tenant}; use the token of that tenant's own Secret",
            code="other-tenant",
        )
    cell = claims.get("cell")
    if not isinstance(cell, str) or not cell:
        raise Problem(
            403,
            "the token has no claim `cell`: it was not issued for the gateway; use the tenant's access Secret",
            code="not-a-gateway-token",
        )
    return Caller(tenant, alias, cell, collections, token)


def require_write(caller: Caller) -> None:
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
