"""An operator whose clock is ten minutes away from its cell's: tokens open from their first moment, and stay open.

Controller, signer and adapter are the operator's own, the server is the double or QDRANT_URL's with this machine's
clock; only the operator's is moved.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellRegistration
from searchops.planning.clocks import CLOCK_SKEW
from searchops.planning.names import tokens_collection
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld

if TYPE_CHECKING:
    from searchops_sandbox.qdrant.replay import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _world() -> Any:
    """The in-memory world, some of whose parts are replaced by real ones."""
    return TenantWorld()


async def passes(world: Any) -> None:
    for _ in range(12):
        wait = await world.step()
        if wait is None or wait > 0:
            return
    raise AssertionError("twelve passes were not enough")


@pytest.mark.parametrize("minutes", [-10, 10], ids=lambda minutes: f"{minutes} min")
async def test_a_tenant_is_made_searched_and_deleted_with_clocks_ten_minutes_apart(
    server: Server, minutes: int
) -> None:
    world, ports = _world(), QdrantCells()
    world.now = datetime.now(UTC) + timedelta(minutes=minutes)
    world.skew = CLOCK_SKEW
    world.cells, world.signer, world.register = ports, CellKeySigner(), QdrantTokens(ports)
    cell = CellRegistration("eu-1", {}, (server.url,), server.grpc_port, 1000, api_key=server.api_key)
    world.directory.registered = {"eu-1": cell}
    world.start()
    try:
        world.set_model()
        world.apply_tenant(deletionPolicy="Delete", undeleteWindow="1m")
        await passes(world)
        assert world.condition("Searchable") == ("True", "Searchable"), "with the tenant's own token"
        assert world.condition("Ready") == ("True", "Ready")
        token = world.secrets.data[Key("shop", "acme-indexer")]["token"]
        url = f"{server.url}/collections/{ALIAS}/points/count"
        async with httpx.AsyncClient() as client:
            answer = await client.post(url, json={"exact": True}, headers={"api-key": token})
        assert answer.status_code == 200, answer.text
        world.apply_tenant(access=[], deletionPolicy="Delete", undeleteWindow="1m")
        await passes(world)
        assert world.condition("Ready") == ("True", "Ready"), "asked with a token that is signed for the moment"
        world.api.delete("searchtenants", TENANT)
        world.api.deliver()
        await passes(world)
        assert world.raw is None
        world.now += timedelta(minutes=1)
        assert await world.sweeper().run_once() == 0, "by another's clock its window may not be over"
        world.now += CLOCK_SKEW
        assert await world.sweeper().run_once() == 1
        assert await ports.describe(cell, f"{ALIAS}@g1") is None
    finally:
        for name in (f"{ALIAS}@g1", MARKER, tokens_collection("prod")):
            await ports.drop_collection(cell, name)
        await ports.close()
