"""Whose backup is due when: one a cell at a time, each moment once, missed ones made up for once, failures apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.backup import BackupEntry, BackupProof, BackupRecord, BackupRun
from searchops.api.meta import format_time
from searchops.planning.backup import (
    BackupSettings,
    Candidate,
    Due,
    backup_id,
    due_of,
    finished_with,
    newest_moment,
    newest_runs,
    next_on_cell,
    offset_of,
    schedule_problem,
    wait_after,
)

MADE = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PLAIN = BackupSettings("prod", "s3://bucket/ops", "cpu", spread=timedelta(0))
SCHEDULES = ("0 3 * * *", "*/10 * * * *", "30 1 * * 0", "15 */6 * * *")


def entry(backup: str, **changes: Any) -> BackupEntry:
    values: dict[str, Any] = {"cell": "eu-1", "uid": "u", "points": 1, "size": 1}
    taken = f"{backup[:4]}-{backup[4:6]}-{backup[6:8]}T{backup[9:11]}:{backup[11:13]}:30Z"
    return BackupEntry(id=backup, taken_at=taken, **{**values, **changes})


def tenant(uid: str = "u", schedule: str = "0 3 * * *", record: BackupRecord | None = None) -> Candidate:
    return Candidate(uid, "shop", uid, schedule, 7, MADE, record)


def job(due: Due, **changes: Any) -> BackupRun:
    who = due.candidate
    run = BackupRun(
        f"{due.kind}-{who.uid}-{due.backup}-{due.attempt}",
        due.kind,
        who.uid,
        "shop",
        who.name,
        "eu-1",
        due.backup,
        due.attempt,
    )
    return replace(run, **changes)


def test_one_that_was_never_backed_up_is_for_the_newest_moment() -> None:
    since = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    assert due_of(tenant(), (), PLAIN, NOW) == Due(tenant(), "backup", "20261124T030000Z", 1, since)


def test_a_new_tenant_waits_for_its_first_moment() -> None:
    fresh = replace(tenant(), created_at=NOW - timedelta(hours=1))
    assert due_of(fresh, (), PLAIN, NOW) is None
    assert due_of(fresh, (), PLAIN, NOW + timedelta(hours=15, minutes=1)) is not None


def test_of_many_missed_moments_only_the_newest_is_made_up_for() -> None:
    known = tenant(record=BackupRecord(entry("20261102T030000Z")))
    due = due_of(known, (), PLAIN, NOW)
    assert due is not None
    assert due.backup == "20261124T030000Z"
    done = replace(known, record=BackupRecord(entry(due.backup)))
    assert due_of(done, (), replace(PLAIN, prove_every=timedelta(0)), NOW) is None


def test_a_failed_job_is_followed_after_a_wait_that_doubles() -> None:
    first = due_of(tenant(), (), PLAIN, NOW)
    assert first is not None
    failed = job(first, failure="BackoffLimitExceeded", ended_at=format_time(NOW))
    assert due_of(tenant(), (failed,), PLAIN, NOW + timedelta(minutes=9)) is None
    second = due_of(tenant(), (failed,), PLAIN, NOW + timedelta(minutes=10))
    assert second == replace(first, attempt=2)
    again = job(second, failure="x", ended_at=format_time(NOW + timedelta(minutes=20)))
    assert due_of(tenant(), (failed, again), PLAIN, NOW + timedelta(minutes=39)) is None
    third = due_of(tenant(), (failed, again), PLAIN, NOW + timedelta(minutes=40))
    assert third is not None
    assert third.attempt == 3
    assert wait_after(50, PLAIN) == timedelta(hours=6)


def test_the_newest_backup_is_proved_once_in_its_time() -> None:
    last = entry("20261124T030000Z")
    due = due_of(tenant(record=BackupRecord(last)), (), PLAIN, NOW)
    assert due is not None
    assert (due.kind, due.backup) == ("prove", last.id)
    proof = BackupProof(id=last.id, at=format_time(NOW), cell="eu-1", points=1, ok=True)
    assert due_of(tenant(record=BackupRecord(last, proof)), (), PLAIN, NOW + timedelta(hours=1)) is None
    newer = BackupRecord(entry("20261125T030000Z"), proof)
    later = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    assert due_of(tenant(record=newer), (), PLAIN, later) is None, "proved a day ago"
    lost = BackupRecord(entry("20261125T030000Z"), proof.model_copy(update={"ok": False}))
    retried = due_of(tenant(record=lost), (), PLAIN, later)
    assert retried is not None
    assert (retried.kind, retried.backup) == ("prove", "20261125T030000Z")
    assert due_of(tenant(record=lost), (), replace(PLAIN, prove_every=timedelta(0)), later) is None


def test_who_waits_longest_is_next_and_backups_come_before_proofs() -> None:
    proved = tenant("a", record=BackupRecord(entry("20261124T030000Z")))
    late, later = tenant("b", "0 5 * * *"), tenant("c", "0 4 * * *")
    due = next_on_cell((proved, late, later), (), "eu-1", PLAIN, NOW)
    assert due is not None
    assert due.candidate is later
    running = job(due)
    assert next_on_cell((proved, late, later), (running,), "eu-1", PLAIN, NOW) is None
    assert next_on_cell((proved,), (replace(running, cell="eu-2"),), "eu-1", PLAIN, NOW) is not None


@pytest.mark.parametrize("schedule", ["0 3 * *", "@daily", "* * * * * *", "61 * * * *", "0 0 30 2 *", "a b c d e", ""])
def test_what_is_no_schedule_is_said_and_never_due(schedule: str) -> None:
    problem = schedule_problem(schedule)
    assert problem is not None
    assert problem.startswith(f"spec.backup.schedule {schedule!r}")
    assert due_of(tenant(schedule=schedule), (), PLAIN, NOW) is None


@given(st.text(max_size=20), st.floats(0, 86400))
def test_an_offset_is_within_the_spread_and_always_the_same(uid: str, seconds: float) -> None:
    spread = timedelta(seconds=seconds)
    assert timedelta(0) <= offset_of(uid, spread) <= spread
    assert offset_of(uid, spread) == offset_of(uid, spread)


def test_a_fleet_is_spread_evenly() -> None:
    hours = [offset_of(f"uid-{number}", timedelta(hours=4)).total_seconds() // 3600 for number in range(4000)]
    assert all(900 < hours.count(hour) < 1100 for hour in range(4))


@given(st.sampled_from(SCHEDULES), st.integers(0, 14400), st.integers(0, 10_000_000))
def test_the_newest_moment_is_the_last_whose_turn_has_come(schedule: str, offset: int, after: int) -> None:
    now, wait = MADE + timedelta(seconds=after), timedelta(seconds=offset)
    moment = newest_moment(schedule, wait, now)
    assert moment + wait <= now
    assert newest_moment(schedule, timedelta(0), moment) == moment
    assert backup_id(newest_moment(schedule, wait, now + timedelta(days=8))) > backup_id(moment)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(SCHEDULES), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 240), st.sampled_from(["ok", "fails", "runs", "restart"])), max_size=60),
)
def test_never_two_at_once_never_one_twice_and_always_the_newest(
    schedules: list[str], steps: list[tuple[int, str]]
) -> None:
    """A cell's life in minutes: what is due starts, ends well or badly or goes on; the operator restarts in between."""
    rules = replace(PLAIN, spread=timedelta(hours=4), prove_every=timedelta(0))
    store: dict[str, BackupRecord] = {}
    runs: list[BackupRun] = []
    made: set[tuple[str, str]] = set()
    now = NOW
    for minutes, event in steps:
        now += timedelta(minutes=minutes)
        for index, run in enumerate(runs):
            if run.running and event == "ok":
                runs[index] = replace(run, complete=True, ended_at=format_time(now))
                assert (run.owner_uid, run.backup) not in made, "a moment is backed up once"
                made.add((run.owner_uid, run.backup))
                store[run.owner_uid] = BackupRecord(entry(run.backup))
            elif run.running and event == "fails":
                runs[index] = replace(run, failure="x", ended_at=format_time(now))
        # Nothing is remembered between rounds but Jobs and the store: each round is a restart.
        runs = [run for run in runs if not (run.complete or finished_with(run, store.get(run.owner_uid)))]
        candidates = [tenant(f"u{number}", rule, store.get(f"u{number}")) for number, rule in enumerate(schedules)]
        due = next_on_cell(candidates, runs, "eu-1", rules, now)
        if due is not None:
            moment = newest_moment(due.candidate.schedule, offset_of(due.candidate.uid, rules.spread), now)
            assert due.backup == backup_id(moment)
            assert job(due).name not in {run.name for run in runs}
            runs.append(job(due))
        assert sum(run.running for run in runs) <= 1


def test_ended_jobs_that_a_later_one_followed_tell_nothing() -> None:
    due = Due(tenant(), "backup", "20261124T030000Z", 1, NOW)
    first = job(due, failure="x", ended_at="2026-11-24T03:10:00Z")
    second = job(replace(due, attempt=2), failure="y", ended_at="2026-11-24T03:30:00Z")
    other = job(replace(due, candidate=tenant("v")), complete=True, ended_at="2026-11-24T03:20:00Z")
    assert newest_runs((second, other, first, job(due))) == ((other, second), (first,))
    assert finished_with(first, BackupRecord(entry("20261124T030000Z")))
    assert not finished_with(first, BackupRecord(entry("20261123T030000Z")))
    assert not finished_with(first, None)
    proving = replace(first, kind="prove")
    assert not finished_with(proving, BackupRecord(entry("20261124T030000Z")))
    assert finished_with(proving, BackupRecord(entry("20261125T030000Z")))
