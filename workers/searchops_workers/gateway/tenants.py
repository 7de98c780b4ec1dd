"""Who is calling, which cell serves them, and what their collection is bound to right now."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops.api.retrieval import Binding
from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from searchops_workers.gateway.settings import GatewaySettings

KEY_BINDING = "searchops.dev/binding"
KEY_PENDING = "searchops.dev/pending"
KEY_PREVIOUS = "searchops.dev/previous"


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant as its token says it. The database verifies the token; the gateway only routes by it."""

    tenant: str
    alias: str
    cell: str
    token: str
    writes: bool

    @property
    def cache_key(self) -> str:
        """Identifies the credential without keeping it in a second place."""
        return hashlib.sha256(self.token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Bindings:
    """What the collection's metadata says; `pending` and `previous` are written beside the binding."""

    binding: Binding
    pending: Binding | None
    previous: Binding | None

    @property
    def sides(self) -> tuple[Binding, ...]:
        """Every binding that a write must reach, the live one first."""
        return tuple(side for side in (self.binding, self.pending, self.previous) if side is not None)


def caller_of(authorization: str | None, tenant: str) -> Caller:
    """The caller of a request.

    Raises:
        Problem: 401 without a usable bearer token, 403 where it is another tenant's.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(401, "Unauthorized", "no bearer token; send Authorization: Bearer <token> of an access Secret")
    try:
        claims = jwt.decode(token.strip(), options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise Problem(
            401, "Unauthorized", f"the bearer token is no JWT ({error}); send an access Secret's token"
        ) from error
    access = claims.get("access")
    names = [entry.get("collection", "") for entry in access] if isinstance(access, list) else []
    alias = next((name for name in names if name and not name.endswith(("@a", "@b"))), "")
    fleet_free = alias.partition(".")[2]
    if not alias or fleet_free != tenant:
        raise Problem(403, "Forbidden", f"the token is not one of tenant {tenant!r}; it cannot read anything of it")
    writes = any(entry.get("access") in ("prw", "rw") for entry in access) if isinstance(access, list) else False
    return Caller(tenant, alias, str(claims.get("cell", "")), token.strip(), writes)


class TenantDirectory:
    """Connections and bindings by caller, bounded; a binding is read again after seconds."""

    def __init__(self, settings: GatewaySettings, *, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now = now
        self._clients: OrderedDict[str, AsyncQdrantClient] = OrderedDict()
        self._bindings: dict[str, tuple[float, Bindings]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def client(self, caller: Caller) -> AsyncQdrantClient:
        """A client that holds the caller's own token and nothing else.

        Raises:
            Problem: 503 where the cell is not known to this gateway.
        """
        key = caller.cache_key
        found = self._clients.get(key)
        if found is not None:
            self._clients.move_to_end(key)
            return found
        route = self._settings.cells.get(caller.cell)
        if route is None:
            detail = f"cell {caller.cell!r} is not among the gateway's cells; add it to SEARCHOPS_GATEWAY_CELLS"
            raise Problem(503, "Cell unknown", detail, retry_after=30)
        found = self._clients[key] = AsyncQdrantClient(
            url=route.url,
            api_key=caller.token,
            timeout=int(self._settings.request_seconds) or 1,
            check_compatibility=False,
            prefer_grpc=False,
        )
        while len(self._clients) > self._settings.max_clients:
            gone, client = self._clients.popitem(last=False)
            self._bindings.pop(gone, None)
            self._locks.pop(gone, None)
            await client.close()
        return found

    async def bindings(self, caller: Caller, *, fresh: bool = False) -> Bindings:
        """What the tenant's collection is bound to, read with the caller's own token.

        Raises:
            Problem: 503 where the collection carries no readable binding.
        """
        key = caller.cache_key
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._bindings.get(key)
            if known is not None and not fresh and self._now() - known[0] < self._settings.binding_seconds:
                return known[1]
            client = await self.client(caller)
            async with translated():
                info = await client.get_collection(caller.alias)
            metadata = info.config.metadata or {}
            try:
                read = Bindings(
                    Binding.from_metadata(str(metadata[KEY_BINDING])),
                    _optional(metadata.get(KEY_PENDING)),
                    _optional(metadata.get(KEY_PREVIOUS)),
                )
            except (KeyError, ValidationError) as error:
                detail = f"{caller.alias} carries no readable binding; the operator has not finished provisioning it"
                raise Problem(503, "Not bound", detail, retry_after=5) from error
            self._bindings[key] = (self._now(), read)
            return read


def _optional(text: object) -> Binding | None:
    return Binding.from_metadata(text) if isinstance(text, str) else None


class WrongSpace(Exception):  # noqa: N818 - named for what is the case
    """The collection has no vector of that name any more: the cached binding is old."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """The database's errors as problems; its words, never its credentials.

    Raises:
        Problem: 401, 403, 404, 429, 503, 507 or 502.
        WrongSpace: a vector is asked for that is not there.
    """
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise Problem(
            429, "Rate limited", "the tenant's rate is used up", retry_after=int(error.retry_after_s)
        ) from error
    except UnexpectedResponse as error:
        raise _problem(error) from error
    except (ResponseHandlingException, TimeoutError, OSError) as error:
        said = type(getattr(error, "source", error)).__name__
        raise Problem(503, "Database unreachable", f"the cell gave no answer ({said})", retry_after=2) from error


def _problem(error: UnexpectedResponse) -> Exception:
    body = (error.content or b"").decode(errors="replace")[:300]
    if error.status_code == 400 and "Not existing vector name" in body:
        return WrongSpace(body)
    known = {
        401: (401, "Unauthorized", None),
        403: (403, "Forbidden", None),
        404: (404, "Not found", None),
        400: (400, "Refused by the database", None),
        422: (400, "Refused by the database", None),
        429: (429, "Rate limited", int(error.headers.get("Retry-After", "1"))),
        507: (507, "Quota exceeded", None),
        503: (503, "Database unavailable", 2),
    }
    status, title, retry = known.get(error.status_code or 0, (502, "Database failed", 2))
    return Problem(status, title, body, retry_after=retry)
