"""The packed dictionaries answer as the library's own do, word for word, in little memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import simplemma
from hypothesis import example, given, settings
from hypothesis import strategies as st

from searchops_workers.retrieval import dictionaries

WORDS = ("küche", "kueche", "Schraube", "schrauben", "talvitakit", "naisten", "pumppu", "xyzzy", "a", "ß")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("language", ["de", "en"])
def test_answers_are_the_librarys_own(word: str, language: str) -> None:
    assert dictionaries.is_known(word, (language,)) == simplemma.is_known(word, lang=language)
    assert dictionaries.lemma(word, language) == simplemma.lemmatize(word, lang=language)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=20).filter(str.strip))
@example("ı")
def test_no_text_is_refused(word: str) -> None:
    assert dictionaries.is_known(word, ("de",)) == simplemma.is_known(word, lang="de")
    assert dictionaries.lemma(word, "de") == simplemma.lemmatize(word, lang="de")


def test_a_process_with_every_dictionary_stays_small() -> None:
    program = (
        "import psutil\n"
        "from searchops_workers.retrieval import dictionaries\n"
        "dictionaries.load()\n"
        "assert dictionaries.is_known('küche', ('de',)) and dictionaries.lemma('talvitakit', 'fi') == 'talvitakki'\n"
        "print(psutil.Process().memory_info().rss // 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 250  # MB; as mappings they take 580
