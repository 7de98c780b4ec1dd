"""BM25 and trigram vectors: the formula, bounded and stable indices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import AnalyserSettings
from searchops_workers.retrieval.sparse import K1, B, LexicalEncoder, term_index, trigrams

SETTINGS = AnalyserSettings(languages=("en",), avg_len_lex=4.0, avg_len_tri=20.0)
ENCODER = LexicalEncoder(SETTINGS)


def test_document_weights_follow_the_bm25_formula() -> None:
    lex, _ = ENCODER.document("pump pump hose")
    weights = dict(zip(lex.indices, lex.values, strict=True))
    norm = K1 * (1 - B + B * 3 / 4.0)
    assert weights[term_index("pump")] == pytest.approx(2 * (K1 + 1) / (2 + norm))
    assert weights[term_index("hose")] == pytest.approx(1 * (K1 + 1) / (1 + norm))


def test_query_weights_are_one_a_token() -> None:
    lex, tri = ENCODER.query("pump pump hose")
    assert lex.values == (1.0, 1.0)
    assert set(tri.values) == {1.0}


def test_the_index_of_a_term_is_the_same_on_every_machine() -> None:
    assert term_index("m12") == 2_144_788_334


def test_a_misspelt_word_shares_most_trigrams() -> None:
    right, wrong = set(trigrams(["white"])), set(trigrams(["whiite"]))
    assert len(right & wrong) >= 4
    assert trigrams(["a"]) == ["^a$"]


@given(st.text(max_size=200))
def test_vectors_are_sorted_unique_finite_and_positive(text: str) -> None:
    for vector in (*ENCODER.document(text), *ENCODER.query(text)):
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert all(math.isfinite(value) and value > 0 for value in vector.values)
