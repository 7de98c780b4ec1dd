"""A tenant's pinned queries from the declaration to the switch: Jobs, answers, turns and a store that is silent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import ArtifactReference, ObjectMeta
from searchops.api.observed import JobState, PoolRegistration
from searchops.api.retrieval import BUILTIN_PROFILES, Binding
from searchops.api.tasks import TASK, TASK_VARIABLE, PinnedResult, PinnedTask
from searchops.controllers.pinned_trials import PinnedTrials, TrialSettings
from searchops.planning.jobs import JobOrder
from searchops.runtime.errors import Transient
from unit.controllers.fakes_numbered_faults import Faults
from unit.controllers.fakes_tenant_world import DIGEST, TenantWorld, revision
from unit.controllers.tenant_lives import bound, complete

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

R1, R2, R3 = revision(1), revision(2), revision(3)
URI = "s3://holdouts/shop/pinned/1.0.0"
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
GATE = {"pinned": {"uri": URI, "digest": DIGEST}}


class Workers:
    """`Jobs` and `Artifacts`: a trial's Job answers with what a test sets, or ends, or goes on.

    Attributes:
        outcome: of every trial; empty while they go on.
        silent: whether the store answers nothing.
    """

    def __init__(self) -> None:
        self.outcome = "Pass"
        self.fails = False
        self.silent = False
        self.template: dict[str, Any] | None = {
            "metadata": {"labels": {"searchops.dev/worker-for": "evaluate"}},
            "template": {"spec": {"containers": [{"name": "worker"}]}},
        }
        self.made: dict[str, PinnedTask] = {}
        self.deleted: list[str] = []

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        return self.template if name == "gpu" else None

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        assert secret is None, "a trial needs no cell"
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        text = next(entry["value"] for entry in container["env"] if entry["name"] == TASK_VARIABLE)
        task = TASK.validate_json(text)
        assert isinstance(task, PinnedTask)
        self.made.setdefault(manifest["metadata"]["name"], task)

    async def get(self, name: str) -> JobState | None:
        if name not in self.made:
            return None
        return JobState(name, f"uid-{name}", failure="out of memory" if self.fails else "")

    async def delete(self, name: str) -> None:
        self.deleted.append(name)
        self.made.pop(name, None)

    async def answers(self, name: str) -> tuple[str, ...]:
        return ()

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        if self.silent:
            raise Transient("the store is silent")
        task = next((task for task in self.made.values() if task.result_uri == uri), None)
        if task is None or not self.outcome or self.fails:
            return None
        lost = ("q1",) if self.outcome == "Regressed" else ()
        result = PinnedResult(
            revision=task.candidate.revision or "",
            outcome=self.outcome,
            lost=lost,
            lost_total=len(lost),
            of=3,
            evidence_uri=task.evidence_uri,
            evidence_digest=DIGEST,
        )
        return result.model_dump_json(by_alias=True).encode()


def allowed(uri: str, namespace: str) -> bool:
    return uri.startswith(f"s3://holdouts/{namespace}/")


def trials(world: TenantWorld, workers: Workers, most: int = 2) -> PinnedTrials:
    settings = TrialSettings("s3://a", lambda namespace: (f"s3://holdouts/{namespace}/",), allowed, most)
    ports: Any = workers
    return PinnedTrials(ports, ports, world.directory, settings, tenants=world.tenants, clock=lambda: world.now)


async def declared(workers: Workers, most: int = 2, **gate: Any) -> TenantWorld:
    """A Ready tenant with pinned queries, bound to the first revision without a trial."""
    world = TenantWorld()
    world.directory.serving["default"] = PoolRegistration("default", (), ("triton-0:8001",), "/models", "cpu")
    world.set_model(R1)
    world.apply_tenant()
    await world.settle()
    for product in range(5):
        world.write_document(product)
    await world.settle()
    world.pinned = trials(world, workers, most)
    world.start()
    world.apply_tenant(gate={**GATE, **gate})
    await world.settle()
    assert (bound(world), workers.made) == (R1["revision"], {}), "nothing is tried where nobody moves"
    return world


def order(name: str) -> JobOrder:
    """A trial of some other tenant."""
    lexical = Binding(profile=BUILTIN_PROFILES["default"])
    task = PinnedTask(
        field="spec.gate.pinned",
        pinned=ArtifactReference(uri=URI, digest=DIGEST),
        within=(),
        incumbent=lexical,
        candidate=lexical,
        servers=(),
        evidence_uri="s3://a/e.json",
        result_uri="s3://a/r.json",
    )
    return JobOrder(name, "evaluate", task, ObjectMeta(name="rival", namespace="shop"), "SearchTenant", _HOUR)


def pinned(world: TenantWorld) -> dict[str, Any]:
    assert world.raw is not None
    found: dict[str, Any] = world.raw["status"]["pinned"]
    return found


async def test_what_holds_lets_the_tenant_follow_and_the_trial_is_of_this_very_tenant() -> None:
    workers = Workers()
    world = await declared(workers)
    world.set_model(R1, R2)
    await world.settle()
    assert (bound(world), complete(world)) == (R2["revision"], True)
    assert world.condition("ModelBound") == ("True", "Bound")
    assert pinned(world)["outcome"] == "Pass"
    ((name, task),) = workers.made.items()
    assert pinned(world)["job"] == name
    assert (task.incumbent.revision, task.candidate.revision) == (R1["revision"], R2["revision"])
    assert (task.pinned.uri, task.within, task.servers) == (URI, ("s3://holdouts/shop/",), ("triton-0:8001",))
    assert world.cells.broken == []


async def test_what_is_lost_holds_it_back_with_one_job_and_one_event_until_another_set_is_declared() -> None:
    workers = Workers()
    workers.outcome = "Regressed"
    world = await declared(workers)
    world.set_model(R1, R2)
    await world.settle()
    world.set_model(R2)
    await world.settle()
    world.start()
    await world.settle()
    assert (bound(world), complete(world), len(workers.made)) == (R1["revision"], True, 1)
    assert world.condition("ModelBound") == ("False", "PinnedQueriesLost")
    assert pinned(world)["lost"] == ["q1"]
    assert [reason for reason, _ in world.events.told if reason == "PinnedQueriesLost"] == ["PinnedQueriesLost"]
    workers.outcome = "Pass"
    world.apply_tenant(gate={"pinned": {"uri": URI, "digest": "sha256:" + "7" * 64}})
    await world.settle()
    assert (bound(world), len(workers.made)) == (R2["revision"], 2)


async def test_a_job_that_dies_is_made_again_later_and_the_tenant_serves_meanwhile() -> None:
    workers = Workers()
    workers.fails = True
    world = await declared(workers)
    world.set_model(R1, R2)
    await world.settle()
    assert (bound(world), pinned(world)["outcome"], len(workers.made)) == (R1["revision"], "Failed", 1)
    assert world.condition("ModelBound") == ("False", "PinnedQueriesInvalid")
    assert world.condition("Searchable") == ("True", "Searchable")
    workers.fails = False
    world.now += 6 * _MINUTE
    await world.settle()
    assert (bound(world), pinned(world)["attempt"], len(workers.made)) == (R2["revision"], 2, 2)


async def test_a_silent_store_is_no_answer() -> None:
    workers = Workers()
    workers.outcome = ""
    world = await declared(workers)
    world.set_model(R1, R2)
    await world.step()
    await world.step()
    workers.silent, workers.outcome = True, "Pass"
    await world.step()
    assert (bound(world), pinned(world)["outcome"], len(workers.made)) == (R1["revision"], "Running", 1)
    workers.silent = False
    await world.settle()
    assert bound(world) == R2["revision"]


async def test_a_set_outside_the_namespace_is_not_read() -> None:
    workers = Workers()
    world = await declared(workers, pinned={"uri": "s3://holdouts/rival/pinned/1.0.0", "digest": DIGEST})
    world.set_model(R1, R2)
    await world.settle()
    world.apply_tenant(gate={"pinned": {"uri": "s3://holdouts/shop/../rival/1.0.0", "digest": DIGEST}})
    await world.settle()
    assert (bound(world), workers.made) == (R1["revision"], {})
    assert world.condition("ModelBound") == ("False", "PinnedQueriesInvalid")


async def test_no_more_trials_run_than_may() -> None:
    workers = Workers()
    workers.outcome = ""
    world = await declared(workers, most=1)
    assert world.pinned is not None
    await world.pinned.start(order("pinned-other"), "gpu")
    world.set_model(R1, R2)
    await world.step()
    assert world.condition("ModelBound") == ("False", "PinnedQueriesTried")
    assert list(workers.made) == ["pinned-other"]
    world.now += 3 * _MINUTE
    await world.step()
    assert len(workers.made) == 2, "one that no tenant's status shows is not counted for ever"


async def test_a_trial_that_nobody_waits_for_gives_up_its_turn() -> None:
    workers = Workers()
    workers.outcome = ""
    world = await declared(workers, most=1)
    world.set_model(R1, R2)
    await world.step()
    (first,) = workers.made
    world.set_model(R1, R3)
    await world.step()
    (second,) = workers.made
    assert (workers.deleted, second != first) == ([first], True)
    assert workers.made[second].candidate.revision == R3["revision"]
    assert (pinned(world)["job"], pinned(world)["outcome"]) == (second, "Running")
    world.set_model(R1)
    await world.step()
    assert (workers.deleted, workers.made, bound(world)) == ([first, second], {}, R1["revision"])
    assert world.pinned is not None
    await world.pinned.start(order("pinned-other"), "gpu")
    await world.settle()
    assert workers.deleted == [first, second], "and is ended once"


async def test_passes_that_run_at_once_start_no_more_trials_than_may() -> None:
    workers = Workers()
    world = await declared(workers, most=2)
    assert world.pinned is not None
    asked = [world.pinned.start(order(f"pinned-{number}"), "gpu") for number in range(5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert list(workers.made) == ["pinned-0", "pinned-1"]
    assert [type(answer) for answer in answers[2:]] == [Transient] * 3
    await world.pinned.start(order("pinned-1"), "gpu")  # the same again is no further one


async def test_a_template_that_goes_meanwhile_is_read_again() -> None:
    workers = Workers()
    world = await declared(workers)
    workers.template = None
    assert world.pinned is not None
    with pytest.raises(Transient, match="PodTemplate gpu is gone"):
        await world.pinned.start(order("pinned-other"), "gpu")
    world.set_model(R1, R2)
    await world.step()
    assert world.condition("ModelBound") == ("False", "PinnedQueriesInvalid")


class FaultyWorkers(Workers):
    """Each call to Jobs and the store is counted, and one of them fails before or after it took effect."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        made = Workers.create(self, manifest, secret)
        await self._called("jobs.create", made)

    async def delete(self, name: str) -> None:
        await self._called("jobs.delete", super().delete(name))

    async def get(self, name: str) -> JobState | None:
        found: JobState | None = await self._called("jobs.get", super().get(name))
        return found

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        found: bytes | None = await self._called("store.read", super().read(uri, limit=limit))
        return found

    async def _called(self, name: str, effect: Coroutine[Any, Any, Any]) -> Any:
        """A coroutine that is not to take effect is closed: it is never awaited."""
        index = len(self.faults.calls)
        if index == self.faults.fail_at and not self.faults.after:
            effect.close()
            self.faults.call(name, lambda: None)
        result = await effect
        return self.faults.call(name, lambda: result)


async def tried(faults: Faults, outcome: str) -> tuple[TenantWorld, Workers]:
    """A trial whose worker answers in the third minute, with one call that fails."""
    workers = FaultyWorkers(faults)
    workers.outcome = ""
    world = await declared(workers)
    world.set_model(R1, R2)
    for _ in range(3):
        await world.step()
        world.now += timedelta(seconds=20)
    world.set_model(R1, R3)
    for _ in range(2):
        await world.step()
        world.now += timedelta(seconds=20)
    workers.outcome = outcome
    await world.settle()
    return world, workers


@pytest.mark.parametrize(("outcome", "wanted"), [("Pass", R3["revision"]), ("Regressed", R1["revision"])])
async def test_every_call_of_a_trial_may_fail_once_before_or_after_taking_effect(outcome: str, wanted: str) -> None:
    undisturbed = Faults()
    await tried(undisturbed, outcome)
    calls = list(undisturbed.calls)
    assert {"jobs.create", "jobs.get", "jobs.delete", "store.read"} <= set(calls)
    for index, name in enumerate(calls):
        for after in (False, True):
            faults = Faults(index, after=after)
            world, workers = await tried(faults, outcome)
            assert faults.failed, f"call {index} {name} was not reached"
            assert (bound(world), complete(world), len(workers.made)) == (wanted, True, 1), (index, name, after)
            assert (pinned(world)["outcome"], pinned(world)["attempt"]) == (outcome, 1), (index, name, after)
            told = [reason for reason, _ in world.events.told if reason == "PinnedQueriesLost"]
            assert len(told) == (outcome == "Regressed"), (index, name, after)
