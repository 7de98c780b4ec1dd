"""Live writes, deletes, the backfill and killed workers, all at once and at random: the end is always the same.

Both sides hold the same ids and payloads, and every vector is bit-equal to a fresh encoding of what the point says.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from integration import reindex_parts as parts
from searchops.api.retrieval import point_id
from searchops_workers.gateway.bindings import TenantBinding

if TYPE_CHECKING:
    from searchops.api.tasks import ReindexTask

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PRODUCTS = 500
SLICES = 2
KILLS = 4
BATCH = 12


class Merchant:
    """Upserts and deletes at random, and keeps the books of what must be there in the end."""

    def __init__(self, tenant: parts.Tenant, bound: TenantBinding, seed: int) -> None:
        self._tenant = tenant
        self._bound = bound
        self._random = random.Random(seed)
        self.books = {product["id"]: product for product in parts.products(PRODUCTS)}
        self.writes = 0
        self.stopped = False

    async def work(self) -> None:
        while not self.stopped:
            count = self._random.randint(1, BATCH)
            numbers = self._random.sample(range(PRODUCTS + 50), count)  # fifty of them are new
            if self._random.random() < 0.4:
                gone = [{"id": f"sku-{number}", "title": "gone"} for number in numbers]
                await self._tenant.writer.delete(self._tenant.caller(), self._bound, parts.items(gone))
                for product in gone:
                    self.books.pop(product["id"], None)
            else:
                fresh = [
                    {**parts.products(1)[0], "id": f"sku-{number}", "title": f"Edition {self.writes} of {number}"}
                    for number in numbers
                ]
                await self._tenant.writer.put(self._tenant.caller(), self._bound, parts.items(fresh))
                self.books |= {product["id"]: product for product in fresh}
            self.writes += 1
            await asyncio.sleep(self._random.uniform(0, 0.02))


async def disturbed_backfill(tenant: parts.Tenant, task: ReindexTask, seed: int) -> int:
    """Workers that are killed at random moments; returns how many were killed while they worked."""
    chance = random.Random(seed)
    killed = 0
    token = tenant.scoped(task)
    for turn in range(KILLS):
        tenant.triton.entered.clear()
        worker = await parts.Worker(task, turn % SLICES, token, tenant.folder).start()

        async def encoding() -> bool:
            return tenant.triton.entered.is_set()

        await worker.until(encoding)
        await asyncio.sleep(chance.uniform(0.02, 0.4))
        killed += worker.alive
        await worker.kill()
    return killed


@pytest.mark.parametrize("strategy", ["NamedVector", "BlueGreen"])
@pytest.mark.parametrize("seed", [11, 23])
async def test_the_end_is_exact_whatever_happened_meanwhile(tenant: parts.Tenant, strategy: str, seed: int) -> None:
    named = strategy == "NamedVector"
    old = tenant.binding("r1", side=None if named else "a")
    new = tenant.binding("r2", side=None if named else "b")
    live = await tenant.create(0, [old])
    for start in range(0, PRODUCTS, 250):
        batch = parts.products(PRODUCTS)[start : start + 250]
        await tenant.writer.put(tenant.caller(), TenantBinding(old), parts.items(batch))
    if named:
        target = live
        await tenant.ports.add_vector(tenant.registration, live, new.vector or "", parts.DIMENSION)
    else:
        target = await tenant.create(1, [new])
    merchant = Merchant(tenant, TenantBinding(old, pending=new), seed)
    task = tenant.task(strategy, new, slices=SLICES)
    tenant.triton.latency = 0.03
    selling = asyncio.create_task(merchant.work())
    try:
        killed = await disturbed_backfill(tenant, task, seed)
        under_writes = await parts.run_slices(tenant, task)
    finally:
        merchant.stopped = True
        await selling
    assert [answer.code for answer in under_writes] == [0, 0], under_writes
    answers = await parts.run_slices(tenant, task)
    assert [answer.code for answer in answers] == [0, 0], answers
    assert killed >= 2, "kills that hit nobody prove nothing"
    assert merchant.writes > 10

    wanted = {point_id(name): {**product, "_id": name} for name, product in merchant.books.items()}
    for collection, binding in ((live, old), (target, new)):
        points = await tenant.points(collection)
        alive = {name: point for name, point in points.items() if "_deleted" not in point.payload}
        assert {
            name: {key: value for key, value in point.payload.items() if key != "_version"}
            for name, point in alive.items()
        } == wanted
        parts.vectors_are_fresh(binding, alive)
        dead = [point for point in points.values() if "_deleted" in point.payload]
        assert dead
        assert all(not parts.stored(point) for point in dead), "no leg finds what was deleted"
    sides = [await tenant.points(collection) for collection in (live, target)]
    versions = [
        {name: point.payload.get("_version") for name, point in side.items() if "_deleted" not in point.payload}
        for side in sides
    ]
    assert versions[0] == versions[1], "what a write left behind is of the same version on both sides"
    assert await tenant.ports.count(tenant.registration, target, lacking=new.vector) == 0
    assert await tenant.ports.count(tenant.registration, target) == len(wanted)
