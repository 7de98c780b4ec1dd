"""What a tenant's collection is bound to, and how it gets to what its model wants.

Encoder and index flip together: a binding is one metadata value, and the switch is one request (a metadata patch for
NamedVector, an alias action for BlueGreen). While a rebuild is under way the collection carries ``pending`` and the
gateway writes both sides; after the switch ``pending`` has become the binding and the old one is ``previous`` until
the rollback window ends. Only this module and `tenant_rebuild` decide on alias, ``binding``, ``pending`` and
``previous``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.binding_state import BindingContext, BindingState, BindingStep, read_bindings
from searchops.planning.conditions import Finding, no, unknown, yes
from searchops.planning.names import (
    KEY_ADOPTED,
    KEY_BINDING,
    KEY_DELETED_AT,
    KEY_PENDING,
    KEY_PREVIOUS,
    generation_of,
)
from searchops.planning.pinned_trial import bound_revision, plan_trial
from searchops.planning.schema import dense_binding, layout_of, lexical_binding, side_of
from searchops.planning.tenant_facts import (
    DropCollection,
    EmitEvent,
    PatchCollection,
    PointAlias,
    RemoveVector,
    TenantAction,
)
from searchops.planning.tenant_forecast import Need
from searchops.planning.tenant_rebuild import cancel, plan_rebuild
from searchops.planning.waves import Wanted, follows, wanted_revision

if TYPE_CHECKING:
    from searchops.api.observed import CollectionState
    from searchops.api.retrieval import Binding
    from searchops.planning.pinned_trial import Trial

__all__ = ["BindingContext", "BindingState", "BindingStep", "plan_binding", "read_bindings"]


def plan_binding(context: BindingContext, schema_rebuild: tuple[str, ...]) -> BindingStep:
    """One step from what is bound to what is wanted; `schema_rebuild` names what only a new generation can mend."""
    facts, owner, state = context.facts, context.owner, context.state
    published = facts.model.status if facts.model is not None else None
    candidate = published.candidate if published is not None else None
    wanted = wanted_revision(
        published,
        namespace=owner.namespace,
        name=owner.name,
        labels=context.tenant.metadata.labels,
        pinned=context.tenant.spec.model.revision,
        following=follows(candidate, state.binding.revision, context.tenant.status.rebuild, facts.reindex),
    )
    kept = _kept(context, wanted)
    if kept is not None:
        return kept
    trial = plan_trial(context, wanted)
    if trial is not None and trial.finding is not None:
        return _held_back(context, trial, trial.finding, schema_rebuild)
    return _toward(context, wanted, schema_rebuild)


def _held_back(context: BindingContext, trial: Trial, finding: Finding, schema_rebuild: tuple[str, ...]) -> BindingStep:
    """What the tenant is bound to is what it stays bound to; all else goes on as for any other tenant.

    A rebuild that has begun for the next revision goes on while it is not decided: it only fills.
    """
    revision = bound_revision(context)
    unknown_there = revision is None and not context.state.binding.lexical_only
    if unknown_there or (context.state.pending is not None and not trial.decided):
        status, previous = context.tenant.status, context.previous_status()
        return BindingStep(
            trial.actions, (finding,), status.rebuild, previous, trial.requeue, status.plan, trial.status
        )
    step = _toward(context, Wanted(revision, "HeldBack"), schema_rebuild)
    if not step.findings:
        return step
    findings = tuple(finding if said.type == "ModelBound" and _settled(said) else said for said in step.findings)
    waits = [seconds for seconds in (step.requeue_after, trial.requeue) if seconds is not None]
    return replace(
        step,
        actions=(*step.actions, *trial.actions),
        findings=findings,
        requeue_after=min(waits) if waits else None,
        pinned=trial.status,
    )


def _settled(finding: Finding) -> bool:
    """Whether the binding is where it stays."""
    return finding.status == "True" or finding.reason == TenantReason.NO_ACTIVE_REVISION


def _toward(context: BindingContext, wanted: Wanted, schema_rebuild: tuple[str, ...]) -> BindingStep:
    state = context.state
    target = _target(context, wanted)
    side = _fresh_side(context, target)
    if side is not None:
        return _switch_back(context, target, side)
    if schema_rebuild:
        return plan_rebuild(context, Need(target, schema_rebuild))
    if state.binding.revision == target.revision and state.binding.vector == target.vector:
        return _bound(context, wanted, target)
    if target.lexical_only or _has_filled(context, target):
        return _flip(context, target)
    return plan_rebuild(context, Need(target, ()))


def _target(context: BindingContext, wanted: Wanted) -> Binding:
    spec = context.tenant.spec
    if wanted.revision is None:
        return lexical_binding(spec, context.profile, context.side, context.now)
    return dense_binding(spec, context.profile, wanted.revision, context.side, context.now)


def _kept(context: BindingContext, wanted: Wanted) -> BindingStep | None:
    """The binding stays where its model cannot say what it wants: unknown is never a reason to take anything away."""
    spec = context.tenant.spec.model
    binding = context.state.binding
    bound = binding.revision or "the lexical legs"
    finding: Finding | None = None
    if wanted.why == "PinnedUnknown":
        message = (
            f"spec.model.revision {spec.revision!r} is no revision of {spec.name!r} that may serve (active, retiring, "
            f"or a candidate whose waves have started); the tenant keeps {bound}"
        )
        finding = no("ModelBound", TenantReason.MODEL_NOT_FOUND, message)
    elif wanted.why == "ModelMissing":
        message = f"spec.model.name: there is no EmbeddingModel {spec.name!r}; create it; the tenant keeps {bound}"
        finding = no("ModelBound", TenantReason.MODEL_NOT_FOUND, message)
    elif wanted.why == "StateUnknown" and not binding.lexical_only:
        message = f"EmbeddingModel {spec.name} does not say yet what is active; the tenant keeps {bound}"
        finding = unknown("ModelBound", TenantReason.WAITING, message)
    elif wanted.why == "NothingPromoted" and binding.model not in (None, spec.name):
        message = f"EmbeddingModel {spec.name} has no active revision yet; the tenant keeps {bound} until it has"
        finding = no("ModelBound", TenantReason.NO_ACTIVE_REVISION, message)
    if finding is None:
        return None
    status = context.tenant.status
    return BindingStep((), (finding,), status.rebuild, context.previous_status(), plan=status.plan)


def _has_filled(context: BindingContext, target: Binding) -> bool:
    """Whether the target's vector is there with every live point: the binding's own, or a fresh previous one."""
    state = context.state
    if target.vector is None or state.binding.vector == target.vector:
        return True
    previous = state.previous
    if previous is None or previous.vector != target.vector:
        return False
    return previous.side in (None, context.side) and context.lacking(previous) == 0


def _fresh_side(context: BindingContext, target: Binding) -> CollectionState | None:
    """The previous generation, where it is exactly what is wanted and has every live point."""
    previous, spec = context.state.previous, context.tenant.spec
    binding = context.state.binding
    if previous is None or previous.side != context.other_side or previous.vector != target.vector:
        return None
    if (previous.analyser_id, previous.document) != (target.analyser_id, target.document):
        return None
    here = (binding.vector, binding.analyser_id, binding.document)
    same = here == (target.vector, target.analyser_id, target.document)
    name = context.cell.aliases.get(context.other_side)
    found = next((item for item in context.facts.collections if item.name == name), None)
    if found is None or not context.owner.owns(found) or generation_of(context.owner.alias, found.name) is None:
        return None
    shape = (spec.isolation, layout_of(spec), spec.sharding.shards, spec.sharding.replicas)
    if _shape(found) != shape:
        return None
    if same and _shape(context.current) == shape:
        return None
    return found if context.lacking(previous) == 0 else None


def _shape(collection: CollectionState) -> tuple[str, str, int, int]:
    return collection.tier, collection.layout, collection.shards, collection.replicas


def _switch_back(context: BindingContext, target: Binding, side: CollectionState) -> BindingStep:
    """One alias action back to the previous generation: the same predicate as the switch, and no re-embedding."""
    old = context.state.binding.model_copy(update={"side": context.side})
    bound = target.model_copy(update={"side": context.other_side})
    values = {KEY_BINDING: bound.to_metadata(), KEY_PREVIOUS: old.to_metadata(), KEY_PENDING: None}
    actions = (
        *cancel(context),
        PatchCollection(side.name, context.record(values)),
        PointAlias(context.owner.alias, side.name),
        _switched(old, bound, " on the side that was kept, without re-embedding"),
    )
    return BindingStep(actions, ())


def _flip(context: BindingContext, target: Binding) -> BindingStep:
    """One metadata patch moves encoder, vector, fusion and analyser; what was bound becomes `previous`.

    Between two revisions of one space nothing but the encoder differs, so that an earlier `previous` of another space
    stays: it is what a rollback of the whole candidate needs.
    """
    old, previous = context.state.binding, context.state.previous
    same_space = old.vector == target.vector
    kept = previous if same_space and previous is not None and previous.vector != target.vector else old
    values = {KEY_BINDING: target.to_metadata(), KEY_PREVIOUS: kept.to_metadata(), KEY_PENDING: None}
    patch = PatchCollection(context.current.name, context.record(values))
    return BindingStep((*cancel(context), patch, _switched(old, target, " without re-embedding")), ())


def _switched(old: Binding, new: Binding, how: str) -> EmitEvent:
    return EmitEvent("BindingSwitched", f"{old.revision or 'lexical legs'} → {new.revision or 'lexical legs'}{how}")


def _bound(context: BindingContext, wanted: Wanted, target: Binding) -> BindingStep:
    """Bound as wanted: settings that move with a patch, then leftovers of rebuilds and of ended windows."""
    state, current = context.state, context.current
    if _settings_differ(state.binding, target):
        moved = target.model_copy(update={"since": state.binding.since})
        patch = PatchCollection(current.name, ((KEY_BINDING, moved.to_metadata()),))
        return BindingStep((patch,), ())
    if state.pending is not None:
        patch = PatchCollection(current.name, context.record({KEY_PENDING: None}))
        return BindingStep((*cancel(context), patch), ())
    if state.previous is not None and context.window_left <= 0:
        return BindingStep((PatchCollection(current.name, context.record({KEY_PREVIOUS: None})),), ())
    leftovers = _leftovers(context)
    settling = context.settling
    if leftovers and settling <= 0:
        return BindingStep(leftovers, ())
    revision = state.binding.revision
    if revision is None:
        message = f"EmbeddingModel {context.tenant.spec.model.name} has no active revision: the lexical legs serve"
        finding = no("ModelBound", TenantReason.NO_ACTIVE_REVISION, message)
    else:
        finding = yes("ModelBound", TenantReason.BOUND, f"bound to {revision} ({wanted.why.lower()})")
    waits = [settling] if leftovers else []
    if state.previous is not None:
        waits.append(context.window_left)
    requeue = max(1.0, min(waits)) if waits else None
    return BindingStep((), (finding,), previous=context.previous_status(), requeue_after=requeue)


def _settings_differ(binding: Binding, target: Binding) -> bool:
    """Profile and field roles move by a patch; a profile is gated with the model that names it."""
    return (binding.profile, binding.fields) != (target.profile, target.fields)


def _leftovers(context: BindingContext) -> tuple[TenantAction, ...]:
    """Vectors and generations of ours that neither binding, pending nor previous names any more."""
    state = context.state
    named = {item.vector for item in (state.binding, state.pending, state.previous) if item is not None}
    sides = {item.side for item in (state.pending, state.previous) if item is not None and item.side}
    unnamed = [vector for vector in sorted(context.current.dense) if vector not in named]
    if KEY_ADOPTED in context.current.metadata:
        unnamed = []  # those were there before the tenant
    actions: list[TenantAction] = [RemoveVector(context.current.name, vector) for vector in unnamed]
    for collection in context.facts.collections:
        number = generation_of(context.owner.alias, collection.name)
        if collection.name == context.current.name or number is None or not context.owner.owns(collection):
            continue
        if side_of(context.owner.alias, number) in sides or KEY_DELETED_AT in collection.metadata:
            continue
        actions.append(DropCollection(collection.name))
    return tuple(actions)
