"""Clients of the cells: one a cell for all callers, each request with its own token; errors translated."""

from __future__ import annotations

import math
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.context_headers import async_headers
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops_workers.gateway.limits import exhausted, refused
from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_workers.gateway.settings import CellEndpoint, EndpointSource

WRONG_SPACE = "Not existing vector name"
UNKNOWN_SHARD_KEY = re.compile(r"Shard key .{1,100} not found")
DETAIL = 300
GRPC_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}


class Credential(Protocol):
    """A cell, and the token for it."""

    @property
    def cell(self) -> str:
        """The cell's name."""
        ...

    @property
    def token(self) -> str:
        """What requests carry."""
        ...

    @property
    def own(self) -> bool:
        """Whether the token is the gateway's own, so that its refusal says nothing of the caller."""
        ...


class WrongSpace(Problem):
    """The collection has no such vector: the binding is older than the index, and is read again."""


class Gone(Problem):
    """The collection or alias is not there."""


class Cells:
    """Open clients by cell; an edited endpoint makes a new one."""

    def __init__(self, endpoints: EndpointSource, *, timeout: float) -> None:
        self._endpoints = endpoints
        self._timeout = max(1, math.ceil(timeout))
        self._open: dict[str, tuple[CellEndpoint, AsyncQdrantClient]] = {}
        self._replaced: list[AsyncQdrantClient] = []

    @asynccontextmanager
    async def calling(self, credential: Credential) -> AsyncIterator[AsyncQdrantClient]:
        """A client whose requests carry the credential's token, and whose errors come as problems.

        Raises:
            Problem: what the database or the way to it answered; `WrongSpace` and `Gone` among them.
        """
        client = self._client(credential.cell)
        try:
            async with async_headers({"api-key": credential.token}):
                yield client
        except UnexpectedResponse as error:
            body = (error.content or b"").decode(errors="replace")
            status, after = error.status_code or 502, error.headers.get("Retry-After")
            raise _problem(credential, status, body, after) from error
        except ResourceExhaustedResponse as error:
            raise _problem(credential, 429, error.message, str(error.retry_after_s)) from error
        except grpc.aio.AioRpcError as error:
            after = dict(error.trailing_metadata() or ()).get("retry-after")
            said, waits = error.details() or str(error.code()), str(after) if after else None
            status = GRPC_STATUS.get(error.code(), 503)
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                status = exhausted(said, waits)
            raise _problem(credential, status, said, waits) from error
        except (ResponseHandlingException, TimeoutError, OSError) as error:
            source = getattr(error, "source", error)
            raise Problem(
                503,
                f"the tenant's cell gave no answer ({type(source).__name__}); a write may or may not have happened, "
                "and may be sent again: the newest version wins",
                code="cell-unreachable",
                retry_after=1,
            ) from error

    def _client(self, name: str) -> AsyncQdrantClient:
        endpoint = self._endpoints.current().cells.get(name)
        if endpoint is None:
            raise Problem(
                503,
                f"cell {name!r} is not among this gateway's cells; add it to SEARCHOPS_GATEWAY_CELLS",
                code="unknown-cell",
                retry_after=10,
            )
        found = self._open.get(name)
        if found is not None and found[0] == endpoint:
            return found[1]
        if found is not None:
            self._replaced.append(found[1])
        options: dict[str, Any] = {"verify": str(endpoint.ca_cert)} if endpoint.ca_cert is not None else {}
        client = AsyncQdrantClient(
            url=endpoint.url,
            grpc_port=endpoint.grpc_port or 6334,
            prefer_grpc=endpoint.grpc_port is not None,
            timeout=self._timeout,
            check_compatibility=False,
            **options,
        )
        self._open[name] = (endpoint, client)
        return client

    async def close(self) -> None:
        """Close every client."""
        for client in [*self._replaced, *(client for _, client in self._open.values())]:
            await client.close()
        self._open.clear()
        self._replaced.clear()


def _problem(credential: Credential, status: int, body: str, retry_after: str | None) -> Problem:
    said = body[:DETAIL]
    if credential.own and status in (401, 403):
        return Problem(
            503,
            f"the cell refuses this gateway's own credential ({said}); the operator renews it, see "
            "SEARCHOPS_GATEWAY_CREDENTIALS",
            code="credential-refused",
            retry_after=5,
        )
    after = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    limited = refused(credential.cell, status, body, after, shared=credential.own)
    if limited is not None:
        return limited
    if status == 400 and WRONG_SPACE in body:
        return WrongSpace(503, f"the index has another vector space: {said}", code="wrong-space", retry_after=1)
    if status == 401:
        return Problem(401, f"the database refuses the token: {said}", code="bad-credentials")
    if status == 403:
        return Problem(403, f"the database refuses the token: {said}", code="forbidden")
    if status == 404 or (status == 400 and UNKNOWN_SHARD_KEY.search(body)):
        detail = f"the tenant has no collection here; after a move to another tier its Secret has another token: {said}"
        return Gone(404, detail, code="no-collection")
    if status in (400, 422):
        return Problem(422, f"the database refuses the request: {said}", code="refused")
    return Problem(503, f"the tenant's cell answered {status}: {said}", code="cell-failing", retry_after=after or 1)
