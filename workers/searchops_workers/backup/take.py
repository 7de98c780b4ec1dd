"""A backup: one snapshot a node until every shard is held, each checked on its way, the manifest last.

Whatever is killed or fails in between goes on at the next try: a part that is stored is not taken again, a snapshot
that was made and not fetched is fetched, and only what this very backup made is removed from the server.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.backup import BackupManifest, SnapshotPart
from searchops.api.meta import ApiModel, Timestamp, format_time, parse_time
from searchops.api.tasks import BackupResult
from searchops_workers.backup.errors import BackupError, BadBackup, Incomplete, NotOurs
from searchops_workers.backup.node import Shards, Snapshot, metadata_of
from searchops_workers.backup.retention import abandoned, surplus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from searchops.api.backup import BackupIndex
    from searchops.api.tasks import BackupTask
    from searchops_workers.backup.node import CellNode
    from searchops_workers.backup.store import TenantBackups

GOES_ON_FOR = timedelta(hours=12)
"""How long parts of an unfinished backup are of use: a try after that begins anew."""
KEY_FLEET, KEY_UID = "searchops.dev/fleet", "searchops.dev/uid"


class Begun(ApiModel):
    """Written before the first snapshot: whose unfinished backup this is, and what it set out from."""

    fleet: str
    namespace: str
    name: str
    uid: str
    taken_at: Timestamp
    points: int


class Made(ApiModel):
    """Written as soon as a node has made a snapshot, so that whoever goes on knows it as this backup's.

    Attributes:
        shared: whether the server gave it a name that was there before, as it does within one second: it stays there.
    """

    peer: str
    shards: tuple[int, ...]
    snapshot: str
    size: int
    checksum: str | None = None
    shared: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A part that is stored, and the node that it came from."""

    node: int
    part: SnapshotPart


def take(
    task: BackupTask,
    nodes: Sequence[CellNode],
    backups: TenantBackups,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupResult:
    """Make the backup whole, remove what is too old, leave no snapshot of ours on the server.

    Raises:
        NotOurs: the collection's metadata names somebody else.
        Incomplete: not every shard is held, or shards moved meanwhile.
        BackupError: cell or store do not answer.
    """
    found = backups.manifest(task.id)
    if found is None or not found.is_complete:
        found = _Taking(task, nodes, backups, now).run()
    index = backups.rebuild_index()
    removed = _retire(task, backups, index)
    left = _clean(task, nodes, backups, found)
    if left:
        raise BackupError(f"backup {task.id} is whole, but the server did not remove {left}; it is tried again")
    return BackupResult(kind="backup", id=task.id, points=found.points_after, size=found.size, removed=removed)


class _Taking:
    """One try of one backup."""

    def __init__(
        self, task: BackupTask, nodes: Sequence[CellNode], backups: TenantBackups, now: Callable[[], datetime]
    ) -> None:
        self._task, self._nodes, self._backups, self._now = task, nodes, backups, now

    def run(self) -> BackupManifest:
        description, first = self._described()
        shards = self._shards()
        every = frozenset(shard for each in shards.values() for shard in each.every)
        begun = self._begin(first)
        held: list[Held] = []
        for number, seen in shards.items():
            if seen.local - {shard for one in held for shard in one.part.shards}:
                held.append(self._part(number, seen))
        after = first.count(self._task.collection)
        self._unmoved(shards, held, every)
        manifest = self._manifest(description, first, begun, after, every, held)
        if not manifest.is_complete:
            raise Incomplete(self._lacking(shards, every, manifest))
        self._backups.write(self._task.id, "manifest.json", manifest)
        return manifest

    def _described(self) -> tuple[dict[str, Any], CellNode]:
        """The collection as the first node that answers tells it."""
        problem: BackupError | None = None
        name = self._task.collection
        for node in self._nodes:
            try:
                description = node.describe(name)
            except BackupError as error:
                problem = error
                continue
            if description is None:
                raise BackupError(f"{node.url}: there is no collection {name}; the operator looks again")
            metadata = metadata_of(description)
            owner = metadata.get(KEY_FLEET), metadata.get(KEY_UID)
            if owner != (self._task.fleet, self._task.uid):
                raise NotOurs(
                    f"{name} belongs to fleet {owner[0]!r}, uid {owner[1]!r}; wanted {self._task.fleet!r}, "
                    f"{self._task.uid!r}; nothing was taken"
                )
            return description, node
        raise problem or BackupError("the cell has no node")

    def _shards(self) -> dict[int, Shards]:
        """What each node that answers holds, every peer once; a node that is down may be made up for by replicas."""
        found: dict[int, Shards] = {}
        silent: list[BackupError] = []
        for number, node in enumerate(self._nodes):
            try:
                seen = node.shards(self._task.collection)
            except BackupError as error:
                silent.append(error)
                continue
            if seen.peer not in {each.peer for each in found.values()}:
                found[number] = seen
        if not found:
            raise silent[0] if silent else BackupError("the cell has no node")
        return found

    def _begin(self, node: CellNode) -> Begun:
        """What an earlier try set out from, where it is of use still; else a beginning."""
        task, now = self._task, self._now()
        found = self._backups.document(task.id, "begun.json", Begun)
        ours = found is not None and (found.fleet, found.uid) == (task.fleet, task.uid)
        if found is not None and ours and now - parse_time(found.taken_at) < GOES_ON_FOR:
            return found
        if found is not None:
            self._forget_parts()
        begun = Begun(
            fleet=task.fleet,
            namespace=task.namespace,
            name=task.name,
            uid=task.uid,
            taken_at=format_time(now),
            points=node.count(task.collection),
        )
        self._backups.write(task.id, "begun.json", begun)
        return begun

    def _forget_parts(self) -> None:
        """What an earlier try left is of no use; its snapshots go from the server, as far as it can be reached."""
        _clean(self._task, self._nodes, self._backups, self._task.collection)
        self._backups.remove_files(self._task.id)

    def _part(self, number: int, seen: Shards) -> Held:
        """One node's shards in the store: taken, fetched, or found there from an earlier try."""
        file, node, backup = f"node-{number}.snapshot", self._nodes[number], self._task.id
        shards = tuple(sorted(seen.local))
        made = self._backups.document(backup, f"made-{number}.json", Made)
        if made is not None and (made.peer, made.shards) != (seen.peer, shards):
            _remove(node, self._task.collection, made)
            made = None
        part = self._backups.document(backup, f"node-{number}.json", SnapshotPart)
        stored = made is not None and part is not None and (part.snapshot, part.shards) == (made.snapshot, shards)
        if part is not None and stored and self._backups.size_of(backup, file) == part.size:
            return Held(number, part)
        snapshot = _there(node, self._task.collection, made) if made is not None else None
        if snapshot is None:
            known = {each.name for each in node.snapshots(self._task.collection)}
            snapshot = node.snapshot(self._task.collection)
            fresh = Made(
                peer=seen.peer,
                shards=shards,
                snapshot=snapshot.name,
                size=snapshot.size,
                checksum=snapshot.checksum,
                shared=snapshot.name in known,
            )
            self._backups.write(backup, f"made-{number}.json", fresh)
        with node.download(self._task.collection, snapshot.name) as pieces:
            checksum = self._backups.keep(backup, file, pieces, size=snapshot.size, checksum=snapshot.checksum)
        part = SnapshotPart(
            file=file, peer=seen.peer, snapshot=snapshot.name, size=snapshot.size, checksum=checksum, shards=shards
        )
        self._backups.write(backup, f"node-{number}.json", part)
        return Held(number, part)

    def _unmoved(self, before: dict[int, Shards], held: Sequence[Held], every: frozenset[int]) -> None:
        for one in held:
            now = self._nodes[one.node].shards(self._task.collection)
            if now.moving or now.local != before[one.node].local or now.every != every:
                raise Incomplete(
                    f"shards of {self._task.collection} moved while it was backed up: node {one.node} held "
                    f"{sorted(before[one.node].local)}, now {sorted(now.local)}; it is taken again"
                )

    def _manifest(
        self,
        description: dict[str, Any],
        node: CellNode,
        begun: Begun,
        after: int,
        every: frozenset[int],
        held: Sequence[Held],
    ) -> BackupManifest:
        task = self._task
        config = {key: value for key, value in description.get("config", {}).items() if value is not None}
        metadata = config.pop("metadata", {})
        strict = config.pop("strict_mode_config", {})
        server = ""
        with contextlib.suppress(BackupError):
            server = node.version()
        return BackupManifest(
            reason=task.reason,
            id=task.id,
            fleet=task.fleet,
            namespace=task.namespace,
            name=task.name,
            uid=task.uid,
            cell=task.cell,
            server=server,
            taken_at=begun.taken_at,
            finished_at=format_time(self._now()),
            alias=task.alias,
            side=task.side,
            collection=task.collection,
            generation=task.generation,
            points=begun.points,
            points_after=after,
            shards=tuple(sorted(every)),
            replicas=int(config.get("params", {}).get("replication_factor") or 1),
            config=config,
            strict=strict,
            payload_schema=description.get("payload_schema", {}),
            metadata=metadata,
            parts=tuple(one.part for one in held),
        )

    def _lacking(self, shards: dict[int, Shards], every: frozenset[int], manifest: BackupManifest) -> str:
        peers = {peer for each in shards.values() for peer in each.peers}
        return (
            f"the snapshots hold shards {list(manifest.covered)} of {sorted(every)}: {len(shards)} of the {len(peers)} "
            f"nodes that hold any answered at {len(self._nodes)} addresses; name every node of cell "
            f"{self._task.cell} in its Secret (nodes), and let each answer"
        )


def _retire(task: BackupTask, backups: TenantBackups, index: BackupIndex) -> tuple[str, ...]:
    """Remove what is too old, and what nobody finished: the index forgets it first."""
    going = surplus(index.backups, task.keep)
    kept = [entry for entry in index.backups if entry.id not in going]
    if going:
        backups.write_index(kept)
    for backup in going:
        backups.remove(backup)
    for backup in abandoned(backups.ids(), kept, task.id):
        if _is_ours_and_unfinished(task, backups, backup):
            backups.remove_files(backup)
    return going


def _is_ours_and_unfinished(task: BackupTask, backups: TenantBackups, backup: str) -> bool:
    """Whether its own documents say so; what says nothing, or cannot be read, is left alone."""
    try:
        manifest = backups.manifest(backup)
    except BadBackup:
        return False
    if manifest is not None:
        return manifest.state == "Removing"
    begun = backups.document(backup, "begun.json", Begun)
    return begun is not None and (begun.fleet, begun.namespace, begun.name) == (task.fleet, task.namespace, task.name)


def _clean(task: BackupTask, nodes: Sequence[CellNode], backups: TenantBackups, of: BackupManifest | str) -> str:
    """Remove from the server what this backup made there; what could not be is named."""
    collection = of if isinstance(of, str) else of.collection
    left = []
    for number, node in enumerate(nodes):
        made = backups.document(task.id, f"made-{number}.json", Made)
        if made is None or made.removed:
            continue
        try:
            _remove(node, collection, made)
        except BackupError as error:
            left.append(f"{made.snapshot} ({error})")
            continue
        backups.write(task.id, f"made-{number}.json", made.model_copy(update={"removed": True}))
    return ", ".join(left)


def _there(node: CellNode, collection: str, made: Made) -> Snapshot | None:
    """The snapshot that this backup made, where the server has it still, unchanged."""
    wanted = Snapshot(made.snapshot, made.size, made.checksum)
    return next((each for each in node.snapshots(collection) if each == wanted), None)


def _remove(node: CellNode, collection: str, made: Made) -> None:
    """Remove from the server what this backup made, and nothing else that has come to bear its name."""
    if not made.shared and _there(node, collection, made) is not None:
        node.remove_snapshot(collection, made.snapshot)
