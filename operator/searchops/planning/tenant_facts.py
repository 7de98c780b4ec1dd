"""What a tenant's plan is made from, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from searchops.planning.rebuild_rates import NO_PRICES, GpuPrices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.backup import BackupRecord
    from searchops.api.observed import (
        AccessSecretState,
        CanaryResult,
        CellIdentity,
        CellRegistration,
        CellState,
        CollectionDesign,
        CollectionState,
        JobState,
        RegisterState,
        SearchProbe,
        StrictMode,
        Tier,
        TokenGrant,
    )
    from searchops.api.room import CellHold
    from searchops.api.tasks import PinnedResult
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.reindex_job import ReindexJob
    from searchops.api.v1alpha1.search_tenant import AccessEntry
    from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
    from searchops.planning.backup import BackupSettings
    from searchops.planning.jobs import JobOrder, TemplateProblem
    from searchops.planning.rebuild_rates import MeasuredRate


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """The operator's settings that a tenant's plan depends on."""

    fleet: str
    gateway_url: str
    token_lifetime: timedelta
    binding_settle: timedelta
    """How long a gateway may go on with a binding it has cached: twice its cache plus its longest request."""
    backups: BackupSettings | None = None
    reclaim: Literal["Namespace", "Fleet"] = "Namespace"
    """Whether data is given back in the very same namespace only, or in any of that name (disaster recovery)."""
    clock_skew: timedelta = timedelta(0)
    """By how much the clocks of two processes may differ: nothing that ends at a written moment ends before that."""
    revocable: bool = False
    """Whether tokens name their entry in the cell's register, so that removing the entry revokes them at once."""
    prices: GpuPrices = NO_PRICES
    """What GPU-hours cost, for the forecast of a rebuild."""


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """What a trial of the tenant's pinned queries needs, and what the last one came to.

    Attributes:
        prefixes: of URIs that the tenant's namespace may read.
        allowed: whether the set's URI is among them.
        servers: gRPC addresses of the serving pool of the tenant's model.
        template: PodTemplate of the Job.
        problem: why that cannot be used.
        running: trials of other tenants that run.
        most: that may run at one time.
        job: that the status names.
        answer: of that Job.
        unread: why it is unknown whether that Job has answered; empty where that is known.
    """

    artifacts: str
    prefixes: tuple[str, ...]
    allowed: bool
    servers: tuple[str, ...] = ()
    template: str = ""
    problem: TemplateProblem | None = None
    running: int = 0
    most: int = 1
    job: JobState | None = None
    answer: PinnedResult | None = None
    unread: str = ""


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """Everything that a pass over one tenant read.

    Attributes:
        identity: who this operator is; compared with what the cells say.
        cells: every registered cell while the tenant is not placed, else its own.
        collections: every generation of the tenant's alias on its cell, what its names point to, what it would adopt.
        held: by cell, what stands there under the tenant's name while it is not placed.
        aliases: alias -> collection on its cell, for the tenant's public name and sides.
        lacking: exact number of live points that a side lacks, for `pending` and `previous`, by side alias and dense
            vector ("" for the lexical binding); a side that could not be counted has no entry.
        model: the EmbeddingModel that the tenant follows, or None.
        backup: what is known of its backups; None where that has not been read yet.
        restored: another cell, onto which its collection was restored after its own lost it, or None.
        register: the tenant's part of its cell's register of tokens; None where there is none or it was not read.
        signing: the tenant's cell with the key that signs tokens now; None while a rotation's record is not read yet.
        gateway_key: signs tokens of tenants that share a collection; None while it is not known.
        seen_for: seconds for which this process has seen the live collection's ``released-at`` and the time of its
            ``pending``, by metadata key; other processes' clocks do not enter it.
        canary: what the isolation canary saw last; None where it has not spoken since this process began.
        holds: cells that are out of disk or memory, by name.
        rates: measured on the finished rebuilds of the model's revisions, the latest first, and of those without an
            encoder.
        worker_labels: of the PodTemplate that the model's rebuilds use; None where there is none of that name.
        trial: what a trial of its pinned queries needs; None where it has none, or nobody can make one.
    """

    identity: CellIdentity
    namespace_uid: str
    cells: tuple[CellState, ...] = ()
    grants: Mapping[str, int] = field(default_factory=dict)
    cell: CellState | None = None
    collections: tuple[CollectionState, ...] = ()
    held: Mapping[str, tuple[CollectionState, ...]] = field(default_factory=dict)
    lacking: Mapping[tuple[str, str], int] = field(default_factory=dict)
    model: EmbeddingModel | None = None
    reindex: ReindexJob | None = None
    secrets: Mapping[str, AccessSecretState] = field(default_factory=dict)
    probe: SearchProbe | None = None
    backup: BackupRecord | None = None
    restored: str | None = None
    register: RegisterState | None = None
    signing: CellRegistration | None = None
    seen_for: Mapping[str, float] = field(default_factory=dict)
    canary: CanaryResult | None = None
    gateway_key: str | None = field(default=None, repr=False)
    holds: Mapping[str, CellHold] = field(default_factory=dict)
    rates: tuple[MeasuredRate, ...] = ()
    worker_labels: Mapping[str, str] | None = None
    trial: TrialFacts | None = None


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """The finalizer and, where it was just chosen, the cell: one write, before any DDL."""

    cell: str


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go: the last write."""


@dataclass(frozen=True, slots=True)
class ClaimCell:
    """Write this fleet's identity on a cell that has none."""

    identity: CellIdentity


@dataclass(frozen=True, slots=True)
class CreateCollection:
    """Create a generation."""

    design: CollectionDesign


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Create a payload index."""

    collection: str
    field: str
    kind: str


@dataclass(frozen=True, slots=True)
class PointAlias:
    """Create or move an alias."""

    alias: str
    collection: str


@dataclass(frozen=True, slots=True)
class RemoveAlias:
    """Remove an alias."""

    alias: str


@dataclass(frozen=True, slots=True)
class PatchCollection:
    """One PATCH of metadata keys and, where given, strict mode."""

    collection: str
    metadata: tuple[tuple[str, str | None], ...] = ()
    strict: StrictMode | None = None


@dataclass(frozen=True, slots=True)
class AddVector:
    """Add a named dense vector."""

    collection: str
    vector: str
    dimension: int


@dataclass(frozen=True, slots=True)
class RemoveVector:
    """Remove a named dense vector that nothing names any more."""

    collection: str
    vector: str


@dataclass(frozen=True, slots=True)
class DropCollection:
    """Drop a generation that is proved to be ours and that nothing names any more."""

    collection: str


@dataclass(frozen=True, slots=True)
class WriteAccessSecret:
    """Sign a token for an access entry and write its Secret.

    Attributes:
        tier: of the tenant; a shared one's token is signed with the gateway's key and names no database.
    """

    entry: AccessEntry
    inputs_digest: str
    token_id: str = ""
    tier: Tier = "Collection"


@dataclass(frozen=True, slots=True)
class PrepareRegister:
    """Create the cell's register of valid tokens."""

    identity: CellIdentity
    replicas: int


@dataclass(frozen=True, slots=True)
class GrantTokens:
    """Enter access entries into the register, in one request."""

    grants: tuple[TokenGrant, ...]


@dataclass(frozen=True, slots=True)
class RevokeTokens:
    """Take entries out of the register: their tokens are refused from now on."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteAccessSecret:
    """Delete a Secret of ours."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateReindexJob:
    """Create the ReindexJob of a rebuild once."""

    name: str
    revision: str | None
    strategy: str
    slices: int
    pod_template: str
    cutover: Literal["Automatic", "Manual"] = "Automatic"


@dataclass(frozen=True, slots=True)
class DeleteReindexJob:
    """Cancel a rebuild that is not wanted any more."""

    name: str


@dataclass(frozen=True, slots=True)
class StartTrial:
    """Make the worker Job that tries the tenant's pinned queries, once."""

    order: JobOrder
    template: str


@dataclass(frozen=True, slots=True)
class StopTrial:
    """Delete the Job of a trial that nobody waits for any more: it would keep a turn that others wait for."""

    name: str


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Tell a transition."""

    reason: str
    message: str
    warning: bool = False


TenantAction = (
    AddFinalizer
    | RemoveFinalizer
    | ClaimCell
    | CreateCollection
    | CreateIndex
    | PointAlias
    | RemoveAlias
    | PatchCollection
    | AddVector
    | RemoveVector
    | DropCollection
    | WriteAccessSecret
    | DeleteAccessSecret
    | PrepareRegister
    | GrantTokens
    | RevokeTokens
    | CreateReindexJob
    | DeleteReindexJob
    | StartTrial
    | StopTrial
    | EmitEvent
)


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What to do, what to say (None: nothing yet), and when to look again (None: when something changes)."""

    actions: tuple[TenantAction, ...]
    status: SearchTenantStatus | None
    requeue_after: float | None = None
