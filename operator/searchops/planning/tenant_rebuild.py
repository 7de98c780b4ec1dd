"""A rebuild of a tenant: prepare the target side, wait until every gateway writes both, fill it, switch.

Whatever ends a rebuild early leaves the old binding untouched. What another rebuild left half-filled is never filled
on: writes of the time between have missed it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import format_time
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.api.v1alpha1.search_tenant_status import RebuildStatus
from searchops.planning.binding_state import BindingStep
from searchops.planning.conditions import Finding, holds, no
from searchops.planning.names import (
    KEY_ADOPTED,
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_PENDING,
    KEY_PREVIOUS,
    generation_of,
    reindex_job_name,
)
from searchops.planning.reindex_request import may_switch
from searchops.planning.schema import collection_design, schema_digest
from searchops.planning.tenant_access import direct_writers
from searchops.planning.tenant_facts import (
    AddVector,
    CreateCollection,
    CreateIndex,
    CreateReindexJob,
    DeleteReindexJob,
    DropCollection,
    EmitEvent,
    PatchCollection,
    PointAlias,
    RemoveVector,
    TenantAction,
)
from searchops.planning.tenant_forecast import foresee, room_message, shown_plan, target_key, worker_template

if TYPE_CHECKING:
    from searchops.api.observed import CollectionDesign, CollectionState
    from searchops.api.retrieval import Binding
    from searchops.api.v1alpha1.search_tenant_status import PlanStatus
    from searchops.planning.binding_state import BindingContext
    from searchops.planning.tenant_forecast import Need

MAX_REBUILD_ATTEMPTS = 3
REBUILD_POLL_SECONDS = 15.0
ROOM_POLL_SECONDS = 60.0
DEFAULT_SLICES = 2
SHOWN_SECONDS = 1.0
"""Between the pass that writes what is foreseen and the one that starts it."""


def cancel(context: BindingContext) -> list[TenantAction]:
    """Stop the ReindexJob that the tenant waits for, if any."""
    rebuild = context.tenant.status.rebuild
    return [DeleteReindexJob(rebuild.reindex_job)] if rebuild is not None else []


def plan_rebuild(context: BindingContext, need: Need) -> BindingStep:
    """The next step of a rebuild; one for something else is cancelled first, and none starts that is not foreseen.

    Only a new generation can give what differs in the schema; else the number of points decides once, at the start.
    """
    target, rebuild = need.target, context.tenant.status.rebuild
    reason = "; ".join(need.differences) or "SpaceChanged"
    aim = (target_key(context, target), target.revision)
    if rebuild is not None and (rebuild.target_space, rebuild.revision) != aim:
        plan, said = foresee(context, need), (_rebuilding(reason),)
        return BindingStep(tuple(cancel(context)), said, None, context.previous_status(), 0.0, plan)
    pending, shown = context.state.pending, shown_plan(context, target)
    filling = pending is not None and (pending.vector, pending.revision) == (target.vector, target.revision)
    if rebuild is None and not (filling and shown is not None):
        plan = foresee(context, need)
        if plan.state != "Planned" or shown is None or shown.strategy != plan.strategy:
            return _not_yet(context, plan, reason)
    plan = shown or foresee(context, need)
    if rebuild is not None or filling:
        plan = plan.model_copy(update={"state": "Started"})
    # Nothing is added to or taken out of what was there before the tenant.
    schema = bool(need.differences) or KEY_ADOPTED in context.current.metadata
    blue_green = schema or plan.strategy != "NamedVector"
    if pending is not None and filling and not schema:
        blue_green = pending.side == context.other_side
    step = _prepare_generation(context, target) if blue_green else _prepare_vector(context, target)
    if step is None:
        assert pending is not None, "a prepared side is named by pending"  # noqa: S101 - _prepare's result
        step = _fill(context, target, pending, aim[0], reason, blue_green=blue_green)
    return replace(step, plan=plan)


def _not_yet(context: BindingContext, plan: PlanStatus, reason: str) -> BindingStep:
    """Say what would happen; the next pass starts it, unless the tenant is paused or its cell has no room."""
    said: tuple[Finding, ...] = ()
    wait: float | None = None
    if plan.state == "Planned":
        wait = SHOWN_SECONDS
        said = (
            no("ModelBound", TenantReason.REBUILD_REQUIRED, f"a rebuild starts: {reason}; status.plan foresees it"),
        )
    elif plan.state == "NoRoom":
        wait = ROOM_POLL_SECONDS
        said = (no("ModelBound", TenantReason.NO_CAPACITY, room_message(context, plan.room)),)
    return BindingStep((), said, None, context.previous_status(), wait, plan)


def _fill(
    context: BindingContext, target: Binding, pending: Binding, target_key: str, reason: str, *, blue_green: bool
) -> BindingStep:
    """The side is there and named: wait for the gateways, then for the ReindexJob, then switch."""
    said, previous, job = (_rebuilding(reason),), context.previous_status(), context.facts.reindex
    before = context.tenant.status.rebuild
    attempt = before.attempt if before is not None else 1
    name = _job_name(context, target, pending, attempt)
    if job is not None and job.metadata.name == name and job.status.phase in ("Failed", "Cancelled"):
        return _failed(context, target, pending, target_key, reason, attempt)
    status = _rebuild_status(context, name, reason, attempt, target_key, target.revision)
    left = context.unread
    if left > 0:
        return BindingStep((), said, status, previous, max(0.2, left))
    if job is None or job.metadata.name != name:
        strategy = "BlueGreen" if blue_green else "NamedVector"
        template = worker_template(context)
        cutover: Literal["Automatic", "Manual"] = "Manual" if direct_writers(context.tenant) else "Automatic"
        create = CreateReindexJob(name, target.revision, strategy, DEFAULT_SLICES, template, cutover)
        return BindingStep((create,), said, status, previous, REBUILD_POLL_SECONDS)
    if holds(job.status.conditions, "Verified") and may_switch(job) and _complete(context, pending):
        return BindingStep(_switch(context, pending, blue_green=blue_green), ())
    return BindingStep((), said, status, previous, REBUILD_POLL_SECONDS)


def _job_name(context: BindingContext, target: Binding, pending: Binding, attempt: int) -> str:
    """A function of what lasts: the side's own record is in it, so that a finished job is never taken for a later one.

    ``pending.since`` is in the collection's metadata; a retry reads the same one.
    """
    schema = f"{schema_digest(context.tenant.spec)}/{target.revision or ''}/{pending.since}"
    return reindex_job_name(context.owner.name, context.owner.uid, target.vector or "lexical", schema, attempt)


def _rebuilding(reason: str) -> Finding:
    return no("ModelBound", TenantReason.REBUILDING, f"a rebuild is under way: {reason}; the old side serves meanwhile")


def _rebuild_status(
    context: BindingContext, name: str, reason: str, attempt: int, target: str, revision: str | None
) -> RebuildStatus:
    before = context.tenant.status.rebuild
    started = before.started_at if before is not None and before.reindex_job == name else format_time(context.now)
    return RebuildStatus(
        reindex_job=name,
        reason=reason[:256],
        attempt=attempt,
        target_space=target,
        revision=revision,
        started_at=started,
    )


def _complete(context: BindingContext, pending: Binding) -> bool:
    """Counted again in the database, never believed from a finished object."""
    job = context.facts.reindex
    dead = job.status.progress.failed if job is not None and job.status.progress is not None else 0
    lacking = context.lacking(pending)
    return lacking is not None and lacking <= dead


def _wait_for_gateways(context: BindingContext) -> BindingStep:
    said = (_rebuilding("the target side is being cleared"),)
    return BindingStep((), said, context.tenant.status.rebuild, context.previous_status(), max(0.2, context.settling))


def _prepare_vector(context: BindingContext, target: Binding) -> BindingStep | None:
    """The target's vector on the live collection, named by `pending`; None where both are so already."""
    state, current = context.state, context.current
    pending = state.pending
    there = target.vector in current.dense
    bindings = [item for item in (state.binding, pending, state.previous) if item is not None]
    named = [item.vector for item in bindings if _stands_here(context, item)]
    same = pending is not None and (pending.vector, pending.revision) == (target.vector, target.revision)
    if there and pending is not None and same and _stands_here(context, pending):
        return None
    if there and target.vector is not None and target.vector not in named:
        if context.settling > 0:
            return _wait_for_gateways(context)
        return BindingStep((RemoveVector(current.name, target.vector),), ())
    actions: list[TenantAction] = []
    if not there and target.vector is not None and target.dimension is not None:
        actions.append(AddVector(current.name, target.vector, target.dimension))
    actions.append(PatchCollection(current.name, context.record({KEY_PENDING: target.to_metadata()})))
    return BindingStep(tuple(actions), ())


def _stands_here(context: BindingContext, item: Binding) -> bool:
    return item.side in (None, context.side)


def _prepare_generation(context: BindingContext, target: Binding) -> BindingStep | None:
    """The next generation with its indexes and side, then `pending` by itself; None where all is there and named."""
    side, pending = context.other_side, context.state.pending
    moved = target.model_copy(update={"side": side})
    number = context.generation + 1
    design = collection_design(context.tenant, context.owner, number, moved, lifted=True, filling=True)
    there = next((item for item in context.facts.collections if item.name == design.name), None)
    stranger = _stranger(context, design, there)
    if stranger is not None:
        return stranger
    named = (
        pending is not None
        and pending.side == side
        and (pending.vector, pending.revision, pending.analyser_id, pending.document)
        == (target.vector, target.revision, target.analyser_id, target.document)
    )
    if there is None and named:
        return BindingStep((PatchCollection(context.current.name, context.record({KEY_PENDING: None})),), ())
    if there is not None and not (_fits(there, design) and (named or there.points == 0)):
        return _clear(context, there)
    previous = context.state.previous
    if previous is not None and previous.side == side:
        return BindingStep((PatchCollection(context.current.name, context.record({KEY_PREVIOUS: None})),), ())
    actions: list[TenantAction] = [] if there is not None else [CreateCollection(design)]
    indexes = there.indexes if there is not None else {}
    actions += [CreateIndex(design.name, field, kind) for field, kind in design.indexes if indexes.get(field) != kind]
    if context.cell.aliases.get(side) != design.name:
        if context.settling > 0:
            return _wait_for_gateways(context)
        actions.append(PointAlias(side, design.name))
    if actions:
        return BindingStep(tuple(actions), ())
    if not named:
        values = {KEY_PENDING: moved.to_metadata()}
        return BindingStep((PatchCollection(context.current.name, context.record(values)),), ())
    return None


def _stranger(context: BindingContext, design: CollectionDesign, there: CollectionState | None) -> BindingStep | None:
    """A name of ours that somebody else holds is never written, re-pointed or dropped."""
    held = context.cell.aliases.get(context.other_side)
    behind = next((item for item in context.facts.collections if item.name == held), None)
    if there is not None and (not context.owner.owns(there) or KEY_DELETED_AT in there.metadata):
        seen = f"collection {there.name}"
    elif held is not None and (behind is None or not context.owner.owns(behind)):
        seen = f"alias {context.other_side}, which points to {held}"
    else:
        return None
    message = (
        f"a rebuild needs the name {design.name}, but {seen} on cell {context.cell.name} is not this tenant's; it is "
        "left alone; remove it by hand; the old side serves meanwhile"
    )
    finding = no("ModelBound", TenantReason.CONFLICT, message)
    return BindingStep((), (finding,), context.tenant.status.rebuild, context.previous_status(), 60.0)


def _fits(there: CollectionState, design: CollectionDesign) -> bool:
    seen = (there.tier, there.layout, dict(there.dense), there.shards, there.replicas)
    wanted = (design.tier, design.layout, dict(design.dense), design.shards, design.replicas)
    lexical = frozenset(design.sparse)
    return seen == wanted and (lexical <= there.sparse if there.slice else lexical == there.sparse)


def _clear(context: BindingContext, there: CollectionState) -> BindingStep:
    """A generation of ours in the way: un-name it, wait until no gateway writes it any more, drop it."""
    side, state = context.other_side, context.state
    values: dict[str, str | None] = {}
    if state.pending is not None and state.pending.side == side:
        values[KEY_PENDING] = None
    if state.previous is not None and state.previous.side == side:
        values[KEY_PREVIOUS] = None
    if values:
        return BindingStep((*cancel(context), PatchCollection(context.current.name, context.record(values))), ())
    if context.settling > 0:
        return _wait_for_gateways(context)
    return BindingStep((DropCollection(there.name),), ())


def _switch(context: BindingContext, pending: Binding, *, blue_green: bool) -> tuple[TenantAction, ...]:
    """The switch itself is one request; what comes before it changes nothing that a shopper sees."""
    bound = pending.model_copy(update={"since": format_time(context.now)})
    old = context.state.binding.model_copy(update={"side": context.side})
    said = EmitEvent("BindingSwitched", f"{old.revision or 'lexical legs'} → {bound.revision or 'lexical legs'}")
    values: dict[str, str | None] = {KEY_BINDING: bound.to_metadata(), KEY_PREVIOUS: old.to_metadata()}
    if not blue_green:
        return (PatchCollection(context.current.name, context.record({**values, KEY_PENDING: None})), said)
    number = context.generation + 1
    target = next(
        item
        for item in context.facts.collections
        if generation_of(context.owner.alias, item.name) == number and context.owner.owns(item)
    )
    patch = PatchCollection(target.name, context.record({**values, KEY_PENDING: None}))
    return (patch, PointAlias(context.owner.alias, target.name), said)


def _failed(
    context: BindingContext, target: Binding, pending: Binding, target_key: str, reason: str, attempt: int
) -> BindingStep:
    """A rebuild that failed leaves the old binding untouched; a few attempts, then a person is asked."""
    job, previous = context.facts.reindex, context.previous_status()
    ready = next((item for item in job.status.conditions if item.type == "Ready"), None) if job is not None else None
    seen = ready.message if ready is not None else "it gave no reason"
    if attempt < MAX_REBUILD_ATTEMPTS:
        following = _job_name(context, target, pending, attempt + 1)
        status = _rebuild_status(context, following, reason, attempt + 1, target_key, target.revision)
        return BindingStep((), (_rebuilding(reason),), status, previous, 1.0)
    name = _job_name(context, target, pending, attempt)
    message = (
        f"ReindexJob {name} failed, as {attempt} attempts did ({seen}); "
        f"{context.state.binding.revision or 'the lexical legs'} go on serving; mend the cause, then delete the "
        "ReindexJob to try again"
    )
    status = _rebuild_status(context, name, reason, attempt, target_key, target.revision)
    return BindingStep((), (no("ModelBound", TenantReason.REBUILD_FAILED, message),), status, previous, 60.0)
