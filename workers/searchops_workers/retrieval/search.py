"""One search: encode where the route asks for it, one request to the database, hits in an order of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchops_workers.retrieval.query import build_request, needs_dense
from searchops_workers.retrieval.results import Hit, LegHit, fuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from searchops.api.retrieval import Binding
    from searchops_workers.retrieval.query import FilterValue, SearchRequest


class VectorSearch(Protocol):
    """Where the vectors are: the points of one tenant on a cell, or the embedded engine."""

    async def legs(self, request: SearchRequest) -> Mapping[str, Sequence[LegHit]]:
        """The hits of every leg, all in one request."""
        ...


class QueryEncoder(Protocol):
    """Query text to vector; any encoder of `searchops_workers.encoders` is one."""

    async def encode(self, texts: Sequence[str]) -> Iterable[Iterable[float]]:
        """One vector a text."""
        ...


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found, and how.

    Attributes:
        lexical_only: whether the lexical legs answered alone.
        reason: why, in words.
        degraded: the dense leg was wanted and could not be asked.
    """

    hits: tuple[Hit, ...]
    legs: tuple[str, ...]
    lexical_only: bool
    reason: str
    degraded: bool = False


class Searcher:
    """Searches one tenant's vectors."""

    def __init__(self, vectors: VectorSearch) -> None:
        self._vectors = vectors

    async def search(
        self,
        text: str,
        binding: Binding,
        encoder: QueryEncoder | None,
        *,
        limit: int = 10,
        filters: Mapping[str, FilterValue] | None = None,
        degraded: str = "",
    ) -> SearchAnswer:
        """Search; where `degraded` says why the encoder cannot be asked, the lexical legs answer alone."""
        dense = None
        wanted = needs_dense(text, binding)
        if wanted and encoder is not None and not degraded:
            dense = [float(value) for row in await encoder.encode([text]) for value in row]
        return await self.search_vector(
            text, binding, dense, limit=limit, filters=filters, degraded=degraded if wanted else ""
        )

    async def search_vector(
        self,
        text: str,
        binding: Binding,
        dense: Sequence[float] | None,
        *,
        limit: int = 10,
        filters: Mapping[str, FilterValue] | None = None,
        degraded: str = "",
    ) -> SearchAnswer:
        """Search with a query vector that was encoded before."""
        request = build_request(text, binding, dense=dense, limit=limit, filters=filters)
        if not request.legs:
            return SearchAnswer((), (), True, request.reason)
        answers = await self._vectors.legs(request)
        names = tuple(leg.name for leg in request.legs)
        reason = degraded or request.reason
        return SearchAnswer(fuse(request, answers), names, request.lexical_only, reason, bool(degraded))
