"""The worker loop among busy dependencies: parked keys hold no worker, and no key runs twice at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from searchops.runtime.dependency import Dependencies, Limits
from searchops.runtime.errors import Conflict, NotReady, Transient
from searchops.runtime.key import Key
from searchops.runtime.queue import Priority
from searchops.runtime.result import Result
from unit.runtime.controller_rig import Rig

pytestmark = pytest.mark.looptime
A = Key("shop", "a")


async def test_keys_that_need_a_busy_dependency_hold_no_worker() -> None:
    """Two workers, a slow dependency with one slot and ten keys for it: other keys still run at once."""
    most = in_use = 0

    async def reconcile(key: Key) -> Result:
        nonlocal most, in_use
        if key.name.startswith("slow"):
            async with dependencies.slot("cell"):
                in_use += 1
                most = max(most, in_use)
                await asyncio.sleep(10)
                in_use -= 1
        ends[key.name] = round(rig.now())
        return Result.done()

    ends: dict[str, int] = {}
    dependencies = Dependencies(lambda _: Limits(), now=asyncio.get_running_loop().time)
    rig = Rig(reconcile, workers=2, dependencies=dependencies)
    for number in range(10):
        rig.queue.add(Key("shop", f"slow{number}"))
    for number in range(10):
        rig.queue.add(Key("shop", f"quick{number}"))
    await rig.run(150)
    assert most == 1
    assert [ends[f"slow{number}"] for number in range(10)] == list(range(10, 110, 10))
    assert {ends[f"quick{number}"] for number in range(10)} == {0}
    assert dependencies.get("cell").idle


async def test_a_change_of_a_parked_key_runs_it_at_once_and_keeps_its_place() -> None:
    wants = {"a": True}

    async def reconcile(key: Key) -> Result:
        if wants.get(key.name, True):
            async with dependencies.slot("cell"):
                await asyncio.sleep(100)
        ends[key.name] = round(rig.now())
        return Result.done()

    ends: dict[str, int] = {}
    dependencies = Dependencies(lambda _: Limits(), now=asyncio.get_running_loop().time)
    rig = Rig(reconcile, dependencies=dependencies, deadline=500)
    for name in ("first", "a", "b"):
        rig.queue.add(Key("shop", name))
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(10)
    wants["a"] = False
    rig.queue.add(A)
    await asyncio.sleep(350)
    assert ends == {"a": 10, "first": 100, "b": 200}
    assert dependencies.get("cell").idle
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(8))
async def test_no_key_runs_twice_at_once_and_every_change_is_seen(seed: int) -> None:
    """Random changes, failures, waits and parked keys; in the end each key has seen its newest version."""
    rng = random.Random(seed)
    wanted: Counter[Key] = Counter()
    seen: dict[Key, int] = {}
    running: set[Key] = set()

    async def reconcile(key: Key) -> Result:
        assert key not in running
        running.add(key)
        try:
            version = wanted[key]
            await asyncio.sleep(rng.random())
            match rng.randrange(8):
                case 0:
                    raise Transient("x")
                case 1:
                    raise NotReady("Waiting", "x", retry_after=rng.random() * 5)
                case 2:
                    raise Conflict("x")
                case 3:
                    raise RuntimeError("a bug")
                case 4:
                    async with dependencies.slot("cell"):
                        await asyncio.sleep(rng.random())
            seen[key] = version
            return Result.done()
        finally:
            running.discard(key)

    dependencies = Dependencies(lambda _: Limits(), rng=random.Random(seed), now=asyncio.get_running_loop().time)
    rig = Rig(reconcile, workers=4, dependencies=dependencies)
    task = asyncio.create_task(rig.controller.run())
    keys = [Key("shop", f"k{number}") for number in range(12)]
    for _ in range(300):
        key = rng.choice(keys)
        wanted[key] += 1
        rig.queue.add(key, rng.choice(list(Priority)))
        await asyncio.sleep(rng.random() * 0.3)
    await asyncio.sleep(1000)
    assert seen == dict(wanted)
    assert rig.fatal == []
    assert dependencies.get("cell").idle
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
