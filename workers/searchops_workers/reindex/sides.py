"""The two strategies: a second named vector on the live points, or a new generation of the collection."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qdrant_client import models

from searchops.api.retrieval import ID_KEY
from searchops_workers.reindex.points import PAGE, Passage, Points, live, source_of, target_of
from searchops_workers.retrieval.documents import document_of, product_of, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qdrant_client import AsyncQdrantClient

    from searchops.api.tasks import ReindexTask


@dataclass(frozen=True, slots=True)
class Work:
    """One document to be embedded, as it will stand on the target side.

    Attributes:
        id: of the point on the target side.
        payload: as it is written there.
    """

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
    """Whether a document is of one slice of the Job: a hash range over its id on the target side."""
    return zlib.crc32(str(point).encode()) % total == index


class NamedVectorSide:
    """Fill `d-<new>` of the live points: the next page is those that lack the vector."""

    def __init__(self, client: AsyncQdrantClient, task: ReindexTask, index: int) -> None:
        self._task = task
        self._index = index
        self._points = Points(client, target_of(task))
        self._vector = task.target.vector or ""

    async def pending(self) -> AsyncIterator[list[Work]]:
        """Pages of live points of this slice without the vector."""
        async for page in self._points.pages(live(lacking=self._vector)):
            mine = [point for point in page if in_slice(point.id, self._index, self._task.slices)]
            if mine:
                yield [Work(point.id, dict(point.payload or {}), self._text(point)) for point in mine]

    def _text(self, point: models.Record) -> str:
        return render(self._task.target.document, point.payload or {})

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        """Only where the vector is still missing on a living point.

        A gateway's newer vector is never overwritten, and a tombstone gets none: a leg would find it. Where a point was
        deleted meanwhile the next page shows what is left.
        """
        points = [
            models.PointVectors(id=work.id, vector={self._vector: list(vector)})
            for work, vector in batch
            if vector is not None
        ]
        await self._points.add_vector(self._vector, points)

    async def settled(self, dead: int) -> bool:
        """Never known: a batch may have been written in part, and the server reads what lacks faster than it counts."""
        del dead
        return False

    async def left_out(self, dead: set[str]) -> int:
        """None: the live points are the source."""
        del dead
        return 0

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """Live points of this slice that have the vector."""
        return await _sample(self._points, self._task, self._index, self._vector, count)

    async def documents(self) -> int:
        """The live points' share."""
        return -(-await self._points.count() // self._task.slices)


class BlueGreenSide:
    """Fill a new generation: what the source has and the target lacks, whole points, never over a newer one."""

    def __init__(
        self, client: AsyncQdrantClient, task: ReindexTask, index: int, products: list[dict[str, Any]] | None
    ) -> None:
        self._task = task
        self._index = index
        self._products = products
        self._passage = Passage(source_of(task), target_of(task))
        self._source = Points(client, self._passage.source)
        self._target = Points(client, self._passage.target)

    async def pending(self) -> AsyncIterator[list[Work]]:
        """Pages of documents that the target has not, from the live side or from a catalogue."""
        async for page in self._found():
            mine = [work for work in page if in_slice(work.id, self._index, self._task.slices)]
            if not mine:
                continue
            # Tombstones are known too: what was deleted meanwhile is not brought back.
            known = await self._target.present([work.id for work in mine])
            left = [work for work in mine if str(work.id) not in known]
            if left:
                yield left

    async def _found(self) -> AsyncIterator[list[Work]]:
        if self._products is not None:
            for start in range(0, len(self._products), PAGE):
                yield [self._listed(product_of(item)) for item in self._products[start : start + PAGE]]
            return
        async for page in self._source.pages(live()):
            yield [self._live(point) for point in page]

    def _listed(self, product: dict[str, Any]) -> Work:
        document = document_of(self._task.target, product)
        ident = self._passage.target.id_of(document.product_id)
        return Work(ident, self._passage.placed(document.payload), document.text)

    def _live(self, point: models.Record) -> Work:
        text = render(self._task.target.document, point.payload or {})
        return Work(self._passage.id_of(point), self._passage.payload_of(point), text)

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        """Only what is not there: a point that a gateway has written meanwhile is newer, and stays."""
        points = []
        for work, vector in batch:
            product = {key: value for key, value in work.payload.items() if not key.startswith("_")}
            document = document_of(self._task.target, {**product, "id": str(work.payload[ID_KEY])})
            vectors: dict[str, Any] = {
                name: models.SparseVector(indices=list(item.indices), values=list(item.values))
                for name, item in document.lexical.items()
            }
            if vector is not None and self._task.target.vector is not None:
                vectors[self._task.target.vector] = list(vector)
            points.append(models.PointStruct(id=work.id, vector=vectors, payload=work.payload))
        await self._target.insert(points)

    async def settled(self, dead: int) -> bool:
        """Exact counts of both sides instead of reading the source whole once more to find nothing.

        While other slices are at work the counts differ, and another pass is made; it delays nothing. A catalogue does
        not change while it is read.
        """
        if self._products is not None:
            return True
        return await self._target.count() + dead >= await self._source.count()

    async def left_out(self, dead: set[str]) -> int:
        """Live products that a catalogue did not have: counts alone would hide them behind products that are new."""
        if self._products is None or self._task.source_collection is None:
            return 0
        missing = 0
        async for page in self._source.pages(live(), payload=False):
            ids = [self._passage.id_of(point) for point in page]
            mine = [ident for ident in ids if in_slice(ident, self._index, self._task.slices)]
            if mine:
                known = dead | await self._target.present(mine)
                missing += sum(str(ident) not in known for ident in mine)
        return missing

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """Live points of this slice on the target side."""
        if self._task.target.vector is None:
            return []
        return await _sample(self._target, self._task, self._index, self._task.target.vector, count)

    async def documents(self) -> int:
        """The source's share: of the catalogue, or of the live side."""
        whole = len(self._products) if self._products is not None else await self._source.count()
        return -(-whole // self._task.slices)


async def _sample(
    points: Points, task: ReindexTask, index: int, vector: str, count: int
) -> list[tuple[str, list[float]]]:
    found: list[tuple[str, list[float]]] = []
    for point in await points.some(live(models.HasVectorCondition(has_vector=vector)), vector):
        stored = point.vector.get(vector) if isinstance(point.vector, dict) else None
        if isinstance(stored, list) and in_slice(point.id, index, task.slices) and len(found) < count:
            text = render(task.target.document, point.payload or {})
            found.append((text, [float(value) for value in stored if isinstance(value, int | float)]))
    return found
