"""The model controller over a world that answers, lies, dies and comes back."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from searchops.controllers.model_gather import compare_vectors, parse_probes
from searchops.planning.names import model_parts
from searchops.planning.server_troubles import MAX_RELOADS
from searchops.runtime.errors import Transient
from searchops.runtime.result import Result
from unit.controllers.fakes_model import KEY, VECTOR, ModelWorld, raw_model, raw_tenant
from unit.controllers.model_lives import READY, A, B, change, condition, rolled_out


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
