"""Errors as problem+json (RFC 9457): what was seen, what is wanted, and when to come back."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

TITLES = {
    400: "Bad request",
    401: "Credentials are missing or not valid",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request took too long",
    413: "Request is too large",
    415: "Media type is not supported",
    422: "Request cannot be processed",
    429: "Too many requests",
    500: "Internal error",
    502: "Database gave an answer that cannot be used",
    503: "Not available now",
    504: "No answer in time",
    507: "Database is out of disk or memory",
}


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is an error.

    Args:
        status: HTTP status.
        detail: for a person: what was seen, what is wanted, what to do.
        code: stable word for programs, the end of the problem's type URI.
        retry_after: seconds until another try makes sense.
        extra: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str,
        retry_after: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.retry_after = retry_after
        self.extra = extra or {}

    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": f"urn:searchops:problem:{self.code}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }

    def response(self) -> Response:
        """The HTTP answer."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="searchops"'
        return Response(
            orjson.dumps(self.document()), self.status, headers=headers, media_type="application/problem+json"
        )
