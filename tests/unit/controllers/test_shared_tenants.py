"""Tenants that share a collection, pass by pass: two writes, tokens for the gateway, a query that it answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from searchops.api.observed import Trial
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ACCESS, ALIAS, TenantWorld

SECRETS = [Key("shop", "acme-storefront"), Key("shop", "acme-indexer")]
TIERS = pytest.mark.parametrize("tier", ["Shared", "ShardKey"])


async def shared(tier: str = "Shared", **spec: Any) -> TenantWorld:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant(isolation=tier, **spec)
    await world.settle()
    return world


@TIERS
async def test_a_shared_tenant_is_made_with_two_writes_and_no_way_to_the_database(tier: str) -> None:
    world = await shared(tier)
    assert world.api.writes == ["searchtenants/metadata", "searchtenants/status"]
    assert world.condition("Ready") == ("True", "Ready")
    assert world.raw is not None
    assert world.raw["status"]["isolation"] == {"mode": tier, "enforcedBy": "Gateway"}
    for key in SECRETS:
        assert set(world.secrets.data[key]) == {"gateway", "alias", "token", "expiresAt"}
        assert world.secrets.secrets[key].key_id.startswith("gateway-")
    assert world.trials.asked[-1] == ("https://search.example", "shop.acme")
    assert world.keys.seen[("shop", "acme")] == (), "a cell's rotation does not wait for keys that are no cell's"
    assert world.cells.broken == []


async def test_it_is_not_ready_while_the_gateway_refuses_it() -> None:
    world = await shared()
    world.trials.answer = Trial.REFUSED
    world.now += timedelta(hours=1)
    await world.step()
    assert world.condition("Searchable") == ("False", "SearchFailed")
    assert world.condition("Ready") == ("False", "SearchFailed")
    conditions = (world.raw or {})["status"]["conditions"]
    message = next(item["message"] for item in conditions if item["type"] == "Searchable")
    assert "refuses it" in message
    assert "acme-storefront" in message
    world.trials.answer = Trial.OPENED
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_silence_of_the_gateway_is_no_answer_to_a_new_tenant_and_takes_nothing_from_an_old_one() -> None:
    world = TenantWorld()
    world.trials.answer = Trial.UNKNOWN
    world.set_model()
    world.apply_tenant(isolation="Shared")
    for _ in range(6):
        await world.step()
    assert world.condition("Ready") == ("False", "SearchFailed")
    world.trials.answer = Trial.OPENED
    await world.settle()
    world.trials.answer = Trial.UNKNOWN
    writes = len(world.api.writes)
    assert await world.step() is None
    assert world.condition("Ready") == ("True", "Ready")
    assert len(world.api.writes) == writes


async def test_a_tenant_without_entries_is_ready_and_nobody_is_asked() -> None:
    world = await shared(access=[])
    assert world.condition("Searchable") == ("Unknown", "NotConfigured")
    assert world.condition("Ready") == ("True", "Ready")
    assert world.trials.asked == []
    assert await world.step() is None


async def test_a_restart_without_the_gateways_key_takes_nothing_away_and_revokes_what_is_removed() -> None:
    world = await shared()
    world.gateway_keys.now = None
    world.start()
    writes = len(world.api.writes)
    await world.step()
    assert world.condition("Ready") == ("True", "Ready")
    assert len(world.api.writes) == writes
    world.apply_tenant(isolation="Shared", access=ACCESS[:1])
    for _ in range(4):
        await world.step()
    assert [grant.entry for grant in (world.server.grants or {}).values()] == ["storefront"]
    assert Key("shop", "acme-indexer") not in world.secrets.secrets


async def test_a_move_between_tiers_ends_what_the_other_key_has_signed() -> None:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    await world.settle()
    before = {grant.entry: grant.value for grant in (world.server.grants or {}).values()}
    for tier in ("Shared", "Collection"):
        world.apply_tenant(isolation=tier)
        await world.settle()
        assert (world.raw or {})["status"]["isolation"]["mode"] == tier
        after = {grant.entry: grant.value for grant in (world.server.grants or {}).values()}
        assert set(after) == set(before)
        assert all(after[entry] != before[entry] for entry in before), tier
        before = after


async def test_a_tenant_that_only_writes_is_asked_for_with_its_writers_token() -> None:
    world = await shared(access=ACCESS[1:])
    assert world.condition("Ready") == ("True", "Ready")
    assert world.trials.asked


async def test_without_the_gateways_key_it_waits_and_a_new_key_signs_anew() -> None:
    world = TenantWorld()
    world.gateway_keys.now = None
    world.set_model()
    world.apply_tenant(isolation="Shared")
    for _ in range(6):
        await world.step()
    assert world.secrets.data == {}
    assert world.condition("AccessReady") == ("Unknown", "Waiting")
    world.gateway_keys.now = "g" * 40
    await world.settle()
    first = {key: world.secrets.secrets[key].key_id for key in SECRETS}
    assert world.condition("Ready") == ("True", "Ready")
    world.gateway_keys.now = "h" * 40
    await world.settle()
    assert all(world.secrets.secrets[key].key_id != first[key] for key in SECRETS)
    assert world.secrets.created == [key.name for key in SECRETS], "written over, not made anew"


async def test_a_deleted_one_is_swept_and_the_name_is_free() -> None:
    world = await shared(deletionPolicy="Delete", undeleteWindow="1h")
    world.write_document(1)
    world.api.delete("searchtenants", Key("shop", "acme"))
    world.api.deliver()
    for _ in range(4):
        await world.step()
    assert world.raw is None
    assert ALIAS not in world.server.aliases
    assert set(world.server.collections) == {f"{ALIAS}@g1"}
    world.now += timedelta(hours=2)
    assert await world.sweeper().run_once() == 1
    assert world.server.collections == {}


async def test_a_tenant_with_a_collection_of_its_own_never_asks_for_the_gateways_key() -> None:
    """Each question for a key that is not there wakes its keeper, which reads every cell."""
    world = TenantWorld()
    world.gateway_keys.now = None
    world.set_model()
    world.apply_tenant()
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.gateway_keys.asked == 0
    world.apply_tenant(isolation="Shared")
    await world.settle()
    assert world.gateway_keys.asked > 0
