"""The last snapshot of a deleted tenant: one Job, and nothing but a whole manifest of this very collection counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.backup import BackupManifest, SnapshotPart
from searchops.api.observed import CellRegistration, CollectionState, JobState
from searchops.api.tasks import TASK, TASK_VARIABLE, BackupTask
from searchops.controllers.last_snapshots import LastSnapshotJobs
from searchops.planning import names
from searchops.planning.backup import BackupSettings
from searchops.runtime.errors import NotReady, ReconcileError, Transient
from unit.controllers.fakes_faults import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NAME, ID = "prod.shop.acme@g2", "20261124T120000Z-g2"
MANIFEST = f"s3://b/x/backups/prod/shop/acme/{ID}/manifest.json"
CELL = CellRegistration("eu-1", {}, ("http://a:6333", "http://b:6333"), None, 100, api_key="k" * 40)
SETTINGS = BackupSettings(fleet="prod", artifacts="s3://b/x", pod_template="cpu")
TEMPLATE = {
    "metadata": {"labels": {names.WORKER_FOR_LABEL: "reindex_backup_prove"}},
    "template": {"spec": {"containers": [{"name": "worker"}]}},
}
COLLECTION = CollectionState(
    NAME,
    4,
    {},
    frozenset(),
    {},
    1,
    1,
    None,
    {
        names.KEY_FLEET: "prod",
        names.KEY_UID: "uid-1",
        names.KEY_NAMESPACE: "shop",
        names.KEY_NAME: "acme",
        names.KEY_GENERATION: "../of/another/hand",
        names.KEY_DELETED_AT: "2026-11-24T12:00:00Z",
    },
)


def manifest(**changes: Any) -> BackupManifest:
    part = SnapshotPart(file="node-0.snapshot", peer="0", snapshot="s", size=9, checksum="0" * 64, shards=(0,))
    whole: dict[str, Any] = {
        "reason": "Deletion",
        "id": ID,
        "fleet": "prod",
        "namespace": "shop",
        "name": "acme",
        "uid": "uid-1",
        "cell": "eu-1",
        "taken_at": "2026-11-28T11:00:00Z",
        "finished_at": "2026-11-28T11:01:00Z",
        "alias": "prod.shop.acme",
        "side": "prod.shop.acme@a",
        "collection": NAME,
        "generation": 2,
        "points": 4,
        "points_after": 4,
        "shards": (0,),
        "parts": (part,),
    }
    return BackupManifest(**{**whole, **changes})


class Outside:
    """Jobs, the store and the signer."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.jobs: dict[str, JobState] = {}
        self.made: list[Mapping[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.template: Mapping[str, Any] | None = TEMPLATE
        self.said: tuple[str, ...] = ()

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        assert name == "cpu"
        return self.template

    async def get(self, name: str) -> JobState | None:
        return self.faults.through("get Job", lambda: self.jobs.get(name))

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        def act() -> None:
            assert secret is not None
            name = manifest["metadata"]["name"]
            if name not in self.jobs:
                self.made.append(manifest)
                self.jobs[name] = JobState(name, f"uid-{len(self.made)}", active=1)

        self.faults.through("create Job", act)

    async def delete(self, name: str) -> None:
        self.faults.through("delete Job", lambda: self.jobs.pop(name, None))

    async def answers(self, name: str) -> tuple[str, ...]:
        return self.faults.through("answers", lambda: self.said)

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        return self.faults.through("read manifest", lambda: self.objects.get(uri))

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        assert claims["access"] == [{"collection": NAME, "access": "rw"}]
        return "token"

    def snapshots(self) -> LastSnapshotJobs:
        outside: Any = self
        return LastSnapshotJobs(outside, outside, outside, SETTINGS, clock=lambda: NOW)

    async def round(self) -> bool:
        """As the sweep asks: an error is for the next time."""
        try:
            return await self.snapshots().stored(CELL, COLLECTION)
        except ReconcileError:
            return False

    def work(self) -> None:
        """Every Job that runs ends well."""
        for name, state in self.jobs.items():
            if not state.failure and not state.complete:
                self.jobs[name] = replace(state, complete=True)
                self.objects[MANIFEST] = manifest().model_dump_json(by_alias=True).encode()


async def test_a_job_is_made_once_and_its_manifest_is_waited_for() -> None:
    outside = Outside()
    for _ in range(3):
        assert await outside.snapshots().stored(CELL, COLLECTION) is False
    (job,) = outside.made
    (container,) = job["spec"]["template"]["spec"]["containers"]
    text = next(item["value"] for item in container["env"] if item["name"] == TASK_VARIABLE)
    task = TASK.validate_json(text)
    assert isinstance(task, BackupTask)
    assert (task.id, task.reason, task.collection, task.uid, task.keep) == (ID, "Deletion", NAME, "uid-1", 365)
    assert task.prefix == "s3://b/x/backups/prod/shop/acme"
    outside.work()
    assert await outside.snapshots().stored(CELL, COLLECTION) is True
    assert len(outside.made) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(6))
async def test_one_failure_anywhere_ends_with_one_snapshot(at: int, when: Any) -> None:
    outside = Outside(Faults(at, when))
    for _ in range(5):
        done = await outside.round()
        outside.work()
    assert (done, len(outside.made)) == (True, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "Removing"},
        {"reason": "Scheduled"},
        {"uid": "uid-2"},
        {"collection": "prod.shop.acme@g1"},
        {"name": "other"},
        {"fleet": "dev"},
        {"taken_at": "2026-11-24T11:59:59Z"},
        {"points_after": 5},
        {"shards": (0, 1)},
        {"parts": ()},
    ],
)
async def test_a_manifest_of_anything_else_is_no_proof(changes: dict[str, Any]) -> None:
    outside = Outside()
    outside.objects[MANIFEST] = manifest(**changes).model_dump_json(by_alias=True).encode()
    assert await outside.snapshots().stored(CELL, COLLECTION) is False


async def test_a_failed_job_is_told_in_its_words_and_made_again() -> None:
    outside = Outside()
    await outside.round()
    (name,) = outside.jobs
    outside.jobs[name] = replace(outside.jobs[name], failure="BackoffLimitExceeded")
    outside.said = ("no JSON", '{"kind":"backup","id":"x","ok":false,"message":"no space left"}')
    with pytest.raises(Transient, match=r"no space left; Job .* is made again"):
        await outside.snapshots().stored(CELL, COLLECTION)
    await outside.round()
    assert len(outside.made) == 2


async def test_a_job_that_ended_without_a_manifest_is_no_success() -> None:
    outside = Outside()
    await outside.round()
    (name,) = outside.jobs
    outside.jobs[name] = replace(outside.jobs[name], complete=True)
    with pytest.raises(Transient, match="there is no whole snapshot of"):
        await outside.snapshots().stored(CELL, COLLECTION)
    outside.objects[MANIFEST] = b"{"
    with pytest.raises(Transient, match="cannot be read"):
        await outside.snapshots().stored(CELL, COLLECTION)


@pytest.mark.parametrize("template", [None, {**TEMPLATE, "metadata": {"labels": {}}}])
async def test_without_a_template_for_it_nothing_is_made_and_that_is_said(template: Any) -> None:
    outside = Outside()
    outside.template = template
    with pytest.raises(NotReady, match="SEARCHOPS_BACKUP_POD_TEMPLATE"):
        await outside.snapshots().stored(CELL, COLLECTION)
    assert outside.made == []
