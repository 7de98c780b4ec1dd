"""A tenant's whole life in a shared collection, with any one write lost before or after its effect.

Each step is repeated until it succeeds, as the next pass does; what is there in the end is what is there without a
fault, for the tenant and for the one beside it. Only the sandbox's double is behind the wire.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from contract.shared_parts import DENSE, OTHER, PRODUCTS, make_scene
from contract.wire import Wire
from searchops.api.shared import RECORD_PREFIX
from searchops.runtime.errors import NotReady, ReconcileError
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_sandbox.qdrant.replay import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from contract.shared_parts import SharedScene

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "shared-tier-faults-key-of-32-characters!"
TRIES = 12
READS = ("/points/count", "/points/scroll")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    cell = QdrantCell("shared", folder=tmp_path_factory.mktemp("cell"), api_key=KEY, cluster=True)
    await cell.start()
    yield cell
    await cell.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def wire(double: QdrantCell) -> AsyncIterator[Wire]:
    found = Wire(double.rest_url)
    await found.start()
    yield found
    await found.stop()


def steps(scene: SharedScene) -> list[Callable[[], Awaitable[None]]]:
    """What a tenant goes through: two generations, a vector more and less, another owner, and the end of the first."""
    ports, cell, alias = scene.ports, scene.cell, scene.alias("acme")
    first, second = scene.design("acme"), scene.design("acme", 2)
    taken = {"searchops.dev/uid": "uid-new"}
    return [
        lambda: ports.create_collection(cell, first),
        lambda: ports.create_index(cell, first.name, "_deleted", "integer"),
        lambda: ports.point_alias(cell, f"{alias}@b", first.name),
        lambda: ports.point_alias(cell, alias, first.name),
        lambda: ports.patch_metadata(cell, first.name, {"searchops.dev/pending": "x"}, None),
        lambda: ports.add_vector(cell, first.name, OTHER, 4),
        lambda: ports.remove_vector(cell, first.name, OTHER),
        lambda: ports.create_collection(cell, second),
        lambda: ports.point_alias(cell, f"{alias}@a", second.name),
        lambda: scene.write(second.name),
        lambda: ports.point_alias(cell, alias, second.name),
        lambda: ports.patch_metadata(cell, second.name, taken, None),
        lambda: ports.remove_alias(cell, f"{alias}@b"),
        lambda: ports.drop_collection(cell, first.name),
    ]


async def lived(scene: SharedScene) -> int:
    """Every step until it succeeds; how many tries more than steps it took."""
    extra = 0
    for step in steps(scene):
        for attempt in itertools.count(1):
            try:
                await step()
                break
            except ReconcileError:
                assert attempt < TRIES, "the next passes do not come to an end"
                extra += 1
    return extra


async def end(scene: SharedScene) -> dict[str, Any]:
    """All that is there, with what differs by fleet taken out."""
    second, beside = scene.design("acme", 2).name, scene.design("bolt").name
    (collection,) = await scene.shared()
    info = await scene.admin.get_collection(collection)
    stored = info.config.metadata or {}
    found = await scene.seen(second)
    keys = (await scene.admin.list_shard_keys(collection)).shard_keys if scene.tier == "ShardKey" else []
    address, other = await scene.address(second), await scene.address(beside)
    return {
        "records": sorted(key for key in stored if key.startswith(RECORD_PREFIX)),
        "names": {name.removeprefix(scene.fleet): target for name, target in (await scene.aliases()).items()}
        == {
            ".shop.acme": second,
            ".shop.acme@a": second,
            ".shop.bolt": beside,
            ".shop.bolt@b": beside,
        },
        "aliases": await scene.stored_aliases(),
        "vectors": sorted(info.config.params.vectors or {}),
        "points": (info.points_count, found.points, (await scene.seen(beside)).points),
        "lacking": await scene.ports.count(scene.cell, beside, lacking=DENSE),
        "owner": found.metadata["searchops.dev/uid"],
        "shards": {item.key for item in keys or []} == ({address.key, other.key} if keys else set()),
    }


async def run(
    double: QdrantCell, wire: Wire, tier: Any, lose: dict[int, str] | str
) -> tuple[dict[str, Any], int, list[tuple[str, str]]]:
    """A life on a fleet of its own, beside another tenant: its end, the tries too many, the requests."""
    server = Server(double.rest_url, double.grpc_port, KEY, double=True)
    scene = make_scene(server, tier, url=f"http://127.0.0.1:{wire.port}")
    try:
        wire.lose = {}
        await scene.write(await scene.provision("bolt"))
        wire.requests.clear()
        wire.lose, wire.lose_first = (lose, "") if isinstance(lose, dict) else ({}, lose)
        extra = await lived(scene)
        sent, wire.lose, wire.lose_first = list(wire.requests), {}, ""
        return await end(scene), extra, sent
    finally:
        wire.lose, wire.lose_first = {}, ""
        await scene.clear()


@pytest.mark.parametrize("tier", ["Shared", "ShardKey"])
async def test_one_lost_write_anywhere_changes_nothing_in_the_end(double: QdrantCell, wire: Wire, tier: str) -> None:
    wanted, extra, sent = await run(double, wire, tier, {})
    assert wanted == {
        "records": [f"{RECORD_PREFIX}uid-bolt", f"{RECORD_PREFIX}uid-new"],
        "names": True,
        "aliases": {},
        "vectors": [DENSE],
        "points": (2 * len(PRODUCTS), len(PRODUCTS), len(PRODUCTS)),
        "lacking": 0,
        "owner": "uid-new",
        "shards": True,
    }
    writes = [number for number, (_, path) in enumerate(sent) if not path.endswith(READS)]
    writes = [number for number in writes if tier == "Shared" or "/shards" in sent[number][1]]
    assert (extra, len(writes)) == (0, {"Shared": 17, "ShardKey": 3}[tier])
    for number in writes:
        found, again, _ = await run(double, wire, tier, {number: "after"})
        assert found == wanted, f"{sent[number]} lost after its effect"
        assert again <= 1, f"{sent[number]} lost after its effect took {again} passes more"
    for when in ("before", "after"):
        found, again, _ = await run(double, wire, tier, when)
        assert (found, again > 1) == (wanted, when == "before"), f"the first of each request lost {when} its effect"


async def test_a_cell_without_cluster_mode_has_no_shard_keys_and_says_what_to_do(tmp_path: Path) -> None:
    cell = QdrantCell("alone", folder=tmp_path, api_key=KEY)
    await cell.start()
    scene = make_scene(Server(cell.rest_url, cell.grpc_port, KEY, double=True), "ShardKey")
    try:
        with pytest.raises(NotReady, match="not in cluster mode") as caught:
            await scene.ports.create_collection(scene.cell, scene.design("acme"))
        assert caught.value.reason == "NotSupported"
    finally:
        await scene.clear()
        await cell.stop()
