"""Questions put to one node or gateway with one credential, each on its own: keys in rotation, foreign tokens."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from searchops.api.observed import Trial

if TYPE_CHECKING:
    from searchops.api.observed import CellRegistration

REFUSED = (401, 403)
CANARY_QUERY = "isolation canary"


class AccessProbes:
    """`KeyProbe` and `TokenTrials`: every answer is read for its status alone, and silence is no answer.

    No proxy of the environment is asked: it would be shown the credentials, and its answer would pass for the node's.

    Args:
        timeout: seconds that one question may take.
    """

    def __init__(self, *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._clients: dict[str | None, httpx.AsyncClient] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def accepts(self, cell: CellRegistration, url: str, key: str) -> bool | None:
        """Whether a node takes the key: 200 does, 401 and 403 do not, all else says nothing."""
        status = await self._ask(cell.ca_cert, "GET", f"{url.rstrip('/')}/collections", {"api-key": key})
        return True if status == 200 else False if status in REFUSED else None

    async def at_cell(self, cell: CellRegistration, alias: str, token: str) -> Trial:
        """Read one point through a name; a node after the first is asked where one gives no answer."""
        path = f"/collections/{quote(alias, safe='')}/points/scroll"
        body = {"limit": 1, "with_payload": False}
        for url in cell.urls[:2]:
            status = await self._ask(cell.ca_cert, "POST", f"{url.rstrip('/')}{path}", {"api-key": token}, body)
            if status is not None:
                return _trial(status)
        return Trial.UNKNOWN

    async def at_gateway(self, url: str, tenant: str, token: str) -> Trial:
        """Search a tenant at the gateway."""
        path = f"{url.rstrip('/')}/v1/tenants/{quote(tenant, safe='')}/search"
        body = {"query": CANARY_QUERY, "limit": 1}
        return _trial(await self._ask(None, "POST", path, {"Authorization": f"Bearer {token}"}, body))

    async def _ask(
        self, ca_cert: str | None, method: str, url: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> int | None:
        """The status of the answer; None where there was none, or the question could not be put."""
        if not all("!" <= char <= "~" or char == " " for value in headers.values() for char in value):
            return None
        try:
            async with asyncio.timeout(self._timeout):
                return (await self._client(ca_cert).request(method, url, headers=headers, json=body)).status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError):  # TimeoutError and ssl.SSLError are OSErrors
            return None

    def _client(self, ca_cert: str | None) -> httpx.AsyncClient:
        found = self._clients.get(ca_cert)
        if found is None:
            # made here, since a client that trusts no proxy variable would not read SSL_CERT_FILE either
            verify = ssl.create_default_context(cadata=ca_cert) if ca_cert else httpx.create_ssl_context()
            found = httpx.AsyncClient(verify=verify, timeout=self._timeout, trust_env=False)
            self._clients[ca_cert] = found
        return found


def _trial(status: int | None) -> Trial:
    if status == 200:
        return Trial.OPENED
    return Trial.REFUSED if status in REFUSED else Trial.UNKNOWN
