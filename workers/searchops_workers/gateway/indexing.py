"""Writes: both sides of a rebuild, one version a batch, guarded so that what is older never wins.

A write is acknowledged when every side has it. A guarded upsert of a missing id inserts it, so a delete is an upsert
of a tombstone without vectors: no leg returns it, counts exclude it, and a late older write finds it newer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import AsyncQdrantClient, models

from searchops.api.retrieval import DELETED_KEY, ID_KEY, VERSION_KEY, Binding, point_id
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.tenants import translated
from searchops_workers.retrieval.documents import ProductError, document_of, product_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.gateway.encoders import EncoderPool
    from searchops_workers.gateway.tenants import Bindings


@dataclass(frozen=True, slots=True)
class Rejected:
    """One item of a bulk request that was not written, and why."""

    index: int
    id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a bulk request did."""

    written: int
    rejected: tuple[Rejected, ...]


class Indexer:
    """Writes products of one tenant to every side."""

    def __init__(self, client: AsyncQdrantClient, encoders: EncoderPool, *, batch: int) -> None:
        self._client = client
        self._encoders = encoders
        self._batch = batch

    async def put(self, alias: str, bindings: Bindings, items: Sequence[Any], version: int) -> BulkResult:
        """Upsert products.

        Raises:
            Problem: where the database or an encoder refused a batch; what was acknowledged before stays.
        """
        products, rejected = _checked(items)
        for start in range(0, len(products), self._batch):
            part = products[start : start + self._batch]
            for collection, sides in _by_collection(alias, bindings).items():
                points = await self._points(sides, part, version)
                await self._upsert(collection, points, version)
        return BulkResult(len(products), tuple(rejected))

    async def delete(self, alias: str, bindings: Bindings, ids: Sequence[str], version: int) -> int:
        """Write tombstones on every side."""
        for start in range(0, len(ids), self._batch):
            part = ids[start : start + self._batch]
            payloads = [{ID_KEY: one, VERSION_KEY: version, DELETED_KEY: version} for one in part]
            points = [
                models.PointStruct(id=point_id(one), vector={}, payload=payload)
                for one, payload in zip(part, payloads, strict=True)
            ]
            for collection in _by_collection(alias, bindings):
                await self._upsert(collection, points, version)
        return len(ids)

    async def _points(
        self, sides: Sequence[Binding], products: Sequence[dict[str, Any]], version: int
    ) -> list[models.PointStruct]:
        """Whole points with every live vector of the collection: a PUT that names one vector removes the others."""
        vectors: list[dict[str, Any]] = [{} for _ in products]
        payloads: list[dict[str, Any]] = [{} for _ in products]
        for side in sides:
            documents = [document_of(side, product, version=version) for product in products]
            for place, document in enumerate(documents):
                payloads[place] = dict(document.payload)
                for name, vector in document.lexical.items():
                    sparse = models.SparseVector(indices=list(vector.indices), values=list(vector.values))
                    vectors[place][name] = sparse
            if side.encoder is not None and side.vector is not None and side.vector not in vectors[0]:
                rows = await self._encoders.encode(side.encoder, [document.text for document in documents])
                for place, row in enumerate(rows):
                    vectors[place][side.vector] = [float(value) for value in row]
        return [
            models.PointStruct(id=point_id(product["id"]), vector=vectors[place], payload=payloads[place])
            for place, product in enumerate(products)
        ]

    async def _upsert(self, collection: str, points: list[models.PointStruct], version: int) -> None:
        older = models.Filter(must=[models.FieldCondition(key=VERSION_KEY, range=models.Range(lt=version))])
        async with translated():
            answer = await self._client.upsert(collection, points, wait=True, update_filter=older)
        if answer.status != models.UpdateStatus.COMPLETED:
            detail = (
                f"the database answered {answer.status} for {len(points)} points: not known to be written; send again"
            )
            raise Problem(503, "Write not confirmed", detail, retry_after=2)


def _by_collection(alias: str, bindings: Bindings) -> dict[str, list[Binding]]:
    """Every collection that a write must reach, by a stable name: a side's own alias where there are two sides.

    The sides' aliases never move at a switch, so a switch in the middle of a write cannot send both halves to one side.
    """
    live = bindings.binding.side or alias
    named: dict[str, list[Binding]] = {}
    for side in bindings.sides:
        named.setdefault(side.side or live, []).append(side)
    return named


def _checked(items: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """Products by id, the last of equal ids, and what cannot be stored, by place."""
    products: dict[str, dict[str, Any]] = {}
    rejected = []
    for index, raw in enumerate(items):
        try:
            product = product_of(raw)
        except ProductError as error:
            identifier = raw.get("id") if isinstance(raw, dict) else None
            rejected.append(Rejected(index, str(identifier) if identifier is not None else None, str(error)))
            continue
        products[product["id"]] = product
    return list(products.values()), rejected
