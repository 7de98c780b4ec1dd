"""The two strategies: a second named vector on the live points, or a new generation of the collection."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from searchops.api.retrieval import DELETED_KEY
from searchops_workers.reindex.patience import patiently
from searchops_workers.retrieval.documents import document_of, product_of, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from searchops.api.retrieval import Binding
    from searchops.api.tasks import ReindexTask

PAGE = 256


@dataclass(frozen=True, slots=True)
class Work:
    """One document to be embedded."""

    id: Any
    payload: dict[str, Any]
    text: str


class Side(Protocol):
    """What the pipeline needs of a strategy."""

    def pending(self) -> AsyncIterator[list[Work]]:
        """Pages of this slice's documents that the target side lacks: the resume cursor is the database itself."""
        ...

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        """Write vectors; what is newer on the target side stays."""
        ...

    async def settled(self, dead: int) -> bool:
        """Whether nothing can be lacking any more, so that no further pass is needed.

        Args:
            dead: how many documents of this slice are dead-lettered.
        """
        ...

    async def left_out(self, dead: set[str]) -> int:
        """How many live documents of this slice the source did not have and the target lacks, dead letters apart."""
        ...

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """(text, stored vector) of some documents of this slice."""
        ...

    async def documents(self) -> int:
        """About how many live documents this slice has, whether done or not: what a share of failures is taken of."""
        ...


def in_slice(point: object, index: int, total: int) -> bool:
    """Whether a point belongs to a slice: a hash range over point ids, for servers without a slice filter."""
    return zlib.crc32(str(point).encode()) % total == index


def live() -> list[Any]:
    """Conditions of points that are not tombstones."""
    return [models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))]


class NamedVectorSide:
    """Fill `d-<new>` of the live collection: the next page is the points that lack the vector."""

    def __init__(self, client: AsyncQdrantClient, task: ReindexTask, index: int) -> None:
        self._client = client
        self._task = task
        self._index = index
        self._vector = task.target.vector or ""

    async def pending(self) -> AsyncIterator[list[Work]]:
        """Pages of live points of this slice without the vector."""
        lacking = models.Filter(must=live(), must_not=[models.HasVectorCondition(has_vector=self._vector)])
        offset: Any = None
        while True:
            points, offset = await _page(self._client, self._task.target_collection, lacking, offset)
            mine = [point for point in points if in_slice(point.id, self._index, self._task.slices)]
            if mine:
                yield [_work(self._task.target, point) for point in mine]
            if offset is None:
                return

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        """Only where the vector is still missing on a living point.

        A gateway's newer vector is never overwritten, and a tombstone gets none: a leg would find it. A point that was
        deleted meanwhile answers 404 *after* the others of the batch were written; the next page then shows what is
        left.
        """
        points = [
            models.PointVectors(id=work.id, vector={self._vector: list(vector)})
            for work, vector in batch
            if vector is not None
        ]
        missing = models.Filter(must=live(), must_not=[models.HasVectorCondition(has_vector=self._vector)])
        try:
            await patiently(
                lambda: self._client.update_vectors(
                    self._task.target_collection, points, wait=True, update_filter=missing
                )
            )
        except UnexpectedResponse as error:
            if error.status_code != 404:
                raise

    async def settled(self, dead: int) -> bool:
        """Never known: a batch may have been written in part, and the server reads what lacks faster than it counts."""
        del dead
        return False

    async def left_out(self, dead: set[str]) -> int:
        """None: the live collection is the source."""
        del dead
        return 0

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """Live points of this slice that have the vector."""
        having = models.Filter(must=[*live(), models.HasVectorCondition(has_vector=self._vector)])
        return await _sample(self._client, self._task, self._index, having, self._vector, count)

    async def documents(self) -> int:
        """The live collection's share."""
        return await _share(self._client, self._task.target_collection, self._task.slices)


class BlueGreenSide:
    """Fill a new generation: what the source has and the target lacks, whole points, never over a newer one."""

    def __init__(
        self, client: AsyncQdrantClient, task: ReindexTask, index: int, products: list[dict[str, Any]] | None
    ) -> None:
        self._client = client
        self._task = task
        self._index = index
        self._products = products

    async def pending(self) -> AsyncIterator[list[Work]]:
        """Pages of documents that the target has not, from the live collection or from a catalogue."""
        async for page in self._source():
            mine = [work for work in page if in_slice(work.id, self._index, self._task.slices)]
            if not mine:
                continue
            known = await self._known([work.id for work in mine])
            left = [work for work in mine if str(work.id) not in known]
            if left:
                yield left

    async def _known(self, ids: list[Any]) -> set[str]:
        """Which of these the target has, tombstones included: what was deleted meanwhile is not brought back."""
        found = await patiently(
            lambda: self._client.retrieve(self._task.target_collection, ids, with_payload=False, with_vectors=False)
        )
        return {str(point.id) for point in found}

    async def _source(self) -> AsyncIterator[list[Work]]:
        if self._products is not None:
            for start in range(0, len(self._products), PAGE):
                part = [product_of(item) for item in self._products[start : start + PAGE]]
                documents = [document_of(self._task.target, product) for product in part]
                yield [Work(item.id, dict(item.payload), item.text) for item in documents]
            return
        offset: Any = None
        while True:
            points, offset = await _page(
                self._client, self._task.source_collection or "", models.Filter(must=live()), offset
            )
            if points:
                yield [_work(self._task.target, point) for point in points]
            if offset is None:
                return

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        """`insert_only`: a point that a gateway has written meanwhile is newer, and stays."""
        points = []
        for work, vector in batch:
            product = {key: value for key, value in work.payload.items() if not key.startswith("_")}
            document = document_of(self._task.target, {"id": str(work.payload.get("_id", work.id)), **product})
            vectors: dict[str, Any] = {
                name: models.SparseVector(indices=list(item.indices), values=list(item.values))
                for name, item in document.lexical.items()
            }
            if vector is not None and self._task.target.vector is not None:
                vectors[self._task.target.vector] = list(vector)
            points.append(models.PointStruct(id=work.id, vector=vectors, payload=work.payload))
        await patiently(
            lambda: self._client.upsert(
                self._task.target_collection, points, wait=True, update_mode=models.UpdateMode.INSERT_ONLY
            )
        )

    async def settled(self, dead: int) -> bool:
        """Exact counts of both collections instead of reading the source whole once more to find nothing.

        While other slices are at work the counts differ, and another pass is made; it delays nothing. A catalogue does
        not change while it is read.
        """
        if self._products is not None:
            return True
        source = await _count(self._client, self._task.source_collection or "")
        return await _count(self._client, self._task.target_collection) + dead >= source

    async def left_out(self, dead: set[str]) -> int:
        """Live ids that a catalogue did not have: counts alone would hide them behind products that are new."""
        if self._products is None or self._task.source_collection is None:
            return 0
        missing, offset = 0, None
        while True:
            points, offset = await _page(
                self._client, self._task.source_collection, models.Filter(must=live()), offset, payload=False
            )
            mine = [point.id for point in points if in_slice(point.id, self._index, self._task.slices)]
            if mine:
                known = dead | await self._known(mine)
                missing += sum(str(point) not in known for point in mine)
            if offset is None:
                return missing

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """Live points of this slice on the target side."""
        if self._task.target.vector is None:
            return []
        vector = self._task.target.vector
        having = models.Filter(must=[*live(), models.HasVectorCondition(has_vector=vector)])
        return await _sample(self._client, self._task, self._index, having, vector, count)

    async def documents(self) -> int:
        """The source's share: of the catalogue, or of the live collection."""
        if self._products is not None:
            return -(-len(self._products) // self._task.slices)
        return await _share(self._client, self._task.source_collection or "", self._task.slices)


async def _page(
    client: AsyncQdrantClient, collection: str, wanted: models.Filter, offset: Any, *, payload: bool = True
) -> tuple[list[models.Record], Any]:
    return await patiently(
        lambda: client.scroll(collection, wanted, limit=PAGE, offset=offset, with_payload=payload, with_vectors=False)
    )


async def _share(client: AsyncQdrantClient, collection: str, slices: int) -> int:
    return -(-await _count(client, collection) // slices)


async def _count(client: AsyncQdrantClient, collection: str) -> int:
    answer = await patiently(lambda: client.count(collection, models.Filter(must=live()), exact=True))
    return answer.count


def _work(binding: Binding, point: models.Record) -> Work:
    payload = dict(point.payload or {})
    return Work(point.id, payload, render(binding.document, payload))


async def _sample(
    client: AsyncQdrantClient, task: ReindexTask, index: int, having: models.Filter, vector: str, count: int
) -> list[tuple[str, list[float]]]:
    points, _ = await patiently(
        lambda: client.scroll(task.target_collection, having, limit=PAGE, with_payload=True, with_vectors=[vector])
    )
    found: list[tuple[str, list[float]]] = []
    for point in points:
        stored = point.vector.get(vector) if isinstance(point.vector, dict) else None
        if isinstance(stored, list) and in_slice(point.id, index, task.slices) and len(found) < count:
            text = render(task.target.document, point.payload or {})
            found.append((text, [float(value) for value in stored if isinstance(value, int | float)]))
    return found
