"""The reindex worker as its Job runs it: over the sandbox's Qdrant double, encoding by a labelled double of Triton."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from qdrant_client import models

from integration import reindex_parts as parts
from searchops.api.retrieval import point_id
from searchops.api.tasks import (
    ANSWER,
    EXIT_BAD_MODEL,
    EXIT_BAD_TASK,
    EXIT_CELL_FULL,
    EXIT_RETRY,
    EXIT_TOO_MANY_FAILURES,
)
from searchops_workers.gateway.bindings import TenantBinding

if TYPE_CHECKING:
    from searchops.api.retrieval import Binding
    from searchops.api.tasks import ReindexTask
    from searchops_sandbox.qdrant.cell import QdrantCell

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

STRATEGIES = ["NamedVector", "BlueGreen"]


async def rebuilding(tenant: parts.Tenant, strategy: str, count: int) -> tuple[Binding, Binding, str]:
    """A tenant with products under the old binding and an empty new side: old binding, new binding, target."""
    named = strategy == "NamedVector"
    old = tenant.binding("r1", side=None if named else "a")
    document = old.document if named else "{title}. {sku}. {attributes.thread}"  # another document is another side
    new = tenant.binding("r2", side=None if named else "b", document=document)
    live = await tenant.create(0, [old])
    products = parts.products(count)
    bound = TenantBinding(old)
    for start in range(0, count, 256):
        await tenant.writer.put(tenant.caller(), bound, parts.items(products[start : start + 256]))
    if named:
        await tenant.ports.add_vector(tenant.registration, live, new.vector or "", parts.DIMENSION)
        return old, new, live
    return old, new, await tenant.create(1, [new])


async def lacking(tenant: parts.Tenant, target: str, new: Binding) -> int:
    return await tenant.ports.count(tenant.registration, target, lacking=new.vector)


async def filled(tenant: parts.Tenant, target: str, new: Binding) -> int:
    """Counted by the database: reading every vector whenever a worker is looked at would slow that worker down."""
    return await tenant.ports.count(tenant.registration, target) - await lacking(tenant, target, new)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_slices_are_disjoint_complete_and_exact(tenant: parts.Tenant, strategy: str) -> None:
    old, new, target = await rebuilding(tenant, strategy, 700)
    before = await tenant.points(f"{tenant.alias}@a")
    encoded = len(tenant.triton.texts)
    task = tenant.task(strategy, new, slices=3)
    answers = await parts.run_slices(tenant, task)
    assert [answer.code for answer in answers] == [0, 0, 0], answers
    results = [answer.result for answer in answers if answer.result is not None]
    assert sum(result.embedded for result in results) == 700
    assert all(150 < result.embedded < 320 for result in results), "slices of about a third each"
    assert all((result.sample_min_cosine or 0) >= 0.99999 and result.sampled == 24 for result in results)
    assert len(tenant.triton.texts) - encoded == 700 + 3 * 24, "every document once, and the samples"
    after = await tenant.points(target)
    assert {name: point.payload for name, point in after.items()} == {n: p.payload for n, p in before.items()}
    parts.vectors_are_fresh(new, after)
    if strategy == "NamedVector":
        parts_of_old = {name: parts.stored(point)["d-r1"] for name, point in before.items()}
        assert {name: parts.stored(point)["d-r1"] for name, point in after.items()} == parts_of_old
    assert old.vector != new.vector
    again = await parts.run_slices(tenant, task)
    assert [answer.result.embedded for answer in again if answer.result] == [0, 0, 0], "a second run finds nothing"


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_killed_worker_goes_on_where_the_database_is(tenant: parts.Tenant, strategy: str) -> None:
    _, new, target = await rebuilding(tenant, strategy, 400)
    before = await tenant.points(f"{tenant.alias}@a")
    task = tenant.task(strategy, new)
    tenant.triton.latency = 0.05
    tenant.triton.texts.clear()
    for least in (60, 200):
        worker = await parts.Worker(task, 0, tenant.scoped(task), tenant.folder).start()

        async def enough(least: int = least) -> bool:
            return await filled(tenant, target, new) >= least

        await worker.until(enough)
        await worker.kill()
    tenant.triton.latency = 0.0
    done = await filled(tenant, target, new)
    assert 200 <= done < 400
    (answer,) = await parts.run_slices(tenant, task)
    assert answer.code == 0, answer.output
    assert answer.result is not None
    assert answer.result.embedded == 400 - done, "nothing that was written is written again"
    after = await tenant.points(target)
    assert {name: point.payload for name, point in after.items()} == {n: p.payload for n, p in before.items()}
    parts.vectors_are_fresh(new, after)
    repeated = len(tenant.triton.texts) - len(set(tenant.triton.texts)) - answer.result.sampled
    assert repeated <= 2 * 8 * task.batch, "at most what was in the buffers is encoded twice"


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_poison_is_dead_lettered_one_by_one(tenant: parts.Tenant, strategy: str) -> None:
    named = strategy == "NamedVector"
    _, new, target = await rebuilding(tenant, strategy, 0)
    bad = {7, 301}
    points = [
        models.PointStruct(
            id=point_id(product["id"]),
            vector={"d-r1": parts.encoded("r1", product["title"])},
            payload={**product, "_id": product["id"]},
        )
        for product in parts.products(400, poison=bad)
    ]
    await tenant.admin.upsert(f"{tenant.alias}@g0", points, wait=True)
    task = tenant.task(strategy, new, max_failed_percent="0.5")
    for _ in range(2):  # the second run sees nothing but the dead letters, and must not take them for the whole
        (answer,) = await parts.run_slices(tenant, task)
        assert answer.code == 0, answer.output
        assert answer.result is not None
        assert answer.result.failed == 2
    lines = (tenant.folder / "state" / tenant.alias / "dead-letters" / "slice-0.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    assert {letter["id"] for letter in letters} == {"sku-7", "sku-301"}
    assert all("a text that no tokeniser takes" in letter["reason"] for letter in letters)
    assert await filled(tenant, target, new) == 398
    assert len(await tenant.points(target)) == (400 if named else 398)
    (answer,) = await parts.run_slices(tenant, tenant.task(strategy, new, max_failed_percent="0.4"))
    assert answer.code == EXIT_TOO_MANY_FAILURES
    assert answer.result is not None
    assert answer.result.exit_code == EXIT_TOO_MANY_FAILURES
    assert "2 of 400 documents of the slice could not be embedded, at most 0.4 % may" in answer.result.message


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("what", "said"), [("manifest", "another build"), ("dimension", "32 dimensions")])
async def test_another_model_is_refused_before_anything_is_written(
    tenant: parts.Tenant, strategy: str, what: str, said: str
) -> None:
    _, new, target = await rebuilding(tenant, strategy, 20)
    before = await tenant.points(target)
    if what == "manifest":
        tenant.triton.manifest = "sha256:" + "b" * 64
    else:
        tenant.triton.dimension = 32
    worker = await parts.Worker(task := tenant.task(strategy, new), 0, tenant.scoped(task), tenant.folder).start()
    answer = await worker.wait()
    assert answer.code == EXIT_BAD_MODEL, answer.output
    assert answer.result is not None
    assert said in answer.result.message
    assert ANSWER.validate_json(worker.termination.read_bytes()) == answer.result
    assert await tenant.points(target) == before


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_token_on_exactly_the_jobs_collections_is_needed_and_enough(
    tenant: parts.Tenant, strategy: str
) -> None:
    _, new, target = await rebuilding(tenant, strategy, 10)
    task = tenant.task(strategy, new)
    for rights in ({task.target_collection: "r", f"{tenant.alias}@a": "r"}, {"prod.shop.other": "prw"}):
        worker = await parts.Worker(task, 0, tenant.token(rights), tenant.folder).start()
        answer = await worker.wait()
        assert (answer.code, answer.result) == (EXIT_RETRY, None)
        assert "403" in answer.output
        assert "is required" in answer.output
        assert "Traceback" not in answer.output
    assert await filled(tenant, target, new) == 0
    (answer,) = await parts.run_slices(tenant, task)
    assert answer.code == 0, answer.output
    assert await lacking(tenant, target, new) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_busy_or_silent_cell_is_waited_for(tenant: parts.Tenant, cell: QdrantCell, strategy: str) -> None:
    _, new, target = await rebuilding(tenant, strategy, 120)
    task = tenant.task(strategy, new)
    write = f"/collections/{task.target_collection}/points" + ("/vectors" if strategy == "NamedVector" else "")
    read = "/collections/.*/points/scroll"
    await cell.inject(
        {"method": "PUT", "path": write, "status": 429, "retry_after": 1},
        {"method": "PUT", "path": write, "status": 503},
        {"method": "PUT", "path": write, "drop": "after-effect"},
        {"method": "PUT", "path": write, "drop": "before-effect"},
        {"method": "POST", "path": read, "status": 503},
        {"method": "POST", "path": read, "status": 429, "retry_after": 1},
    )
    (answer,) = await parts.run_slices(tenant, task)
    assert answer.code == 0, answer.output
    parts.vectors_are_fresh(new, await tenant.points(target))
    assert await lacking(tenant, target, new) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_full_cell_stops_the_worker_at_once_and_it_goes_on_where_it_was(
    tenant: parts.Tenant, cell: QdrantCell, strategy: str
) -> None:
    _, new, target = await rebuilding(tenant, strategy, 120)
    task = tenant.task(strategy, new)
    task = task.model_copy(update={"cell": task.cell.model_copy(update={"name": "eu-1"})})
    await cell.fill()
    try:
        (answer,) = await parts.run_slices(tenant, task)
    finally:
        await cell.clear_faults()
    assert answer.code == EXIT_CELL_FULL, answer.output
    assert answer.result is not None
    assert answer.result.exit_code == EXIT_CELL_FULL
    assert answer.result.message.startswith("the disk or memory of cell eu-1 is exhausted (UnexpectedResponse")
    assert "507" in answer.result.message
    assert "Traceback" not in answer.output
    (again,) = await parts.run_slices(tenant, task)
    assert again.code == 0, again.output
    parts.vectors_are_fresh(new, await tenant.points(target))
    assert await lacking(tenant, target, new) == 0


async def test_what_is_deleted_while_it_is_encoded_stays_without_vectors(tenant: parts.Tenant) -> None:
    """The page was read before the delete, the write comes after it: a leg must not find the tombstone."""
    old, new, target = await rebuilding(tenant, "NamedVector", 12)
    tenant.triton.gate = asyncio.Event()
    tenant.triton.entered.clear()
    task = tenant.task("NamedVector", new)
    worker = await parts.Worker(task, 0, tenant.scoped(task), tenant.folder).start()

    async def encoding() -> bool:
        return tenant.triton.entered.is_set()

    await worker.until(encoding)
    gone = parts.products(12)[:5]
    await tenant.writer.delete(tenant.caller(), TenantBinding(old, pending=new), parts.items(gone))
    tenant.triton.gate.set()
    answer = await worker.wait()
    assert answer.code == 0, answer.output
    points = await tenant.points(target)
    assert {name for name, point in points.items() if "_deleted" in point.payload} == parts.ids(gone)
    assert all(not parts.stored(points[name]) for name in parts.ids(gone))
    assert await tenant.ports.count(tenant.registration, target, lacking=new.vector) == 0


async def test_the_installed_command_does_it_from_nothing(tenant: parts.Tenant) -> None:
    _, new, target = await rebuilding(tenant, "BlueGreen", 30)
    task = tenant.task("BlueGreen", new)
    answer = await parts.Worker(task, 0, tenant.scoped(task), tenant.folder).cold()
    assert answer.code == 0, answer.output
    assert answer.result is not None
    assert answer.result.embedded == 30
    assert "slice 0: 30 embedded, 0 failed" in answer.output
    parts.vectors_are_fresh(new, await tenant.points(target))


async def test_an_encoder_that_is_down_is_another_try_and_no_verdict(tenant: parts.Tenant) -> None:
    _, new, target = await rebuilding(tenant, "BlueGreen", 10)
    tenant.triton.down = True
    (answer,) = await parts.run_slices(tenant, tenant.task("BlueGreen", new))
    assert (answer.code, answer.result) == (EXIT_RETRY, None)
    assert "EncoderUnavailable" in answer.output
    assert "it is tried again" in answer.output
    assert await tenant.points(target) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"servers": ()}, "servers is empty"),
        ({"source_collection": None}, "sourceCollection and sourceUri are unset"),
        ({"slices": 0}, "JOB_COMPLETION_INDEX is '0'; wanted a number below 0"),
    ],
)
async def test_a_task_that_cannot_be_done_says_what_it_lacks(
    tenant: parts.Tenant, changes: dict[str, object], said: str
) -> None:
    task: ReindexTask = tenant.task("BlueGreen", tenant.binding("r2"), **changes)
    answer = await (await parts.Worker(task, 0, "a-token", tenant.folder).start()).wait()
    assert answer.code == EXIT_BAD_TASK
    assert said in answer.output
