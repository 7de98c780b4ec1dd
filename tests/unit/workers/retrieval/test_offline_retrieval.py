"""The embedded engine: indexing, the run file, and lines that are no products."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from searchops_workers.retrieval.commands import profile_named, read_queries, retrieve
from searchops_workers.retrieval.offline import CatalogueError, read_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PRODUCTS = [
    {"id": "a", "title": "Hex nut M12 stainless", "sku": "HN-2110", "attributes": {"thread": "M12"}},
    {"id": "b", "title": "White shirt", "sku": "SH-1000", "attributes": {"colour": "white"}},
    {"id": "c", "title": "Winter jacket for women", "sku": "WJ-3000", "attributes": {}},
]


class ColourEncoder:
    """A labelled double of a model: one axis for shirts, one for the rest."""

    dimension = 2

    async def encode(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] if "shirt" in text.lower() or "blouse" in text.lower() else [0.0, 1.0] for text in texts]


def files(folder: Path, queries: Sequence[tuple[str, str]]) -> tuple[Path, Path]:
    catalogue, wanted = folder / "products.jsonl", folder / "queries.jsonl"
    catalogue.write_text("".join(json.dumps(product) + "\n" for product in PRODUCTS))
    wanted.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in queries))
    return catalogue, wanted


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


async def test_the_run_names_hits_in_order_with_the_legs_as_tag(tmp_path: Path) -> None:
    catalogue, queries = files(tmp_path, [("q1", "hn2110"), ("q2", "blouse"), ("q3", "whiite shrt")])
    out = tmp_path / "out.run"
    written = await asyncio.to_thread(retrieve, catalogue, queries, "plain", ColourEncoder(), out, 10)
    found = rows(out)
    assert len(found) == written
    first = {row[0]: row for row in found if row[3] == "1"}
    assert (first["q1"][2], first["q1"][5]) == ("a", "lexical")
    assert (first["q2"][2], first["q2"][5]) == ("b", "hybrid")
    assert first["q3"][2] == "b"
    assert all(row[1] == "Q0" for row in found)


async def test_without_an_encoder_every_query_is_lexical(tmp_path: Path) -> None:
    catalogue, queries = files(tmp_path, [("q1", "white shirt")])
    out = tmp_path / "out.run"
    await asyncio.to_thread(retrieve, catalogue, queries, "default", None, out, 10)
    assert {row[5] for row in rows(out)} == {"lexical"}


def test_a_line_that_is_not_json_names_file_line_seen_wanted_and_next(tmp_path: Path) -> None:
    catalogue = tmp_path / "products.jsonl"
    catalogue.write_text(json.dumps(PRODUCTS[0]) + "\n\nnot json\n")
    with pytest.raises(CatalogueError) as caught:
        list(read_catalogue(catalogue))
    said = str(caught.value)
    assert said.startswith(f"{catalogue}:3: 'not json' is no JSON")
    assert "wanted one product object a line" in said
    assert "mend or remove the line" in said


def test_a_product_without_an_id_names_its_line(tmp_path: Path) -> None:
    catalogue = tmp_path / "products.jsonl"
    catalogue.write_text('{"title": "x"}\n')
    with pytest.raises(CatalogueError, match=r"products\.jsonl:1: id is None"):
        list(read_catalogue(catalogue))


def test_a_query_line_without_text_names_its_line(tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"id": "1", "text": "a"}\n{"id": "2"}\n')
    with pytest.raises(ValueError, match=r"queries\.jsonl:2"):
        read_queries(queries)


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="default, plain"):
        profile_named("nope")
