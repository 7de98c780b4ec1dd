"""Article numbers typed apart: ``wp 2706`` is ``WP-2706``; ``pump 1500``, ``w 500`` and ``oel 500`` are no codes.

The letters of a code mean nothing. So a pair of letters and number is a code only where the letters are no unit, no
abbreviation of the trade, no stop word, and, from three letters on, no word of the tenant's languages. Of two letters a
dictionary knows nearly every pair, and a shopper who types two of them before a number hardly ever means a word.
"""

from __future__ import annotations

from functools import lru_cache

from searchops_workers.retrieval.dictionaries import is_known
from searchops_workers.retrieval.folding import plain, restore_umlauts
from searchops_workers.retrieval.specifications import ABBREVIATIONS, CODE_APART, UNIT_SYNONYMS, UNITS
from searchops_workers.retrieval.stemming import STOP_WORDS

SHORTEST_WORD = 3
NO_CODES = frozenset({*UNITS, *UNIT_SYNONYMS, *ABBREVIATIONS, "no", "ei"}).union(*STOP_WORDS.values())
CACHE = 16_384

Pair = tuple[str, str]
"""The letters and the number, neighbouring words of one text."""


def pairs_apart(text: str) -> frozenset[Pair]:
    """Every short run of letters before a bare number: what the analyser leaves as it is typed."""
    return frozenset((found.group(1), found.group(2)) for found in CODE_APART.finditer(plain(text)))


def codes_apart(text: str, languages: tuple[str, ...]) -> frozenset[Pair]:
    """Those pairs that are article numbers."""
    return frozenset(pair for pair in pairs_apart(text) if not means_something(pair[0], languages))


@lru_cache(maxsize=CACHE)
def means_something(letters: str, languages: tuple[str, ...]) -> bool:
    """Whether letters before a number are a unit, an abbreviation or a word rather than the head of a code."""
    if letters in NO_CODES:
        return True
    if len(letters) < SHORTEST_WORD or not languages:
        return False
    if "de" in languages and restore_umlauts(letters, languages) != letters:
        return True
    return is_known(letters, languages)
