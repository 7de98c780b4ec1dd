"""Tenants in shared collections, seen through the adapter, with names of one test's own."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qdrant_client import AsyncQdrantClient, models

from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.shared_cells import SharedCells
from searchops.api.observed import CellRegistration, CollectionDesign, CollectionState
from searchops.api.retrieval import point_id
from searchops.api.shared import TENANT_KEY, SliceAddress
from searchops.planning.names import slice_key
from searchops.planning.schema import SHARED_STRICT

if TYPE_CHECKING:
    from searchops.api.observed import Tier
    from searchops_sandbox.qdrant.replay import Server

DENSE, OTHER = "d-0123456789ab", "d-ba9876543210"
PRODUCTS = ("m12", "2hp")


@dataclass
class SharedScene:
    """One fleet of its own on a server that others use too."""

    cell: CellRegistration
    raw: QdrantCells
    ports: SharedCells
    admin: AsyncQdrantClient
    fleet: str
    tier: Tier
    made: list[str] = field(default_factory=list)

    def alias(self, tenant: str) -> str:
        return f"{self.fleet}.shop.{tenant}"

    def design(self, tenant: str, generation: int = 1, **changes: Any) -> CollectionDesign:
        metadata = {
            "searchops.dev/fleet": self.fleet,
            "searchops.dev/uid": f"uid-{tenant}",
            "searchops.dev/generation": str(generation),
            "searchops.dev/binding": "{}",
        }
        wanted = CollectionDesign(
            name=f"{self.alias(tenant)}@g{generation}",
            dense=((DENSE, 4),),
            sparse=("lex-01234567",),
            indexes=(("_deleted", "integer"),),
            shards=1,
            replicas=1,
            strict=SHARED_STRICT,
            metadata=tuple(metadata.items()),
            tier=self.tier,
            layout="0a1b2c3d",
        )
        return replace(wanted, **changes)

    async def provision(self, tenant: str, generation: int = 1, **changes: Any) -> str:
        """A slice with its public name and its side; returns the name it goes by."""
        wanted = self.design(tenant, generation, **changes)
        await self.ports.create_collection(self.cell, wanted)
        await self.ports.create_index(self.cell, wanted.name, "_deleted", "integer")
        for alias in (f"{self.alias(tenant)}@{'a' if generation % 2 == 0 else 'b'}", self.alias(tenant)):
            await self.ports.point_alias(self.cell, alias, wanted.name)
        return wanted.name

    async def seen(self, name: str) -> CollectionState:
        found = await self.ports.describe(self.cell, name)
        assert found is not None
        return found

    async def address(self, name: str) -> SliceAddress:
        found = (await self.seen(name)).slice
        assert found is not None
        return found

    async def write(self, name: str, *vectors: str) -> None:
        """The same products in every slice, as a gateway writes them."""
        address = await self.address(name)
        points = [
            models.PointStruct(
                id=point_id(product, address.key),
                vector={vector: [1.0, 0.0, 0.0, 0.5] for vector in vectors or (DENSE,)},
                payload={"_id": product, TENANT_KEY: address.key},
            )
            for product in PRODUCTS
        ]
        await self.admin.upsert(address.collection, points, wait=True, shard_key_selector=address.shard_key)

    async def aliases(self) -> dict[str, str]:
        """This fleet's names as the operator sees them."""
        found = (await self.ports.survey(self.cell)).aliases
        return {name: target for name, target in found.items() if name.startswith(f"{self.fleet}.")}

    async def stored_aliases(self) -> dict[str, str]:
        """This fleet's aliases as the server has them."""
        found = (await self.admin.get_aliases()).aliases
        return {item.alias_name: item.collection_name for item in found if item.alias_name.startswith(self.fleet)}

    async def shared(self) -> list[str]:
        """Shared collections as the server has them."""
        found = (await self.admin.get_collections()).collections
        return sorted(item.name for item in found if item.name.startswith(f"{self.fleet}@shared-"))

    async def clear(self) -> None:
        """Remove what this fleet has made, and close."""
        for item in (await self.admin.get_collections()).collections:
            if item.name.startswith((f"{self.fleet}@", f"{self.fleet}.")):
                await self.admin.delete_collection(item.name)
        await self.raw.close()
        await self.admin.close()


def make_scene(
    server: Server, tier: Tier, *, url: str = "", tenants_each: int = 3, indexing_threshold: int = 10_000
) -> SharedScene:
    """A scene on a server, or on a proxy before it."""
    ticks = itertools.count(0, 10)
    fleet = f"f{uuid.uuid4().hex[:8]}"
    raw = QdrantCells(timeout=5.0, now=lambda: float(next(ticks)))
    made: list[str] = []
    ports = SharedCells(
        raw,
        fleet=fleet,
        tenants_each=tenants_each,
        slice_key=slice_key,
        indexing_threshold=indexing_threshold,
        made=made.append,
        now=lambda: float(next(ticks)),
    )
    cell = CellRegistration("eu-1", {}, (url or server.url,), None, 1000, api_key=server.api_key)
    admin = AsyncQdrantClient(
        url=server.url, headers={"api-key": server.api_key}, check_compatibility=False, timeout=30
    )
    return SharedScene(cell, raw, ports, admin, fleet, tier, made)
