"""ReindexJob: one re-embedding of one tenant, from the first slice to a verified target."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from searchops.api.meta import (
    ApiModel,
    CelRule,
    Conditions,
    Duration,
    Name,
    ObjectMeta,
    PrinterColumn,
    Quantity,
    ShortText,
    Timestamp,
    Uri,
    WorkerReference,
)

StrategyKind = Literal["NamedVector", "BlueGreen"]
JobPhase = Literal[
    "Pending", "Queued", "Preparing", "Embedding", "Indexing", "Verified", "Switched", "Failed", "Cancelled"
]


class ReindexReason(StrEnum):
    """Every reason a ReindexJob's conditions and events may carry."""

    WAITING = "Waiting"
    TENANT_NOT_FOUND = "TenantNotFound"
    NOT_NAMED_BY_TENANT = "NotNamedByTenant"
    SUSPENDED = "Suspended"
    QUEUED = "Queued"
    PREPARED = "Prepared"
    PREPARING = "Preparing"
    EMBEDDING = "Embedding"
    EMBEDDED = "Embedded"
    INDEXED = "Indexed"
    INDEXING = "Indexing"
    VERIFIED = "Verified"
    VERIFYING = "Verifying"
    COUNT_MISMATCH = "CountMismatch"
    RECALL_TOO_LOW = "RecallTooLow"
    AWAITING_APPROVAL = "AwaitingApproval"
    SWITCHED = "Switched"
    COMPLETE = "Complete"
    WORKER_FAILED = "WorkerFailed"
    TOO_MANY_FAILURES = "TooManyFailures"
    BAD_MODEL = "BadModel"
    SOURCE_UNREADABLE = "SourceUnreadable"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXCEEDED = "BudgetExceeded"
    CELL_FULL = "CellFull"
    NOT_SUPPORTED = "NotSupported"
    RETRIED = "Retried"
    CANCELLED = "Cancelled"
    CELL_UNREACHABLE = "CellUnreachable"
    POD_TEMPLATE_NOT_FOUND = "PodTemplateNotFound"
    POD_TEMPLATE_NOT_ALLOWED = "PodTemplateNotAllowed"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    INVALID_SPEC = "InvalidSpec"


class ReindexSource(ApiModel):
    """Where the documents come from: the live collection, or a catalogue file.

    Attributes:
        from_collection: read the tenant's own collection.
        uri: read a catalogue, .parquet or .jsonl, under a prefix that the namespace may read. It fills a new generation
            (BlueGreen) with its products as they stand there; what the gateway writes meanwhile wins. Every live
            document must be in it, or the job fails: a switch never loses one.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "(has(self.fromCollection) && self.fromCollection) != has(self.uri)",
            "a source takes exactly one of fromCollection: true and uri",
        ),
    )

    from_collection: bool | None = None
    uri: Uri | None = None


class Budget(ApiModel):
    """Bounds of the work; 0 points a second means no bound.

    Attributes:
        max_points_per_second: write rate over all slices.
        deadline: end of the work; cursors are kept.
        max_gpu_hours: GPU hours over all slices and tries, at least one GPU a running worker. The work is held, and
            nothing lost, where they are spent or where the measured rate says that they will not do; it goes on once
            the bound is raised.
    """

    max_points_per_second: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    deadline: Duration = "6h"
    max_gpu_hours: Quantity | None = None


class FailureBound(ApiModel):
    """The share of documents that may be dead-lettered.

    Attributes:
        max_percent: percent of the documents.
    """

    max_percent: Quantity = "0.5"


class ReindexJobSpec(ApiModel):
    """What is re-embedded, from where, and within which bounds.

    Attributes:
        tenant: SearchTenant in the same namespace; cannot change.
        revision: revision to embed with; what the tenant should be bound to where it is left out; cannot change.
        strategy: NamedVector adds a vector to the collection, BlueGreen fills another one; Auto takes what the tenant
            prepared. A strategy that the prepared side is not of is refused by the condition Prepared.
        slices: parallel parts of the work.
        cutover: Manual stops at Verified until the annotation searchops.dev/approve names the revision (or this job,
            where it has none).
        ttl_after_finished: how long the finished object is kept; a failed one that its tenant still waits for is kept
            until a new spec or the annotation searchops.dev/retry with a new word tries it again.
        suspend: hold the work; a queue such as Kueue sets and lifts it.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule("self.tenant == oldSelf.tenant", "tenant cannot change: make another ReindexJob", ".tenant"),
        CelRule(
            "has(self.revision) == has(oldSelf.revision) && (!has(self.revision) || self.revision == oldSelf.revision)",
            "revision cannot change: make another ReindexJob",
            ".revision",
        ),
    )

    tenant: Name
    revision: Annotated[str, Field(max_length=63)] | None = None
    strategy: Literal["Auto", "NamedVector", "BlueGreen"] = "Auto"
    source: ReindexSource = Field(default_factory=lambda: ReindexSource(from_collection=True))
    slices: Annotated[int, Field(ge=1, le=256)] = 4
    worker: WorkerReference
    budget: Budget = Field(default_factory=Budget)
    failures: FailureBound = Field(default_factory=FailureBound)
    cutover: Literal["Automatic", "Manual"] = "Automatic"
    ttl_after_finished: Duration = "72h"
    suspend: bool = False


class StrategyStatus(ApiModel):
    """The strategy that was chosen, and why."""

    chosen: StrategyKind
    reason: ShortText


class TargetStatus(ApiModel):
    """Where the new vectors go."""

    collection: ShortText
    vector: ShortText | None = None


class ProgressStatus(ApiModel):
    """Counters, written at most every 10 s."""

    documents: Annotated[int, Field(ge=0)] = 0
    embedded: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[int, Field(ge=0)] = 0
    points_per_second: Annotated[int, Field(ge=0)] = 0
    eta_seconds: Annotated[int, Field(ge=0)] | None = None
    percent: Annotated[int, Field(ge=0, le=100)] = 0


class CostStatus(ApiModel):
    """What the work cost so far.

    Attributes:
        gpu_seconds: running workers' time by their GPUs, over every try.
        as_of: up to when running workers are counted.
        documents_before: what the target side had when the first worker was made.
        documents_per_gpu_second: measured on this job, once a minute of GPU time is spent.
    """

    gpu_seconds: Annotated[int, Field(ge=0)] = 0
    currency: ShortText | None = None
    amount: Quantity | None = None
    as_of: Timestamp | None = None
    documents_before: Annotated[int, Field(ge=0)] = 0
    documents_per_gpu_second: Quantity | None = None


class ReindexJobStatus(ApiModel):
    """What the operator saw of the work.

    Attributes:
        retry_token: word of the annotation searchops.dev/retry that was seen last.
        retries: how often a failure was tried again.
    """

    observed_generation: Annotated[int, Field(ge=0)] = 0
    phase: JobPhase | None = None
    strategy: StrategyStatus | None = None
    target: TargetStatus | None = None
    progress: ProgressStatus | None = None
    progress_at: Timestamp | None = None
    cost: CostStatus | None = None
    job: ShortText | None = None
    retry_token: ShortText | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    conditions: Conditions = ()


class ReindexJob(ApiModel):
    """One re-embedding of one tenant's documents; ends at Verified, the tenant switches."""

    kind: ClassVar[str] = "ReindexJob"
    plural: ClassVar[str] = "reindexjobs"
    short_names: ClassVar[tuple[str, ...]] = ("rj",)
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    name_limit: ClassVar[int] = 63
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Tenant", ".spec.tenant"),
        PrinterColumn("Revision", ".spec.revision"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Percent", ".status.progress.percent", "integer"),
        PrinterColumn("Rate", ".status.progress.pointsPerSecond", "integer"),
        PrinterColumn("ETA", ".status.progress.etaSeconds", "integer"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    metadata: ObjectMeta
    spec: ReindexJobSpec
    status: ReindexJobStatus = Field(default_factory=ReindexJobStatus)
