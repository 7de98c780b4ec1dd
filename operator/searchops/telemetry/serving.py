"""Probes and metrics over HTTP. Live means that the loop runs; ready means that the caches are full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


async def serve(
    ports: Iterable[int], *, missing: Callable[[], Mapping[str, int | None] | None], exposition: Callable[[], bytes]
) -> web.AppRunner:
    """Listen on these ports (one may be named twice); the caller cleans the runner up.

    Args:
        ports: the probes' and the metrics'; everything is answered on each.
        missing: what the caches lack still, for people; None once they are full.
        exposition: the text that Prometheus scrapes.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        lacking = missing()
        if lacking is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"caches are filling: {lacking}\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), content_type="text/plain")

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    for port in dict.fromkeys(ports):
        await web.TCPSite(runner, port=port).start()
    return runner
