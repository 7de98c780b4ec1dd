"""Every name the operator gives, as a function of its inputs, so that a retry cannot make a second one.

``@`` is legal in Qdrant and impossible in Kubernetes: no tenant's name can ever be another's physical name.
"""

from __future__ import annotations

import hashlib
import re

MAX_ALIAS = 200
FINALIZER = "searchops.dev/finalizer"
CELL_ANNOTATION = "searchops.dev/cell"
ABANDON_ANNOTATION = "searchops.dev/abandon"
ADOPT_ANNOTATION = "searchops.dev/adopt"
APPROVE_ANNOTATION = "searchops.dev/approve"
RETRY_ANNOTATION = "searchops.dev/retry"
PAUSE_ANNOTATION = "searchops.dev/pause"
ROLLBACK_ANNOTATION = "searchops.dev/rollback"
PROTECTED_BY_TENANTS = "tenants"
"""The label's value where the operator set it; any other is a person's own."""
WORKER_FOR_LABEL = "searchops.dev/worker-for"
OWNER_KIND_LABEL = "searchops.dev/owner-kind"
OWNER_UID_LABEL = "searchops.dev/owner-uid"
OWNER_NAME_ANNOTATION = "searchops.dev/owner-name"
OWNER_NAMESPACE_ANNOTATION = "searchops.dev/owner-namespace"
TASK_LABEL = "searchops.dev/task"
GATEWAY_KEY = "gateway-"
"""Prefix of the id of a key that is the gateway's, and no cell's."""
CELL_STATE_PREFIX = "searchops-cell-"
ACCESS_SECRET_TYPE = "searchops.dev/access"  # noqa: S105 - a Secret's type, not a secret

KEY_FLEET = "searchops.dev/fleet"
KEY_UID = "searchops.dev/uid"
KEY_NAMESPACE = "searchops.dev/namespace"
KEY_NAMESPACE_UID = "searchops.dev/namespace-uid"
KEY_NAME = "searchops.dev/name"
KEY_GENERATION = "searchops.dev/generation"
KEY_BINDING = "searchops.dev/binding"
KEY_PENDING = "searchops.dev/pending"
KEY_PREVIOUS = "searchops.dev/previous"
KEY_RATES = "searchops.dev/rates"
KEY_RELEASED_AT = "searchops.dev/released-at"
KEY_DELETED_AT = "searchops.dev/deleted-at"
KEY_DROP_AFTER = "searchops.dev/drop-after"
KEY_DROPPING = "searchops.dev/dropping"
KEY_POLICY = "searchops.dev/policy"
KEY_RESTORED = "searchops.dev/restored"
KEY_FORMER_UID = "searchops.dev/former-uid"
KEY_WAS_LIVE = "searchops.dev/was-live"
KEY_ADOPTED = "searchops.dev/adopted"

_PHYSICAL = re.compile(r"^(?P<alias>[^@]+)@g(?P<generation>0|[1-9][0-9]*)$")
_MODEL = re.compile(r"^(?P<model>[a-z0-9]([-a-z0-9]*[a-z0-9])?)-r(?P<number>[0-9]+)-(?P<digest>[0-9a-f]{8})$")


def short_hash(*parts: str, length: int) -> str:
    """The first hex digits of sha256 over the parts, kept apart by a NUL so that no two lists collide."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def alias_name(fleet: str, namespace: str, name: str) -> str:
    """The public name of a tenant: ``<fleet>.<namespace>.<name>``, shortened by a hash past 200 characters."""
    full = f"{fleet}.{namespace}.{name}"
    if len(full) <= MAX_ALIAS:
        return full
    return f"{full[: MAX_ALIAS - 13]}.{short_hash(full, length=12)}"


def collection_name(alias: str, generation: int) -> str:
    """The physical name of a generation."""
    return f"{alias}@g{generation}"


def is_gateway_key(key_id: str) -> bool:
    """Whether a key's id is of the gateway's own: it has no part in the rotation of a cell's key."""
    return key_id.startswith(GATEWAY_KEY)


def slice_key(uid: str, alias: str, generation: int, made: str) -> str:
    """What tells the points of one generation of a tenant apart from all others in a shared collection.

    Args:
        uid: the tenant's.
        alias: its public name.
        generation: of the slice.
        made: what the slice is made with, its moment among it: a number that comes again is not the former slice.
    """
    return short_hash(uid, alias, str(generation), made, length=16)


def side_alias(alias: str, generation: int) -> str:
    """The side that a generation stands on: ``@a`` for even ones, ``@b`` for odd ones; never moved by a switch."""
    return f"{alias}@{'a' if generation % 2 == 0 else 'b'}"


def generation_of(alias: str, collection: str) -> int | None:
    """The generation of a physical name of this alias, or None where it is not one."""
    match = _PHYSICAL.match(collection)
    if match is None or match["alias"] != alias:
        return None
    return int(match["generation"])


def alias_of(collection: str) -> str | None:
    """The alias whose generation a physical name is, or None where it is none."""
    match = _PHYSICAL.match(collection)
    return None if match is None else match["alias"]


def revision_name(model: str, number: int, digest: str) -> str:
    """The revision's name, which is its Triton model too: ``<model>-r<n>-<digest8>``."""
    return f"{model}-r{number}-{digest.removeprefix('sha256:')[:8]}"


def is_revision_of(model: str, triton_model: str) -> bool:
    """Whether a Triton model's name is a revision of this EmbeddingModel (or one of its two parts)."""
    base = triton_model.removesuffix("-tok").removesuffix("-enc")
    match = _MODEL.match(base)
    return match is not None and match["model"] == model


def revision_number(revision: str) -> int:
    """The number in a revision's name, by which a model counts them; 0 where it is no revision's name."""
    match = _MODEL.match(revision)
    return int(match["number"]) if match is not None else 0


def model_parts(revision: str) -> tuple[str, str, str]:
    """The three Triton models of a revision in loading order: encoder, tokeniser, text."""
    return f"{revision}-enc", f"{revision}-tok", revision


def space_id(fingerprint: str, precision: str, max_tokens: int, founder: str) -> str:
    """The id of the vector space that a revision founds; a dense vector's name is ``d-<space>``."""
    return short_hash(fingerprint, precision, str(max_tokens), founder, length=12)


def reindex_job_name(tenant: str, uid: str, target: str, schema: str, attempt: int) -> str:
    """``<tenant ≤ 40>-<hash10>``: one name per tenant, target, schema and attempt."""
    return f"{tenant[:40].rstrip('-')}-{short_hash(uid, target, schema, str(attempt), length=10)}"


def job_name(kind: str, uid: str, *inputs: str) -> str:
    """``<kind>-<hash16 of uid and inputs>``."""
    return f"{kind}-{short_hash(uid, *inputs, length=16)}"


def state_map_name(model: str) -> str:
    """The ConfigMap that keeps what must survive a lost status of a model."""
    return f"searchops-model-{model}"


def cell_state_map_name(cell: str) -> str:
    """The ConfigMap that keeps how far the rotation of a cell's key has come."""
    return f"{CELL_STATE_PREFIX}{cell}"


def tokens_collection(fleet: str) -> str:
    """The collection on each cell whose points are the tokens that are still valid."""
    return f"{fleet}@tokens"
