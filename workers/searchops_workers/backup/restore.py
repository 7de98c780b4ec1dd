"""A tenant back into a cell from its backup alone: collection, metadata with its new owner, side and alias.

Nothing that is there is overwritten: neither a collection, nor an alias, nor a tenant that lives on another cell.
What an earlier try of the same restore left is the tenant's own by its metadata, and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops_workers.backup.errors import BadBackup, NotOurs
from searchops_workers.backup.node import metadata_of
from searchops_workers.backup.recover import recover, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from searchops.api.backup import BackupManifest
    from searchops_workers.backup.node import CellNode
    from searchops_workers.backup.store import TenantBackups

MARKER = "searchops-cell"
KEY_FLEET = "searchops.dev/fleet"
KEY_UID = "searchops.dev/uid"
KEY_NAMESPACE = "searchops.dev/namespace"
KEY_NAME = "searchops.dev/name"
KEY_NAMESPACE_UID = "searchops.dev/namespace-uid"
KEY_RESTORED = "searchops.dev/restored"
"""``<backup id> <moment>``: this collection came out of that backup; the operator moves a lost tenant only to such."""
KEYS_OF_ITS_END = ("searchops.dev/deleted-at", "searchops.dev/drop-after", "searchops.dev/policy")
KEYS_OF_OTHER_SIDES = ("searchops.dev/pending", "searchops.dev/previous")


@dataclass(frozen=True, slots=True)
class Order:
    """What is restored and for whom.

    Attributes:
        cell: its name, for messages.
        identity: metadata of the cell's marker: fleet, cell and cluster as the operator writes them.
        uid: of the SearchTenant that gets the data.
        namespace_uid: of its namespace.
    """

    backup: str
    cell: str
    identity: Mapping[str, str]
    uid: str
    namespace_uid: str


def plan(order: Order, manifest: BackupManifest, node: CellNode) -> tuple[str, ...]:
    """What a restore would do on this cell, in words.

    Raises:
        NotOurs: something of this name is there that is not the tenant's.
    """
    steps: list[str] = []
    if not _claimed(order, node):
        steps.append(f"claim cell {order.cell} for fleet {manifest.fleet}")
    if not _is_there(order, manifest, node):
        steps.append(
            f"recover {len(manifest.parts)} snapshots, {manifest.size} bytes, {manifest.points_after} points, into "
            f"{manifest.collection} on cell {order.cell}"
        )
    steps.append(f"give {manifest.collection} to uid {order.uid}; it was backed up as that of uid {manifest.uid}")
    steps += [f"point alias {alias} to {manifest.collection}" for alias in (manifest.side, manifest.alias)]
    return tuple(steps)


def restore(
    order: Order,
    backups: TenantBackups,
    nodes: Sequence[CellNode],
    say: Callable[[str], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Restore; returns the exact number of points.

    Raises:
        NotOurs: something is in the way that is not the tenant's; nothing was changed.
        BadBackup: the backup cannot be used, or other points are there than were saved; no alias was set then.
        BackupError: cell or store do not answer; the same again goes on.
    """
    manifest = usable(backups, order.backup)
    first = nodes[0]
    for step in plan(order, manifest, first):
        say(step)
    if not _claimed(order, first):
        first.create_marker(MARKER, order.identity)
        _claimed(order, first)
    if _is_there(order, manifest, first):
        points = first.count(manifest.collection)
    else:
        points = recover(manifest, backups, nodes, manifest.collection)
    if not manifest.holds(points):
        raise BadBackup(
            f"{manifest.collection} on cell {order.cell} has {points} points, the manifest says {manifest.points} to "
            f"{manifest.points_after}; no alias was set and it is not overwritten; where it is of no use, drop it by "
            "hand and restore again"
        )
    gone = dict.fromkeys((*KEYS_OF_ITS_END, *KEYS_OF_OTHER_SIDES))
    stamp = f"{manifest.id} {format_time(now())}"
    owner = {KEY_UID: order.uid, KEY_NAMESPACE_UID: order.namespace_uid, KEY_RESTORED: stamp}
    first.patch_metadata(manifest.collection, {**gone, **owner})
    for alias in (manifest.side, manifest.alias):
        target = first.aliases().get(alias)
        if target not in (None, manifest.collection):
            raise NotOurs(f"alias {alias} points to {target} by now; it is not moved")
        if target is None:
            first.point_alias(alias, manifest.collection)
    return points


def newest(backups: TenantBackups, wanted: str | None) -> str:
    """The id that is asked for, else the newest whole backup.

    Raises:
        BadBackup: there is none.
    """
    if wanted is not None:
        return wanted
    index = backups.index()
    if not index.backups:
        raise BadBackup(f"{backups.prefix}/index.json names no whole backup; check the name, --fleet and --artifacts")
    return index.backups[0].id


def _claimed(order: Order, node: CellNode) -> bool:
    """Whether the cell says that it is the one of its Secret; False where it says nothing yet.

    Raises:
        NotOurs: it is another: an edited URL must not fill a strange server.
    """
    description = node.describe(MARKER)
    if description is None:
        return False
    found = metadata_of(description)
    seen = {key: found.get(key) for key in order.identity}
    if seen != dict(order.identity):
        raise NotOurs(
            f"cell {order.cell} says it is {seen}, wanted {dict(order.identity)}; nothing is written there; correct "
            "the URL in its Secret"
        )
    return True


def _is_there(order: Order, manifest: BackupManifest, node: CellNode) -> bool:
    """Whether the tenant's collection is there: what an earlier try left, or what only lost its alias.

    It is never overwritten; whether it is what was backed up, its exact count says.

    Raises:
        NotOurs: something of one of its names is there that is somebody else's.
    """
    aliases, name = node.aliases(), manifest.collection
    for alias in (manifest.alias, manifest.side):
        target = aliases.get(alias)
        if target not in (None, name):
            raise NotOurs(
                f"alias {alias} on cell {order.cell} points to {target}; it is not moved: something lives there"
            )
    if manifest.alias in node.collections():
        raise NotOurs(f"a collection on cell {order.cell} has the alias's name {manifest.alias}; rename or remove it")
    description = node.describe(name)
    if description is None:
        return False
    metadata = metadata_of(description)
    named = tuple(metadata.get(key) for key in (KEY_FLEET, KEY_NAMESPACE, KEY_NAME))
    uid = metadata.get(KEY_UID)
    if named == (manifest.fleet, manifest.namespace, manifest.name) and uid in (manifest.uid, order.uid):
        return True
    raise NotOurs(
        f"{name} is on cell {order.cell} already, of {'/'.join(map(str, named))}, uid {uid!r}; it is not overwritten; "
        "restore into another cell, or remove it by hand"
    )
