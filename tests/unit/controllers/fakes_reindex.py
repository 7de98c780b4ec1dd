"""A world for the reindex controller: a cell with two sides, Jobs with their Secrets, slices, tenants."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.observed import (
    CellRegistration,
    CellState,
    CollectionState,
    JobState,
    PoolRegistration,
    RecallSample,
)
from searchops.api.retrieval import BUILTIN_PROFILES, Binding
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.controllers.reindex import ReindexController, ReindexPorts, ReindexSettings
from searchops.planning.names import FINALIZER, KEY_BINDING, KEY_FLEET, KEY_PENDING, KEY_UID
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Conflict, ReconcileError, Terminal, Transient
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.key import Key
from searchops.runtime.status import StatusWriter
from unit.controllers.fakes_model import raw_model
from unit.controllers.fakes_numbered_faults import FakeApi, Faults
from unit.controllers.fakes_rooms import FakeRooms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.shared import SliceAddress
    from searchops.runtime.result import Result

REVISION = "shop-r2-bbbbbbbb"
ALIAS = "prod.shops.acme"
CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), 6334, 1000, api_key="k" * 40)
TEMPLATE = {
    "metadata": {"labels": {"searchops.dev/worker-for": "reindex"}},
    "template": {"spec": {"containers": [{"name": "worker"}]}},
}
UNTOUCHED = {"claims": [], "jobs": {}, "secrets": {}, "prepared": ["Preparing"]}
"""What `refused` returns while nothing is signed or started."""
OLD = Binding(profile=BUILTIN_PROFILES["default"], side=f"{ALIAS}@b", since="2026-11-24T12:00:00Z")
NEW = OLD.model_copy(
    update={"model": "shop", "revision": REVISION, "encoder": REVISION, "vector": "d-new", "side": f"{ALIAS}@a"}
)


def raw_job(name: str = "acme-1", tenant: str = "acme", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shops", "uid": f"uid-{name}", "generation": 1, **spec.pop("metadata", {})}
    fields = {"tenant": tenant, "revision": REVISION, "slices": 2, "worker": {"podTemplate": "worker"}, **spec}
    return {"metadata": metadata, "spec": fields}


def raw_tenant(name: str = "acme", named: str | None = "acme-1", bound: str | None = None) -> dict[str, Any]:
    binding = {"analyser": "a", "profile": "default", "since": "2026-11-24T12:00:00Z"}
    status: dict[str, Any] = {"cell": "eu-1", "binding": binding | ({"revision": bound} if bound else {})}
    if named is not None:
        started = "2026-11-24T12:00:00Z"
        status["rebuild"] = {"reindexJob": named, "reason": "SpaceChanged", "attempt": 1, "startedAt": started}
    return {
        "metadata": {"name": name, "namespace": "shops", "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {
            "model": {"name": "shop"},
            "fields": [{"name": "title", "type": "text", "role": "Title"}],
            "languages": ["en"],
        },
        "status": status,
    }


class ReindexWorld:
    """Everything outside the controller. Workers fill the target between two passes."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
        self.rooms = FakeRooms()
        self.documents = 100
        self.filled = 0
        self.owner = {KEY_FLEET: "prod", KEY_UID: "uid-acme"}
        self.metadata = {**self.owner, KEY_BINDING: OLD.to_metadata(), KEY_PENDING: NEW.to_metadata()}
        self.reachable = True
        self.colour = "green"
        self.hits = 500
        self.slices: dict[str, SliceAddress] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.created: Counter[str] = Counter()
        self.deleted: list[str] = []
        self.claims: list[dict[str, Any]] = []
        self.store: dict[str, bytes] = {}
        self.events: list[str] = []
        self.version = 1
        self.reindexes: ObjectCache[ReindexJob] = ObjectCache("reindexjobs", ReindexJob.model_validate)
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.models: ObjectCache[EmbeddingModel] = ObjectCache("embeddingmodels", EmbeddingModel.model_validate)
        self.limit = 8
        self.models.apply("ADDED", raw_model())
        self.api = FakeApi(self.faults, self.reindexes)
        self.controller = self.restart()

    def restart(self) -> ReindexController:
        """A new process: nothing in memory survives."""
        self.controller = ReindexController(
            ReindexPorts(
                cells=self,
                recall=self,
                directory=self,
                jobs=self,
                artifacts=self,
                signer=self,
                reindex_jobs=_Jobs(self),
                rooms=self.rooms,
                events=self,
            ),
            ReindexSettings(
                "prod", "s3://artifacts", self.limit, lambda uri, namespace: uri.startswith(f"s3://c/{namespace}/")
            ),
            reindexes=self.reindexes,
            tenants=self.tenants,
            models=self.models,
            status=StatusWriter(self.api, self.reindexes),
            finalizer=Finalizer(FINALIZER, self.api, self.reindexes),
            clock=lambda: self.now,
        )
        return self.controller

    def put_tenant(self, **fields: Any) -> None:
        self.version += 1
        raw = raw_tenant(**fields)
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.tenants.apply("MODIFIED", raw)

    async def once(self, name: str = "acme-1") -> Result | ReconcileError:
        """One pass; a failure is what the next pass starts after, in a new process."""
        self.api.deliver()
        self.now += timedelta(seconds=1)
        try:
            return await self.controller.reconcile(Key("shops", name))
        except Terminal as error:
            await self.controller.on_terminal(Key("shops", name), error)
            return error
        except (Transient, Conflict) as error:
            self.restart()
            return error

    async def settle(self, passes: int = 40) -> None:
        """Passes and workers until nothing changes any more."""
        for _ in range(passes):
            before = self._picture()
            outcome = await self.once()
            self.work()
            if self._picture() == before and not isinstance(outcome, Transient | Conflict):
                return
        raise AssertionError(f"not settled after {passes} passes: {self.api.objects}")

    async def refused(self) -> dict[str, Any]:
        """A few passes over a job of the tenant; returns all that was signed, started and kept for its alias."""
        self.put_tenant()
        self.api.put(raw_job())
        for _ in range(4):
            await self.once()
        prepared = [one["reason"] for one in self.status()["conditions"] if one["type"] == "Prepared"]
        return {"claims": self.claims, "jobs": self.jobs, "secrets": self.secrets, "prepared": prepared}

    def _picture(self) -> str:
        jobs = {name: made["done"] for name, made in self.jobs.items()}
        return json.dumps([self.api.objects, jobs, self.secrets, self.filled], sort_keys=True)

    def status(self, name: str = "acme-1") -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[name].get("status", {})
        return found

    def work(self) -> None:
        """A worker's Pod starts only once its Secret is there."""
        for name, made in self.jobs.items():
            if made["done"] or name not in self.secrets:
                continue
            for index in range(2):
                answer = {"kind": "reindex", "slice": index, "documents": 50, "embedded": 50}
                answer |= {"sampled": 24, "sampleMinCosine": 1.0, "seconds": 2.0}
                self.store[f"{made['task']['resultUri']}/slice-{index}.json"] = json.dumps(answer).encode()
            self.filled = self.documents
            made["done"] = True

    # -- ports -------------------------------------------------------------------------------------------------

    def cells(self) -> Mapping[str, CellRegistration]:
        return {"eu-1": CELL}

    def pools(self) -> Mapping[str, PoolRegistration]:
        return {"default": PoolRegistration("default", ("t",), ("t:8001",), "/repo", "cpu")}

    async def survey(self, cell: CellRegistration) -> CellState:
        aliases = {ALIAS: f"{ALIAS}@g1", f"{ALIAS}@b": f"{ALIAS}@g1", f"{ALIAS}@a": f"{ALIAS}@g2"}
        return self.faults.call("cell.survey", lambda: CellState(cell, self.reachable, aliases=aliases))

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        metadata = self.metadata if collection.endswith("@g1") else self.owner
        dense = {"d-new": 384} if collection.endswith("@g2") else {}
        state = CollectionState(collection, 0, dense, frozenset(), {}, 1, 1, None, metadata, status=self.colour)
        state = replace(state, slice=self.slices.get(collection))
        return self.faults.call("cell.describe", lambda: state)

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        if lacking is not None:
            return self.faults.call("cell.count", lambda: 0)
        return self.faults.call("cell.count", lambda: self.documents if collection.endswith("@g1") else self.filled)

    async def recall(self, cell: CellRegistration, collection: str, vector: str) -> RecallSample:
        assert (collection, vector) == (f"{ALIAS}@g2", "d-new")
        return self.faults.call("cell.recall", lambda: RecallSample(50, 10, 500, self.hits))

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> Any:
        raise AssertionError("a ReindexJob does not search")

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        self.claims.append(dict(claims))
        return "signed"

    async def get(self, name: str) -> JobState | None:
        def look() -> JobState | None:
            made = self.jobs.get(name)
            if made is None:
                return None
            return JobState(name, "uid", complete=made["done"], **made.get("ended", {}))

        return self.faults.call("jobs.get", look)

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        name = manifest["metadata"]["name"]
        environment = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        task = json.loads(environment[0]["value"])

        def make() -> None:
            if name not in self.jobs:
                self.created[name] += 1
                self.jobs[name] = {"task": task, "done": False}

        self.faults.call("jobs.create", make)
        assert secret is not None
        self.faults.call("secrets.create", lambda: self.secrets.setdefault(name, dict(secret)))

    async def renew_secret(self, name: str, uid: str, secret: Mapping[str, str]) -> None:
        assert uid == "uid"
        self.faults.call("secrets.renew", lambda: self.secrets.update({name: dict(secret)}))

    async def delete(self, name: str) -> None:
        def act() -> None:
            self.jobs.pop(name, None)
            self.secrets.pop(name, None)
            self.deleted.append(name)

        self.faults.call("jobs.delete", act)

    async def answers(self, name: str) -> tuple[str, ...]:
        return self.faults.call("jobs.answers", tuple)

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        return TEMPLATE if name == "worker" else None

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        return self.faults.call("artifacts.read", lambda: self.store.get(uri))

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(reason)


class _Jobs:
    """ReindexJobs of the API server."""

    def __init__(self, world: ReindexWorld) -> None:
        self._world = world

    async def create(self, namespace: str, body: Mapping[str, Any]) -> None:
        raise AssertionError("a ReindexJob makes no other")

    async def delete(self, namespace: str, name: str, *, known_uid: str) -> None:
        def act() -> None:
            raw = self._world.api.objects.get(name)
            if raw is not None and raw["metadata"]["uid"] == known_uid:
                self._world.api.put(
                    {**raw, "metadata": {**raw["metadata"], "deletionTimestamp": "2026-12-01T00:00:00Z"}}
                )

        self._world.faults.call("reindexjobs.delete", act)
