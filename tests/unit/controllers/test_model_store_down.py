"""The artifact store is silent: nothing is proved or judged by that, and everything that needs no store goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from searchops.planning.names import model_parts, revision_name
from searchops.runtime.errors import Transient
from searchops.runtime.result import Result
from unit.controllers.fakes_model import ModelWorld, raw_model, raw_tenant

A, B = (revision_name("shop", number, f"sha256:{digest * 64}") for number, digest in ((1, "a"), (2, "b")))
READY = {part: "READY" for part in model_parts(A)}
SILENT = "artifact s3://artifacts/x could not be read: timed out. Check the endpoint and networkPolicy.artifactPorts"


async def promoted() -> ModelWorld:
    world = ModelWorld()
    world.tenants.apply("ADDED", raw_tenant())
    world.api.put(raw_model())
    await world.settle()
    return world


def silence(world: ModelWorld) -> None:
    async def read(uri: str, *, limit: int = 0) -> bytes | None:
        del uri, limit
        raise Transient(SILENT)

    world.read = read  # type: ignore[method-assign]


def speak(world: ModelWorld) -> None:
    del world.read


def condition(world: ModelWorld, kind: str) -> dict[str, str]:
    found: dict[str, str] = next(one for one in world.status["conditions"] if one["type"] == kind)
    return found


def change(world: ModelWorld, digest: str, **metadata: Any) -> None:
    old = world.api.objects["shop"]
    raw = raw_model(digest)
    raw["metadata"] = {**old["metadata"], "generation": old["metadata"]["generation"] + 1, **metadata}
    world.api.put({**raw, "status": old.get("status", {})})


async def test_a_deleted_model_is_let_go_without_the_store() -> None:
    world = await promoted()
    silence(world)
    world.tenants.apply("DELETED", raw_tenant())
    world.maps["searchops-model-shop"] = {"state": "{"}
    change(world, "a", deletionTimestamp="2026-11-25T00:00:00Z")
    for _ in range(3):
        if "shop" in world.api.objects:
            assert isinstance(await world.once(), Result)
    assert "shop" not in world.api.objects
    assert world.loaded == {"default-1": {}, "canary-1": {}}


async def test_servers_are_repaired_and_what_cannot_be_proved_is_unknown_with_the_next_step() -> None:
    world = await promoted()
    silence(world)
    world.loaded["default-1"].clear()
    for _ in range(3):
        assert isinstance(await world.once(), Result)
    assert world.loaded["default-1"] == READY
    seen = condition(world, "ServersInSync")
    assert (seen["status"], seen["reason"]) == ("Unknown", "ArtifactsUnreadable")
    assert A in seen["message"]
    assert "s3://artifacts/x" in seen["message"]
    assert "Check the endpoint" in seen["message"]
    writes = world.api.status_writes
    await world.once()
    assert world.api.status_writes == writes
    speak(world)
    await world.settle()
    assert condition(world, "ServersInSync")["status"] == "True"


@pytest.mark.parametrize("damaged", [None, b"{", b'{"texts": []}'])
async def test_reference_vectors_that_are_gone_or_damaged_prove_nothing_and_are_named(damaged: bytes | None) -> None:
    world = await promoted()
    uri = world.status["active"]["probes"]
    world.store.pop(uri)
    if damaged is not None:
        world.store[uri] = damaged
    await world.once()
    seen = condition(world, "ServersInSync")
    assert (seen["status"], seen["reason"]) == ("Unknown", "ArtifactsUnreadable")
    assert uri in seen["message"]
    assert "restore the file from a backup, or build again" in seen["message"]


async def wave_under_way() -> ModelWorld:
    """r2 is in its wave and no tenant follows."""
    world = await promoted()
    change(world, "b")
    for _ in range(40):
        await world.once()
        world.work()
        if world.status.get("wave"):
            return world
    raise AssertionError("no wave started")


async def test_a_pause_is_published_in_a_wave() -> None:
    world = await wave_under_way()
    silence(world)
    change(world, "b", annotations={"searchops.dev/pause": "true"})
    assert isinstance(await world.once(), Result)
    assert world.status["wave"]["halted"] == "Paused"


async def test_a_rollback_by_annotation_is_carried_out() -> None:
    world = await wave_under_way()
    silence(world)
    change(world, "b", annotations={"searchops.dev/rollback": world.status["candidate"]["revision"]})
    for _ in range(3):
        await world.once()
    assert "candidate" not in world.status
    assert world.status["rejected"][-1]["outcome"] == "RolledBack"
    assert B not in world.loaded["default-1"]


async def build_under_way() -> ModelWorld:
    world = ModelWorld()
    world.api.put(raw_model())
    while "create build" not in world.trail:
        await world.once()
    return world


async def test_an_ended_job_whose_answer_is_unknown_is_neither_a_new_attempt_nor_a_failure() -> None:
    world = await build_under_way()
    world.work()
    silence(world)
    for _ in range(5):
        assert isinstance(await world.once(), Result)
    assert set(world.created.values()) == {1}
    assert len(world.created) == 1
    seen = condition(world, "EngineBuilt")
    assert (seen["status"], seen["reason"]) == ("Unknown", "ArtifactsUnreadable")
    assert "Check the endpoint" in seen["message"]
    speak(world)
    await world.settle()
    assert world.status["active"]["revision"] == A
    assert set(world.created.values()) == {1}


async def test_a_job_that_may_have_run_before_is_not_made_while_its_answer_is_unknown() -> None:
    world = ModelWorld()
    silence(world)
    world.api.put(raw_model())
    for _ in range(6):
        await world.once()
    assert world.created == {}
    assert condition(world, "EngineBuilt")["reason"] == "ArtifactsUnreadable"
    assert condition(world, "Progressing")["status"] == "Unknown"


async def test_a_termination_message_answers_where_the_store_does_not() -> None:
    world = await build_under_way()
    world.work()
    (answer,) = [content for uri, content in world.store.items() if uri.startswith("s3://artifacts/results/")]
    silence(world)

    async def answers(name: str) -> tuple[str, ...]:
        del name
        return (json.dumps(json.loads(answer)),)

    world.answers = answers  # type: ignore[method-assign]
    await world.once()
    assert condition(world, "EngineBuilt")["status"] == "True"
    assert world.status["candidate"]["engineKey"] == f"engine-{A}"


async def test_a_failure_that_lasts_is_said_once_and_goes_when_it_is_over() -> None:
    world = await build_under_way()
    asked = world.owned

    async def owned(owner_uid: str) -> tuple[Any, ...]:
        del owner_uid
        raise Transient("jobs of the operator's namespace cannot be listed: 403; grant list on jobs")

    world.owned = owned  # type: ignore[method-assign]
    for _ in range(2):
        assert isinstance(await world.once(), Transient)
    seen = condition(world, "Ready")
    assert (seen["status"], seen["reason"]) == ("False", "Unreachable")
    assert "grant list on jobs" in seen["message"]
    writes, events = world.api.status_writes, world.events.count("Unreachable")
    assert events == 1
    await world.once()
    assert (world.api.status_writes, world.events.count("Unreachable")) == (writes, events)
    world.owned = asked  # type: ignore[method-assign]
    await world.settle()
    assert condition(world, "Ready")["reason"] == "Promoted"
