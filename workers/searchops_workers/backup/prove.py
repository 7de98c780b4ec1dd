"""The proof of a backup: restored under a scratch name, counted exactly, dropped again. A failed one is a verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from searchops.api.backup import BackupProof
from searchops.api.meta import format_time
from searchops.api.tasks import BackupResult
from searchops_workers.backup.errors import BadBackup, NotOurs
from searchops_workers.backup.node import metadata_of
from searchops_workers.backup.recover import recover, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from searchops.api.backup import BackupManifest
    from searchops.api.tasks import ProveTask
    from searchops_workers.backup.node import CellNode
    from searchops_workers.backup.store import TenantBackups

KEY_SCRATCH = "searchops.dev/scratch"
"""Whose scratch collection this is; written over the metadata that came with the snapshot."""
OWNERSHIP = "searchops.dev/"
MOST = 1024


def prove(
    task: ProveTask,
    nodes: Sequence[CellNode],
    backups: TenantBackups,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupResult:
    """Restore, count, drop, and write down what came of it.

    Raises:
        NotOurs: the scratch name is taken by what is not our scratch.
        BackupError: cell or store do not answer: no verdict.
    """
    try:
        manifest = usable(backups, task.id)
        points = _restored(task, manifest, nodes, backups)
        low, high = sorted((manifest.points, manifest.points_after))
        wanted = str(low) if low == high else f"{low} to {high}"
        ok = manifest.holds(points)
        message = "" if ok else f"{points} points came back, wanted {wanted}: it is not what was backed up"
    except BadBackup as error:
        ok, points, message = False, 0, str(error)
    proof = BackupProof(id=task.id, at=format_time(now()), cell=task.cell, points=points, ok=ok, message=message[:MOST])
    entries = backups.rebuild_index().backups
    if any(entry.id == task.id for entry in entries):  # else it was removed meanwhile, and nothing is left to tell
        backups.write(task.id, "proof.json", proof)
        changed = [entry.model_copy(update={"proof": proof}) if entry.id == task.id else entry for entry in entries]
        backups.write_index(changed)
    return BackupResult(kind="prove", id=task.id, ok=ok, points=points, message=proof.message)


def _restored(task: ProveTask, manifest: BackupManifest, nodes: Sequence[CellNode], backups: TenantBackups) -> int:
    first = nodes[0]
    _drop(first, task, manifest)
    try:
        points = recover(manifest, backups, nodes, task.scratch)
        # It carries the tenant's own marks, as it came out of the snapshot: nobody may take it for the tenant.
        theirs = {key: None for key in manifest.metadata if key.startswith(OWNERSHIP)}
        first.patch_metadata(task.scratch, {**theirs, KEY_SCRATCH: _mark(task)})
    finally:
        _drop(first, task, manifest)
    return points


def _drop(node: CellNode, task: ProveTask, manifest: BackupManifest) -> None:
    """Drop the scratch, where its metadata says that it is: our mark, or this very backup's before it was marked."""
    description = node.describe(task.scratch)
    if description is None:
        return
    found = metadata_of(description)
    backed_up = {key: value for key, value in manifest.metadata.items() if key.startswith(OWNERSHIP)}
    fresh = bool(backed_up) and {key: value for key, value in found.items() if key.startswith(OWNERSHIP)} == backed_up
    if found.get(KEY_SCRATCH) != _mark(task) and not fresh:
        raise NotOurs(
            f"collection {task.scratch} on cell {task.cell} is not this tenant's scratch (its metadata has "
            f"{KEY_SCRATCH}={found.get(KEY_SCRATCH)!r}, wanted {_mark(task)!r}); it is not touched, remove it by hand"
        )
    if task.scratch in node.aliases().values():
        raise NotOurs(f"an alias points to {task.scratch} on cell {task.cell}: it is in use; remove the alias by hand")
    node.drop(task.scratch)


def _mark(task: ProveTask) -> str:
    return f"{task.fleet}/{task.namespace}/{task.name}"
