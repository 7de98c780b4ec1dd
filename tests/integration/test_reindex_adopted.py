"""Out of a collection that was there before its tenant: every document is kept, found and owned by its product's id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from qdrant_client import models

from integration import reindex_parts as parts
from searchops.api.retrieval import ID_KEY, point_id
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_workers.gateway.bindings import TenantBinding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from searchops.api.retrieval import Binding

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

THEIRS = "legacy-shop"
UUID = "8d5f4d6e-6c0e-4b57-9a53-0f3f0a4c7d11"
PAYLOADS: dict[int | str, dict[str, Any]] = {
    1: {"title": "Hex nut M1", "sku": "HN-1"},
    2: {"id": "their-2", "title": "Hex nut M2", "sku": "HN-2"},
    3: {"id": 7, "title": "Hex nut M3", "price": 0.75},
    4: {"id": None, "title": "Hex nut M4"},
    5: {"id": ["a", "b"], "title": "Hex nut M5"},
    UUID: {"title": "Hex nut M6", "attributes": {"thread": "M6"}},
}
PRODUCTS = {1: "1", 2: "their-2", 3: "7", 4: "4", 5: "5", UUID: UUID}


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(tmp_path: Path) -> AsyncIterator[parts.Tenant]:
    cell = QdrantCell("adopted", folder=tmp_path / "cell", api_key="reindex-suite-key-of-32-characters!!")
    await cell.start()
    triton = parts.FakeTriton()
    await triton.start()
    made = parts.Tenant(cell, triton, tmp_path)
    yield made
    await made.close()
    await triton.stop()
    await cell.stop()


async def adopted(tenant: parts.Tenant) -> Binding:
    """Somebody's collection with a vector of theirs, under the tenant's alias and side; the binding of a new one."""
    sizes = models.VectorParams(size=4, distance=models.Distance.COSINE)
    await tenant.admin.create_collection(THEIRS, vectors_config={"old": sizes})
    points = [
        models.PointStruct(id=number, vector={"old": [1, 0, 0, 1]}, payload=payload)
        for number, payload in PAYLOADS.items()
    ]
    await tenant.admin.upsert(THEIRS, points, wait=True)
    for alias in (f"{tenant.alias}@a", tenant.alias):
        await tenant.ports.point_alias(tenant.registration, alias, THEIRS)
    new = tenant.binding("r2", side="b")
    await tenant.create(1, [new])
    return new


async def test_every_document_is_kept_and_is_its_products(tenant: parts.Tenant) -> None:
    new = await adopted(tenant)
    before = await tenant.points(THEIRS)
    answers = await parts.run_slices(tenant, tenant.task("BlueGreen", new, slices=2))
    assert [answer.code for answer in answers] == [0, 0], answers
    assert sum(answer.result.embedded for answer in answers if answer.result) == len(PAYLOADS)
    after = await tenant.points(f"{tenant.alias}@b")
    assert {name: point.payload for name, point in after.items()} == {
        point_id(PRODUCTS[number]): {**payload, ID_KEY: PRODUCTS[number]} for number, payload in PAYLOADS.items()
    }
    parts.vectors_are_fresh(new, after)
    assert {name: (point.payload, point.vector) for name, point in (await tenant.points(THEIRS)).items()} == {
        name: (point.payload, point.vector) for name, point in before.items()
    }


async def test_what_the_merchant_writes_afterwards_replaces_the_adopted_document(tenant: parts.Tenant) -> None:
    new = await adopted(tenant)
    await parts.run_slices(tenant, tenant.task("BlueGreen", new))
    product = {"id": "1", "title": "Hex nut M1, zinc plated", "sku": "HN-1"}
    await tenant.ports.point_alias(tenant.registration, tenant.alias, f"{tenant.alias}@g1")
    await tenant.writer.put(tenant.caller(), TenantBinding(new), parts.items([product]))
    after = await tenant.points(f"{tenant.alias}@b")
    assert len(after) == len(PAYLOADS)
    found = after[point_id("1")].payload
    assert (found["title"], found[ID_KEY]) == ("Hex nut M1, zinc plated", "1")


async def test_what_the_merchant_wrote_meanwhile_is_newer_and_stays(tenant: parts.Tenant) -> None:
    new = await adopted(tenant)
    newer = {ID_KEY: "their-2", "id": "their-2", "title": "Hex nut M2, brass", "_version": 9}
    await tenant.admin.upsert(
        f"{tenant.alias}@b", [models.PointStruct(id=point_id("their-2"), vector={}, payload=newer)], wait=True
    )
    (answer,) = await parts.run_slices(tenant, tenant.task("BlueGreen", new))
    assert answer.code == 0, answer.output
    after = await tenant.points(f"{tenant.alias}@b")
    assert len(after) == len(PAYLOADS)
    assert after[point_id("their-2")].payload == newer
