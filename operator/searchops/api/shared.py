"""Tenants that share a collection: what the cell keeps of each, and where a tenant's points stand.

A shared collection holds the *slices* of many tenants: the points of one generation of one tenant, told apart by the
payload key ``_tenant`` and, in the tier ShardKey, by a shard key of the same value too. Each tenant has one flat
metadata key there, ``searchops.dev/t.<uid>``, whose value is its whole record; one PATCH of it is atomic, so that
whatever moves one tenant is one request, as an alias action is in the tier Collection.

The names of a tenant (``<alias>``, ``<alias>@a``, ``<alias>@b``) never exist as aliases of a shared collection: a token
that a cell's key signed for such a name could otherwise open everybody's points after a move to a shared tier. They
stand in the record instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from searchops.api.meta import ApiModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TENANT_KEY = "_tenant"
"""Payload key of ours in shared collections: the slice that a point belongs to."""
RECORD_PREFIX = "searchops.dev/t."
KEY_SHARED = "searchops.dev/shared"
"""Metadata key of a shared collection itself: the tier it serves."""
KEY_LAYOUT = "searchops.dev/layout"
"""Metadata key of a shared collection itself: digest of what its tenants have in common."""
ENFORCED_BY_GATEWAY = "Gateway"
"""Claim ``enforcedBy`` of a token that the gateway verifies itself; the database has never seen its key."""

SharedTier = Literal["Shared", "ShardKey"]


@dataclass(frozen=True, slots=True)
class SliceAddress:
    """Where the points of one generation of one tenant stand.

    Attributes:
        tier: Shared, or ShardKey where requests name a shard key too.
        collection: physical name of the shared collection.
        key: value of the payload key `TENANT_KEY`, and of the shard key.
    """

    tier: SharedTier
    collection: str
    key: str

    @property
    def shard_key(self) -> str | None:
        """What requests give as the shard key; None where the collection has none."""
        return self.key if self.tier == "ShardKey" else None


class SliceRecord(ApiModel):
    """One generation of a tenant.

    Attributes:
        key: as in `SliceAddress`.
        vectors: dense vectors of this slice, with their dimensions; the collection may have others' too.
        metadata: the flat keys that a collection of its own would carry (owner, binding, pending, rates, …).
    """

    key: Annotated[str, Field(min_length=8, max_length=64)]
    vectors: dict[str, int] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)


class NameRecord(ApiModel):
    """What a name of the tenant points to.

    Attributes:
        generation: of the slice.
        turn: grows with every move of the name on the cell; of two records that know it the greater one holds.
    """

    generation: int
    turn: int


class TenantRecord(ApiModel):
    """All that a shared collection knows of one tenant.

    Attributes:
        tier: of the collection.
        slices: by generation.
        names: by suffix: ``""`` is the public name, ``"@a"`` and ``"@b"`` are the sides.
    """

    tier: SharedTier
    alias: str
    slices: dict[int, SliceRecord] = Field(default_factory=dict)
    names: dict[str, NameRecord] = Field(default_factory=dict)

    def to_metadata(self) -> str:
        """The one flat value, canonical so that equal records are equal strings."""
        return self.model_dump_json(by_alias=True)


class CellCredential(ApiModel):
    """What the gateway may do on one cell in its own name.

    Attributes:
        token: signed by the cell's key, on exactly `collections` (``prw``) and the register of tokens (``r``).
        collections: shared collections of the cell.
        register_name: collection of the tokens that are valid; empty where tokens are not revocable.
    """

    token: str = Field(repr=False)
    collections: tuple[str, ...] = ()
    register_name: str = ""


class GatewayCredentials(ApiModel):
    """The one file that the operator hands to the gateway (key ``credentials.json`` of its Secret).

    Attributes:
        keys: keys of the fleet's gateway, that which signs first; every one is accepted.
        cells: by the cell's name.
    """

    keys: tuple[Annotated[str, Field(min_length=32)], ...] = Field(default=(), repr=False)
    cells: dict[str, CellCredential] = Field(default_factory=dict)


class CellNote(ApiModel):
    """How a cell's token was made.

    Attributes:
        key_id: of the key that signed it.
        renew_at: when a new one is due.
    """

    key_id: str
    renew_at: str


class Notes(ApiModel):
    """What the operator keeps beside the credentials, and needs none of their secrets for.

    Attributes:
        keys_since: by the id of each gateway key, since when it has signed; after one lifetime an older one is let go.
        rotated: the value of the rotation annotation that was acted on last.
    """

    cells: dict[str, CellNote] = Field(default_factory=dict)
    keys_since: dict[str, str] = Field(default_factory=dict)
    rotated: str = ""


@dataclass(frozen=True, slots=True)
class HeldCredentials:
    """What the Secret holds; `rotate` is what a person has asked for by its annotation."""

    credentials: GatewayCredentials
    notes: Notes
    rotate: str = ""


def read_notes(text: str) -> Notes:
    """The notes; ones that cannot be read are as good as none: every token is then signed anew."""
    try:
        return Notes.model_validate_json(text)
    except ValidationError:
        return Notes()


def record_key(uid: str) -> str:
    """The metadata key of a tenant's record."""
    return f"{RECORD_PREFIX}{uid}"


def records_of(metadata: Mapping[str, object]) -> dict[str, TenantRecord]:
    """Records by uid; what cannot be read is left out, and so never written over by who reads by this."""
    found = {}
    for key, value in metadata.items():
        if key.startswith(RECORD_PREFIX) and isinstance(value, str):
            try:
                found[key.removeprefix(RECORD_PREFIX)] = TenantRecord.model_validate_json(value)
            except ValidationError:
                continue
    return found


def unreadable_records(metadata: Mapping[str, object]) -> frozenset[str]:
    """Uids of the records that cannot be read: what they name is somebody's, and nobody knows whose."""
    keys = {key.removeprefix(RECORD_PREFIX) for key in metadata if key.startswith(RECORD_PREFIX)}
    return frozenset(keys - records_of(metadata).keys())


def standing(records: Iterable[tuple[str, TenantRecord]], suffix: str) -> tuple[str, int, SliceRecord] | None:
    """Which slice a name points to: collection, generation and slice; None where no record knows the name.

    Args:
        records: one tenant's, with the collection that each stands in.
        suffix: as in `TenantRecord.names`.
    """
    best: tuple[int, str, int, SliceRecord] | None = None
    for collection, record in records:
        name = record.names.get(suffix)
        if name is None or name.generation not in record.slices:
            continue
        if best is None or name.turn > best[0]:
            best = name.turn, collection, name.generation, record.slices[name.generation]
    return None if best is None else best[1:]
