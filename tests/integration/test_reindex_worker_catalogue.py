"""A new side from a catalogue: every line is checked before the first point is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integration import reindex_parts as parts
from searchops.api.tasks import EXIT_RETRY, EXIT_SOURCE_UNREADABLE
from searchops_workers.gateway.bindings import TenantBinding

if TYPE_CHECKING:
    from pathlib import Path

    from searchops.api.tasks import ReindexTask

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def task(tenant: parts.Tenant, path: Path, **changes: Any) -> ReindexTask:
    new = tenant.binding("r2", side="b")
    return tenant.task("BlueGreen", new, **{"source_collection": None, "source_uri": path.as_uri(), **changes})


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
async def test_every_product_of_a_catalogue_is_embedded_once(tenant: parts.Tenant, form: str) -> None:
    new = tenant.binding("r2", side="b")
    target = await tenant.create(1, [new])
    products = parts.products(300)
    path = tenant.folder / f"products.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(product) + "\n" for product in products))
    else:
        pq.write_table(pa.Table.from_pylist(products), path)
    answers = await parts.run_slices(tenant, task(tenant, path, slices=2))
    assert [answer.code for answer in answers] == [0, 0], answers
    assert sum(answer.result.embedded for answer in answers if answer.result) == 300
    points = await tenant.points(target)
    assert {point.payload["_id"]: point.payload for point in points.values()} == {
        product["id"]: {**product, "_id": product["id"]} for product in products
    }
    parts.vectors_are_fresh(new, points)


@pytest.mark.parametrize("slices", [1, 3])
async def test_live_documents_that_a_catalogue_leaves_out_are_counted_by_id(tenant: parts.Tenant, slices: int) -> None:
    """As many products are new as are missing: totals alone would not show it. Dead letters are no second loss."""
    old, new = tenant.binding("r1", side="a"), tenant.binding("r2", side="b")
    await tenant.create(0, [old])
    target = await tenant.create(1, [new])
    live = parts.products(60)
    await tenant.writer.put(tenant.caller(), TenantBinding(old), parts.items(live))
    await tenant.writer.delete(tenant.caller(), TenantBinding(old), parts.items(live[:2]))
    listed = [*parts.products(70, poison={20})[10:], parts.products(1)[0]]
    path = tenant.folder / "products.jsonl"
    path.write_text("".join(json.dumps(product) + "\n" for product in listed))
    wanted = task(tenant, path, slices=slices, source_collection=f"{tenant.alias}@a", max_failed_percent="50")
    answers = await parts.run_slices(tenant, wanted)
    assert [answer.code for answer in answers] == [0] * slices, answers
    results = [answer.result for answer in answers if answer.result is not None]
    assert sum(result.failed for result in results) == 1
    assert sum(result.left_out for result in results) == 8, "sku-2 to sku-9; sku-0 and sku-1 are deleted"
    assert await tenant.ports.count(tenant.registration, target) == 60


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"id": "1", "title": "a"}\n\nnot json\n', ":3: 'not json' is no JSON"),
        ('{"id": "1", "title": "a"}\n{"title": "b"}\n', ":2: id is None"),
        ('{"id": "1", "_deleted": 4}\n', ":1: key '_deleted' is reserved"),
        ("[1, 2]\n", ":1: a product is list"),
        (None, ": nothing is there"),
    ],
)
async def test_a_bad_catalogue_ends_the_job_by_file_and_line(
    tenant: parts.Tenant, content: str | None, said: str
) -> None:
    target = await tenant.create(1, [tenant.binding("r2", side="b")])
    path = tenant.folder / "products.jsonl"
    if content is not None:
        path.write_text(content)
    (answer,) = await parts.run_slices(tenant, task(tenant, path))
    assert answer.code == EXIT_SOURCE_UNREADABLE, answer.output
    assert answer.result is not None
    assert answer.result.message.startswith(f"{path.as_uri()}{said}"), answer.result.message
    assert await tenant.points(target) == {}


async def test_a_file_that_is_no_parquet_ends_the_job(tenant: parts.Tenant) -> None:
    await tenant.create(1, [tenant.binding("r2", side="b")])
    path = tenant.folder / "products.parquet"
    path.write_bytes(b"PAR1 but not really")
    (answer,) = await parts.run_slices(tenant, task(tenant, path))
    assert answer.code == EXIT_SOURCE_UNREADABLE
    assert "products.parquet is no Parquet file" in answer.output


async def test_a_store_that_does_not_answer_is_another_try(tenant: parts.Tenant) -> None:
    await tenant.create(1, [tenant.binding("r2", side="b")])
    path = tenant.folder / "folder.jsonl"
    path.mkdir()
    (answer,) = await parts.run_slices(tenant, task(tenant, path))
    assert (answer.code, answer.result) == (EXIT_RETRY, None)
    assert "folder.jsonl cannot be read" in answer.output
