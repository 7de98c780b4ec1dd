"""A keeper of backups with everything around it in memory: Jobs that are worked, a store, two cells, a clock."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.backup import BackupEntry, BackupIndex, BackupProof, BackupRun, index_uri
from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity, CellRegistration, CellState
from searchops.api.tasks import TASK, TASK_VARIABLE, BackupResult, BackupTask, ProveTask
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.backup import BackupBook, BackupKeeper, BackupPorts
from searchops.planning.backup import BackupSettings
from searchops.runtime.cache import ObjectCache
from unit.controllers.fakes_api_server import FakeEvents
from unit.controllers.fakes_faults import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.runtime.key import Key

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TEMPLATE = {
    "metadata": {"labels": {"searchops.dev/worker-for": "backup_prove"}},
    "template": {"spec": {"containers": [{"name": "worker"}]}},
}


@dataclass
class FakeJob:
    """A Job with what it was given."""

    run: BackupRun
    task: BackupTask | ProveTask
    secret: dict[str, str]
    message: str = ""


class BackupWorld:
    """Tenants of the fleet `prod` on the cells `eu-1` and `us-1`.

    Attributes:
        started: name of every Job that was ever made.
        new_process: whether every round is a new process's first.
        first_fails: tenants of which the first Job for each moment fails.
        together: the most Jobs that ran at once on one cell.
    """

    def __init__(self, *, at: int | None = None, when: Any = "before") -> None:
        self.now = START
        self.faults = Faults(at, when)
        self.events = FakeEvents()
        self.jobs: dict[str, FakeJob] = {}
        self.started: list[str] = []
        self.first_fails: set[str] = set()
        self.new_process = False
        self.together = 0
        self.store: dict[str, bytes] = {}
        self.template: dict[str, Any] | None = TEMPLATE
        self.identities = {name: CellIdentity("prod", name, "cluster-1") for name in ("eu-1", "us-1")}
        self.silent: set[str] = set()
        self.counted: list[tuple[str, str]] = []
        self.measured: dict[str, tuple[int, int, float]] = {}
        self.looked_at: list[Key] = []
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.rules = BackupSettings("prod", "s3://ops", "cpu", spread=timedelta(0))
        self.start()

    def start(self) -> None:
        """A keeper as a new process has it: nothing remembered."""
        self.book = BackupBook()
        ports: Any = self
        self.keeper = BackupKeeper(
            BackupPorts(ports, ports, ports, ports, ports, ports, self.events, ports),
            self.rules,
            self.book,
            tenants=self.tenants,
            look_at=self.looked_at.append,
            clock=lambda: self.now,
        )

    def apply(self, name: str, cell: str = "eu-1", *, status: dict[str, Any] | None = None, **spec: Any) -> None:
        told = {"collection": f"prod.shop.{name}@g1", "cell": cell, **(status or {})}
        self.tenants.apply(
            "MODIFIED",
            {
                "metadata": {
                    "name": name,
                    "namespace": "shop",
                    "uid": f"uid-{name}",
                    "resourceVersion": str(len(self.faults.calls) + 1),
                    "creationTimestamp": "2026-11-01T00:00:00Z",
                    "annotations": {"searchops.dev/cell": cell},
                },
                "spec": {"backup": {"schedule": "0 3 * * *"}, **spec},
                "status": told,
            },
        )

    # -- ports -------------------------------------------------------------------------------------------------

    def cells(self) -> Mapping[str, CellRegistration]:
        return {
            name: CellRegistration(name, {}, (f"https://{name}:6333",), 6334, 100, api_key="k" * 40)
            for name in self.identities
        }

    async def survey(self, cell: CellRegistration) -> CellState:
        if cell.name in self.silent:
            return CellState(cell, reachable=False, error="refused")
        aliases = {f"prod.shop.{item.key.name}": f"prod.shop.{item.key.name}@g1" for item in self.tenants}
        state = CellState(cell, True, "", self.identities[cell.name], frozenset(), aliases)
        return self.faults.through("survey", lambda: state)

    async def cluster_uid(self) -> str:
        return self.faults.through("cluster uid", lambda: "cluster-1")

    async def runs(self) -> tuple[BackupRun, ...]:
        return self.faults.through("list", lambda: tuple(job.run for job in self.jobs.values()))

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        def act() -> None:
            metadata = manifest["metadata"]
            if metadata["name"] in self.jobs:
                return
            notes, labels = metadata["annotations"], metadata["labels"]
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            text = next(item["value"] for item in container["env"] if item["name"] == TASK_VARIABLE)
            task = TASK.validate_json(text)
            assert isinstance(task, BackupTask | ProveTask)
            run = BackupRun(
                metadata["name"],
                task.kind,
                labels["searchops.dev/owner-uid"],
                notes["searchops.dev/owner-namespace"],
                notes["searchops.dev/owner-name"],
                notes["searchops.dev/cell"],
                notes["searchops.dev/backup"],
                int(notes["searchops.dev/attempt"]),
            )
            self.jobs[run.name] = FakeJob(run, task, dict(secret or {}))
            self.started.append(run.name)
            running = [job.run.cell for job in self.jobs.values() if job.run.running]
            self.together = max([self.together, *(running.count(cell) for cell in running)])

        self.faults.through("create Job", act)

    async def delete(self, name: str) -> None:
        self.faults.through("delete Job", lambda: self.jobs.pop(name, None))

    async def answers(self, name: str) -> tuple[str, ...]:
        message = self.jobs[name].message
        return self.faults.through("answers", lambda: (message,) if message else ())

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        return self.template

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        return self.faults.through("read store", lambda: self.store.get(uri))

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        assert isinstance(claims["access"], list)
        return json.dumps(claims)

    def sign_manage(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        assert claims["access"] == "m"
        return json.dumps(claims)

    def backup(self, kind: str, outcome: str) -> None:
        self.counted.append((kind, outcome))

    def backups(self, cell: str, *, asking: int, without: int, oldest: float) -> None:
        self.measured[cell] = (asking, without, oldest)

    # -- the worker --------------------------------------------------------------------------------------------

    def work(self, *, fails: str = "", loses: bool = False) -> None:
        """Every Job that runs ends, as its worker would leave the store."""
        for job in self.jobs.values():
            if not job.run.running:
                continue
            ended = format_time(self.now)
            why = fails or ("it broke" if job.run.attempt == 1 and job.run.tenant in self.first_fails else "")
            if why:
                answer = BackupResult(kind=job.task.kind, id=job.task.id, ok=False, exit_code=1, message=why)
                job.message = answer.model_dump_json(by_alias=True)
                job.run = replace(job.run, failure="BackoffLimitExceeded", ended_at=ended)
                continue
            uri = index_uri(job.task.prefix)
            known = self.store.get(uri)
            task = job.task
            index = (
                BackupIndex.model_validate_json(known)
                if known
                else BackupIndex(fleet=task.fleet, namespace=task.namespace, name=task.name)
            )
            entries = list(index.backups)
            if isinstance(task, BackupTask):
                entries.insert(
                    0, BackupEntry(id=task.id, taken_at=ended, cell=task.cell, uid=task.uid, points=5, size=50)
                )
            else:
                said = "4 points came back, wanted 5" if loses else ""
                proof = BackupProof(id=task.id, at=ended, cell=task.cell, points=5, ok=not loses, message=said)
                entries = [
                    entry.model_copy(update={"proof": proof}) if entry.id == task.id else entry for entry in entries
                ]
            index = index.model_copy(update={"backups": tuple(entries)})
            self.store[uri] = index.model_dump_json(by_alias=True).encode()
            job.run = replace(job.run, complete=True, ended_at=ended)

    async def rounds(self, number: int, *, every: timedelta = timedelta(seconds=30), **work: Any) -> None:
        for _ in range(number):
            if self.new_process:
                self.start()
            await self.keeper.run_once()
            self.work(**work)
            self.now += every
