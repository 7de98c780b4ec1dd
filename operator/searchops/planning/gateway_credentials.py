"""What the gateway is given to serve tenants that share collections: keys of its own, and a token for each cell.

A cell's token names its shared collections and the register of valid tokens, and nothing else. It is signed anew when
one of those is added, when the cell's key changes, and at half of its lifetime. Where a cell does not answer, what the
gateway has stays as it is: unknown is no reason to take anything away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import format_time, parse_time
from searchops.api.observed import CellIdentity
from searchops.api.shared import CellCredential, CellNote, GatewayCredentials, HeldCredentials, Notes
from searchops.planning.names import tokens_collection
from searchops.planning.tenant_access import key_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CellState

SUBJECT = "gateway"
MOUNT_LAG = timedelta(minutes=10)
"""How long a new key is only accepted: a mounted Secret reaches the gateway's Pods within about two minutes."""


@dataclass(frozen=True, slots=True)
class CredentialPlan:
    """What the Secret should hold.

    Attributes:
        kept: credentials of cells that stay as they are.
        signed: claims of those that are signed anew.
        changed: whether anything is to be written.
    """

    keys: tuple[str, ...] = field(repr=False)
    notes: Notes
    kept: Mapping[str, CellCredential]
    signed: Mapping[str, Mapping[str, Any]]
    changed: bool


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """What credentials depend on; `revocable` as in `TenantSettings`."""

    fleet: str
    lifetime: timedelta
    revocable: bool


def plan_credentials(
    held: HeldCredentials | None,
    cells: Mapping[str, CellState],
    signing: Mapping[str, CellRegistration | None],
    cluster: str,
    settings: CredentialSettings,
    now: datetime,
    new_key: str,
) -> CredentialPlan:
    """Decide what the gateway needs.

    Args:
        held: what it has; None where there is no Secret.
        cells: every registered cell as it answered.
        signing: each cell with the key that signs now; None while a rotation is not decided.
        cluster: identity of this Kubernetes cluster.
        settings: the operator's.
        now: the time of the round.
        new_key: used where there is no key, or where a person wants another.
    """
    before = held or HeldCredentials(GatewayCredentials(), Notes())
    keys, since = _keys(before, settings, now, new_key)
    kept: dict[str, CellCredential] = {}
    signed: dict[str, dict[str, Any]] = {}
    notes: dict[str, CellNote] = {}
    for name, cell in sorted(cells.items()):
        has, note = before.credentials.cells.get(name), before.notes.cells.get(name)
        signer = signing.get(name)
        ours = cell.reachable and cell.identity == CellIdentity(settings.fleet, name, cluster)
        if not cell.reachable or (ours and signer is None):
            if has is not None and note is not None:
                kept[name], notes[name] = has, note
            continue
        if not ours or signer is None or not cell.shared or not signer.key_is_strong:
            continue
        wanted = _wanted(cell, settings)
        key = key_id(signer.api_key)
        if has is not None and note is not None and _fits(has, wanted) and note.key_id == key and not _due(note, now):
            kept[name], notes[name] = has, note
            continue
        signed[name] = _claims(wanted, name, settings, now)
        notes[name] = CellNote(key_id=key, renew_at=format_time(now + settings.lifetime / 2))
    after = Notes(cells=notes, keys_since=since, rotated=before.rotate)
    same = held is not None and keys == held.credentials.keys and kept == dict(held.credentials.cells)
    return CredentialPlan(keys, after, kept, signed, changed=not same or bool(signed) or after != before.notes)


def claimed(claims: Mapping[str, Any], fleet: str) -> tuple[tuple[str, ...], str]:
    """The shared collections that claims name, and the register where they name it."""
    names = [str(item["collection"]) for item in claims["access"]]
    register = tokens_collection(fleet)
    return tuple(name for name in names if name != register), register if register in names else ""


def _keys(
    held: HeldCredentials, settings: CredentialSettings, now: datetime, new_key: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Keys, that which signs first. A new one is accepted before it signs, an old one as long as its tokens live."""
    keys, since = list(held.credentials.keys), held.notes.keys_since
    dates = {key: _time(since.get(key_id(key), ""), now) for key in keys}
    if not keys:
        keys, dates = [new_key], {new_key: now}
    elif held.rotate and held.rotate != held.notes.rotated:
        keys, dates = [*keys, new_key], {**dates, new_key: now}
    newest = max(keys, key=lambda key: dates[key])
    if dates[newest] > dates[keys[0]] and now >= dates[newest] + MOUNT_LAG:
        keys = [newest, *(key for key in keys if key != newest)]
        dates[newest] = now
    signs = dates[keys[0]]
    kept = [keys[0], *(key for key in keys[1:] if dates[key] > signs or now < signs + settings.lifetime)]
    return tuple(kept), {key_id(key): format_time(dates[key]) for key in kept}


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        return otherwise


def _wanted(cell: CellState, settings: CredentialSettings) -> tuple[tuple[str, ...], str]:
    """What a cell's token opens; the register by name, since it is made after the first token and anew when lost."""
    return tuple(sorted(cell.shared)), tokens_collection(settings.fleet) if settings.revocable else ""


def _fits(has: CellCredential, wanted: tuple[tuple[str, ...], str]) -> bool:
    return (has.collections, has.register_name) == wanted


def _due(note: CellNote, now: datetime) -> bool:
    try:
        return parse_time(note.renew_at) <= now
    except ValueError:
        return True


def _claims(
    wanted: tuple[tuple[str, ...], str], cell: str, settings: CredentialSettings, now: datetime
) -> dict[str, Any]:
    collections, register = wanted
    access = [{"collection": name, "access": "prw"} for name in collections]
    if register:
        access.append({"collection": register, "access": "r"})
    return {
        "exp": int((now + settings.lifetime).timestamp()),
        "access": access,
        "subject": SUBJECT,
        "cell": cell,
    }
