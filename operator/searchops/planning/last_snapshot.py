"""Which snapshot a deleted tenant's collection leaves, and whether a manifest is that of exactly this collection."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops.planning.backup import Candidate, Due
from searchops.planning.backup_jobs import backup_order
from searchops.planning.names import (
    KEY_DELETED_AT,
    KEY_FLEET,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_UID,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.backup import BackupManifest
    from searchops.api.observed import CellRegistration, CollectionState
    from searchops.planning.backup import BackupSettings
    from searchops.planning.jobs import JobOrder

ID_FORMAT = "%Y%m%dT%H%M%SZ"
KEEP_EVERY = 365
"""Scheduled backups that a last snapshot leaves: nobody asked for any to be removed."""


def last_snapshot_due(collection: CollectionState) -> Due:
    """The backup of a tombstoned collection: named by its deletion and its generation, so that it is made once."""
    metadata = collection.metadata
    deleted = parse_time(metadata[KEY_DELETED_AT])
    named = collection.name.rpartition("@g")[2]  # what the metadata says of it anybody may have written
    identity = f"{deleted.astimezone(UTC).strftime(ID_FORMAT)}-g{named}"
    who = Candidate(
        uid=metadata[KEY_UID],
        namespace=metadata[KEY_NAMESPACE],
        name=metadata[KEY_NAME],
        schedule="",
        keep=KEEP_EVERY,
        created_at=deleted,
    )
    return Due(who, "backup", identity, 1, deleted)


def last_snapshot_order(
    due: Due, cell: CellRegistration, collection: CollectionState, settings: BackupSettings, now: datetime
) -> JobOrder:
    """Its Job."""
    return backup_order(due, cell, collection.name, settings, now, reason="Deletion")


def is_snapshot_of(manifest: BackupManifest, fleet: str, collection: CollectionState) -> bool:
    """Whether it is whole, of this very collection of this very owner, and was begun after the deletion.

    Nobody writes after a deletion: the points before and after the snapshot are the same number, or it does not count.
    """
    metadata = collection.metadata
    return (
        manifest.is_complete
        and manifest.reason == "Deletion"
        and manifest.is_of(fleet, metadata.get(KEY_NAMESPACE, ""), metadata.get(KEY_NAME, ""))
        and metadata.get(KEY_FLEET) == fleet
        and (manifest.uid, manifest.collection) == (metadata.get(KEY_UID), collection.name)
        and parse_time(manifest.taken_at) >= parse_time(metadata[KEY_DELETED_AT])
        and manifest.points == manifest.points_after
    )
