"""Requests to cells over aiohttp: the same answers and the same exceptions as over httpx's own transport."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from searchops.adapters.aiohttp_transport import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

asyncio.set_event_loop(None)


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(ssl.create_default_context())
    yield made
    await made.aclose()


async def seen(request: web.Request) -> web.Response:
    """What came, so that both ways can be compared."""
    return web.json_response(
        {
            "path": request.raw_path,
            "body": (await request.read()).decode(),
            "headers": {name: value for name, value in sorted(request.headers.items()) if name.lower() != "host"},
        },
        status=404,
        headers={"Retry-After": "7"},
    )


async def packed(_: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(b'{"ok": true}'), headers={"Content-Encoding": "gzip"})


async def moved(_: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def hangs(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    await answer.prepare(request)
    await answer.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return answer


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    for path, handler in (("/packed", packed), ("/moved", moved), ("/hangs", hangs), ("/breaks-off", breaks_off)):
        app.router.add_get(path, handler)
    app.router.add_route("*", "/{rest:.*}", seen)
    made = TestServer(app)
    await made.start_server()
    yield made
    await made.close()


async def test_a_request_arrives_as_httpx_would_send_it(transport: AiohttpTransport, server: TestServer) -> None:
    url = str(server.make_url("/")) + "collections/a%2Fb@g1/points/query?wait=true"
    answers = []
    for way in (transport, httpx.AsyncHTTPTransport()):
        async with httpx.AsyncClient(transport=way) as client:
            answer = await client.post(url, json={"limit": 1}, headers={"api-key": "k"})
            answers.append((answer.status_code, answer.headers["Retry-After"], answer.json()))
    assert answers[0] == answers[1]
    assert answers[0][2]["path"] == "/collections/a%2Fb@g1/points/query?wait=true"


async def test_a_packed_answer_is_unpacked_and_a_redirect_is_not_followed(
    transport: AiohttpTransport, server: TestServer
) -> None:
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get(str(server.make_url("/packed")))).json() == {"ok": True}
        assert (await client.get(str(server.make_url("/moved")))).status_code == 307


async def test_failures_are_those_of_httpx(transport: AiohttpTransport, server: TestServer) -> None:
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(2.0, read=0.2)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(str(server.make_url("/hangs")))
        with pytest.raises(httpx.ReadError):
            await client.get(str(server.make_url("/breaks-off")))
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{unused_port()}/")


@dataclass
class Goodbye:
    """Answers the first request of each connection, and hangs up at the second without a word."""

    requests: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            for answer in (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""):
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.split(b" ", 1)[0].decode())
                writer.write(answer)
                await writer.drain()
        writer.close()


@pytest.mark.parametrize(("once", "sent"), [(True, 1), (False, 2)])
async def test_a_request_that_is_to_be_sent_once_is_not_sent_again_by_the_library(once: bool, sent: int) -> None:
    """The second request goes over a kept connection; nobody knows whether the server acted before it hung up."""
    goodbye = Goodbye()
    server = await asyncio.start_server(goodbye, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport = AiohttpTransport(ssl.create_default_context(), once=once)
    try:
        await transport.ask("PUT", url, [], b"")
        if once:
            with pytest.raises(httpx.ReadError):
                await transport.ask("PUT", url, [], b"")
        else:
            await transport.ask("PUT", url, [], b"")
    finally:
        await transport.aclose()
        server.close()
        await server.wait_closed()
    assert goodbye.requests == ["PUT"] * (1 + sent)
