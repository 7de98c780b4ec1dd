"""The reindex worker from and to slices of shared collections: every point of the tenant, and none of another's."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from qdrant_client import models

from integration import reindex_parts as parts
from integration import reindex_shared_parts as shared
from searchops.api.retrieval import DELETED_KEY, ID_KEY, VERSION_KEY
from searchops.api.shared import TENANT_KEY
from searchops.api.tasks import EXIT_BAD_TASK
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def of_moves(*moves: shared.Move) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("move", moves, ids=[move.name for move in moves])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    key = "shared-reindex-suite-key-of-32-characters"
    started = QdrantCell("reindex-shared", folder=tmp_path_factory.mktemp("cell"), api_key=key, cluster=True)
    await started.start()
    yield started
    await started.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def world(tenant: parts.Tenant, move: shared.Move) -> AsyncIterator[shared.World]:
    made = await shared.world_of(tenant, move)
    yield made
    await made.close()


def no_neighbour(world: shared.World) -> None:
    """Nothing of the neighbour was ever read: its titles would have been encoded."""
    assert not [text for text in world.tenant.triton.texts if shared.NEIGHBOUR in text]


@of_moves(*shared.MOVES)
async def test_every_point_arrives_whole_and_the_neighbours_are_as_they_were(world: shared.World) -> None:
    mine = parts.products(420)
    await world.fill(mine, shared.theirs(parts.products(430)))
    await world.delete(world.source, ["sku-3", "sku-4"], version=2)
    before, others = await world.points(world.source), await world.others()
    task = world.task(slices=3)
    answers = await parts.run_slices(world.tenant, task)
    assert [answer.code for answer in answers] == [0, 0, 0], answers
    results = [answer.result for answer in answers if answer.result is not None]
    assert sum(result.embedded for result in results) == 418
    assert all(90 < result.embedded < 190 for result in results), "slices of about a third each"
    assert all((result.sample_min_cosine or 0) >= 0.99999 and result.sampled == 24 for result in results)
    assert len(world.tenant.triton.texts) == 418 + 3 * 24, "every document once, and the samples"
    after = await world.points(world.target)
    living = [point.payload for point in before.values() if DELETED_KEY not in point.payload]
    assert {name: point.payload for name, point in after.items()} == shared.moved(world, living)
    assert (TENANT_KEY in next(iter(after.values())).payload) == (world.target.address is not None)
    parts.vectors_are_fresh(world.new, after)
    assert await world.others() == others
    assert await world.points(world.source) == before
    no_neighbour(world)
    again = await parts.run_slices(world.tenant, task)
    assert [answer.result.embedded for answer in again if answer.result] == [0, 0, 0], "a second run finds nothing"


@of_moves(*shared.MOVES[:4])
async def test_a_killed_worker_goes_on_where_the_database_is(world: shared.World) -> None:
    await world.fill(parts.products(300), shared.theirs(parts.products(300)))
    before, others = await world.points(world.source), await world.others()
    task = world.task()
    world.tenant.triton.latency = 0.05
    for least in (40, 140):
        worker = await parts.Worker(task, 0, world.tenant.scoped(task), world.tenant.folder).start()

        async def enough(least: int = least) -> bool:
            return await world.count(world.target) >= least

        await worker.until(enough)
        await worker.kill()
    world.tenant.triton.latency = 0.0
    done = await world.count(world.target)
    assert 140 <= done < 300
    (answer,) = await parts.run_slices(world.tenant, task)
    assert answer.code == 0, answer.output
    assert answer.result is not None
    assert answer.result.embedded == 300 - done, "nothing that was written is written again"
    after = await world.points(world.target)
    expected = shared.moved(world, [point.payload for point in before.values()])
    assert {name: point.payload for name, point in after.items()} == expected
    parts.vectors_are_fresh(world.new, after)
    assert await world.others() == others
    no_neighbour(world)


class Merchants:
    """The tenant writes both its sides and its neighbour its own, at random; the books say what must be there."""

    def __init__(self, world: shared.World, count: int, seed: int) -> None:
        self._world = world
        self._count = count
        self._random = random.Random(seed)
        self.mine = {product["id"]: product for product in parts.products(count)}
        self.theirs = {product["id"]: product for product in shared.theirs(parts.products(count))}
        self.writes = 0
        self.stopped = False

    async def work(self) -> None:
        world = self._world
        while not self.stopped:
            self.writes += 1
            numbers = self._random.sample(range(self._count + 20), self._random.randint(1, 10))
            names = [f"sku-{number}" for number in numbers]
            deleted = self._random.random() < 0.4
            sides = [(world.source, world.old), (world.target, world.new)]
            await self._change(sides, self.mine, names, "", deleted=deleted)
            await self._change([(n, world.old) for n in world.neighbours], self.theirs, names, shared.NEIGHBOUR)
            await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _change(
        self, sides: Any, books: dict[str, Any], names: list[str], mark: str, *, deleted: bool = False
    ) -> None:
        version = self.writes + 1
        fresh = {
            name: {**parts.products(1)[0], "id": name, "title": f"{mark} Edition {self.writes} of {name}"}
            for name in names
        }
        for scope, binding in sides:
            if deleted:
                await self._world.delete(scope, names, version=version)
            else:
                await self._world.write(scope, binding, fresh.values(), version=version)
        for name in names:
            books.pop(name, None)
        books |= {} if deleted else fresh


@of_moves(*shared.MOVES[:4])
@pytest.mark.parametrize("seed", [5])
async def test_the_end_is_exact_whatever_both_tenants_write_meanwhile(world: shared.World, seed: int) -> None:
    count, chance = 240, random.Random(seed)
    merchants = Merchants(world, count, seed)
    await world.fill(list(merchants.mine.values()), list(merchants.theirs.values()))
    task = world.task(slices=2)
    token = world.tenant.scoped(task)
    world.tenant.triton.latency = 0.03
    selling = asyncio.create_task(merchants.work())
    killed = 0
    try:
        for turn in range(3):
            world.tenant.triton.entered.clear()
            worker = await parts.Worker(task, turn % 2, token, world.tenant.folder).start()

            async def encoding() -> bool:
                return world.tenant.triton.entered.is_set()

            await worker.until(encoding)
            await asyncio.sleep(chance.uniform(0.02, 0.2))
            killed += worker.alive
            await worker.kill()
        under_writes = await parts.run_slices(world.tenant, task)
    finally:
        merchants.stopped = True
        await selling
    assert [answer.code for answer in under_writes] == [0, 0], under_writes
    answers = await parts.run_slices(world.tenant, task)
    assert [answer.code for answer in answers] == [0, 0], answers
    assert killed >= 1, "kills that hit nobody prove nothing"
    assert merchants.writes > 10
    sides = [(world.source, world.old, merchants.mine), (world.target, world.new, merchants.mine)]
    for scope, binding, books in [*sides, *((n, world.old, merchants.theirs) for n in world.neighbours)]:
        points = await world.points(scope)
        alive = {name: point for name, point in points.items() if DELETED_KEY not in point.payload}
        own = {} if scope.address is None else {TENANT_KEY: scope.address.key}
        assert {
            name: {key: value for key, value in point.payload.items() if key != VERSION_KEY}
            for name, point in alive.items()
        } == {scope.id_of(name): {**product, ID_KEY: name, **own} for name, product in books.items()}
        parts.vectors_are_fresh(binding, alive)
        assert all(not parts.stored(point) for point in points.values() if DELETED_KEY in point.payload)
    no_neighbour(world)


@of_moves(*(move for move in shared.MOVES if move.name in ("Collection to Shared", "Shared to Shared")))
async def test_a_foreign_point_under_an_id_of_ours_is_neither_read_nor_written(world: shared.World) -> None:
    """Ids cannot be made to collide from outside, but nothing depends on that: the slice is asked for besides."""
    await world.fill(parts.products(40), shared.theirs(parts.products(40)))
    (neighbour,) = world.neighbours
    assert neighbour.address is not None
    ids = [*(world.target.id_of(f"sku-{n}") for n in range(3)), *(world.source.id_of(f"crafted-{n}") for n in range(3))]
    if world.source.address is None:
        ids = ids[:3]  # a collection of its own has no foreign points
    crafted: list[Any] = [
        models.PointStruct(
            id=ident,
            vector={"d-r1": parts.encoded("r1", ident)},
            payload={**shared.theirs(parts.products(1))[0], ID_KEY: "sku-0", TENANT_KEY: neighbour.address.key},
        )
        for ident in ids
    ]
    await world.tenant.admin.upsert(neighbour.collection, crafted, wait=True)
    others = await world.others()
    assert len(others[0]) == 40 + len(ids)
    (answer,) = await parts.run_slices(world.tenant, world.task())
    assert answer.code == 0, answer.output
    assert answer.result is not None
    assert answer.result.embedded > 37, "what another has there is not taken for ours: it is tried again"
    assert await world.others() == others, "not one of them was replaced, and no vector was added"
    after = await world.points(world.target)
    wanted = shared.moved(world, [{**p, ID_KEY: p["id"], VERSION_KEY: 1} for p in parts.products(40)[3:]])
    assert {name: point.payload for name, point in after.items()} == wanted
    no_neighbour(world)


@of_moves(shared.MOVES[0], shared.MOVES[2], shared.MOVES[3])
async def test_what_was_deleted_or_written_on_the_target_meanwhile_stays(world: shared.World) -> None:
    await world.fill(parts.products(30), shared.theirs(parts.products(30)))
    await world.delete(world.target, ["sku-1", "sku-2"], version=9)
    newer = {**parts.products(1)[0], "id": "sku-5", "title": "newer"}
    await world.write(world.target, world.new, [newer], version=9)
    (answer,) = await parts.run_slices(world.tenant, world.task())
    assert answer.result is not None
    assert answer.result.embedded == 27
    after = await world.points(world.target)
    dead = {point.payload[ID_KEY] for point in after.values() if DELETED_KEY in point.payload}
    assert dead == {"sku-1", "sku-2"}
    assert after[world.target.id_of("sku-5")].payload["title"] == "newer"
    assert len(after) == 30


@of_moves(shared.MOVES[0])
async def test_points_of_an_adopted_collection_are_named_by_their_own_ids(world: shared.World) -> None:
    points = [
        models.PointStruct(
            id=number, vector={"d-r1": parts.encoded("r1", str(number))}, payload={"title": f"T{number}"}
        )
        for number in (7, 8)
    ]
    await world.tenant.admin.upsert(world.source.collection, points, wait=True)
    (answer,) = await parts.run_slices(world.tenant, world.task())
    assert answer.code == 0, answer.output
    assert world.target.address is not None
    after = await world.points(world.target)
    assert {name: point.payload for name, point in after.items()} == {
        world.target.id_of(str(number)): {
            "title": f"T{number}",
            ID_KEY: str(number),
            TENANT_KEY: world.target.address.key,
        }
        for number in (7, 8)
    }


@of_moves(*shared.TO_SHARED)
async def test_a_catalogue_fills_a_slice_and_what_it_leaves_out_is_counted(world: shared.World) -> None:
    live = parts.products(50)
    await world.fill(live, shared.theirs(parts.products(90)))
    await world.delete(world.source, ["sku-0", "sku-1"], version=2)
    listed = parts.products(60, poison={20})[10:]
    path = world.tenant.folder / "products.jsonl"
    path.write_text("".join(json.dumps(product) + "\n" for product in listed))
    others = await world.others()
    answers = await parts.run_slices(
        world.tenant, world.task(source_uri=path.as_uri(), slices=2, max_failed_percent="50")
    )
    assert [answer.code for answer in answers] == [0, 0], answers
    results = [answer.result for answer in answers if answer.result is not None]
    assert sum(result.failed for result in results) == 1
    assert sum(result.left_out for result in results) == 8, "sku-2 to sku-9; sku-0 and sku-1 are deleted"
    after = await world.points(world.target)
    payloads = [{**product, ID_KEY: product["id"]} for product in listed if product["id"] != "sku-20"]
    assert {name: point.payload for name, point in after.items()} == shared.moved(world, payloads)
    assert await world.others() == others
    no_neighbour(world)


@of_moves(*shared.FROM_SHARED[:3:2])
async def test_poison_in_a_slice_is_dead_lettered_by_the_products_id(world: shared.World) -> None:
    await world.fill(parts.products(200, poison={7}), shared.theirs(parts.products(200)))
    for _ in range(2):
        (answer,) = await parts.run_slices(world.tenant, world.task(max_failed_percent="1"))
        assert answer.code == 0, answer.output
        assert answer.result is not None
        assert answer.result.failed == 1
    folder = world.tenant.folder / "state" / world.tenant.alias / "dead-letters"
    letters = [json.loads(line) for line in (folder / "slice-0.jsonl").read_text().splitlines()]
    assert [letter["id"] for letter in letters] == ["sku-7"]
    assert await world.count(world.target) == 199


@of_moves(shared.MOVES[2], shared.MOVES[4])
async def test_a_second_vector_is_filled_in_one_slice_only(world: shared.World) -> None:
    await world.fill(parts.products(300), shared.theirs(parts.products(310)))
    await world.delete(world.source, ["sku-3"], version=2)
    before, others = await world.points(world.source), await world.others()
    new = world.tenant.binding("r2")
    task = world.tenant.task(
        "NamedVector",
        new,
        target_collection=world.source.collection,
        target_slice=world.source.address,
        slices=2,
    )
    answers = await parts.run_slices(world.tenant, task)
    assert [answer.code for answer in answers] == [0, 0], answers
    assert sum(answer.result.embedded for answer in answers if answer.result) == 299
    after = await world.points(world.source)
    assert {name: point.payload for name, point in after.items()} == {n: p.payload for n, p in before.items()}
    alive = {name: point for name, point in after.items() if DELETED_KEY not in point.payload}
    parts.vectors_are_fresh(new, alive)
    assert {name: parts.stored(p)["d-r1"] for name, p in alive.items()} == {
        name: parts.stored(before[name])["d-r1"] for name in alive
    }
    assert await world.others() == others
    assert await world.count(world.target) == 0
    no_neighbour(world)


@of_moves(shared.MOVES[3])
async def test_a_token_on_exactly_both_collections_is_needed_and_enough(world: shared.World) -> None:
    await world.fill(parts.products(10), shared.theirs(parts.products(10)))
    task = world.task()
    source, target = world.source.collection, world.target.collection
    for rights in ({source: "r", target: "r"}, {target: "prw"}):
        answer = await (await parts.Worker(task, 0, world.tenant.token(rights), world.tenant.folder).start()).wait()
        assert answer.code == 1
        assert "403" in answer.output
    assert await world.count(world.target) == 0
    answer = await (
        await parts.Worker(task, 0, world.tenant.token({source: "r", target: "prw"}), world.tenant.folder).start()
    ).wait()
    assert answer.code == 0, answer.output
    assert await world.count(world.target) == 10


@of_moves(shared.MOVES[3])
async def test_a_slice_of_another_collection_than_the_tasks_is_refused(world: shared.World) -> None:
    for side in ("source", "target"):
        task = world.task(**{f"{side}_collection": "prod.other"})
        answer = await (await parts.Worker(task, 0, "a-token", world.tenant.folder).start()).wait()
        assert answer.code == EXIT_BAD_TASK
        assert (
            f"{side}Slice is in {getattr(world, side).collection} and {side}Collection is prod.other" in answer.output
        )
