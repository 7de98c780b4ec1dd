"""What a ReindexJob's plan is made from, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration, CollectionState, JobState, RecallSample
    from searchops.api.retrieval import Binding
    from searchops.api.room import CellHold
    from searchops.api.tasks import SliceResult
    from searchops.api.v1alpha1.reindex_job import ReindexJobStatus
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.jobs import JobOrder, TemplateProblem


@dataclass(frozen=True, slots=True)
class ReindexFacts:
    """Everything that a pass over one ReindexJob read.

    Attributes:
        tenant_unreadable: the tenant is there, and does not parse.
        pending: the side under construction, from the metadata of the live collection.
        source: the live collection.
        target: the collection that is written (the same for NamedVector).
        documents: exact number of live points of the source.
        lacking: exact number of those that the target side does not have yet.
        slices: answers of the finished slices, by index.
        running: ReindexJobs of the same model that hold a worker Job, and of the whole fleet.
        halted: why rebuilds of the wave may not begin now; empty where they may.
        gpus: how many GPUs one worker keeps busy.
        measured_rate: documents a GPU-second of other rebuilds to the same revision, or None where there is none.
        recall: approximate against exact search on the target, or None while it was not measured in this pass.
        holds: cells that are out of disk or memory, by name.
        recall_error: why it could not be measured in this pass; empty where that was not tried, or went well.
    """

    tenant: SearchTenant | None
    artifacts: str
    cell: CellRegistration | None = None
    pending: Binding | None = None
    source: CollectionState | None = None
    target: CollectionState | None = None
    documents: int = 0
    lacking: int | None = None
    servers: tuple[str, ...] = ()
    template: TemplateProblem | None = None
    worker: JobState | None = None
    answers: tuple[str, ...] = ()
    slices: tuple[SliceResult, ...] = ()
    running: int = 0
    running_limit: int = 8
    fleet_running: int = 0
    fleet_limit: int = 32
    source_allowed: bool = True
    tenant_unreadable: bool = False
    halted: str = ""
    gpus: int = 1
    measured_rate: float | None = None
    recall: RecallSample | None = None
    recall_error: str = ""
    holds: Mapping[str, CellHold] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the object until its worker Job is gone."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go: the last write."""


@dataclass(frozen=True, slots=True)
class CreateWorker:
    """Create the Indexed Job once."""

    order: JobOrder
    template: str


@dataclass(frozen=True, slots=True)
class DeleteWorker:
    """Stop the Indexed Job."""

    name: str


@dataclass(frozen=True, slots=True)
class MeasureRecall:
    """Compare approximate with exact search, which is dear, and plan the same pass again with the answer."""

    collection: str
    vector: str


@dataclass(frozen=True, slots=True)
class HoldCell:
    """Say to everybody that a cell is out of disk or memory, as a worker met it."""

    cell: str
    said: str


@dataclass(frozen=True, slots=True)
class DeleteSelf:
    """A finished ReindexJob past its time to live."""


ReindexAction = AddFinalizer | RemoveFinalizer | CreateWorker | DeleteWorker | MeasureRecall | HoldCell | DeleteSelf


@dataclass(frozen=True, slots=True)
class ReindexPlan:
    """What to do, what to say (None: nothing), and when to look again (None: when something changes)."""

    actions: tuple[ReindexAction, ...]
    status: ReindexJobStatus | None
    requeue_after: float | None = None
