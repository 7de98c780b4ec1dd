"""One request to the double, and answers as the server wraps them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from starlette.responses import PlainTextResponse, Response

from searchops_sandbox.qdrant.errors import ApiError, format_error

if TYPE_CHECKING:
    from starlette.requests import Request

    from searchops_sandbox.qdrant.access import Access
    from searchops_sandbox.qdrant.service import Service


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass
class Call:
    """One authenticated request."""

    request: Request
    access: Access
    service: Service
    body_bytes: bytes

    @property
    def name(self) -> str:
        """The collection or alias, as the request names it."""
        return str(self.request.path_params["name"]).replace("%2F", "/")

    def body(self, kind: Any, default: Any = None) -> Any:
        """The body as a model.

        Raises:
            ApiError: 400 where it is not of that shape.
        """
        raw = self.body_bytes
        if not raw.strip() and default is not None:
            return default
        try:
            return _adapter(kind).validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise format_error(f"{where}: {first['msg']}") from error

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean query parameter."""
        value = self.request.query_params.get(name)
        if value is None:
            return default
        if value not in {"true", "false"}:
            raise ApiError(400, f"Format error in query: {name}: provided string was not `true` or `false`")
        return value == "true"

    @property
    def wait(self) -> bool:
        """Whether the answer should wait for the effect (1.18's default is not to)."""
        return self.flag("wait", default=False)


def envelope(result: Any, started: float) -> Response:
    """Success as the server wraps it."""
    body = {"result": result, "status": "ok", "time": time.perf_counter() - started}
    return Response(pydantic_core.to_json(body), media_type="application/json")


def failure(error: ApiError, started: float) -> Response:
    """An error as the server wraps it."""
    if error.plain:
        return PlainTextResponse(error.message, status_code=error.status, headers=error.headers)
    body = {"status": {"error": error.message}, "time": time.perf_counter() - started}
    return Response(
        pydantic_core.to_json(body), status_code=error.status, headers=error.headers, media_type="application/json"
    )
