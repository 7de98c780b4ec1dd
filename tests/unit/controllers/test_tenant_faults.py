"""Every call that leaves the process fails once, before or after it took effect: the end is the same, and made once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from searchops.planning.names import KEY_BINDING, KEY_PENDING
from unit.controllers.fakes_tenant_world import TENANT, TenantWorld, revision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from unit.controllers.fakes_faults import When

R1, R2 = revision(1), revision(2)


async def create(world: TenantWorld) -> None:
    world.set_model()
    world.apply_tenant()
    await world.settle()


async def first_model(world: TenantWorld) -> None:
    await create(world)
    for product in range(3):
        world.write_document(product)
    world.set_model(R1)
    await world.settle()


async def flip(world: TenantWorld) -> None:
    await first_model(world)
    world.set_model(revision(2, "s1"))
    await world.settle()


async def there_and_back(world: TenantWorld) -> None:
    await first_model(world)
    world.set_model(R1, R2)
    await world.settle()
    world.set_model(R1)
    await world.settle()


async def blue_green(world: TenantWorld) -> None:
    await first_model(world)
    world.apply_tenant(languages=["de"])
    await world.settle()


async def delete(world: TenantWorld) -> None:
    await first_model(world)
    world.apply_tenant(deletionPolicy="Delete")
    world.api.delete("searchtenants", TENANT)
    world.api.deliver()
    await world.settle()


PATHS = {path.__name__: path for path in (create, first_model, flip, there_and_back, blue_green, delete)}


def end_of(world: TenantWorld) -> dict[str, Any]:
    """What a shopper, a merchant and a platform team could see in the end; times apart."""
    server = world.server
    collections: dict[str, Any] = {}
    for name, found in sorted(server.collections.items()):
        binding = found.binding(KEY_BINDING)
        assert binding is not None
        collections[name] = {
            "bound": (binding.revision, binding.vector, binding.side, binding.analyser_id),
            "pending": KEY_PENDING in found.metadata and name in server.aliases.values(),
            "dense": sorted(found.dense),
            "indexes": found.indexes,
            "points": {product: sorted(point.versions) for product, point in found.points.items()},
        }
    raw = world.raw
    status = (raw or {}).get("status", {})
    return {
        "collections": collections,
        "aliases": server.aliases,
        "secrets": sorted(world.secrets.data),
        "conditions": {item["type"]: (item["status"], item["reason"]) for item in status.get("conditions", [])},
        "rebuild": status.get("rebuild"),
        "there": raw is not None,
        "made": (Counter(world.secrets.created), len(world.jobs.created)),
        "broken": world.cells.broken,
    }


async def run(path: Callable[[TenantWorld], Awaitable[None]], at: int | None, when: When) -> TenantWorld:
    world = TenantWorld(at=at, when=when)
    await path(world)
    return world


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", PATHS)
async def test_one_failure_anywhere_changes_nothing_in_the_end(name: str, when: When) -> None:
    plain = await run(PATHS[name], None, when)
    wanted = end_of(plain)
    assert wanted["broken"] == []
    calls = plain.faults.calls
    for at in range(len(calls)):
        world = await run(PATHS[name], at, when)
        assert end_of(world) == wanted, f"call {at} ({calls[at]}) failed {when} its effect"


@pytest.mark.parametrize("name", PATHS)
async def test_a_new_process_at_every_pass_ends_the_same(name: str) -> None:
    wanted = end_of(await run(PATHS[name], None, "before"))
    world = TenantWorld()
    turn = world.step

    async def restarted() -> float | None:
        world.start()
        return await turn()

    world.step = restarted  # type: ignore[method-assign]
    await PATHS[name](world)
    assert end_of(world) == wanted
