"""The model controller over a world that answers, lies, dies and comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from searchops.controllers.model_gather import compare_vectors, parse_probes
from searchops.planning.names import model_parts, revision_name
from searchops.planning.server_troubles import MAX_RELOADS
from searchops.runtime.errors import Transient
from searchops.runtime.result import Result
from unit.controllers.fakes_model import KEY, VECTOR, ModelWorld, raw_model, raw_tenant
from unit.controllers.fakes_numbered_faults import Faults

A, B = (revision_name("shop", number, f"sha256:{digest * 64}") for number, digest in ((1, "a"), (2, "b")))
READY = {part: "READY" for part in model_parts(A)}


async def rolled_out(faults: Faults | None = None, **outcomes: str) -> ModelWorld:
    """r1 is promoted and its tenant bound."""
    world = ModelWorld(faults, outcomes)
    world.tenants.apply("ADDED", raw_tenant())
    world.api.put(raw_model())
    await world.settle()
    return world


def condition(world: ModelWorld, kind: str) -> tuple[str, str]:
    return next((one["status"], one["reason"]) for one in world.status["conditions"] if one["type"] == kind)


def change(world: ModelWorld, digest: str, **spec: Any) -> None:
    old = world.api.objects["shop"]
    raw = raw_model(digest, **spec)
    raw["metadata"] = {**old["metadata"], **raw["metadata"], "generation": old["metadata"]["generation"] + 1}
    world.api.put({**raw, "status": old.get("status", {})})


async def test_a_first_model_goes_all_the_way() -> None:
    world = await rolled_out()
    assert world.status["active"]["revision"] == A
    assert condition(world, "Ready") == ("True", "Promoted")
    assert world.loaded == {"default-1": READY, "canary-1": READY}
    assert [line for line in world.trail if line.startswith("create")] == ["create build", "create evaluate"]
    assert world.trail.index("map") < world.trail.index("create build")
    canary = [line for line in world.trail if "canary" in line]
    assert canary == [f"load canary-1 {part}" for part in model_parts(A)]
    assert world.events == ["CandidateChosen", "EngineBuilt", "VerdictReached", "WaveStarted", "Promoted"]
    kept = json.loads(world.maps["searchops-model-shop"]["state"])
    assert (kept["active"]["revision"], kept["nextNumber"]) == (A, 2)


async def test_a_settled_model_writes_nothing() -> None:
    world = await rolled_out()
    writes = world.api.status_writes
    for _ in range(3):
        await world.once()
    assert world.api.status_writes == writes


async def test_a_worse_model_is_taken_back_and_nothing_else_moves() -> None:
    world = await rolled_out(b="Regressed")
    change(world, "b")
    await world.settle()
    assert world.status["active"]["revision"] == A
    assert "candidate" not in world.status
    assert condition(world, "Ready") == ("False", "Rejected")
    assert world.status["verdict"]["outcome"] == "Regressed"
    assert world.loaded == {"default-1": READY, "canary-1": READY}
    assert not any("default-1" in line and B in line for line in world.trail)
    jobs = dict(world.created)
    await world.settle()
    assert dict(world.created) == jobs
    change(world, "a")
    await world.settle()
    assert condition(world, "Ready") == ("True", "Promoted")
    assert dict(world.created) == jobs


async def test_a_lost_status_is_restored_and_numbers_are_not_used_again() -> None:
    world = await rolled_out(b="Regressed")
    change(world, "b")
    await world.settle()
    before = world.status
    lost = {**world.api.objects["shop"]}
    lost.pop("status")
    world.api.put(lost)
    await world.settle()
    for name in ("active", "rejected", "history", "nextNumber"):
        assert world.status[name] == before[name]
    assert condition(world, "Ready") == ("False", "Rejected")
    assert world.loaded["default-1"] == READY


async def test_without_status_and_config_map_nothing_is_demoted() -> None:
    world = await rolled_out()
    lost = {**world.api.objects["shop"]}
    lost.pop("status")
    world.api.put(lost)
    world.maps.clear()
    trail = list(world.trail)
    await world.settle()
    assert condition(world, "Ready") == ("False", "StateUnknown")
    assert (world.trail, world.loaded["default-1"]) == (trail, READY)


async def test_a_config_map_that_cannot_be_read_stops_everything() -> None:
    world = ModelWorld()
    world.api.put(raw_model(metadata={"finalizers": ["searchops.dev/finalizer"]}))
    world.maps["searchops-model-shop"] = {"state": "{"}
    await world.once()
    assert condition(world, "Ready") == ("False", "StateUnknown")
    assert world.trail == []


async def test_a_spec_that_does_not_parse_is_a_condition() -> None:
    world = ModelWorld()
    raw = raw_model()
    raw["spec"]["source"] = {"uri": "s3://x"}
    world.api.put(raw)
    await world.once()
    assert condition(world, "Ready") == ("False", "InvalidSpec")
    assert "spec.source.digest" in str(world.status["conditions"])
    assert world.events == ["InvalidSpec"]


async def test_a_restarted_server_converges_by_itself() -> None:
    world = await rolled_out()
    world.loaded["default-1"].clear()
    await world.settle()
    assert world.loaded["default-1"] == READY


async def test_a_dead_stub_is_repaired() -> None:
    world = await rolled_out()
    world.vectors["default-1", A] = [1.0, 0.0]
    trail = len(world.trail)
    await world.once()
    assert world.trail[trail:] == [f"unload default-1 {part}" for part in reversed(model_parts(A))] + [
        f"load default-1 {part}" for part in model_parts(A)
    ]
    assert condition(world, "ServersInSync") == ("False", "OutOfSync")
    await world.settle()
    assert condition(world, "ServersInSync") == ("True", "InSync")


async def test_a_server_that_refuses_a_model_stops_no_other_server() -> None:
    world = await rolled_out()
    world.loaded = {"default-1": {}, "canary-1": {}}
    world.refused = {f"{A}-tok"}
    assert isinstance(await world.once(), Result)
    assert world.loaded == {"default-1": {f"{A}-enc": "READY"}, "canary-1": {f"{A}-enc": "READY"}}
    assert condition(world, "ServersInSync") == ("False", "OutOfSync")


async def test_a_server_that_goes_on_refusing_is_named_and_asked_less_and_less_often() -> None:
    world = await rolled_out()
    world.loaded["default-1"].clear()
    world.refused_by = {"default-1"}
    world.asked.clear()
    passes = 200
    for _ in range(passes):
        assert isinstance(await world.once(), Result), "one server's refusal is no failure of the pass"
    assert 4 <= world.asked["default-1"] <= 7
    assert world.loaded["canary-1"] == READY
    (trouble,) = world.status["servers"]["failing"]
    assert (trouble["server"], trouble["revision"], trouble["reason"]) == ("default-1", A, "NotLoaded")
    assert "out of memory" in trouble["message"]
    said = next(one["message"] for one in world.status["conditions"] if one["type"] == "ServersInSync")
    assert f"default-1 does not serve {A}-enc" in said
    assert trouble["since"] in said
    world.refused_by.clear()
    world.now += timedelta(seconds=300)
    await world.settle()
    assert not world.status["servers"].get("failing")
    assert world.loaded["default-1"] == READY


async def test_an_operator_that_is_restarted_is_no_less_patient() -> None:
    world = await rolled_out()
    world.loaded["default-1"].clear()
    world.refused_by = {"default-1"}
    world.asked.clear()
    for _ in range(100):
        await world.once()
        world.restart()
    assert world.asked["default-1"] <= 6


async def test_vectors_that_stay_wrong_are_reloaded_a_few_times_and_then_a_person_is_asked() -> None:
    world = await rolled_out()
    world.always["default-1", A] = [1.0, 0.0]
    trail = len(world.trail)
    for _ in range(400):
        await world.once()
    assert world.trail[trail:].count(f"unload default-1 {A}") == MAX_RELOADS
    said = next(one["message"] for one in world.status["conditions"] if one["type"] == "ServersInSync")
    assert f"reloaded {MAX_RELOADS} times in vain: restart or replace this server" in said
    world.always.clear()
    await world.settle()
    assert condition(world, "ServersInSync") == ("True", "InSync")


async def test_a_refused_unload_of_a_deleted_model_is_the_passs_failure() -> None:
    world = await rolled_out()
    world.tenants.apply("DELETED", raw_tenant())
    raw = world.api.objects["shop"]
    world.api.put({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": "2026-11-25T00:00:00Z"}})
    world.refused_by = {"default-1"}
    world.asked.clear()
    assert isinstance(await world.once(), Transient)
    assert "shop" in world.api.objects


@pytest.mark.parametrize("kind", ["build", "evaluate"])
async def test_a_new_retry_token_stops_the_running_job_before_another_one_starts(kind: str) -> None:
    world = ModelWorld()
    world.pods_linger = True
    world.api.put(raw_model())
    world.jobs["foreign"] = {"task": {"kind": kind}, "done": False, "uid": "u", "owner": "uid-other"}
    if kind == "evaluate":
        while "create build" not in world.trail:
            await world.once()
        world.jobs[next(name for name in world.jobs if name != "foreign")]["done"] = True
        world.work_on("build")
    while f"create {kind}" not in world.trail:
        await world.once()
    old = next(name for name in reversed(world.jobs))
    change(world, "a", rollout={"waves": [{"name": "all", "percent": 100}], "retryToken": "again"})
    for _ in range(5):
        await world.once()
        assert world.trail.count(f"create {kind}") == 1, "two Jobs for one revision"
    assert world.dying == {old}
    world.jobs.pop(old)
    await world.once()
    assert world.trail.count(f"create {kind}") == 2
    assert "foreign" in world.jobs


async def test_nothing_is_unloaded_with_too_little_of_the_lease_left() -> None:
    world = await rolled_out()
    stale = "shop-r7-77777777"
    world.loaded["default-1"][stale] = "READY"
    world.lease = 10.0
    assert isinstance(await world.once(), Transient)
    assert stale in world.loaded["default-1"]
    world.lease = 14.0
    await world.once()
    assert stale not in world.loaded["default-1"]


async def test_what_a_tenant_of_another_model_or_without_a_parse_is_bound_to_stays_loaded() -> None:
    world = await rolled_out()
    stale = "shop-r7-77777777"
    for raw in (
        raw_tenant("moved", "other", stale),
        raw_tenant("broken", "shop", stale, spec={"model": {"name": "shop"}, "fields": 3}),
    ):
        world.loaded["default-1"] |= {part: "READY" for part in model_parts(stale)}
        world.tenants.apply("ADDED", raw)
        await world.once()
        assert stale in world.loaded["default-1"]
        world.tenants.apply("DELETED", raw)
        await world.once()
        assert stale not in world.loaded["default-1"]


async def test_nothing_is_unloaded_while_a_tenants_binding_is_unread() -> None:
    world = await rolled_out()
    stale = "shop-r7-77777777"
    world.loaded["default-1"][stale] = "READY"
    unread = raw_tenant("new", status={})
    world.tenants.apply("ADDED", unread)
    await world.once()
    assert stale in world.loaded["default-1"]
    world.tenants.apply("DELETED", unread)
    await world.once()
    assert stale not in world.loaded["default-1"]


async def test_a_job_that_ends_without_an_answer_pauses_after_three_attempts() -> None:
    world = ModelWorld()
    world.api.put(raw_model())
    for _ in range(20):
        await world.once()
        for made in world.jobs.values():
            made["done"] = True
    assert (len(world.created), set(world.created.values())) == (3, {1})
    assert (world.status["phase"], condition(world, "EngineBuilt")) == ("Paused", ("False", "BuildFailed"))
    assert world.loaded == {"default-1": {}, "canary-1": {}}


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


async def test_a_deleted_model_is_unloaded_before_its_finalizer_goes() -> None:
    world = await rolled_out()
    raw = world.api.objects["shop"]
    world.api.put({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": "2026-11-25T00:00:00Z"}})
    await world.settle()
    assert condition(world, "Ready") == ("False", "InUse")
    assert world.loaded["default-1"] == READY
    world.tenants.apply("DELETED", raw_tenant())
    world.lease = 0.0
    await world.once()
    assert "shop" in world.api.objects
    world.lease = 100.0
    for _ in range(3):
        if "shop" in world.api.objects:
            await world.once()
    assert "shop" not in world.api.objects
    assert world.loaded == {"default-1": {}, "canary-1": {}}
    world.api.deliver()
    assert (await world.controller.reconcile(KEY)).requeue_after is None


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
    for index, name in enumerate(calls):
        for after in (False, True):
            world = await told(Faults(index, after=after))
            assert world.faults.failed, f"call {index} {name} was not reached"
            assert ending(world) == wanted, (index, name, after)
            assert world.status["nextNumber"] in (3, 4), (index, name, after)


@pytest.mark.parametrize(
    ("mine", "wrong"),
    [
        (VECTOR, ""),
        ([0.6, 0.8, 0.0], "dimension 3"),
        ([float("nan"), 0.8], "not finite"),
        ([6.0, 8.0], "norm 10"),
        ([0.0, 0.0], "norm 0"),
        ([0.8, 0.6], "cosine 0.96"),
    ],
)
def test_served_vectors_are_compared_with_the_reference(mine: list[float], wrong: str) -> None:
    found = compare_vectors(mine, VECTOR)
    assert (found == "") if wrong == "" else (wrong in found)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"texts": [], "vectors": []}', b'{"texts": ["a"], "vectors": []}', b'{"texts": 3}']
)
def test_probes_that_prove_nothing_are_no_probes(data: bytes) -> None:
    assert parse_probes(data) is None
