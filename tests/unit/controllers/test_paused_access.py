"""A paused tenant through a rotation and past its tokens' half life: its shop goes on, its declaration waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt

from searchops.adapters.tokens import CellKeySigner
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ACCESS, TENANT, TenantWorld, revision

OLD, NEW = "k" * 40, "n" * 40


async def paused(**spec: Any) -> TenantWorld:
    """Provisioned first, then paused, and changed while it is."""
    world = TenantWorld()
    world.signer = CellKeySigner()
    world.start()
    world.set_model(revision(1))
    world.apply_tenant()
    world.write_document(1)
    await world.settle()
    world.apply_tenant(paused=True, **spec)
    await world.settle()
    assert world.raw is not None
    assert world.raw["status"]["phase"] == "Paused"
    return world


def claims(world: TenantWorld, secret: str, key: str) -> dict[str, Any]:
    """Of the token that a Secret holds; raises where another key signed it."""
    token = world.secrets.data[Key("shop", secret)]["token"]
    read: dict[str, Any] = jwt.decode(token, key, algorithms=["HS256"], options={"verify_exp": False})
    return read


async def test_a_rotation_signs_its_tokens_anew_with_the_rights_they_had() -> None:
    world = await paused(access=[{**ACCESS[0], "role": "Index"}, ACCESS[1]])
    before = {secret: claims(world, secret, OLD)["access"] for secret in ("acme-storefront", "acme-indexer")}
    world.keys.key = NEW
    await world.settle()
    after = {secret: claims(world, secret, NEW)["access"] for secret in before}
    assert after == before
    assert [item["access"] for item in after["acme-storefront"]] == ["r"], "the changed role waits for the pause's end"
    writes = len(world.cells.writes), len(world.api.writes)
    await world.settle()
    assert (len(world.cells.writes), len(world.api.writes)) == writes
    world.apply_tenant(access=[{**ACCESS[0], "role": "Index"}, ACCESS[1]])
    await world.settle()
    assert {item["access"] for item in claims(world, "acme-storefront", NEW)["access"]} == {"prw"}


async def test_its_tokens_are_renewed_at_half_life_and_nothing_of_its_data_moves() -> None:
    world = await paused(languages=["de"])
    ends = claims(world, "acme-storefront", OLD)["exp"]
    collections = {name: dict(found.metadata) for name, found in world.server.collections.items()}
    world.now += timedelta(days=20)
    await world.settle()
    assert claims(world, "acme-storefront", OLD)["exp"] > ends
    assert {name: dict(found.metadata) for name, found in world.server.collections.items()} == collections
    assert ("searchtenants", TENANT) in world.api.objects
