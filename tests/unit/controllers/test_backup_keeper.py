"""The keeper of backups: one Job a cell, the store as its memory, failures told and tried again."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.tasks import BackupTask, ProveTask
from searchops.runtime.key import Key
from unit.controllers.fakes_backups import BackupWorld

if TYPE_CHECKING:
    from unit.controllers.fakes_faults import When

ACME = Key("shop", "acme")
TODAY = "20261124T030000Z"


async def test_a_backup_then_its_proof_and_then_nothing_until_tomorrow() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.keeper.run_once()
    (job,) = world.jobs.values()
    assert isinstance(job.task, BackupTask)
    assert (job.task.id, job.task.collection, job.task.keep) == (TODAY, "prod.shop.acme@g1", 7)
    assert json.loads(job.secret["token"])["access"] == [{"collection": "prod.shop.acme@g1", "access": "rw"}]
    await world.keeper.run_once()
    assert len(world.started) == 1, "it is waited for"
    world.work()
    await world.keeper.run_once()
    (job,) = world.jobs.values()
    assert isinstance(job.task, ProveTask)
    world.work()
    await world.rounds(3)
    assert world.jobs == {}
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert record.last is not None
    assert record.proof is not None
    assert (record.last.id, record.proof.ok, record.failure) == (TODAY, True, "")
    assert world.counted == [("backup", "ok"), ("prove", "ok")]
    assert world.events.told == [("BackedUp", f"{TODAY}: 5 points")]
    assert world.looked_at[-1] == ACME
    await world.rounds(4, every=timedelta(hours=5))
    assert [job.split("-")[0] for job in world.started] == ["backup", "prove", "backup"]


async def test_one_at_a_time_on_a_cell_and_cells_beside_each_other() -> None:
    world = BackupWorld()
    for name in ("a", "b", "c"):
        world.apply(name)
    world.apply("d", "us-1")
    assert await world.keeper.run_once() == 2
    assert sorted(job.run.cell for job in world.jobs.values()) == ["eu-1", "us-1"]
    world.work()
    await world.rounds(12)
    assert world.together == 1
    assert len(world.started) == 8
    assert world.measured["eu-1"][:2] == (3, 0)
    assert 0 < world.measured["eu-1"][2] < 600


async def test_a_failure_is_told_with_why_and_tried_again_later() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.rounds(2, fails="the snapshots hold shards [0] of [0, 1]")
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert "try 1: the snapshots hold shards [0] of [0, 1]; tried again 10 minutes after its end" in record.failure
    assert world.counted == [("backup", "failed")]
    assert [reason for reason, _ in world.events.told] == ["BackupFailed"]
    looks = len(world.looked_at)
    await world.rounds(5)
    assert (len(world.started), len(world.looked_at)) == (1, looks), "the same failure is told once"
    world.now += timedelta(minutes=10)
    await world.rounds(4)
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert record.failure == ""
    assert world.jobs == {}, "the failed Job went with its success"
    assert len(world.started) == 3


async def test_a_proof_that_lost_points_is_an_event() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.rounds(4, loses=True)
    assert ("RestoreFailed", "4 points came back, wanted 5") in world.events.told
    assert world.counted[-1] == ("prove", "lost")
    assert len(world.started) == 2, "the same backup is not proved again"


async def test_a_lost_status_and_a_restart_forget_nothing() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.rounds(4)
    world.start()
    world.apply("acme", status={"lastBackup": None})
    await world.rounds(3)
    assert len(world.started) == 2
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert record.last is not None


async def test_what_was_missed_while_nobody_led_is_made_up_for_once() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.rounds(4)
    world.start()
    world.now += timedelta(days=5)
    await world.rounds(6)
    assert [name.split("-")[0] for name in world.started] == ["backup", "prove", "backup"]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"isolation": "Shared"}},
        {"spec": {"backup": None}},
        {"spec": {"backup": {"schedule": "61 * * * *"}}},
        {"status": {"collection": None}},
        {"silent": True},
        {"identity": True},
    ],
)
async def test_nothing_is_started_where_it_cannot_be_ours_or_well(change: dict[str, Any]) -> None:
    world = BackupWorld()
    world.apply("acme", status=change.get("status"), **change.get("spec", {}))
    if "silent" in change:
        world.silent = {"eu-1"}
    if "identity" in change:
        world.identities["eu-1"] = world.identities["us-1"]
    await world.rounds(2)
    assert world.started == []


async def test_a_template_that_is_not_meant_for_it_is_said() -> None:
    world = BackupWorld()
    world.template = {"metadata": {"labels": {"searchops.dev/worker-for": "build"}}, "template": {}}
    world.apply("acme")
    await world.rounds(2)
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert "wanted 'backup' among its '_'-separated kinds" in record.failure
    world.template = None
    await world.rounds(1)
    record = world.book.of(ACME, "uid-acme")
    assert record is not None
    assert "there is no PodTemplate 'cpu'" in record.failure


async def test_jobs_of_who_is_gone_are_cleared_away() -> None:
    world = BackupWorld()
    world.apply("acme")
    await world.keeper.run_once()
    world.work()
    world.tenants.apply("DELETED", dict(next(iter(world.tenants)).raw))
    await world.rounds(1)
    assert (world.jobs, world.book.of(ACME, "uid-acme")) == ({}, None)


async def life(world: BackupWorld) -> None:
    """Backups that are made, of one tenant at the second try always, their proofs, and the next day's."""
    world.first_fails = {"acme"}
    world.apply("acme")
    world.apply("other")
    for _ in range(2):
        for _ in range(4):
            await world.rounds(6)
            world.now += timedelta(minutes=12)
        world.now += timedelta(hours=23)


def end_of(world: BackupWorld) -> dict[str, Any]:
    records = {name: world.book.of(Key("shop", name), f"uid-{name}") for name in ("acme", "other")}
    return {
        "records": {
            name: (item.last.id if item.last else "", bool(item.proof and item.proof.ok), item.failure)
            for name, item in records.items()
            if item is not None
        },
        "jobs": sorted(world.jobs),
        "started": sorted(world.started),
        "together": world.together,
    }


@pytest.mark.parametrize("when", ["before", "after"])
async def test_one_failed_call_anywhere_changes_nothing_in_the_end(when: When) -> None:
    plain = BackupWorld()
    await life(plain)
    wanted = end_of(plain)
    assert wanted["together"] == 1
    assert wanted["jobs"] == []
    assert {name: last for name, (last, _, _) in wanted["records"].items()} == {
        "acme": "20261125T030000Z",
        "other": "20261125T030000Z",
    }
    for at, call in enumerate(plain.faults.calls):
        world = BackupWorld(at=at, when=when)
        await life(world)
        assert end_of(world) == wanted, f"call {at} ({call}) failed {when} its effect"


async def test_a_new_process_at_every_round_ends_the_same() -> None:
    plain, world = BackupWorld(), BackupWorld()
    await life(plain)
    world.new_process = True
    await life(world)
    assert sorted(world.started) == sorted(plain.started)
    assert (world.together, world.jobs) == (1, {})
