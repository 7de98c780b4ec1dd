"""Slices of shared collections by the adapter: on the sandbox's double and on QDRANT_URL's server.

Every write is done twice: the second must be a success that changes nothing. What is done to one tenant must leave the
other as it is, also where both have products of the same names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from qdrant_client import models

from searchops.api.shared import KEY_LAYOUT, KEY_SHARED, RECORD_PREFIX, TENANT_KEY, record_key
from searchops.planning.schema import SHARED_STRICT
from searchops.runtime.errors import Terminal
from searchops_sandbox.qdrant.contract import servers_in_cluster_mode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from contract.shared_parts import SharedScene
    from searchops.api.observed import Tier
    from searchops_sandbox.qdrant.replay import Server

from contract.shared_parts import DENSE, OTHER, PRODUCTS, make_scene

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("server", servers_in_cluster_mode(), indirect=True, scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module", params=["Shared", "ShardKey"])
async def scene(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[SharedScene]:
    found = make_scene(server, request.param)
    yield found
    await found.clear()


async def test_a_slice_looks_like_a_collection_of_its_own(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    await scene.ports.create_collection(scene.cell, scene.design("acme"))
    (collection,) = await scene.shared()
    found = await scene.seen(name)
    assert (found.name, found.points, dict(found.dense), set(found.sparse)) == (name, 0, {DENSE: 4}, {"lex-01234567"})
    assert (found.strict, found.layout, found.tier, found.shards) == (SHARED_STRICT, "0a1b2c3d", scene.tier, 1)
    assert dict(found.indexes) == {"_deleted": "integer"}, "the index that tells tenants apart is not the tenant's"
    assert dict(found.metadata) == dict(scene.design("acme").metadata)
    state = await scene.ports.survey(scene.cell)
    assert (state.shared, state.slices, name in state.collections) == (frozenset({collection}), 1, True)
    assert state.held == len((await scene.raw.survey(scene.cell)).collections), "a slice takes no room"
    assert await scene.aliases() == {scene.alias("acme"): name, f"{scene.alias('acme')}@b": name}
    assert await scene.stored_aliases() == {}, "no alias ever points to a shared collection"
    assert scene.made == ["eu-1"]


async def test_the_shared_collection_is_made_for_tenants(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    address = await scene.address(name)
    info = await scene.admin.get_collection(address.collection)
    config, index = info.config, info.payload_schema[TENANT_KEY]
    assert (config.hnsw_config.m, config.hnsw_config.payload_m) == (0, 16)
    assert isinstance(index.params, models.KeywordIndexParams)
    assert index.params.is_tenant
    metadata = config.metadata or {}
    own = {key: value for key, value in metadata.items() if not key.startswith(RECORD_PREFIX)}
    assert own == {"searchops.dev/fleet": scene.fleet, KEY_SHARED: scene.tier, KEY_LAYOUT: "0a1b2c3d"}
    keys = (await scene.admin.list_shard_keys(address.collection)).shard_keys if scene.tier == "ShardKey" else []
    assert [item.key for item in keys or []] == [address.key] * (scene.tier == "ShardKey")


async def test_two_tenants_with_the_same_products_share_a_collection_and_nothing_else(scene: SharedScene) -> None:
    first, second = await scene.provision("acme"), await scene.provision("bolt")
    assert len(await scene.shared()) == 1
    await scene.write(first)
    await scene.write(second)
    for name in (first, second):
        assert (await scene.seen(name)).points == len(PRODUCTS)
        assert await scene.ports.count(scene.cell, name) == len(PRODUCTS)
        assert await scene.ports.count(scene.cell, name, lacking=DENSE) == 0
    for _ in range(2):
        await scene.ports.drop_collection(scene.cell, first)
    assert await scene.ports.describe(scene.cell, first) is None
    assert (await scene.seen(second)).points == len(PRODUCTS)
    assert scene.alias("acme") not in await scene.aliases()
    assert len(await scene.shared()) == 1, "the collection is everybody's, and stays"


async def test_a_shared_collection_is_never_dropped(scene: SharedScene) -> None:
    await scene.provision("acme")
    (collection,) = await scene.shared()
    with pytest.raises(Terminal, match="holds many tenants"):
        await scene.ports.drop_collection(scene.cell, collection)
    assert await scene.shared() == [collection]


async def test_a_vector_of_one_tenant_is_taken_from_its_points_alone(scene: SharedScene) -> None:
    first, second = await scene.provision("acme"), await scene.provision("bolt")
    for name in (first, second):
        for _ in range(2):
            await scene.ports.add_vector(scene.cell, name, OTHER, 4)
        await scene.write(name, DENSE, OTHER)
    for _ in range(2):
        await scene.ports.remove_vector(scene.cell, first, OTHER)
    assert dict((await scene.seen(first)).dense) == {DENSE: 4}
    assert await scene.ports.count(scene.cell, second, lacking=OTHER) == 0, "the other tenant's is there still"
    await scene.ports.remove_vector(scene.cell, second, OTHER)
    address = await scene.address(second)
    assert OTHER not in (await scene.raw.describe(scene.cell, address.collection)).dense  # type: ignore[union-attr]
    assert await scene.ports.count(scene.cell, second, lacking=DENSE) == 0


async def test_keys_are_the_slices_own_and_a_new_owner_takes_its_names_along(scene: SharedScene) -> None:
    first, second = await scene.provision("acme"), await scene.provision("acme", 2)
    other = await scene.provision("bolt")
    kept = dict((await scene.seen(other)).metadata)
    values = {"searchops.dev/pending": "x", "searchops.dev/binding": None}
    for _ in range(2):
        await scene.ports.patch_metadata(scene.cell, first, values, None)
    metadata = (await scene.seen(first)).metadata
    assert metadata["searchops.dev/pending"] == "x"
    assert "searchops.dev/binding" not in metadata
    await scene.ports.patch_metadata(scene.cell, second, {"searchops.dev/uid": "uid-new"}, None)
    (collection,) = await scene.shared()
    stored = (await scene.admin.get_collection(collection)).config.metadata or {}
    mine, new = (json.loads(stored[record_key(uid)]) for uid in ("uid-acme", "uid-new"))
    assert (set(mine["slices"]), set(new["slices"]), set(new["names"])) == ({"1"}, {"2"}, {"", "@a"})
    assert (await scene.aliases())[scene.alias("acme")] == second
    await scene.ports.patch_metadata(scene.cell, first, {"searchops.dev/uid": "uid-new"}, None)
    stored = (await scene.admin.get_collection(collection)).config.metadata or {}
    assert record_key("uid-acme") not in stored
    assert dict((await scene.seen(other)).metadata) == kept


async def test_a_name_moves_in_one_request_and_back(scene: SharedScene) -> None:
    first, second = await scene.provision("acme"), scene.design("acme", 2).name
    await scene.ports.create_collection(scene.cell, scene.design("acme", 2))
    for target in (second, second, first):
        await scene.ports.point_alias(scene.cell, scene.alias("acme"), target)
        assert (await scene.aliases())[scene.alias("acme")] == target
    for _ in range(2):
        await scene.ports.remove_alias(scene.cell, scene.alias("acme"))
    assert scene.alias("acme") not in await scene.aliases()


async def test_a_move_between_tiers_leaves_no_alias_to_a_shared_collection(scene: SharedScene) -> None:
    alias, own = scene.alias("acme"), scene.design("acme", 1, tier="Collection", layout="")
    await scene.ports.create_collection(scene.cell, own)
    await scene.ports.point_alias(scene.cell, alias, own.name)
    assert await scene.stored_aliases() == {alias: own.name}
    shared = scene.design("acme", 2).name
    await scene.ports.create_collection(scene.cell, scene.design("acme", 2))
    await scene.ports.point_alias(scene.cell, alias, shared)
    assert ((await scene.aliases())[alias], await scene.stored_aliases()) == (shared, {})
    await scene.ports.point_alias(scene.cell, alias, own.name)
    assert ((await scene.aliases())[alias], await scene.stored_aliases()) == (own.name, {alias: own.name})


async def test_a_full_collection_makes_another_and_one_layout_is_not_anothers(scene: SharedScene) -> None:
    for tenant in ("a", "b", "c", "d"):
        await scene.provision(tenant)
    layout = scene.design("e", layout="ffffffff")
    await scene.ports.create_collection(scene.cell, layout)
    counts = {}
    for collection in await scene.shared():
        metadata = (await scene.admin.get_collection(collection)).config.metadata or {}
        counts[collection] = sum(key.startswith(RECORD_PREFIX) for key in metadata)
    prefix = f"{scene.fleet}@shared"
    assert counts == {f"{prefix}-0a1b2c3d-0": 3, f"{prefix}-0a1b2c3d-1": 1, f"{prefix}-ffffffff-0": 1}


@pytest.mark.parametrize("tier", ["Shared", "ShardKey"])
async def test_a_vector_more_is_not_put_into_an_index_that_others_search(server: Server, tier: Tier) -> None:
    """Segments of the tier Shared are everybody's: filling a second vector would take their index away for a while."""
    scene = make_scene(server, tier, indexing_threshold=4)
    try:
        first, beside = await scene.provision("acme"), await scene.provision("bolt")
        await scene.write(first)
        assert (await scene.seen(first)).indexed_together == len(PRODUCTS)
        await scene.write(beside)
        together = 2 * len(PRODUCTS) if tier == "Shared" else len(PRODUCTS)
        assert (await scene.seen(first)).indexed_together == together
        second = await scene.provision("acme", 2, dense=((OTHER, 4),))
        third = await scene.provision("bolt", 2, dense=((OTHER, 4),))
        stands = [(await scene.address(name)).collection for name in (first, beside, second, third)]
        assert (stands[0], stands[2]) == (stands[1], stands[3])
        assert (stands[0] == stands[2]) is (tier == "ShardKey")
        assert (await scene.aliases())[scene.alias("acme")] == second, "the name has moved with it"
        kept = (await scene.admin.get_collection(stands[0])).config.params.vectors or {}
        assert (OTHER in kept) is (tier == "ShardKey")
    finally:
        await scene.clear()


async def test_what_is_somebody_elses_is_not_taken(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    stranger = tuple({**dict(scene.design("acme").metadata), "searchops.dev/uid": "another"}.items())
    with pytest.raises(Terminal, match="another tenant's"):
        await scene.ports.create_collection(scene.cell, scene.design("acme", metadata=stranger))
    assert (await scene.seen(name)).metadata["searchops.dev/uid"] == "uid-acme"


async def test_a_record_that_cannot_be_read_is_never_written_over(scene: SharedScene) -> None:
    await scene.provision("acme")
    (collection,) = await scene.shared()
    await scene.admin.update_collection(collection, metadata={record_key("uid-bolt"): "{broken"})
    with pytest.raises(Terminal, match="cannot be read"):
        await scene.ports.create_collection(scene.cell, scene.design("bolt"))
    stored = (await scene.admin.get_collection(collection)).config.metadata or {}
    assert stored[record_key("uid-bolt")] == "{broken"
    assert (await scene.ports.survey(scene.cell)).reachable


async def test_the_bulk_read_shows_slices_as_a_survey_does(scene: SharedScene) -> None:
    first, second = await scene.provision("acme"), await scene.provision("bolt")
    contents = await scene.ports.contents(scene.cell)
    before = {name: contents.collections[name].digest for name in (first, second)}
    assert {name: contents.aliases[name] for name in await scene.aliases()} == await scene.aliases()
    found = contents.collections[first]
    assert (found.slice, found.layout) == (await scene.address(first), "0a1b2c3d")
    assert dict(found.metadata) == dict((await scene.seen(first)).metadata)
    await scene.ports.patch_metadata(scene.cell, first, {"searchops.dev/pending": "x"}, None)
    after = (await scene.ports.contents(scene.cell)).collections
    assert after[first].digest != before[first]
    assert after[second].digest == before[second], "what is another's is no drift"


async def test_another_fleets_shared_collections_are_not_looked_into(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    (collection,) = await scene.shared()
    await scene.admin.update_collection(collection, metadata={"searchops.dev/fleet": "stranger"})
    assert await scene.ports.describe(scene.cell, name) is None
    state = await scene.ports.survey(scene.cell)
    assert (state.shared, name in state.collections) == (frozenset(), False)


async def test_an_alias_to_a_shared_collection_is_seen_as_what_it_is(scene: SharedScene) -> None:
    """A token of a cell's key for that name would read everybody: no record makes it a name of the tenant's."""
    name = await scene.provision("acme")
    (collection,) = await scene.shared()
    alias = models.CreateAlias(collection_name=collection, alias_name=scene.alias("acme"))
    await scene.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    assert (await scene.aliases())[scene.alias("acme")] == collection
    assert (await scene.ports.contents(scene.cell)).aliases[scene.alias("acme")] == collection
    removed = models.DeleteAlias(alias_name=scene.alias("acme"))
    await scene.admin.update_collection_aliases([models.DeleteAliasOperation(delete_alias=removed)])
    assert (await scene.aliases())[scene.alias("acme")] == name


async def test_the_index_that_tells_tenants_apart_is_missed_and_made_again(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    (collection,) = await scene.shared()
    await scene.admin.delete_payload_index(collection, TENANT_KEY)
    assert dict((await scene.seen(name)).indexes) == {}
    await scene.ports.create_index(scene.cell, name, "_deleted", "integer")
    assert dict((await scene.seen(name)).indexes) == {"_deleted": "integer"}
    assert TENANT_KEY in (await scene.admin.get_collection(collection)).payload_schema


async def test_a_slice_whose_shard_went_first_is_seen_empty_and_goes(scene: SharedScene) -> None:
    name = await scene.provision("acme")
    await scene.write(name)
    address = await scene.address(name)
    if scene.tier == "ShardKey":
        await scene.admin.delete_shard_key(address.collection, address.key)
    else:
        await scene.admin.delete(address.collection, models.FilterSelector(filter=models.Filter()))
    assert (await scene.seen(name)).points == 0
    await scene.ports.drop_collection(scene.cell, name)
    assert await scene.ports.describe(scene.cell, name) is None


async def test_a_generation_that_comes_again_is_not_the_former_slice(scene: SharedScene) -> None:
    first = await scene.address(await scene.provision("acme"))
    await scene.ports.drop_collection(scene.cell, scene.design("acme").name)
    later = tuple({**dict(scene.design("acme").metadata), "searchops.dev/binding": '{"since": "later"}'}.items())
    second = await scene.address(await scene.provision("acme", metadata=later))
    assert second.key != first.key
