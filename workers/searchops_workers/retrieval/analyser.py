"""The analyser: one implementation for the index side and the query side.

Fold, normalise numbers and units, split into tokens, expand codes and dimensions, drop stop words (never next to a
code), stem words. A change of any of it is a new `ANALYSER_VERSION`, so that old and new vectors never mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from searchops_workers.retrieval.folding import fold
from searchops_workers.retrieval.specifications import WORD, expand, has_digit, looks_like_code, normalise_numbers
from searchops_workers.retrieval.stemming import Stemmer

if TYPE_CHECKING:
    from searchops.api.retrieval import AnalyserSettings

MAX_TEXT = 8_192
MAX_TOKEN = 64
ABBREVIATIONS = {"ss": ("stainless", "steel"), "galv": ("galvanised",), "alu": ("aluminium",), "edst": ("edelstahl",)}


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its form in the index, the word it came from, and whether it is part of a specification."""

    text: str
    source: str
    specification: bool


class Analyser:
    """Tokens of texts under one tenant's settings."""

    def __init__(self, settings: AnalyserSettings) -> None:
        self.settings = settings
        self._stemmer = Stemmer(tuple(settings.languages))

    def analyse(self, text: str, *, query: bool = False) -> tuple[Token, ...]:
        """Tokens in order; `query` also expands the trade's abbreviations (``ss`` is stainless steel)."""
        tokens: list[Token] = []
        folded = normalise_numbers(fold(text[:MAX_TEXT], self.settings.languages))
        originals = _originals(text[:MAX_TEXT], self.settings.languages)
        words = [word[:MAX_TOKEN] for word in WORD.findall(folded)]
        has_code = any(looks_like_code(word) for word in words)
        for word in words:
            if not has_code and word in self._stemmer.stop_words:
                continue
            if query and word in ABBREVIATIONS:
                tokens += [Token(stem, word, False) for full in ABBREVIATIONS[word] for stem in self._stem(full, full)]
            for form in expand(word):
                if has_digit(form):
                    tokens.append(Token(form, word, True))
                else:
                    original = originals.get(form, form)
                    tokens += [Token(stem, word, False) for stem in self._stem(form, original)]
        return tuple(tokens)

    def _stem(self, word: str, original: str) -> tuple[str, ...]:
        return self._stemmer.stem(word, original)

    def words(self, text: str) -> tuple[str, ...]:
        """Folded words without stemming: what character trigrams are cut from."""
        folded = normalise_numbers(fold(text[:MAX_TEXT], self.settings.languages))
        return tuple(word[:MAX_TOKEN] for word in WORD.findall(folded))


def _originals(text: str, languages: tuple[str, ...]) -> dict[str, str]:
    """Folded word → the word with its marks: a lemmatiser needs ``kengät``, not ``kengat``."""
    if "fi" not in languages:
        return {}
    return {fold(word, languages): word for word in WORD.findall(text)}


@lru_cache(maxsize=32)
def analyser_of(settings: AnalyserSettings) -> Analyser:
    """The analyser of some settings, made once."""
    return Analyser(settings)
