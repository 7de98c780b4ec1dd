"""A tenant as the operator would have made it, a labelled double of the encoder, the gateway as a client sees it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import jwt
from qdrant_client import AsyncQdrantClient, models

from searchops.api.retrieval import (
    BINDING_KEY,
    PENDING_KEY,
    PREVIOUS_KEY,
    AnalyserSettings,
    Binding,
    FieldRoles,
    RetrievalProfile,
    lexical_vector,
    point_id,
    trigram_vector,
)
from searchops_workers.encoders.errors import EncoderUnavailable
from searchops_workers.gateway.app import Gateway, build_parts
from searchops_workers.gateway.settings import CellEndpoint, GatewaySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from searchops_sandbox.qdrant.cell import QdrantCell

KEY = "gateway-suite-key-of-32-characters!!"
ANALYSER = AnalyserSettings(languages=("en",))
FIELDS = FieldRoles(code=("sku",), filter=("price", "colour"))
PROFILE = RetrievalProfile(name="plain")
PRODUCTS = [
    {"id": "nut", "title": "Hex nut M12 stainless", "sku": "HN-2110", "price": 3.5, "colour": "silver"},
    {"id": "shirt", "title": "White shirt", "sku": "SH-1000", "price": 25.0, "colour": "white"},
    {"id": "red", "title": "Red shirt", "sku": "SH-2000", "price": 35.0, "colour": "red"},
]


class FakeEncoder:
    """A labelled double of Triton: an axis a vector name, turned by what the text is about."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.calls: list[tuple[str | None, int]] = []

    async def encode(self, binding: Binding, texts: Sequence[str]) -> list[list[float]]:
        if binding.encoder in self.down:
            raise EncoderUnavailable(f"{binding.encoder} is down in this test")
        self.calls.append((binding.encoder, len(texts)))
        return [[1.0, 0.0] if "shirt" in text.lower() or "blouse" in text.lower() else [0.0, 1.0] for text in texts]

    async def close(self) -> None:
        self.down = set()


def dense(revision: str, vector: str, side: str | None) -> Binding:
    return Binding(
        model="m",
        revision=revision,
        encoder=revision,
        vector=vector,
        dimension=2,
        analyser=ANALYSER,
        profile=PROFILE,
        document="{title}. {colour}",
        fields=FIELDS,
        side=side,
        since="2026-11-24T00:00:00Z",
    )


class Tenant:
    """One tenant as the operator would have made it, with both generations at hand."""

    def __init__(self, admin: AsyncQdrantClient, name: str) -> None:
        self.admin = admin
        self.path = f"merchants.{name}"
        self.alias = f"prod.merchants.{name}"
        self.sides = (f"{self.alias}@a", f"{self.alias}@b")

    async def create(self, number: int, vectors: Sequence[str], metadata: dict[str, str | None]) -> None:
        collection = f"{self.alias}@g{number}"
        a8 = ANALYSER.analyser_id
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        await self.admin.create_collection(
            collection,
            vectors_config={name: models.VectorParams(size=2, distance=models.Distance.COSINE) for name in vectors},
            sparse_vectors_config={lexical_vector(a8): sparse, trigram_vector(a8): sparse},
            strict_mode_config=models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False),
            metadata={key: value for key, value in metadata.items() if value is not None},
        )
        kinds = {
            "_deleted": "integer",
            "_version": "integer",
            "_missed": "keyword",
            "price": "float",
            "colour": "keyword",
            "sku": "keyword",
        }
        for field, kind in kinds.items():
            await self.admin.create_payload_index(collection, field, models.PayloadSchemaType(kind))
        await self.point(self.sides[number % 2], collection)

    async def point(self, alias: str, collection: str) -> None:
        action = models.CreateAlias(collection_name=collection, alias_name=alias)
        await self.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=action)])

    async def bind(self, number: int, **bindings: Binding | None) -> None:
        keys = {"binding": BINDING_KEY, "pending": PENDING_KEY, "previous": PREVIOUS_KEY}
        values = {keys[name]: value.to_metadata() if value else None for name, value in bindings.items()}
        await self.admin.update_collection(f"{self.alias}@g{number}", metadata=values)

    def token(self, access: str = "prw", *, key: str = KEY, alias: str | None = None, cell: str = "eu-1") -> str:
        names = [alias or self.alias, *(self.sides if access == "prw" else ())]
        claims = {
            "exp": int(time.time()) + 600,
            "access": [{"collection": name, "access": access} for name in names],
            "cell": cell,
        }
        return jwt.encode(claims, key, algorithm="HS256")

    async def stored(self, collection: str, product: str) -> models.Record | None:
        found = await self.admin.retrieve(collection, [point_id(product)], with_payload=True, with_vectors=True)
        return found[0] if found else None


class Holder(Protocol):
    """A tenant as its client knows it: a path, and tokens."""

    path: str

    def token(self, right: str = "prw", /) -> str:
        """What stands in a Secret of the tenant's."""
        ...


class Front:
    """The gateway under test, called as a client would."""

    def __init__(self, http: httpx.AsyncClient, tenant: Holder, encoder: FakeEncoder) -> None:
        self.http, self.tenant, self.encoder = http, tenant, encoder

    async def call(self, method: str, path: str, *, token: str | None = None, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.tenant.token()}", **arguments.pop("headers", {})}
        return await self.http.request(method, f"/v1/tenants/{self.tenant.path}{path}", headers=headers, **arguments)

    async def search(self, query: str, **body: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/search", token=self.tenant.token("r"), json={"query": query, **body})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def put(self, products: Sequence[dict[str, Any]]) -> dict[str, Any]:
        answer = await self.call("PUT", "/products", json={"products": list(products)})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


@asynccontextmanager
async def gateway(
    cell: QdrantCell,
    tenant: Holder,
    *,
    grpc: bool = False,
    clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> AsyncIterator[Front]:
    endpoint = CellEndpoint(url=cell.rest_url, grpc_port=cell.grpc_port if grpc else None)
    encoder = FakeEncoder()
    chosen = {"cells": {"eu-1": endpoint}, "binding_seconds": 0.0, **settings}
    parts = build_parts(GatewaySettings.model_validate(chosen), encoder=encoder, clock=clock)
    app = Gateway(parts).application()
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        yield Front(http, tenant, encoder)


async def made(admin: AsyncQdrantClient, name: str) -> Tenant:
    """A tenant bound to r1 on generation 2, whose side is ``@a``."""
    tenant = Tenant(admin, name)
    await tenant.create(2, ["d-one"], {BINDING_KEY: dense("r1", "d-one", tenant.sides[0]).to_metadata()})
    await tenant.point(tenant.alias, f"{tenant.alias}@g2")
    return tenant
