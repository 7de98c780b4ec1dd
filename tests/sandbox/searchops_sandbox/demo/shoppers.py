"""Shoppers: searches over the gateway, once or all the time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from searchops_sandbox.demo.buckets import CATALOGUES
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_sandbox.demo.platform import Platform
    from searchops_sandbox.fixtures.tenants import DemoSearch

MERCHANTS = "merchants-eu"
PAUSE_SECONDS = 0.25


@dataclass(slots=True)
class Shoppers:
    """One HTTP session with every tenant's tokens.

    Attributes:
        asked: searches sent by `browse`.
        failed: those that got no answer, or an error, with what was seen.
    """

    platform: Platform
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def token(self, tenant: str, entry: str) -> str:
        """The token of an access Secret."""
        name = f"{tenant}-{entry}"
        if name not in self.tokens:
            self.tokens[name] = (await self.platform.secret(MERCHANTS, name))["token"]
        return self.tokens[name]

    async def call(self, method: str, tenant: str, path: str, entry: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """One request to the gateway as a tenant's client."""
        assert self._session is not None
        url = f"{self.platform.gateway_url}/v1/tenants/{MERCHANTS}.{tenant}{path}"
        headers = {"Authorization": f"Bearer {await self.token(tenant, entry)}"}
        headers |= body.pop("headers", {})
        async with self._session.request(method, url, headers=headers, **body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def index(self, tenant: str) -> int:
        """Send a merchant's catalogue as NDJSON.

        Raises:
            SandboxError: the gateway did not take every product.
        """
        lines = (CATALOGUES / f"{tenant}.jsonl").read_bytes()
        status, answer = await self.call(
            "PUT", tenant, "/products", "indexer", data=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        if status != 200:
            raise SandboxError(f"indexing {tenant} answered {status}: {json.dumps(answer)[:500]}")
        return int(answer["written"])

    async def search(self, tenant: str, query: str, limit: int = 5) -> dict[str, Any]:
        """One search.

        Raises:
            SandboxError: it was not answered.
        """
        status, answer = await self.call("POST", tenant, "/search", "storefront", json={"query": query, "limit": limit})
        if status != 200:
            raise SandboxError(f"{tenant}: {query!r} answered {status}: {json.dumps(answer)[:300]}")
        return answer

    async def browse(self, searches: Sequence[DemoSearch], until: asyncio.Event) -> None:
        """Search without a stop while something else goes on; count what fails."""
        while not until.is_set():
            for one in searches:
                self.asked += 1
                try:
                    await self.search(one.tenant, one.query)
                except (SandboxError, aiohttp.ClientError, TimeoutError) as error:
                    self.failed.append(f"{one.tenant} {one.query!r}: {error}"[:300])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), PAUSE_SECONDS)
                if until.is_set():
                    return
