"""What a tenant's collection is bound to, and how it gets to what its model wants.

Encoder and index flip together: a binding is one metadata value, and the switch is one request (a metadata patch for
NamedVector, an alias action for BlueGreen). While a rebuild is under way the collection carries ``pending`` and the
gateway writes both sides; after the switch ``pending`` has become the binding and the old one is ``previous`` until
the rollback window ends. Only this module decides on alias, ``binding``, ``pending`` and ``previous``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.retrieval import Binding
from searchops.api.v1alpha1.search_tenant import (
    BindingStatus,
    PreviousStatus,
    RebuildStatus,
    TenantReason,
)
from searchops.planning.conditions import Finding, holds, no, yes
from searchops.planning.names import (
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_PENDING,
    KEY_PREVIOUS,
    generation_of,
    reindex_job_name,
)
from searchops.planning.schema import (
    INDEXING_THRESHOLD_POINTS,
    Owner,
    collection_design,
    dense_binding,
    lexical_binding,
    schema_digest,
    side_of,
)
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
    TenantFacts,
    TenantSettings,
)
from searchops.planning.waves import Wanted, wanted_revision

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CellState, CollectionState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.v1alpha1.search_tenant import SearchTenant

MAX_REBUILD_ATTEMPTS = 3
REBUILD_POLL_SECONDS = 15.0
DEFAULT_SLICES = 2


@dataclass(frozen=True, slots=True)
class BindingState:
    """The three values of a collection's metadata."""

    binding: Binding
    pending: Binding | None
    previous: Binding | None

    def to_status(self) -> BindingStatus:
        """As the status shows it."""
        binding = self.binding
        return BindingStatus(
            model=binding.model,
            revision=binding.revision,
            encoder=binding.encoder,
            vector=binding.vector,
            analyser=binding.analyser_id,
            profile=binding.profile.name,
            since=binding.since,
        )


@dataclass(frozen=True, slots=True)
class BindingStep:
    """Actions of this pass, what to say, and the rebuild that is waited for."""

    actions: tuple[TenantAction, ...]
    findings: tuple[Finding, ...]
    rebuild: RebuildStatus | None = None
    previous: PreviousStatus | None = None
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class _Context:
    tenant: SearchTenant
    facts: TenantFacts
    settings: TenantSettings
    owner: Owner
    cell: CellState
    current: CollectionState
    state: BindingState
    profile: RetrievalProfile
    now: datetime

    @property
    def generation(self) -> int:
        return generation_of(self.owner.alias, self.current.name) or 1

    @property
    def side(self) -> str:
        return side_of(self.owner.alias, self.generation)

    @property
    def window(self) -> timedelta:
        model = self.facts.model
        return parse_duration(model.spec.rollout.rollback_window) if model is not None else timedelta(hours=72)


def read_bindings(collection: CollectionState) -> BindingState | None:
    """The three values, or None where the binding itself cannot be read (it is then never overwritten)."""
    text = collection.metadata.get(KEY_BINDING)
    if text is None:
        return None
    try:
        return BindingState(
            Binding.from_metadata(text),
            _optional(collection.metadata.get(KEY_PENDING)),
            _optional(collection.metadata.get(KEY_PREVIOUS)),
        )
    except ValidationError:
        return None


def _optional(text: str | None) -> Binding | None:
    return Binding.from_metadata(text) if text is not None else None


def plan_binding(
    tenant: SearchTenant,
    facts: TenantFacts,
    settings: TenantSettings,
    owner: Owner,
    cell: CellState,
    current: CollectionState,
    state: BindingState,
    schema_rebuild: tuple[str, ...],
    profile: RetrievalProfile,
    now: datetime,
) -> BindingStep:
    """One step from what is bound to what is wanted; `schema_rebuild` names what only a new generation can mend."""
    context = _Context(tenant, facts, settings, owner, cell, current, state, profile, now)
    wanted = wanted_revision(
        facts.model.status if facts.model is not None else None,
        namespace=owner.namespace,
        name=owner.name,
        labels=tenant.metadata.labels,
        pinned=tenant.spec.model.revision,
    )
    if wanted.why in ("ModelMissing", "PinnedUnknown"):
        return _keep(context, wanted)
    target = _target(context, wanted)
    if schema_rebuild:
        return _rebuild(context, wanted, target, "; ".join(schema_rebuild), blue_green=True)
    if state.binding.revision == target.revision and state.binding.vector == target.vector:
        return _bound(context, wanted, target)
    if target.lexical_only or _has_filled(context, target):
        return _flip(context, target)
    return _rebuild(context, wanted, target, "SpaceChanged", blue_green=current.points >= INDEXING_THRESHOLD_POINTS)


def _target(context: _Context, wanted: Wanted) -> Binding:
    spec = context.tenant.spec
    if wanted.revision is None:
        return lexical_binding(spec, context.profile, context.side, context.now)
    return dense_binding(spec, context.profile, wanted.revision, context.side, context.now)


def _keep(context: _Context, wanted: Wanted) -> BindingStep:
    spec = context.tenant.spec.model
    bound = context.state.binding.revision or "the lexical legs"
    if wanted.why == "PinnedUnknown":
        message = (
            f"spec.model.revision {spec.revision!r} is no known revision of {spec.name!r}; the tenant keeps {bound}"
        )
    else:
        message = f"spec.model.name: there is no EmbeddingModel {spec.name!r}; create it; the tenant keeps {bound}"
    return BindingStep(
        (), (no("ModelBound", TenantReason.MODEL_NOT_FOUND, message),), previous=_previous_status(context)
    )


def _has_filled(context: _Context, target: Binding) -> bool:
    """Whether the target's vector is there with every live point: the binding's own, or a fresh previous one."""
    state = context.state
    if target.vector is None:
        return True
    if state.binding.vector == target.vector:
        return True
    previous = state.previous
    same_side = previous is not None and previous.side in (None, context.side)
    fresh = context.facts.lacking.get(target.vector) == 0
    return previous is not None and previous.vector == target.vector and same_side and fresh


def _flip(context: _Context, target: Binding) -> BindingStep:
    """One metadata patch moves encoder, vector, fusion and analyser; what was bound becomes `previous`."""
    old = context.state.binding
    metadata: dict[str, str | None] = {
        KEY_BINDING: target.to_metadata(),
        KEY_PREVIOUS: old.to_metadata(),
        KEY_PENDING: None,
    }
    actions: list[TenantAction] = _cancel(context)
    actions.append(PatchCollection(context.current.name, tuple(sorted(metadata.items()))))
    said = f"{old.revision or 'lexical legs'} → {target.revision or 'lexical legs'} without re-embedding"
    actions.append(EmitEvent("BindingSwitched", said))
    return BindingStep(tuple(actions), ())


def _cancel(context: _Context) -> list[TenantAction]:
    rebuild = context.tenant.status.rebuild
    return [DeleteReindexJob(rebuild.reindex_job)] if rebuild is not None else []


def _bound(context: _Context, wanted: Wanted, target: Binding) -> BindingStep:
    """Bound as wanted: settings that move with a patch, then leftovers of rebuilds and of ended windows."""
    state, current = context.state, context.current
    if _settings_differ(state.binding, target):
        moved = target.model_copy(update={"since": state.binding.since})
        patch = PatchCollection(current.name, ((KEY_BINDING, moved.to_metadata()),))
        return BindingStep((patch,), ())
    if state.pending is not None:
        return BindingStep((*_cancel(context), PatchCollection(current.name, ((KEY_PENDING, None),))), ())
    if state.previous is not None and context.now >= _window_end(context):
        return BindingStep((PatchCollection(current.name, ((KEY_PREVIOUS, None),)),), ())
    leftovers = _leftovers(context)
    if leftovers:
        return BindingStep(leftovers, ())
    revision = state.binding.revision
    if revision is None:
        message = f"EmbeddingModel {context.tenant.spec.model.name} has no active revision: the lexical legs serve"
        finding = no("ModelBound", TenantReason.NO_ACTIVE_REVISION, message)
    else:
        finding = yes("ModelBound", TenantReason.BOUND, f"bound to {revision} ({wanted.why.lower()})")
    requeue = None
    if state.previous is not None:
        requeue = max(1.0, (_window_end(context) - context.now).total_seconds())
    return BindingStep((), (finding,), previous=_previous_status(context), requeue_after=requeue)


def _settings_differ(binding: Binding, target: Binding) -> bool:
    """Profile and field roles move by a patch; a profile is gated with the model that names it."""
    return (binding.profile, binding.fields) != (target.profile, target.fields)


def _window_end(context: _Context) -> datetime:
    return parse_time(context.state.binding.since) + context.window


def _previous_status(context: _Context) -> PreviousStatus | None:
    previous = context.state.previous
    if previous is None:
        return None
    return PreviousStatus(
        revision=previous.revision,
        vector=previous.vector,
        collection=previous.side,
        until=format_time(_window_end(context)),
    )


def _leftovers(context: _Context) -> tuple[TenantAction, ...]:
    """Vectors and generations of ours that neither binding, pending nor previous names any more."""
    state = context.state
    named = {item.vector for item in (state.binding, state.pending, state.previous) if item is not None}
    sides = {item.side for item in (state.pending, state.previous) if item is not None and item.side}
    actions: list[TenantAction] = [
        RemoveVector(context.current.name, vector) for vector in sorted(context.current.dense) if vector not in named
    ]
    for collection in context.facts.collections:
        number = generation_of(context.owner.alias, collection.name)
        if collection.name == context.current.name or number is None or not context.owner.owns(collection):
            continue
        if side_of(context.owner.alias, number) in sides or KEY_DELETED_AT in collection.metadata:
            continue
        actions.append(DropCollection(collection.name))
    return tuple(actions)


def _rebuild(context: _Context, wanted: Wanted, target: Binding, reason: str, *, blue_green: bool) -> BindingStep:
    """Prepare the target side, wait until every gateway writes both, fill it by a ReindexJob, switch."""
    target_key = f"{target.vector or 'lexical'}/{schema_digest(context.tenant.spec)}"
    rebuild = context.tenant.status.rebuild
    attempt = rebuild.attempt if rebuild is not None and rebuild.target_space == target_key else 1
    job = context.facts.reindex
    name = reindex_job_name(
        context.owner.name,
        context.owner.uid,
        target.vector or "lexical",
        f"{schema_digest(context.tenant.spec)}/{target.revision or ''}",
        attempt,
    )
    if rebuild is not None and rebuild.reindex_job != name and rebuild.target_space != target_key:
        patch = PatchCollection(context.current.name, ((KEY_PENDING, None),))
        status = _rebuild_status(name, reason, 1, target_key, target.revision, context.now)
        return BindingStep((*_cancel(context), patch), (_rebuilding(reason),), status, requeue_after=0.0)
    if job is not None and job.metadata.name == name and job.status.phase in ("Failed", "Cancelled"):
        return _failed(context, target, target_key, reason, attempt, name)
    prepared = _prepare(context, target, blue_green=blue_green)
    if prepared:
        return BindingStep(prepared, ())
    pending = context.state.pending
    assert pending is not None, "a prepared side is named by pending"  # noqa: S101 - _prepare's result
    status = _rebuild_status(name, reason, attempt, target_key, target.revision, context.now, rebuild)
    settled = parse_time(pending.since) + context.settings.binding_settle
    if context.now < settled:
        left = (settled - context.now).total_seconds()
        return BindingStep((), (_rebuilding(reason),), status, _previous_status(context), max(0.2, left))
    if job is None or job.metadata.name != name:
        strategy = "BlueGreen" if blue_green else "NamedVector"
        model = context.facts.model
        template = model.spec.engine.worker.pod_template if model is not None else "cpu"
        create = CreateReindexJob(name, target.revision, strategy, DEFAULT_SLICES, template)
        return BindingStep((create,), (_rebuilding(reason),), status, _previous_status(context), REBUILD_POLL_SECONDS)
    if holds(job.status.conditions, "Verified") and _complete(context, pending):
        return BindingStep(_switch(context, pending, blue_green=blue_green), ())
    return BindingStep((), (_rebuilding(reason),), status, _previous_status(context), REBUILD_POLL_SECONDS)


def _rebuilding(reason: str) -> Finding:
    return no("ModelBound", TenantReason.REBUILDING, f"a rebuild is under way: {reason}; the old side serves meanwhile")


def _rebuild_status(
    name: str,
    reason: str,
    attempt: int,
    target: str,
    revision: str | None,
    now: datetime,
    before: RebuildStatus | None = None,
) -> RebuildStatus:
    same = before is not None and before.reindex_job == name
    started = before.started_at if same and before is not None else format_time(now)
    return RebuildStatus(
        reindex_job=name,
        reason=reason[:256],
        attempt=attempt,
        target_space=target,
        revision=revision,
        started_at=started,
    )


def _complete(context: _Context, pending: Binding) -> bool:
    """Counted again in the database, never believed from a finished object."""
    if pending.vector is None:
        return True
    job = context.facts.reindex
    dead = job.status.progress.failed if job is not None and job.status.progress is not None else 0
    lacking = context.facts.lacking.get(pending.vector)
    return lacking is not None and lacking <= dead


def _prepare(context: _Context, target: Binding, *, blue_green: bool) -> tuple[TenantAction, ...]:
    """The target side and `pending`; nothing where both are there already."""
    pending, current = context.state.pending, context.current
    if blue_green:
        return _prepare_generation(context, target)
    ready = pending is not None and pending.vector == target.vector and pending.revision == target.revision
    if ready and target.vector in current.dense:
        return ()
    actions: list[TenantAction] = []
    if target.vector is not None and target.dimension is not None and target.vector not in current.dense:
        actions.append(AddVector(current.name, target.vector, target.dimension))
    actions.append(PatchCollection(current.name, ((KEY_PENDING, target.to_metadata()),)))
    return tuple(actions)


def _prepare_generation(context: _Context, target: Binding) -> tuple[TenantAction, ...]:
    number = context.generation + 1
    side = side_of(context.owner.alias, number)
    moved = target.model_copy(update={"side": side})
    design = collection_design(context.tenant, context.owner, number, moved, lifted=True)
    there = next((item for item in context.facts.collections if item.name == design.name), None)
    pending = context.state.pending
    named = pending is not None and pending.side == side and pending.revision == target.revision
    complete = there is not None and all(there.indexes.get(field) == kind for field, kind in design.indexes)
    if named and complete and context.cell.aliases.get(side) == design.name:
        return ()
    actions: list[TenantAction] = []
    if there is None:
        actions.append(CreateCollection(design))
    actions += [CreateIndex(design.name, field, kind) for field, kind in design.indexes]
    actions.append(PointAlias(side, design.name))
    if not named:
        actions.append(PatchCollection(context.current.name, ((KEY_PENDING, moved.to_metadata()),)))
    return tuple(actions)


def _switch(context: _Context, pending: Binding, *, blue_green: bool) -> tuple[TenantAction, ...]:
    """The switch itself is one request; what comes before it changes nothing that a shopper sees."""
    now = format_time(context.now)
    bound = pending.model_copy(update={"since": now})
    old = context.state.binding.model_copy(update={"side": context.side})
    said = EmitEvent("BindingSwitched", f"{old.revision or 'lexical legs'} → {bound.revision or 'lexical legs'}")
    if not blue_green:
        metadata: dict[str, str | None] = {
            KEY_BINDING: bound.to_metadata(),
            KEY_PENDING: None,
            KEY_PREVIOUS: old.to_metadata(),
        }
        return (PatchCollection(context.current.name, tuple(sorted(metadata.items()))), said)
    number = context.generation + 1
    target = next(
        item
        for item in context.facts.collections
        if generation_of(context.owner.alias, item.name) == number and context.owner.owns(item)
    )
    record: dict[str, str | None] = {KEY_BINDING: bound.to_metadata(), KEY_PREVIOUS: old.to_metadata()}
    return (
        PatchCollection(target.name, tuple(sorted(record.items()))),
        PointAlias(context.owner.alias, target.name),
        said,
    )


def _failed(context: _Context, target: Binding, target_key: str, reason: str, attempt: int, name: str) -> BindingStep:
    """A rebuild that failed leaves the old binding untouched; a few attempts, then a person is asked."""
    job = context.facts.reindex
    ready = next((item for item in job.status.conditions if item.type == "Ready"), None) if job is not None else None
    seen = ready.message if ready is not None else "it gave no reason"
    if attempt < MAX_REBUILD_ATTEMPTS:
        following = reindex_job_name(
            context.owner.name,
            context.owner.uid,
            target.vector or "lexical",
            f"{schema_digest(context.tenant.spec)}/{target.revision or ''}",
            attempt + 1,
        )
        status = _rebuild_status(following, reason, attempt + 1, target_key, target.revision, context.now)
        return BindingStep((), (_rebuilding(reason),), status, _previous_status(context), 1.0)
    message = (
        f"ReindexJob {name} failed, as {attempt} attempts did ({seen}); "
        f"{context.state.binding.revision or 'the lexical legs'} go on serving; mend the cause, then delete the "
        "ReindexJob to try again"
    )
    findings = (no("ModelBound", TenantReason.REBUILD_FAILED, message),)
    status = _rebuild_status(
        name, reason, attempt, target_key, target.revision, context.now, context.tenant.status.rebuild
    )
    return BindingStep((), findings, status, _previous_status(context), 60.0)
