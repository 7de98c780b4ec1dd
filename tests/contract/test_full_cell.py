"""A cell that is out of disk or memory, on the wire: who is told, what proves room, what is never taken for it.

Only the sandbox's double can be told to be full.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from contract.wired_scene import OWNER, WiredScene
from searchops.adapters.cell_room import QdrantRoom
from searchops.adapters.qdrant import MARKER
from searchops.api.observed import CellIdentity, CellRegistration, CollectionDesign, StrictMode
from searchops.runtime.errors import NotReady, Transient
from unit.controllers import test_cell_room_rounds as rounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from contract.wire import Wire
    from searchops_sandbox.qdrant.cell import QdrantCell

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = CellIdentity("prod", "eu-1", "uid-of-kube-system")
STRICT = StrictMode(3, 4_000_000, 4_000_000_000, 4_000_000_000, 256, 100)
PROOF = ("PUT", f"/collections/{MARKER}/points")


class Scene(WiredScene):
    """With the room of the cell, and a listener who hears of a full cell as it is met."""

    def __init__(self, double: QdrantCell, wire: Wire) -> None:
        super().__init__(double, wire)
        self.listen: Callable[[str, str], object] = lambda cell, said: None
        self.room = QdrantRoom(self.ports)

    def full(self, cell: str, said: str) -> None:
        super().full(cell, said)
        self.listen(cell, said)

    async def create(self) -> None:
        design = CollectionDesign(self.name, (("d-one", 4),), ("lex-01234567",), (), 1, 1, STRICT, OWNER)
        await self.ports.create_collection(self.cell, design)

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"api-key": self.double.api_key}
        async with httpx.AsyncClient(base_url=self.double.rest_url, headers=headers) as client:
            return await client.request(method, path, json=body)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(double: QdrantCell, wire: Wire) -> AsyncIterator[Scene]:
    made = Scene(double, wire)
    yield made
    await made.close()


async def test_a_full_cell_refuses_what_takes_room_in_the_servers_form_and_serves_on(scene: Scene) -> None:
    await scene.create()
    await scene.double.fill()
    point = {"id": 1, "vector": {"d-one": [1, 0, 0, 0]}}
    refused = await scene.ask("PUT", f"/collections/{scene.name}/points", {"points": [point]})
    assert refused.status_code == 507
    assert refused.json()["status"]["error"].startswith("Quota exceeded")
    assert (await scene.ask("GET", f"/collections/{scene.name}")).status_code == 200
    asked = await scene.ask(
        "POST", f"/collections/{scene.name}/points/query", {"query": [1, 0, 0, 0], "using": "d-one"}
    )
    assert asked.status_code == 200
    removed = await scene.ask("POST", f"/collections/{scene.name}/points/delete", {"points": [1]})
    assert removed.status_code == 200, "who removes something gives room"
    await scene.double.clear_faults()
    assert (await scene.ask("PUT", f"/collections/{scene.name}/points", {"points": [point]})).status_code == 200


@pytest.mark.parametrize(
    ("status", "said"), [(507, "Quota exceeded"), (500, "Service internal error: No space left on device: WAL buffer")]
)
async def test_a_refused_write_is_told_at_once_and_sent_once(scene: Scene, status: int, said: str) -> None:
    path = f"/collections/{scene.name}"
    await scene.double.inject({"method": "PUT", "path": path, "status": status, "message": said, "count": None})
    with pytest.raises(NotReady) as refused:
        await scene.create()
    assert refused.value.reason == "CellFull"
    ((cell, told),) = scene.told
    assert (cell, told) == ("eu-1", refused.value.message)
    assert said in told
    assert scene.double.api_key not in told
    assert scene.wire.requests == [("PUT", f"/collections/{scene.name}")]


async def test_one_collections_own_quota_is_never_taken_for_the_cells(scene: Scene) -> None:
    await scene.create()
    points = [{"id": number, "vector": {"d-one": [1, 0, 0, number]}} for number in range(1, 4)]
    assert (
        await scene.ask("PUT", f"/collections/{scene.name}/points?wait=true", {"points": points})
    ).status_code == 200
    refused = await scene.ask("PUT", f"/collections/{scene.name}/points?wait=true", {"points": points})
    assert (refused.status_code, "Max points count limit" in refused.text) == (400, True)
    for status in (400, 429, 413, 500, 503):
        index = f"/collections/{scene.name}/index"
        await scene.double.inject({"method": "PUT", "path": index, "status": status, "retry_after": 1})
        with pytest.raises((Transient, NotReady)) as other:
            await scene.ports.create_index(scene.cell, scene.name, f"field{status}", "keyword")
        assert getattr(other.value, "reason", "") != "CellFull"
    assert scene.told == []


async def test_a_write_that_is_taken_proves_room_and_one_that_is_refused_does_not(scene: Scene) -> None:
    await scene.ports.claim(scene.cell, OURS)
    scene.wire.requests.clear()
    await scene.double.fill()
    assert await scene.room.try_room(scene.cell, OURS) is False
    await scene.double.clear_faults()
    for _ in range(2):
        assert await scene.room.try_room(scene.cell, OURS) is True
    read_back = ("POST", f"/collections/{MARKER}/points")
    assert scene.wire.requests == [PROOF, PROOF, read_back, PROOF, read_back]
    state = await scene.ports.survey(scene.cell)
    assert state.identity == OURS, "the marker says what it said"


async def test_nothing_is_written_to_a_strangers_cell_and_an_unclaimed_one_is_claimed_first(scene: Scene) -> None:
    assert await scene.room.try_room(scene.cell, OURS) is True
    assert (await scene.ports.survey(scene.cell)).identity == OURS
    scene.wire.requests.clear()
    assert await scene.room.try_room(scene.cell, replace(OURS, fleet="staging")) is None
    assert scene.wire.requests == []


@pytest.mark.parametrize("proofs", [0, 1])
@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ({"drop": "before-effect"}, None),
        ({"drop": "after-effect"}, True),
        ({"status": 500, "message": "panic"}, None),
        ({"status": 503, "message": "shard unavailable"}, None),
        ({"status": 429, "retry_after": 3}, None),
        ({"status": 403}, None),
        ({"latency": 1.4}, None),
    ],
)
async def test_a_lost_answer_proves_room_only_where_a_read_shows_this_very_write(
    scene: Scene, fault: dict[str, Any], wanted: bool | None, proofs: int
) -> None:
    await scene.ports.claim(scene.cell, OURS)
    for _ in range(proofs):
        assert await scene.room.try_room(scene.cell, OURS) is True
    scene.wire.requests.clear()
    await scene.double.inject({"method": PROOF[0], "path": PROOF[1], **fault})
    assert await scene.room.try_room(scene.cell, OURS) is wanted
    assert scene.wire.requests.count(PROOF) == 1, "one write, whatever became of it"
    assert await scene.room.try_room(scene.cell, OURS) is True, "the next pass finds out"


@pytest.mark.parametrize("read", ["/collections", "/aliases", f"/collections/{MARKER}"])
async def test_a_read_that_fails_proves_nothing_and_writes_nothing(scene: Scene, read: str) -> None:
    await scene.ports.claim(scene.cell, OURS)
    scene.wire.requests.clear()
    await scene.double.inject({"method": "GET", "path": read, "status": 503})
    assert await scene.room.try_room(scene.cell, OURS) is None
    assert scene.wire.requests == []


async def test_where_the_metrics_cannot_be_read_the_write_alone_tells(scene: Scene) -> None:
    await scene.ports.claim(scene.cell, OURS)
    await scene.double.inject({"method": "GET", "path": "/metrics", "status": 403})
    assert await scene.room.try_room(scene.cell, OURS) is True


class Held(rounds.Scene):
    """The holds of the operator over a real wire, with a clock of the test's own."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene
        self.registered = {"eu-1": scene.cell}
        scene.listen = self.rooms.full

    async def try_room(self, cell: CellRegistration, identity: CellIdentity) -> bool | None:
        self.tried.append((cell.name, identity))
        return await self.scene.room.try_room(cell, identity)


async def test_a_cell_is_held_from_its_first_refusal_until_it_takes_a_write_again(scene: Scene) -> None:
    held = Held(scene)
    await scene.double.fill()
    for _ in range(3):
        with pytest.raises(NotReady):
            await scene.create()
    assert [reason for _, reason, _, _ in held.events] == ["CellFull"]
    await held.later(minutes=1)
    assert (len(held.tried), set(await held.rooms.holds())) == (1, {"eu-1"})
    await scene.double.clear_faults()
    await held.later(seconds=30)
    assert (len(held.tried), set(await held.rooms.holds())) == (1, {"eu-1"}), "it is asked in its turn"
    await held.later(minutes=2)
    assert (len(held.tried), dict(await held.rooms.holds())) == (2, {})
    assert [reason for _, reason, _, _ in held.events] == ["CellFull", "CellHasRoom"]
    await scene.create()
