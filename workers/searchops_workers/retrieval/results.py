"""Hits in an order that does not depend on the server: fused scores, ties broken by product id.

The server orders equal scores of reciprocal rank fusion at random, and equal scores inside a leg move its ranks. So
the legs are fetched once, ranked here with ties broken by id, and fused here. Its own weighted form is another one too:
``1 / (rank / w + k - 1)`` (measured on 1.18.3), in which a weight hardly moves anything once k is large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops_workers.retrieval.query import SearchRequest

SCORE_DIGITS = 6
"""Scores are compared after rounding: two orders of the same floating-point sum must not make two orders of hits."""


@dataclass(frozen=True, slots=True)
class LegHit:
    """One hit of one leg as the database gave it."""

    product_id: str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit of a search, with the legs that found it and their ranks (from 1)."""

    product_id: str
    score: float
    legs: Mapping[str, int]
    payload: Mapping[str, Any] = field(default_factory=dict)


def fuse(request: SearchRequest, answers: Mapping[str, Sequence[LegHit]]) -> tuple[Hit, ...]:
    """Weighted reciprocal rank fusion, ``sum w / (k + rank)`` (Cormack et al. 2009), ties by product id."""
    scores: dict[str, float] = {}
    legs: dict[str, dict[str, int]] = {}
    payloads: dict[str, Mapping[str, Any]] = {}
    for leg in request.legs:
        ranked = sorted(answers.get(leg.name, ()), key=lambda hit: (-round(hit.score, SCORE_DIGITS), hit.product_id))
        for rank, hit in enumerate(ranked, start=1):
            scores[hit.product_id] = scores.get(hit.product_id, 0.0) + leg.weight / (request.rrf_k + rank)
            legs.setdefault(hit.product_id, {})[leg.name] = rank
            payloads.setdefault(hit.product_id, hit.payload)
    ordered = sorted(scores, key=lambda product: (-round(scores[product], 12), product))
    return tuple(
        Hit(product, scores[product], legs[product], payloads[product]) for product in ordered[: request.limit]
    )
