"""`CellReader` and `CellWriter` by the Qdrant adapter: on the sandbox's double and on QDRANT_URL's server.

Every write is done twice: the second must be a success that changes nothing.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import jwt
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient, models

from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellIdentity, CellRegistration, CollectionDesign, StrictMode
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.qdrant.replay import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRICT = StrictMode(
    max_points=1_000,
    max_vector_bytes=4_000_000,
    reads_per_minute=60_000,
    writes_per_minute=60_000,
    upsert_batch=256,
    query_limit=100,
)


@dataclass
class Scope:
    """A cell seen through the ports, with names of one test's own."""

    cell: CellRegistration
    ports: QdrantCells
    admin: AsyncQdrantClient
    names: list[str] = field(default_factory=list)

    def name(self) -> str:
        self.names.append(f"prod.shop.t{uuid.uuid4().hex[:8]}@g1")
        return self.names[-1]

    async def alias(self) -> str | None:
        alias = self.names[0].partition("@")[0]
        return dict((await self.ports.survey(self.cell)).aliases).get(alias)


def design(name: str, **changes: object) -> CollectionDesign:
    metadata = {
        "searchops.dev/fleet": "prod",
        "searchops.dev/uid": "uid-1",
        "searchops.dev/generation": "1",
        "searchops.dev/binding": "{}",
    }
    wanted = CollectionDesign(
        name=name,
        dense=(("d-0123456789ab", 4),),
        sparse=("lex-01234567", "tri-01234567"),
        indexes=(("_deleted", "integer"),),
        shards=1,
        replicas=1,
        strict=STRICT,
        metadata=tuple(metadata.items()),
    )
    return replace(wanted, **changes)  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="module")
async def scope(server: Server) -> AsyncIterator[Scope]:
    ticks = iter(range(10_000))
    cell = CellRegistration("eu-1", {}, (server.url,), server.grpc_port, 1000, api_key=server.api_key)
    admin = AsyncQdrantClient(
        url=server.url, headers={"api-key": server.api_key}, check_compatibility=False, timeout=30
    )
    ports = QdrantCells(now=lambda: float(next(ticks)) * 10)
    found = Scope(cell, ports, admin)
    yield found
    for name in found.names:
        await admin.delete_collection(name)
    await ports.close()
    await admin.close()


async def test_a_collection_is_what_its_design_says_and_is_created_once(scope: Scope) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    await scope.ports.create_collection(scope.cell, design(name))
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert (dict(found.dense), set(found.sparse)) == ({"d-0123456789ab": 4}, {"lex-01234567", "tri-01234567"})
    assert (found.strict, found.shards, found.points, found.pending_updates) == (STRICT, 1, 0, 0)
    assert dict(found.metadata) == dict(design(name).metadata)
    survey = await scope.ports.survey(scope.cell)
    assert survey.reachable
    assert name in survey.collections
    assert await scope.ports.describe(scope.cell, f"{name}-not-there") is None


@pytest.mark.parametrize("key", ["searchops.dev/uid", "searchops.dev/fleet", "searchops.dev/generation"])
async def test_a_name_taken_by_somebody_else_is_a_terminal_conflict(scope: Scope, key: str) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    foreign = {**dict(design(name).metadata), key: "another"}
    with pytest.raises(Terminal, match="Conflict: cell eu-1: cannot create") as caught:
        await scope.ports.create_collection(scope.cell, design(name, metadata=tuple(foreign.items())))
    assert caught.value.reason == "Conflict"
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert dict(found.metadata) == dict(design(name).metadata), "nothing was overwritten"


async def test_a_collection_without_an_owner_is_nobodys(scope: Scope) -> None:
    name = scope.name()
    await scope.admin.create_collection(name, vectors_config={})
    for metadata in ((), design(name).metadata):
        with pytest.raises(Terminal, match="Conflict"):
            await scope.ports.create_collection(scope.cell, design(name, metadata=metadata))


async def test_payload_indexes(scope: Scope) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    for _ in range(2):
        for kind, key in (("keyword", "colour"), ("float", "price"), ("integer", "_deleted")):
            await scope.ports.create_index(scope.cell, name, key, kind)
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert dict(found.indexes) == {"colour": "keyword", "price": "float", "_deleted": "integer"}
    with pytest.raises(Transient, match=r"404 to index colour of nowhere"):
        await scope.ports.create_index(scope.cell, "nowhere", "colour", "keyword")


async def test_an_alias_is_made_moved_and_removed_each_any_number_of_times(scope: Scope) -> None:
    first, second = scope.name(), scope.name()
    alias = first.partition("@")[0]
    for name in (first, second):
        await scope.ports.create_collection(scope.cell, design(name))
    for target in (first, first, second, second, first):
        await scope.ports.point_alias(scope.cell, alias, target)
        assert await scope.alias() == target
    for _ in range(2):
        await scope.ports.remove_alias(scope.cell, alias)
        assert await scope.alias() is None
    assert {first, second} <= (await scope.ports.survey(scope.cell)).collections


async def test_an_alias_is_never_laid_over_a_collection_of_that_name(scope: Scope) -> None:
    name, other = scope.name(), scope.name()
    for collection in (name, other):
        await scope.ports.create_collection(scope.cell, design(collection))
    with pytest.raises(Terminal, match="Conflict"):
        await scope.ports.point_alias(scope.cell, other, name)
    with pytest.raises(Transient, match="404"):
        await scope.ports.point_alias(scope.cell, "prod.shop.alias-to-nothing", "prod.shop.nothing@g1")


async def test_metadata_is_patched_by_flat_keys_and_none_removes(scope: Scope) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    looser = replace(STRICT, writes_per_minute=4_000_000_000, max_vector_bytes=8_000_000)
    for _ in range(2):
        await scope.ports.patch_metadata(
            scope.cell, name, {"searchops.dev/pending": '{"x": 1}', "searchops.dev/binding": None}, looser
        )
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert found.strict == looser
    assert dict(found.metadata) == {
        "searchops.dev/fleet": "prod",
        "searchops.dev/uid": "uid-1",
        "searchops.dev/generation": "1",
        "searchops.dev/pending": '{"x": 1}',
    }
    await scope.ports.patch_metadata(scope.cell, name, {}, STRICT)
    await scope.ports.patch_metadata(scope.cell, name, {"searchops.dev/pending": None}, None)
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert (found.strict, "searchops.dev/pending" in found.metadata) == (STRICT, False)
    with pytest.raises(Transient, match="404"):
        await scope.ports.patch_metadata(scope.cell, "nowhere", {"a": "b"}, None)


async def test_named_vectors_come_and_go(scope: Scope) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    for _ in range(2):
        await scope.ports.add_vector(scope.cell, name, "d-new", 8)
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert dict(found.dense) == {"d-0123456789ab": 4, "d-new": 8}
    with pytest.raises(Terminal, match=r"d-new of .* has 8 dimensions; wanted 16"):
        await scope.ports.add_vector(scope.cell, name, "d-new", 16)
    for _ in range(2):
        await scope.ports.remove_vector(scope.cell, name, "d-new")
    found = await scope.ports.describe(scope.cell, name)
    assert found is not None
    assert dict(found.dense) == {"d-0123456789ab": 4}


async def test_a_drop_of_what_is_not_there_is_success_and_an_aliass_name_drops_nothing(scope: Scope) -> None:
    name = scope.name()
    alias = name.partition("@")[0]
    await scope.ports.create_collection(scope.cell, design(name))
    await scope.ports.point_alias(scope.cell, alias, name)
    assert await scope.ports.describe(scope.cell, alias) is not None
    with pytest.raises(Transient, match=r"answered that it did drop"):
        await scope.ports.drop_collection(scope.cell, alias)
    assert name in (await scope.ports.survey(scope.cell)).collections
    for _ in range(2):
        await scope.ports.drop_collection(scope.cell, name)
    assert await scope.ports.describe(scope.cell, name) is None


async def test_counts_are_exact_without_tombstones_and_by_missing_vector(scope: Scope) -> None:
    name = scope.name()
    await scope.ports.create_collection(scope.cell, design(name))
    await scope.ports.create_index(scope.cell, name, "_deleted", "integer")
    vector: dict[str, list[float]] = {"d-0123456789ab": [1.0, 0.0, 0.0, 0.0]}
    await scope.admin.upsert(
        name,
        [
            models.PointStruct(id=1, vector=dict(vector), payload={"_id": "1"}),
            models.PointStruct(id=2, vector={}, payload={"_id": "2"}),
            models.PointStruct(id=3, vector={}, payload={"_id": "3", "_deleted": 7}),
        ],
        wait=True,
    )
    assert await scope.ports.count(scope.cell, name) == 2
    assert await scope.ports.count(scope.cell, name, lacking="d-0123456789ab") == 1


async def test_the_probe_searches_with_the_tenants_own_token(scope: Scope) -> None:
    name = scope.name()
    alias = name.partition("@")[0]
    await scope.ports.create_collection(scope.cell, design(name))
    await scope.ports.point_alias(scope.cell, alias, name)

    def token(collection: str, *, seconds: int = 600) -> str:
        claims = {
            "exp": int(time.time()) + seconds,
            "access": [{"collection": collection, "access": "r"}],
            "subject": "uid-1/web",
        }
        return CellKeySigner().sign(scope.cell, claims)

    good = await scope.ports.probe_search(scope.cell, alias, "lex-01234567", token(alias))
    assert (good.ok, good.error) == (True, "")
    foreign = await scope.ports.probe_search(scope.cell, alias, "lex-01234567", token("prod.shop.other"))
    expired = await scope.ports.probe_search(scope.cell, alias, "lex-01234567", token(alias, seconds=-600))
    space = await scope.ports.probe_search(scope.cell, alias, "lex-76543210", token(alias))
    assert "answered 403" in foreign.error
    assert "ExpiredSignature" in expired.error
    assert "answered 400" in space.error
    assert not (foreign.ok or expired.ok or space.ok)
    forged = jwt.encode({"access": [{"collection": alias, "access": "r"}]}, "k" * 40, algorithm="HS256")
    refused = await scope.ports.probe_search(scope.cell, alias, "lex-01234567", forged)
    assert not refused.ok
    assert forged not in refused.error


async def test_a_cell_is_claimed_once_and_never_by_another(scope: Scope) -> None:
    identity = CellIdentity("prod", "eu-1", "uid-of-kube-system")
    await scope.admin.delete_collection(MARKER)
    try:
        assert (await scope.ports.survey(scope.cell)).identity is None
        for _ in range(2):
            await scope.ports.claim(scope.cell, identity)
        survey = await scope.ports.survey(scope.cell)
        assert survey.identity == identity
        assert MARKER not in survey.collections, "the marker is no tenant's"
        for other in (replace(identity, fleet="test"), replace(identity, cell="us-1"), replace(identity, cluster="x")):
            with pytest.raises(Terminal, match="Conflict"):
                await scope.ports.claim(scope.cell, other)
        assert (await scope.ports.survey(scope.cell)).identity == identity
    finally:
        await scope.admin.delete_collection(MARKER)


async def test_a_wrong_key_is_an_answer_and_names_the_secret(scope: Scope) -> None:
    wrong = replace(scope.cell, api_key="not-the-key-of-this-cell-at-all-0123456789")
    survey = await scope.ports.survey(wrong)
    assert not survey.reachable
    assert "Check apiKey in the cell's Secret" in survey.error
    assert wrong.api_key not in survey.error
    assert wrong.api_key not in repr(wrong)
    assert (await scope.ports.survey(scope.cell)).reachable, "a mended Secret is used at once"
