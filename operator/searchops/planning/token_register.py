"""The register of valid tokens on a cell: while an entry's point is there, its tokens open something; else nothing.

A token names its point's value in ``value_exists``. The value is made anew whenever an entry has no Secret of ours, so
that deleting a Secret, or an entry that comes back under an old name, leaves no older token valid. What the value is
can be read from the Secret too: a register that was lost is filled again with the values that clients hold.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.observed import TokenGrant
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.names import ACCESS_SECRET_TYPE, is_gateway_key, short_hash, tokens_collection
from searchops.planning.tenant_facts import (
    DeleteAccessSecret,
    EmitEvent,
    GrantTokens,
    PrepareRegister,
    RevokeTokens,
    TenantAction,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import AccessSecretState, CellState, Tier
    from searchops.api.v1alpha1.search_tenant import AccessEntry, SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts

TOKEN_KEY = "token"  # noqa: S105 - the payload key that tokens are looked up by
_SPACE = uuid.UUID("6f3b2a1e-7c54-4a0e-9f0d-5b8f1d0c2e77")


@dataclass(frozen=True, slots=True)
class RegisterStep:
    """What the register needs before tokens are signed.

    Attributes:
        actions: in order; a revocation comes before the Secret goes.
        values: by entry, what its token must claim.
        conflict: why nothing may be signed on this cell; empty where it may.
    """

    actions: tuple[TenantAction, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    conflict: str = ""

    def value(self, entry: str) -> str:
        """What the entry's token claims; empty without a register."""
        return dict(self.values).get(entry, "")


def grant_id(uid: str, entry: str) -> str:
    """The point of an entry: one each, so that writing a new value takes the old one back."""
    return str(uuid.uuid5(_SPACE, f"{uid}/{entry}"))


def value_claim(fleet: str, value: str) -> dict[str, object]:
    """The claim ``value_exists`` for a value of this fleet's register."""
    return {"collection": tokens_collection(fleet), "matches": [{"key": TOKEN_KEY, "value": value}]}


def plan_register(
    tenant: SearchTenant, facts: TenantFacts, owner: Owner, cell: CellState, now: datetime, *, tier: Tier = "Collection"
) -> RegisterStep:
    """Points to write and to remove. Called only where tokens are revocable.

    A value is made anew where the tenant has moved to or from the shared tiers: what the other key has signed ends.
    """
    register = facts.register
    if register is None:
        return RegisterStep(conflict="the register of tokens could not be read; no token is signed until it can")
    expected = facts.identity.at(cell.name)
    if register.exists and register.owner != expected:
        return RegisterStep(
            conflict=f"collection {tokens_collection(owner.fleet)} on cell {cell.name} is not this operator's register "
            f"of tokens (its metadata says {register.owner}, wanted {expected}); it is not written; rename or drop it "
            "by hand, and it is made anew"
        )
    actions: list[TenantAction] = []
    if not (register.exists and register.indexed) and tenant.spec.access:
        actions.append(PrepareRegister(expected, len(cell.registration.urls)))
        if tenant.status.access_secrets and not register.exists:
            actions.append(EmitEvent(TenantReason.TOKEN_REGISTER_LOST, _lost(owner, cell), warning=True))
    held = {grant.entry: grant for grant in register.grants}
    wanted = {entry.name: entry for entry in tenant.spec.access}
    # A former object's token of an entry that is still wanted may end by itself: its clients go on while they read the
    # new Secret. One of an entry that is gone was to be refused at once, whichever object removed it.
    stale = [grant for grant in (*register.grants, *register.former) if grant.entry not in wanted]
    values, wishes = [], []
    for entry in tenant.spec.access:
        secret = facts.secrets.get(entry.secret_name)
        value = _kept_value(secret, owner, entry, tier) or _new_value(owner, entry, now)
        values.append((entry.name, value))
        if secret is not None and not _ours(secret, owner):
            continue  # a conflict: no token is signed for it
        wish = TokenGrant(grant_id(owner.uid, entry.name), value, owner.uid, entry.name, entry.secret_name)
        if held.get(entry.name) != wish:
            wishes.append(wish)
    if wishes:
        actions.append(GrantTokens(tuple(wishes)))
    if stale:
        actions.append(RevokeTokens(tuple(sorted(grant.id for grant in stale))))
    names = {entry.secret_name for entry in tenant.spec.access}
    left = sorted({grant.secret for grant in register.grants} - names)
    actions += [DeleteAccessSecret(name) for name in left if _ours(facts.secrets.get(name), owner)]
    return RegisterStep(tuple(actions), tuple(values))


def _lost(owner: Owner, cell: CellState) -> str:
    return (
        f"collection {tokens_collection(owner.fleet)} is gone from cell {cell.name}: its database refuses every "
        "tenant's token until the collection is back; it is made anew now, and each tenant enters its tokens again"
    )


def _ours(secret: AccessSecretState | None, owner: Owner) -> bool:
    return secret is not None and (secret.type, secret.owner_uid) == (ACCESS_SECRET_TYPE, owner.uid)


def _kept_value(secret: AccessSecretState | None, owner: Owner, entry: AccessEntry, tier: Tier) -> str:
    """The value that clients of this Secret hold; one that names another entry was copied, and is not taken."""
    if secret is None or not _ours(secret, owner) or is_gateway_key(secret.key_id) != (tier != "Collection"):
        return ""
    return secret.token_id if secret.token_id.startswith(f"{owner.uid}/{entry.name}/") else ""


def _new_value(owner: Owner, entry: AccessEntry, now: datetime) -> str:
    return f"{owner.uid}/{entry.name}/{short_hash(owner.uid, entry.name, format_time(now), length=12)}"
