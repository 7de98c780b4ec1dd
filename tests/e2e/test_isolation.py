"""One tenant's token opens nothing of another's: not at the database, not at the gateway."""

from __future__ import annotations

from typing import Any

import pytest

from searchops_sandbox.fleet import Fleet, alias_of

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

QUERY: dict[str, Any] = {"limit": 1}


@pytest.mark.parametrize("entry", ["storefront", "indexer"])
async def test_the_database_refuses_another_tenants_token(
    fleet: Fleet, merchants: tuple[str, str, str], entry: str
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    token = await fleet.token("alpha", entry)
    paths = {name: f"/collections/{alias_of(name)}/points/scroll" for name in ("alpha", "beta")}
    own = await fleet.ask_cell(cell, "POST", paths["alpha"], key=token, body=QUERY)
    assert own["http"] == 200, own
    assert len(own["result"]["points"]) == 1
    other = await fleet.ask_cell(cell, "POST", paths["beta"], key=token, body=QUERY)
    assert other["http"] == 403, other
    physical = (await fleet.aliases(cell))[alias_of("beta")]
    for name in (physical, f"{alias_of('beta')}@a", f"{alias_of('beta')}@b"):
        answer = await fleet.ask_cell(cell, "POST", f"/collections/{name}/points/scroll", key=token, body=QUERY)
        assert answer["http"] == 403, (name, answer)


async def test_a_storefronts_token_writes_nothing(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    token = await fleet.token("alpha", "storefront")
    path = f"/collections/{alias_of('alpha')}/points/delete"
    answer = await fleet.ask_cell(cell, "POST", path, key=token, body={"filter": {}})
    assert answer["http"] == 403, answer
    status, said = await fleet.gateway("PUT", "alpha", "/products", token, data=b'{"id": "x", "title": "x"}\n')
    assert status in (401, 403), said
    assert await fleet.hits("alpha")


async def test_the_gateway_refuses_another_tenants_token(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    body = {"query": "nut", "limit": 1}
    for mine, theirs in (("alpha", "beta"), ("beta", "alpha"), ("alpha", "gamma")):
        status, said = await fleet.gateway("POST", theirs, "/search", await fleet.token(mine, "storefront"), body=body)
        assert status in (401, 403), said
        assert "hits" not in said
        indexer = await fleet.token(mine, "indexer")
        status, said = await fleet.gateway("PUT", theirs, "/products", indexer, data=b'{"id": "x", "title": "x"}\n')
        assert status in (401, 403), said


async def test_no_token_opens_the_cell_itself(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    token = await fleet.token("alpha", "indexer")
    created = await fleet.ask_cell(cell, "PUT", "/collections/mine", key=token, body={"vectors": {}})
    assert created["http"] == 403, created
    dropped = await fleet.ask_cell(cell, "DELETE", f"/collections/{alias_of('alpha')}", key=token)
    assert dropped["http"] == 403, dropped
    assert await fleet.hits("alpha")
