"""A tenant goes as its policy says: Retain keeps the data with a note, Delete drops it after its window, no other's."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from searchops.api.backup import BackupManifest
from searchops_sandbox.demo.platform import FLEET
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


async def test_snapshot_stores_the_collection_whole_before_it_is_dropped(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    collection, _ = await _leave(fleet, "stored", "Snapshot", "1s")
    folder = fleet.platform.sandbox.artifacts / "backups" / FLEET / MERCHANTS / "stored"

    async def dropped() -> bool:
        return collection not in await fleet.collections(cell)

    await fleet.until(f"{collection} is dropped", dropped)
    (path,) = folder.glob("*/manifest.json")
    manifest = BackupManifest.model_validate_json(path.read_bytes())
    assert (manifest.reason, manifest.collection, manifest.points) == ("Deletion", collection, 56)
    assert manifest.is_complete
    for part in manifest.parts:
        content = (path.parent / part.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part.size, part.checksum)
    assert not await _secret_is_there(fleet, "stored-storefront")


async def _not_searchable(fleet: Fleet, name: str, token: str) -> None:
    """The gateway may go on for as long as it keeps a binding; then the tenant is gone."""

    async def refused() -> bool:
        status, _ = await fleet.gateway("POST", name, "/search", token, body={"query": "nut", "limit": 1})
        return 400 <= status < 500

    await fleet.until(f"{name} is not searchable", refused, seconds=30)


async def _metadata(fleet: Fleet, collection: str) -> dict[str, Any]:
    answer = await fleet.ask_cell(fleet.platform.sandbox.cells["eu-1"], "GET", f"/collections/{collection}")
    return dict(answer["result"]["config"]["metadata"])


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_tenant_that_comes_back_within_its_window_has_its_data(
    fleet: Fleet, merchants: tuple[str, str, str], policy: str
) -> None:
    """The manifest says another region now: the data is where it was, and so is the tenant."""
    cell, name = fleet.platform.sandbox.cells["eu-1"], f"back-{policy.lower()}"
    collection, _ = await _leave(fleet, name, policy, "1h")
    others = await fleet.collections(cell)
    await fleet.apply(tenant_manifest(name, region="us", policy=policy, undelete_window="1h"))
    await fleet.condition("searchtenants", name, "Ready", "True")
    fleet.tokens.clear()
    assert len(await fleet.hits(name)) == 5
    tenant = await fleet.get("searchtenants", name)
    assert tenant["metadata"]["annotations"]["searchops.dev/cell"] == "eu-1"
    assert await fleet.collections(cell) == others
    metadata = await _metadata(fleet, collection)
    assert metadata["searchops.dev/uid"] == tenant["metadata"]["uid"] != metadata["searchops.dev/former-uid"]
    left = {"searchops.dev/deleted-at", "searchops.dev/drop-after", "searchops.dev/policy", "searchops.dev/was-live"}
    assert not left & set(metadata)


async def test_a_tenant_whose_object_was_removed_by_force_finds_its_collection(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """While no operator runs, its finalizer is taken off by hand; no note is left, alias and collection stand."""
    name = "forced"
    await fleet.apply(tenant_manifest(name, region="eu"))
    await fleet.condition("searchtenants", name, "Ready", "True")
    status, answer = await fleet.index(name)
    assert status == 200, answer
    await fleet.platform.kill_operator()
    path = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants/{name}"
    async with fleet.platform.sandbox.api() as api:
        await api.patch(path, {"metadata": {"finalizers": None}})
        await api.delete(path)
    await fleet.apply(tenant_manifest(name, region="us"))
    await fleet.platform.start_operator()
    await fleet.condition("searchtenants", name, "Ready", "True")
    fleet.tokens.clear()
    assert len(await fleet.hits(name)) == 5
    tenant = await fleet.get("searchtenants", name)
    assert tenant["metadata"]["annotations"]["searchops.dev/cell"] == "eu-1"


async def test_a_foreground_deletion_and_a_namespace_that_goes_leave_nothing_hanging(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """As Argo CD prunes one object, and as somebody deletes a whole namespace; the data stays with its note."""
    namespace, cell = "merchants-passing", fleet.platform.sandbox.cells["eu-1"]
    await fleet.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    manifests = [tenant_manifest(name, region="eu") for name in ("pruned", "swept-away")]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    await fleet.apply(*manifests)
    base = f"/apis/searchops.dev/v1alpha1/namespaces/{namespace}/searchtenants"
    aliases = {f"demo.{namespace}.{name}" for name in ("pruned", "swept-away")}

    async def published() -> bool:
        return aliases <= set(await fleet.aliases(cell))

    await fleet.until("both are published", published)
    async with fleet.platform.sandbox.api() as api:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        await api.delete(f"{base}/pruned", options)

        async def gone(path: str) -> bool:
            try:
                await api.get(path)
            except ApiError as error:
                assert error.status == 404
                return True
            return False

        await fleet.until("the pruned tenant is gone", lambda: gone(f"{base}/pruned"))
        await api.delete(f"/api/v1/namespaces/{namespace}")
        await fleet.until("the namespace is gone", lambda: gone(f"/api/v1/namespaces/{namespace}"))
    assert not aliases & set(await fleet.aliases(cell))
    for alias in aliases:
        assert (await _metadata(fleet, f"{alias}@g1"))["searchops.dev/policy"] == "Retain"


async def test_a_protected_tenant_keeps_itself_and_its_namespace(fleet: Fleet, merchants: tuple[str, str, str]) -> None:
    manifest = tenant_manifest("guarded", region="eu")
    manifest["spec"]["deletionProtection"] = True
    await fleet.apply(manifest)
    await fleet.condition("searchtenants", "guarded", "Ready", "True")
    space = f"/api/v1/namespaces/{MERCHANTS}"
    async with fleet.platform.sandbox.api() as api:

        async def label() -> str:
            found = await api.get(space)
            return str(found["metadata"]["labels"].get("searchops.dev/protected", "none"))

        async def labelled() -> bool:
            return await label() == "tenants"

        async def released() -> bool:
            return await label() == "none"

        await fleet.until("the namespace is labelled", labelled)
        with pytest.raises(ApiError, match="a protected tenant is inside"):
            await api.delete(space)
        with pytest.raises(ApiError, match="set it to false first"):
            await api.delete(f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants/guarded")
        manifest["spec"]["deletionProtection"] = False
        await fleet.apply(manifest)
        await fleet.until("the label is gone", released)
    await fleet.delete("searchtenants", "guarded")


async def test_a_collection_is_adopted_by_two_peoples_word_and_nothing_in_it_is_touched(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """One unnamed vector and no lexical legs: it does not fit, which is said; paused, so that nothing is rebuilt."""
    sandbox = fleet.platform.sandbox
    cell = sandbox.cells["eu-1"]
    vectors = {"vectors": {"old": {"size": 4, "distance": "Cosine"}}}
    made = await fleet.ask_cell(cell, "PUT", "/collections/legacy-shop", body=vectors)
    assert made["http"] == 200, made
    points = [{"id": number, "vector": {"old": [1, 0, 0, number]}, "payload": {"title": "nut"}} for number in (1, 2, 3)]
    await fleet.ask_cell(cell, "PUT", "/collections/legacy-shop/points?wait=true", body={"points": points})
    before = await fleet.ask_cell(cell, "GET", "/collections/legacy-shop")
    manifest = tenant_manifest("adopter", region="eu", policy="Delete", undelete_window="1s")
    manifest["metadata"]["annotations"] = {"searchops.dev/adopt": "legacy-shop"}
    await fleet.apply(manifest)
    refused = await fleet.condition("searchtenants", "adopter", "Ready", "False", "AdoptionRefused")
    assert "is not under adoptable in the Secret of cell" in refused["message"]
    async with sandbox.api() as api:
        secret = "/api/v1/namespaces/searchops-system/secrets/eu-1"
        await api.patch(secret, {"stringData": {"adoptable": "legacy-shop"}})
    await fleet.condition("searchtenants", "adopter", "Provisioned", "True")
    manifest["spec"]["paused"] = True
    await fleet.apply(manifest)
    said = await fleet.condition("searchtenants", "adopter", "SchemaInSync", "False", "RebuildRequired")
    assert "vectors lex-" in said["message"]
    assert (await fleet.aliases(cell))[alias_of("adopter")] == "legacy-shop"
    await fleet.delete("searchtenants", "adopter")
    after = await fleet.ask_cell(cell, "GET", "/collections/legacy-shop")
    kept = ("points_count", "payload_schema")
    assert [after["result"][key] for key in kept] == [before["result"][key] for key in kept]
    assert after["result"]["config"]["params"] == before["result"]["config"]["params"]
    assert after["result"]["config"]["metadata"]["searchops.dev/policy"] == "Retain"
