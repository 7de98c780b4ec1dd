"""A tenant's whole life against cells and an API server in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from searchops.api.observed import CellIdentity
from searchops.planning.names import CELL_ANNOTATION, KEY_PREVIOUS
from searchops.runtime.key import Key
from unit.controllers.fakes_cells import FakePoint
from unit.controllers.fakes_tenant_world import ALIAS, TenantWorld, revision
from unit.controllers.tenant_lives import bound, complete, provisioned

R1, R2 = revision(1), revision(2)


async def test_a_tenant_is_created_with_two_writes_to_the_api_server_secrets_apart() -> None:
    world = await provisioned()
    assert world.api.writes == ["searchtenants/metadata", "searchtenants/status"]
    assert world.secrets.created == ["acme-storefront", "acme-indexer"]
    assert world.raw is not None
    assert world.raw["metadata"]["annotations"] == {CELL_ANNOTATION: "eu-1"}
    assert world.condition("Ready") == ("True", "Ready")
    assert world.cells.broken == []


async def test_a_ready_tenant_is_written_no_more() -> None:
    world = await provisioned(documents=0)
    before = len(world.api.writes), len(world.cells.writes)
    for _ in range(3):
        assert await world.step() is None
    assert (len(world.api.writes), len(world.cells.writes)) == before


async def test_search_secrets_carry_the_cells_address_and_index_secrets_do_not() -> None:
    world = await provisioned()
    search, index = (world.secrets.data[Key("shop", name)] for name in ("acme-storefront", "acme-indexer"))
    assert (search["url"], search["grpcUrl"]) == ("https://eu-1.example:6333", "eu-1.example:6334")
    assert set(index) == {"gateway", "alias", "token", "expiresAt"}


async def test_tokens_are_renewed_at_half_life_and_nothing_else_is_written() -> None:
    world = await provisioned()
    writes, before = len(world.cells.writes), world.secrets.secrets[Key("shop", "acme-storefront")].renew_at
    world.now += timedelta(days=16)
    await world.settle()
    assert world.secrets.secrets[Key("shop", "acme-storefront")].renew_at > before
    assert world.secrets.created == ["acme-storefront", "acme-indexer"]
    assert len(world.cells.writes) == writes


async def test_a_removed_entry_loses_its_secret() -> None:
    world = await provisioned()
    world.apply_tenant(access=[])
    await world.settle()
    assert world.secrets.secrets == {}
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_first_model_is_filled_and_switched_to_and_the_old_side_is_kept() -> None:
    world = await provisioned()
    world.set_model(None, R1)
    await world.settle()
    assert (bound(world), complete(world)) == (R1["revision"], True)
    assert world.live is not None
    assert world.live.binding(KEY_PREVIOUS) is not None
    assert (len(world.jobs.created), world.condition("ModelBound")) == (1, ("True", "Bound"))
    assert world.cells.broken == []


async def test_a_candidate_goes_out_and_comes_back_without_re_embedding() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    world.set_model(R1, R2)
    await world.settle()
    assert bound(world) == R2["revision"]
    world.write_document(99)
    world.set_model(R1)
    await world.settle()
    assert (bound(world), complete(world)) == (R1["revision"], True)
    assert len(world.jobs.created) == 2
    assert world.cells.broken == []


async def test_a_large_tenant_goes_out_by_another_generation_and_comes_back_by_its_alias() -> None:
    world = await provisioned(documents=0)
    assert world.live is not None
    world.documents = dict.fromkeys(range(20_000), 1)
    world.live.points.update(_points(20_000))
    world.set_model(None, R1)
    await world.settle()
    assert world.server.aliases[ALIAS] == f"{ALIAS}@g2"
    assert (bound(world), complete(world)) == (R1["revision"], True)
    world.write_document(5)
    world.set_model(R1, R2)
    await world.settle()
    assert world.server.aliases[ALIAS] == f"{ALIAS}@g3"
    world.write_document(6)
    world.set_model(R1)
    await world.settle()
    assert world.server.aliases[ALIAS] == f"{ALIAS}@g2"
    assert (bound(world), complete(world), len(world.jobs.created)) == (R1["revision"], True, 2)
    assert world.cells.broken == []


def _points(number: int) -> dict[int, FakePoint]:
    return {product: FakePoint({"": 1}) for product in range(number)}


async def test_documents_that_change_while_nothing_names_a_half_filled_side_are_not_lost() -> None:
    """Filled in part, cancelled, changed and deleted meanwhile, and wanted again: filled from nothing."""
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    world.worker = "idle"
    world.set_model(R1, R2)
    for _ in range(6):
        await world.step()
        world.now += timedelta(seconds=20)
    world.write_document(1)
    world.set_model(R1)
    for _ in range(2):
        await world.step()
    world.write_document(1)
    world.delete_document(2)
    world.worker = "done"
    world.set_model(R1, R2)
    await world.settle()
    assert (bound(world), complete(world), world.cells.broken) == (R2["revision"], True, [])


async def test_the_same_candidate_after_its_window_is_filled_by_another_job() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    for _ in range(2):
        world.set_model(R1, R2)
        await world.settle()
        world.set_model(R1)
        await world.settle()
        world.now += timedelta(hours=73)
        await world.settle()
        assert world.live is not None
        assert set(world.live.dense) == {"d-s1"}
    assert len(set(world.jobs.created)) == 3
    assert world.cells.broken == []


async def test_a_schema_change_ends_on_the_next_generation_and_the_old_one_is_dropped_after_the_window() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    world.apply_tenant(languages=["de"])
    await world.settle()
    assert world.server.aliases == {ALIAS: f"{ALIAS}@g2", f"{ALIAS}@a": f"{ALIAS}@g2", f"{ALIAS}@b": f"{ALIAS}@g1"}
    assert (complete(world), world.condition("SchemaInSync")) == (True, ("True", "InSync"))
    world.now += timedelta(hours=73)
    await world.settle()
    assert set(world.server.collections) == {f"{ALIAS}@g2"}
    assert world.cells.broken == []


async def test_a_rebuild_that_keeps_failing_asks_a_person_and_touches_nothing() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    world.worker = "fail"
    world.set_model(R1, R2)
    await world.settle()
    assert (bound(world), complete(world)) == (R1["revision"], True)
    assert world.condition("ModelBound") == ("False", "RebuildFailed")
    assert len(world.jobs.created) == 1 + 3
    world.worker = "done"
    world.api.delete("reindexjobs", Key("shop", world.jobs.created[-1]))
    world.api.deliver()
    await world.settle()
    assert (bound(world), world.condition("ModelBound")) == (R2["revision"], ("True", "Bound"))


async def test_a_lost_status_starts_nothing_anew() -> None:
    world = await provisioned()
    world.set_model(R1)
    await world.settle()
    writes = list(world.cells.writes)
    assert world.raw is not None
    world.api.put("searchtenants", {**world.raw, "status": {}})
    world.api.deliver()
    world.start()
    await world.settle()
    assert world.cells.writes == writes
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_collection_that_is_gone_is_said_for_good_and_never_made_empty() -> None:
    world = await provisioned()
    world.server.collections.clear()
    world.server.aliases.clear()
    writes = list(world.cells.writes)
    for _ in range(4):
        await world.step()
        assert world.condition("Ready") == ("False", "CollectionLost")
    assert world.cells.writes == writes


async def test_a_server_behind_an_edited_url_is_never_filled_with_empty_tenants() -> None:
    world = await provisioned()
    world.server.collections.clear()
    world.server.aliases.clear()
    world.server.identity = CellIdentity("prod", "eu-1", "another cluster")
    writes = list(world.cells.writes)
    await world.settle()
    assert (world.condition("Ready"), world.cells.writes) == (("False", "CellIdentityMismatch"), writes)


async def test_a_failure_is_told_once_and_once_more_to_whoever_changed_the_spec_in_vain() -> None:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    world.lease = 8.0
    for _ in range(6):
        await world.step()
    told = [reason for reason, _ in world.events.told]
    writes = len(world.api.writes)
    assert (world.condition("Ready"), told) == (("False", "CellUnreachable"), ["CellUnreachable"])
    world.apply_tenant(languages=["de"])
    for _ in range(4):
        await world.step()
    assert world.raw is not None
    assert world.raw["status"]["observedGeneration"] == world.raw["metadata"]["generation"] == 2
    assert [reason for reason, _ in world.events.told] == ["CellUnreachable"] * 2
    assert world.api.writes[writes:] == ["searchtenants/status"]


async def test_with_too_little_of_the_lease_left_nothing_irreversible_is_begun() -> None:
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    world.lease = 8.0
    for _ in range(6):
        await world.step()
    assert world.server.aliases == {}
    world.lease = 13.0
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_grant_is_counted_until_a_read_shows_it_and_not_after() -> None:
    world = TenantWorld()
    world.set_model()
    world.directory.registered["eu-1"] = replace(world.directory.registered["eu-1"], max_collections=3)
    for name in ("one", "two", "three"):
        metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
        spec = {"model": {"name": "enc"}, "fields": [{"name": "t", "type": "text", "role": "Title"}]}
        world.api.put("searchtenants", {"metadata": metadata, "spec": spec})
        world.cells.cells.setdefault("eu-1", world.cells.cell(world.directory.registered["eu-1"]))
    world.api.deliver()
    world._live_uids |= {"uid-one", "uid-two"}
    for name in ("one", "two", "three"):
        await world.controller.reconcile(Key("shop", name))
        world.api.deliver()
    placed = [
        bool(world.api.objects["searchtenants", Key("shop", name)]["metadata"].get("annotations"))
        for name in ("one", "two", "three")
    ]
    assert placed == [True, True, False]
    for _ in range(4):
        await world.controller.reconcile(Key("shop", "one"))
        world.api.deliver()
    world.directory.registered["eu-1"] = replace(world.directory.registered["eu-1"], max_collections=4)
    await world.controller.reconcile(Key("shop", "three"))
    assert world.api.objects["searchtenants", Key("shop", "three")]["metadata"].get("annotations")
