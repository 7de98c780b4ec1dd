"""Searches that go on while something else happens, each answer compared with the first one to its query."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_sandbox.fleet import Fleet

PAUSE_SECONDS = 0.2
Answer = list[tuple[str, float]]
"""Ids and scores."""


@dataclass
class Searches:
    """What a merchant's shoppers are answered, again and again.

    Attributes:
        first: the answer to each query that every later one has to equal.
        changed: what differed.
        degraded: answers by the lexical legs alone, which say so: the server took too long, on a machine at work.
    """

    fleet: Fleet
    tenant: str
    queries: Sequence[str]
    first: dict[str, Answer] = field(default_factory=dict)
    asked: int = 0
    degraded: int = 0
    changed: list[str] = field(default_factory=list)

    async def ask(self, query: str) -> tuple[Answer, bool]:
        """Ids and scores, and whether the lexical legs answered alone."""
        token = await self.fleet.token(self.tenant, "storefront")
        body = {"query": query, "limit": 10}
        status, answer = await self.fleet.gateway("POST", self.tenant, "/search", token, body=body)
        if status != 200:
            raise SandboxError(f"{query!r} answered {status}: {answer}")
        return [(hit["id"], hit["score"]) for hit in answer["hits"]], bool(answer["degraded"])

    async def go_on(self) -> None:
        """Ask for ever."""
        while True:
            for query in self.queries:
                self.asked += 1
                try:
                    answer, degraded = await self.ask(query)
                except (SandboxError, OSError, TimeoutError) as error:
                    self.changed.append(f"{query!r}: {error}"[:300])
                else:
                    self.degraded += degraded
                    if not degraded and answer != self.first[query]:
                        self.changed.append(f"{query!r}: {answer}, wanted {self.first[query]}")
                await asyncio.sleep(PAUSE_SECONDS)
