"""Somebody changes a tenant behind the operator's back: a look at the cell finds it, and a pass mends or reports it.

Controller and adapter are the operator's own, the server is the double or QDRANT_URL's; the API server is in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient, models

from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellRegistration
from searchops.controllers.cell_watch import CELL_INDEX, CellWatch, cells_of
from searchops.planning.names import KEY_NAME, KEY_RATES, KEY_UID
from searchops.planning.schema import side_of
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from searchops.api.observed import CollectionState
    from searchops.runtime.key import Key
    from searchops_sandbox.qdrant.replay import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = f"{ALIAS}@g1"
OTHER = "somebody-elses"
QUOTAS = {"maxPoints": 1000, "maxVectorMegabytes": 10, "searchesPerMinute": 600, "writesPerMinute": 6000}


class Told:
    """Metrics and reports, which are not looked at here."""

    def cell(self, name: str, *, up: bool, collections: int, capacity: int, orphans: int = 0) -> None:
        assert up, f"{name}: {collections} of {capacity}, {orphans} orphans"

    def drifted(self, cell: str, tenants: int) -> None:
        assert (cell, tenants) == ("eu-1", 1)

    async def read(self, name: str) -> dict[str, str] | None:
        raise AssertionError(name)

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        assert set(data) == {"report"}, name


def _world() -> Any:
    """The in-memory world, some of whose parts are replaced by real ones."""
    return TenantWorld()


class Scene:
    """One provisioned tenant on a real cell."""

    def __init__(self, server: Server) -> None:
        self.world = _world()
        self.ports = QdrantCells()
        self.admin = AsyncQdrantClient(
            url=server.url, headers={"api-key": server.api_key}, check_compatibility=False, timeout=30
        )
        self.cell = CellRegistration("eu-1", {}, (server.url,), server.grpc_port, 1000, api_key=server.api_key)
        self.world.cells, self.world.signer = self.ports, CellKeySigner()
        self.world.register = QdrantTokens(self.ports)
        self.world.directory.registered = {"eu-1": self.cell}
        self.world.tenants.add_index(CELL_INDEX, cells_of)
        self.world.start()
        self.asked: list[Key] = []
        told = Told()
        self.watch = CellWatch(
            fleet="prod",
            directory=self.world.directory,
            cells=self.ports,
            tenants=self.world.tenants,
            ask=self._ask,
            state=told,
            metrics=told,
        )

    def _ask(self, key: Key) -> bool:
        self.asked.append(key)
        return True

    async def provision(self) -> None:
        self.world.set_model()
        self.world.apply_tenant(quotas=QUOTAS)
        await self.passes()
        assert self.world.condition("Ready") == ("True", "Ready")

    async def passes(self) -> None:
        """Passes until the next one is put off."""
        for _ in range(12):
            wait = await self.world.step()
            if wait is None or wait > 0:
                return
        raise AssertionError("twelve passes were not enough")

    async def look(self) -> list[Key]:
        """One look at the cell, and a pass for who was asked for."""
        self.asked = []
        await self.watch.run_once()
        for _ in self.asked:
            await self.passes()
        return self.asked

    async def described(self) -> CollectionState:
        found = await self.ports.describe(self.cell, NAME)
        assert found is not None
        return found

    async def aliases(self) -> dict[str, str]:
        return {item.alias_name: item.collection_name for item in (await self.admin.get_aliases()).aliases}

    async def point(self, alias: str, collection: str) -> None:
        action = models.CreateAlias(collection_name=collection, alias_name=alias)
        await self.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=action)])

    async def unpoint(self, alias: str) -> None:
        action = models.DeleteAlias(alias_name=alias)
        await self.admin.update_collection_aliases([models.DeleteAliasOperation(delete_alias=action)])


@pytest_asyncio.fixture(loop_scope="module")
async def scene(server: Server) -> AsyncIterator[Scene]:
    found = Scene(server)
    await found.provision()
    assert await found.look() == [], "what was just made is in order"
    yield found
    for name in (NAME, f"{ALIAS}@g2", OTHER, MARKER):
        await found.admin.delete_collection(name)
    await found.ports.close()
    await found.admin.close()


async def alias_deleted(scene: Scene) -> None:
    await scene.unpoint(ALIAS)


async def side_deleted(scene: Scene) -> None:
    await scene.unpoint(side_of(ALIAS, 1))


async def index_deleted(scene: Scene) -> None:
    await scene.admin.delete_payload_index(NAME, "sku", wait=True)


async def index_retyped(scene: Scene) -> None:
    await scene.admin.create_payload_index(NAME, "sku", models.PayloadSchemaType.INTEGER, wait=True)


async def strict_mode_changed(scene: Scene) -> None:
    config = models.StrictModeConfig(enabled=True, max_points_count=7, read_rate_limit=4)
    await scene.admin.update_collection(NAME, strict_mode_config=config)


async def rates_deleted(scene: Scene) -> None:
    await scene.admin.update_collection(NAME, metadata={KEY_RATES: None})


SABOTAGE = (alias_deleted, side_deleted, index_deleted, index_retyped, strict_mode_changed, rates_deleted)


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda act: str(act.__name__))
async def test_it_is_found_by_one_look_and_repaired_in_place(
    scene: Scene, sabotage: Callable[[Scene], Awaitable[None]]
) -> None:
    before = await scene.described(), await scene.aliases()
    await sabotage(scene)
    assert (await scene.described(), await scene.aliases()) != before
    assert await scene.look() == [TENANT]
    assert (await scene.described(), await scene.aliases()) == before
    assert scene.world.condition("Ready") == ("True", "Ready")
    assert await scene.look() == []


async def test_a_lost_vector_is_reported_as_a_rebuild(scene: Scene) -> None:
    lexical = next(name for name in (await scene.described()).sparse if name.startswith("lex-"))
    await scene.admin.delete_vector_name(NAME, lexical)
    assert await scene.look() == [TENANT]
    assert scene.world.condition("SchemaInSync") == ("False", "RebuildRequired")
    assert lexical in str(scene.world.raw["status"]["conditions"])


async def test_an_alias_that_points_to_a_strangers_collection_is_reported_and_left(scene: Scene) -> None:
    await scene.admin.create_collection(OTHER, vectors_config={})
    await scene.point(ALIAS, OTHER)
    assert await scene.look() == [TENANT]
    assert scene.world.condition("Ready") == ("False", "Conflict")
    assert (await scene.aliases())[ALIAS] == OTHER


async def test_a_lost_collection_is_reported_and_never_made_empty(scene: Scene) -> None:
    await scene.admin.delete_collection(NAME)
    assert await scene.look() == [TENANT]
    assert scene.world.condition("Provisioned") == ("False", "CollectionLost")
    names = {item.name for item in (await scene.admin.get_collections()).collections}
    assert NAME not in names


async def test_another_owner_in_the_metadata_is_reported_and_left(scene: Scene) -> None:
    await scene.admin.update_collection(NAME, metadata={KEY_UID: "uid-of-somebody", KEY_NAME: "somebody"})
    assert await scene.look() == [TENANT]
    assert scene.world.condition("Ready") == ("False", "Conflict")
    assert (await scene.described()).metadata[KEY_UID] == "uid-of-somebody"
