"""The HTTP application: search, products, the tenant, OpenAPI, metrics and probes."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from searchops_workers.encoders.errors import EncoderError
from searchops_workers.gateway.encoders import EncoderPool
from searchops_workers.gateway.indexing import Indexer
from searchops_workers.gateway.openapi import OPENAPI, PAGE
from searchops_workers.gateway.problems import Problem, problem_response
from searchops_workers.gateway.tenants import Caller, TenantDirectory, WrongSpace, caller_of, translated
from searchops_workers.retrieval.query import needs_dense
from searchops_workers.retrieval.remote import QdrantSearch
from searchops_workers.retrieval.search import SearchAnswer, Searcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from searchops_workers.gateway.settings import GatewaySettings
    from searchops_workers.gateway.tenants import Bindings

MAX_LIMIT = 100
MAX_QUERY = 512


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


class Gateway:
    """Handlers of one gateway process."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._tenants = TenantDirectory(settings)
        self._encoders = EncoderPool(settings.servers, deadline=settings.request_seconds)
        self._in_flight = 0
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "searchops_gateway_requests",
            "Requests by operation and status.",
            ["operation", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "searchops_gateway_request_seconds", "Duration of requests.", ["operation"], registry=self.registry
        )
        self._degraded = Counter(
            "searchops_gateway_degraded_searches",
            "Searches answered by the lexical legs alone for want of an encoder.",
            registry=self.registry,
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Close what was opened."""
        try:
            yield
        finally:
            await self._tenants.close()
            await self._encoders.close()

    # -- handlers ----------------------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """POST /v1/tenants/{tenant}/search."""
        async with self._admitted("search"):
            caller = caller_of(request.headers.get("authorization"), request.path_params["tenant"])
            text, limit, filters, explain = _search_input(await self._body(request))
            bindings = await self._tenants.bindings(caller)
            try:
                answer = await self._search(caller, bindings, text, limit, filters)
            except WrongSpace:
                bindings = await self._tenants.bindings(caller, fresh=True)
                answer = await self._search(caller, bindings, text, limit, filters)
            self._requests.labels("search", 200).inc()
            return _json(_search_output(answer, bindings, explain=explain))

    async def _search(
        self, caller: Caller, bindings: Bindings, text: str, limit: int, filters: dict[str, Any]
    ) -> SearchAnswer:
        binding = bindings.binding
        dense, degraded = None, ""
        if needs_dense(text, binding) and binding.encoder is not None:
            try:
                rows = await self._encoders.encode(binding.encoder, [text])
                dense = [float(value) for value in rows[0]]
            except EncoderError as error:
                degraded = f"the encoder did not answer: {error}"[:300]
                self._degraded.inc()
        searcher = Searcher(QdrantSearch(await self._tenants.client(caller)))
        async with translated():
            return await searcher.search_vector(
                caller.alias, text, binding, dense, limit=limit, filters=filters, degraded=degraded
            )

    async def put_products(self, request: Request) -> Response:
        """PUT /v1/tenants/{tenant}/products: JSON list or object, or NDJSON."""
        async with self._admitted("index"):
            caller = self._writer(request)
            items = self._items(await self._body(request), request.headers.get("content-type", ""))
            version = time.time_ns() // 1000
            indexer = await self._indexer(caller)
            try:
                bindings = await self._tenants.bindings(caller)
                result = await indexer.put(caller.alias, bindings, items, version)
            except WrongSpace:
                bindings = await self._tenants.bindings(caller, fresh=True)
                result = await indexer.put(caller.alias, bindings, items, version)
            except EncoderError as error:
                raise Problem(503, "Encoder unavailable", str(error)[:300], retry_after=2) from error
            status = 200 if not result.rejected else 207
            self._requests.labels("index", status).inc()
            rejected = [{"index": one.index, "id": one.id, "detail": one.detail} for one in result.rejected]
            return _json({"written": result.written, "version": version, "rejected": rejected}, status)

    async def delete_products(self, request: Request) -> Response:
        """DELETE /v1/tenants/{tenant}/products: ``{"ids": […]}``."""
        async with self._admitted("delete"):
            caller = self._writer(request)
            body = _parse(await self._body(request))
            ids = body.get("ids") if isinstance(body, dict) else None
            if not isinstance(ids, list) or not ids or not all(isinstance(one, str) and one for one in ids):
                raise Problem(400, "Bad request", 'ids: wanted a list of product ids, such as {"ids": ["p1"]}')
            if len(ids) > self._settings.max_products:
                raise Problem(413, "Too many products", f"{len(ids)} ids; wanted at most {self._settings.max_products}")
            bindings = await self._tenants.bindings(caller)
            indexer = await self._indexer(caller)
            deleted = await indexer.delete(caller.alias, bindings, ids, time.time_ns() // 1000)
            self._requests.labels("delete", 200).inc()
            return _json({"deleted": deleted})

    async def tenant(self, request: Request) -> Response:
        """GET /v1/tenants/{tenant}: what it is bound to."""
        async with self._admitted("tenant"):
            caller = caller_of(request.headers.get("authorization"), request.path_params["tenant"])
            read = await self._tenants.bindings(caller, fresh=True)
            shown = {
                name: None if side is None else {"revision": side.revision, "vector": side.vector, "since": side.since}
                for name, side in (("binding", read.binding), ("pending", read.pending), ("previous", read.previous))
            }
            return _json({"tenant": caller.tenant, "alias": caller.alias, "cell": caller.cell, **shown})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(self, _: Request) -> Response:
        """GET /healthz: the loop runs."""
        return Response("ok\n")

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: a cell is configured."""
        if self._settings.cells:
            return Response("ok\n")
        return Response("SEARCHOPS_GATEWAY_CELLS names no cell\n", 503)

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return _json(OPENAPI)

    async def page(self, _: Request) -> Response:
        """GET /: the API in a browser."""
        return HTMLResponse(PAGE)

    # -- within ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _admitted(self, operation: str) -> AsyncIterator[None]:
        """Bounded in number and time; every refusal says when to come back."""
        if self._in_flight >= self._settings.max_in_flight:
            self._requests.labels(operation, 503).inc()
            raise Problem(503, "Busy", f"{self._in_flight} requests are in flight; come back", retry_after=1)
        self._in_flight += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.request_seconds * 6):
                yield
        except TimeoutError as error:
            raise Problem(
                504, "Timed out", "the request took too long; a write may have taken effect", retry_after=2
            ) from error
        except Problem as problem:
            self._requests.labels(operation, problem.status).inc()
            raise
        finally:
            self._in_flight -= 1
            self._seconds.labels(operation).observe(time.perf_counter() - started)

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_body_bytes
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise Problem(413, "Body too large", f"more than {limit} bytes; split the request")
        return bytes(content)

    def _items(self, body: bytes, content_type: str) -> list[Any]:
        if "ndjson" in content_type or "jsonl" in content_type:
            items = _lines(body)
        else:
            parsed = _parse(body)
            items = parsed if isinstance(parsed, list) else [parsed]
        if len(items) > self._settings.max_products:
            raise Problem(
                413, "Too many products", f"{len(items)} products; wanted at most {self._settings.max_products}"
            )
        return items

    def _writer(self, request: Request) -> Caller:
        caller = caller_of(request.headers.get("authorization"), request.path_params["tenant"])
        if not caller.writes:
            raise Problem(
                403, "Forbidden", "the token is for searching; send the token of an access entry with role Index"
            )
        return caller

    async def _indexer(self, caller: Caller) -> Indexer:
        client = await self._tenants.client(caller)
        return Indexer(client, self._encoders, batch=self._settings.max_batch)


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, "Bad request", f"the body is no JSON: {error}") from error


def _lines(body: bytes) -> list[Any]:
    items = []
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            seen = line[:60].decode(errors="replace")
            raise Problem(
                400, "Bad request", f"line {number}: {seen!r} is no JSON ({error}); nothing was written"
            ) from error
    return items


def _search_input(body: bytes) -> tuple[str, int, dict[str, Any], bool]:
    parsed = _parse(body)
    query = parsed.get("query") if isinstance(parsed, dict) else None
    if not isinstance(query, str) or not query.strip() or len(query) > MAX_QUERY:
        raise Problem(
            400, "Bad request", f'query: wanted a text of 1 to {MAX_QUERY} characters, such as {{"query": "m12 nut"}}'
        )
    limit = parsed.get("limit", 10)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise Problem(400, "Bad request", f"limit: seen {limit!r}; wanted a whole number from 1 to {MAX_LIMIT}")
    filters = parsed.get("filters", {})
    if not isinstance(filters, dict) or not all(
        isinstance(value, str | int | float | bool) for value in filters.values()
    ):
        raise Problem(400, "Bad request", "filters: wanted an object of field names and single values")
    return query, limit, filters, bool(parsed.get("explain", False))


def _search_output(answer: SearchAnswer, bindings: Bindings, *, explain: bool) -> dict[str, Any]:
    hits = []
    for hit in answer.hits:
        product = {key: value for key, value in hit.payload.items() if not key.startswith("_")}
        shown: dict[str, Any] = {"id": hit.product_id, "score": round(hit.score, 9), "product": product}
        shown["legs"] = dict(sorted(hit.legs.items())) if explain else sorted(hit.legs)
        hits.append(shown)
    return {
        "hits": hits,
        "legs": list(answer.legs),
        "route": answer.reason,
        "degraded": answer.degraded,
        "revision": bindings.binding.revision,
    }


def build_app(settings: GatewaySettings) -> Starlette:
    """The application of one process."""
    gateway = Gateway(settings)
    prefix = "/v1/tenants/{tenant}"
    return Starlette(
        routes=[
            Route(f"{prefix}/search", gateway.search, methods=["POST"]),
            Route(f"{prefix}/products", gateway.put_products, methods=["PUT"]),
            Route(f"{prefix}/products", gateway.delete_products, methods=["DELETE"]),
            Route(prefix, gateway.tenant, methods=["GET"]),
            Route("/metrics", gateway.metrics),
            Route("/healthz", gateway.healthz),
            Route("/readyz", gateway.readyz),
            Route("/openapi.json", gateway.openapi),
            Route("/", gateway.page),
        ],
        exception_handlers={Problem: problem_response},
        lifespan=gateway.lifespan,
    )
