from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops_workers.engines.accuracy import special_texts
from searchops_workers.engines.anchors import (
    FEWEST,
    Anchors,
    choose_anchor_texts,
    generated_texts,
    min_cosine,
    read_anchors,
)
from searchops_workers.engines.stages import BuildError, BuildStage


def _anchors(rows: int, seed: int = 1, dimension: int = 8) -> Anchors:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Anchors(tuple(f"text {row}" for row in range(rows)), vectors)


@settings(max_examples=20)
@given(st.lists(st.text(max_size=20), max_size=400), st.lists(st.text(max_size=40), max_size=400))
def test_there_are_always_enough_and_they_do_not_depend_on_order(queries: list[str], documents: list[str]) -> None:
    chosen = choose_anchor_texts(queries, documents)
    assert len(chosen) >= FEWEST
    assert len(set(chosen)) == len(chosen)
    assert set(special_texts()) <= set(chosen)
    assert chosen == choose_anchor_texts(sorted(queries, reverse=True), [*documents, *documents])


def test_queries_documents_languages_and_long_texts_are_in() -> None:
    queries, documents = [f"query {n}" for n in range(900)], [f"document {n}" for n in range(900)]
    chosen = choose_anchor_texts(queries, documents)
    assert len(set(chosen) & set(queries)) == 96
    assert len(set(chosen) & set(documents)) == 96
    assert sum(len(text.split()) > 300 for text in chosen) >= 3
    for word in ("hex bolt", "Sechskantschraube", "kuusioruuvi"):
        assert any(word in text for text in generated_texts()[:3])


def test_the_file_gives_back_what_was_kept() -> None:
    anchors = Anchors(("ä", "", "🔩"), _anchors(3).vectors)
    again = read_anchors(anchors.to_bytes(), source="x")
    assert again.texts == anchors.texts
    assert np.array_equal(again.vectors, anchors.vectors)


@pytest.mark.parametrize("content", [b"", b"not a file", Anchors(("a",), _anchors(2).vectors).to_bytes()])
def test_a_broken_file_says_nothing_about_the_space(content: bytes) -> None:
    with pytest.raises(BuildError, match="wanted the founder's anchors") as caught:
        read_anchors(content, source="file:///a.npz")
    assert caught.value.stage is BuildStage.RETRY


def test_one_moved_anchor_is_enough() -> None:
    first, second = _anchors(300), _anchors(300)
    assert min_cosine(first, second) == pytest.approx(1.0, abs=1e-6)
    second.vectors[17] = second.vectors[18]
    assert min_cosine(first, second) < 0.999


def test_other_dimensions_are_another_space_and_other_texts_no_comparison() -> None:
    assert min_cosine(_anchors(3), _anchors(3, dimension=9)) == 0.0
    broken = _anchors(3)
    broken.vectors[0] = np.nan
    assert min_cosine(broken, _anchors(3)) == 0.0
    with pytest.raises(ValueError, match="different texts"):
        min_cosine(_anchors(3), _anchors(4))
