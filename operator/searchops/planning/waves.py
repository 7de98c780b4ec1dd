"""Which revision a tenant should be bound to, decided by the tenant alone and purely.

A model publishes ``{active, candidate, wave}``; a tenant follows the candidate when its wave has started: a selector
of a started wave matches its labels, or the hash of its name lies below the published fraction. Rolling back is the
same rule with the fraction back at zero. A wave that is halted starts nobody: who has not begun stays where it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.meta import LabelSelector
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus, WaveStatus
    from searchops.api.v1alpha1.reindex_job import ReindexJob
    from searchops.api.v1alpha1.search_tenant_status import RebuildStatus


@dataclass(frozen=True, slots=True)
class Wanted:
    """The revision a tenant should be bound to, and why; None is the lexical binding."""

    revision: RevisionStatus | None
    why: Literal[
        "Active",
        "Candidate",
        "Pinned",
        "HeldBack",
        "NothingPromoted",
        "PinnedUnknown",
        "ModelMissing",
        "StateUnknown",
    ]


def position(namespace: str, name: str) -> float:
    """Where a tenant stands in [0, 1): stable for ever, so that a growing fraction only adds tenants."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def in_wave(wave: WaveStatus | None, namespace: str, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the tenant belongs to the waves that have started."""
    if wave is None:
        return False
    return is_reached(wave.selectors, float(wave.fraction), namespace, name, labels)


def is_reached(
    selectors: Sequence[LabelSelector], fraction: float, namespace: str, name: str, labels: Mapping[str, str]
) -> bool:
    """Whether a selector matches the tenant's labels, or its place lies below the fraction."""
    if any(selector.matches(dict(labels)) for selector in selectors):
        return True
    return position(namespace, name) < fraction


def has_begun(rebuild: RebuildStatus | None, job: ReindexJob | None) -> bool:
    """Whether a rebuild has ever begun to write: in this attempt, in an earlier one, or before a person's retry."""
    if rebuild is None:
        return False
    if rebuild.attempt > 1:
        return True
    named = job is not None and job.metadata.name == rebuild.reindex_job
    return job is not None and named and (job.status.started_at is not None or job.status.retries > 0)


def follows(
    candidate: RevisionStatus | None, bound: str | None, rebuild: RebuildStatus | None, job: ReindexJob | None
) -> bool:
    """Whether a tenant is bound to the candidate, or its rebuild for it has begun (or has failed).

    Args:
        candidate: of the tenant's model.
        bound: the revision that the tenant's collection is bound to.
        rebuild: what the tenant's status says of its rebuild.
        job: the ReindexJob of that rebuild, where it is made.
    """
    if candidate is None:
        return False
    begun = rebuild is not None and rebuild.revision == candidate.revision and has_begun(rebuild, job)
    return begun or bound == candidate.revision


def wanted_revision(
    status: EmbeddingModelStatus | None,
    *,
    namespace: str,
    name: str,
    labels: Mapping[str, str],
    pinned: str | None = None,
    following: bool = False,
) -> Wanted:
    """What the tenant should be bound to now.

    Args:
        status: what the model says; None where there is no model.
        namespace: of the tenant.
        name: of the tenant.
        labels: of the tenant.
        pinned: the revision that the tenant's spec names.
        following: the tenant is bound to the candidate, or its rebuild for it has begun: a halt takes neither back.

    A model without an active revision that never numbered one has not spoken yet (it is new, or its status is lost):
    that is `StateUnknown`, never a reason to take a binding away. A pin may name a candidate only once its waves have
    started, so that no tenant is searched with what the gate has not passed.
    """
    if status is None:
        return Wanted(None, "ModelMissing")
    candidate = status.candidate
    started = candidate is not None and candidate.space is not None and status.wave is not None
    if pinned is not None:
        known = (status.active, candidate if started else None, *status.retiring)
        found = next((item for item in known if item is not None and item.revision == pinned and item.space), None)
        return Wanted(found, "Pinned" if found is not None else "PinnedUnknown")
    starts = status.wave is not None and (following or status.wave.halted is None)
    if started and starts and in_wave(status.wave, namespace, name, labels):
        return Wanted(candidate, "Candidate")
    if status.active is None:
        return Wanted(None, "NothingPromoted" if status.next_number is not None else "StateUnknown")
    return Wanted(status.active, "Active")
