"""A world for the model controller: servers, Jobs and their workers, artifacts, ConfigMaps, an API server."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.live_signals import Share
from searchops.api.meta import format_time
from searchops.api.observed import JobState, PoolRegistration, ServerState
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.controllers.model import ModelController, ModelPorts, ModelSettings
from searchops.planning.names import FINALIZER
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Conflict, ReconcileError, Terminal, Transient
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.key import Key
from searchops.runtime.status import StatusWriter
from unit.controllers.fakes_numbered_faults import FakeApi, Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.live_signals import Window
    from searchops.api.observed import CellRegistration
    from searchops.runtime.result import Result

KEY = Key("", "shop")
BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DIGESTS = {letter: f"sha256:{letter * 64}" for letter in "abcdef"}
VECTOR = [0.6, 0.8]
TEMPLATE = {
    "metadata": {"labels": {"searchops.dev/worker-for": "build_evaluate"}},
    "template": {"spec": {"containers": [{"name": "worker"}]}},
}


def raw_model(digest: str = "a", **spec: Any) -> dict[str, Any]:
    metadata = {"name": "shop", "uid": "uid-m", "generation": 1, **spec.pop("metadata", {})}
    holdout = {"name": "core", "uri": "s3://holdouts/core", "digest": DIGESTS["f"]}
    return {
        "metadata": metadata,
        "spec": {
            "source": {"uri": f"s3://models/{digest}", "digest": DIGESTS[digest]},
            "engine": {"worker": {"podTemplate": "worker"}},
            "serving": {"pool": "default", "canaryPool": "canary"},
            "gate": {"holdouts": [holdout], "worker": {"podTemplate": "worker"}},
            "rollout": {"waves": [{"name": "all", "percent": 100}]},
            **spec,
        },
    }


def raw_tenant(
    name: str = "acme",
    model: str = "shop",
    bound: str | None = None,
    since: str = "2026-11-24T12:00:00Z",
    **update: Any,
) -> dict[str, Any]:
    binding: dict[str, Any] = {"analyser": "a", "profile": "default", "since": since}
    if bound is not None:
        binding |= {"model": "shop", "revision": bound}
    return {
        "metadata": {
            "name": name,
            "namespace": "shops",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "annotations": {"searchops.dev/cell": "eu-1"},
        },
        "spec": {
            "model": {"name": model},
            "fields": [{"name": "title", "type": "text", "role": "Title"}],
            "languages": ["en"],
        },
        "status": {"binding": binding},
        **update,
    }


class ModelWorld:
    """Everything outside the controller. Workers answer between two passes, tenants follow their model."""

    def __init__(self, faults: Faults | None = None, outcomes: Mapping[str, str] | None = None) -> None:
        self.faults = faults or Faults()
        self.outcomes = dict(outcomes or {})
        self.now = BEGIN
        self.lease = 100.0
        self.pools_by_name = {
            name: PoolRegistration(name, (f"{name}-1",), (f"{name}-1:8001",), f"/repo/{name}", "cpu")
            for name in ("default", "canary")
        }
        self.loaded: dict[str, dict[str, str]] = {"default-1": {}, "canary-1": {}}
        self.vectors: dict[tuple[str, str], list[float]] = {}
        self.down: set[str] = set()
        self.triton = "2.51.0"
        self.refused: set[str] = set()
        self.refused_by: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.always: dict[tuple[str, str], list[float]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.dying: set[str] = set()
        self.pods_linger = False
        self.created: Counter[str] = Counter()
        self.store: dict[str, bytes] = {}
        self.maps: dict[str, dict[str, str]] = {}
        self.added_share = 0.8
        self.prometheus_silent = False
        self.events: list[str] = []
        self.trail: list[str] = []
        self.models: ObjectCache[EmbeddingModel] = ObjectCache("embeddingmodels", EmbeddingModel.model_validate)
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.reindexes: ObjectCache[ReindexJob] = ObjectCache("reindexjobs", ReindexJob.model_validate)
        self.tenants.add_index("model", lambda cached: (cached.raw["spec"]["model"]["name"],))
        self.api = FakeApi(self.faults, self.models)
        self.controller = self.restart()
        self.tenant_version = 1

    def restart(self) -> ModelController:
        """A new process: nothing in memory survives."""
        self.controller = ModelController(
            ModelPorts(
                servers=self, directory=self, jobs=self, artifacts=self, state=_Maps(self), events=self, signals=self
            ),
            ModelSettings("s3://artifacts", lambda uri: uri.startswith("s3://models/")),
            models=self.models,
            tenants=self.tenants,
            reindexes=self.reindexes,
            status=StatusWriter(self.api, self.models),
            finalizer=Finalizer(FINALIZER, self.api, self.models),
            clock=lambda: self.now,
            lease_left=lambda: self.lease,
        )
        return self.controller

    # -- driving -----------------------------------------------------------------------------------------------

    async def once(self) -> Result | ReconcileError:
        """One pass; a failure is what the next pass starts after, in a new process."""
        self.api.deliver()
        self.now += timedelta(seconds=1)
        try:
            return await self.controller.reconcile(KEY)
        except Terminal as error:
            await self.controller.on_terminal(KEY, error)
            return error
        except (Transient, Conflict) as error:
            self.restart()
            return error

    async def settle(self, passes: int = 80) -> int:
        """Passes, workers and tenants until nothing changes any more, back-off included; the number of passes."""
        quiet = 0
        for number in range(passes):
            before = self._picture()
            outcome = await self.once()
            self.work()
            self.follow()
            unchanged = self._picture() == before and not isinstance(outcome, Transient | Conflict)
            quiet = quiet + 1 if unchanged else 0
            waits = bool((self.status.get("servers") or {}).get("failing"))
            if quiet > (3 if waits else 0):
                return number
            if unchanged:
                self.now += timedelta(seconds=30)
        raise AssertionError(f"not settled after {passes} passes: {self.status.get('conditions')}")

    def _picture(self) -> str:
        jobs = {name: state["done"] for name, state in self.jobs.items()}
        return json.dumps([self.api.objects, self.loaded, jobs, self.maps], sort_keys=True)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects["shop"].get("status", {})
        return found

    def work_on(self, kind: str) -> None:
        """Workers of one kind answer."""
        for made in self.jobs.values():
            if made["task"]["kind"] == kind and "resultUri" in made["task"]:
                answer = self._built(made["task"]) if kind == "build" else self._judged(made["task"])
                self.store[made["task"]["resultUri"]] = json.dumps(answer).encode()

    def work(self) -> None:
        """Every worker that was started answers."""
        for name, made in self.jobs.items():
            if made["done"] or "complete" in self.ended.get(name, {}):
                continue
            task = made["task"]
            answer = self._built(task) if task["kind"] == "build" else self._judged(task)
            self.store[task["resultUri"]] = json.dumps(answer).encode()
            made["done"] = True

    def _built(self, task: Mapping[str, Any]) -> dict[str, Any]:
        revision = task["revision"]
        probes = f"s3://artifacts/probes/{revision}"
        self.store[probes] = json.dumps({"texts": ["one"], "vectors": [VECTOR]}).encode()
        return {
            "kind": "build",
            "revision": revision,
            "backend": "ONNXRuntime",
            "precision": "FP32",
            "engineKey": f"engine-{revision}",
            "manifestDigest": "m" * 8,
            "fingerprint": revision,
            "dimension": 2,
            "maxTokens": 128,
            "anchors": f"s3://artifacts/anchors/{revision}",
            "probes": probes,
        }

    def _judged(self, task: Mapping[str, Any]) -> dict[str, Any]:
        revision = task["candidate"]["revision"]
        outcome = self.outcomes.get(revision[-1], "Pass")
        return {"kind": "evaluate", "revision": revision, "outcome": outcome, "message": f"it is {outcome}"}

    def follow(self) -> None:
        """Tenants are bound to what the model publishes."""
        wave = self.status.get("wave")
        wanted = self.status.get("candidate" if wave else "active")
        for cached in self.tenants:
            bound = (cached.status.get("binding") or {}).get("revision")
            if wanted is not None and bound != wanted["revision"]:
                self.tenant_version += 1
                raw = raw_tenant(cached.key.name, bound=wanted["revision"], since=format_time(self.now))
                raw["metadata"]["resourceVersion"] = str(self.tenant_version)
                self.tenants.apply("MODIFIED", raw)

    # -- ports -------------------------------------------------------------------------------------------------

    def pools(self) -> Mapping[str, PoolRegistration]:
        return self.pools_by_name

    def cells(self) -> Mapping[str, CellRegistration]:
        return {}

    async def survey(self, pool: PoolRegistration) -> tuple[ServerState, ...]:
        def look() -> tuple[ServerState, ...]:
            return tuple(
                ServerState(
                    url,
                    f"{url}:8001",
                    url not in self.down,
                    "refused" if url in self.down else "",
                    {} if url in self.down else dict(self.loaded[url]),
                    version=self.triton,
                )
                for url in pool.urls
            )

        return self.faults.call("survey", look)

    async def load(self, server: ServerState, model: str) -> None:
        self.asked[server.url] += 1
        if model in self.refused or server.url in self.refused_by:
            raise Transient(f"{server.url} does not load {model}: out of memory")

        def act() -> None:
            self.trail.append(f"load {server.url} {model}")
            self.loaded[server.url][model] = "READY"

        self.faults.call("load", act)

    async def unload(self, server: ServerState, model: str) -> None:
        if server.url in self.refused_by:
            raise Transient(f"{server.url} does not unload {model}")

        def act() -> None:
            self.trail.append(f"unload {server.url} {model}")
            self.loaded[server.url].pop(model, None)
            self.vectors.pop((server.url, model), None)

        self.faults.call("unload", act)

    async def infer(self, server: ServerState, model: str, texts: Sequence[str]) -> list[list[float]]:
        return self.faults.call("infer", lambda: [self._vector(server.url, model) for _ in texts])

    async def get(self, name: str) -> JobState | None:
        def look() -> JobState | None:
            made = self.jobs.get(name)
            if made is None:
                return None
            return JobState(name, "uid", complete=made["done"], **self.ended.get(name, {}))

        return self.faults.call("jobs.get", look)

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        name = manifest["metadata"]["name"]
        environment = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        task = json.loads(environment[-1]["value"])

        def act() -> None:
            if name not in self.jobs:
                self.created[name] += 1
                owner = manifest["metadata"]["labels"]["searchops.dev/owner-uid"]
                self.jobs[name] = {"task": task, "done": False, "uid": f"uid-{name}", "owner": owner}
                self.trail.append(f"create {task['kind']}")

        self.faults.call("jobs.create", act)

    async def delete(self, name: str) -> None:
        self.faults.call("jobs.delete", lambda: self.jobs.pop(name, None))

    def _vector(self, url: str, model: str) -> list[float]:
        return self.always.get((url, model)) or self.vectors.get((url, model), VECTOR)

    async def owned(self, owner_uid: str) -> tuple[JobState, ...]:
        def look() -> tuple[JobState, ...]:
            return tuple(
                JobState(
                    name,
                    made["uid"],
                    owner_uid=owner_uid,
                    kind=made["task"]["kind"],
                    complete=made["done"],
                    **self.ended.get(name, {}),
                )
                for name, made in self.jobs.items()
                if made["owner"] == owner_uid
            )

        return self.faults.call("jobs.owned", look)

    async def stop(self, name: str, uid: str) -> None:
        def act() -> None:
            if name in self.jobs and self.jobs[name]["uid"] == uid:
                self.trail.append(f"stop {self.jobs[name]['task']['kind']}")
                self.dying.add(name) if self.pods_linger else self.jobs.pop(name)

        self.faults.call("jobs.stop", act)

    async def answers(self, name: str) -> tuple[str, ...]:
        return self.faults.call("jobs.answers", tuple)

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        return TEMPLATE if name == "worker" else None

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        return self.faults.call("artifacts.read", lambda: self.store.get(uri))

    async def shares(self, window: Window, tenants: Sequence[str]) -> dict[str, Share]:
        """Since the world began every tenant's share is higher by what was added."""
        if self.prometheus_silent:
            raise Transient("Prometheus is silent")
        part = 5 + (100 * self.added_share if window.start >= BEGIN else 0)
        return self.faults.call("signals.shares", lambda: {tenant: Share(100, part) for tenant in tenants})

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(reason)


class _Maps:
    """ConfigMaps."""

    def __init__(self, world: ModelWorld) -> None:
        self._world = world

    async def read(self, name: str) -> dict[str, str] | None:
        return self._world.faults.call("maps.read", lambda: self._world.maps.get(name))

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        def act() -> None:
            self._world.maps[name] = dict(data)
            self._world.trail.append("map")

        self._world.faults.call("maps.write", act)
