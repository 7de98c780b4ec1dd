"""The analyser: one implementation for the index side and the query side.

Fold, normalise numbers and units, split into tokens, expand codes and dimensions, join codes typed apart, drop stop
words (never next to a code), stem words. A change of any of it is a new `ANALYSER_VERSION`, so that old and new vectors
never mix: a tenant's binding says which version its vectors were made with, and the tokens are that version's until its
rebuild is switched to. Version 1 knew no code typed apart, and read the letters of a code as a word's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING

from searchops_workers.retrieval.codes import codes_apart, pairs_apart
from searchops_workers.retrieval.folding import fold, transcribes
from searchops_workers.retrieval.specifications import (
    ABBREVIATIONS,
    MAX_CODE_LETTERS,
    WORD,
    expand,
    has_digit,
    looks_like_code,
    normalise_numbers,
)
from searchops_workers.retrieval.stemming import Stemmer

if TYPE_CHECKING:
    from searchops.api.retrieval import AnalyserSettings

VERSIONS = ("1", "2")
"""Versions whose tokens can be made, the newest last."""
MAX_TEXT = 8_192
MAX_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its form in the index, the word it came from, and whether it is part of a specification."""

    text: str
    source: str
    specification: bool


def knows_codes(settings: AnalyserSettings) -> bool:
    """Whether letters beside a number are a code's, joined or apart, to this version."""
    return settings.version != "1"


class AnalyserVersionUnknown(ValueError):  # noqa: N818 - says what is wrong, like the other refusals
    """Settings of a version whose tokens this build cannot make."""

    def __init__(self, settings: AnalyserSettings) -> None:
        super().__init__(
            f"analyser version {settings.version!r} is not known here, wanted one of {', '.join(VERSIONS)}; run "
            "gateways and workers of the operator's own version"
        )


class Analyser:
    """Tokens of texts under one tenant's settings.

    Raises:
        AnalyserVersionUnknown: tokens of another version would be written into, or asked of, its vectors.
    """

    def __init__(self, settings: AnalyserSettings) -> None:
        if settings.version not in VERSIONS:
            raise AnalyserVersionUnknown(settings)
        self.settings = settings
        self._codes = knows_codes(settings)
        self._stemmer = Stemmer(tuple(settings.languages), refold=not self._codes)

    def analyse(self, text: str, *, query: bool = False) -> tuple[Token, ...]:
        """Tokens in order; `query` also expands the trade's abbreviations (``ss`` is stainless steel)."""
        text = text[:MAX_TEXT]
        words = self.words(text)
        originals = self._originals(text)
        pairs = pairs_apart(text) if self._codes else frozenset()
        codes = codes_apart(text, self.settings.languages) if self._codes else frozenset()
        has_code = bool(codes) or any(looks_like_code(word) for word in words)
        tokens: list[Token] = []
        for word, following in zip_longest(words, words[1:], fillvalue=""):
            if not has_code and word in self._stemmer.stop_words:
                continue
            if query and word in ABBREVIATIONS:
                tokens += [Token(stem, word, False) for full in ABBREVIATIONS[word] for stem in self._stem(full, full)]
            beside_number = (word, following) in pairs
            if beside_number and query:
                tokens += self._as_a_word(word)
            for form in expand(word):
                if has_digit(form) or (self._may_be_code(form) and (beside_number or has_digit(word))):
                    tokens.append(Token(form, word, True))
                else:
                    tokens += [Token(stem, word, False) for stem in self._stem(form, originals.get(form, form))]
            if (word, following) in codes:
                tokens.append(Token(word + following, word, True))
        return tuple(tokens)

    def _as_a_word(self, letters: str) -> list[Token]:
        """What letters before a number mean if they are a transcribed word: ``tuer 2000`` also asks for ``Tür``."""
        word = fold(letters, self.settings.languages)
        return [] if word == letters else [Token(stem, letters, False) for stem in self._stem(word, word)]

    def _stem(self, word: str, original: str) -> tuple[str, ...]:
        return self._stemmer.stem(word, original)

    def words(self, text: str) -> tuple[str, ...]:
        """Folded words without stemming: what tokens are made of and character trigrams are cut from."""
        folded = normalise_numbers(self._fold(text[:MAX_TEXT]))
        return tuple(word[:MAX_TOKEN] for word in WORD.findall(folded))

    def _fold(self, text: str) -> str:
        return fold(text, self.settings.languages, codes=self._codes)

    def _may_be_code(self, form: str) -> bool:
        """Letters whose German stem would be another code's: ``AEH`` is no ``ÄH``."""
        return self._codes and len(form) <= MAX_CODE_LETTERS and transcribes(form)

    def _originals(self, text: str) -> dict[str, str]:
        """Folded word → the word with its marks: a lemmatiser needs ``kengät``, not ``kengat``."""
        if "fi" not in self.settings.languages:
            return {}
        return {self._fold(word): word for word in WORD.findall(text)}


@lru_cache(maxsize=32)
def analyser_of(settings: AnalyserSettings) -> Analyser:
    """The analyser of some settings, made once."""
    return Analyser(settings)
