"""The REST API: routes, envelopes, faults."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field
from qdrant_client.http import models
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from searchops_sandbox.qdrant import observe, routes_cluster, routes_points, snapshots
from searchops_sandbox.qdrant.access import FULL, Authenticator, Need
from searchops_sandbox.qdrant.calls import Call, envelope, failure
from searchops_sandbox.qdrant.errors import ApiError, unsupported
from searchops_sandbox.qdrant.faults import Fault, FaultTable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from searchops_sandbox.qdrant.service import Service

FAULTS_PATH = "/__sandbox/faults"
KEYS_PATH = "/__sandbox/keys"
OPENED = "searchops_sandbox.opened"
"""Set in the scope of a request that an injected fault lets in."""
MAX_BODY_BYTES = 32 << 20
"""The server's `max_request_size_mb`; an uploaded snapshot is no JSON and may be larger."""


class Keys(BaseModel):
    """The keys that a server accepts, as its configuration names them."""

    model_config = ConfigDict(extra="forbid")

    api_key: str = Field(min_length=1)
    alt_api_key: str | None = None


# Collections


def create_collection(call: Call) -> Any:
    """`PUT /collections/{name}`."""
    call.access.check_global(manage=True)
    call.service.store.check_new_name(call.name)
    call.service.store.create(call.name, call.body(models.CreateCollection))
    return True


def get_collection(call: Call) -> Any:
    """`GET /collections/{name}`."""
    return call.service.collection(call.access, call.name, Need.READ).describe()


def patch_collection(call: Call) -> Any:
    """`PATCH /collections/{name}`, through an alias too."""
    call.access.check_global(manage=True)
    call.service.store.resolve(call.name).patch(call.body(models.UpdateCollection))
    return True


def delete_collection(call: Call) -> Any:
    """`DELETE /collections/{name}`: a missing name or an alias is `false`."""
    call.access.check_global(manage=True)
    return call.service.store.delete(call.name)


def list_collections(call: Call) -> Any:
    """`GET /collections`."""
    return {"collections": [{"name": name} for name in call.service.names(call.access)]}


def collection_exists(call: Call) -> Any:
    """`GET /collections/{name}/exists`."""
    return {"exists": call.service.exists(call.access, call.name)}


def change_aliases(call: Call) -> Any:
    """`POST /collections/aliases`."""
    call.access.check_global(manage=True)
    call.service.store.change_aliases(call.body(models.ChangeAliasesOperation).actions)
    return True


def list_aliases(call: Call) -> Any:
    """`GET /aliases`."""
    call.access.check_global(manage=False)
    pairs = sorted(call.service.store.aliases.items())
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs]}


def collection_aliases(call: Call) -> Any:
    """`GET /collections/{name}/aliases`."""
    collection = call.service.collection(call.access, call.name, Need.READ)
    pairs = sorted(call.service.store.aliases.items())
    return {
        "aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs if name == collection.name]
    }


def optimizations(call: Call) -> Any:
    """`GET /collections/{name}/optimizations`: the double never optimises, so its queue is empty."""
    segments = call.service.collection(call.access, call.name, Need.READ).describe()["segments_count"]
    summary = {"queued_optimizations": 0, "queued_segments": 0, "queued_points": 0, "idle_segments": segments}
    return {"summary": summary, "running": []}


# Faults


def add_faults(call: Call) -> Any:
    """`POST /__sandbox/faults`: one fault or a list."""
    call.access.check_global(manage=True)
    body = call.body(list[Fault] | Fault)
    call.request.app.state.faults.add(body if isinstance(body, list) else [body])
    return list_faults(call)


def list_faults(call: Call) -> Any:
    """`GET /__sandbox/faults`."""
    call.access.check_global(manage=True)
    return [fault.model_dump() for fault in call.request.app.state.faults.listed()]


def clear_faults(call: Call) -> Any:
    """`DELETE /__sandbox/faults`."""
    call.access.check_global(manage=True)
    call.request.app.state.faults.clear()
    return True


def set_keys(call: Call) -> Any:
    """`POST /__sandbox/keys`: `api_key` and `alt_api_key` in force from now on, as after a rolling restart."""
    call.access.check_global(manage=True)
    body = call.body(Keys)
    call.request.app.state.authenticator.accept(tuple(key for key in (body.api_key, body.alt_api_key) if key))
    return True


COLLECTION = "/collections/{name}"
ROUTES: list[tuple[str, str, Callable[[Call], Any]]] = [
    ("GET", "/collections", list_collections),
    ("POST", "/collections/aliases", change_aliases),
    ("GET", "/aliases", list_aliases),
    ("PUT", COLLECTION, create_collection),
    ("GET", COLLECTION, get_collection),
    ("PATCH", COLLECTION, patch_collection),
    ("DELETE", COLLECTION, delete_collection),
    ("GET", COLLECTION + "/exists", collection_exists),
    ("GET", COLLECTION + "/aliases", collection_aliases),
    ("GET", COLLECTION + "/optimizations", optimizations),
    ("POST", FAULTS_PATH, add_faults),
    ("GET", FAULTS_PATH, list_faults),
    ("DELETE", FAULTS_PATH, clear_faults),
    ("POST", KEYS_PATH, set_keys),
    *routes_cluster.ROUTES,
    *routes_points.ROUTES,
    *snapshots.ROUTES,
]


class Application:
    """Builds the ASGI application of one cell.

    Args:
        service: what it serves.
        authenticator: who may.
        faults: what is made to fail.
        version: what it calls itself.
    """

    def __init__(self, service: Service, authenticator: Authenticator, faults: FaultTable, version: str) -> None:
        self._service = service
        self._authenticator = authenticator
        self._faults = faults
        self._version = version
        self._answered: dict[str, Counter[int]] = {}
        self._id = str(uuid.uuid4())
        self._startup = datetime.now(UTC).isoformat()

    def build(self) -> ASGIApp:
        """The application, faults included."""
        routes = [
            Route("/", self._root, methods=["GET"]),
            Route("/healthz", _text("healthz check passed"), methods=["GET"]),
            Route("/livez", _text("healthz check passed"), methods=["GET"]),
            Route("/readyz", _text("all shards are ready"), methods=["GET"]),
            Route("/metrics", self._endpoint(self._metrics, "GET /metrics"), methods=["GET"]),
            Route("/telemetry", self._endpoint(self._telemetry, "GET /telemetry"), methods=["GET"]),
            *(
                Route(path, self._endpoint(handler, f"{method} {path}"), methods=[method])
                for method, path, handler in ROUTES
            ),
            Route("/{rest:path}", self._endpoint(_refuse, ""), methods=["GET", "PUT", "POST", "PATCH", "DELETE"]),
        ]
        app = Starlette(routes=routes)
        app.state.faults = self._faults
        app.state.authenticator = self._authenticator
        return _with_faults(app, self._faults)

    async def _root(self, request: Request) -> Response:
        body = {"title": observe.TITLE, "version": self._version, "commit": "double"}
        return Response(pydantic_core.to_json(body), media_type="application/json")

    def _endpoint(self, handler: Callable[[Call], Any], route: str) -> Callable[[Request], Awaitable[Response]]:
        """The handler as an endpoint whose answers are counted by route and status, as telemetry shows them."""
        answered = self._answered.setdefault(observe.endpoint_name(route), Counter())

        async def counted(request: Request) -> Response:
            response = await answer(request)
            answered[response.status_code] += 1
            return response

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            # The body is read first: an answer over an unread body breaks the connection of some clients.
            body = await request.body()
            try:
                if len(body) > MAX_BODY_BYTES and not request.url.path.endswith("/snapshots/upload"):
                    raise ApiError(
                        400, f"JSON payload ({len(body)} bytes) is larger than allowed (limit: {MAX_BODY_BYTES} bytes)."
                    )
                opened = request.scope.get(OPENED, False)
                access = FULL if opened else self._authenticator.authenticate(request.headers)
                result = handler(Call(request, access, self._service, body))
                if inspect.isawaitable(result):
                    result = await result
            except ApiError as error:
                return failure(error, started)
            return result if isinstance(result, Response) else envelope(result, started)

        return counted

    def _telemetry(self, call: Call) -> Any:
        level = int(call.request.query_params.get("details_level", "0"))
        return observe.telemetry(
            self._service.store,
            call.access,
            level=level,
            cluster_mode=self._service.cluster_mode,
            answered=self._answered,
            ident=self._id,
            version=self._version,
            started=self._startup,
        )

    def _metrics(self, call: Call) -> Any:
        call.access.check_global(manage=False)
        return PlainTextResponse(
            observe.metrics(self._service.store, version=self._version, cluster_mode=self._service.cluster_mode)
        )


def _text(content: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return PlainTextResponse(content)

    return answer


def _refuse(call: Call) -> Any:
    raise unsupported(f"{call.request.method} {call.request.url.path}")


def _with_faults(app: ASGIApp, faults: FaultTable) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if b"%2f" in scope.get("raw_path", b"").lower():
            # An encoded slash belongs to a name and must not split the path.
            raw = scope["raw_path"].decode("ascii").split("?")[0]
            scope = {**scope, "path": unquote(re.sub("%2f", "%252F", raw, flags=re.IGNORECASE))}
        if scope["type"] == "http" and scope["path"] not in (FAULTS_PATH, KEYS_PATH):
            fault = faults.take(scope["method"], scope["path"])
        if fault is None:
            await app(scope, receive, send)
            return
        await asyncio.sleep(fault.latency)
        if fault.drop is not None:
            if fault.drop == "after-effect":
                await app(scope, receive, _swallow)
            _abort(send)
            # Let the event loop see the lost connection, or the server logs an answer that never started.
            await asyncio.sleep(0.01)
        elif fault.status is not None:
            await _drain(receive)
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            error = ApiError(fault.status, fault.message, headers=headers)
            await failure(error, time.perf_counter())(scope, receive, send)
        else:
            await app({**scope, OPENED: fault.opened}, receive, send)

    return wrapped


async def _swallow(message: Any) -> None:
    """Take an answer that nobody will see."""


async def _drain(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        continue


def _abort(send: Any) -> None:
    """Cut the TCP connection: uvicorn's `send` is a method of the object that owns the transport."""
    send.__self__.transport.abort()
