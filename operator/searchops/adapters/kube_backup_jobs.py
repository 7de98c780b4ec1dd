"""Backup and proof Jobs of the operator's namespace, read as what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from searchops.adapters.kube_jobs import KubeJobs, job_state
from searchops.api.backup import BackupRun

if TYPE_CHECKING:
    from collections.abc import Mapping

SELECTOR = "searchops.dev/task in (backup,prove)"
NAMESPACE = "searchops.dev/owner-namespace"
NAME = "searchops.dev/owner-name"
CELL = "searchops.dev/cell"
BACKUP = "searchops.dev/backup"
ATTEMPT = "searchops.dev/attempt"


class KubeBackupJobs(KubeJobs):
    """Worker Jobs, and a list of those that back up or prove."""

    async def runs(self) -> tuple[BackupRun, ...]:
        """Every backup's and proof's Job that is there, ended or not."""
        found = await self._api.list(self._path(), label_selector=SELECTOR)
        return tuple(_run(raw) for raw in found)


def _run(raw: Mapping[str, Any]) -> BackupRun:
    state, notes = job_state(raw), raw["metadata"].get("annotations") or {}
    kind: Literal["backup", "prove"] = "prove" if state.kind == "prove" else "backup"
    attempt = notes.get(ATTEMPT, "")
    return BackupRun(
        name=state.name,
        kind=kind,
        owner_uid=state.owner_uid,
        namespace=notes.get(NAMESPACE, ""),
        tenant=notes.get(NAME, ""),
        cell=notes.get(CELL, ""),
        backup=notes.get(BACKUP, ""),
        attempt=int(attempt) if attempt.isdecimal() else 1,
        complete=state.complete,
        failure=state.failure,
        ended_at=state.completion_time,
    )
