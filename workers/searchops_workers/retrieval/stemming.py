"""Words to stems: Snowball per language, and lemmas where a language inflects too richly for it."""

from __future__ import annotations

from functools import lru_cache

import snowballstemmer

from searchops_workers.retrieval.dictionaries import lemma as lemma_of
from searchops_workers.retrieval.folding import fold

SNOWBALL = {
    "en": "english",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "nl": "dutch",
    "sv": "swedish",
    "fi": "finnish",
}
LEMMATISED = frozenset({"fi"})
_STOP_WORDS = """
en: a an and are as at be by for from in is it of on or that the this to with
de: der die das den dem des ein eine einen einem einer und oder mit fur von zu im in am an auf aus bei ist
fi: ja tai on se ne kanssa
fr: le la les un une des du de et ou a au aux en dans pour avec sur
es: el la los las un una unos unas de del y o a en para con por
it: il lo la i gli le un una uno di del della e o a in per con da
nl: de het een en of van voor met in op te aan
sv: en ett och eller med for av pa i till den det
"""
STOP_WORDS = {line[:2]: frozenset(line[3:].split()) for line in _STOP_WORDS.strip().splitlines()}
"""Few on purpose, folded: a word that may be an attribute (``no``, ``without``) is none of them."""
CACHE = 65_536


class Stemmer:
    """Stems of the languages of one tenant; a word gets one stem, by the first language that knows it.

    Args:
        languages: of the tenant.
        refold: lemmas are folded by all of its languages, also a lemma that is the word itself (analyser version 1).
    """

    def __init__(self, languages: tuple[str, ...], *, refold: bool = False) -> None:
        self._languages = languages
        self._refold = refold
        self._snowball = {name: snowballstemmer.stemmer(SNOWBALL[name]) for name in languages if name in SNOWBALL}
        self.stop_words = frozenset().union(*(STOP_WORDS.get(name, frozenset()) for name in languages))
        self.stem = lru_cache(maxsize=CACHE)(self._stem)

    def _stem(self, word: str, original: str) -> tuple[str, ...]:
        """Every language's stem: a mixed catalogue has no language per word, and a wrong stem only adds a token."""
        stems = []
        for language in self._languages:
            if language in LEMMATISED:
                lemma = lemma_of(original.lower(), language)
                if self._refold:
                    stems.append(fold(lemma, self._languages, codes=False))
                else:
                    stems.append(word if lemma == original.lower() else fold(lemma, (language,)))
            elif language in self._snowball:
                stems.append(str(self._snowball[language].stemWord(word)))
        return tuple(dict.fromkeys(stems)) or (word,)
