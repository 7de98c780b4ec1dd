"""Unicode folding: one spelling for what shoppers write in several ways."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import simplemma

UMLAUTS = str.maketrans(
    {"ä": "a", "ö": "o", "ü": "u", "å": "a", "ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
TRANSCRIBED = re.compile(r"[^\W\d_]*(?:ae|oe|ue)[^\W\d_]*")
RESTORED = {"ae": "ä", "oe": "ö", "ue": "ü"}
DIGRAPH = re.compile("ae|oe|ue")
DASHES = re.compile(r"[‐‑‒–—−]")
CACHE = 16_384


def fold(text: str, languages: tuple[str, ...]) -> str:
    """Lower case without marks; in German also the transcribed umlauts (``kueche`` = ``Küche``).

    A word is read as transcribed only where a dictionary knows it with the umlaut and none of the tenant's languages
    knows it as written: ``shoes``, ``blue`` and ``neue`` stay what they are.
    """
    folded = unicodedata.normalize("NFKC", DASHES.sub("-", text)).casefold()
    if "de" in languages:
        folded = TRANSCRIBED.sub(lambda found: restore_umlauts(found.group(0), languages), folded)
    folded = folded.translate(UMLAUTS)
    return "".join(char for char in unicodedata.normalize("NFD", folded) if not unicodedata.combining(char))


@lru_cache(maxsize=CACHE)
def restore_umlauts(word: str, languages: tuple[str, ...]) -> str:
    """The German word that was typed without umlauts, or the word as it is."""
    if simplemma.is_known(word, lang=languages):
        return word
    candidate = DIGRAPH.sub(lambda found: RESTORED[found.group(0)], word)
    return candidate if simplemma.is_known(candidate, lang="de") else word
