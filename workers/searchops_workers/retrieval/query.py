"""A search as one request: three legs with their floors, weighted reciprocal rank fusion, over-fetched for ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from searchops.api.retrieval import lexical_vector, trigram_vector
from searchops_workers.retrieval.analyser import knows_codes
from searchops_workers.retrieval.routing import Route, route
from searchops_workers.retrieval.sparse import LexicalEncoder, SparseVector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.retrieval import Binding

MAX_QUERY = 512
MAX_FETCH = 1_000
"""The largest limit that a tenant's strict mode lets through."""
LEX, TRI, DENSE = "lex", "tri", "dense"

Scalar: TypeAlias = str | int | float | bool
FilterValue: TypeAlias = "Scalar | Sequence[Scalar] | Mapping[str, float]"
"""An exact value, any of several, or bounds: ``{"gte": 10, "lt": 20}``."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One prefetch: which vector is asked, with what, above which score, and with which weight it is fused."""

    name: str
    using: str
    vector: SparseVector | tuple[float, ...]
    weight: float
    floor: float | None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Everything one search asks of a collection.

    Attributes:
        fetch: how many hits are fetched, so that ties at the cut can be broken by id.
        limit: how many are wanted.
        filters: conditions on indexed payload fields.
    """

    legs: tuple[Leg, ...]
    rrf_k: int
    prefetch: int
    fetch: int
    limit: int
    filters: Mapping[str, FilterValue]
    lexical_only: bool
    reason: str


def needs_dense(text: str, binding: Binding) -> bool:
    """Whether the query will be encoded by the bound model."""
    if binding.lexical_only or binding.profile.weights.dense == 0:
        return False
    return not _routed(text, binding).lexical_only


def _routed(text: str, binding: Binding) -> Route:
    settings = binding.analyser
    routing = binding.profile.code_routing
    return route(text, routing, tuple(settings.languages), codes_apart_too=knows_codes(settings))


def build_request(
    text: str,
    binding: Binding,
    *,
    dense: Sequence[float] | None,
    limit: int = 10,
    filters: Mapping[str, FilterValue] | None = None,
) -> SearchRequest:
    """The request for a query under a binding; without a dense vector the lexical legs answer alone."""
    text = text[:MAX_QUERY]
    profile = binding.profile
    routed = _routed(text, binding)
    lex, tri = LexicalEncoder(binding.analyser).query(text)
    a8 = binding.analyser_id
    legs = []
    if lex and profile.weights.lex > 0:
        legs.append(Leg(LEX, lexical_vector(a8), lex, profile.weights.lex, profile.floors.lex))
    if tri and profile.weights.tri > 0:
        legs.append(Leg(TRI, trigram_vector(a8), tri, profile.weights.tri, profile.floors.tri))
    if dense is not None and binding.vector is not None and not routed.lexical_only and profile.weights.dense > 0:
        legs.append(Leg(DENSE, binding.vector, tuple(dense), profile.weights.dense, profile.floors.dense))
    lexical_only = all(leg.name != DENSE for leg in legs)
    reason = routed.reason if routed.lexical_only or not lexical_only else "no dense leg is bound or answered"
    return SearchRequest(
        legs=tuple(legs),
        rrf_k=profile.rrf_k,
        prefetch=max(profile.prefetch_limit, limit),
        fetch=min(MAX_FETCH, limit * profile.over_fetch),
        limit=limit,
        filters=dict(filters or {}),
        lexical_only=lexical_only,
        reason=reason,
    )
