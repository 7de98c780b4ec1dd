"""Credentials: one Secret per access entry with a token scoped to the tenant's alias, renewed at half life."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from searchops.api.meta import parse_time
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.conditions import Finding, no, yes
from searchops.planning.names import ACCESS_SECRET_TYPE, short_hash
from searchops.planning.schema import side_of
from searchops.planning.tenant_facts import DeleteAccessSecret, TenantAction, WriteAccessSecret

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from searchops.api.observed import CellState
    from searchops.api.v1alpha1.search_tenant import AccessEntry, SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts, TenantSettings


def token_claims(
    entry: AccessEntry, owner: Owner, cell: str, *, issued: datetime, lifetime: timedelta
) -> dict[str, Any]:
    """Claims of one entry's token.

    ``access`` is always set (a token without it has full access) and names the *alias*: the database checks the name
    in the request before it resolves aliases, so the token survives every switch. Index tokens also name both sides.
    """
    access = [{"collection": owner.alias, "access": "r" if entry.role == "Search" else "prw"}]
    if entry.role == "Index":
        access += [{"collection": side_of(owner.alias, number), "access": "prw"} for number in (0, 1)]
    return {
        "exp": int((issued + lifetime).timestamp()),
        "access": access,
        "subject": f"{owner.uid}/{entry.name}",
        "cell": cell,
    }


def inputs_digest(entry: AccessEntry, owner: Owner, cell: CellState, settings: TenantSettings) -> str:
    """What a Secret's content follows from; the key enters as a hash of a hash, never in a form to be guessed from."""
    key = hashlib.sha256(b"searchops access\0" + cell.registration.api_key.encode()).hexdigest()
    registration = cell.registration
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
) -> tuple[list[TenantAction], tuple[Finding, ...], dict[str, object]]:
    """Secrets to write or remove, the condition, and the fields of the status that follow."""
    actions: list[TenantAction] = []
    conflicts = []
    wanted = {entry.secret_name for entry in tenant.spec.access}
    for entry in tenant.spec.access:
        digest = inputs_digest(entry, owner, cell, settings)
        found = facts.secrets.get(entry.secret_name)
        if found is not None and not found.held_by(ACCESS_SECRET_TYPE, owner.uid, owner.name):
            conflicts.append(f"{entry.secret_name} (type {found.type})")
        elif found is None or found.inputs_digest != digest or _due(found.renew_at, now):
            actions.append(WriteAccessSecret(entry, digest))
    for name in tenant.status.access_secrets:
        held = facts.secrets.get(name)
        if name not in wanted and held is not None and (held.type, held.owner_uid) == (ACCESS_SECRET_TYPE, owner.uid):
            actions.append(DeleteAccessSecret(name))
    status: dict[str, object] = {"access_secrets": tuple(sorted(wanted))}
    if conflicts:
        message = (
            f"spec.access: the Secret name {', '.join(conflicts)} is taken by something else in namespace "
            f"{owner.namespace}; it is never merged into; choose another secretName or remove that Secret"
        )
        return actions, (no("AccessReady", TenantReason.SECRET_CONFLICT, message),), status
    message = f"{len(wanted)} Secrets hold tokens on {owner.alias}"
    return actions, (yes("AccessReady", TenantReason.TOKENS_ISSUED, message),), status


def _due(text: str, now: datetime) -> bool:
    try:
        return parse_time(text) <= now
    except ValueError:
        return True
