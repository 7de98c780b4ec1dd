"""A tenant goes as its policy says: Retain keeps the data with a note, Delete drops it after its window, no other's."""

from __future__ import annotations

import pytest

from searchops_sandbox.fleet import MERCHANTS, Fleet, alias_of, tenant_manifest
from searchops_sandbox.kubernetes_api import ApiError

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def _leave(fleet: Fleet, name: str, policy: str, window: str) -> tuple[str, str]:
    """Make a tenant with products, delete it; returns its collection and its storefront's token."""
    await fleet.apply(tenant_manifest(name, region="eu", policy=policy, undelete_window=window))
    await fleet.condition("searchtenants", name, "Ready", "True")
    status, answer = await fleet.index(name)
    assert status == 200, answer
    collection = (await fleet.aliases(fleet.platform.sandbox.cells["eu-1"]))[alias_of(name)]
    token = await fleet.token(name, "storefront")
    await fleet.delete("searchtenants", name)
    return collection, token


async def _secret_is_there(fleet: Fleet, name: str) -> bool:
    async with fleet.platform.sandbox.api() as api:
        try:
            await api.get(f"/api/v1/namespaces/{MERCHANTS}/secrets/{name}")
        except ApiError as error:
            assert error.status == 404
            return False
    return True


async def test_retain_keeps_the_collection_with_its_note(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    collection, token = await _leave(fleet, "retained", "Retain", "1s")
    assert not [alias for alias in await fleet.aliases(cell) if alias.startswith(alias_of("retained"))]
    answer = await fleet.ask_cell(cell, "GET", f"/collections/{collection}")
    metadata = answer["result"]["config"]["metadata"]
    assert metadata["searchops.dev/policy"] == "Retain"
    assert "searchops.dev/deleted-at" in metadata
    assert "searchops.dev/drop-after" not in metadata
    assert answer["result"]["points_count"] == 56
    assert await _secret_is_there(fleet, "retained-storefront")
    await _not_searchable(fleet, "retained", token)


async def test_delete_drops_the_collection_after_its_window_and_nothing_else(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    others = await fleet.collections(cell)
    before = {name: await fleet.hits(name) for name in merchants}
    collection, token = await _leave(fleet, "dropped", "Delete", "12s")
    assert collection in await fleet.collections(cell), "dropped before its window was over"
    assert not await _secret_is_there(fleet, "dropped-storefront")
    await _not_searchable(fleet, "dropped", token)

    async def dropped() -> bool:
        return collection not in await fleet.collections(cell)

    await fleet.until(f"{collection} is dropped", dropped)
    assert await fleet.collections(cell) == others
    assert {name: await fleet.hits(name) for name in merchants} == before


async def _not_searchable(fleet: Fleet, name: str, token: str) -> None:
    """The gateway may go on for as long as it keeps a binding; then the tenant is gone."""

    async def refused() -> bool:
        status, _ = await fleet.gateway("POST", name, "/search", token, body={"query": "nut", "limit": 1})
        return 400 <= status < 500

    await fleet.until(f"{name} is not searchable", refused, seconds=30)
