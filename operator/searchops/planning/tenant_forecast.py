"""What a rebuild that a tenant needs would do, how long and at what cost: `status.plan`, written before it starts.

The figures are foreseen from measurements and from the estimated number of points; they move only when that has
moved by 1 % or more, so that a tenant that waits is not written at every pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from searchops.api.v1alpha1.search_tenant_status import PlanStatus, RoomStatus
from searchops.planning.conditions import clip
from searchops.planning.names import KEY_ADOPTED, collection_name
from searchops.planning.placement import PROCESS_LIMIT_FOR_REBUILDS, process_fits
from searchops.planning.quotas import BYTES_A_DIMENSION, MEGABYTE, moved
from searchops.planning.rebuild_rates import cost_of_rebuild, duration_of, rounded_up
from searchops.planning.schema import INDEXING_THRESHOLD_POINTS, schema_digest
from searchops.planning.tenant_access import direct_writers

if TYPE_CHECKING:
    from searchops.api.observed import CellState
    from searchops.api.retrieval import Binding
    from searchops.planning.binding_state import BindingContext

MOST_CHANGES = 16
WAITS_FOR_A_PERSON = "; the switch then waits for a person, since an access entry is direct"
TIER_PREFIX = "isolation "
"""How a difference of tier begins in `SchemaDifference.rebuild`."""
WHY_TIER = "the tier differs: the documents move to a collection of the other tier, and every reader follows them"
WHY_ADOPTED = "the collection was adopted, and nothing is added to what was there before the tenant"
WHY_SCHEMA = "what differs cannot change in place: another generation is filled while this one serves"
WHY_LARGE = (
    f"only the vector differs, but the live collection has at least {INDEXING_THRESHOLD_POINTS} points, whose index a "
    "second vector would dismantle"
)
WHY_LARGE_TOGETHER = (
    f"only the vector differs, but the shared collection has at least {INDEXING_THRESHOLD_POINTS} points of all its "
    "tenants, whose index a second vector would dismantle"
)
WHY_SMALL = (
    "only the vector differs, and the live collection is below "
    f"{INDEXING_THRESHOLD_POINTS} points, so that a second vector slows no search"
)


PERCENT_STEP = 5
"""Points of a hundred by which memory maps or open files must have moved to be told anew."""

Strategy = Literal["NamedVector", "BlueGreen", "Move"]


@dataclass(frozen=True, slots=True)
class Need:
    """A rebuild that is wanted.

    Attributes:
        target: the binding that is wanted.
        differences: what only another generation or tier can mend, as `compare_schema` names it.
        collection: where a move between tiers goes; else the strategy says which collection is filled.
    """

    target: Binding
    differences: tuple[str, ...]
    collection: str | None = None


def target_key(context: BindingContext, target: Binding) -> str:
    """What a rebuild aims at besides its revision; equal keys mean the same rebuild."""
    return f"{target.vector or 'lexical'}/{schema_digest(context.tenant.spec)}"


def shown_plan(context: BindingContext, target: Binding) -> PlanStatus | None:
    """What the status shows of the rebuild to this target; None where it shows nothing, or another one."""
    plan = context.tenant.status.plan
    if plan is None or (plan.target_space, plan.revision) != (target_key(context, target), target.revision):
        return None
    return plan


def foresee(context: BindingContext, need: Need) -> PlanStatus:
    """The plan of a rebuild that has not started; its strategy is the one that is taken if it starts now."""
    facts, settings, target = context.facts, context.settings, need.target
    before = shown_plan(context, target)
    documents = context.current.points
    if before is not None and not moved(before.documents, documents):
        documents = before.documents
    strategy, why = _strategy(context, need, documents)
    name = need.collection or context.current.name
    replicas = context.current.replicas
    if strategy != "NamedVector":
        name = need.collection or collection_name(context.owner.alias, context.generation + 1)
        replicas = context.tenant.spec.sharding.replicas
    room = _room(context.cell, context.tenant.spec.isolation, name, before.room if before is not None else None)
    template = worker_template(context)
    took = duration_of(documents, facts.rates, target.revision, settings.binding_settle.total_seconds())
    cost = cost_of_rebuild(documents, facts.rates, target.revision, settings.prices, template, facts.worker_labels)
    waits = WAITS_FOR_A_PERSON if direct_writers(context.tenant) and took.seconds is not None else ""
    plan = PlanStatus(
        state="Paused" if context.tenant.spec.paused else "Planned" if room.fits else "NoRoom",
        changes=changes_of(context, need),
        strategy=strategy,
        why=why,
        target_space=target_key(context, target),
        revision=target.revision,
        collection=name,
        vector=target.vector,
        documents=documents,
        seconds=took.seconds,
        seconds_basis=f"{took.basis}{waits}",
        gpu_seconds=cost.gpu_seconds,
        gpu_seconds_basis=cost.gpu_basis,
        cost=cost.price,
        cost_basis=cost.basis,
        extra_megabytes=extra_megabytes(documents, target.dimension, replicas),
        room=room,
    )
    return plan if before is None else _with_words_of(before, plan)


def worker_template(context: BindingContext) -> str:
    """The PodTemplate that a rebuild's workers are made from."""
    model = context.facts.model
    return model.spec.engine.worker.pod_template if model is not None else "cpu"


def room_message(context: BindingContext, room: RoomStatus) -> str:
    """Why there is no room, with the numbers and what to do."""
    process = "".join(
        f" and has its {what} at {percent} % (limit {PROCESS_LIMIT_FOR_REBUILDS} %)"
        for what, percent in (("memory maps", room.maps_percent), ("open files", room.files_percent))
        if percent is not None
    )
    return (
        f"a rebuild needs room for one more collection, but cell {context.cell.name} holds {room.collections} of "
        f"{room.max_collections} collections{process}; raise maxCollections in its Secret or remove tenants; nothing "
        "is started, and the old side serves meanwhile"
    )


def extra_megabytes(documents: int, dimension: int | None, replicas: int) -> int:
    """Megabytes of dense vectors on all replicas, rounded up to two digits."""
    return rounded_up(documents * (dimension or 0) * BYTES_A_DIMENSION * replicas / MEGABYTE)


def changes_of(context: BindingContext, need: Need) -> tuple[str, ...]:
    """Every difference from what is bound to what is wanted, what the schema names first."""
    bound, target = context.state.binding, need.target
    found = list(need.differences)
    if (bound.revision, bound.vector) != (target.revision, target.vector):
        found.append(
            f"revision {bound.revision or 'none'} → {target.revision or 'none'} "
            f"(vector {bound.vector or 'none'} → {target.vector or 'none'})"
        )
    return tuple(clip(item) for item in found[:MOST_CHANGES])


def _strategy(context: BindingContext, need: Need, documents: int) -> tuple[Strategy, str]:
    if any(item.startswith(TIER_PREFIX) for item in need.differences):
        return "Move", WHY_TIER
    if need.differences:
        return "BlueGreen", WHY_SCHEMA
    if KEY_ADOPTED in context.current.metadata:
        return "BlueGreen", WHY_ADOPTED
    if documents >= INDEXING_THRESHOLD_POINTS:
        return "BlueGreen", WHY_LARGE
    if context.current.indexed_together >= INDEXING_THRESHOLD_POINTS:
        return "BlueGreen", WHY_LARGE_TOGETHER
    return "NamedVector", WHY_SMALL


def _room(cell: CellState, tier: str, name: str, before: RoomStatus | None) -> RoomStatus:
    """Whether the collection that is filled is there or may be made; numbers stay while they hardly move.

    The whole of `max_collections` may be used, and memory maps and open files up to 85 % of their limits, where
    placement ends at 80 % and 70 %: what placement leaves free is for these second generations, which go again when
    the rollback window ends. At placement's own limits a cell as full as it may be could rebuild nothing.
    """
    held, most = cell.held, cell.registration.max_collections
    needed = tier == "Collection" and name not in cell.collections  # a slice takes no room of its own
    open_to_one = held < most and process_fits(cell, PROCESS_LIMIT_FOR_REBUILDS)
    room = RoomStatus(
        needed=needed,
        fits=open_to_one or not needed,
        collections=held,
        max_collections=most,
        maps_percent=cell.maps_percent,
        files_percent=cell.files_percent,
    )
    if before is None or (before.needed, before.fits, before.max_collections) != (needed, room.fits, most):
        return room
    near = _near(before.maps_percent, room.maps_percent) and _near(before.files_percent, room.files_percent)
    return before if near and not moved(before.collections, held) else room


def _near(before: int | None, now: int | None) -> bool:
    if before is None or now is None:
        return before is now
    return abs(now - before) < PERCENT_STEP


def _with_words_of(before: PlanStatus, plan: PlanStatus) -> PlanStatus:
    """One more job that was measured and the figure of before: the words of before too."""
    words: dict[str, str] = {}
    if plan.seconds is not None and plan.seconds == before.seconds:
        words["seconds_basis"] = before.seconds_basis
    if plan.gpu_seconds is not None and plan.gpu_seconds == before.gpu_seconds:
        words["gpu_seconds_basis"] = before.gpu_seconds_basis
    return plan.model_copy(update=words)
