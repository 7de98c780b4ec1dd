"""Unicode folding: one spelling for what shoppers write in several ways."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from searchops_workers.retrieval.dictionaries import is_known
from searchops_workers.retrieval.specifications import CODE_APART, MAX_CODE_LETTERS, WORD, has_digit

UMLAUTS = str.maketrans(
    {"ä": "a", "ö": "o", "ü": "u", "å": "a", "ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
TRANSCRIBED = re.compile(r"[^\W\d_]*(?:ae|oe|ue)[^\W\d_]*")
RESTORED = {"ae": "ä", "oe": "ö", "ue": "ü"}
DIGRAPH = re.compile("ae|oe|ue")
DASHES = re.compile(r"[‐‑‒–—−]")
CACHE = 16_384


def fold(text: str, languages: tuple[str, ...], *, codes: bool = True) -> str:
    """Lower case without marks; in German also the transcribed umlauts (``kueche`` = ``Küche``).

    A word is read as transcribed only where a dictionary knows it with the umlaut and none of the tenant's languages
    knows it as written: ``shoes``, ``blue`` and ``neue`` stay what they are. Letters of a code do too, joined to their
    number or typed apart: ``AEH-000`` and ``AH-000`` are two articles. Without `codes` letters beside a number are
    read as any other (analyser version 1).
    """
    folded = plain(text)
    if "de" in languages and not codes:
        folded = TRANSCRIBED.sub(lambda found: restore_umlauts(found.group(0), languages), folded)
    elif "de" in languages:
        apart = {found.start() for found in CODE_APART.finditer(folded)}
        folded = WORD.sub(
            lambda word: word.group(0) if word.start() in apart else _restored(word.group(0), languages), folded
        )
    folded = folded.translate(UMLAUTS)
    return "".join(char for char in unicodedata.normalize("NFD", folded) if not unicodedata.combining(char))


def plain(text: str) -> str:
    """Lower case in one Unicode form with one kind of hyphen, marks and all."""
    return unicodedata.normalize("NFKC", DASHES.sub("-", text)).casefold()


def _restored(word: str, languages: tuple[str, ...]) -> str:
    longest_code = MAX_CODE_LETTERS if has_digit(word) else 0

    def run(found: re.Match[str]) -> str:
        letters = found.group(0)
        return letters if len(letters) <= longest_code else restore_umlauts(letters, languages)

    return TRANSCRIBED.sub(run, word)


def transcribes(letters: str) -> bool:
    """Whether letters could stand for an umlaut."""
    return DIGRAPH.search(letters) is not None


@lru_cache(maxsize=CACHE)
def restore_umlauts(word: str, languages: tuple[str, ...]) -> str:
    """The German word that was typed without umlauts, or the word as it is."""
    if is_known(word, languages):
        return word
    candidate = DIGRAPH.sub(lambda found: RESTORED[found.group(0)], word)
    return candidate if is_known(candidate, ("de",)) else word
