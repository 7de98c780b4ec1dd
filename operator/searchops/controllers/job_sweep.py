"""The sweep of worker Jobs: ends those whose owner is gone, such as one whose finalizer somebody removed by hand.

Owner references do not cross namespaces, so nobody else does. With the Job go its Pods and the Secret that it owns, and
with the Secret the token on the tenant's collections.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from searchops.controllers.irreversible import irreversible
from searchops.runtime.errors import ReconcileError
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.api.observed import OwnedJob
    from searchops.ports import ObjectReader
    from searchops.runtime.cache import ObjectCache

logger = logging.getLogger(__name__)


class OwnedJobs(Protocol):
    """Worker Jobs of the operator's namespace, whoever they are for."""

    async def all_owned(self) -> tuple[OwnedJob, ...]:
        """Every Job that is labelled with an owner and is not being deleted."""
        ...

    async def stop(self, name: str, uid: str) -> None:
        """Delete exactly the Job that was seen. Another uid is left alone."""
        ...


class JobSweep:
    """One round over every worker Job.

    Args:
        jobs: where they are.
        objects: live reads of what they name as owners.
        caches: full caches by kind; a Job for a kind that is not among them is left alone.
        lease_left: seconds for which no other replica can act.
    """

    def __init__(
        self,
        *,
        jobs: OwnedJobs,
        objects: ObjectReader,
        caches: Mapping[str, ObjectCache[Any]],
        lease_left: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._objects = objects
        self._caches = caches
        self._lease_left = lease_left

    async def run_once(self) -> int:
        """End every orphan; one that fails holds back no other. Returns how many were ended."""
        try:
            found = await self._jobs.all_owned()
        except ReconcileError as error:
            logger.warning("no worker Job was swept; it is tried next time", extra={"error": str(error)})
            return 0
        ended = 0
        for job in found:
            try:
                ended += await self._sweep(job)
            except ReconcileError as error:
                logger.warning(
                    "sweeping a worker Job failed; it is tried next time", extra={"job": job.name, "error": str(error)}
                )
        return ended

    async def _sweep(self, job: OwnedJob) -> bool:
        """The cache is free and knows nearly every owner; that one is gone, only a live read proves."""
        cache = self._caches.get(job.owner_kind)
        if cache is None or not job.owner_uid or not job.owner_name:
            return False
        cached = cache.get(Key(job.owner_namespace, job.owner_name))
        if cached is not None and cached.uid == job.owner_uid:
            return False
        live = await self._objects.get(cache.plural, job.owner_namespace, job.owner_name)
        if live is not None and live["metadata"]["uid"] == job.owner_uid:
            return False
        async with irreversible(f"delete worker Job {job.name}", self._lease_left):
            await self._jobs.stop(job.name, job.uid)
        owner = f"{job.owner_kind} {job.owner_namespace}/{job.owner_name}"
        logger.info("ended a worker Job whose owner is gone", extra={"job": job.name, "owner": owner})
        return True
