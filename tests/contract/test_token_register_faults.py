"""The register of tokens on the wire: every call fails once in every way, and the next passes come to the same end."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from contract.wire import HOWS, READ_HOWS, Wire
from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.api.observed import CellIdentity, CellRegistration, TokenGrant
from searchops.planning.token_register import grant_id
from searchops.runtime.errors import ReconcileError, Transient
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from contract.wire import How

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "register-faults-key-of-32-characters!!"
OWNER = CellIdentity("prod", "eu-1", "uid-of-kube-system")
MOST_PASSES = 4


class Scene:
    """What a tenant's passes do with the register, over a wire that fails where it is told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.cell = CellRegistration("eu-1", {}, (f"http://127.0.0.1:{wire.port}",), None, 1000, api_key=KEY)
        self.name = f"f{uuid.uuid4().hex[:8]}@tokens"
        ticks = itertools.count(0, 40)
        self.cells = QdrantCells(timeout=1.0, now=lambda: float(next(ticks)))
        self.tokens = QdrantTokens(self.cells, now=lambda: float(next(ticks)))
        self.said: list[str] = []
        self.lived: list[tuple[str, str]] = []

    async def once(self, wanted: set[TokenGrant]) -> None:
        """One pass: what a tenant's plan would do with what it reads."""
        state = await self.cells.survey(self.cell)
        if not state.reachable:
            raise Transient(state.error)
        seen = await self.tokens.read(self.cell, self.name, "uid-1", exists=self.name in state.collections)
        if seen.owner is None or not seen.indexed:
            await self.tokens.prepare(self.cell, self.name, OWNER, 1)
        missing, extra = wanted - set(seen.grants), set(seen.grants) - wanted
        if missing:
            await self.tokens.grant(self.cell, self.name, sorted(missing, key=lambda grant: grant.id))
        replaced = {grant.id for grant in missing}
        gone = sorted({grant.id for grant in extra} - replaced)
        if gone:
            await self.tokens.revoke(self.cell, self.name, gone)

    async def settle(self, wanted: set[TokenGrant]) -> int:
        """Passes until one ends well; returns how many."""
        for number in range(1, MOST_PASSES + 1):
            try:
                await self.once(wanted)
            except ReconcileError as error:
                self.said.append(repr(error))
                continue
            return number
        raise AssertionError(f"no pass of {MOST_PASSES} ended well: {self.said}")

    async def stands(self) -> dict[str, Any]:
        """What the database holds, asked past the wire."""
        async with httpx.AsyncClient(base_url=self.wire.upstream, headers={"api-key": KEY}) as client:
            info = (await client.get(f"/collections/{self.name}")).json()["result"]
            scroll = {"limit": 100, "with_payload": True}
            points = (await client.post(f"/collections/{self.name}/points/scroll", json=scroll)).json()["result"]
        return {
            "indexes": sorted(info["payload_schema"]),
            "owner": info["config"]["metadata"],
            "points": {item["id"]: item["payload"] for item in points["points"]},
        }

    def taken(self, method: str, end: str) -> int:
        """How many requests of this kind took effect."""
        return sum((m, path.endswith(end), status) == (method, True, 200) for m, path, status in self.wire.answered)


def grant(entry: str, value: str = "v1") -> TokenGrant:
    return TokenGrant(grant_id("uid-1", entry), f"uid-1/{entry}/{value}", "uid-1", entry, f"acme-{entry}")


STEPS = (
    {grant("storefront"), grant("indexer")},
    {grant("storefront"), grant("indexer", "v2")},
    {grant("storefront")},
)
"""Entered, one of them renewed, one of them removed."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    cell = QdrantCell("register", folder=tmp_path_factory.mktemp("cell"), api_key=KEY)
    await cell.start()
    yield cell
    await cell.stop()


async def lived(double: QdrantCell, fault: tuple[int, How] | None) -> tuple[Scene, list[int], dict[str, Any]]:
    """A register's life over a wire with one fault; how many passes each step took, and what stands in the end."""
    wire = Wire(double.rest_url)
    await wire.start()
    scene = Scene(wire)
    wire.fault = fault
    try:
        passes = [await scene.settle(wanted) for wanted in STEPS]
        scene.lived = list(wire.calls)
        stands = await scene.stands()
        wire.fault = None
        seen = await scene.tokens.read(scene.cell, scene.name, "uid-1", exists=True)
        assert set(seen.grants) == STEPS[-1], "what the operator believes is what stands"
        assert all(KEY not in said for said in scene.said)
        return scene, passes, stands
    finally:
        async with httpx.AsyncClient(base_url=double.rest_url, headers={"api-key": KEY}) as client:
            await client.delete(f"/collections/{scene.name}")
        await scene.cells.close()
        await wire.stop()


def made_once(scene: Scene) -> tuple[int, int]:
    """Effects that must not be doubled: the collection, and the entries that were written."""
    creates = scene.taken("PUT", scene.name)
    return creates, scene.taken("PUT", "/points")


def is_read(call: tuple[str, str]) -> bool:
    method, path = call
    return method == "GET" or (method == "POST" and path.endswith(("/points", "/points/scroll")))


async def test_a_life_without_faults_takes_a_pass_a_step(double: QdrantCell) -> None:
    plain, passes, stands = await lived(double, None)
    assert (passes, made_once(plain)) == ([1, 1, 1], (1, 2))
    payload = {"token": "uid-1/storefront/v1", "uid": "uid-1", "entry": "storefront", "secret": "acme-storefront"}
    assert stands["points"] == {grant("storefront").id: payload}
    assert stands["indexes"] == ["token", "uid"]


@pytest.mark.parametrize("how", HOWS)
async def test_every_call_fails_once_and_the_next_pass_converges_with_nothing_done_twice(
    double: QdrantCell, how: How
) -> None:
    plain, _, wanted = await lived(double, None)
    met, read = 0, set()
    for at, call in enumerate(plain.lived):
        if is_read(call) and (how not in READ_HOWS or call in read):
            continue
        read.add(call)
        scene, passes, stands = await lived(double, (at, how))
        said = f"call {at} {call} failed {how}: {scene.said}"
        assert stands == wanted, said
        assert made_once(scene) == (1, 2), said
        assert sum(passes) <= len(STEPS) + 1, said
        met += bool(scene.said)
    assert met or how in ("reset-after", "late-after", "half-after", "error-after"), "a lost request needs another pass"
