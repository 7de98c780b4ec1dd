"""Snapshots of a manifest back into a cell, under a name that was free or is known to be ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops_workers.backup.errors import BackupError, BadBackup, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops.api.backup import BackupManifest
    from searchops_workers.backup.node import CellNode
    from searchops_workers.backup.store import TenantBackups

WRONG_CHECKSUM = "checksum mismatch"


def usable(backups: TenantBackups, backup: str) -> BackupManifest:
    """The manifest of a whole backup of this tenant.

    Raises:
        BadBackup: there is none, it is somebody else's, or it is not whole.
    """
    manifest = backups.manifest(backup)
    if manifest is None:
        raise BadBackup(
            f"there is no backup {backup}: {backups.uri(backup, 'manifest.json')} is absent; "
            f"{backups.prefix}/index.json has what there is"
        )
    if not manifest.is_complete:
        raise BadBackup(
            f"backup {backup} is not whole: its snapshots hold shards {list(manifest.covered)} of "
            f"{list(manifest.shards)}, its state is {manifest.state}; take another"
        )
    return manifest


def recover(manifest: BackupManifest, backups: TenantBackups, nodes: Sequence[CellNode], name: str) -> int:
    """Recover every part into `name` and count exactly.

    A node takes in what it holds of a part and passes over the rest, so each part goes to each node.

    Returns:
        exact number of points.

    Raises:
        BadBackup: a part is not what was written.
        BackupError: the cell did not take it, or shards are missing or not active afterwards.
    """
    for part in manifest.parts:
        for node in nodes:
            with backups.opened(manifest, part) as content:
                try:
                    node.recover(name, content, checksum=part.checksum)
                except Refused as error:
                    if error.status == 400 and WRONG_CHECKSUM in str(error).lower():
                        raise BadBackup(
                            f"{backups.uri(manifest.id, part.file)}: its content is not what was backed up ({error}); "
                            "take another backup"
                        ) from error
                    raise
    seen = [node.shards(name) for node in nodes]
    active = sorted({shard for each in seen for shard in each.local})
    if any(each.moving for each in seen) or len(active) != len(manifest.shards):
        raise BackupError(
            f"{name} has active shards {active} after it was recovered, wanted {len(manifest.shards)} of them"
        )
    return nodes[0].count(name)
