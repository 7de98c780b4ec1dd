"""Shared collections that a cell does not show just now: what is there stays hidden, never gone, and others go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from contract.shared_parts import make_scene
from contract.wire import Wire
from searchops.adapters.shared_reads import UNREAD_SECONDS
from searchops.planning.names import KEY_DELETED_AT, KEY_DROPPING
from searchops.runtime.errors import ReconcileError, Transient
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_sandbox.qdrant.replay import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from contract.shared_parts import SharedScene

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "shared-unread-key-of-32-characters-long!"


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


@pytest_asyncio.fixture(loop_scope="module", params=["Shared", "ShardKey"])
async def scene(double: QdrantCell, wire: Wire, request: pytest.FixtureRequest) -> AsyncIterator[SharedScene]:
    server = Server(double.rest_url, double.grpc_port, KEY, double=True)
    found = make_scene(server, request.param, url=f"http://127.0.0.1:{wire.port}", tenants_each=1)
    yield found
    wire.instead.clear()
    wire.lose, wire.lose_first = {}, ""
    await found.clear()


def hide(wire: Wire, collection: str) -> None:
    """The cell answers for this collection with what is no description of one."""
    wire.instead[f"/collections/{collection.replace('@', '%40')}"] = b'{"status": "ok", "result": {}}'
    wire.instead[f"/collections/{collection}"] = b'{"status": "ok", "result": {}}'


async def test_one_that_cannot_be_read_hides_its_own_tenants_and_nobody_else(scene: SharedScene, wire: Wire) -> None:
    hidden, seen = await scene.provision("acme"), await scene.provision("bolt")
    collection = (await scene.address(hidden)).collection
    assert (await scene.address(seen)).collection != collection
    names = await scene.aliases()
    hide(wire, collection)
    state = await scene.ports.survey(scene.cell)
    assert (state.reachable, state.unread) == (True, frozenset({collection}))
    assert collection in state.shared
    assert (seen in state.collections, hidden in state.collections) == (True, False)
    assert await scene.aliases() == {name: target for name, target in names.items() if target == seen}
    assert (await scene.seen(seen)).points == 0
    sent = len(wire.requests)
    for act in (
        scene.ports.describe(scene.cell, hidden),
        scene.ports.create_collection(scene.cell, scene.design("acme")),
        scene.ports.point_alias(scene.cell, scene.alias("acme"), hidden),
        scene.ports.drop_collection(scene.cell, hidden),
    ):
        with pytest.raises(Transient, match="may stand, cannot be read"):
            await act
    assert len(wire.requests) == sent, "nothing is written while whose it is is not known"
    wire.instead.clear()
    for _ in range(int(UNREAD_SECONDS // 10) + 2):  # the scene's clock goes on by ten seconds at each look
        state = await scene.ports.survey(scene.cell)
    assert state.unread == frozenset()
    assert await scene.aliases() == names
    assert (await scene.address(hidden)).collection == collection


async def test_a_record_that_cannot_be_read_is_reported_by_both_reads(scene: SharedScene) -> None:
    await scene.provision("acme")
    (collection,) = await scene.shared()
    assert (await scene.ports.survey(scene.cell)).unreadable == frozenset()
    await scene.admin.update_collection(collection, metadata={"searchops.dev/t.uid-bolt": "{broken"})
    state = await scene.ports.survey(scene.cell)
    assert (state.reachable, state.unreadable) == (True, frozenset({"uid-bolt"}))
    assert (await scene.ports.contents(scene.cell)).unreadable == frozenset({(collection, "uid-bolt")})


async def test_what_is_being_dropped_says_so_before_its_first_point_goes(scene: SharedScene, wire: Wire) -> None:
    name = await scene.provision("acme")
    await scene.write(name)
    await scene.ports.patch_metadata(scene.cell, name, {KEY_DELETED_AT: "2026-11-24T12:00:00Z"}, None)
    sent = len(wire.requests)
    wire.lose = {sent + later: "before" for later in range(2, 20)}  # the mark, the points, and then nothing more
    with pytest.raises(ReconcileError):
        await scene.ports.drop_collection(scene.cell, name)
    wire.lose = {}
    left = await scene.seen(name)
    assert KEY_DROPPING in left.metadata
    assert left.points == 0, "the points went, and whoever reads the record knows"
    await scene.ports.drop_collection(scene.cell, name)
    assert await scene.ports.describe(scene.cell, name) is None
