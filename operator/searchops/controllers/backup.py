"""Backups of every tenant, one Job a cell at a time: what is due is started, what ended is read from the store.

It writes no status. What it learns is kept for the tenants' own passes, which say it; a tenant whose backups changed
is looked at at once. Nothing it remembers is needed after a restart: Jobs and the store tell it again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from searchops.api.backup import BackupIndex, BackupRecord, index_uri, record_of, tenant_prefix
from searchops.api.meta import API_VERSION, parse_time
from searchops.api.observed import CellIdentity
from searchops.api.tasks import ANSWER, BackupResult
from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
from searchops.planning.backup import Candidate, finished_with, newest_runs, next_on_cell, wait_after
from searchops.planning.backup_jobs import backup_order, job_annotations, prove_order
from searchops.planning.backup_report import record_from_status
from searchops.planning.jobs import check_template, job_manifest
from searchops.planning.names import CELL_ANNOTATION, alias_name, generation_of
from searchops.ports import Jobs, TokenSigner
from searchops.runtime.errors import ReconcileError
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from searchops.api.backup import BackupRun
    from searchops.api.observed import CellRegistration
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.backup import BackupSettings, Due
    from searchops.ports import Artifacts, CellDirectory, CellReader, EventRecorder, ObjectReader
    from searchops.runtime.cache import ObjectCache

logger = logging.getLogger(__name__)

KEEP = 7
"""What the schema defaults `spec.backup.keep` to."""
READS_A_ROUND = 50
"""Indexes of one cell that a round reads at most: after a lost status the next rounds go on."""


class BackupJobs(Jobs, Protocol):
    """Worker Jobs, and a list of those that back up or prove."""

    async def runs(self) -> tuple[BackupRun, ...]:
        """Every backup's and proof's Job that is there, ended or not."""
        ...


class RecoverySigner(TokenSigner, Protocol):
    """Signs also what a restore needs."""

    def sign_manage(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        """A token that may manage the whole cell; its claims say so and until when."""
        ...


class BackupMetrics(Protocol):
    """What is counted."""

    def backup(self, kind: str, outcome: str) -> None:
        """A Job has ended."""
        ...

    def backups(self, cell: str, *, asking: int, without: int, oldest: float) -> None:
        """A cell's tenants that ask for backups, those without any, and the age of the oldest newest one, seconds."""
        ...


class BackupBook:
    """What is known of each tenant's backups, for the tenants' passes."""

    def __init__(self) -> None:
        self._records: dict[Key, tuple[str, BackupRecord]] = {}

    def of(self, key: Key, uid: str) -> BackupRecord | None:
        """The tenant's record; None where the store has not been read for this very object."""
        found = self._records.get(key)
        return found[1] if found is not None and found[0] == uid else None

    def put(self, key: Key, uid: str, record: BackupRecord) -> bool:
        """Keep a record; whether it is another than before."""
        changed = self._records.get(key) != (uid, record)
        self._records[key] = (uid, record)
        return changed

    def keep_only(self, keys: set[Key]) -> None:
        """Forget tenants that are gone."""
        for key in self._records.keys() - keys:
            del self._records[key]


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """Everything the keeper talks to."""

    cells: CellReader
    directory: CellDirectory
    objects: ObjectReader
    jobs: BackupJobs
    artifacts: Artifacts
    signer: RecoverySigner
    events: EventRecorder
    metrics: BackupMetrics


@dataclass(frozen=True, slots=True)
class Asking:
    """A tenant that wants backups, and the cell it lives on."""

    cell: str
    candidate: Candidate


class BackupKeeper:
    """One round over every cell; it is run again and again by the leader alone.

    Args:
        look_at: told of each tenant whose record changed.
    """

    def __init__(
        self,
        ports: BackupPorts,
        settings: BackupSettings,
        book: BackupBook,
        *,
        tenants: ObjectCache[SearchTenant],
        look_at: Callable[[Key], object],
        clock: Callable[[], datetime],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._book = book
        self._tenants = tenants
        self._look_at = look_at
        self._clock = clock

    async def run_once(self) -> int:
        """Read what ended, start what is due; what fails is said and tried next time. Returns how many were started."""
        try:
            runs = list(await self._ports.jobs.runs())
        except ReconcileError as error:
            logger.warning("backup Jobs could not be listed; tried again", extra={"error": error.message})
            return 0
        asking = self._asking()
        self._book.keep_only(set(asking))
        telling, followed = newest_runs(runs)
        for run in followed:
            await self._guarded(self._drop(run), "deleting an old backup Job", run.name)
        for run in telling:
            if await self._guarded(self._settle(run, asking), "reading how a backup ended", run.name):
                runs.remove(run)
        started = 0
        asking = self._asking()
        for name, cell in sorted(self._ports.directory.cells().items()):
            here = {key: one for key, one in asking.items() if one.cell == name}
            if here:
                started += await self._guarded(self._cell(cell, here, runs), "backing up on a cell", name)
                self._measure(name, here)
                await asyncio.sleep(0)
        return started

    async def _guarded(self, work: Awaitable[bool], what: str, name: str) -> bool:
        """One thing that fails holds back no other."""
        try:
            return await work
        except ReconcileError as error:
            logger.warning("%s failed; tried again", what, extra={"of": name, "error": error.message})
            return False

    async def _drop(self, run: BackupRun) -> bool:
        await self._ports.jobs.delete(run.name)
        return True

    def _asking(self) -> dict[Key, Asking]:
        """Tenants with `spec.backup`, published and not about to go. Nothing is parsed: a fleet has thousands."""
        found: dict[Key, Asking] = {}
        now = self._clock()
        for cached in self._tenants:
            metadata, spec, status = cached.raw["metadata"], cached.raw.get("spec", {}), cached.status
            backup = spec.get("backup")
            if not backup or metadata.get("deletionTimestamp") or not status.get("collection"):
                continue
            if spec.get("isolation", "Collection") != "Collection":
                continue
            known = self._book.of(cached.key, cached.uid)
            candidate = Candidate(
                uid=cached.uid,
                namespace=cached.key.namespace,
                name=cached.key.name,
                schedule=str(backup.get("schedule", "")),
                keep=int(backup.get("keep", KEEP)),
                created_at=_time(metadata.get("creationTimestamp", ""), now),
                record=known if known is not None else _remembered(status, cached.uid),
            )
            cell = (metadata.get("annotations") or {}).get(CELL_ANNOTATION, "")
            found[cached.key] = Asking(cell, candidate)
        return found

    # -- what ended --------------------------------------------------------------------------------------------

    async def _settle(self, run: BackupRun, asking: Mapping[Key, Asking]) -> bool:
        """Take in what a Job came to; True where its Job is not needed any more and is deleted."""
        key = Key(run.namespace, run.tenant)
        one = asking.get(key)
        if one is None or one.candidate.uid != run.owner_uid:
            # Its tenant is gone, or asks for none any more; a failed one stays for people until its own time is over.
            return await self._drop(run) if run.complete else False
        uid = one.candidate.uid
        before = self._book.of(key, uid)
        if before is not None and run.failure and f"Job {run.name}," in before.failure:
            return False
        if run.complete or before is None:
            record = await self._read(key)
        else:
            record = replace(before, failure="")
        if run.failure and not finished_with(run, record):
            record = replace(record, failure=await self._why(run))
        if self._book.put(key, uid, record):
            self._tell(run, key, uid, record)
            self._look_at(key)
        return await self._drop(run) if run.complete or finished_with(run, record) else False

    async def _read(self, key: Key) -> BackupRecord:
        """The tenant's index in the store: the record of what is there."""
        settings = self._settings
        prefix = tenant_prefix(settings.artifacts, settings.fleet, key.namespace, key.name)
        data = await self._ports.artifacts.read(index_uri(prefix))
        if data is None:
            return BackupRecord()
        try:
            index = BackupIndex.model_validate_json(data)
        except ValidationError as error:
            logger.warning(
                "a backup index cannot be read and is taken for none; the next backup writes it anew",
                extra={"tenant": str(key), "error": str(error.errors()[0]["msg"])},
            )
            return BackupRecord()
        ours = (index.fleet, index.namespace, index.name) == (settings.fleet, key.namespace, key.name)
        return record_of(index) if ours else BackupRecord()

    async def _why(self, run: BackupRun) -> str:
        """Why a Job failed, in its last Pod's words, and what comes next."""
        said = run.failure
        for text in await self._ports.jobs.answers(run.name):
            try:
                answer = ANSWER.validate_json(text)
            except ValidationError:
                continue
            if isinstance(answer, BackupResult) and answer.message:
                said = answer.message
                break
        wait = wait_after(run.attempt, self._settings).total_seconds() / 60
        what = "backup" if run.kind == "backup" else "the restore proof of"
        return (
            f"{what} {run.backup} failed in Job {run.name}, try {run.attempt}: {said}; tried again {wait:g} minutes "
            "after its end"
        )

    def _tell(self, run: BackupRun, key: Key, uid: str, record: BackupRecord) -> None:
        metrics, events = self._ports.metrics, self._ports.events
        reference = {
            "apiVersion": API_VERSION,
            "kind": "SearchTenant",
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
        }
        if run.failure:
            metrics.backup(run.kind, "failed")
            events.record(reference, "BackupFailed", record.failure or run.failure, warning=True)
        elif run.kind == "prove" and record.proof is not None:
            metrics.backup(run.kind, "ok" if record.proof.ok else "lost")
            if not record.proof.ok:
                events.record(reference, "RestoreFailed", record.proof.message, warning=True)
        elif record.last is not None:
            metrics.backup(run.kind, "ok")
            events.record(reference, "BackedUp", f"{record.last.id}: {record.last.points} points")

    # -- what is due -------------------------------------------------------------------------------------------

    async def _cell(self, cell: CellRegistration, here: Mapping[Key, Asking], runs: Sequence[BackupRun]) -> bool:
        now, settings = self._clock(), self._settings
        candidates = {key: one.candidate for key, one in here.items()}
        for _ in range(READS_A_ROUND):
            due = next_on_cell(candidates.values(), runs, cell.name, settings, now)
            if due is None:
                return False
            key = Key(due.candidate.namespace, due.candidate.name)
            if self._book.of(key, due.candidate.uid) is not None:
                return await self._start(cell, due, now)
            # A status can be old or lost: the store is asked before anything is made.
            record = await self._read(key)
            if self._book.put(key, due.candidate.uid, record):
                self._look_at(key)
            candidates[key] = replace(due.candidate, record=record)
        return False

    async def _start(self, cell: CellRegistration, due: Due, now: datetime) -> bool:
        """Start the Job, on a cell that is ours and whose alias leads to a generation of the tenant."""
        settings, ports = self._settings, self._ports
        state = await ports.cells.survey(cell)
        alias = alias_name(settings.fleet, due.candidate.namespace, due.candidate.name)
        collection = state.aliases.get(alias, "")
        identity = CellIdentity(settings.fleet, cell.name, await ports.objects.cluster_uid())
        if not state.reachable or state.identity != identity or not cell.key_is_strong:
            return False
        if generation_of(alias, collection) is None:
            return False
        template = ports.jobs.pod_template(settings.pod_template)
        problem = check_template(settings.pod_template, template, due.kind, "SEARCHOPS_BACKUP_POD_TEMPLATE")
        if problem is not None or template is None:
            self._blocked(due, problem.message if problem is not None else "the PodTemplate is gone")
            return False
        if due.kind == "backup":
            order = backup_order(due, cell, collection, settings, now)
            token = ports.signer.sign(cell, order.secret_claims or {})
        else:
            order = prove_order(due, cell, settings, now)
            token = ports.signer.sign_manage(cell, order.secret_claims or {})
        manifest = job_manifest(order, template)
        manifest["metadata"]["annotations"].update(job_annotations(due, cell.name))
        await ports.jobs.create(manifest, {"token": token})
        return True

    def _blocked(self, due: Due, why: str) -> None:
        """No Job can be made; the tenant says why."""
        key = Key(due.candidate.namespace, due.candidate.name)
        known = self._book.of(key, due.candidate.uid) or BackupRecord()
        if self._book.put(key, due.candidate.uid, replace(known, failure=why)):
            self._look_at(key)

    def _measure(self, cell: str, here: Mapping[Key, Asking]) -> None:
        now = self._clock()
        records = [self._book.of(key, one.candidate.uid) or one.candidate.record for key, one in here.items()]
        taken = [_time(each.last.taken_at, now) for each in records if each is not None and each.last is not None]
        oldest = max(((now - each).total_seconds() for each in taken), default=0.0)
        self._ports.metrics.backups(cell, asking=len(here), without=len(here) - len(taken), oldest=oldest)


def _remembered(status: Mapping[str, Any], uid: str) -> BackupRecord | None:
    """What a cached status says of backups; None where it says nothing that can be read."""
    told = {key: status[key] for key in ("cell", "lastBackup", "lastProof") if key in status}
    if "lastBackup" not in told:
        return None
    try:
        return record_from_status(SearchTenantStatus.model_validate(told), uid)
    except ValidationError:
        return None


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        return otherwise
