"""Unicode folding: one spelling for what shoppers write in several ways."""

from __future__ import annotations

import re
import unicodedata

UMLAUTS = str.maketrans(
    {"ä": "a", "ö": "o", "ü": "u", "å": "a", "ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
TRANSCRIBED = re.compile(r"(?<=[bcdfghjklmnprstvwz])(ae|oe|ue)(?=[bcdfghklmnprstz])")
TRANSCRIBING = frozenset({"de", "sv", "fi"})
DASHES = re.compile(r"[‐‑‒–—−]")


def fold(text: str, languages: tuple[str, ...]) -> str:
    """Lower case without marks; in German also the transcribed umlauts (``kueche`` = ``Küche``).

    The transcription is folded on both sides alike, so a word that really has *ue* (``blue``) still equals itself.
    """
    folded = unicodedata.normalize("NFKC", DASHES.sub("-", text)).casefold().translate(UMLAUTS)
    folded = "".join(char for char in unicodedata.normalize("NFD", folded) if not unicodedata.combining(char))
    if "de" in languages:
        folded = TRANSCRIBED.sub(lambda found: found.group(0)[0], folded)
    return folded
