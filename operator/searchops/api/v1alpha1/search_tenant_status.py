"""What is seen of a SearchTenant: its binding, use, rebuild, plan, backups and conditions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from searchops.api.meta import ApiModel, Conditions, Digest, Quantity, ShortText, Timestamp

Isolation = Literal["Collection", "ShardKey", "Shared"]


class BindingStatus(ApiModel):
    """What the tenant's collection is bound to, read back from the collection."""

    model: ShortText | None = None
    revision: ShortText | None = None
    encoder: ShortText | None = None
    vector: ShortText | None = None
    analyser: ShortText | None = None
    profile: ShortText | None = None
    since: Timestamp | None = None


class IsolationStatus(ApiModel):
    """Which tier serves the tenant, and who enforces its isolation."""

    mode: Isolation
    enforced_by: Literal["Database", "Gateway"]


class UsageStatus(ApiModel):
    """Estimated use; written when it moves by 1 % or more.

    Attributes:
        vector_megabytes: dense vectors at four bytes a dimension, absent below one; lexical ones are not in it.
    """

    points: Annotated[int, Field(ge=0)] = 0
    points_quota_percent: Annotated[int, Field(ge=0)] | None = None
    vector_megabytes: Annotated[int, Field(ge=0)] | None = None
    vector_quota_percent: Annotated[int, Field(ge=0)] | None = None
    estimated: bool = True


class RebuildStatus(ApiModel):
    """The ReindexJob that the tenant waits for."""

    reindex_job: Annotated[str, Field(max_length=63)]
    reason: ShortText
    attempt: Annotated[int, Field(ge=1)] = 1
    target_space: ShortText | None = None
    revision: ShortText | None = None
    started_at: Timestamp | None = None


class RoomStatus(ApiModel):
    """Whether the cell has room for what a rebuild makes.

    Attributes:
        needed: whether a second generation is made: one more collection for as long as the rollback window lasts.
        fits: whether the cell has room for it, or none is needed.
        collections: that the cell held when this was written; it is written anew when it moves by 1 % or more.
        max_collections: that the cell may hold at most.
        maps_percent: memory maps of the cell's fullest node; absent where the server does not tell.
        files_percent: open files of the cell's fullest node; absent where the server does not tell.
    """

    needed: bool
    fits: bool
    collections: Annotated[int, Field(ge=0)]
    max_collections: Annotated[int, Field(ge=0)]
    maps_percent: Annotated[int, Field(ge=0)] | None = None
    files_percent: Annotated[int, Field(ge=0)] | None = None


class CostForecast(ApiModel):
    """What a rebuild is expected to cost, from its GPU seconds and the price that the settings name."""

    amount: Quantity
    currency: ShortText


class PlanStatus(ApiModel):
    """A rebuild that is wanted, foreseen: written before it starts, and kept as foreseen until it is done.

    Figures have two digits, rounded up. One that was never measured is absent, and its basis says why.

    Attributes:
        state: Planned starts with the next pass, Paused waits for spec.paused to be lifted, NoRoom for room on the
            cell, Started is under way.
        changes: from what to what, one difference each.
        strategy: NamedVector adds a vector to the live collection, BlueGreen fills another one, Move fills a part of
            another tier's collection.
        why: why this strategy.
        target_space: what is aimed at, as in status.rebuild; code compares it.
        revision: that the documents are embedded with; absent where only the lexical vectors are made.
        collection: that is filled.
        vector: that is filled.
        documents: that are read and embedded (estimated).
        seconds: from the start of the first one to the switch, without waiting for other rebuilds.
        seconds_basis: which measurements that rests on, or why it is unknown.
        gpu_seconds: over all workers.
        gpu_seconds_basis: which measurements that rests on, or why it is unknown.
        cost: of the GPU seconds.
        cost_basis: the price, or why there is no cost.
        extra_megabytes: of dense vectors on all replicas until the rollback window ends (estimated); lexical vectors
            and payload are not in it.
        room: whether the cell has room.
    """

    state: Literal["Planned", "Paused", "NoRoom", "Started"]
    changes: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=16)]
    strategy: Literal["NamedVector", "BlueGreen", "Move"]
    why: Annotated[str, Field(max_length=512)]
    target_space: ShortText
    revision: ShortText | None = None
    collection: ShortText
    vector: ShortText | None = None
    documents: Annotated[int, Field(ge=0)]
    seconds: Annotated[int, Field(ge=0)] | None = None
    seconds_basis: Annotated[str, Field(max_length=512)]
    gpu_seconds: Annotated[int, Field(ge=0)] | None = None
    gpu_seconds_basis: Annotated[str, Field(max_length=512)]
    cost: CostForecast | None = None
    cost_basis: Annotated[str, Field(max_length=512)]
    extra_megabytes: Annotated[int, Field(ge=0)]
    room: RoomStatus


class PreviousStatus(ApiModel):
    """The side that a rollback would go back to, and until when it is kept.

    Attributes:
        lacking: points whose last write that side has not got, counted in the database; absent where it is unknown.
    """

    revision: ShortText | None = None
    vector: ShortText | None = None
    collection: ShortText | None = None
    until: Timestamp | None = None
    lacking: Annotated[int, Field(ge=0)] | None = None


class PinnedStatus(ApiModel):
    """The trial of the tenant's own pinned queries on a revision that its model wants it to follow.

    Attributes:
        revision: that is tried.
        incumbent: that the tenant was bound to; absent for the lexical legs.
        digest: of the set.
        outcome: Pass lets the tenant follow. Regressed and Inconclusive hold it back until another revision or another
            set is tried; Invalid (the set cannot be used) and Failed (no answer) are tried again at retryAt.
        job: the worker Job.
        lost: the first queries that are lost, or may be.
        lost_total: how many they are.
        of: queries of the set that count.
        evidence: URI of the evidence document; its report lies beside it.
        evidence_digest: of that document.
        attempt: of the Job.
        retry_at: when an Invalid or Failed trial is made again.
    """

    revision: ShortText
    incumbent: ShortText | None = None
    digest: Digest
    outcome: Literal["Running", "Pass", "Regressed", "Inconclusive", "Invalid", "Failed"]
    job: Annotated[str, Field(max_length=63)]
    lost: Annotated[tuple[ShortText, ...], Field(max_length=10)] = ()
    lost_total: Annotated[int, Field(ge=0)] = 0
    of: Annotated[int, Field(ge=0)] = 0
    message: Annotated[str, Field(max_length=1024)] | None = None
    evidence: Annotated[str, Field(max_length=1024)] | None = None
    evidence_digest: Digest | None = None
    attempt: Annotated[int, Field(ge=1)] = 1
    retry_at: Timestamp | None = None


class BackupStatus(ApiModel):
    """The newest whole backup.

    Attributes:
        id: its name in the artifact store, which `searchops restore --backup` takes.
        at: when it was begun.
        points: documents in it, tombstones included.
        bytes: of its snapshots.
    """

    id: Annotated[str, Field(max_length=40)]
    at: Timestamp
    points: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0


class ProofStatus(ApiModel):
    """The last time that a backup was restored under a scratch name and counted.

    Attributes:
        id: the backup.
        at: when.
        points: documents that came back.
        ok: whether they are those that were backed up.
    """

    id: Annotated[str, Field(max_length=40)]
    at: Timestamp
    points: Annotated[int, Field(ge=0)] = 0
    ok: bool = True


class SearchTenantStatus(ApiModel):
    """What the operator saw; `phase` is for people, code never branches on it."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    phase: ShortText | None = None
    cell: ShortText | None = None
    alias: ShortText | None = None
    collection: ShortText | None = None
    binding: BindingStatus | None = None
    previous: PreviousStatus | None = None
    isolation: IsolationStatus | None = None
    usage: UsageStatus | None = None
    plan: PlanStatus | None = None
    pinned: PinnedStatus | None = None
    rebuild: RebuildStatus | None = None
    rebuild_attempts: Annotated[int, Field(ge=0)] | None = None
    access_digest: Digest | None = None
    access_renew_at: Timestamp | None = None
    access_secrets: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=32)] = ()
    last_backup: BackupStatus | None = None
    last_proof: ProofStatus | None = None
    conditions: Conditions = ()
