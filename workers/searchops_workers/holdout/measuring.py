"""One side of a comparison, measured through the served path: vectors from Triton, search in the embedded engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.encoders.errors import BadVectors
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder
from searchops_workers.holdout.inputs import VectorReport
from searchops_workers.holdout.runs import Legs, Ranking, Run
from searchops_workers.retrieval.documents import render
from searchops_workers.retrieval.offline import EdgeIndex
from searchops_workers.retrieval.query import needs_dense
from searchops_workers.retrieval.search import Searcher

if TYPE_CHECKING:
    from pathlib import Path

    from searchops.api.retrieval import Binding
    from searchops_workers.encoders.protocol import Encoder
    from searchops_workers.holdout.material import Material

DEPTH = 50
BATCH = 64
CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """What is measured.

    Attributes:
        encoder: the served model; None searches by the lexical legs alone.
        binding: how documents and queries are analysed and fused.
        servers: gRPC addresses that serve the encoder.
    """

    revision: str
    encoder: str | None
    dimension: int | None
    binding: Binding
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """One side: its result lists and what was seen of its vectors."""

    run: Run
    vectors: VectorReport | None


async def measure(served: Served, material: Material, folder: Path, *, reverse: bool = False) -> Measured:
    """Encode the catalogue and the queries by the served model, index, search every gated query."""
    if served.encoder is None:
        return Measured(await _search(served, material, folder, {}, {}), None)
    members = [await TritonTextEncoder.connect(url, served.encoder, deadline=CALL_SECONDS) for url in served.servers]
    encoder = PooledEncoder(members)
    binding = served.binding
    texts = {f"d\0{item['id']}": render(binding.document, item) for item in material.products}
    texts |= {f"q\0{query.id}": query.text for query in material.holdout.gated if needs_dense(query.text, binding)}
    try:
        vectors = await _encode(encoder, texts, reverse=reverse)
    except BadVectors as error:
        dimension = served.dimension or 0
        broken = VectorReport(f"{served.revision} ({error})", len(texts), 1, (), dimension, 0.0, 0.0)
        return Measured(Run(served.revision, {}), broken)
    finally:
        await encoder.close()
    dense = {key[2:]: vector for key, vector in vectors.items() if key.startswith("d\0")}
    queries = {key[2:]: vector for key, vector in vectors.items() if key.startswith("q\0")}
    run = await _search(served, material, folder, dense, queries)
    return Measured(run, _report(served, vectors))


async def _encode(encoder: Encoder, texts: dict[str, str], *, reverse: bool) -> dict[str, list[float]]:
    """Vectors by key, in batches sorted by length, or in the reverse of that for the A/A run."""
    keys = sorted(texts, key=lambda key: (len(texts[key]), key), reverse=reverse)
    vectors: dict[str, list[float]] = {}
    for start in range(0, len(keys), BATCH):
        part = keys[start : start + BATCH]
        rows = await encoder.encode([texts[key] for key in part])
        vectors |= {key: [float(value) for value in row] for key, row in zip(part, rows, strict=True)}
    return vectors


async def _search(
    served: Served,
    material: Material,
    folder: Path,
    dense: dict[str, list[float]],
    queries: dict[str, list[float]],
) -> Run:
    binding = served.binding
    index = EdgeIndex(folder, binding)
    try:
        index.add(material.products, dense)
        searcher = Searcher(index)
        rankings = {}
        for query in material.holdout.gated:
            found = await searcher.search_vector(query.text, binding, queries.get(query.id), limit=DEPTH)
            legs = Legs.LEXICAL if found.lexical_only else Legs.HYBRID
            rankings[query.id] = Ranking(
                tuple(hit.product_id for hit in found.hits), legs, tuple(hit.score for hit in found.hits)
            )
    finally:
        index.close()
    return Run(served.revision, rankings)


def _report(served: Served, vectors: dict[str, list[float]]) -> VectorReport:
    matrix = np.asarray(list(vectors.values()), dtype=np.float64)
    norms = np.linalg.norm(matrix, axis=1)
    finite = np.isfinite(matrix).all(axis=1)
    return VectorReport(
        served.revision,
        len(vectors),
        int((~finite).sum()),
        (matrix.shape[1],),
        served.dimension or matrix.shape[1],
        float(norms.min()),
        float(norms.max()),
    )
