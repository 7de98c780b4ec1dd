"""Sparse vectors of the two lexical legs: BM25 over tokens and over character trigrams.

Document side: tf saturation ``tf (k1 + 1) / (tf + k1 (1 - b + b · len / avg_len))`` (Robertson & Zaragoza 2009);
query side: 1 a token; IDF is the server's (``modifier: idf``). A token's index is a 32-bit hash of its text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from searchops_workers.retrieval.analyser import Analyser, analyser_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from searchops.api.retrieval import AnalyserSettings

K1 = 1.2
B = 0.75
GRAM = 3
MAX_TERMS = 1_024


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Indices (ascending, without duplicates) and their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.indices)


def term_index(term: str) -> int:
    """The index of a term: 32 bits of BLAKE2b, the same on every machine and in every version of Python."""
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "big")


def trigrams(words: Iterable[str]) -> list[str]:
    """Character trigrams of each word with its borders marked; a short word is one gram."""
    grams: list[str] = []
    for word in words:
        padded = f"^{word}$"
        grams += [padded[place : place + GRAM] for place in range(max(1, len(padded) - GRAM + 1))]
    return grams


def _document(terms: Iterable[str], avg_len: float) -> SparseVector:
    counts = Counter(terms)
    length = sum(counts.values())
    weights: dict[int, float] = {}
    for term, count in counts.most_common(MAX_TERMS):
        weight = count * (K1 + 1) / (count + K1 * (1 - B + B * length / avg_len))
        index = term_index(term)
        weights[index] = weights.get(index, 0.0) + weight
    return _vector(weights)


def _query(terms: Iterable[str]) -> SparseVector:
    return _vector({term_index(term): 1.0 for term in dict.fromkeys(terms)})


def _vector(weights: dict[int, float]) -> SparseVector:
    ordered = sorted(weights.items())
    return SparseVector(tuple(index for index, _ in ordered), tuple(value for _, value in ordered))


class LexicalEncoder:
    """Both lexical legs of one tenant."""

    def __init__(self, settings: AnalyserSettings) -> None:
        self.analyser: Analyser = analyser_of(settings)
        self._settings = settings

    def document(self, text: str) -> tuple[SparseVector, SparseVector]:
        """BM25 and trigram vector of a document."""
        tokens = [token.text for token in self.analyser.analyse(text)]
        grams = trigrams(self.analyser.words(text))
        return _document(tokens, self._settings.avg_len_lex), _document(grams, self._settings.avg_len_tri)

    def query(self, text: str) -> tuple[SparseVector, SparseVector]:
        """BM25 and trigram vector of a query."""
        tokens = [token.text for token in self.analyser.analyse(text, query=True)]
        return _query(tokens), _query(trigrams(self.analyser.words(text)))
