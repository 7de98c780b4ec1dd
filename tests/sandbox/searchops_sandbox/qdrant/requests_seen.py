"""What was asked of the double, counted by method and route: `GET /__sandbox/requests`. A benchmark reads it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REQUESTS_PATH: Final = "/__sandbox/requests"
_NAMED: Final = re.compile(r"^/collections/(?!aliases$)[^/]+")
_TAIL: Final = re.compile(r"(/index|/vectors|/shards|/snapshots)/[^/]+.*$")


def route(path: str) -> str:
    """The path with every name in it replaced, so that there are few of them: ``/collections/*/points/query``."""
    return _TAIL.sub(r"\1/*", _NAMED.sub("/collections/*", path))


class RequestsSeen:
    """Counts the REST requests that reach an application, and answers how many there were.

    Args:
        app: what is counted; the requests to `REQUESTS_PATH` and other sandbox paths are not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seen: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own lifespan."""
        if scope["type"] == "http":
            if scope["path"] == REQUESTS_PATH:
                await JSONResponse(dict(self._seen))(scope, receive, send)
                return
            if not scope["path"].startswith("/__sandbox/"):
                self._seen[f"{scope['method']} {route(scope['path'])}"] += 1
        await self._app(scope, receive, send)
