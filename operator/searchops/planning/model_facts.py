"""What a model's plan is made from, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from searchops.planning.rebuild_rates import NO_PRICES, GpuPrices
from searchops.planning.signal_evidence import NOT_MEASURED, SignalFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import JobState, PoolRegistration, ServerState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.tasks import BuildResult, EvaluateResult
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
    from searchops.planning.jobs import JobOrder, TemplateProblem
    from searchops.planning.rebuild_rates import MeasuredRate


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A pool and each of its servers.

    Attributes:
        inference: per (server URL, revision): "" where a real inference matched the reference vectors, else why not;
            no entry where none was made: unknown.
        refusals: per (server URL, Triton model): what the server said to the last load or unload that failed.
    """

    registration: PoolRegistration
    servers: tuple[ServerState, ...]
    inference: Mapping[tuple[str, str], str] = field(default_factory=dict)
    refusals: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TenantFact:
    """One tenant that names the model, as its last status says.

    Attributes:
        previous_lacking: points whose last write the previous side has not got; None is unknown.
        documents: that a rebuild embeds (estimated).
        replicas: of each.
        since: when the binding was written.
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    bound: str | None = None
    previous: str | None = None
    rebuilding: bool = False
    failed: bool = False
    held: bool = False
    previous_lacking: int | None = None
    documents: int = 0
    replicas: int = 1
    since: str | None = None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A worker Job of the candidate and its answer.

    Attributes:
        unread: why it is unknown whether the Job has answered; empty where that is known.
    """

    name: str
    state: JobState | None = None
    problem: TemplateProblem | None = None
    unread: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Everything that a pass over one EmbeddingModel read.

    Attributes:
        bound_elsewhere: revisions of this model that bindings of tenants name which name another model by now.
        unread_tenants: tenants with a cell whose binding has not been read yet: what they need is unknown.
        bindings_of_this_model: whether any tenant is bound to a revision of this model.
        jobs: worker Jobs of this model that have not ended, whatever they were made for; every one of a deleted model.
        rates: measured on the finished rebuilds of the model's revisions, the latest first, and of those without an
            encoder.
        prices: of GPU-hours.
        worker_labels: of the PodTemplate that rebuilds use; None where there is none of that name.
        settle_seconds: how long a rebuild waits for every gateway.
        most_reindexes: rebuilds at one time over all models.
        signals: what merchants' searches say of the candidate while its waves run.
        unread_probes: revisions whose reference vectors the artifact store does not give now, with why.
    """

    artifacts: str
    profile: RetrievalProfile | None
    serving: PoolFacts | None
    canary: PoolFacts | None
    build: JobFacts | None = None
    build_result: BuildResult | None = None
    gate: JobFacts | None = None
    gate_result: EvaluateResult | None = None
    reevaluation: JobFacts | None = None
    reevaluation_result: EvaluateResult | None = None
    tenants: tuple[TenantFact, ...] = ()
    stored: EmbeddingModelStatus | None = None
    source_allowed: bool = True
    bound_elsewhere: tuple[str, ...] = ()
    unread_tenants: int = 0
    bindings_of_this_model: bool = False
    jobs: tuple[JobState, ...] = ()
    unread_probes: Mapping[str, str] = field(default_factory=dict)
    rates: tuple[MeasuredRate, ...] = ()
    prices: GpuPrices = NO_PRICES
    worker_labels: Mapping[str, str] | None = None
    settle_seconds: float = 0.0
    most_reindexes: int = 1
    signals: SignalFacts = NOT_MEASURED

    @property
    def superseded(self) -> tuple[JobState, ...]:
        """Jobs that still run though the candidate waits for another one.

        A build whose answer has been taken may still be ending while the gate is next, so a gate replaces gates only.
        """
        if self.build is not None:
            return tuple(job for job in self.jobs if job.name != self.build.name)
        if self.gate is not None:
            return tuple(job for job in self.jobs if job.name != self.gate.name and job.kind == "evaluate")
        return ()


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the object until its models are unloaded."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go: the last write."""


@dataclass(frozen=True, slots=True)
class WriteState:
    """Keep what must survive a lost status, before the status is written."""

    status: EmbeddingModelStatus


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a worker Job once."""

    order: JobOrder
    template: str


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a worker Job that nobody waits for any more, and only the very one that was seen."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load one Triton model on one server."""

    server: ServerState
    model: str


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Unload one Triton model from one server."""

    server: ServerState
    model: str


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Tell a transition."""

    reason: str
    message: str
    warning: bool = False


ModelAction = AddFinalizer | RemoveFinalizer | WriteState | CreateJob | DeleteJob | LoadModel | UnloadModel | EmitEvent


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What to do, what to say, and when to look again (None: when something changes)."""

    actions: tuple[ModelAction, ...]
    status: EmbeddingModelStatus | None
    requeue_after: float | None = None
