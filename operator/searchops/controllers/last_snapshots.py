"""The snapshot that outlives a deleted tenant's collection: a backup Job of its own, and the manifest it leaves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError

from searchops.api.backup import BackupManifest, manifest_uri, tenant_prefix
from searchops.api.tasks import ANSWER, BackupResult
from searchops.planning.backup_jobs import job_annotations
from searchops.planning.jobs import check_template, job_manifest
from searchops.planning.last_snapshot import is_snapshot_of, last_snapshot_due, last_snapshot_order
from searchops.runtime.errors import NotReady, Transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.api.observed import CellRegistration, CollectionState
    from searchops.planning.backup import BackupSettings, Due
    from searchops.ports import Artifacts, Jobs, TokenSigner

logger = logging.getLogger(__name__)


class LastSnapshotJobs:
    """One Job a collection, made again after a failure; what is in the artifact store is the only proof."""

    def __init__(
        self,
        jobs: Jobs,
        artifacts: Artifacts,
        signer: TokenSigner,
        settings: BackupSettings,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._signer = signer
        self._settings = settings
        self._clock = clock

    async def stored(self, cell: CellRegistration, collection: CollectionState) -> bool:
        """Whether the manifest of a whole snapshot of this collection, taken after its deletion, is in the store.

        Raises:
            ReconcileError: the Job failed (it is made again the next time), or store or API server do not answer.
        """
        due = last_snapshot_due(collection)
        manifest = await self._manifest(due)
        if manifest is not None and is_snapshot_of(manifest, self._settings.fleet, collection):
            return True
        order = last_snapshot_order(due, cell, collection, self._settings, self._clock())
        state = await self._jobs.get(order.name)
        if state is not None and state.failure:
            said = await self._why(order.name) or state.failure
            await self._jobs.delete(order.name)
            raise Transient(f"the snapshot of {collection.name} failed: {said}; Job {order.name} is made again")
        if state is not None and state.complete:
            await self._jobs.delete(order.name)
            raise Transient(
                f"Job {order.name} ended, but there is no whole snapshot of {collection.name} under "
                f"{manifest_uri(self._prefix(due), due.backup)}; it is made again"
            )
        if state is None:
            template = self._jobs.pod_template(self._settings.pod_template)
            problem = check_template(self._settings.pod_template, template, "backup", "SEARCHOPS_BACKUP_POD_TEMPLATE")
            if problem is not None or template is None:
                said = problem.message if problem is not None else "the PodTemplate is gone"
                raise NotReady("NotReady", f"no snapshot of {collection.name} can be taken: {said}")
            body = job_manifest(order, template)
            body["metadata"]["annotations"].update(job_annotations(due, cell.name))
            token = self._signer.sign(cell, order.secret_claims or {})
            await self._jobs.create(body, {"token": token})
        return False

    async def _manifest(self, due: Due) -> BackupManifest | None:
        data = await self._artifacts.read(manifest_uri(self._prefix(due), due.backup))
        if data is None:
            return None
        try:
            return BackupManifest.model_validate_json(data)
        except ValidationError as error:
            raise Transient(
                f"the manifest of backup {due.backup} cannot be read ({error.errors()[0]['msg']}); the collection "
                "stays; remove that manifest to have the snapshot taken again"
            ) from error

    def _prefix(self, due: Due) -> str:
        who = due.candidate
        return tenant_prefix(self._settings.artifacts, self._settings.fleet, who.namespace, who.name)

    async def _why(self, job: str) -> str:
        for text in await self._jobs.answers(job):
            try:
                answer = ANSWER.validate_json(text)
            except ValidationError:
                continue
            if isinstance(answer, BackupResult) and answer.message:
                return answer.message
        return ""
