"""A deleted model: kept while tenants need it, then its Jobs and every server's copies go, then the finalizer.

What is not known to be gone is waited for, told by name, and let go of only where a person says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.planning.conditions import no
from searchops.planning.model_facts import DeleteJob, EmitEvent, ModelPlan, RemoveFinalizer, UnloadModel
from searchops.planning.names import ABANDON_ANNOTATION, FINALIZER
from searchops.planning.rollout_report import report, with_findings
from searchops.planning.server_troubles import cause, steady
from searchops.planning.servers import distinct, loaded_revisions, one_pool, sync_pools

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import ServerState
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelAction, ModelFacts, PoolFacts

IN_USE_POLL_SECONDS = 30.0
UNLOADING_POLL_SECONDS = 1.0
STUCK_POLL_SECONDS = 10.0
STUCK_AFTER_SECONDS = 60.0
"""An unload takes a second; a server that has not let go by then needs a person."""
MOST_NAMED = 5


def plan_deletion(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    """Let a model go once nobody needs it and no server holds it."""
    if FINALIZER not in model.metadata.finalizers:
        return ModelPlan((), None)
    if facts.tenants or facts.bound_elsewhere:
        return _in_use(model, facts, now)
    awaited = [job.state for job in (facts.build, facts.gate) if job is not None and job.state is not None]
    states = {job.name: job for job in (*facts.jobs, *awaited)}
    jobs = tuple(DeleteJob(job.name, job.uid) for job in states.values())
    pools = (facts.canary,) if one_pool(facts) else (facts.serving, facts.canary)
    unloads: list[UnloadModel] = []
    holding: list[str] = []
    for pool in pools:
        for server in pool.servers if pool is not None else ():
            names = loaded_revisions(model.metadata.name, server, set()) if server.reachable else []
            unloads += [UnloadModel(server, name) for name in names]
            holding += _holding(pool, server, names)
    if not holding:
        return ModelPlan((*jobs, RemoveFinalizer()), None)
    if model.metadata.annotations.get(ABANDON_ANNOTATION) == "true":
        left = f"let go by {ABANDON_ANNOTATION} though {_listed(holding)}"
        return ModelPlan((*jobs, *unloads, EmitEvent("Abandoned", left, warning=True), RemoveFinalizer()), None)
    message = (
        f"deletion waits for {len(holding)} servers: {_listed(holding)}; each is asked again; restart one that stays "
        "so, take one that is gone for good out of its pool's Secret, or annotate the model with "
        f'{ABANDON_ANNOTATION}: "true" to let go without them'
    )
    status = with_findings(model, (no("Ready", ModelReason.DELETING, message),), now)
    return ModelPlan((*jobs, *unloads), status, _poll(model, now))


def _holding(pool: PoolFacts | None, server: ServerState, names: list[str]) -> list[str]:
    """Why a server is waited for: what it holds, or that nobody knows what it holds."""
    if not server.reachable:
        return [f"{server.url} does not answer ({cause(server.error)})"]
    if not names:
        return []
    states = ", ".join(f"{name} {server.models[name]}" for name in names)
    refusals = pool.refusals if pool is not None else {}
    refused = next((text for name in names if (text := refusals.get((server.url, name)))), "")
    return [f"{server.url} holds {states}" + (f" ({steady(refused)})" if refused else "")]


def _listed(holding: list[str]) -> str:
    more = len(holding) - MOST_NAMED
    return "; ".join((*holding[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])))


def _poll(model: EmbeddingModel, now: datetime) -> float:
    """Seconds until the next look: unloads are quick, and what is stuck is not hammered."""
    since = model.metadata.deletion_timestamp
    waited = (now - parse_time(since)).total_seconds() if since is not None else 0.0
    return UNLOADING_POLL_SECONDS if waited < STUCK_AFTER_SECONDS else STUCK_POLL_SECONDS


def _in_use(model: EmbeddingModel, facts: ModelFacts, now: datetime) -> ModelPlan:
    """Tenants still need it: servers are kept in step, nothing else moves."""
    if facts.tenants:
        first = facts.tenants[0]
        message = (
            f"{len(facts.tenants)} tenants still name this model ({first.namespace}/{first.name} among them); "
            "point them at another model or delete them first"
        )
    else:
        message = (
            f"{len(facts.bound_elsewhere)} revisions of this model are still bound by tenants that name another one "
            f"({facts.bound_elsewhere[0]} among them); they are released when those tenants have moved"
        )
    serving, canary = sync_pools(model, facts, model.status, now)
    syncs = distinct(facts, serving, canary)
    actions: list[ModelAction] = []
    for sync in syncs:
        actions += [*sync.unloads, *sync.loads]
    findings = (no("Ready", ModelReason.IN_USE, message), no("Progressing", ModelReason.IN_USE, message))
    return ModelPlan(tuple(actions), report(model, facts, model.status, findings, syncs, now), IN_USE_POLL_SECONDS)
