"""EmbeddingModel: a checkpoint on its way to the fleet, gated on the regression holdout, and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from searchops.api.live_signals import SignalName, SignalWindow, SlowerThan
from searchops.api.meta import (
    ApiModel,
    ArtifactReference,
    CelRule,
    Digest,
    Duration,
    Fraction,
    LabelSelector,
    Name,
    ObjectMeta,
    PrinterColumn,
    Uri,
    WorkerReference,
)
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus

Backend = Literal["TensorRT", "ONNXRuntime", "Auto"]
Precision = Literal["Auto", "FP16", "Mixed", "BF16", "FP32"]


class ModelReason(StrEnum):
    """Every reason an EmbeddingModel's conditions and events may carry."""

    PROMOTED = "Promoted"
    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    PAUSED = "Paused"
    INVALID_SPEC = "InvalidSpec"
    IN_USE = "InUse"
    DELETING = "Deleting"
    UNREACHABLE = "Unreachable"
    ARTIFACTS_UNREADABLE = "ArtifactsUnreadable"
    POOL_NOT_FOUND = "PoolNotFound"
    POD_TEMPLATE_NOT_FOUND = "PodTemplateNotFound"
    POD_TEMPLATE_NOT_ALLOWED = "PodTemplateNotAllowed"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    BUILDING = "Building"
    BUILT = "Built"
    BUILD_FAILED = "BuildFailed"
    DIGEST_MISMATCH = "DigestMismatch"
    BAD_CHECKPOINT = "BadCheckpoint"
    ACCURACY_FAILED = "AccuracyFailed"
    LOADING = "Loading"
    LOADED = "Loaded"
    LOAD_FAILED = "LoadFailed"
    VERIFIED = "Verified"
    VERIFY_FAILED = "VerifyFailed"
    GATING = "Gating"
    PASSED = "Passed"
    SKIPPED_WARM = "SkippedStillWarm"
    REGRESSED = "Regressed"
    INCONCLUSIVE = "Inconclusive"
    GATE_INVALID = "GateInvalid"
    AWAITING_APPROVAL = "AwaitingApproval"
    ROLLING = "Rolling"
    SOAKING = "Soaking"
    BREAKER_OPEN = "BreakerOpen"
    ROLLBACK_TARGET_ILL = "RollbackTargetIll"
    SIGNALS_HEALTHY = "SignalsHealthy"
    SIGNAL_DEGRADED = "SignalDegraded"
    SIGNALS_UNKNOWN = "SignalsUnknown"
    NOT_CONFIGURED = "NotConfigured"
    REJECTED = "Rejected"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    IN_SYNC = "InSync"
    OUT_OF_SYNC = "OutOfSync"
    STATE_UNKNOWN = "StateUnknown"
    NOTHING_PROMOTED = "NothingPromoted"
    WARM = "Warm"
    STALE_PREVIOUS = "StalePrevious"
    NO_EARLIER_REVISION = "NoEarlierRevision"
    DRY_RUN = "DryRun"


class Engine(ApiModel):
    """How the checkpoint becomes something a server can run.

    Attributes:
        backend: Auto takes TensorRT where a plan can be built, and ONNX Runtime until then.
        precision: Auto tries FP16, Mixed, BF16 and FP32 in this order and says why.
        max_batch: most texts of one inference.
        buckets: sequence lengths that batches are padded to, in tokens.
    """

    backend: Backend = "Auto"
    precision: Precision = "Auto"
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 64
    buckets: Annotated[tuple[Annotated[int, Field(ge=8, le=8192)], ...], Field(min_length=1, max_length=16)] = (
        16,
        32,
        64,
        128,
        256,
    )
    worker: WorkerReference


class Serving(ApiModel):
    """The pools of Triton servers; a missing canary pool means that the serving pool is its own canary.

    Attributes:
        pool: pool that serves the tenants.
        canary_pool: pool where a candidate is verified and gated.
    """

    pool: Name
    canary_pool: Name | None = None


class HoldoutReference(ApiModel):
    """One immutable holdout directory.

    Attributes:
        name: name shown in verdicts.
        uri: where the directory is.
        digest: sha256 over the directory's sorted lines of path, size and sha256.
    """

    name: Name
    uri: Uri
    digest: Digest


class Margins(ApiModel):
    """The losses that are still acceptable; a widening needs an admission policy's consent.

    Attributes:
        repackage_loss: share of good query families that a repackaged model may lose.
        model_loss: share that another model may lose.
        first_loss: share that a first model may lose against the lexical legs.
        repackage_ndcg: nDCG@10 that a repackaged model may lose on the traffic sample.
        model_ndcg: nDCG@10 that another model may lose on the traffic sample.
    """

    repackage_loss: Fraction = "0.02"
    model_loss: Fraction = "0.05"
    first_loss: Fraction = "0.10"
    repackage_ndcg: Fraction = "0.01"
    model_ndcg: Fraction = "0.02"


class Gate(ApiModel):
    """The regression gate.

    Attributes:
        holdouts: holdouts that all must pass.
        change: which margins apply; Auto follows the measured space.
        profile: retrieval profile that both sides are judged with.
        on_inconclusive: what happens when the holdout cannot tell.
        mode: DryRun shows the verdict and rolls nothing out.
        reevaluate_every: how long after a verdict what is active is evaluated again; 0s is never by the clock. A change
            of Triton's version, of retrieval or of this gate asks at once.
    """

    holdouts: Annotated[
        tuple[HoldoutReference, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    change: Literal["Auto", "Repackage", "Model", "First"] = "Auto"
    margins: Margins = Field(default_factory=Margins)
    profile: Name = "default"
    on_inconclusive: Literal["Pause", "Rollback"] = "Pause"
    worker: WorkerReference
    mode: Literal["Enforce", "DryRun"] = "Enforce"
    reevaluate_every: Duration = "24h"


class Wave(ApiModel):
    """One step of the rollout: the tenants selected, or a share of all, and how long to watch them.

    Attributes:
        name: name of the wave.
        selector: tenants by their labels.
        percent: share of all tenants, by a hash of the name.
        soak: how long the wave is watched before the next one starts.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.selector) != has(self.percent)",
            "a wave takes exactly one of selector and percent",
            reason="FieldValueInvalid",
        ),
    )

    name: Name
    selector: LabelSelector | None = None
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    soak: Duration | None = None


class Breaker(ApiModel):
    """When too many tenants bound to the candidate were taken back, the fleet stops.

    Attributes:
        max_reverted_percent: of the tenants bound to the candidate, and at least one tenant.
    """

    max_reverted_percent: Annotated[int, Field(ge=0, le=100)] = 2


class Signal(ApiModel):
    """What merchants' searches say of a candidate: each tenant's share after its switch less its share a week before.

    Attributes:
        name: ZeroResults: searches without a hit. Errors: searches without an answer, or without the encoder's part.
            SlowSearches: searches that took longer than slowerThan.
        margin: share of all searches that may be added, on the mean over tenants.
        slower_than: the bound of SlowSearches.
        window: the whole hours after a tenant's switch that are compared; absent is 1h.
        on_unknown: what a complete wave does while the signal is not known to be healthy: Continue (where absent) goes
            on and says so, Hold waits, in every wave until the windows of 95 % of those that have switched are over.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.slowerThan) == (self.name == 'SlowSearches')",
            "SlowSearches, and no other signal, has slowerThan",
            reason="FieldValueInvalid",
        ),
    )

    name: SignalName
    margin: Fraction
    slower_than: SlowerThan | None = None
    window: SignalWindow | None = None
    on_unknown: Literal["Continue", "Hold"] | None = None


class Rollout(ApiModel):
    """How a passed candidate reaches the tenants.

    Attributes:
        waves: in this order; the last one takes everybody.
        approval: when a person must agree.
        max_concurrent_reindexes: rebuilds of this model at one time.
        signals: live signals that stop the waves where they get worse.
        rollback_window: how long the old revision and its vectors are kept.
        retry_token: any new text tries a rejected revision again.
        approve: the revision that is approved; the annotation searchops.dev/approve does the same.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "self.waves[self.waves.size() - 1].?percent.orValue(0) == 100",
            "the last wave must have percent 100: a rollout that never reaches all tenants cannot be promoted",
            ".waves",
        ),
    )

    waves: Annotated[
        tuple[Wave, ...], Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ]
    approval: Literal["None", "BeforeFirstWave", "BeforeEachWave"] = "None"
    max_concurrent_reindexes: Annotated[int, Field(ge=1, le=1000)] = 8
    breaker: Breaker = Field(default_factory=Breaker)
    signals: Annotated[
        tuple[Signal, ...],
        Field(
            max_length=3,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    rollback_window: Duration = "72h"
    retry_token: Annotated[str, Field(max_length=63)] = ""
    approve: Annotated[str, Field(max_length=63)] = ""


class EmbeddingModelSpec(ApiModel):
    """What a platform team declares of one model.

    Attributes:
        paused: change nothing.
    """

    source: ArtifactReference
    engine: Engine
    serving: Serving
    gate: Gate
    rollout: Rollout
    paused: bool = False


class EmbeddingModel(ApiModel):
    """An embedding checkpoint, built, gated on the regression holdout, rolled out tenant by tenant, and taken back."""

    kind: ClassVar[str] = "EmbeddingModel"
    plural: ClassVar[str] = "embeddingmodels"
    short_names: ClassVar[tuple[str, ...]] = ("emb",)
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    name_limit: ClassVar[int] = 40
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Active", ".status.active.revision"),
        PrinterColumn("Candidate", ".status.candidate.revision"),
        PrinterColumn("Wave", ".status.wave.name"),
        PrinterColumn("Verdict", ".status.verdict.outcome"),
        PrinterColumn("Bound", ".status.tenants.bound", "integer"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    metadata: ObjectMeta
    spec: EmbeddingModelSpec
    status: EmbeddingModelStatus = Field(default_factory=EmbeddingModelStatus)
