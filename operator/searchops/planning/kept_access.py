"""The tokens of a paused tenant: what it has handed out stays valid, and nothing else of its access is changed.

A pause holds a tenant's data and declaration where they are. Were its tokens held too, its shop would go dark when
they end, and no key of its cell could ever be given up while one tenant is paused. So a Secret of ours is renewed and
signed anew as it is: with the rights that its token has, whatever the spec says by now. Entries that are new, removed
or changed wait until the pause is lifted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from searchops.planning.names import ACCESS_SECRET_TYPE
from searchops.planning.tenant_access import plan_access
from searchops.planning.tenant_facts import (
    EmitEvent,
    GrantTokens,
    PrepareRegister,
    TenantAction,
    WriteAccessSecret,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import AccessSecretState, CellState, Tier
    from searchops.api.v1alpha1.search_tenant import AccessEntry, SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts, TenantSettings

KEEPS = (PrepareRegister, GrantTokens, EmitEvent, WriteAccessSecret)


def plan_kept_access(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    cell: CellState,
    now: datetime,
    *,
    tier: Tier,
) -> tuple[TenantAction, ...]:
    """What the tokens that were handed out need to stay valid; `tier` serves the tenant now, whatever it asks for."""
    registration, signing = cell.registration, facts.signing
    known = (
        registration.api_key,
        registration.alt_api_key,
        signing.api_key if signing else "",
        facts.gateway_key or "",
    )
    keys = tuple(key for key in known if key)
    items = (_as_held(item, facts, owner, keys) for item in tenant.spec.access)
    held = tuple(entry for entry in items if entry is not None)
    spec = tenant.spec.model_copy(update={"access": held})
    names = {entry.secret_name for entry in held}
    kept = replace(facts, secrets={name: item for name, item in facts.secrets.items() if name in names})
    like = tenant.model_copy(update={"spec": spec})
    actions, _, _ = plan_access(like, kept, settings, owner, cell, now, tier=tier)
    return tuple(action for action in actions if isinstance(action, KEEPS))


def role_of(token: str, keys: tuple[str, ...]) -> Literal["Search", "Index"] | None:
    """For which role a token was signed, by what it may do; None where none of the keys has signed it.

    The Secret stands in the tenant's namespace: what is in it may be anybody's, and rights are renewed by it.
    """
    parts = token.split(".")
    if len(parts) != 3 or not any(_signed(parts, key) for key in keys):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        rights = {str(item["access"]) for item in claims["access"]}
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    if rights == {"r"}:
        return "Search"
    return "Index" if rights == {"prw"} else None


def _signed(parts: list[str], key: str) -> bool:
    made = hmac.new(key.encode(), f"{parts[0]}.{parts[1]}".encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(made).rstrip(b"="), parts[2].encode())


def _as_held(entry: AccessEntry, facts: TenantFacts, owner: Owner, keys: tuple[str, ...]) -> AccessEntry | None:
    """The entry as its Secret has it; None where there is none of ours, or what it allows cannot be told."""
    found = facts.secrets.get(entry.secret_name)
    if found is None or (found.type, found.owner_uid) != (ACCESS_SECRET_TYPE, owner.uid):
        return None
    role = role_of(found.token, keys)
    if role is None:
        return None
    direct = True if role == "Index" and found.addressed else None
    return entry.model_copy(update={"role": role, "direct": direct, "name": _entry_of(found, owner) or entry.name})


def _entry_of(found: AccessSecretState, owner: Owner) -> str:
    """The name under which the register holds the Secret's token; empty where it names none of this tenant's."""
    parts = found.token_id.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == owner.uid else ""
