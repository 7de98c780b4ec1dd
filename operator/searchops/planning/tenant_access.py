"""Credentials: one Secret per access entry with a token scoped to the tenant's alias, renewed at half life."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from searchops.api.meta import parse_time
from searchops.api.shared import ENFORCED_BY_GATEWAY
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import Finding, find, no, unknown, yes
from searchops.planning.names import ACCESS_SECRET_TYPE, GATEWAY_KEY, short_hash
from searchops.planning.schema import side_of
from searchops.planning.tenant_facts import DeleteAccessSecret, GrantTokens, TenantAction, WriteAccessSecret
from searchops.planning.token_register import RegisterStep, plan_register, value_claim

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from searchops.api.observed import AccessSecretState, CellState, Tier
    from searchops.api.v1alpha1.search_tenant import AccessEntry, SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts, TenantSettings


def token_claims(
    entry: AccessEntry,
    owner: Owner,
    cell: str,
    *,
    issued: datetime,
    lifetime: timedelta,
    token_id: str = "",
    tier: Tier = "Collection",
) -> dict[str, Any]:
    """Claims of one entry's token.

    ``access`` is always set (a token without it has full access) and names the *alias*: the database checks the name
    in the request before it resolves aliases, so the token survives every switch. Index tokens also name both sides.

    Args:
        entry: whose token it is.
        owner: the tenant.
        cell: name of its cell, for the gateway.
        issued: from when the lifetime counts.
        lifetime: how long it is valid.
        token_id: the entry's value in the cell's register; while the register holds it the token is valid.
        tier: of the tenant. A shared one's token is for the gateway: no database has the key that signs it, and none
            knows the name that it opens.
    """
    access = [{"collection": owner.alias, "access": "r" if entry.role == "Search" else "prw"}]
    if entry.role == "Index" and tier == "Collection":
        access += [{"collection": side_of(owner.alias, number), "access": "prw"} for number in (0, 1)]
    claims: dict[str, Any] = {
        "exp": int((issued + lifetime).timestamp()),
        "access": access,
        "subject": f"{owner.uid}/{entry.name}",
        "cell": cell,
    }
    if tier != "Collection":
        claims["enforcedBy"] = ENFORCED_BY_GATEWAY
    if token_id:
        claims["value_exists"] = value_claim(owner.fleet, token_id)
    return claims


def key_id(key: str, tier: Tier = "Collection") -> str:
    """Names a key without telling anything of it: a hash of a hash, and keys are 32 bytes or longer."""
    inner = hashlib.sha256(b"searchops access\0" + key.encode()).hexdigest()
    name = hashlib.sha256(f"key id\0{inner}".encode()).hexdigest()[:16]
    return name if tier == "Collection" else f"{GATEWAY_KEY}{name}"


def inputs_digest(
    entry: AccessEntry,
    owner: Owner,
    cell: CellState,
    settings: TenantSettings,
    *,
    signing: str | None = None,
    tier: Tier = "Collection",
) -> str:
    """What a Secret's content follows from; the key enters as a hash of a hash, never in a form to be guessed from.

    Args:
        entry: whose Secret it is.
        owner: the tenant.
        cell: the tenant's cell.
        settings: the operator's.
        signing: the key that signs its token; the cell's apiKey where none is given.
        tier: of the tenant.
    """
    registration = cell.registration
    signed_with = registration.api_key if signing is None else signing
    key = hashlib.sha256(b"searchops access\0" + signed_with.encode()).hexdigest()
    parts = (
        entry.role,
        owner.alias,
        owner.uid,
        cell.name,
        settings.gateway_url,
        ",".join(registration.urls),
        str(registration.grpc_port),
        registration.ca_cert or "",
        str(settings.token_lifetime),
        key,
        *(("revocable",) if settings.revocable else ()),
        *(("direct",) if entry.direct else ()),
        *((tier,) if tier != "Collection" else ()),
    )
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def renew_at(owner: Owner, entry: AccessEntry, issued: datetime, lifetime: timedelta) -> datetime:
    """Half of the lifetime, earlier by up to a tenth by uid, so that a fleet does not renew at once."""
    jitter = int(short_hash(owner.uid, entry.name, length=6), 16) / 0xFFFFFF
    return issued + lifetime * (0.5 - 0.1 * jitter)


def plan_access(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    cell: CellState,
    now: datetime,
    *,
    tier: Tier = "Collection",
) -> tuple[list[TenantAction], tuple[Finding, ...], dict[str, object]]:
    """Secrets to write or remove, the condition, and the fields of the status that follow; `tier` serves it now."""
    register = plan_register(tenant, facts, owner, cell, now, tier=tier) if settings.revocable else RegisterStep()
    wanted = {entry.secret_name for entry in tenant.spec.access}
    status: dict[str, object] = {"access_secrets": tuple(sorted(wanted))}
    if register.conflict:
        return [], (no("AccessReady", TenantReason.CONFLICT, register.conflict),), status
    withheld = tier != "Collection" and facts.gateway_key is None
    actions: list[TenantAction] = [
        action for action in register.actions if not (withheld and isinstance(action, GrantTokens))
    ]
    conflicts = []
    for entry in tenant.spec.access:
        found = facts.secrets.get(entry.secret_name)
        digests = _digests(entry, owner, cell, settings, facts, tier)
        if found is not None and not found.held_by(ACCESS_SECRET_TYPE, owner.uid, owner.name):
            conflicts.append(f"{entry.secret_name} (type {found.type})")
        elif not withheld and (
            found is None
            or found.inputs_digest not in digests
            or found.token_id != register.value(entry.name)
            or _due(found.renew_at, now)
        ):
            actions.append(WriteAccessSecret(entry, digests[0], register.value(entry.name), tier))
    removed = {action.name for action in actions if isinstance(action, DeleteAccessSecret)}
    for name in tenant.status.access_secrets:
        if name not in wanted and name not in removed and _ours(facts.secrets.get(name), owner):
            actions.append(DeleteAccessSecret(name))
    if conflicts:
        message = (
            f"spec.access: the Secret name {', '.join(conflicts)} is taken by something else in namespace "
            f"{owner.namespace}; it is never merged into; choose another secretName or remove that Secret"
        )
        return actions, (no("AccessReady", TenantReason.SECRET_CONFLICT, message),), status
    if withheld and tenant.spec.access:
        return actions, (_withheld(tenant),), status
    message = f"{len(wanted)} Secrets hold tokens on {owner.alias}{_direct(tenant)}"
    return actions, (yes("AccessReady", TenantReason.TOKENS_ISSUED, message),), status


def _withheld(tenant: SearchTenant) -> Finding:
    """Nothing is signed before the gateway's key is read, as after each start; what was handed out holds meanwhile."""
    before = find(tenant.status.conditions, "AccessReady")
    if before is not None and before.status == "True":
        return Finding(before.type, before.status, TenantReason(before.reason), before.message)
    message = "the gateway's key is not read yet; no token is signed until it is"
    return unknown("AccessReady", TenantReason.WAITING, message)


def direct_writers(tenant: SearchTenant) -> tuple[str, ...]:
    """Entries that write to the database themselves: they know only the alias, so no side of a rebuild gets it all."""
    return tuple(entry.name for entry in tenant.spec.access if entry.direct and entry.role == "Index")


def _direct(tenant: SearchTenant) -> str:
    names = direct_writers(tenant)
    if not names:
        return ""
    return (
        f"; {', '.join(names)} may write to the database itself (direct: true), which a rebuild's other side does not "
        "see: every cutover is Manual, for a person who has stopped or repeated those writes"
    )


def _digests(
    entry: AccessEntry, owner: Owner, cell: CellState, settings: TenantSettings, facts: TenantFacts, tier: Tier
) -> tuple[str, ...]:
    """What the Secret may say that it was made from; the first is how it is made now.

    While it is not known how far a rotation has come, a token of either key is left as it is.
    """
    registration, signing = cell.registration, facts.signing
    if tier != "Collection":
        keys: tuple[str, ...] = (facts.gateway_key or "",)
    elif signing is not None:
        keys = (signing.api_key,)
    else:
        keys = tuple(key for key in (registration.api_key, registration.alt_api_key) if key)
    return tuple(inputs_digest(entry, owner, cell, settings, signing=key, tier=tier) for key in keys)


def _ours(found: AccessSecretState | None, owner: Owner) -> bool:
    return found is not None and (found.type, found.owner_uid) == (ACCESS_SECRET_TYPE, owner.uid)


def _due(text: str, now: datetime) -> bool:
    try:
        return parse_time(text) <= now
    except ValueError:
        return True
