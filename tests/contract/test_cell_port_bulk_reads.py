"""The bulk reads of a cell: everything that somebody can change shows in two requests, indexes by their count."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient, models

from contract.wire import Wire
from searchops.adapters.qdrant import QdrantCells
from searchops.api.observed import CellIdentity, CellRegistration, CollectionDesign, StrictMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.qdrant.replay import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRICT = StrictMode(1_000, 4_000_000, 60_000, 60_000, 256, 100)
OWNER = (("searchops.dev/fleet", "prod"), ("searchops.dev/uid", "u1"), ("searchops.dev/generation", "1"))


@dataclass
class Scene:
    cell: CellRegistration
    ports: QdrantCells
    admin: AsyncQdrantClient
    wire: Wire
    name: str
    alias: str


@pytest_asyncio.fixture(loop_scope="module")
async def scene(server: Server) -> AsyncIterator[Scene]:
    wire = Wire(server.url)
    await wire.start()
    cell = CellRegistration("eu-1", {}, (f"http://127.0.0.1:{wire.port}",), None, 1000, api_key=server.api_key)
    admin = AsyncQdrantClient(
        url=server.url, headers={"api-key": server.api_key}, check_compatibility=False, timeout=30
    )
    ports = QdrantCells()
    alias = f"prod.shop.t{uuid.uuid4().hex[:8]}"
    found = Scene(cell, ports, admin, wire, f"{alias}@g1", alias)
    design = CollectionDesign(found.name, (("d-one", 4),), ("lex-01234567",), (), 1, 1, STRICT, OWNER)
    await ports.create_collection(cell, design)
    await ports.create_index(cell, found.name, "colour", "keyword")
    await ports.point_alias(cell, alias, found.name)
    yield found
    await admin.delete_collection(found.name)
    await ports.close()
    await admin.close()
    await wire.stop()


async def test_the_outline_is_what_a_description_of_the_collection_says(scene: Scene) -> None:
    contents = await scene.ports.contents(scene.cell)
    outline = contents.collections[scene.name]
    described = await scene.ports.describe(scene.cell, scene.name)
    assert described is not None
    for field in ("dense", "sparse", "shards", "replicas", "strict", "metadata"):
        assert getattr(outline, field) == getattr(described, field), field
    assert contents.aliases[scene.alias] == scene.name
    assert contents.version == (await scene.ports.survey(scene.cell)).version != ""


async def test_a_key_of_ours_that_is_no_text_is_there_and_says_nothing(scene: Scene) -> None:
    """Another hand's: it passes neither for absent nor for what its content looks like."""
    strange = {"pending": {"profile": {"name": "x"}}, "uid": 7, "adopted": True, "policy": ["Delete"], "rates": None}
    metadata = {f"searchops.dev/{key}": value for key, value in strange.items()}
    await scene.admin.update_collection(scene.name, metadata={**metadata, "owner": 7, "team": "search"})
    described = await scene.ports.describe(scene.cell, scene.name)
    outline = (await scene.ports.contents(scene.cell)).collections[scene.name]
    assert described is not None
    kept = {"searchops.dev/fleet": "prod", "searchops.dev/generation": "1", "team": "search"}
    empty = dict.fromkeys(("searchops.dev/adopted", "searchops.dev/pending", "searchops.dev/policy"), "")
    assert dict(described.metadata) == dict(outline.metadata) == {**kept, **empty, "searchops.dev/uid": ""}
    await scene.ports.patch_metadata(scene.cell, scene.name, {"searchops.dev/pending": None}, None)
    described = await scene.ports.describe(scene.cell, scene.name)
    assert described is not None and "searchops.dev/pending" not in described.metadata


async def test_it_is_two_requests_whatever_the_number_of_collections(scene: Scene) -> None:
    before = scene.wire.reads
    await scene.ports.contents(scene.cell)
    assert scene.wire.reads - before == 2


async def test_the_marker_tells_whose_the_cell_is_and_is_no_collection(scene: Scene) -> None:
    identity = CellIdentity("prod", "eu-1", "uid-of-kube-system")
    await scene.ports.claim(scene.cell, identity)
    try:
        contents = await scene.ports.contents(scene.cell)
        assert contents.identity == identity
        assert "searchops-cell" not in contents.collections
    finally:
        await scene.admin.delete_collection("searchops-cell")


async def test_a_changed_vector_strict_mode_or_metadata_moves_the_digest(scene: Scene) -> None:
    seen = {(await scene.ports.contents(scene.cell)).collections[scene.name].digest}
    await scene.admin.delete_vector_name(scene.name, "d-one")
    seen.add((await scene.ports.contents(scene.cell)).collections[scene.name].digest)
    loosened = models.StrictModeConfig(enabled=False)
    await scene.admin.update_collection(scene.name, strict_mode_config=loosened)
    seen.add((await scene.ports.contents(scene.cell)).collections[scene.name].digest)
    await scene.admin.update_collection(scene.name, metadata={"searchops.dev/uid": "u2"})
    seen.add((await scene.ports.contents(scene.cell)).collections[scene.name].digest)
    assert len(seen) == 4
    assert (await scene.ports.contents(scene.cell)).collections[scene.name].digest in seen


async def test_an_index_that_somebody_else_removes_is_counted_and_ones_of_our_own_are_not(scene: Scene) -> None:
    before = (await scene.ports.contents(scene.cell)).foreign_index_writes
    await scene.ports.create_index(scene.cell, scene.name, "price", "float")
    assert (await scene.ports.contents(scene.cell)).foreign_index_writes == before
    await scene.admin.delete_payload_index(scene.name, "price")
    after = (await scene.ports.contents(scene.cell)).foreign_index_writes
    assert after is not None and before is not None and after > before


async def test_the_load_has_the_points_of_each_collection_and_what_binds_the_process(scene: Scene) -> None:
    vector = {"d-one": [0.1, 0.2, 0.3, 0.4]}
    await scene.admin.upsert(scene.name, [models.PointStruct(id=n, vector=vector) for n in range(3)], wait=True)
    load = await scene.ports.load(scene.cell)
    assert load.points[scene.name] == 3
    assert load.maps_percent is not None and 0 <= load.maps_percent <= 100
    assert load.files_percent is not None and 0 <= load.files_percent <= 100
    state = await scene.ports.survey(scene.cell)
    assert (state.maps_percent, state.files_percent) == (load.maps_percent, load.files_percent)
