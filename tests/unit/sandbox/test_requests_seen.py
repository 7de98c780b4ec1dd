"""The double's count of what it was asked."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from searchops_sandbox.qdrant.requests_seen import REQUESTS_PATH, RequestsSeen, route

asyncio.set_event_loop(None)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/collections", "/collections"),
        ("/collections/aliases", "/collections/aliases"),
        ("/collections/fleet.shop.one@g1", "/collections/*"),
        ("/collections/aliases-of-mine", "/collections/*"),
        ("/collections/a/points/query", "/collections/*/points/query"),
        ("/collections/a/index", "/collections/*/index"),
        ("/collections/a/index/brand", "/collections/*/index/*"),
        ("/collections/a/vectors/d-1", "/collections/*/vectors/*"),
        ("/telemetry", "/telemetry"),
    ],
)
def test_names_are_not_counted_apart(path: str, wanted: str) -> None:
    assert route(path) == wanted


async def test_requests_are_counted_by_route_and_the_count_itself_is_not() -> None:
    async def answer(_: object) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = RequestsSeen(Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "PUT"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://cell") as client:
        assert (await client.get(REQUESTS_PATH)).json() == {}
        for name in ("a", "b"):
            assert (await client.put(f"/collections/{name}")).text == "ok"
        await client.get("/__sandbox/faults")
        await client.get("/aliases")
        seen = (await client.get(REQUESTS_PATH)).json()
    assert seen == {"PUT /collections/*": 2, "GET /aliases": 1}
