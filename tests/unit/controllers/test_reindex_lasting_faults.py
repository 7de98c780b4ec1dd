"""External calls that fail for as long as they like, also while the job is deleted: said, and nothing done wrongly."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from searchops.api.meta import format_time
from searchops.planning.names import FINALIZER
from searchops.runtime.errors import NotReady, ReconcileError, Transient
from searchops.runtime.key import Key
from unit.controllers.fakes_numbered_faults import Faults
from unit.controllers.fakes_reindex import ReindexWorld, raw_job

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
KEY = Key("shops", "acme-1")
CALLS = (
    "jobs.get",
    "jobs.create",
    "jobs.answers",
    "secrets.create",
    "secrets.renew",
    "cell.survey",
    "cell.describe",
    "cell.count",
    "cell.recall",
    "artifacts.read",
)
"""Every external call of a job's life, its own status and metadata apart."""


class LastingFaults(Faults):
    """Calls of these names fail until they are healed."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.down = set(names)

    def call(self, name: str, effect: Callable[[], T]) -> T:
        if name in self.down:
            self.calls.append(name)
            self.failed = True
            raise Transient(f"{name} does not answer")
        return super().call(name, effect)


class LastingWorld(ReindexWorld):
    """One process for its whole life, as in a cluster: a failure ends a pass, not the operator."""

    def __init__(self, *down: str) -> None:
        self.lasting = LastingFaults(*down)
        self.idle = False
        super().__init__(self.lasting)
        self.put_tenant()

    def work(self) -> None:
        if not self.idle:
            super().work()

    async def turn(self) -> ReconcileError | None:
        self.api.deliver()
        self.now += timedelta(seconds=10)
        try:
            await self.controller.reconcile(KEY)
        except (Transient, NotReady) as error:
            return error
        finally:
            self.work()
        return None

    async def turns(self, count: int = 8) -> list[ReconcileError | None]:
        return [await self.turn() for _ in range(count)]

    def heal(self) -> None:
        self.lasting.down.clear()

    def ready(self) -> dict[str, Any]:
        return next(one for one in self.status()["conditions"] if one["type"] == "Ready")


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_fails_for_as_long_as_it_likes_is_said_and_verifies_nothing(name: str) -> None:
    world = LastingWorld(name)
    world.api.put(raw_job())
    if name == "jobs.answers":
        world.idle = True
    if name == "secrets.renew":
        await held_back(world)
    await world.turns()
    assert name in world.faults.calls
    assert world.faults.failed
    phase = world.status()["phase"]
    assert phase not in ("Verified", "Switched", "Failed")
    assert (world.ready()["status"], f"{name} does not answer" in world.ready()["message"]) == ("False", True)
    assert world.deleted == []
    writes = world.api.status_writes
    await world.turns()
    assert world.api.status_writes == writes, "the same failure is said once"
    world.heal()
    world.idle = False
    for made in world.jobs.values():
        made.pop("ended", None)
    await world.turns()
    assert (world.status()["phase"], list(world.created.values())) == ("Verified", [1])
    assert "does not answer" not in world.ready()["message"]


async def held_back(world: LastingWorld) -> None:
    """The worker's queue holds it back for longer than its token lasts."""
    world.idle = True
    await world.turns(3)
    next(iter(world.jobs.values()))["ended"] = {"suspended": True}
    world.now += timedelta(hours=12)


@pytest.mark.parametrize("name", ["jobs.get", "cell.survey", "artifacts.read"])
async def test_one_hiccup_is_not_flapped_about(name: str) -> None:
    world = LastingWorld()
    world.idle = True
    world.api.put(raw_job())
    await world.turns(3)
    before = world.status()
    world.lasting.down.add(name)
    assert isinstance(await world.turn(), Transient)
    assert world.status() == before
    world.heal()
    assert await world.turn() is None
    world.lasting.down.add(name)
    assert isinstance(await world.turn(), Transient)
    assert "does not answer" not in world.ready()["message"]


async def test_recall_that_is_never_measured_ends_at_the_deadline_and_a_retry_verifies() -> None:
    world = LastingWorld("cell.recall")
    world.api.put(raw_job(budget={"deadline": "1h"}))
    errors = await world.turns()
    assert isinstance(errors[-1], Transient)
    verified = next(one for one in world.status()["conditions"] if one["type"] == "Verified")
    assert (verified["status"], verified["reason"]) == ("False", "Verifying")
    assert "cell.recall does not answer" in verified["message"]
    next(iter(world.jobs.values()))["ended"] = {"completion_time": format_time(world.now)}
    world.now += timedelta(hours=1)
    assert (await world.turns(2))[-1] is None
    assert (world.status()["phase"], world.ready()["reason"]) == ("Failed", "DeadlineExceeded")
    world.heal()
    raw = world.api.objects["acme-1"]
    raw["metadata"].setdefault("annotations", {})["searchops.dev/retry"] = "cell-is-back"
    world.api.put(raw)
    world.filled = 0
    await world.turns()
    assert world.status()["phase"] == "Verified"


def delete(world: LastingWorld) -> None:
    raw = world.api.objects["acme-1"]
    world.api.put({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": "2026-11-24T13:00:00Z"}})


STAGES = {"embedding": 3, "verified": 8}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "jobs.get"])
async def test_no_store_and_no_cell_that_is_down_holds_a_deletion(name: str, stage: str) -> None:
    world = await at_stage(stage)
    world.lasting.down.add(name)
    delete(world)
    assert await world.turns(2) == [None, None]
    assert (world.api.objects, world.jobs, world.secrets) == ({}, {}, {})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["jobs.get", "jobs.delete", "metadata"])
async def test_what_a_deletion_needs_holds_it_and_says_so_until_it_answers(name: str, stage: str) -> None:
    world = await at_stage(stage)
    world.lasting.down.add(name)
    delete(world)
    assert all(isinstance(error, Transient) for error in await world.turns(4))
    assert world.api.objects["acme-1"]["metadata"]["finalizers"] == [FINALIZER]
    assert f"{name} does not answer" in world.ready()["message"]
    world.heal()
    await world.turns(2)
    assert (world.api.objects, world.jobs, world.secrets) == ({}, {}, {})


async def at_stage(stage: str) -> LastingWorld:
    world = LastingWorld()
    if stage == "embedding":
        world.idle = True
    world.api.put(raw_job())
    await world.turns(STAGES[stage])
    assert world.status()["phase"] == stage.capitalize()
    return world
