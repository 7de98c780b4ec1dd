"""A model's rollout with one failed call, a candidate replaced at every step, signals that get worse, a new Triton."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from searchops.planning.names import revision_name
from unit.controllers.fakes_model import ModelWorld, raw_model, raw_tenant
from unit.controllers.fakes_numbered_faults import Faults
from unit.controllers.model_lives import A, B, change, condition, rolled_out


async def step(world: ModelWorld) -> None:
    """A pass, and what workers and tenants do after it."""
    await world.once()
    world.work()
    world.follow()


async def passes_of_a_rollout() -> int:
    """How many passes r2 takes over r1."""
    world = await rolled_out()
    change(world, "b")
    for number in range(1, 60):
        await step(world)
        if world.status["active"]["revision"] == B:
            return number
    raise AssertionError("r2 is not promoted")


async def test_a_candidate_replaced_at_every_step_leaves_nothing_behind() -> None:
    passes = await passes_of_a_rollout()
    assert passes > 5
    phases = set()
    for number in range(passes):
        world = await rolled_out()
        change(world, "b")
        for _ in range(number):
            await step(world)
        phases.add(world.status.get("phase"))
        numbered = world.status["nextNumber"]
        change(world, "c")
        await world.settle()
        last = revision_name("shop", numbered, f"sha256:{'c' * 64}")
        assert world.status["active"]["revision"] == last, number
        assert "candidate" not in world.status
        held = {name for models in world.loaded.values() for name in models}
        assert not any(name.startswith(B) for name in held), number
        assert {last, A} <= held
        assert set(world.created.values()) == {1}, "no Job was made twice"
        events = [entry["event"] for entry in world.status["history"] if entry["revision"] == B]
        assert events == ([] if numbered == 2 else ["Superseded"])
    assert {"Building", "Loading", "Gating", "Rolling"} <= phases


async def test_an_evaluator_that_times_out_three_times_promotes_nothing() -> None:
    world = await rolled_out()
    change(world, "b")
    for _ in range(40):
        await world.once()
        for name, made in world.jobs.items():
            if made["task"]["kind"] == "evaluate" and made["task"]["candidate"]["revision"] == B:
                world.ended[name] = {"failure": "DeadlineExceeded"}
        world.work_on("build")
    tried = [made for made in world.jobs.values() if made["task"].get("candidate", {}).get("revision") == B]
    assert (world.status["active"]["revision"], world.status["phase"]) == (A, "Paused")
    assert condition(world, "GatePassed") == ("False", "GateInvalid")
    assert len(tried) <= 3
    assert world.created.total() == 2 + 1 + 3


Story = Callable[[Faults | None], Awaitable[ModelWorld]]


async def story(faults: Faults | None) -> ModelWorld:
    """r1 is promoted, r2 is refused."""
    world = await rolled_out(faults, b="Regressed")
    change(world, "b")
    await world.settle()
    return world


async def again(faults: Faults | None) -> ModelWorld:
    """r2 is promoted over r1; the servers' version changes, and it is evaluated again as worse than r1."""
    world = await rolled_out(faults)
    change(world, "b")
    await world.settle()
    world.outcomes = {"b": "Regressed"}
    world.triton = "2.52.0"
    world.now += timedelta(minutes=1)
    await world.settle()
    return world


async def watched(faults: Faults | None) -> ModelWorld:
    """r1 is promoted; r2 is rolled out and its searches find less, so that the waves stand until it is taken back."""
    world = ModelWorld(faults)
    for number in range(12):
        world.tenants.apply("ADDED", raw_tenant(f"t{number}"))
    world.api.put(raw_model())
    await world.settle()
    signals = [{"name": "ZeroResults", "margin": "0.02"}]
    change(world, "b", rollout={"waves": [{"name": "all", "percent": 100, "soak": "6h"}], "signals": signals})
    await world.settle()
    for _ in range(4):
        world.now += timedelta(minutes=45)
        await world.settle()
    assert world.status["wave"]["halted"] == "SignalDegraded"
    assert condition(world, "SignalsHealthy") == ("False", "SignalDegraded")
    back = world.api.objects["shop"]
    annotations = {"searchops.dev/rollback": world.status["candidate"]["revision"]}
    world.api.put({**back, "metadata": {**back["metadata"], "annotations": annotations}})
    await world.settle()
    return world


async def test_searches_that_find_less_stop_the_waves_until_a_person_acts() -> None:
    world = await watched(None)
    assert world.status["active"]["revision"] == A
    assert world.events[-3:] == ["WaveStarted", "SignalDegraded", "CandidateRejected"]
    assert world.faults.calls.count("signals.shares") == 2, "the window before and the one after, once"
    assert {(cached.status.get("binding") or {}).get("revision") for cached in world.tenants} == {A}
    writes = world.api.status_writes
    await world.settle()
    assert world.api.status_writes == writes


async def test_signals_that_are_not_read_stop_no_pass_and_are_never_a_pass() -> None:
    """Prometheus is silent throughout: the rollout goes on by `onUnknown: Continue`, and says what it did not know."""
    world = await rolled_out()
    world.prometheus_silent = True
    signals = [{"name": "Errors", "margin": "0.02"}]
    change(world, "b", rollout={"waves": [{"name": "all", "percent": 100, "soak": "3h"}], "signals": signals})
    await world.settle()
    assert world.status["phase"] == "Soaking"
    world.now += timedelta(minutes=130)
    await world.once()
    assert condition(world, "SignalsHealthy") == ("Unknown", "SignalsUnknown")
    assert world.status["signals"][0]["why"] == "0 of 1 windows are read: Prometheus is silent"
    world.now += timedelta(hours=1)
    await world.settle()
    assert world.status["active"]["revision"] == B
    assert world.status["signals"][0]["state"] == "Unknown"


async def test_a_new_triton_has_what_is_active_evaluated_again_and_taken_back_where_it_is_worse() -> None:
    world = await again(None)
    assert world.status["active"]["revision"] == A
    assert condition(world, "Ready") == ("False", "Rejected")
    assert condition(world, "GatePassed") == ("False", "Regressed")
    assert world.events[-3:] == ["ReevaluationAsked", "Reevaluated", "RolledBack"]
    task = list(world.jobs.values())[-1]["task"]
    assert (task["candidate"]["revision"], task["incumbent"]["revision"]) == (B, A)
    bound = [(cached.status.get("binding") or {}).get("revision") for cached in world.tenants]
    assert bound == [A]
    jobs, writes = dict(world.created), world.api.status_writes
    await world.settle()
    assert (dict(world.created), world.api.status_writes) == (jobs, writes)


async def test_a_lost_status_forgets_no_question() -> None:
    world = await rolled_out()
    world.triton = "2.52.0"
    while "ReevaluationAsked" not in world.events:
        await world.once()
    lost = {**world.api.objects["shop"]}
    lost.pop("status")
    world.api.put(lost)
    await world.settle()
    assert world.status["reevaluation"]["surroundings"]["triton"] == "2.52.0"
    assert condition(world, "GatePassed") == ("True", "Passed")


def ending(world: ModelWorld) -> str:
    """What must come out the same, whatever failed on the way: all but times, and numbers (one may be skipped)."""
    status = world.status
    seen = {
        "active": status["active"]["revision"],
        "candidate": status.get("candidate"),
        "rejected": [entry["digest"] for entry in status["rejected"]],
        "conditions": sorted((one["type"], one["status"], one["reason"]) for one in status["conditions"]),
        "loaded": world.loaded,
        "created": sorted((world.jobs[name]["task"]["kind"], count) for name, count in world.created.items()),
    }
    return re.sub(r"-r[0-9]+-", "-r-", json.dumps(seen, sort_keys=True))


@pytest.mark.parametrize("told", [story, again, watched])
async def test_every_external_call_may_fail_once_before_or_after_taking_effect(told: Story) -> None:
    whole = await told(None)
    calls = whole.faults.calls
    kinds = {"maps.write", "maps.read", "jobs.create", "jobs.owned", "load", "infer", "status", "metadata"}
    assert kinds | ({"signals.shares"} if told is watched else set()) <= set(calls)
    wanted = ending(whole)
    begun = 0 if told is story else len((await rolled_out()).faults.calls)  # r1's own calls fail in the first story
    for index, name in list(enumerate(calls))[begun:]:
        for after in (False, True):
            world = await told(Faults(index, after=after))
            assert world.faults.failed, f"call {index} {name} was not reached"
            assert ending(world) == wanted, (index, name, after)
            assert world.status["nextNumber"] in (3, 4), (index, name, after)
