"""When a tenant is backed up, whose turn it is on a cell, when a backup is proved: pure, from what is known.

The artifact store is the record: a backup's id is the moment of the schedule that it was made for, so that a restart
neither forgets one nor makes it twice, and of moments that were missed only the newest is made up for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from croniter import CroniterError, croniter

from searchops.api.meta import parse_time
from searchops.planning.names import short_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from searchops.api.backup import BackupRecord, BackupRun

FIELDS = 5
_ID_FORMAT = "%Y%m%dT%H%M%SZ"
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """The operator's settings that backups depend on.

    Attributes:
        spread: tenants of one schedule start this far apart at most, by uid.
        overdue: how long after its turn a backup may take before it is called stale.
        deadline: of one Job.
        prove_every: how often a tenant's newest backup is restored under a scratch name; zero means never.
        retry_first: wait after the first failed Job; doubled after each, up to `retry_most`.
    """

    fleet: str
    artifacts: str
    pod_template: str
    spread: timedelta = timedelta(hours=4)
    overdue: timedelta = timedelta(hours=6)
    deadline: timedelta = timedelta(hours=2)
    prove_every: timedelta = timedelta(days=7)
    retry_first: timedelta = timedelta(minutes=10)
    retry_most: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tenant that asks for backups.

    Attributes:
        created_at: when the tenant was made: moments of the schedule before that are nobody's.
        record: what is known of its backups; None where nothing is.
    """

    uid: str
    namespace: str
    name: str
    schedule: str
    keep: int
    created_at: datetime
    record: BackupRecord | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """One Job that is to run now.

    Attributes:
        since: when its turn came; who waits longest is next.
    """

    candidate: Candidate
    kind: Literal["backup", "prove"]
    backup: str
    attempt: int
    since: datetime


def schedule_problem(schedule: str) -> str | None:
    """Why a schedule cannot be kept; None where it can."""
    wanted = "wanted five fields, such as '0 3 * * *'"
    if len(schedule.split()) != FIELDS:
        return f"spec.backup.schedule {schedule!r} has {len(schedule.split())} fields; {wanted}"
    try:
        croniter(schedule, datetime(2026, 1, 1, tzinfo=UTC)).get_next(datetime)
    except (CroniterError, ValueError, KeyError) as error:
        return f"spec.backup.schedule {schedule!r} is no schedule: {error}; {wanted}"
    return None


def offset_of(uid: str, spread: timedelta) -> timedelta:
    """How long after the schedule this tenant starts: the same for ever, evenly spread over a fleet."""
    return timedelta(seconds=int(spread.total_seconds() * int(short_hash("backup", uid, length=8), 16) / 2**32))


def newest_moment(schedule: str, offset: timedelta, now: datetime) -> datetime:
    """The newest moment of the schedule whose turn has come."""
    return _newest(schedule, (now - offset).replace(second=0, microsecond=0))


@lru_cache(maxsize=8192)
def _newest(schedule: str, minute: datetime) -> datetime:
    """Schedules have minutes, and tenants share both: a fleet's round asks a few hundred times, not thousands."""
    moment: datetime = croniter(schedule, minute + _TICK).get_prev(datetime)
    return moment


def first_turn(schedule: str, offset: timedelta, created: datetime) -> datetime:
    """When the turn of a tenant that was made then comes first."""
    moment: datetime = croniter(schedule, created - _TICK).get_next(datetime)
    return moment + offset


def backup_id(moment: datetime) -> str:
    """The id of the backup of a moment of the schedule; later moments sort after earlier ones."""
    return moment.astimezone(UTC).strftime(_ID_FORMAT)


def due_of(candidate: Candidate, runs: Iterable[BackupRun], settings: BackupSettings, now: datetime) -> Due | None:
    """What the tenant needs now: a backup first, else a proof of its newest one, else nothing."""
    if schedule_problem_of(candidate.schedule) is not None:
        return None
    own = [run for run in runs if run.owner_uid == candidate.uid]
    if any(run.running for run in own):
        return None
    last = candidate.record.last if candidate.record is not None else None
    offset = offset_of(candidate.uid, settings.spread)
    moment = newest_moment(candidate.schedule, offset, now)
    wanted = backup_id(moment)
    if last is not None and last.id >= wanted:
        return _proof_due(candidate, own, settings, now)
    if last is None and moment < candidate.created_at:
        return None
    return _tried(candidate, "backup", wanted, own, settings, moment + offset, now)


@lru_cache(maxsize=1024)
def schedule_problem_of(schedule: str) -> str | None:
    """`schedule_problem`, remembered: a fleet has few schedules."""
    return schedule_problem(schedule)


def _proof_due(candidate: Candidate, own: Sequence[BackupRun], settings: BackupSettings, now: datetime) -> Due | None:
    record = candidate.record
    if record is None or record.last is None or not settings.prove_every:
        return None
    proof = record.proof
    if proof is not None and proof.id == record.last.id:
        return None  # this very backup has been judged
    since = parse_time(record.last.taken_at)
    if proof is not None and proof.ok:
        since = max(since, parse_time(proof.at) + settings.prove_every)
    if since > now:
        return None
    return _tried(candidate, "prove", record.last.id, own, settings, since, now)


def _tried(
    candidate: Candidate,
    kind: Literal["backup", "prove"],
    backup: str,
    own: Sequence[BackupRun],
    settings: BackupSettings,
    since: datetime,
    now: datetime,
) -> Due | None:
    """After each failed Job it waits twice as long."""
    before = [run for run in own if (run.kind, run.backup) == (kind, backup) and run.failure]
    attempt = 1 + max((run.attempt for run in before), default=0)
    for run in before:
        if run.ended_at and parse_time(run.ended_at) + wait_after(run.attempt, settings) > now:
            return None
    return Due(candidate, kind, backup, attempt, since)


def wait_after(attempt: int, settings: BackupSettings) -> timedelta:
    """How long after its end a failed Job is followed by the next."""
    doubled: timedelta = settings.retry_first * 2 ** min(attempt - 1, 16)
    return min(settings.retry_most, doubled)


def next_on_cell(
    candidates: Iterable[Candidate], runs: Sequence[BackupRun], cell: str, settings: BackupSettings, now: datetime
) -> Due | None:
    """Whose turn it is on a cell: nobody's while a Job runs there, else that of who has waited longest."""
    if any(run.running and run.cell == cell for run in runs):
        return None
    by_owner: dict[str, list[BackupRun]] = {}
    for run in runs:
        by_owner.setdefault(run.owner_uid, []).append(run)
    due = [found for each in candidates if (found := due_of(each, by_owner.get(each.uid, ()), settings, now))]
    return min(due, key=lambda each: (each.kind, each.since, each.candidate.uid), default=None)


def newest_runs(runs: Iterable[BackupRun]) -> tuple[tuple[BackupRun, ...], tuple[BackupRun, ...]]:
    """Ended Jobs that have something to tell, and failed ones that a later failed one of the same tenant followed."""
    ended = sorted((run for run in runs if not run.running), key=lambda run: (run.ended_at, run.attempt, run.name))
    last = {run.owner_uid: run for run in ended if run.failure}
    telling = tuple(run for run in ended if run.complete or last[run.owner_uid] is run)
    return telling, tuple(run for run in ended if run not in telling)


def finished_with(run: BackupRun, record: BackupRecord | None) -> bool:
    """Whether an ended Job tells nothing any more: what it did is in the store, or a newer one made up for it."""
    if run.running or record is None or record.last is None:
        return False
    if run.kind == "backup":
        return record.last.id >= run.backup
    return record.last.id > run.backup or (record.proof is not None and record.proof.id >= run.backup)
