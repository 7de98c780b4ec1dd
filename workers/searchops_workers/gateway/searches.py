"""One search of a tenant: encode while nothing else waits, one request to the cell, honest about what answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from searchops_workers.encoders.errors import EncoderError
from searchops_workers.gateway.bodies import check_filters
from searchops_workers.gateway.cells import Gone, WrongSpace
from searchops_workers.retrieval.documents import RESERVED
from searchops_workers.retrieval.query import needs_dense
from searchops_workers.retrieval.remote import QdrantSearch
from searchops_workers.retrieval.scope import ScopedPoints
from searchops_workers.retrieval.search import Searcher

if TYPE_CHECKING:
    from searchops.api.retrieval import Binding
    from searchops_workers.gateway.bodies import SearchBody
    from searchops_workers.gateway.callers import AnyCaller
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.doors import Tenancy
    from searchops_workers.gateway.encoders import BindingEncoder
    from searchops_workers.gateway.rates import Rates
    from searchops_workers.gateway.tenants import Tenants
    from searchops_workers.retrieval.results import Hit
    from searchops_workers.retrieval.scope import Foreign
    from searchops_workers.retrieval.search import SearchAnswer


class Searches:
    """Searches under the tenant's binding.

    Args:
        cells: where the collections are.
        tenants: where in them a tenant stands, and what it is bound to.
        encoder: query text to vector.
        rates: what the merchant may do in a minute.
        foreign: told of hits that are another tenant's and were dropped.
        encode_seconds: after which the lexical legs answer alone.
    """

    def __init__(
        self,
        cells: Cells,
        tenants: Tenants,
        encoder: BindingEncoder,
        rates: Rates,
        foreign: Foreign,
        *,
        encode_seconds: float,
    ) -> None:
        self._cells = cells
        self._rates = rates
        self._tenants = tenants
        self._encoder = encoder
        self._foreign = foreign
        self._encode_seconds = encode_seconds

    async def search(self, caller: AnyCaller, body: SearchBody) -> tuple[Binding, SearchAnswer]:
        """The hits, and the binding they were found under; read again where the index has moved on.

        Raises:
            Problem: what the database answered, a filter that is not indexed, or a rate that is used up.
        """
        tenancy = await self._tenants.read(caller)
        self._rates.take(caller, tenancy.bindings.rates, "searches")
        try:
            return await self._once(tenancy, body)
        except (WrongSpace, Gone):
            return await self._once(await self._tenants.read(caller, fresh=True), body)

    async def _once(self, tenancy: Tenancy, body: SearchBody) -> tuple[Binding, SearchAnswer]:
        door, binding = tenancy.door, tenancy.bindings.binding
        filters = check_filters(body, binding)
        dense, degraded = await self._encode(binding, body.query)
        async with self._cells.calling(door) as client:
            points = ScopedPoints(client, door.scope(door.alias), self._foreign)
            answer = await Searcher(QdrantSearch(points)).search_vector(
                body.query, binding, dense, limit=body.limit, filters=filters, degraded=degraded
            )
        return binding, answer

    async def _encode(self, binding: Binding, text: str) -> tuple[list[float] | None, str]:
        if not needs_dense(text, binding):
            return None, ""
        try:
            async with asyncio.timeout(self._encode_seconds):
                (vector,) = await self._encoder.encode(binding, [text])
        except (EncoderError, TimeoutError) as error:
            said = str(error) or f"no answer within {self._encode_seconds:g} s"
            return None, f"the encoder {binding.encoder} did not answer: {said}"
        return vector, ""


def search_document(binding: Binding, answer: SearchAnswer, *, explain: bool) -> dict[str, Any]:
    """The answer as clients see it.

    ``legs`` names those that were asked; each hit's ``legs`` those that found it, with its rank there.
    """
    document: dict[str, Any] = {
        "hits": [_hit(hit) for hit in answer.hits],
        "legs": list(answer.legs),
        "route": answer.reason,
        "degraded": answer.degraded,
        "revision": binding.revision,
        "binding": {"vector": binding.vector, "analyser": binding.analyser_id, "profile": binding.profile.name},
    }
    if explain:
        document["profile"] = binding.profile.to_wire()
    return document


def _hit(hit: Hit) -> dict[str, Any]:
    product = {key: value for key, value in hit.payload.items() if key not in RESERVED}
    return {
        "id": hit.product_id,
        "score": round(hit.score, 9),
        "legs": dict(sorted(hit.legs.items())),
        "product": product,
    }
