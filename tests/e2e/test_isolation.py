"""One tenant's token opens nothing of another's: not at the database, not at the gateway."""

from __future__ import annotations

from typing import Any

import pytest

from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.fleet import MERCHANTS, Fleet, alias_of, tenant_manifest
from searchops_sandbox.kubernetes_api import ApiError

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


async def test_the_canary_proves_isolation_and_finds_a_database_that_lets_everybody_in(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    for name in ("alpha", "beta"):
        await fleet.condition("searchtenants", name, "Isolated", "True", "IsolationHeld")
    await cell.inject({"method": "POST", "path": "/collections/[^/]+/points/scroll", "opened": True, "count": None})
    try:
        for name in ("alpha", "beta"):
            found = await fleet.condition("searchtenants", name, "Isolated", "False", "IsolationBroken")
            assert "opened" in found["message"]
            await fleet.condition("searchtenants", name, "Ready", "False", "IsolationBroken")
        assert await _events(fleet, "IsolationBroken") >= {"alpha", "beta"}
        assert await _metric(fleet, "searchops_isolation_broken_total") >= 1
    finally:
        await cell.clear_faults()
    for name in ("alpha", "beta"):
        await fleet.condition("searchtenants", name, "Isolated", "True", "IsolationHeld")
        await fleet.condition("searchtenants", name, "Ready", "True")


async def test_a_cell_that_does_not_answer_is_no_breach_and_no_proof(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    await fleet.condition("searchtenants", "alpha", "Isolated", "True", "IsolationHeld")
    unknown = await _metric(fleet, 'searchops_isolation_canary_total{outcome="unknown"}')
    broken = await _metric(fleet, "searchops_isolation_broken_total")
    await cell.inject({"method": "POST", "path": "/collections/[^/]+/points/scroll", "status": 503, "count": None})
    try:

        async def more() -> bool:
            return await _metric(fleet, 'searchops_isolation_canary_total{outcome="unknown"}') > unknown

        await fleet.until("a visit that proves nothing", more)
        assert await _metric(fleet, "searchops_isolation_broken_total") == broken
        await fleet.condition("searchtenants", "alpha", "Isolated", "True", "IsolationHeld")
    finally:
        await cell.clear_faults()


async def test_an_entry_that_is_removed_is_revoked_at_once_and_its_secret_goes(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    manifest = tenant_manifest("alpha", region="eu")
    extra = {"name": "partner", "role": "Search", "secretName": "alpha-partner"}
    manifest["spec"]["access"].append(extra)
    await fleet.apply(manifest)
    await fleet.until("the Secret is there", lambda: _secret(fleet, "alpha-partner"))
    token = (await fleet.platform.secret(MERCHANTS, "alpha-partner"))["token"]
    path = f"/collections/{alias_of('alpha')}/points/scroll"
    opened = await fleet.ask_cell(cell, "POST", path, key=token, body=QUERY)
    assert opened["http"] == 200, opened
    manifest["spec"]["access"].pop()
    await fleet.apply(manifest)

    async def gone() -> bool:
        return not await _secret(fleet, "alpha-partner")

    await fleet.until("the Secret is gone", gone)
    async with fleet.session.post(f"{cell.rest_url}{path}", headers={"api-key": token}, json=QUERY) as answer:
        assert answer.status == 401, await answer.text()
    assert await fleet.hits("alpha")


async def test_a_register_that_somebody_drops_is_made_anew_and_every_token_opens_again(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    before = {name: await fleet.token(name, "storefront") for name in ("alpha", "beta")}
    dropped = await fleet.ask_cell(cell, "DELETE", f"/collections/{FLEET}@tokens")
    assert dropped["result"] is True, dropped
    for name, token in before.items():
        path = f"{cell.rest_url}/collections/{alias_of(name)}/points/scroll"

        async def opens(path: str = path, token: str = token) -> bool:
            async with fleet.session.post(path, headers={"api-key": token}, json=QUERY) as answer:
                return answer.status == 200

        await fleet.until(f"the token that {name} holds opens again", opens)
    assert "TokenRegisterLost" in {reason for reason, _ in await _all_events(fleet)}
    assert any("the register of tokens is gone from a cell" in line for line in _log(fleet))


async def _secret(fleet: Fleet, name: str) -> bool:
    async with fleet.platform.sandbox.api() as api:
        try:
            return bool(await api.get(f"/api/v1/namespaces/{MERCHANTS}/secrets/{name}"))
        except ApiError as error:
            if error.status == 404:
                return False
            raise


async def _all_events(fleet: Fleet) -> set[tuple[str, str]]:
    async with fleet.platform.sandbox.api() as api:
        listed = await api.get("/apis/events.k8s.io/v1/events")
    return {(item["reason"], item["regarding"]["name"]) for item in listed["items"]}


async def _events(fleet: Fleet, reason: str) -> set[str]:
    async def there() -> set[str]:
        return {name for seen, name in await _all_events(fleet) if seen == reason}

    return await fleet.until(f"an event {reason}", there)


async def _metric(fleet: Fleet, name: str) -> float:
    async with fleet.session.get(fleet.platform.pages[0]) as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def _log(fleet: Fleet) -> list[str]:
    return (fleet.platform.sandbox.folder / "operator.log").read_text().splitlines()
