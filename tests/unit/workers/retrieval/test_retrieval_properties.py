"""Properties of the analyser that both sides of the index rest on: the same text, however typed, meets itself."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from searchops.api.retrieval import AnalyserSettings, Binding, RetrievalProfile
from searchops_workers.retrieval.analyser import analyser_of
from searchops_workers.retrieval.codes import means_something
from searchops_workers.retrieval.folding import fold
from searchops_workers.retrieval.offline import EdgeIndex
from searchops_workers.retrieval.routing import route
from searchops_workers.retrieval.search import Searcher
from searchops_workers.retrieval.sparse import LexicalEncoder
from searchops_workers.retrieval.specifications import ABBREVIATIONS, normalise_numbers

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = ("en", "de", "fi")
SETTINGS = AnalyserSettings(languages=LANGUAGES)
ANALYSER = analyser_of(SETTINGS)
LEXICAL = LexicalEncoder(SETTINGS)

SHOP_WORDS = (
    'M12x50 M 12 x 50 2 HP 2hp TN-2110 A2-70 3,5 mm 1 000 litres 1/2" Küche kueche Straße naisten talvitakki white '
    "shirts no sleeve 70x140 cm Cat.5e T-Shirt 230V 1500 Watt ß Ø20 10,5 l/h ss nut DIN 933 ‑ – / . , x × 0882780756847"
)
shop_words = st.sampled_from(SHOP_WORDS.split())
shop_texts = st.lists(shop_words, max_size=12).map(" ".join)
codes = st.from_regex(r"[A-Z]{2,4}-[0-9]{3,6}", fullmatch=True)


def tokens(text: str, *, query: bool = False) -> list[str]:
    return [token.text for token in ANALYSER.analyse(text, query=query)]


@settings(deadline=None)  # the first text loads the dictionaries
@given(shop_texts)
def test_folding_twice_changes_nothing_more(text: str) -> None:
    once = fold(text, LANGUAGES)
    assert fold(once, LANGUAGES) == once


@settings(deadline=None)  # the first text loads the dictionaries
@given(shop_texts)
def test_numbers_and_units_have_one_spelling(text: str) -> None:
    once = normalise_numbers(fold(text, LANGUAGES))
    assert normalise_numbers(once) == once


@settings(deadline=None)  # the first text loads the dictionaries
@given(shop_texts)
def test_every_word_is_its_own_word(text: str) -> None:
    for word in ANALYSER.words(text):
        assert ANALYSER.words(word) == (word,)
        assert tokens(word) == tokens(ANALYSER.words(word)[0])


@settings(deadline=None)  # the first text loads the dictionaries
@given(shop_texts)
def test_case_and_surrounding_space_never_matter(text: str) -> None:
    assert tokens(f"  {text.upper()} ") == tokens(text.upper().lower())


@settings(deadline=None)  # the first text loads the dictionaries
@given(st.one_of(shop_texts, st.text(max_size=80)))
def test_a_query_meets_a_document_of_the_same_text_in_every_term(text: str) -> None:
    assert set(tokens(text)) <= set(tokens(text, query=True))
    document, query = LEXICAL.document(text), LEXICAL.query(text)
    assert set(document[0].indices) <= set(query[0].indices)
    if not set(ANALYSER.words(text)) & set(ABBREVIATIONS):
        assert document[0].indices == query[0].indices
        assert document[1].indices == query[1].indices


@settings(deadline=None)  # the first text loads the dictionaries
@example("AEH-000")
@given(codes)
def test_a_code_is_found_with_and_without_its_hyphen_from_either_side(code: str) -> None:
    joined, spaced = code.replace("-", ""), code.replace("-", " ")
    for query in (code, joined, code.lower(), joined.lower(), code.replace("-", "‑")):
        for document in (code, joined):
            assert joined.lower() in set(tokens(query, query=True)) & set(tokens(document))
    assert set(tokens(spaced)) <= set(tokens(code))


@settings(deadline=None)  # the first text loads the dictionaries
@example("WP-2706")
@example("AEZ-000")
@given(codes)
def test_a_code_typed_apart_is_the_same_code_unless_its_letters_mean_something(code: str) -> None:
    letters, joined = code.lower().partition("-")[0], code.replace("-", "").lower()
    for apart in (code.replace("-", " "), code.replace("-", "  ").lower()):
        is_code = not means_something(letters, LANGUAGES)
        assert (joined in tokens(apart)) is is_code
        assert (joined in tokens(apart, query=True)) is is_code
        assert route(apart, RetrievalProfile(name="x").code_routing, LANGUAGES).lexical_only >= is_code


@settings(deadline=None)  # the first text loads the dictionaries
@given(st.sampled_from(("AEH", "OE", "UEZ", "TUER")), st.from_regex(r"[0-9]{3,6}", fullmatch=True))
def test_codes_that_differ_by_a_letter_share_none_of_their_letters(letters: str, number: str) -> None:
    other = letters.replace("AE", "A").replace("OE", "O").replace("UE", "U")
    for joint in ("-", "", " ", "/", "."):
        one, two = tokens(f"{letters}{joint}{number}"), tokens(f"{other}{joint}{number}")
        assert set(one) & set(two) <= {number}, joint


@settings(deadline=None)  # the first text loads the dictionaries
@given(codes)
def test_every_spelling_of_a_code_takes_the_lexical_legs(code: str) -> None:
    routing = RetrievalProfile(name="x").code_routing
    for spelling in (code, code.replace("-", ""), code.lower(), code.replace("-", "–")):
        assert route(spelling, routing, LANGUAGES).lexical_only, spelling


@settings(deadline=None)  # the first text loads the dictionaries
@given(st.integers(1, 64), st.integers(4, 300))
def test_every_spelling_of_a_thread_is_one(diameter: int, length: int) -> None:
    wanted = tokens(f"m{diameter}x{length}")
    assert {f"m{diameter}x{length}", f"m{diameter}", str(length)} == set(wanted)
    for spelling in (
        f"M {diameter}x{length}",
        f"M{diameter}X{length}",
        f"M{diameter} x {length}",
        f"M {diameter} × {length}",
        f"m{diameter}×{length}",
    ):
        assert tokens(spelling) == wanted, spelling


async def test_the_order_of_indexing_never_changes_an_answer(tmp_path: Path) -> None:
    """Twenty products that score the same: whatever order the engine keeps them in, the answer is the same."""
    binding = Binding(encoder="e", vector="d-e", dimension=2, analyser=SETTINGS, profile=RetrievalProfile(name="plain"))
    products = [{"id": f"p{number:02d}", "title": "Hex nut stainless"} for number in range(20)]
    dense = {product["id"]: [1.0, 0.0] for product in products}
    answers = []
    for turn in range(4):
        shuffled = list(products)
        random.Random(turn).shuffle(shuffled)
        index = EdgeIndex(tmp_path / f"shard-{turn}", binding)
        try:
            index.add(shuffled, dense)
            found = await Searcher(index).search_vector("hex nut", binding, [1.0, 0.0], limit=7)
        finally:
            index.close()
        answers.append([(hit.product_id, hit.score) for hit in found.hits])
    assert [name for name, _ in answers[0]] == [f"p{number:02d}" for number in range(7)]
    assert all(answer == answers[0] for answer in answers)
