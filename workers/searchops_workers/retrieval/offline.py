"""The embedded engine: the same segments, the same analyser and points, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import qdrant_edge as edge

from searchops.api.retrieval import ID_KEY, lexical_vector, trigram_vector
from searchops_workers.retrieval.documents import Document, ProductError, document_of, product_of
from searchops_workers.retrieval.results import LegHit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from searchops.api.retrieval import Binding
    from searchops_workers.retrieval.query import SearchRequest
    from searchops_workers.retrieval.sparse import SparseVector

BATCH = 256
MAX_LINE = 1_048_576


class CatalogueError(ValueError):
    """A line of a catalogue that cannot be read, with its file and number."""


def read_catalogue(path: Path) -> Iterator[dict[str, Any]]:
    """Products of an NDJSON file, one a line; empty lines are passed over.

    Raises:
        CatalogueError: naming file and line, what was seen and what is wanted.
    """
    with path.open("rb") as source:
        for number, raw in enumerate(source, start=1):
            if not raw.strip():
                continue
            where = f"{path}:{number}"
            if len(raw) > MAX_LINE:
                raise CatalogueError(
                    f"{where}: a line of {len(raw)} bytes; wanted at most {MAX_LINE}; split the product"
                )
            try:
                yield product_of(json.loads(raw))
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                seen = raw[:60].decode(errors="replace").strip()
                raise CatalogueError(
                    f"{where}: {seen!r} is no JSON ({error}); wanted one product object a line; mend or remove the line"
                ) from error
            except ProductError as error:
                raise CatalogueError(f"{where}: {error}") from error


class EdgeIndex:
    """One collection in the embedded engine; a `VectorSearch`."""

    def __init__(self, folder: Path, binding: Binding) -> None:
        """Create an empty shard under `folder`, with the binding's vectors."""
        self._binding = binding
        vectors: dict[str, Any] = {}
        if binding.vector is not None and binding.dimension is not None:
            vectors[binding.vector] = edge.EdgeVectorParams(size=binding.dimension, distance=edge.Distance.Cosine)
        a8 = binding.analyser_id
        sparse = {
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
            for name in (lexical_vector(a8), trigram_vector(a8))
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse))

    def add(self, products: Iterable[Mapping[str, Any]], dense: Mapping[str, Sequence[float]] | None = None) -> int:
        """Index products with their dense vectors by product id; returns how many."""
        count = 0
        batch: list[Any] = []
        for product in products:
            document = document_of(self._binding, product)
            batch.append(self._point(document, dense))
            count += 1
            if len(batch) >= BATCH:
                self._write(batch)
                batch = []
        if batch:
            self._write(batch)
        return count

    def _point(self, document: Document, dense: Mapping[str, Sequence[float]] | None) -> Any:
        vectors: dict[str, Any] = {name: _sparse(vector) for name, vector in document.lexical.items()}
        if self._binding.vector is not None and dense is not None:
            vectors[self._binding.vector] = [float(value) for value in dense[document.product_id]]
        return edge.Point(id=document.id, vector=vectors, payload=dict(document.payload))

    def _write(self, batch: list[Any]) -> None:
        self._shard.update(edge.UpdateOperation.upsert_points(batch))

    async def legs(self, request: SearchRequest) -> Mapping[str, Sequence[LegHit]]:
        """Every leg, in a thread: the engine holds the interpreter while it searches."""
        return await asyncio.to_thread(self._legs, request)

    def _legs(self, request: SearchRequest) -> dict[str, list[LegHit]]:
        answers: dict[str, list[LegHit]] = {}
        for leg in request.legs:
            vector = list(leg.vector) if isinstance(leg.vector, tuple) else _sparse(leg.vector)
            query = edge.QueryRequest(
                query=edge.Query.Nearest(query=vector, using=leg.using),
                limit=request.prefetch,
                score_threshold=leg.floor,
                with_payload=True,
            )
            found = self._shard.query(query)
            answers[leg.name] = [
                LegHit(str((point.payload or {}).get(ID_KEY, "")), float(point.score), point.payload or {})
                for point in found
            ]
        return answers

    def close(self) -> None:
        """Let go of the shard's files."""
        self._shard.close()


def _sparse(vector: SparseVector) -> Any:
    return edge.SparseVector(indices=list(vector.indices), values=list(vector.values))
