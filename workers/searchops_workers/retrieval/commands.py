"""`searchops-worker analyse` and `retrieve`: the library from the command line, without a server."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from searchops.api.retrieval import BUILTIN_PROFILES, AnalyserSettings, Binding, FieldRoles, RetrievalProfile
from searchops_workers.retrieval.analyser import analyser_of
from searchops_workers.retrieval.documents import render
from searchops_workers.retrieval.offline import EdgeIndex, read_catalogue
from searchops_workers.retrieval.query import needs_dense
from searchops_workers.retrieval.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DEFAULT_DOCUMENT = "{title}. {brand}. {attributes}"
BATCH = 64
NOTHING_FOUND = "-"


class TextEncoder(Protocol):
    """What `retrieve` needs of an encoder."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    async def encode(self, texts: Sequence[str]) -> Iterable[Iterable[float]]:
        """One vector a text."""
        ...


@dataclass(frozen=True, slots=True)
class RetrievedRow:
    """One line of a run: the query, the product, its rank from 1, its fused score, and whether legs were lexical.

    A query that found nothing has one row, of product `NOTHING_FOUND` and rank 0; without it the query is missing.
    """

    query: str
    product: str
    rank: int
    score: float
    tag: str


def analyse(text: str, language: str) -> str:
    """Tokens of a text as JSON, as the query side sees them."""
    analyser = analyser_of(AnalyserSettings(languages=(language,)))
    tokens = [
        {"token": token.text, "source": token.source, "specification": token.specification}
        for token in analyser.analyse(text, query=True)
    ]
    return json.dumps({"text": text, "language": language, "tokens": tokens}, ensure_ascii=False)


def profile_named(name: str) -> RetrievalProfile:
    """A built-in profile.

    Raises:
        ValueError: naming the ones that there are.
    """
    found = BUILTIN_PROFILES.get(name)
    if found is None:
        raise ValueError(f"profile {name!r} is not built in; wanted one of {', '.join(sorted(BUILTIN_PROFILES))}")
    return found


def offline_binding(
    profile: RetrievalProfile,
    *,
    dimension: int | None,
    languages: tuple[str, ...] = ("en", "de", "fi"),
    document: str = DEFAULT_DOCUMENT,
) -> Binding:
    """A binding for the embedded engine."""
    dense = dimension is not None
    return Binding(
        revision="offline" if dense else None,
        encoder="offline" if dense else None,
        vector="d-offline" if dense else None,
        dimension=dimension,
        analyser=AnalyserSettings(languages=languages),
        profile=profile,
        document=document,
        fields=FieldRoles(code=("sku",), title=("title",)),
    )


async def retrieve_rows(
    products: Sequence[dict[str, Any]],
    queries: Iterable[tuple[str, str]],
    binding: Binding,
    encoder: TextEncoder | None,
    *,
    depth: int = 50,
    folder: Path | None = None,
) -> list[RetrievedRow]:
    """Index the products in the embedded engine and run every query; `folder` keeps the shard, else it is removed."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="searchops-retrieve-") as made:
            return await retrieve_rows(products, queries, binding, encoder, depth=depth, folder=Path(made) / "shard")
    dense = await encode_all(encoder, {item["id"]: render(binding.document, item) for item in products})
    index = EdgeIndex(folder, binding)
    try:
        index.add(products, dense)
        return await _run(index, list(queries), binding, encoder, depth)
    finally:
        index.close()


async def encode_all(encoder: TextEncoder | None, texts: dict[str, str]) -> dict[str, list[float]]:
    """Vectors by key, in batches."""
    if encoder is None:
        return {}
    keys = list(texts)
    vectors: dict[str, list[float]] = {}
    for start in range(0, len(keys), BATCH):
        part = keys[start : start + BATCH]
        rows = await encoder.encode([texts[key] for key in part])
        vectors |= {key: [float(value) for value in row] for key, row in zip(part, rows, strict=True)}
    return vectors


async def _run(
    index: EdgeIndex, queries: list[tuple[str, str]], binding: Binding, encoder: TextEncoder | None, depth: int
) -> list[RetrievedRow]:
    searcher = Searcher(index)
    dense = await encode_all(encoder, {name: text for name, text in queries if needs_dense(text, binding)})
    rows = []
    for name, text in queries:
        answer = await searcher.search_vector(text, binding, dense.get(name), limit=depth)
        tag = "lexical" if answer.lexical_only else "hybrid"
        rows += [RetrievedRow(name, hit.product_id, rank, hit.score, tag) for rank, hit in enumerate(answer.hits, 1)]
        rows += [] if answer.hits else [RetrievedRow(name, NOTHING_FOUND, 0, 0.0, tag)]
    return rows


def read_queries(path: Path) -> list[tuple[str, str]]:
    """(id, text) of an NDJSON file.

    Raises:
        ValueError: naming file and line.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
            name, text = row["id"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            seen = raw[:60].decode(errors="replace").strip()
            raise ValueError(
                f"{path}:{number}: seen {seen!r} ({type(error).__name__}); wanted an object with id and text; mend it"
            ) from error
        name = str(name) if isinstance(name, int) else name
        if not isinstance(name, str) or not isinstance(text, str) or not name or name.split() != [name]:
            raise ValueError(
                f"{path}:{number}: seen id {name!r} and text {str(text)[:60]!r}; wanted two texts, and an id without "
                "blanks; correct the line"
            )
        if name in found:
            raise ValueError(f"{path}:{number}: seen id {name!r} again; wanted each id once; rename or remove one")
        found[name] = text
    if not found:
        raise ValueError(f"{path}: seen no query; wanted objects with id and text, one a line; check the file")
    return list(found.items())


def retrieve(catalogue: Path, queries: Path, profile: str, encoder: TextEncoder | None, out: Path, depth: int) -> int:
    """Write a TREC run over the embedded engine; returns how many rows it has."""
    binding = offline_binding(profile_named(profile), dimension=encoder.dimension if encoder is not None else None)
    wanted = read_queries(queries)
    products = list(read_catalogue(catalogue))
    if not products:
        raise ValueError(f"{catalogue}: seen no product; wanted one JSON object a line; check the file")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: seen no directory {out.parent}; wanted one to write the run to; make it")
    rows = asyncio.run(retrieve_rows(products, wanted, binding, encoder, depth=depth))
    lines = [f"{row.query} Q0 {row.product} {row.rank} {row.score:.9f} {row.tag}\n" for row in rows]
    out.write_text("".join(lines), encoding="utf-8")
    return len(rows)
