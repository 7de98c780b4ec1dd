"""What a person asks of a ReindexJob: strategy and source that may not fit, the word that lets it switch, a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.planning.conditions import Finding, no
from searchops.planning.names import APPROVE_ANNOTATION, RETRY_ANNOTATION
from searchops.planning.schema import INDEXING_THRESHOLD_POINTS

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.reindex_job import ReindexJob, StrategyKind

WHY: dict[StrategyKind, str] = {
    "NamedVector": (
        "only the vector differs, and the live collection is below "
        f"{INDEXING_THRESHOLD_POINTS} points, so that a second vector slows no search"
    ),
    "BlueGreen": (
        "schema, sharding, analyser or document differ, or the live collection has at least "
        f"{INDEXING_THRESHOLD_POINTS} points, whose index a second vector would dismantle"
    ),
}
"""Why a tenant prepares one side or the other; a tenant decides once, at the start of its rebuild."""


def chosen_strategy(source: CollectionState, target: CollectionState) -> StrategyKind:
    """What the side that the tenant prepared amounts to."""
    return "NamedVector" if source.name == target.name else "BlueGreen"


def refusal(job: ReindexJob, source: CollectionState, target: CollectionState) -> str | None:
    """What the spec asks for that the prepared side cannot give, with what to do; None where it can."""
    chosen, wanted = chosen_strategy(source, target), job.spec.strategy
    if wanted not in ("Auto", chosen):
        return (
            f"spec.strategy is {wanted}, but the tenant prepared {target.name} for {chosen}: {WHY[chosen]}; "
            f"set spec.strategy to Auto or {chosen}"
        )
    if job.spec.source.uri is not None and chosen == "NamedVector":
        return (
            f"spec.source.uri is {job.spec.source.uri}, but a catalogue can only fill a new generation, and the tenant "
            f"prepared a second vector on {target.name}: {WHY[chosen]}; set spec.source to fromCollection: true"
        )
    return None


def approval_word(job: ReindexJob) -> str:
    """What the annotation must say: the revision, or the job's own name where it has none."""
    return job.spec.revision or job.metadata.name


def may_switch(job: ReindexJob) -> bool:
    """Whether a verified job's tenant may switch: at once, or once a person has said so."""
    return job.spec.cutover == "Automatic" or job.metadata.annotations.get(APPROVE_ANNOTATION) == approval_word(job)


def awaits_switch(job: ReindexJob) -> Finding:
    """What a verified job waits for."""
    if may_switch(job):
        return no("Switched", ReindexReason.WAITING, "verified; the tenant switches")
    word, said = approval_word(job), job.metadata.annotations.get(APPROVE_ANNOTATION)
    seen = f"annotation {APPROVE_ANNOTATION} is {said!r}" if said else f"there is no annotation {APPROVE_ANNOTATION}"
    message = (
        f"verified; spec.cutover is Manual and {seen}; to switch, annotate this ReindexJob with "
        f"{APPROVE_ANNOTATION}={word} (searchops approve {job.metadata.name} {word} --kind reindex "
        f"-n {job.metadata.namespace}) or set spec.cutover to Automatic; the old side serves meanwhile"
    )
    return no("Switched", ReindexReason.AWAITING_APPROVAL, message)


def retry_cause(job: ReindexJob) -> str | None:
    """Why a failed job is tried again: a token that is new, or a spec that is; None where neither is."""
    token = job.metadata.annotations.get(RETRY_ANNOTATION, "")
    if token and token != job.status.retry_token:
        return f"annotation {RETRY_ANNOTATION} is now {token!r}"
    if job.metadata.generation != job.status.observed_generation:
        return f"the spec is of generation {job.metadata.generation}, which has not been tried"
    return None
