"""qdrant-client's exceptions as ours: what is missing, what is taken, what is refused, and what nobody knows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops.api.room import says_full
from searchops.runtime.errors import NotReady, Terminal, Transient, describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


NO_CLUSTER = "Distributed mode disabled"
KEY_REFUSED = "Check apiKey in the cell's Secret."
FULL_SECONDS = 60.0


class Missing(NotReady):
    """404: the collection or alias is not there."""

    def __init__(self, message: str) -> None:
        super().__init__("NotFound", message)


class NoShardKey(Missing):
    """400 that says that a shard key is not there."""


class Taken(NotReady):
    """409, or 400 that says that the name exists."""

    def __init__(self, message: str) -> None:
        super().__init__("Conflict", message)


class Full(NotReady):
    """The cell is out of disk or memory: trying again does not help, and no tenant is to blame."""

    def __init__(self, message: str) -> None:
        super().__init__("CellFull", message, FULL_SECONDS)


class Silent(Transient):
    """No answer: what was asked may have happened or not."""


@asynccontextmanager
async def translated(cell: str, what: str, *, refused: str = KEY_REFUSED) -> AsyncIterator[None]:
    """qdrant-client's exceptions as ours; the bodies of its errors carry no credentials.

    Args:
        cell: the cell's name.
        what: what was asked, for people.
        refused: what to do where the credential of the call is refused.
    """
    try:
        yield
    except UnexpectedResponse as error:
        raise _from_status(cell, what, error, refused) from error
    except ResourceExhaustedResponse as error:
        raise Transient(f"cell {cell}: {what} was refused by a rate limit", float(error.retry_after_s)) from error
    except (ResponseHandlingException, TimeoutError, OSError) as error:
        source = getattr(error, "source", error)
        said = f"{type(source).__name__} {source}".strip()
        if "CERTIFICATE_VERIFY_FAILED" in said:
            raise Silent(
                f"cell {cell} was not asked for {what}: its certificate does not verify ({said}); check caCert in the "
                "cell's Secret, and that nodes names a host that the certificate is for"
            ) from error
        raise Silent(f"cell {cell} gave no answer to {what} ({said}); its effect is read back") from error


def _from_status(cell: str, what: str, error: UnexpectedResponse, refused: str) -> Transient | NotReady | Terminal:
    status = error.status_code
    body = (error.content or b"").decode(errors="replace")[:300]
    said = f"cell {cell} answered {status} to {what}: {body}"
    if says_full(status, body):
        return Full(describe(said, next_step="Its disk or memory is exhausted. Free room on the cell or add another."))
    if status == 404:
        return Missing(said)
    if status == 400 and NO_CLUSTER in body:
        seen = f"cell {cell} is not in cluster mode, which {what} needs"
        return NotReady("NotSupported", describe(seen, next_step="Start it with cluster.enabled, or use Shared."), 60.0)
    if status in (400, 404) and "Shard key" in body and "not found" in body:
        return NoShardKey(said)
    if status == 409 or (status == 400 and "already exists" in body):
        return Taken(said)
    if status in (401, 403):
        return NotReady("CellUnreachable", describe(said, next_step=refused), 30.0)
    if status == 429:
        after = error.headers.get("Retry-After", "")
        return Transient(said, float(after) if after.isdecimal() else 1.0)
    return Transient(said)
