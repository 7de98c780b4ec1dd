"""Whatever happens in whatever order: nothing foreign or named is ever touched, and it ends bound as wanted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchops.api.observed import CollectionDesign
from searchops.planning.names import KEY_BINDING, KEY_FLEET, KEY_UID
from searchops.runtime.key import Key
from unit.controllers.fakes_cells import FakeCollection, FakePoint
from unit.controllers.fakes_tenant_world import ALIAS, TenantWorld, revision

SPACES = {1: "s1", 2: "s2", 3: "s2", 4: "s4"}
LANGUAGES = (["en"], ["de"], ["en", "fi"])
TIERS = ("Collection", "Shared", "ShardKey")
STEPS = st.one_of(
    st.tuples(st.just("model"), st.sampled_from([0, 1, 2, 3, 4]), st.sampled_from([0, 1, 2, 3, 4])),
    st.tuples(st.just("silence"), st.just(0), st.just(0)),
    st.tuples(st.just("languages"), st.sampled_from([0, 1, 2]), st.just(0)),
    st.tuples(st.just("isolation"), st.sampled_from([0, 1, 2]), st.just(0)),
    st.tuples(st.just("profile"), st.sampled_from([0, 1]), st.just(0)),
    st.tuples(st.just("passes"), st.integers(1, 4), st.sampled_from([0, 5, 35])),
    st.tuples(st.just("worker"), st.sampled_from([0, 1, 2]), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 6), st.just(0)),
    st.tuples(st.just("delete"), st.integers(0, 6), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 24, 73]), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
    st.tuples(st.just("lose status"), st.just(0), st.just(0)),
    st.tuples(st.just("fault"), st.integers(0, 20), st.sampled_from([0, 1])),
    st.tuples(st.just("paused"), st.sampled_from([0, 1]), st.just(0)),
)


def _revision(number: int) -> dict[str, Any] | None:
    return revision(number, SPACES[number]) if number else None


async def _do(world: TenantWorld, spec: dict[str, Any], step: tuple[str, int, int]) -> None:
    match step:
        case ("languages" | "isolation" | "profile" | "paused", _, _):
            _edit(world, spec, step)
        case ("passes", number, seconds):
            for _ in range(number):
                await world.step()
                world.work()
                world.now += timedelta(seconds=seconds)
        case ("write", product, _):
            world.write_document(product)
        case ("delete", product, _):
            world.delete_document(product)
        case _:
            _happen(world, step)


def _edit(world: TenantWorld, spec: dict[str, Any], step: tuple[str, int, int]) -> None:
    match step:
        case ("languages", number, _):
            spec["languages"] = LANGUAGES[number]
        case ("isolation", number, _):
            spec["isolation"] = TIERS[number]
        case ("profile", number, _):
            spec["retrieval"] = {"profile": ("default", "plain")[number]}
        case ("paused", number, _):
            spec["paused"] = bool(number)
    world.apply_tenant(**spec)


def _happen(world: TenantWorld, step: tuple[str, int, int]) -> None:
    match step:
        case ("model", active, candidate):
            world.set_model(_revision(active), _revision(candidate) if candidate != active else None)
        case ("silence", _, _):
            world.set_model(spoken=False)
        case ("worker", number, _):
            world.worker = ("done", "idle", "fail")[number]
        case ("wait", hours, _):
            world.now += timedelta(hours=hours)
        case ("restart", _, _):
            world.start()
        case ("lose status", _, _):
            assert world.raw is not None
            world.api.put("searchtenants", {**world.raw, "status": {}})
            world.api.deliver()
        case ("fault", ahead, after):
            world.faults.at = len(world.faults.calls) + ahead
            world.faults.when = "after" if after else "before"


def _foreigners(world: TenantWorld) -> dict[str, FakeCollection]:
    """A tenant of another fleet and an unowned collection, whose names look like ours."""
    made = {}
    for name, metadata in ((f"{ALIAS}@g7", {KEY_FLEET: "prod", KEY_UID: "uid-0"}), (f"{ALIAS}-2", {})):
        design = CollectionDesign(name, (), (), (), 1, 1, None, ())  # type: ignore[arg-type]
        made[name] = FakeCollection(design, dict(metadata), {"d-x": 8}, None, {}, {1: FakePoint({"": 1})})
        world.server.collections[name] = made[name]
    return made


async def _history(steps: list[tuple[str, int, int]]) -> TenantWorld:
    """The world after these steps and after the faults have ended, with every claim about its end asserted."""
    world = TenantWorld()
    spec: dict[str, Any] = {}
    world.set_model(_revision(1))
    world.apply_tenant()
    await world.settle()
    foreign = _foreigners(world)
    for product in range(4):
        world.write_document(product)
    for step in steps:
        await _do(world, spec, step)
        assert world.cells.broken == []
    world.worker, world.faults.at = "done", None
    spec["paused"] = False
    world.apply_tenant(**spec)
    world.set_model(_revision(4))
    for name in list(world.jobs.created):
        world.api.delete("reindexjobs", Key("shop", name))
    world.api.deliver()
    await world.settle(passes=80)
    _assert_end(world, spec)
    world.now += timedelta(hours=80)
    await world.settle(passes=80)
    _assert_end(world, spec)
    assert world.live is not None
    assert set(world.live.dense) == {"d-s4"}
    assert set(world.server.collections) == {world.server.aliases[ALIAS], *foreign}
    for name, found in foreign.items():
        assert world.server.collections[name] is found
        assert found.dense == {"d-x": 8}
    return world


def _assert_end(world: TenantWorld, spec: dict[str, Any]) -> None:
    assert world.cells.broken == []
    assert world.condition("Ready") == ("True", "Ready")
    assert world.live is not None
    binding = world.live.binding(KEY_BINDING)
    assert binding is not None
    assert (binding.vector, list(binding.analyser.languages)) == ("d-s4", spec.get("languages", ["en"]))
    tier = spec.get("isolation", "Collection")
    assert world.live.design.tier == tier
    for key, data in world.secrets.data.items():
        assert ("url" in data) == (tier == "Collection" and key.name.endswith("storefront")), key
    assert binding.profile.name == spec.get("retrieval", {}).get("profile", "default")
    stored = {product: point.versions.get("d-s4") for product, point in world.live.points.items()}
    assert stored == world.documents


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=14))
def test_every_history_ends_bound_as_wanted_with_every_document_in_its_last_version(
    steps: list[tuple[str, int, int]],
) -> None:
    with asyncio.Runner() as runner:
        runner.run(_history(steps))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ahead", range(0, 40, 3))
async def test_a_fault_in_the_middle_of_a_changed_mind_is_survived(ahead: int, when: str) -> None:
    steps = [
        ("model", 1, 2),
        ("passes", 2, 35),
        ("fault", ahead, int(when == "after")),
        ("passes", 4, 35),
        ("languages", 1, 0),
        ("passes", 3, 35),
        ("write", 1, 0),
        ("model", 1, 0),
        ("passes", 3, 5),
    ]
    world = await _history(steps)
    assert len(world.documents) == len(world.live.points if world.live else ()) == 4
