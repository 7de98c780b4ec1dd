"""Errors as RFC 9457 problem documents: what was seen, what is wanted, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request


class Problem(Exception):  # noqa: N818 - the standard's word
    """An answer that is an error.

    Args:
        status: HTTP status.
        title: the kind of problem, the same for every occurrence.
        detail: this occurrence, for a person.
        retry_after: seconds after which the same request may work.
    """

    def __init__(self, status: int, title: str, detail: str, *, retry_after: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after = retry_after
        self.members = members

    def response(self) -> Response:
        """The problem document."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        content = orjson.dumps({**body, **self.members})
        return Response(content, self.status, headers=headers, media_type="application/problem+json")


async def problem_response(_: Request, error: Exception) -> Response:
    """Starlette's handler of `Problem`."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for this class alone
    return error.response()
