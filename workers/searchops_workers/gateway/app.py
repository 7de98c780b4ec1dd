"""The HTTP application: routes, bounds and deadlines; the work itself is done by `searches` and `writes`."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from searchops_workers.gateway.admission import Admission
from searchops_workers.gateway.bindings import Bindings
from searchops_workers.gateway.bodies import parse_bulk, parse_search, read_body
from searchops_workers.gateway.callers import Caller, read_caller, require_write
from searchops_workers.gateway.cells import Cells, Gone, WrongSpace
from searchops_workers.gateway.credentials import CredentialSource
from searchops_workers.gateway.encoders import TritonEncoders
from searchops_workers.gateway.limits import CellFull, Room, require_points
from searchops_workers.gateway.metrics import GatewayMetrics
from searchops_workers.gateway.openapi import PAGE, openapi_document
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.rates import RateExceeded, Rates
from searchops_workers.gateway.searches import Searches, search_document
from searchops_workers.gateway.settings import EndpointSource
from searchops_workers.gateway.shared import SharedTenants
from searchops_workers.gateway.tenants import Tenants
from searchops_workers.gateway.writes import Versions, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from searchops.api.retrieval import Binding
    from searchops_workers.gateway.bodies import Bulk
    from searchops_workers.gateway.callers import AnyCaller
    from searchops_workers.gateway.doors import Tenancy
    from searchops_workers.gateway.encoders import BindingEncoder
    from searchops_workers.gateway.settings import GatewaySettings
    from searchops_workers.gateway.writes import WriteOutcome
    from searchops_workers.retrieval.scope import Foreign, Scope

    Handler = Callable[[Request], Awaitable[Response]]

MULTI_STATUS = 207
log = structlog.get_logger("searchops.gateway")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the handlers work with."""

    settings: GatewaySettings
    endpoints: EndpointSource
    credentials: CredentialSource
    cells: Cells
    tenants: Tenants
    encoder: BindingEncoder
    searches: Searches
    writer: Writer
    rates: Rates
    room: Room
    metrics: GatewayMetrics
    search_gate: Admission
    write_gate: Admission


def build_parts(
    settings: GatewaySettings,
    *,
    encoder: BindingEncoder | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> Parts:
    """Everything wired; `encoder` replaces Triton.

    Raises:
        SettingsError: where the endpoints' file cannot be read.
    """
    endpoints = EndpointSource(settings)
    cells = Cells(endpoints, timeout=settings.cell_seconds)
    credentials = CredentialSource(settings.credentials)
    metrics = GatewayMetrics(0 if settings.tenant_metrics_port is None else settings.tenant_series)
    foreign = _foreign_points(metrics)
    tenants = Tenants(
        Bindings(cells, seconds=settings.binding_seconds, clock=clock),
        SharedTenants(cells, credentials, foreign, seconds=settings.binding_seconds, clock=clock),
        clock=clock,
    )
    rates = Rates(clock=clock)
    chosen = encoder if encoder is not None else TritonEncoders(endpoints, clock=clock)
    return Parts(
        settings=settings,
        endpoints=endpoints,
        credentials=credentials,
        cells=cells,
        tenants=tenants,
        encoder=chosen,
        searches=Searches(cells, tenants, chosen, rates, foreign, encode_seconds=settings.encode_query_seconds),
        writer=Writer(cells, chosen, Versions(wall_clock), batch=settings.max_batch),
        rates=rates,
        room=Room(clock=clock),
        metrics=metrics,
        search_gate=Admission("searches", in_flight=settings.searches_in_flight, waiting=settings.searches_waiting),
        write_gate=Admission("writes", in_flight=settings.writes_in_flight, waiting=settings.writes_waiting),
    )


def _foreign_points(metrics: GatewayMetrics) -> Foreign:
    def told(scope: Scope, count: int) -> None:
        metrics.foreign.inc(count)
        log.error("points of another tenant came back and were dropped", collection=scope.collection, points=count)

    return told


class Gateway:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._draining = False

    def application(self) -> Starlette:
        """The ASGI application; it closes its clients when it ends."""
        guarded = self._guarded
        routes = [
            Route("/v1/tenants/{tenant}/search", guarded("search", self.search), methods=["POST"]),
            Route("/v1/tenants/{tenant}/products", guarded("products", self.products), methods=["PUT", "DELETE"]),
            Route("/v1/tenants/{tenant}", guarded("tenant", self.tenant), methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/", self.page, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _http_problem})

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        settings = self._parts.settings
        try:
            with self._parts.metrics.tenants.served(settings.host, settings.tenant_metrics_port):
                yield
        finally:
            self._draining = True
            await self._parts.encoder.close()
            await self._parts.cells.close()

    def _guarded(self, route: str, handler: Handler) -> Handler:
        """Deadline, problems as documents, and metrics around a handler."""
        metrics, seconds = self._parts.metrics, self._parts.settings.request_seconds

        async def call(request: Request) -> Response:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(seconds):
                    response = await handler(request)
            except Problem as problem:
                if problem.status == 429:
                    metrics.rate_limited.labels(route, "gateway" if isinstance(problem, RateExceeded) else "cell").inc()
                response = problem.response()
            except TimeoutError:
                response = Problem(
                    504,
                    f"no answer within {seconds:g} s; a write may or may not have happened, and may be sent again",
                    code="timeout",
                    retry_after=1,
                ).response()
            except Exception:
                log.exception("request failed", route=route, method=request.method)
                response = Problem(
                    500, "the gateway failed; its log has the cause", code="internal", retry_after=5
                ).response()
            metrics.requests.labels(route, str(response.status_code)).inc()
            metrics.seconds.labels(route).observe(time.perf_counter() - started)
            return response

        return call

    def _caller(self, request: Request) -> AnyCaller:
        keys = self._parts.credentials.current().keys
        return read_caller(request.path_params["tenant"], request.headers.get("authorization"), keys)

    async def search(self, request: Request) -> Response:
        """`POST /v1/tenants/{t}/search`."""
        parts, started = self._parts, time.perf_counter()
        caller = self._caller(request)
        body = parse_search(await read_body(request, parts.settings.max_body_bytes), parts.settings.max_limit)
        try:
            async with parts.search_gate.enter():
                binding, answer = await parts.searches.search(caller, body)
        except BaseException as error:  # a deadline is a cancellation here
            if not isinstance(error, Problem) or error.status >= 500:
                parts.metrics.tenants.failed(caller.tenant, time.perf_counter() - started)
            raise
        parts.metrics.tenants.answered(
            caller.tenant,
            time.perf_counter() - started,
            empty=not answer.hits,
            degraded=bool(answer.degraded),
        )
        parts.metrics.searches.labels("lexical" if answer.lexical_only else "hybrid").inc()
        if answer.degraded:
            parts.metrics.degraded.inc()
        return _json(search_document(binding, answer, explain=body.explain))

    async def products(self, request: Request) -> Response:
        """`PUT` and `DELETE /v1/tenants/{t}/products`."""
        parts = self._parts
        caller = self._caller(request)
        require_write(caller)
        async with parts.write_gate.enter():
            body = await read_body(request, parts.settings.max_body_bytes)
            kind: Literal["products", "ids"] = "products" if request.method == "PUT" else "ids"
            bulk = parse_bulk(body, request.headers.get("content-type", ""), kind, parts.settings.max_products)
            outcome = await self._written(caller, bulk, kind) if bulk.items else None
        return self._bulk_answer(bulk, outcome, kind)

    async def _written(self, caller: AnyCaller, bulk: Bulk, kind: Literal["products", "ids"]) -> WriteOutcome:
        """The outcome, or a problem that tells of every item: written, unacknowledged, or not valid to begin with."""
        try:
            return await self._write(caller, bulk, kind)
        except Problem as problem:
            if isinstance(problem, CellFull):
                self._parts.room.met(caller.cell, problem)
                self._parts.metrics.cell_full.labels(caller.cell).inc()
            if bulk.rejected:
                problem.extra["rejected"] = [item.document() for item in bulk.rejected]
            raise

    async def _write(self, caller: AnyCaller, bulk: Bulk, kind: Literal["products", "ids"]) -> WriteOutcome:
        tenancy = await self._parts.tenants.read(caller)
        self._parts.room.require(caller.cell)
        self._parts.rates.take(caller, tenancy.bindings.rates, "writes", len(bulk.items))
        if kind == "products" and tenancy.bindings.rates.max_points and not isinstance(caller, Caller):
            points = await self._parts.tenants.points(caller, tenancy)
            require_points(points, tenancy.bindings.rates.max_points)
        try:
            outcome = await self._write_once(tenancy, bulk, kind)
        except (WrongSpace, Gone):
            return await self._write_once(await self._parts.tenants.read(caller, fresh=True), bulk, kind)
        if outcome.missed_previous and not outcome.out_of_reach:
            tenancy = await self._parts.tenants.read(caller, fresh=True)
            if tenancy.bindings.previous is None and tenancy.bindings.pending is None:
                return await self._write_once(tenancy, bulk, kind)
        return outcome

    async def _write_once(self, tenancy: Tenancy, bulk: Bulk, kind: Literal["products", "ids"]) -> WriteOutcome:
        writer = self._parts.writer
        write = writer.put if kind == "products" else writer.delete
        return await write(tenancy.door, tenancy.bindings, bulk.items)

    def _bulk_answer(self, bulk: Bulk, outcome: WriteOutcome | None, kind: Literal["products", "ids"]) -> Response:
        metrics = self._parts.metrics
        metrics.products.labels("written").inc(len(bulk.items))
        metrics.products.labels("rejected").inc(len(bulk.rejected))
        rejected = [item.document() for item in bulk.rejected]
        if outcome is None:
            raise Problem(
                422, "no item of the request can be written", code="no-valid-item", extra={"rejected": rejected}
            )
        document: dict[str, Any] = {
            "written" if kind == "products" else "deleted": len(bulk.items),
            "rejected": rejected,
            "superseded": list(bulk.superseded),
            "version": outcome.version,
            "sides": len(outcome.sides),
        }
        if outcome.missed_previous:
            metrics.missed_previous.inc()
            document["missedPrevious"] = outcome.missed_previous
        return _json(document, MULTI_STATUS if rejected else 200)

    async def tenant(self, request: Request) -> Response:
        """`GET /v1/tenants/{t}`."""
        caller = self._caller(request)
        async with self._parts.search_gate.enter():
            tenancy = await self._parts.tenants.read(caller, fresh=isinstance(caller, Caller))
            points = await self._parts.tenants.points(caller, tenancy)
        found, binding = tenancy.bindings, tenancy.bindings.binding
        return _json(
            {
                "tenant": caller.tenant,
                "alias": caller.alias,
                "cell": caller.cell,
                "points": points,
                "binding": _side(binding),
                "pending": _side(found.pending),
                "previous": _side(found.previous),
                "languages": list(binding.analyser.languages),
                "document": binding.document,
                "filters": sorted({*binding.fields.filter, *binding.fields.code}),
                "rates": found.rates.to_wire(),
            }
        )

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        del request
        return _json(openapi_document(self._parts.settings))

    async def page(self, request: Request) -> Response:
        """A page for people; it loads nothing from elsewhere."""
        del request
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus."""
        del request
        parts = self._parts
        parts.metrics.in_flight.labels("search").set(parts.search_gate.present)
        parts.metrics.in_flight.labels("write").set(parts.write_gate.present)
        parts.metrics.rate_buckets.set(len(parts.rates))
        parts.metrics.stale_credentials.set(parts.credentials.stale)
        return Response(parts.metrics.expose(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        del request
        return _json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Ready while at least one cell is known: one cell that is down must not take the others' gateway away."""
        del request
        endpoints = self._parts.endpoints.current()
        ready = bool(endpoints.cells) and not self._draining
        document = {"ready": ready, "cells": len(endpoints.cells), "servers": len(endpoints.servers)}
        return _json(document, 200 if ready else 503)


async def _http_problem(request: Request, error: Exception) -> Response:
    """The router's own refusals (no such path, no such method) in the same form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    detail = f"{request.method} {request.url.path}: {error.detail}; see /openapi.json"
    response = Problem(error.status_code, detail, code="no-route").response()
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _side(binding: Binding | None) -> dict[str, Any] | None:
    if binding is None:
        return None
    return {
        "model": binding.model,
        "revision": binding.revision,
        "vector": binding.vector,
        "analyser": binding.analyser_id,
        "profile": binding.profile.name,
        "since": binding.since,
    }


def _json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def build_app(settings: GatewaySettings, *, encoder: BindingEncoder | None = None) -> Starlette:
    """The application for some settings; `encoder` replaces Triton."""
    return Gateway(build_parts(settings, encoder=encoder)).application()
