"""A backup is whole or it is none; what stops in between goes on; only what it made leaves the server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from searchops.api.backup import BackupManifest
from searchops_workers.backup.errors import BackupError, Incomplete, NotOurs
from searchops_workers.backup.take import take
from unit.workers.backup import fakes_cell as fake

NOW = fake.NOW


def run(cell: fake.FakeCell, prefix: str, backup: str = "20261124T030000Z", **changes: Any) -> BackupManifest:
    task = fake.backup_task(prefix, backup, **changes)
    take(task, cell.nodes(), fake.store_of(prefix), lambda: NOW)
    found = fake.store_of(prefix).manifest(backup)
    assert found is not None
    return found


def test_every_shard_is_held_and_the_manifest_has_what_a_restore_needs(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant({0: {0, 1}, 1: {2}})
    manifest = run(cell, prefix)
    assert manifest.is_complete
    assert [(part.peer, part.shards) for part in manifest.parts] == [("1000", (0, 1)), ("1001", (2,))]
    assert (manifest.points, manifest.points_after, manifest.shards) == (15, 15, (0, 1, 2))
    assert manifest.metadata == fake.METADATA
    assert manifest.server == "1.18.3"
    (entry,) = fake.store_of(prefix).index().backups
    assert (entry.id, entry.points, entry.size) == (manifest.id, 15, manifest.size)
    assert cell.left() == []
    assert all(held == {"somebody-else's.snapshot": b"theirs"} for held in cell.snapshots.values())


def test_a_replica_makes_up_for_a_node_that_is_down(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant({0: {0, 1}, 1: {0, 1}})
    cell.down = {1}
    assert [part.shards for part in run(cell, prefix).parts] == [(0, 1)]


def test_a_node_that_adds_nothing_is_not_asked_for_a_snapshot(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant({0: {0, 1}, 1: {1}})
    assert len(run(cell, prefix).parts) == 1
    assert cell.made == 1


def test_shards_of_a_silent_node_make_no_backup(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    cell.down = {1}
    with pytest.raises(Incomplete, match=r"hold shards \[0\] of \[0, 1\]: 1 of the 2 nodes .* in its Secret"):
        run(cell, prefix)
    assert fake.store_of(prefix).manifest("20261124T030000Z") is None
    assert fake.store_of(prefix).index().backups == ()
    cell.down = set()
    assert run(cell, prefix).is_complete
    assert cell.left() == []


def test_a_collection_of_somebody_else_is_not_read(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant()
    cell.collections[fake.COLLECTION].metadata["searchops.dev/uid"] = "uid-2"
    with pytest.raises(NotOurs, match=r"uid 'uid-2'; wanted 'prod', 'uid-1'; nothing was taken"):
        run(cell, prefix)
    assert cell.made == 0


def test_a_transfer_that_is_cut_keeps_nothing_and_is_made_up_for(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant()
    cell.cut = True
    with pytest.raises(BackupError, match="nothing is kept"):
        run(cell, prefix)
    assert fake.store_of(prefix).size_of("20261124T030000Z", "node-0.snapshot") is None
    cell.cut = False
    assert run(cell, prefix).is_complete
    assert cell.made == 1, "the snapshot that was made is fetched, not made again"
    assert cell.left() == []


def test_a_name_that_another_snapshot_bears_too_stays_on_the_server(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant()
    cell.stamp = "2026-11-24-03-10-00"
    name = f"{fake.COLLECTION}-0-{cell.stamp}.snapshot"
    cell.snapshots[0][name] = b"made by a person in the same second"
    assert run(cell, prefix).is_complete
    assert cell.left() == [name], "made in the same second, it bears the name of somebody else's"
    cell.snapshots[0].pop(name)

    def overwrite(when: str, method: str, path: str) -> None:
        if (when, method) == ("after", "GET") and path.endswith(".snapshot"):
            cell.snapshots[0][name] = b"made by a person a moment later"

    cell.fault = overwrite
    assert run(cell, prefix, "20261125T030000Z").is_complete
    assert cell.snapshots[0][name] == b"made by a person a moment later"


def test_writes_meanwhile_are_told_as_a_range(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant()

    def write(when: str, method: str, path: str) -> None:
        if (when, method) == ("after", "POST") and path.endswith("/snapshots"):
            cell.collections[fake.COLLECTION].shards[0].append(7)

    cell.fault = write
    manifest = run(cell, prefix)
    assert (manifest.points, manifest.points_after) == (5, 6)


def _requests_of_a_run() -> list[int]:
    cell = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    take(fake.backup_task("memory://counted/x"), cell.nodes(), fake.store_of("memory://counted/x"), lambda: NOW)
    return list(range(len(cell.requests)))


@pytest.mark.parametrize("kind", ["killed", "no answer"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", _requests_of_a_run())
def test_whatever_stops_at_any_request_goes_on(prefix: str, at: int, when: str, kind: str) -> None:
    """Each request fails once, before or after its effect; the same task again ends as an undisturbed one."""
    cell = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    struck: list[tuple[str, str]] = []

    def strike(moment: str, method: str, path: str) -> None:
        if len(cell.requests) == at + 1 and moment == when and not struck:
            struck.append((method, path))
            raise fake.Killed() if kind == "killed" else httpx.ReadTimeout("gone")

    cell.fault = strike
    for _ in range(3):
        try:
            manifest = run(cell, prefix)
            break
        except (fake.Killed, BackupError):
            continue
    assert struck
    assert manifest.is_complete
    assert [entry.id for entry in fake.store_of(prefix).index().backups] == [manifest.id]
    unheard = (
        [struck[0]] if when == "after" and struck[0] == ("POST", f"/collections/{fake.COLLECTION}/snapshots") else []
    )
    assert len(cell.left()) <= len(unheard), "only a snapshot that nobody was told of may be left"
    assert all("somebody-else's.snapshot" in held for held in cell.snapshots.values())


def test_an_old_beginning_is_not_gone_on_with(prefix: str) -> None:
    cell = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    cell.down = {1}
    with pytest.raises(Incomplete):
        run(cell, prefix)
    cell.down = set()
    cell.collections[fake.COLLECTION].shards[0].append(1)
    later = NOW + timedelta(hours=13)
    take(fake.backup_task(prefix), cell.nodes(), fake.store_of(prefix), lambda: later)
    manifest = fake.store_of(prefix).manifest("20261124T030000Z")
    assert manifest is not None
    assert (manifest.points, manifest.points_after) == (11, 11)
    assert cell.left() == []


def test_the_newest_stay_and_what_is_not_ours_is_left_alone(prefix: str) -> None:
    cell, store = fake.FakeCell.with_tenant(), fake.store_of(prefix)
    ids = [f"202611{day:02}T030000Z" for day in range(10, 16)]
    stranger = BackupManifest.model_validate({**run(cell, prefix, ids[0]).model_dump(), "name": "other"})
    store.write("20261101T030000Z", "manifest.json", stranger)
    for backup in ids[1:]:
        run(cell, prefix, backup)
    assert [entry.id for entry in store.index().backups] == ids[:-4:-1]
    assert store.ids() == ["20261101T030000Z", *ids[-3:]]


def test_one_that_nobody_finished_goes_with_the_next_whole_one(prefix: str) -> None:
    cell, store = fake.FakeCell.with_tenant({0: {0}, 1: {1}}), fake.store_of(prefix)
    cell.down = {1}
    with pytest.raises(Incomplete):
        run(cell, prefix, "20261123T030000Z")
    cell.down = set()
    run(cell, prefix)
    run(cell, prefix, "20261125T030000Z")
    assert store.ids() == ["20261124T030000Z", "20261125T030000Z"]
