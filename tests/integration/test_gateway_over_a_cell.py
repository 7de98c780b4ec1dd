"""The gateway in front of the sandbox's Qdrant cell, over REST and gRPC, with a labelled double of the encoder."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
import pytest_asyncio
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
from searchops_sandbox.processes import free_port
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_workers.encoders.errors import EncoderUnavailable
from searchops_workers.gateway.app import build_app
from searchops_workers.gateway.settings import CellEndpoint, GatewaySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

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
        kinds = {"_deleted": "integer", "_version": "integer", "price": "float", "colour": "keyword", "sku": "keyword"}
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    started = QdrantCell("gateway", folder=tmp_path_factory.mktemp("cell"), api_key=KEY)
    await started.start()
    yield started
    await started.stop()


@pytest_asyncio.fixture
async def admin(cell: QdrantCell) -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(url=cell.rest_url, headers={"api-key": KEY}, check_compatibility=False)
    yield client
    await client.close()


class Front:
    """The gateway under test, called as a client would."""

    def __init__(self, http: httpx.AsyncClient, tenant: Tenant, encoder: FakeEncoder) -> None:
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
async def gateway(cell: QdrantCell, tenant: Tenant, *, grpc: bool = False, **settings: Any) -> AsyncIterator[Front]:
    endpoint = CellEndpoint(url=cell.rest_url, grpc_port=cell.grpc_port if grpc else None)
    encoder = FakeEncoder()
    chosen = {"cells": {"eu-1": endpoint}, "binding_seconds": 0.0, **settings}
    app = build_app(GatewaySettings.model_validate(chosen), encoder=encoder)
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


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_what_is_indexed_is_found_by_the_leg_that_is_meant_for_it(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"found-{'grpc' if grpc else 'rest'}")
    async with gateway(cell, tenant, grpc=grpc) as front:
        written = await front.put(PRODUCTS)
        assert (written["written"], written["rejected"], written["sides"]) == (3, [], 1)
        code = await front.search("hn2110")
        assert code["legs"] == ["lex", "tri"]
        assert code["hits"][0]["product"] == PRODUCTS[0]
        typo = await front.search("whiite shrt")
        assert typo["hits"][0]["id"] == "shirt"
        assert "tri" in typo["hits"][0]["legs"]
        synonym = await front.search("blouse")
        assert {hit["id"] for hit in synonym["hits"][:2]} == {"shirt", "red"}
        assert set(synonym["hits"][0]["legs"]) == {"dense"}
        assert (synonym["degraded"], synonym["revision"]) == (False, "r1")


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_a_deleted_product_is_a_tombstone_that_no_leg_returns(
    cell: QdrantCell, admin: AsyncQdrantClient, grpc: bool
) -> None:
    tenant = await made(admin, f"deleted-{'grpc' if grpc else 'rest'}")
    async with gateway(cell, tenant, grpc=grpc) as front:
        await front.put(PRODUCTS)
        answer = await front.call("DELETE", "/products", json={"ids": ["shirt", "never-there"]})
        assert (answer.status_code, answer.json()["deleted"]) == (200, 2)
        assert "shirt" not in {hit["id"] for hit in (await front.search("white shirt"))["hits"]}
        stored = await tenant.stored(f"{tenant.alias}@g2", "shirt")
        assert stored is not None
        assert stored.payload is not None
        assert stored.payload["_deleted"] == stored.payload["_version"] == answer.json()["version"]
        assert not stored.vector


async def test_a_tombstone_that_a_backfill_gave_a_vector_is_not_returned(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "raced")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        await front.call("DELETE", "/products", json={"ids": ["red"]})
        late = models.PointVectors(id=point_id("red"), vector={"d-one": [1.0, 0.0]})
        await admin.update_vectors(f"{tenant.alias}@g2", [late])
        assert {hit["id"] for hit in (await front.search("blouse"))["hits"]} == {"shirt", "nut"}


async def test_filters_are_exact_any_of_several_or_bounds_and_only_on_indexed_fields(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "filters")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)

        async def ids(**filters: Any) -> set[str]:
            return {hit["id"] for hit in (await front.search("shirt", filters=filters))["hits"]}

        assert await ids(colour="red") == {"red"}
        assert await ids(colour=["red", "white"]) == {"red", "shirt"}
        assert await ids(price={"gte": 30}) == {"red"}
        assert await ids(price=25) == {"shirt"}
        answer = await front.call("POST", "/search", json={"query": "shirt", "filters": {"title": "x"}})
        assert answer.status_code == 422
        assert answer.json()["field"] == "filters.title"
        assert "colour, price, sku" in answer.json()["detail"]


async def test_while_a_rebuild_fills_another_collection_both_have_every_write(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "bluegreen")
    await tenant.create(3, ["d-two"], {})
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[1])
    await tenant.bind(2, binding=first, pending=second)
    async with gateway(cell, tenant) as front:
        assert (await front.put(PRODUCTS))["sides"] == 2
        await front.call("DELETE", "/products", json={"ids": ["red"]})
        one, two = [await tenant.stored(f"{tenant.alias}@g{n}", "shirt") for n in (2, 3)]
        assert one is not None
        assert two is not None
        assert one.payload == two.payload
        assert isinstance(one.vector, dict)
        assert isinstance(two.vector, dict)
        assert ("d-one" in one.vector, "d-two" in two.vector) == (True, True)
        gone = [await tenant.stored(f"{tenant.alias}@g{n}", "red") for n in (2, 3)]
        assert all(item is not None and item.payload and "_deleted" in item.payload for item in gone)

        await tenant.bind(3, binding=second, previous=first)
        await tenant.point(tenant.alias, f"{tenant.alias}@g3")
        assert (await front.search("white shirt"))["revision"] == "r2"
        assert (await front.put([{"id": "late", "title": "Late shirt"}]))["sides"] == 2
        assert await tenant.stored(f"{tenant.alias}@g2", "late") is not None


async def test_two_vectors_of_one_point_are_written_together(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = Tenant(admin, "named")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[0])
    await tenant.create(2, ["d-one", "d-two"], {BINDING_KEY: first.to_metadata(), PENDING_KEY: second.to_metadata()})
    await tenant.point(tenant.alias, f"{tenant.alias}@g2")
    async with gateway(cell, tenant) as front:
        assert (await front.put(PRODUCTS))["sides"] == 1
        stored = await tenant.stored(f"{tenant.alias}@g2", "nut")
        assert stored is not None
        assert isinstance(stored.vector, dict)
        assert {"d-one", "d-two"} <= set(stored.vector)


async def test_a_side_that_is_being_filled_is_never_missed_and_a_previous_one_never_silently(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = Tenant(admin, "missed")
    first, second = dense("r1", "d-one", tenant.sides[0]), dense("r2", "d-two", tenant.sides[0])
    await tenant.create(2, ["d-one", "d-two"], {BINDING_KEY: first.to_metadata(), PENDING_KEY: second.to_metadata()})
    await tenant.point(tenant.alias, f"{tenant.alias}@g2")
    async with gateway(cell, tenant) as front:
        front.encoder.down = {"r2"}
        refused = await front.call("PUT", "/products", json=PRODUCTS)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        assert await tenant.stored(f"{tenant.alias}@g2", "nut") is None

        await tenant.bind(2, binding=second, pending=None, previous=first)
        front.encoder.down = {"r1"}
        answer = await front.put(PRODUCTS)
        assert "r1" in answer["missedPrevious"]
        stored = await tenant.stored(f"{tenant.alias}@g2", "nut")
        assert stored is not None
        assert isinstance(stored.vector, dict)
        assert "d-two" in stored.vector
        assert "d-one" not in stored.vector
        metrics = (await front.http.get("/metrics")).text
        assert "searchops_gateway_previous_side_missed_total 1.0" in metrics


async def test_an_older_write_never_replaces_a_newer_one(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "versions")
    collection = f"{tenant.alias}@g2"
    future = int(time.time() * 1_000_000) + 3_600_000_000
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        await admin.set_payload(collection, {"_version": future}, points=[point_id("shirt")])
        await front.put([{**PRODUCTS[1], "title": "Older title"}, {**PRODUCTS[2], "title": "Newer title"}])
        kept, replaced = [await tenant.stored(collection, product) for product in ("shirt", "red")]
        assert kept is not None
        assert replaced is not None
        assert kept.payload is not None
        assert replaced.payload is not None
        assert kept.payload["title"] == "White shirt"
        assert replaced.payload["title"] == "Newer title"


async def test_a_binding_that_the_index_has_outrun_is_read_again(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "outrun")
    async with gateway(cell, tenant, binding_seconds=300.0) as front:
        await front.put(PRODUCTS)
        assert (await front.search("white shirt"))["revision"] == "r1"
        await tenant.create(3, ["d-two"], {BINDING_KEY: dense("r2", "d-two", tenant.sides[1]).to_metadata()})
        await tenant.point(tenant.alias, f"{tenant.alias}@g3")
        await admin.delete_collection(f"{tenant.alias}@g2")
        assert (await front.search("white shirt"))["revision"] == "r2"
        assert (await front.put(PRODUCTS))["written"] == 3
        assert (await front.search("white shirt"))["hits"][0]["id"] == "shirt"


async def test_when_the_encoder_is_down_the_lexical_legs_answer_and_say_so(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "degraded")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)
        front.encoder.down = {"r1"}
        answer = await front.search("white shirt")
        assert (answer["degraded"], answer["legs"]) == (True, ["lex", "tri"])
        assert "r1" in answer["route"]
        assert answer["hits"][0]["id"] == "shirt"
        assert not (await front.search("hn2110"))["degraded"]


async def test_a_token_opens_its_own_tenant_and_nothing_else(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant, other = await made(admin, "mine"), await made(admin, "theirs")
    async with gateway(cell, tenant) as front:
        await front.put(PRODUCTS)

        async def status(token: str) -> tuple[int, str]:
            answer = await front.call("POST", "/search", token=token, json={"query": "shirt"})
            assert answer.headers["content-type"] == "application/problem+json"
            return answer.status_code, answer.json()["type"]

        assert await status(other.token("r")) == (403, "urn:searchops:problem:other-tenant")
        assert (await status(tenant.token("r", key="another-key-that-is-32-characters!")))[0] in (401, 403)
        assert await status("no-jwt") == (401, "urn:searchops:problem:bad-credentials")
        assert await status(tenant.token("r", cell="mars")) == (503, "urn:searchops:problem:unknown-cell")
        reader = await front.call("PUT", "/products", token=tenant.token("r"), json=PRODUCTS)
        assert (reader.status_code, reader.json()["type"]) == (403, "urn:searchops:problem:read-only-token")
        bare = await front.http.post(f"/v1/tenants/{tenant.path}/search", json={"query": "shirt"})
        assert bare.status_code == 401
        assert bare.headers["www-authenticate"].startswith("Bearer")


async def test_a_forged_token_is_never_served_from_another_tokens_cache(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "forged")
    async with gateway(cell, tenant, binding_seconds=300.0) as front:
        await front.put(PRODUCTS)
        await front.search("white shirt")
        encoded = len(front.encoder.calls)
        forged = tenant.token("prw", key="a-forger-has-no-key-of-the-cell-here!")
        for method, path, body in (
            ("GET", "", None),
            ("POST", "/search", {"query": "shirt"}),
            ("PUT", "/products", PRODUCTS),
        ):
            answer = await front.call(method, path, token=forged, json=body)
            assert answer.status_code in (401, 403)
        assert len(front.encoder.calls) == encoded


async def test_the_tenant_says_what_it_is_bound_to(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "about")
    async with gateway(cell, tenant) as front:
        answer = (await front.call("GET", "", token=tenant.token("r"))).json()
        assert answer["binding"]["revision"] == "r1"
        assert (answer["pending"], answer["previous"]) == (None, None)
        assert answer["filters"] == ["colour", "price", "sku"]


async def test_a_bulk_in_several_batches_is_written_whole_and_bad_items_are_listed(
    cell: QdrantCell, admin: AsyncQdrantClient
) -> None:
    tenant = await made(admin, "bulk")
    lines = [f'{{"id": "p{n}", "title": "Pump {n}"}}' for n in range(25)]
    lines.insert(3, "not json")
    lines.insert(7, '{"title": "no id"}')
    lines.append('{"id": "p0", "title": "Pump again"}')
    async with gateway(cell, tenant, max_batch=10) as front:
        answer = await front.call(
            "PUT", "/products", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.status_code == 207
        document = answer.json()
        assert document["written"] == 25
        assert [(item["index"], item["id"]) for item in document["rejected"]] == [(3, None), (7, None)]
        assert "'not json' is no JSON" in document["rejected"][0]["detail"]
        assert document["superseded"] == [0]
        assert (await admin.count(tenant.alias, exact=True)).count == 25
        stored = await tenant.stored(tenant.alias, "p0")
        assert stored is not None
        assert stored.payload is not None
        assert stored.payload["title"] == "Pump again"


async def test_a_cell_that_does_not_answer_is_503_with_retry_after(cell: QdrantCell, admin: AsyncQdrantClient) -> None:
    tenant = await made(admin, "dropped")
    dead = {"eu-1": CellEndpoint(url=f"http://127.0.0.1:{free_port()}")}
    async with gateway(cell, tenant, cells=dead) as front:
        for method, path, body in (("POST", "/search", {"query": "shirt"}), ("PUT", "/products", PRODUCTS)):
            answer = await front.call(method, path, json=body)
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:searchops:problem:cell-unreachable")
            assert int(answer.headers["Retry-After"]) >= 1
            assert tenant.token("r") not in answer.text
