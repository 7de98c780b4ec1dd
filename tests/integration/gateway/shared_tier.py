"""Tenants of a shared collection as the operator would have made them: records, register, credentials."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Literal

import jwt
from qdrant_client import models

from integration.gateway.gateway_parts import ANALYSER, KEY, dense
from searchops.api.retrieval import (
    BINDING_KEY,
    PENDING_KEY,
    PREVIOUS_KEY,
    Binding,
    lexical_vector,
    point_id,
    trigram_vector,
)
from searchops.api.shared import KEY_SHARED, NameRecord, SliceRecord, TenantRecord, record_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qdrant_client import AsyncQdrantClient

    from searchops.api.shared import SharedTier

FLEET_KEY = "the-fleets-gateway-key-of-32-bytes!!"
REGISTER = "prod@tokens"
VECTORS = ("d-one", "d-two")


class SharedCell:
    """The shared collections of a cell, its register, and the file that the operator hands to the gateway."""

    def __init__(self, admin: AsyncQdrantClient, folder: Path, tier: SharedTier) -> None:
        self.admin = admin
        self.tier: SharedTier = tier
        self.path = folder / "credentials.json"
        self.collections: list[str] = []
        self.register = f"{REGISTER}-{uuid.uuid4().hex[:6]}"

    async def prepare(self) -> None:
        """The register, empty."""
        await self.admin.create_collection(self.register, vectors_config={})
        await self.admin.create_payload_index(self.register, "token", models.PayloadSchemaType.KEYWORD)

    async def collection(self) -> str:
        """A shared collection; payload indexes come before data."""
        name = f"prod@shared-{uuid.uuid4().hex[:6]}"
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        a8 = ANALYSER.analyser_id
        await self.admin.create_collection(
            name,
            vectors_config={one: models.VectorParams(size=2, distance=models.Distance.COSINE) for one in VECTORS},
            sparse_vectors_config={lexical_vector(a8): sparse, trigram_vector(a8): sparse},
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            sharding_method=models.ShardingMethod.CUSTOM if self.tier == "ShardKey" else None,
            strict_mode_config=models.StrictModeConfig(
                enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
            ),
            metadata={KEY_SHARED: self.tier},
        )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self.admin.create_payload_index(name, "_tenant", tenant)
        kinds = dict.fromkeys(("_missed", "colour", "sku"), "keyword")
        for field, kind in {**kinds, "_deleted": "integer", "_version": "integer", "price": "float"}.items():
            await self.admin.create_payload_index(name, field, models.PayloadSchemaType(kind))
        self.collections.append(name)
        return name

    def hand_over(self, *, keys: Sequence[str] = (FLEET_KEY,), signed_by: str = KEY, lifetime: float = 600) -> Path:
        """Write the credentials' file as it should be now."""
        access = [{"collection": name, "access": "prw"} for name in self.collections]
        access.append({"collection": self.register, "access": "r"})
        claims = {"exp": int(time.time() + lifetime), "access": access, "subject": "gateway"}
        held = {
            "token": jwt.encode(claims, signed_by, algorithm="HS256"),
            "collections": self.collections,
            "registerName": self.register,
        }
        self.path.write_text(json.dumps({"keys": list(keys), "cells": {"eu-1": held}}))
        return self.path


class SharedTenant:
    """One tenant, its record, and its slices by generation."""

    def __init__(self, cell: SharedCell, name: str) -> None:
        self.cell = cell
        self.admin = cell.admin
        self.uid = f"uid-{name}"
        self.path = f"merchants.{name}"
        self.alias = f"prod.merchants.{name}"
        self.sides = (f"{self.alias}@a", f"{self.alias}@b")
        self.homes: dict[int, str] = {}
        self.slices: dict[int, SliceRecord] = {}
        self.names: dict[str, NameRecord] = {}

    def key(self, generation: int) -> str:
        return f"{self.uid}-g{generation}"

    async def slice(self, generation: int, collection: str, **bindings: Binding | None) -> None:
        """A slice and its side's name, with what it is bound to."""
        self.homes[generation] = collection
        keys = {"binding": BINDING_KEY, "pending": PENDING_KEY, "previous": PREVIOUS_KEY}
        flat = {keys[name]: value.to_metadata() for name, value in bindings.items() if value is not None}
        new = generation not in self.slices
        self.slices[generation] = SliceRecord(key=self.key(generation), vectors={"d-one": 2}, metadata=flat)
        if new and self.cell.tier == "ShardKey":
            await self.admin.create_shard_key(collection, self.key(generation))
        self._point("@" + "ab"[generation % 2], generation)
        await self.write(collection)

    async def name(self, suffix: str, generation: int) -> None:
        """Move a name of the tenant."""
        self._point(suffix, generation)
        await self.write(self.homes[generation])

    def _point(self, suffix: str, generation: int) -> None:
        turn = max((name.turn for name in self.names.values()), default=0) + 1
        self.names[suffix] = NameRecord(generation=generation, turn=turn)

    async def write(self, collection: str) -> None:
        """One PATCH of the record in a collection."""
        inside = {number: held for number, held in self.slices.items() if self.homes[number] == collection}
        names = {suffix: name for suffix, name in self.names.items() if name.generation in inside}
        record = TenantRecord(tier=self.cell.tier, alias=self.alias, slices=inside, names=names)
        await self.admin.update_collection(collection, metadata={record_key(self.uid): record.to_metadata()})

    async def grant(self, *entries: str) -> None:
        """Enter tokens of these entries into the register."""
        points = [
            models.PointStruct(id=self._grant_id(entry), vector={}, payload={"token": self._value(entry)})
            for entry in entries
        ]
        await self.admin.upsert(self.cell.register, points, wait=True)

    async def revoke(self, entry: str) -> None:
        ids: list[Any] = [self._grant_id(entry)]
        await self.admin.delete(self.cell.register, models.PointIdsList(points=ids), wait=True)

    def _value(self, entry: str) -> str:
        return f"{self.uid}/{entry}/1"

    def _grant_id(self, entry: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self._value(entry)))

    def claims(self, right: str = "prw", **changes: Any) -> dict[str, Any]:
        entry = "indexer" if right == "prw" else "storefront"
        names = (self.alias, *(self.sides if right == "prw" else ()))
        return {
            "exp": int(time.time()) + 600,
            "access": [{"collection": name, "access": right} for name in names],
            "subject": f"{self.uid}/{entry}",
            "cell": "eu-1",
            "enforcedBy": "Gateway",
            "value_exists": {
                "collection": self.cell.register,
                "matches": [{"key": "token", "value": self._value(entry)}],
            },
            **changes,
        }

    def token(self, right: str = "prw", *, key: str = FLEET_KEY, **changes: Any) -> str:
        return jwt.encode(self.claims(right, **changes), key, algorithm="HS256")

    async def stored(self, product: str, generation: int = 2) -> models.Record | None:
        """A product's point, read past the gateway."""
        key = self.key(generation)
        routing: Mapping[str, Any] = {"shard_key_selector": key} if self.cell.tier == "ShardKey" else {}
        found = await self.admin.retrieve(
            self.homes[generation], [point_id(product, key)], with_payload=True, with_vectors=True, **routing
        )
        return found[0] if found else None


async def shared_cell(admin: AsyncQdrantClient, folder: Path, tier: Literal["Shared", "ShardKey"]) -> SharedCell:
    """A cell with a register and one shared collection, and its credentials handed over."""
    cell = SharedCell(admin, folder, tier)
    await cell.prepare()
    await cell.collection()
    cell.hand_over()
    return cell


async def merchant(cell: SharedCell, name: str) -> SharedTenant:
    """A tenant bound to r1 on generation 2, whose side is ``@a``, with tokens that are valid."""
    tenant = SharedTenant(cell, f"{name}-{uuid.uuid4().hex[:6]}")
    await tenant.slice(2, cell.collections[0], binding=dense("r1", "d-one", tenant.sides[0]))
    await tenant.name("", 2)
    await tenant.grant("indexer", "storefront")
    return tenant
