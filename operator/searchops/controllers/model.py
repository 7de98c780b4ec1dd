"""EmbeddingModel: gather, plan, apply. It loads and unloads servers and makes Jobs; it never touches a collection."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.meta import API_VERSION
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
from searchops.controllers.model_gather import STATE_KEY, ModelGatherer, ModelPorts, ModelSettings
from searchops.controllers.reindex_rates import ReindexRates
from searchops.controllers.terminal import terminal_status
from searchops.planning import model_facts as act
from searchops.planning import rollout as planner
from searchops.planning.conditions import find
from searchops.planning.jobs import job_manifest
from searchops.planning.names import state_map_name
from searchops.planning.rollout_report import failed
from searchops.runtime.errors import NotReady, ReconcileError, Terminal, Transient
from searchops.runtime.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
    from searchops.planning.model_facts import ModelAction
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.finalizer import Finalizer
    from searchops.runtime.key import Key
    from searchops.runtime.status import StatusWriter

__all__ = ["ModelController", "ModelPorts", "ModelSettings", "status_of"]

UNLOAD_SECONDS = 10.0
"""What one unload may take: it starts only with more of the lease left."""


class ModelController:
    """One pass over one EmbeddingModel."""

    def __init__(
        self,
        ports: ModelPorts,
        settings: ModelSettings,
        *,
        models: ObjectCache[EmbeddingModel],
        tenants: ObjectCache[SearchTenant],
        reindexes: ObjectCache[ReindexJob],
        status: StatusWriter,
        finalizer: Finalizer,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
    ) -> None:
        self._ports = ports
        self._models = models
        self._status = status
        self._finalizer = finalizer
        self._clock = clock
        self._lease_left = lease_left
        rates = ReindexRates(reindexes, clock)
        self._gatherer = ModelGatherer(ports, settings, tenants=tenants, rates=rates, clock=clock)

    async def reconcile(self, key: Key) -> Result:
        """Gather, plan, apply, one status write."""
        cached = self._models.get(key)
        if cached is None:
            return Result.done()
        try:
            model = self._models.typed(key)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Terminal("InvalidSpec", f"the object does not parse: {where}: {first['msg']}") from error
        assert model is not None  # noqa: S101 - it was cached a line ago, and nothing awaited since
        # A refused unload of a deleted model is this pass's failure, so that the queue's back-off spares the server.
        leaving = model.metadata.deletion_timestamp is not None
        try:
            facts = await self._gatherer.gather(model)
            plan = planner.plan_model(model, facts, self._clock())
            failure = await self._apply(cached, model, plan.actions, told=plan.status is not None and not leaving)
        except (NotReady, Transient) as error:
            await self._say(cached, model, error)
            raise
        if plan.status is not None:
            await self._status.write_if_changed(cached, plan.status.to_wire())
        if failure is not None:
            raise failure
        return Result.done() if plan.requeue_after is None else Result.after(plan.requeue_after)

    async def _say(self, cached: CachedObject, model: EmbeddingModel, error: NotReady | Transient) -> None:
        """A failure that may last is said in the status; a hiccup of a ready model is not flapped about.

        The same failure is said once for each generation: who changed the spec is told that it did not help.
        """
        ready = find(model.status.conditions, "Ready")
        if ready is not None and ready.status == "True":
            return
        current = ready is not None and ready.observed_generation == model.metadata.generation
        if ready is not None and current and ready.message.startswith(error.message[:80]):
            return
        status = failed(model, error.reason if isinstance(error, NotReady) else "", error.message, self._clock())
        await self._status.write_if_changed(cached, status.to_wire())
        now_ready = find(status.conditions, "Ready")
        reason = now_ready.reason if now_ready is not None else ""
        if ready is None or not current or ready.reason != reason:
            self._ports.events.record(_reference(cached), reason, error.message, warning=True)

    # -- apply -------------------------------------------------------------------------------------------------

    async def _apply(
        self, cached: CachedObject, model: EmbeddingModel, actions: tuple[ModelAction, ...], *, told: bool
    ) -> ReconcileError | None:
        """In order, but servers are independent: each gets its own row of loads, and one that fails stops no other."""
        rows: dict[str, list[ModelAction]] = {}
        for action in actions:
            if isinstance(action, act.LoadModel | act.UnloadModel):
                rows.setdefault(action.server.url, []).append(action)
        outcomes = await asyncio.gather(*(self._on_server(row, told=told) for row in rows.values()))
        for action in actions:
            match action:
                case act.AddFinalizer():
                    await self._finalizer.add(cached)
                case act.RemoveFinalizer():
                    await self._finalizer.remove(cached)
                case act.WriteState(status=status):
                    await self._ports.state.write(state_map_name(model.metadata.name), {STATE_KEY: _kept(status)})
                case act.CreateJob(order=order, template=name):
                    template = self._ports.jobs.pod_template(name)
                    if template is None:
                        raise Transient(f"PodTemplate {name} is gone; it is read again")
                    await self._ports.jobs.create(job_manifest(order, template), None)
                case act.DeleteJob(name=name, uid=uid):
                    await self._ports.jobs.stop(name, uid)
                case act.EmitEvent(reason=reason, message=message, warning=warning):
                    self._ports.events.record(_reference(cached), reason, message, warning=warning)
        return next((outcome for outcome in outcomes if outcome is not None), None)

    async def _on_server(self, row: Iterable[ModelAction], *, told: bool) -> ReconcileError | None:
        """One server's row. What it refuses is noted and told by the next pass.

        It is tried again by the server's own back-off, or, where that is not `told`, by this pass's failure.
        """
        for action in row:
            if not isinstance(action, act.LoadModel | act.UnloadModel):
                continue
            key = (action.server.url, action.model)
            try:
                if isinstance(action, act.LoadModel):
                    await self._ports.servers.load(action.server, action.model)
                else:
                    if self._lease_left() <= UNLOAD_SECONDS:
                        return Transient("too little of the lease is left to unload a model; it is read again", 2.0)
                    await self._ports.servers.unload(action.server, action.model)
            except Transient as error:
                self._gatherer.refusals[key] = error.message
                return None if told else error
            self._gatherer.refusals.pop(key, None)
        return None

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        """A terminal error as the Ready condition and an event."""
        cached = self._models.get(key)
        if cached is None:
            return
        await self._status.write_if_changed(cached, terminal_status(cached, error, self._clock()))
        self._ports.events.record(_reference(cached), error.reason, error.message, warning=True)


def _kept(status: EmbeddingModelStatus) -> str:
    """What must survive a lost status."""
    kept = EmbeddingModelStatus(
        active=status.active,
        retiring=status.retiring,
        rejected=status.rejected,
        history=status.history,
        attempts=status.attempts,
        promoted=status.promoted,
        reevaluation=status.reevaluation,
        next_number=status.next_number,
    )
    return json.dumps(kept.to_wire(), sort_keys=True)


def _reference(cached: CachedObject) -> dict[str, str]:
    return {"apiVersion": API_VERSION, "kind": "EmbeddingModel", "name": cached.key.name, "uid": cached.uid}


def status_of(cached: CachedObject) -> Any:
    """What of a model's status concerns its tenants: only a change of this wakes them."""
    status = cached.status
    return {name: status.get(name) for name in ("active", "candidate", "wave", "retiring")}
