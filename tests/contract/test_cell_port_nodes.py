"""A cell of several nodes: reads go on at the next node, writes never move, and a cell is down only if all are."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient, models

from contract.wire import Wire
from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.api.observed import CellIdentity, CellLoad, CellRegistration, CollectionDesign, StrictMode
from searchops.runtime.dependency import BreakerState, Dependencies, Limits
from searchops.runtime.errors import Transient
from searchops_sandbox.ports import free_port
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "cell-port-nodes-key-of-32-characters!!"
STRICT = StrictMode(1000, 4_000_000, 60_000, 60_000, 256, 100)
OURS = CellIdentity("prod", "eu-1", "uid-of-kube-system")
OWNER = (("searchops.dev/fleet", "prod"), ("searchops.dev/uid", "u1"), ("searchops.dev/generation", "1"))


class Nodes:
    """Two nodes of one cell: two ways to one server."""

    def __init__(self, cell: QdrantCell) -> None:
        self.double = cell
        self.one, self.two = Wire(cell.rest_url), Wire(cell.rest_url)
        urls = tuple(f"http://127.0.0.1:{wire.port}" for wire in (self.one, self.two))
        self.cell = CellRegistration("eu-1", {}, urls, None, 1000, api_key=KEY)
        self.ports = QdrantCells(timeout=1.0)
        self.name = f"prod.shop.t{uuid.uuid4().hex[:8]}@g1"

    @property
    def design(self) -> CollectionDesign:
        return CollectionDesign(self.name, (("d-one", 4),), ("lex-01234567",), (), 1, 1, STRICT, OWNER)

    @property
    def sent(self) -> list[int]:
        """Writes that each node was sent; what is POSTed here is a count or a query."""
        return [sum(method != "POST" for method, _ in wire.requests) for wire in (self.one, self.two)]

    async def create(self) -> None:
        await self.ports.create_collection(self.cell, self.design)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    cell = QdrantCell("nodes", folder=tmp_path_factory.mktemp("cell"), api_key=KEY)
    await cell.start()
    yield cell
    await cell.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def nodes(double: QdrantCell) -> AsyncIterator[Nodes]:
    made = Nodes(double)
    await made.one.start()
    await made.two.start()
    yield made
    await double.clear_faults()
    await made.ports.close()
    cleaner = QdrantCells()
    direct = CellRegistration("eu-1", {}, (double.rest_url,), None, 1000, api_key=KEY)
    for name in (made.name, MARKER):
        await cleaner.drop_collection(direct, name)
    await cleaner.close()
    await made.one.stop()
    await made.two.stop()


async def test_a_read_goes_on_at_the_next_node_and_stays_there(nodes: Nodes) -> None:
    await nodes.ports.survey(nodes.cell)
    await nodes.create()
    assert nodes.sent == [1, 0]
    await nodes.one.stop()
    assert await nodes.ports.describe(nodes.cell, nodes.name) is not None
    assert await nodes.ports.count(nodes.cell, nodes.name) == 0
    probe = await nodes.ports.probe_search(nodes.cell, nodes.name, "lex-01234567", KEY)
    assert probe.ok, probe.error
    await nodes.one.start()
    await nodes.ports.survey(nodes.cell)
    await nodes.ports.drop_collection(nodes.cell, nodes.name)
    assert nodes.sent == [1, 1], "the last good node is asked first, though the other is back"


async def test_recall_goes_on_at_the_next_node_where_one_breaks_off_in_the_middle(nodes: Nodes) -> None:
    await nodes.ports.survey(nodes.cell)
    await nodes.create()
    client = AsyncQdrantClient(
        url=nodes.double.rest_url, headers={"api-key": KEY}, check_compatibility=False, timeout=30
    )
    points = [models.PointStruct(id=n, vector={"d-one": [1.0, float(n), 0.0, 0.0]}) for n in range(1, 4)]
    await client.upsert(nodes.name, points, wait=True)
    await client.close()
    batches = f"/collections/{nodes.name}/points/query/batch"
    await nodes.double.inject({"method": "POST", "path": batches, "drop": "before-effect"})
    sample = await nodes.ports.recall(nodes.cell, nodes.name, "d-one")
    assert (sample.queries, sample.wanted, sample.share) == (3, 6, 1.0)
    assert [wire.requests.count(("POST", batches)) for wire in (nodes.one, nodes.two)] == [1, 2]


async def test_a_node_that_hangs_costs_a_read_its_share_of_the_deadline(nodes: Nodes) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(swallow, "127.0.0.1", port)
    urls = (f"http://127.0.0.1:{port}", nodes.cell.urls[1])
    cell = CellRegistration("eu-1", {}, urls, None, 1000, api_key=KEY)
    try:
        started = time.monotonic()
        state = await nodes.ports.survey(cell)
        assert (state.reachable, 0.4 < time.monotonic() - started < 1.5) == (True, True)
        started = time.monotonic()
        assert await nodes.ports.describe(cell, "prod.shop.none@g1") is None
        assert time.monotonic() - started < 0.4, "the node that hangs is not asked again"
    finally:
        await nodes.ports.close()
        server.close()
        await server.wait_closed()


async def test_a_write_that_reached_nobody_is_not_sent_elsewhere_before_that_node_is_surveyed(nodes: Nodes) -> None:
    await nodes.ports.survey(nodes.cell)
    await nodes.one.stop()
    with pytest.raises(Transient, match="gave no answer to create") as caught:
        await nodes.create()
    assert (caught.value.answered, nodes.sent) == (True, [0, 0])
    with pytest.raises(Transient, match="another node answers than the one that was surveyed") as caught:
        await nodes.create()
    assert (caught.value.answered, nodes.sent) == (True, [0, 0])
    assert (await nodes.ports.survey(nodes.cell)).reachable
    await nodes.create()
    assert nodes.sent == [0, 1]


@pytest.mark.parametrize("when", ["after-effect", "before-effect"])
async def test_a_lost_answer_is_read_back_at_another_node_and_the_write_is_sent_once(nodes: Nodes, when: str) -> None:
    await nodes.ports.survey(nodes.cell)
    await nodes.double.inject({"method": "PUT", "path": f"/collections/{nodes.name}", "drop": when})
    if when == "after-effect":
        await nodes.create()
    else:
        with pytest.raises(Transient, match="its effect is read back") as caught:
            await nodes.create()
        assert caught.value.answered, "the other node was asked, and answered"
    assert nodes.sent == [1, 0]
    assert (nodes.name in (await nodes.ports.survey(nodes.cell)).collections) == (when == "after-effect")
    await nodes.create()
    assert (await nodes.ports.describe(nodes.cell, nodes.name)) is not None


async def test_the_fullest_node_counts_and_one_that_is_silent_is_left_out(nodes: Nodes) -> None:
    text = "process_open_mmaps {}\nsystem_max_mmaps 100\nprocess_open_fds {}\nprocess_max_fds 100\n"
    nodes.one.instead["/metrics"] = text.format(71, 20).encode() + b'collection_points{id="a"} 3\n'
    nodes.two.instead["/metrics"] = text.format(15, 72).encode() + b'collection_points{id="a"} 5\n'
    await nodes.ports.survey(nodes.cell)
    assert await nodes.ports.load(nodes.cell) == CellLoad({"a": 5}, 71, 72)
    assert [wire.calls.count(("GET", "/metrics")) for wire in (nodes.one, nodes.two)] == [1, 1]
    for _ in range(2):  # the first one changes nothing that a survey of a moment ago has kept
        await nodes.ports.create_collection(nodes.cell, nodes.design)
        await nodes.ports.drop_collection(nodes.cell, nodes.name)
    await nodes.ports.contents(nodes.cell)
    state = await nodes.ports.survey(nodes.cell)
    assert (state.maps_percent, state.files_percent) == (71, 72)
    await nodes.one.stop()
    assert await nodes.ports.load(nodes.cell) == CellLoad({"a": 5}, 15, 72)
    with pytest.raises(Transient, match="gave no answer to create"):
        await nodes.create()  # still sent to the node that was surveyed: a look at metrics changes no way
    await nodes.two.stop()
    with pytest.raises(Transient, match="gave no answer to read metrics"):
        await nodes.ports.load(nodes.cell)


async def test_the_breaker_takes_a_cell_for_down_only_if_every_node_is(nodes: Nodes) -> None:
    dependencies = Dependencies(lambda _: Limits(failures_to_open=2))

    async def failing() -> None:
        with pytest.raises(Transient):
            async with dependencies.slot("cell/eu-1"):
                await nodes.create()

    try:
        await nodes.ports.survey(nodes.cell)
        await nodes.one.stop()
        for _ in range(4):
            await failing()
        assert dependencies.get("cell/eu-1").state is BreakerState.CLOSED
        await nodes.two.stop()
        state = await nodes.ports.survey(nodes.cell)
        assert (state.reachable, "2 of 2 nodes asked" in state.error) == (False, True)
        for _ in range(4):
            if dependencies.get("cell/eu-1").state is BreakerState.CLOSED:
                await failing()
        assert dependencies.get("cell/eu-1").state is BreakerState.OPEN
        assert KEY not in state.error
    finally:
        dependencies.close()


async def test_a_stranger_among_the_nodes_is_seen_by_its_identity_before_anything_is_written(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = QdrantCell("stranger", folder=tmp_path_factory.mktemp("stranger"), api_key=KEY)
    await stranger.start()
    alone = CellRegistration("us-1", {}, (stranger.rest_url,), None, 1000, api_key=KEY)
    theirs = CellIdentity("prod", "us-1", "another cluster")
    cell = CellRegistration("eu-1", {}, (nodes.cell.urls[0], stranger.rest_url), None, 1000, api_key=KEY)
    try:
        await nodes.ports.claim(alone, theirs)
        await nodes.ports.claim(cell, OURS)
        assert (await nodes.ports.survey(cell)).identity == OURS
        await nodes.one.stop()
        for _ in range(3):
            with pytest.raises(Transient):
                await nodes.ports.create_collection(cell, nodes.design)
        assert (await nodes.ports.survey(cell)).identity == theirs, "what the controller refuses to write to"
        assert (await nodes.ports.survey(alone)).collections == frozenset()
    finally:
        await nodes.ports.close()
        await stranger.stop()
