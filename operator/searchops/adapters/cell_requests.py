"""One request to a cell as plain JSON: models of a whole answer cost more than the answer, where few fields are read.

Failures are those of qdrant-client, so that `translated` has one table for both ways.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops.adapters.aiohttp_transport import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.adapters.cell_connections import Connection
    from searchops.api.observed import CellRegistration

DONE = frozenset({200, 201, 202})


def path_of(collection: str, rest: str = "") -> str:
    """Path of a collection or alias, or of something below it."""
    return f"/collections/{quote(collection, safe='@.')}{rest}"


async def ask(
    connection: Connection,
    cell: CellRegistration,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    credential: str | None = None,
) -> Any:
    """The `result` of an answer.

    Args:
        connection: of the cell.
        cell: whose key is shown where no other credential is given.
        method: HTTP method.
        path: quoted, with its query if it has one.
        body: sent as JSON.
        credential: shown instead of the cell's key.

    Raises:
        UnexpectedResponse: the server has refused.
        ResponseHandlingException: no answer, or one that cannot be read.
    """
    content = await ask_raw(connection, cell, method, path, body, credential=credential)
    try:
        return json.loads(content)["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise ResponseHandlingException(ValueError(f"its answer has another form: {error!r}")) from error


async def ask_raw(
    connection: Connection,
    cell: CellRegistration,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    credential: str | None = None,
) -> bytes:
    """The body of an answer; see `ask`."""
    headers = _credential(cell.api_key if credential is None else credential)
    data = b""
    if body is not None:
        headers.append(("content-type", "application/json"))
        data = json.dumps(body, separators=(",", ":")).encode()
    try:
        answer = await connection.nodes.ask(method, path, headers, data)
    except httpx.TransportError as error:
        raise ResponseHandlingException(error) from error
    if answer.status not in DONE:
        raise _refusal(answer)
    return answer.content


async def ask_each(connection: Connection, cell: CellRegistration, path: str) -> list[bytes]:
    """What every node says to a GET; a node that gives no answer, or refuses, is left out.

    Args:
        connection: of the cell.
        cell: whose key is shown.
        path: quoted, with its query if it has one.

    Raises:
        UnexpectedResponse: no node has said anything, and one that answered has refused.
        ResponseHandlingException: no node has answered.
    """
    answers = await connection.nodes.ask_each(path, _credential(cell.api_key))
    said = [item for item in answers if isinstance(item, Answer)]
    bodies = [item.content for item in said if item.status in DONE]
    if bodies:
        return bodies
    if said:
        raise _refusal(said[0])
    failures = [item for item in answers if isinstance(item, httpx.TransportError)]
    raise ResponseHandlingException(failures[0])


def _credential(key: str) -> list[tuple[str, str]]:
    return [("api-key", key)] if key else []


def _refusal(answer: Answer) -> UnexpectedResponse:
    return UnexpectedResponse(answer.status, answer.reason, answer.content, httpx.Headers(list(answer.headers)))
