"""Words that a language's dictionary knows, and their lemmas.

The dictionaries stay packed in memory and are decoded a block at a time: read whole into a mapping, Finnish alone takes
430 MB and twice the time to load, in every gateway and worker. A lookup costs microseconds instead of a fraction of
one, and callers keep what they asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import simplemma

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOKED_UP = ("de", "fi")
"""Languages whose dictionary an analyser may ask: for umlauts that were typed apart, and for lemmas."""


def is_known(word: str, languages: tuple[str, ...]) -> bool:
    """Whether the dictionary of one of the languages has the word."""
    return bool(simplemma.is_known(word, lang=languages, low_memory=True))


def lemma(word: str, language: str) -> str:
    """The word's lemma, or the word where the dictionary does not have it."""
    return str(simplemma.lemmatize(word, lang=language, low_memory=True))


def load(languages: Iterable[str] = LOOKED_UP) -> None:
    """Load dictionaries before they are needed: the first word of a language would wait for it, and all behind it."""
    for language in languages:
        is_known("a", (language,))
