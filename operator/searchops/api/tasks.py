"""What a worker Job is given, and what it answers.

A task goes in as JSON in ``SEARCHOPS_TASK``; it never carries a secret. The answer is written to the task's result URI
*first*, then as termination message (at most 4 KiB). A complete Job with neither is a new attempt, never a verdict.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from searchops.api.backup import Reason
from searchops.api.meta import ApiModel, ArtifactReference, Digest, Timestamp
from searchops.api.retrieval import Binding, RetrievalProfile
from searchops.api.shared import SliceAddress
from searchops.api.v1alpha1.embedding_model import Backend, HoldoutReference, Margins, Precision
from searchops.api.v1alpha1.embedding_model_status import ChangeKind, Outcome

TASK_VARIABLE = "SEARCHOPS_TASK"
TOKEN_VARIABLE = "SEARCHOPS_CELL_TOKEN"  # noqa: S105 - the name of a variable, not a secret
SLICE_VARIABLE = "JOB_COMPLETION_INDEX"
TERMINATION_VARIABLE = "SEARCHOPS_TERMINATION_LOG"
TERMINATION_LIMIT = 4096

EXIT_OK = 0
EXIT_RETRY = 1
EXIT_BAD_TASK = 64
EXIT_BAD_CHECKPOINT = 40
EXIT_DIGEST_MISMATCH = 41
EXIT_EXPORT = 42
EXIT_PARSE = 43
EXIT_ENGINE = 44
EXIT_ACCURACY = 45
EXIT_NO_GPU = 46
EXIT_PUBLISH = 47
EXIT_BAD_MODEL = 50
EXIT_TOO_MANY_FAILURES = 51
EXIT_SOURCE_UNREADABLE = 52
EXIT_NOT_OURS = 53
EXIT_BAD_BACKUP = 54
EXIT_CELL_FULL = 55
"""The cell has no room: another Pod would meet the same, and the operator starts anew once it has some."""
FINAL_EXIT_CODES = (
    EXIT_BAD_TASK,
    EXIT_BAD_CHECKPOINT,
    EXIT_DIGEST_MISMATCH,
    EXIT_EXPORT,
    EXIT_PARSE,
    EXIT_ENGINE,
    EXIT_ACCURACY,
    EXIT_NO_GPU,
    EXIT_BAD_MODEL,
    EXIT_TOO_MANY_FAILURES,
    EXIT_SOURCE_UNREADABLE,
    EXIT_NOT_OURS,
    EXIT_BAD_BACKUP,
    EXIT_CELL_FULL,
)
"""Exit codes that a second try cannot mend: the Job's podFailurePolicy fails it at once."""


class EngineProfile(ApiModel):
    """The engine settings of one revision."""

    backend: Backend
    precision: Precision
    max_batch: int
    buckets: tuple[int, ...]


class Founder(ApiModel):
    """A known space and the stored reference vectors of the revision that founded it."""

    space: str
    anchors: str


class BuildTask(ApiModel):
    """Checkpoint -> ONNX -> engine -> accuracy report -> manifest -> published models.

    Attributes:
        repositories: folders (as the worker sees them) of the pools to publish into.
        artifacts: URI prefix of this revision: ONNX, manifest, anchors and probes are kept there.
        holdouts: their texts are encoded for the accuracy report and as anchors.
        founders: spaces that the candidate may prove to be the same as.
    """

    kind: Literal["build"] = "build"
    model: str
    revision: str
    number: int
    source: ArtifactReference
    engine: EngineProfile
    accelerator: str = "cpu"
    repositories: tuple[str, ...]
    artifacts: str
    holdouts: tuple[HoldoutReference, ...] = ()
    founders: tuple[Founder, ...] = ()
    result_uri: str


class AccuracyReport(ApiModel):
    """Served against FP32 reference vectors."""

    texts: int
    min_cosine: float
    mean_cosine: float


class BuildResult(ApiModel):
    """What the build made, or where it stopped.

    Attributes:
        exit_code: 0, or the stage that failed (``EXIT_*``).
        anchor_cosine: for each founder's space, the smallest cosine of any anchor.
        probes: URI of a JSON file ``{"texts": […], "vectors": [[…]]}`` with FP32 reference vectors for verification.
    """

    kind: Literal["build"] = "build"
    revision: str
    exit_code: int = 0
    message: str = ""
    backend: str = ""
    backend_reason: str = ""
    precision: str = ""
    precision_reason: str = ""
    engine_key: str = ""
    manifest_digest: str = ""
    fingerprint: str = ""
    dimension: int = 0
    max_tokens: int = 0
    anchors: str = ""
    probes: str = ""
    anchor_cosine: dict[str, float] = Field(default_factory=dict)
    accuracy: AccuracyReport | None = None


class Arm(ApiModel):
    """One side of the comparison; without an encoder it is the lexical binding.

    Attributes:
        recorded: URI of the evidence on the first holdout of the Job that judged this revision: the result lists kept
            beside it are the side, and no server is asked.
    """

    revision: str
    encoder: str | None = None
    space: str | None = None
    dimension: int | None = None
    recorded: str | None = None


class EarlierAttempt(ApiModel):
    """Another candidate that was judged before.

    Attributes:
        digest: of its checkpoint.
        at: when its verdict was reached.
        evidence: URI of its evidence document, which says which families it was asked on; that of a holdout which was
            not its first carries ``-<holdout>`` before the extension.
    """

    digest: Digest
    at: Timestamp
    evidence: str


class EvaluateTask(ApiModel):
    """Both arms through the served path on the same holdout, catalogue, fusion and seed.

    Attributes:
        servers: gRPC addresses (``host:port``) of the canary pool's servers.
        profile: the pinned retrieval profile, given whole.
        earlier: every other digest that was judged before, whenever that was (wear).
        recent_since: the beginning of the window in which each of them lowers the level.
        anchored: URIs of evidence documents of the last five promoted revisions (gate A'), each that of its gate Job's
            first holdout; the others' are found beside it as `EarlierAttempt.evidence` says.
        embeddings: URI prefix where catalogue embeddings are kept per space.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: str
    change: ChangeKind
    incumbent: Arm
    candidate: Arm
    servers: tuple[str, ...]
    holdouts: tuple[HoldoutReference, ...]
    margins: Margins
    profile: RetrievalProfile
    seed: int = 20261124
    earlier: tuple[EarlierAttempt, ...] = ()
    recent_since: Timestamp = "1970-01-01T00:00:00Z"
    anchored: tuple[str, ...] = ()
    embeddings: str
    evidence_uri: str
    result_uri: str


class EvaluateResult(ApiModel):
    """The verdict in at most 4 KiB; everything else is in the evidence document."""

    kind: Literal["evaluate"] = "evaluate"
    revision: str
    outcome: Outcome
    reason: str = ""
    message: str = ""
    lost: int = 0
    of: int = 0
    loss_bound: str = ""
    ndcg_delta: str = ""
    ndcg_interval: tuple[str, ...] = ()
    evidence_uri: str = ""
    evidence_digest: str = ""


class PinnedTask(ApiModel):
    """A tenant's own pinned queries, searched as the tenant is bound now and as its model wants it to be.

    Attributes:
        field: path of the set in the tenant, for messages.
        pinned: the set: a holdout directory.
        within: prefixes of URIs that the tenant's namespace may read; the set's catalogue must lie there too.
        incumbent: what the tenant is bound to.
        candidate: what it would be bound to.
        servers: gRPC addresses (``host:port``) of the serving pool, which serves both.
    """

    kind: Literal["pinned"] = "pinned"
    field: str
    pinned: ArtifactReference
    within: tuple[str, ...]
    incumbent: Binding
    candidate: Binding
    servers: tuple[str, ...]
    evidence_uri: str
    result_uri: str


class PinnedResult(ApiModel):
    """What became of the pinned queries; everything else is in the evidence document.

    Attributes:
        outcome: Pass lets the tenant follow; anything else holds this one tenant back.
        lost: ids of the first queries that are lost, or may be.
        lost_total: how many they are in all.
        of: queries of the set that something right can be found for.
    """

    kind: Literal["pinned"] = "pinned"
    revision: str
    outcome: Outcome
    message: Annotated[str, Field(max_length=1024)] = ""
    lost: Annotated[tuple[str, ...], Field(max_length=10)] = ()
    lost_total: int = 0
    of: int = 0
    evidence_uri: str = ""
    evidence_digest: str = ""


class CellAddress(ApiModel):
    """How a worker reaches a cell; its token comes in ``SEARCHOPS_CELL_TOKEN``.

    Attributes:
        url: a node of the cell.
        others: its other nodes, for where this one gives no answer.
        name: the cell's, for messages.
    """

    url: str
    others: tuple[str, ...] = ()
    grpc_port: int | None = None
    ca_cert: str | None = None
    name: str = ""


class ReindexTask(ApiModel):
    """Re-embed one tenant: read a slice, encode, write.

    Attributes:
        source_collection: the live collection; with a catalogue it is only asked whether every document was in it.
        source_slice: which of its points are the tenant's, where the source is shared; None where it is its own.
        source_uri: a catalogue that is read instead.
        target: the binding that the new side will have: its analyser and document template are applied.
        target_collection: physical collection or side alias that is written; for NamedVector the live alias.
        target_slice: as `source_slice`, of the side that is written.
        manifest_digest: the served model must carry this digest, or the worker refuses (exit 50).
        state: URI prefix for cursors, dead letters and slice results of this Job.
    """

    kind: Literal["reindex"] = "reindex"
    tenant: str
    strategy: Literal["NamedVector", "BlueGreen"]
    cell: CellAddress
    source_collection: str | None = None
    source_slice: SliceAddress | None = None
    source_uri: str | None = None
    target_collection: str
    target_slice: SliceAddress | None = None
    target: Binding
    manifest_digest: str | None = None
    servers: tuple[str, ...] = ()
    slices: int
    batch: Annotated[int, Field(ge=1, le=1024)] = 64
    max_points_per_second: int = 0
    max_failed_percent: str = "0.5"
    state: str
    result_uri: str


class SliceResult(ApiModel):
    """What one slice of a reindex did; written to ``<result_uri>/slice-<i>.json``.

    Attributes:
        left_out: live documents of the slice that a catalogue did not have and the target lacks.
    """

    kind: Literal["reindex"] = "reindex"
    slice: int
    documents: int = 0
    embedded: int = 0
    failed: int = 0
    left_out: int = 0
    sampled: int = 0
    sample_min_cosine: float | None = None
    exit_code: int = 0
    message: str = ""
    seconds: float = 0.0


class BackupTask(ApiModel):
    """Snapshots of one tenant's live collection into the artifact store, the manifest last.

    Attributes:
        id: of the backup; the same task again goes on where it stopped.
        nodes: every node of the cell: each one's snapshot holds only its own shards.
        collection: physical name; its metadata must name this fleet and uid.
        keep: newest scheduled backups that stay; older ones are removed once this one is whole.
        prefix: URI prefix of the tenant's backups.
    """

    kind: Literal["backup"] = "backup"
    id: str
    reason: Reason = "Scheduled"
    fleet: str
    namespace: str
    name: str
    uid: str
    cell: str
    nodes: CellAddress
    alias: str
    side: str
    collection: str
    generation: Annotated[int, Field(ge=1)]
    keep: Annotated[int, Field(ge=1, le=365)] = 7
    prefix: str
    result_uri: str


class ProveTask(ApiModel):
    """A backup restored under a scratch name of the same cell, counted exactly, and dropped again.

    Attributes:
        scratch: collection that is made for it; one of that name without our mark is not touched.
    """

    kind: Literal["prove"] = "prove"
    id: str
    fleet: str
    namespace: str
    name: str
    cell: str
    nodes: CellAddress
    scratch: str
    prefix: str
    result_uri: str


class BackupResult(ApiModel):
    """What a backup or its proof came to; the manifest and the index say the rest.

    Attributes:
        removed: ids of older backups that were removed.
    """

    kind: Literal["backup", "prove"]
    id: str
    ok: bool = True
    points: int = 0
    size: int = 0
    removed: tuple[str, ...] = ()
    exit_code: int = 0
    message: Annotated[str, Field(max_length=1024)] = ""


Task = Annotated[
    BuildTask | EvaluateTask | PinnedTask | ReindexTask | BackupTask | ProveTask, Field(discriminator="kind")
]
TASK: TypeAdapter[BuildTask | EvaluateTask | PinnedTask | ReindexTask | BackupTask | ProveTask] = TypeAdapter(Task)
Answer = Annotated[
    BuildResult | EvaluateResult | PinnedResult | SliceResult | BackupResult, Field(discriminator="kind")
]
ANSWER: TypeAdapter[BuildResult | EvaluateResult | PinnedResult | SliceResult | BackupResult] = TypeAdapter(Answer)
