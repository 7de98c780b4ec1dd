"""`TokenRegister` by the Qdrant adapter: on the sandbox's double and on QDRANT_URL's server.

Every write is done twice, and the token itself is asked whether it is valid.
"""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from searchops.adapters.access_probes import AccessProbes
from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellIdentity, CellRegistration, RegisterState, TokenGrant, Trial
from searchops.planning.token_register import grant_id
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.qdrant.replay import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = CellIdentity("prod", "eu-1", "uid-of-kube-system")


@dataclass
class Scope:
    """A register of this test's own, and a collection that tokens open."""

    cell: CellRegistration
    cells: QdrantCells
    tokens: QdrantTokens
    probes: AccessProbes
    admin: httpx.AsyncClient
    register: str = field(default_factory=lambda: f"f{uuid.uuid4().hex[:8]}@tokens")
    opened: str = field(default_factory=lambda: f"prod.shop.t{uuid.uuid4().hex[:8]}")

    def grant(self, entry: str, value: str = "v1", uid: str = "uid-1") -> TokenGrant:
        return TokenGrant(grant_id(uid, entry), f"{uid}/{entry}/{value}", uid, entry, f"acme-{entry}")

    async def read(self, uid: str = "uid-1", *, exists: bool = True) -> RegisterState:
        return await self.tokens.read(self.cell, self.register, uid, exists=exists)

    async def put(self, *grants: TokenGrant) -> None:
        await self.tokens.grant(self.cell, self.register, grants)

    async def revoke(self, *grants: TokenGrant) -> None:
        await self.tokens.revoke(self.cell, self.register, [grant.id for grant in grants])

    async def opens(self, value: str) -> Trial:
        claims = {
            "exp": int(time.time()) + 600,
            "access": [{"collection": self.opened, "access": "r"}],
            "value_exists": {"collection": self.register, "matches": [{"key": "token", "value": value}]},
        }
        return await self.probes.at_cell(self.cell, self.opened, CellKeySigner().sign(self.cell, claims))

    async def call(self, method: str, path: str, body: Any = None) -> None:
        (await self.admin.request(method, path, json=body)).raise_for_status()


@pytest_asyncio.fixture(loop_scope="module")
async def scope(server: Server) -> AsyncIterator[Scope]:
    if len(server.api_key) < 32:
        pytest.skip("tokens need a server with a key of 32 bytes")
    ticks = itertools.count(0, 10)
    cell = CellRegistration("eu-1", {}, (server.url,), None, 1000, api_key=server.api_key)
    cells = QdrantCells(now=lambda: float(next(ticks)))
    admin = httpx.AsyncClient(base_url=server.url, headers={"api-key": server.api_key})
    made = Scope(cell, cells, QdrantTokens(cells, now=lambda: 0.0), AccessProbes(), admin)
    await made.call("PUT", f"/collections/{made.opened}", {"vectors": {}})
    await cells.survey(cell)
    yield made
    for name in (made.opened, made.register):
        await made.call("DELETE", f"/collections/{name}")
    await admin.aclose()
    await made.probes.close()
    await cells.close()


async def test_it_is_made_once_with_its_owner_and_its_indexes(scope: Scope) -> None:
    for _ in range(2):
        await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    assert await scope.read() == RegisterState(True, OWNER, ())
    made = await scope.cells.describe(scope.cell, scope.register)
    assert made is not None
    assert made.indexes == {"token": "keyword", "uid": "keyword"}
    assert made.metadata["searchops.dev/register"] == "tokens"


async def test_a_register_of_somebody_else_is_neither_taken_nor_written(scope: Scope) -> None:
    await scope.call("PUT", f"/collections/{scope.register}", {"vectors": {}, "metadata": {"of": "others"}})
    with pytest.raises(Terminal) as refused:
        await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    assert refused.value.reason == "Conflict"
    assert await scope.read() == RegisterState(True, None, (), indexed=False)


async def test_a_token_lives_as_long_as_its_entry(scope: Scope) -> None:
    await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    mine, other = scope.grant("storefront"), scope.grant("indexer", uid="uid-2")
    assert await scope.opens(mine.value) is Trial.REFUSED
    for _ in range(2):
        await scope.put(mine, other)
    assert await scope.opens(mine.value) is Trial.OPENED
    assert (await scope.read()).grants == (mine,)
    assert (await scope.read("uid-2")).grants == (other,)
    for _ in range(2):
        await scope.revoke(mine)
    assert await scope.opens(mine.value) is Trial.REFUSED
    assert await scope.opens(other.value) is Trial.OPENED
    assert (await scope.read()).grants == ()


async def test_another_value_under_the_same_entry_ends_the_old_token(scope: Scope) -> None:
    await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    before, after = scope.grant("storefront"), scope.grant("storefront", "v2")
    await scope.put(before)
    await scope.put(after)
    assert await scope.opens(before.value) is Trial.REFUSED
    assert await scope.opens(after.value) is Trial.OPENED
    assert (await scope.read()).grants == (after,)


async def test_without_the_register_every_token_is_refused_and_filling_it_again_is_enough(scope: Scope) -> None:
    await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    mine = scope.grant("storefront")
    await scope.put(mine)
    await scope.call("DELETE", f"/collections/{scope.register}")
    assert await scope.opens(mine.value) is Trial.REFUSED
    assert await scope.read(exists=False) == RegisterState(exists=False)
    with pytest.raises(Transient):
        await scope.put(mine)
    await scope.cells.survey(scope.cell)
    await scope.revoke(mine)
    await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    await scope.put(mine)
    assert await scope.opens(mine.value) is Trial.OPENED


async def test_what_others_did_to_it_is_seen_after_half_a_minute(scope: Scope) -> None:
    clock = iter([0.0, 10.0, 40.0, 40.0])
    tokens = QdrantTokens(scope.cells, now=lambda: next(clock))
    await scope.tokens.prepare(scope.cell, scope.register, OWNER, 1)
    mine = scope.grant("storefront")
    await scope.put(mine)

    async def read() -> RegisterState:
        return await tokens.read(scope.cell, scope.register, "uid-1", exists=True)

    assert (await read()).grants == (mine,)
    await scope.call("POST", f"/collections/{scope.register}/points/delete?wait=true", {"points": [mine.id]})
    assert (await read()).grants == (mine,)
    assert (await read()).grants == ()


async def test_a_key_is_accepted_or_refused_by_a_node_or_neither_is_known(scope: Scope) -> None:
    (url,) = scope.cell.urls
    assert await scope.probes.accepts(scope.cell, url, scope.cell.api_key) is True
    assert await scope.probes.accepts(scope.cell, url, "x" * 40) is False
    assert await scope.probes.accepts(scope.cell, "http://127.0.0.1:9", scope.cell.api_key) is None
    assert await scope.probes.accepts(scope.cell, url, "not\nprintable") is None
    assert await scope.probes.at_gateway("http://127.0.0.1:9", "shop.acme", "token") is Trial.UNKNOWN
    assert await scope.probes.at_cell(scope.cell, "no-such-name", scope.cell.api_key) is Trial.UNKNOWN
