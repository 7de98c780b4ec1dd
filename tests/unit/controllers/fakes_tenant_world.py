"""A tenant controller with everything around it in memory: cells, API server, gateway, reindex worker, clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.observed import CanaryResult, CellRegistration, PoolRegistration, Trial
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
from searchops.controllers.cell_sweep import CellSweep
from searchops.controllers.tenant import TenantController, TenantPorts
from searchops.planning.names import FINALIZER, KEY_BINDING, KEY_PENDING, KEY_PREVIOUS
from searchops.planning.tenant_facts import TenantSettings
from searchops.runtime.cache import ObjectCache
from searchops.runtime.dependency import Dependencies
from searchops.runtime.errors import Conflict, NotReady, Terminal, Transient
from searchops.runtime.finalizer import Finalizer
from searchops.runtime.key import Key
from searchops.runtime.status import StatusWriter
from unit.controllers.fakes_api_server import FakeApiServer, FakeEvents, FakeReindexJobs, FakeSecrets, FakeSigner
from unit.controllers.fakes_cells import FakeCells, FakePoint
from unit.controllers.fakes_faults import Faults
from unit.controllers.fakes_rooms import FakeRooms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from searchops.controllers.pinned_trials import PinnedTrials
    from searchops.controllers.tenant_first_look import FirstLook
    from searchops.ports import TokenRegister, TokenSigner
    from unit.controllers.fakes_cells import FakeCell, FakeCollection

TENANT, MODEL = Key("shop", "acme"), Key("", "enc")
ALIAS = "prod.shop.acme"
DIGEST = "sha256:" + "0" * 64
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FIELDS = [
    {"name": "sku", "type": "keyword", "role": "Code"},
    {"name": "title", "type": "text", "role": "Title"},
]
ACCESS = [
    {"name": "storefront", "role": "Search", "secretName": "acme-storefront"},
    {"name": "indexer", "role": "Index", "secretName": "acme-indexer"},
]


def revision(number: int, space: str | None = None) -> dict[str, Any]:
    """A revision of the model as its status holds it."""
    return {
        "revision": f"enc-r{number}-{number:08x}",
        "number": number,
        "digest": DIGEST,
        "space": space or f"s{number}",
        "dimension": 8,
    }


class FakeDirectory:
    """Registered cells."""

    def __init__(self, *names: str) -> None:
        self.registered = {
            name: CellRegistration(name, {}, (f"https://{name}.example:6333",), 6334, 100, api_key="k" * 40)
            for name in names
        }
        self.serving: dict[str, PoolRegistration] = {}

    def cells(self) -> Mapping[str, CellRegistration]:
        return self.registered

    def pools(self) -> Mapping[str, PoolRegistration]:
        return self.serving


class FakeKeys:
    """`CellKeys`: the cell's own key signs, or the one that a test sets."""

    def __init__(self) -> None:
        self.key = ""
        self.seen: dict[tuple[str, str], tuple[str, ...]] = {}

    def signing(self, cell: CellRegistration) -> CellRegistration | None:
        return replace(cell, api_key=self.key) if self.key else cell

    def saw(self, tenant: tuple[str, str], cell: str, key_ids: Sequence[str]) -> None:
        self.seen[tenant] = tuple(key_ids)

    def forget(self, tenant: tuple[str, str]) -> None:
        self.seen.pop(tenant, None)


class FakeCanary:
    """`CanaryFindings` that a test sets."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], CanaryResult] = {}

    def result(self, tenant: tuple[str, str]) -> CanaryResult | None:
        return self.found.get(tenant)


class FakeGatewayKeys:
    """`GatewayKeys` that a test sets."""

    def __init__(self) -> None:
        self.now: str | None = "g" * 40
        self.asked = 0

    def key(self) -> str | None:
        self.asked += 1
        return self.now


class FakeTrials:
    """`TokenTrials`: the gateway opens what a token of its own key asks for, as far as a test lets it."""

    def __init__(self) -> None:
        self.answer = Trial.OPENED
        self.asked: list[tuple[str, str]] = []

    async def at_cell(self, cell: CellRegistration, alias: str, token: str) -> Trial:
        raise AssertionError(f"a pass tries no token at {cell.name} on {alias}: {len(token)}")

    async def at_gateway(self, url: str, tenant: str, token: str) -> Trial:
        self.asked.append((url, tenant))
        return self.answer if token else Trial.REFUSED


class TenantWorld:
    """One tenant `shop/acme` of the model `enc` on the cell `eu-1`.

    Attributes:
        documents: version of every live document, as the merchant wrote it last.
        first: makes what decides a new process's first passes; None leaves that out.
        pinned: tries pinned queries from the next start on; None leaves that out.
        worker: what becomes of a ReindexJob: it is done, it fails, or nothing happens.
    """

    def __init__(self, *, at: int | None = None, when: Any = "before", cells: tuple[str, ...] = ("eu-1",)) -> None:
        self.now = START
        self.faults = Faults(at, when)
        self.api = FakeApiServer(self.faults)
        self.cells = FakeCells(self.faults, uids=self._uids)
        self.secrets = FakeSecrets(self.faults)
        self.jobs = FakeReindexJobs(self.api, self.faults)
        self.events = FakeEvents()
        self.signer: TokenSigner = FakeSigner()
        self.register: TokenRegister = self.cells.register
        self.keys = FakeKeys()
        self.canary = FakeCanary()
        self.gateway_keys = FakeGatewayKeys()
        self.trials = FakeTrials()
        self.rooms = FakeRooms()
        self.directory = FakeDirectory(*cells)
        self.lease = 13.0
        self.gateway = "https://search.example"
        self.skew = timedelta(0)
        self.monotonic: Callable[[], float] | None = None
        self.worker = "done"
        self.first: Callable[[TenantPorts, TenantSettings], FirstLook] | None = None
        self.pinned: PinnedTrials | None = None
        self.documents: dict[int, int] = {}
        self._live_uids: set[str] = set()
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.models: ObjectCache[EmbeddingModel] = ObjectCache("embeddingmodels", EmbeddingModel.model_validate)
        self.reindexes: ObjectCache[ReindexJob] = ObjectCache("reindexjobs", ReindexJob.model_validate)
        for cache in (self.tenants, self.models, self.reindexes):
            self.api.serve(cache)
        self.controller = self.start()

    def _uids(self) -> set[str]:
        return self._live_uids

    def sweeper(self, **more: Any) -> CellSweep:
        """The sweep of tombstones over this world's cells."""
        return CellSweep(
            fleet="prod",
            directory=self.directory,
            cells=self.cells,
            ddl=self.cells,
            objects=self.api,
            dependencies=Dependencies(),
            clock=lambda: self.now,
            lease_left=lambda: self.lease,
            clock_skew=self.skew,
            **more,
        )

    def start(self) -> TenantController:
        """A controller as a new process has it: nothing remembered."""
        ports = TenantPorts(
            cells=self.cells,
            ddl=self.cells,
            directory=self.directory,
            objects=self.api,
            secrets=self.secrets,
            signer=self.signer,
            register=self.register,
            keys=self.keys,
            canary=self.canary,
            gateway_keys=self.gateway_keys,
            trials=self.trials,
            rooms=self.rooms,
            reindex_jobs=self.jobs,
            events=self.events,
        )
        settings = TenantSettings(
            "prod",
            self.gateway,
            timedelta(days=30),
            timedelta(seconds=30),
            clock_skew=self.skew,
            revocable=True,
        )
        self.controller = TenantController(
            ports,
            settings,
            tenants=self.tenants,
            models=self.models,
            reindexes=self.reindexes,
            status=StatusWriter(self.api, self.tenants),
            finalizer=Finalizer(FINALIZER, self.api, self.tenants),
            dependencies=Dependencies(),
            clock=lambda: self.now,
            monotonic=self.monotonic,
            lease_left=lambda: self.lease,
            pinned=self.pinned,
            first=None if self.first is None else self.first(ports, settings),
        )
        return self.controller

    # -- what people do ----------------------------------------------------------------------------------------

    def apply_tenant(self, *, uid: str = "uid-1", annotations: Mapping[str, str] | None = None, **spec: Any) -> None:
        """Create or change it; one of another uid is another object, and the former one is gone."""
        if self.raw is None or self.raw["metadata"]["uid"] != uid:
            self._live_uids = {uid}
        metadata: dict[str, Any] = {"name": "acme", "namespace": "shop", "uid": uid}
        if annotations is not None:
            metadata["annotations"] = dict(annotations)
        body = {"model": {"name": "enc"}, "fields": FIELDS, "access": ACCESS, **spec}
        self.api.put("searchtenants", {"metadata": metadata, "spec": body})
        self.api.deliver()

    def set_model(
        self,
        active: dict[str, Any] | None = None,
        candidate: dict[str, Any] | None = None,
        *,
        spoken: bool = True,
    ) -> None:
        """What the model publishes; a candidate's waves have reached everybody."""
        worker = {"podTemplate": "gpu"}
        status: dict[str, Any] = {"nextNumber": 9} if spoken else {}
        if active is not None:
            status["active"] = active
        if candidate is not None:
            wave = {"name": "all", "index": 0, "startedAt": "2026-11-24T12:00:00Z", "fraction": "1"}
            status |= {"candidate": candidate, "wave": wave}
        spec = {
            "source": {"uri": "s3://models/enc", "digest": DIGEST},
            "engine": {"worker": worker},
            "serving": {"pool": "default"},
            "gate": {"holdouts": [{"name": "core", "uri": "s3://h/1", "digest": DIGEST}], "worker": worker},
            "rollout": {"waves": [{"name": "all", "percent": 100}]},
        }
        self.api.put("embeddingmodels", {"metadata": {"name": "enc", "uid": "m"}, "spec": spec, "status": status})
        self.api.deliver()

    # -- the gateway and the worker ----------------------------------------------------------------------------

    @property
    def server(self) -> FakeCell:
        return self.cells.cell(self.directory.registered["eu-1"])

    @property
    def live(self) -> FakeCollection | None:
        return self.server.resolve(ALIAS)

    def write_document(self, product: int) -> None:
        """A merchant's write: on every side that the live metadata names, each with every vector named there."""
        self._write(product, gone=False)

    def delete_document(self, product: int) -> None:
        self._write(product, gone=True)

    def _write(self, product: int, *, gone: bool) -> None:
        live = self.live
        if live is None:
            return
        version = max(self.documents.values(), default=0) + 1
        sides: dict[str, set[str]] = {}
        for key in (KEY_BINDING, KEY_PENDING, KEY_PREVIOUS):
            item = live.binding(key)
            if item is not None:
                sides.setdefault(item.side or ALIAS, set()).update({item.vector} - {None} if item.vector else set())
        for side, vectors in sides.items():
            collection = self.server.resolve(side)
            if collection is None or not vectors <= set(collection.dense):
                raise AssertionError(f"the metadata names {side} with {vectors}, which is not there")
            if gone:
                collection.points.pop(product, None)
            else:
                collection.points[product] = FakePoint(dict.fromkeys({"", *vectors}, version))
        if gone:
            self.documents.pop(product, None)
        else:
            self.documents[product] = version

    def work(self) -> None:
        """The ReindexJob that the tenant names, as its worker and controller would leave it."""
        raw = self.raw
        name = ((raw or {}).get("status", {}).get("rebuild") or {}).get("reindexJob")
        job = self.api.objects.get(("reindexjobs", Key("shop", name))) if name else None
        live = self.live
        if job is None or live is None or job.get("status", {}).get("phase") or self.worker == "idle":
            return
        if self.worker == "fail":
            self._finish(job, "Failed", [])
            return
        pending = live.binding(KEY_PENDING)
        if pending is None or pending.revision != job["spec"].get("revision"):
            return
        target = self.server.resolve(pending.side or ALIAS)
        assert target is not None
        for product, point in live.points.items():
            filled = target.points.setdefault(product, FakePoint({"": point.versions[""]}))
            if pending.vector is not None:
                filled.versions.setdefault(pending.vector, point.versions[""])
        self._finish(job, "Verified", [{"type": "Verified", "status": "True", "reason": "Verified"}])

    def _finish(self, job: dict[str, Any], phase: str, conditions: list[dict[str, Any]]) -> None:
        self.api.put("reindexjobs", {**job, "status": {"phase": phase, "conditions": conditions}})
        self.api.deliver()

    # -- passes ------------------------------------------------------------------------------------------------

    @property
    def raw(self) -> dict[str, Any] | None:
        return self.api.objects.get(("searchtenants", TENANT))

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = (self.raw or {}).get("status", {}).get("conditions", [])
        return next(((item["status"], item["reason"]) for item in found if item["type"] == kind), ("", ""))

    async def step(self) -> float | None:
        """One turn as the runtime takes it; returns after how long to look again."""
        try:
            result = await self.controller.reconcile(TENANT)
        except Terminal as error:
            await self.controller.on_terminal(TENANT, error)
            self.api.deliver()
            return None
        except (Transient, NotReady, Conflict):
            self.api.deliver()
            return 1.0
        self.api.deliver()
        return result.requeue_after

    async def settle(self, passes: int = 40) -> int:
        """Passes until nothing is left to do within the minute; the clock moves as the plans ask for."""
        for number in range(passes):
            before = len(self.faults.calls), len(self.api.writes), len(self.cells.writes)
            wait = await self.step()
            self.work()
            quiet = (len(self.api.writes), len(self.cells.writes)) == before[1:]
            named = ((self.raw or {}).get("status", {}) or {}).get("rebuild")
            if quiet and (named is None or self.worker != "done") and (wait is None or wait >= 60):
                return number + 1
            self.now += timedelta(seconds=min(wait or 0.0, 60.0))
        raise AssertionError(
            f"no end after {passes} passes; last writes {self.cells.writes[-5:]} {self.api.writes[-3:]}"
        )
