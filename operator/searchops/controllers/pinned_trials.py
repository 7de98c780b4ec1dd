"""Trials of tenants' own pinned queries: what a pass is told of them, and the worker Jobs that make them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from searchops.api.tasks import ANSWER, PinnedResult
from searchops.planning.jobs import check_template, job_manifest
from searchops.planning.pinned_trial import trial_result_uri
from searchops.planning.tenant_facts import StartTrial, TrialFacts
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.jobs import JobOrder
    from searchops.planning.tenant_facts import StopTrial, TenantFacts
    from searchops.ports import Artifacts, CellDirectory, Jobs
    from searchops.runtime.cache import CachedObject, ObjectCache

RUNNING_INDEX = "pinned-trial"
_SEEN_WITHIN = timedelta(minutes=2)
"""A trial that was started and that no status shows by then is not counted any more: its tenant is gone."""


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """The operator's settings that trials depend on.

    Attributes:
        prefixes: of URIs that a namespace may read.
        allowed: whether a URI may be read by a namespace.
        most: trials that run at one time, over all tenants.
    """

    artifacts: str
    prefixes: Callable[[str], tuple[str, ...]]
    allowed: Callable[[str, str], bool]
    most: int


class PinnedTrials:
    """Adds to the facts of a pass of a tenant that has pinned queries, and starts what its plan asks for."""

    def __init__(
        self,
        jobs: Jobs,
        artifacts: Artifacts,
        directory: CellDirectory,
        settings: TrialSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        clock: Callable[[], datetime],
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._directory = directory
        self._settings = settings
        self._tenants = tenants
        self._clock = clock
        self._started: dict[str, datetime] = {}
        self._stopped: set[str] = set()
        tenants.add_index(RUNNING_INDEX, _running_job)

    async def added(self, tenant: SearchTenant, facts: TenantFacts) -> TenantFacts:
        """The facts with what a trial needs; nothing is asked for a tenant that has no pinned queries."""
        declared = tenant.spec.gate.pinned if tenant.spec.gate is not None else None
        if declared is None or facts.model is None or tenant.metadata.deletion_timestamp is not None:
            return facts
        namespace, spec = tenant.metadata.namespace, facts.model.spec
        template = spec.gate.worker.pod_template
        pool = self._directory.pools().get(spec.serving.pool)
        last = tenant.status.pinned
        job = last.job if last is not None and last.outcome == "Running" else None
        trial = TrialFacts(
            artifacts=self._settings.artifacts,
            prefixes=self._settings.prefixes(namespace),
            allowed=self._settings.allowed(declared.uri, namespace) and ".." not in declared.uri.split("/"),
            servers=pool.grpc_urls if pool is not None else (),
            template=template,
            problem=check_template(
                template, self._jobs.pod_template(template), "evaluate", "the model's spec.gate.worker.podTemplate"
            ),
            running=len(self._others(job)),
            most=self._settings.most,
        )
        if job is not None:
            answer, unread = await self._answer(job)
            state = await self._jobs.get(job) if answer is None else None
            trial = replace(trial, job=state, answer=answer, unread=unread)
        return replace(facts, trial=trial)

    async def apply(self, action: StartTrial | StopTrial) -> None:
        """Do what a plan asks for."""
        if isinstance(action, StartTrial):
            await self.start(action.order, action.template)
        else:
            await self.stop(action.name)

    async def start(self, order: JobOrder, template: str) -> None:
        """Make the Job once; a template that is gone by now is told by the next pass."""
        found = self._jobs.pod_template(template)
        if found is None:
            raise Transient(f"PodTemplate {template} is gone; what a trial needs is read again")
        running = len(self._others(order.name))  # others may have started since the facts were gathered
        if running >= self._settings.most:
            raise Transient(f"{running} trials of pinned queries run, {self._settings.most} may at one time")
        self._started[order.name] = self._clock()
        self._stopped.discard(order.name)
        await self._jobs.create(job_manifest(order, found), None)

    async def stop(self, name: str) -> None:
        """Delete the Job of a trial that nobody waits for; one that is gone is success."""
        await self._jobs.delete(name)
        self._started.pop(name, None)
        self._stopped.add(name)

    def _others(self, own: str | None) -> set[str]:
        """Jobs that try other tenants' queries; one that was started counts before its status shows it."""
        shown = {str(name) for name in self._tenants.index_values(RUNNING_INDEX)}
        fresh = self._clock() - _SEEN_WITHIN
        self._started = {name: at for name, at in self._started.items() if name not in shown and at > fresh}
        self._stopped &= shown
        return (shown | self._started.keys()) - self._stopped - {own}

    async def _answer(self, job: str) -> tuple[PinnedResult | None, str]:
        """The result object first, then a termination message; and why it is unknown whether there is one."""
        data, unread = None, ""
        try:
            data = await self._artifacts.read(trial_result_uri(self._settings.artifacts, job))
        except Transient as error:
            unread = error.message
        texts = [data.decode(errors="replace")] if data is not None else list(await self._jobs.answers(job))
        for text in texts:
            try:
                found = ANSWER.validate_json(text)
            except ValidationError:
                continue
            if isinstance(found, PinnedResult):
                return found, ""
        return None, unread


def _running_job(cached: CachedObject) -> Iterable[str]:
    pinned = cached.status.get("pinned") or {}
    job = pinned.get("job")
    return (job,) if pinned.get("outcome") == "Running" and isinstance(job, str) and not cached.deleting else ()
