"""A fleet that follows its model through waves: the real planners, and a world that fails at random.

The model's pass, the rule by which a tenant follows, the wave's halt and the admission of rebuilds are the product's
own; what cells, workers and people do is simulated. Every status goes through its JSON form, as after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from searchops.api.retrieval import BUILTIN_PROFILES, Binding, dense_vector
from searchops.api.v1alpha1.search_tenant_status import RebuildStatus
from searchops.planning.model_facts import TenantFact
from searchops.planning.reindex import CreateWorker, plan_reindex
from searchops.planning.rollout import plan_model
from searchops.planning.schema import dense_binding
from searchops.planning.servers import wanted_on_canary, wanted_on_serving
from searchops.planning.waves import follows, wanted_revision
from unit.planning import reindex_facts as reindex
from unit.planning import rollout_cases as case
from unit.planning import tenant_cases

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus
    from searchops.api.v1alpha1.reindex_job import ReindexJob

PASS = timedelta(minutes=20)
ACTIVE, CANDIDATE = case.promoted(), case.built("b", 2)
SPACES = {item.revision: item.space or "" for item in (ACTIVE, CANDIDATE)}
PHASES = {"queued": "Queued", "running": "Embedding", "failed": "Failed"}


@dataclass(slots=True)
class Shop:
    """One tenant: what it is bound to, which spaces its collection holds whole, and its rebuild.

    Attributes:
        rebuild: "" (none), queued, running or failed; the next try of one that has begun is queued again.
    """

    name: str
    labels: dict[str, str]
    binding: Binding
    filled: set[str]
    rebuild: str = ""
    target: str = ""
    attempt: int = 1
    retries: int = 0
    held: bool = False

    @property
    def begun(self) -> bool:
        return self.rebuild in ("running", "failed") or (self.rebuild == "queued" and self.attempt + self.retries > 1)

    def fact(self) -> TenantFact:
        return TenantFact(
            "shops",
            self.name,
            self.labels,
            self.binding.revision,
            rebuilding=bool(self.rebuild),
            failed=self.rebuild == "failed",
            held=self.held,
        )

    def forget(self) -> None:
        """No rebuild is wanted any more."""
        self.rebuild, self.target, self.attempt, self.retries = "", "", 1, 0


@cache
def binding_to(revision: str) -> Binding:
    found = next(item for item in (ACTIVE, CANDIDATE) if item.revision == revision)
    spec = tenant_cases.make_tenant().spec
    return dense_binding(spec, BUILTIN_PROFILES["default"], found, "side", case.NOW)


@cache
def rebuild_status(attempt: int, target: str) -> RebuildStatus:
    return RebuildStatus(reindex_job=f"rebuild-{attempt}", reason="SpaceChanged", attempt=attempt, revision=target)


@cache
def reindex_job(state: str, attempt: int, retries: int) -> ReindexJob:
    job = tenant_cases.make_job(f"rebuild-{attempt}", phase=PHASES[state])
    started = None if state == "queued" else tenant_cases.STAMP
    return job.model_copy(update={"status": job.status.model_copy(update={"started_at": started, "retries": retries})})


@cache
def admits(full: bool, halted: str, attempt: int, retries: int, target: str) -> bool:
    """Whether the planner of ReindexJobs starts a worker."""
    own = reindex_job("queued", attempt, retries)
    waits = reindex.make_tenant(own.metadata.name)
    status = waits.status.model_copy(update={"rebuild": rebuild_status(attempt, target)})
    facts = reindex.make_facts(
        tenant=waits.model_copy(update={"status": status}), running=int(full), running_limit=1, halted=halted
    )
    job = reindex.make_job(own.status, metadata={"name": own.metadata.name})
    return any(isinstance(action, CreateWorker) for action in plan_reindex(job, facts, case.NOW).actions)


@dataclass
class Fleet:
    """A model with a candidate that has passed, and its tenants.

    Attributes:
        chances: of a running rebuild in one pass: done, failed for good, to be tried again; else it goes on.
        lost: servers of the serving pool that are gone.
        late: chance that a tenant's pass does not come in a step, so that its rebuild waits in the queue under a halt.
    """

    count: int
    cap: int
    percent: int
    waves: list[dict[str, Any]]
    seed: int
    chances: tuple[float, float, float] = (0.9, 0.0, 0.05)
    lost: bool = False
    late: float = 0.0
    spec: dict[str, Any] = field(default_factory=dict)
    digest: str = "b"
    now: datetime = case.NOW
    model: EmbeddingModel = field(init=False)
    shops: list[Shop] = field(init=False)
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        first = binding_to(ACTIVE.revision)
        self.shops = [
            Shop(f"t{number}", {"tier": "canary"} if number % 100 == 0 else {}, first, {SPACES[ACTIVE.revision]})
            for number in range(self.count)
        ]
        self.model = self._declared(case.passed())

    @property
    def status(self) -> EmbeddingModelStatus:
        return self.model.status

    @property
    def running(self) -> int:
        return sum(shop.rebuild == "running" for shop in self.shops)

    @property
    def failed(self) -> int:
        return sum(shop.rebuild == "failed" and not shop.held for shop in self.shops)

    def _declared(self, status: EmbeddingModelStatus) -> EmbeddingModel:
        """The spec as it stands in Git, with a status."""
        rollout = {
            "waves": self.waves,
            "maxConcurrentReindexes": self.cap,
            "breaker": {"maxRevertedPercent": self.percent},
            **self.spec.get("rollout", {}),
        }
        rest = {key: value for key, value in self.spec.items() if key != "rollout"}
        return case.make_model(self.digest, status, rollout=rollout, **rest)

    # -- one pass of everybody ---------------------------------------------------------------------------------

    def step(self) -> None:
        """The model's pass, then every tenant's, then the queue's, then what the workers do."""
        self.now += PASS
        self.model = self._declared(self.status)
        plan = plan_model(self.model, self._facts(), self.now)
        before = self.status.wave
        self.model = case.after(self.model, plan)
        self._check_wave(before)
        begun = {shop.name for shop in self.shops if shop.begun}
        for shop in self.shops:
            if not self.late or self.random.random() >= self.late:
                self.follow(shop)
        self.admit()
        self._check_starts(begun)
        self.work()
        self.check_bindings()

    def _facts(self) -> Any:
        tenants = tuple(shop.fact() for shop in self.shops)
        empty = case.facts_of(self.model, tenants=tenants, reevaluation=None)
        serving = wanted_on_serving(self.model, self.status, empty)
        left = tuple(name for name in serving if not (self.lost and name == ACTIVE.revision))
        canary = case.server("c1", *wanted_on_canary(self.model, self.status, empty))
        return case.facts_of(
            self.model,
            gate=None,
            reevaluation=None,
            serving=case.pool("default", case.server("s1", *serving), case.server("s2", *left)),
            canary=case.pool("canary", canary),
            tenants=tenants,
        )

    def follow(self, shop: Shop) -> None:
        """A tenant's decision: stay, flip to a side that is filled, or ask for a rebuild."""
        if shop.held:
            return
        rebuild = rebuild_status(shop.attempt, shop.target) if shop.rebuild else None
        job = reindex_job(shop.rebuild, shop.attempt, shop.retries) if shop.rebuild else None
        following = follows(self.status.candidate, shop.binding.revision, rebuild, job)
        wanted = wanted_revision(
            self.status, namespace="shops", name=shop.name, labels=shop.labels, following=following
        ).revision
        assert wanted is not None, "an active revision is always there"
        if wanted.revision == shop.binding.revision:
            shop.forget()
        elif self.is_filled(shop, wanted):
            shop.binding = binding_to(wanted.revision)
            shop.forget()
        elif shop.target != wanted.revision:
            shop.forget()
            shop.rebuild, shop.target = "queued", wanted.revision

    def is_filled(self, shop: Shop, revision: RevisionStatus) -> bool:
        return revision.space in shop.filled

    def admit(self) -> None:
        """The queue of rebuilds, in no order that anybody promised."""
        waiting = [shop for shop in self.shops if shop.rebuild == "queued" and not shop.held]
        self.random.shuffle(waiting)
        running, halted = self.running, self.halt_at_queue()
        for shop in waiting:
            if admits(self.is_full(running), halted, shop.attempt, shop.retries, shop.target):
                shop.rebuild = "running"
                running += 1

    def is_full(self, running: int) -> bool:
        return running >= self.cap

    def halt_at_queue(self) -> str:
        return self.halted()

    def halted(self) -> str:
        wave = self.status.wave
        return (wave.halted or "") if wave is not None and self.status.candidate is not None else ""

    def work(self) -> None:
        done, failed, again = self.chances
        for shop in self.shops:
            if shop.rebuild != "running":
                continue
            drawn = self.random.random()
            if drawn < done:
                shop.filled.add(SPACES[shop.target])
            elif drawn < done + failed:
                shop.rebuild = "failed"
            elif drawn < done + failed + again:
                shop.rebuild, shop.attempt = "queued", shop.attempt + 1

    def mend(self) -> None:
        """A person deletes the failed ReindexJobs and lifts every hold; the servers are back."""
        self.lost, self.late = False, 0.0
        self.chances = (1.0, 0.0, 0.0)
        for shop in self.shops:
            shop.held = False
            if shop.rebuild == "failed":
                shop.rebuild, shop.retries = "queued", shop.retries + 1

    # -- what must hold ----------------------------------------------------------------------------------------

    def _check_wave(self, before: Any) -> None:
        wave = self.status.wave
        if wave is None:
            return
        if before is not None:
            assert float(wave.fraction) >= float(before.fraction), "a wave takes nobody out again"
            assert set(map(str, before.selectors)) <= set(map(str, wave.selectors))
        inside = [shop for shop in self.shops if not shop.held and self.is_inside(shop)]
        failed = sum(shop.rebuild == "failed" for shop in inside)
        bound = sum(shop.rebuild != "failed" and shop.binding.revision == CANDIDATE.revision for shop in inside)
        if failed and failed >= max(1.0, (failed + bound) * self.percent / 100) and not self.model.spec.paused:
            assert wave.halted == "BreakerOpen", f"{failed} of {failed + bound} failed, and the fleet goes on"

    def is_inside(self, shop: Shop) -> bool:
        wanted = wanted_revision(
            self.status, namespace="shops", name=shop.name, labels=shop.labels, following=True
        ).revision
        return wanted is not None and wanted.revision == CANDIDATE.revision

    def _check_starts(self, begun: set[str]) -> None:
        assert self.running <= self.cap, f"{self.running} rebuilds at one time, {self.cap} may be"
        if self.halted():
            fresh = [shop.name for shop in self.shops if shop.begun and shop.name not in begun]
            assert fresh == [], f"the wave is halted ({self.halted()}), and {fresh[:3]} began"

    def check_bindings(self) -> None:
        for shop in self.shops:
            space = SPACES[shop.binding.encoder or ""]
            assert shop.binding.vector == dense_vector(space), f"{shop.name}: encoder and index of two spaces"
            assert space in shop.filled, f"{shop.name} is searched in a space that its collection does not hold"

    def check_fixed_point(self) -> None:
        """Nothing moves any more: another pass of everybody plans nothing."""
        before = (self.status.to_wire(), [(shop.binding.revision, shop.rebuild) for shop in self.shops])
        plan = plan_model(self.model, self._facts(), self.now + timedelta(seconds=1))
        assert case.told(plan.actions) == []
        assert case.status_of(plan).to_wire() == before[0]
        for shop in self.shops:
            self.follow(shop)
        assert [(shop.binding.revision, shop.rebuild) for shop in self.shops] == before[1]
