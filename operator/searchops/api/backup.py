"""What a tenant's backup is in the artifact store: one manifest a backup, one index a tenant.

Layout below the artifact store's prefix, written by worker Jobs, read by the operator and by ``searchops restore``::

    backups/<fleet>/<namespace>/<name>/index.json             what there is, newest first; made anew from the manifests
    backups/<fleet>/<namespace>/<name>/<id>/node-<n>.snapshot one node's shards, as the database made them
    backups/<fleet>/<namespace>/<name>/<id>/node-<n>.json     that this file is whole: lets a repeated try go on
    backups/<fleet>/<namespace>/<name>/<id>/manifest.json     written last: with it the backup is whole
    backups/<fleet>/<namespace>/<name>/<id>/proof.json        that it was restored, and how many points came back

A backup belongs to who its manifest says (`fleet`, `namespace`, `name`), never to where it lies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from searchops.api.meta import ApiModel, Timestamp

MANIFEST_VERSION: Literal[1] = 1
_ID = re.compile(r"^[0-9]{8}T[0-9]{6}Z(-[a-z0-9]{1,16})?$")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""sha256 of a file in hex, as the database says it of a snapshot."""
Reason = Literal["Scheduled", "Deletion"]
"""Why it was made. What is kept of a deleted tenant (``Deletion``) is never removed for being old."""


class SnapshotPart(ApiModel):
    """One node's shards of the collection.

    Attributes:
        file: its name beside the manifest.
        peer: the node's peer id in the cell's cluster; "0" where the cell has no cluster mode.
        snapshot: the name that the server gave it.
        size: bytes.
        shards: ids of the shards inside, all of them active when it was made.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=120)]
    peer: Annotated[str, Field(max_length=40)]
    snapshot: Annotated[str, Field(max_length=400)]
    size: Annotated[int, Field(ge=0)]
    checksum: Sha256
    shards: Annotated[tuple[int, ...], Field(max_length=1024)]


class BackupManifest(ApiModel):
    """One whole backup of one tenant's live collection: everything that a restore needs beside the snapshots.

    Attributes:
        state: Removing where its files are about to go: never restored from, finished by the next backup.
        id: the moment of the schedule that it was made for, ``20261124T030000Z``.
        cell: where it was taken.
        server: version that the database says of itself.
        alias: the tenant's public name.
        side: the side alias that its generation stood on.
        generation: of the collection.
        points: exact number of points before the first snapshot was begun.
        points_after: exact number of points after the last snapshot was made; equal where nobody wrote meanwhile.
        shards: ids of every shard of the collection, by the cluster information of its nodes.
        replicas: copies of each shard.
        config: the collection's configuration as the database describes it (vectors, sparse vectors, indexing, WAL).
        strict: its strict-mode limits as the database describes them.
        payload_schema: its payload indexes as the database describes them.
        metadata: its metadata whole; the binding is in there.
    """

    version: Literal[1] = MANIFEST_VERSION
    state: Literal["Complete", "Removing"] = "Complete"
    reason: Reason = "Scheduled"
    id: Annotated[str, Field(max_length=40)]
    fleet: str
    namespace: str
    name: str
    uid: str
    cell: str
    server: str = ""
    taken_at: Timestamp
    finished_at: Timestamp
    alias: str
    side: str
    collection: str
    generation: Annotated[int, Field(ge=1)]
    points: Annotated[int, Field(ge=0)]
    points_after: Annotated[int, Field(ge=0)]
    shards: tuple[int, ...]
    replicas: Annotated[int, Field(ge=1)] = 1
    config: dict[str, Any] = Field(default_factory=dict)
    strict: dict[str, Any] = Field(default_factory=dict)
    payload_schema: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    parts: tuple[SnapshotPart, ...]

    @property
    def size(self) -> int:
        """Bytes of all snapshots."""
        return sum(part.size for part in self.parts)

    @property
    def covered(self) -> tuple[int, ...]:
        """Ids of the shards that the snapshots hold, each once."""
        return tuple(sorted({shard for part in self.parts for shard in part.shards}))

    @property
    def is_complete(self) -> bool:
        """Whether the shards in the snapshots are those of the collection: anything less is no backup."""
        return self.state == "Complete" and bool(self.parts) and self.covered == tuple(sorted(set(self.shards)))

    def is_of(self, fleet: str, namespace: str, name: str) -> bool:
        """Whether it is a backup of this tenant: what it says, not where it lies."""
        return (self.fleet, self.namespace, self.name) == (fleet, namespace, name)

    def holds(self, points: int) -> bool:
        """Whether a restored collection of so many points is what was backed up.

        It is exact where nobody wrote while the snapshots were made, else within what was counted before and after.
        """
        low, high = sorted((self.points, self.points_after))
        return low <= points <= high


class BackupProof(ApiModel):
    """A backup was restored into a scratch name, counted exactly, and the scratch was dropped again."""

    id: str
    at: Timestamp
    cell: str
    points: Annotated[int, Field(ge=0)]
    ok: bool
    message: Annotated[str, Field(max_length=1024)] = ""


class BackupEntry(ApiModel):
    """One line of the index."""

    id: str
    taken_at: Timestamp
    reason: Reason = "Scheduled"
    cell: str
    uid: str
    points: int
    size: int
    proof: BackupProof | None = None


class BackupIndex(ApiModel):
    """Every whole backup of a tenant, newest first."""

    version: Literal[1] = MANIFEST_VERSION
    fleet: str
    namespace: str
    name: str
    backups: Annotated[tuple[BackupEntry, ...], Field(max_length=1000)] = ()


def tenant_prefix(artifacts: str, fleet: str, namespace: str, name: str) -> str:
    """URI prefix of a tenant's backups."""
    return f"{artifacts.rstrip('/')}/backups/{fleet}/{namespace}/{name}"


def index_uri(prefix: str) -> str:
    """The tenant's index."""
    return f"{prefix}/index.json"


def is_backup_id(text: str) -> bool:
    """Whether a name is that of a backup: the moment of its schedule, and a word where it is not of a schedule."""
    return _ID.match(text) is not None


def manifest_uri(prefix: str, backup: str) -> str:
    """A backup's manifest.

    Raises:
        ValueError: where that is no id of a backup; an id becomes part of a path.
    """
    if not is_backup_id(backup):
        raise ValueError(f"{backup!r} is no backup: wanted an id such as 20261124T030000Z")
    return f"{prefix}/{backup}/manifest.json"


@dataclass(frozen=True, slots=True)
class BackupRun:
    """A backup's or a proof's Job as it was seen.

    Attributes:
        backup: id of the backup.
        ended_at: RFC 3339; empty while it runs.
        failure: why it failed, in the Job's words; empty where it did not.
    """

    name: str
    kind: Literal["backup", "prove"]
    owner_uid: str
    namespace: str
    tenant: str
    cell: str
    backup: str
    attempt: int
    complete: bool = False
    failure: str = ""
    ended_at: str = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended, be it that its queue holds it back."""
        return not self.complete and not self.failure


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """What is known of a tenant's backups.

    Attributes:
        last: the newest whole one.
        proof: the newest proof, of whichever backup.
        failure: why the last try failed, what is done next included; empty where it did not.
    """

    last: BackupEntry | None = None
    proof: BackupProof | None = None
    failure: str = ""


def record_of(index: BackupIndex) -> BackupRecord:
    """What an index says, newest first."""
    proofs = [entry.proof for entry in index.backups if entry.proof is not None]
    newest = max(proofs, key=lambda proof: proof.at, default=None)
    return BackupRecord(index.backups[0] if index.backups else None, newest)
