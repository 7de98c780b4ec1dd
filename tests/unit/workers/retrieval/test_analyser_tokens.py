"""The analyser: what must be the same word, and what must stay apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import AnalyserSettings
from searchops_workers.retrieval.analyser import MAX_TOKEN, Analyser, analyser_of
from searchops_workers.retrieval.commands import analyse

EN = analyser_of(AnalyserSettings(languages=("en",)))
ALL = analyser_of(AnalyserSettings(languages=("en", "de", "fi")))


def tokens(text: str, analyser: Analyser = ALL, *, query: bool = False) -> list[str]:
    return [token.text for token in analyser.analyse(text, query=query)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 HP", "2hp"),
        ("2 PS", "2hp"),
        ("M 12", "m12"),
        ("M 12 x 50", "M12x50"),
        ("M12×50", "m12x50"),
        ("3,5 mm", "3.5mm"),
        ("1000 litres", "1000 l"),
        ("1 000 l", "1000l"),
        ("1500 Watt", "1500w"),
        ('1/2"', "1/2 Zoll"),
        ("Küche", "kueche"),
        ("KÜCHE", "küche"),
        ("Straße", "strasse"),
        ("ＴＮ－２１１０", "TN-2110"),
        ("TN‑2110", "tn-2110"),
    ],
)
def test_two_spellings_of_one_thing_give_the_same_tokens(one: str, other: str) -> None:
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("TN-2110", {"tn2110", "tn", "2110"}),
        ("M12x50", {"m12x50", "m12", "50"}),
        ("A2-70", {"a2-70", "a2", "70"}),
        ("70x140 cm", {"70x140", "70", "140"}),
        ("Cat.5e", {"cat5e"}),
        ("T-Shirt", {"tshirt", "shirt"}),
    ],
)
def test_a_joined_thing_is_found_by_its_parts_and_as_a_whole(text: str, wanted: set[str]) -> None:
    assert wanted <= set(tokens(text))


@pytest.mark.parametrize(
    ("form", "word"),
    [
        ("shoes", "shoe"),
        ("shirts", "shirt"),
        ("kengät", "kenkä"),
        ("talvitakit", "talvitakki"),
        ("Schrauben", "Schraube"),
    ],
)
def test_inflected_forms_share_a_token(form: str, word: str) -> None:
    assert set(tokens(form)) & set(tokens(word))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Saege 500 W", "Säge 500 W"),
        ("Kuechenwaage 2000", "Küchenwaage 2000"),
        ("Oel 500 ml", "Öl 500 ml"),
        ("Tuer 200x80", "Tür 200x80"),
        ("Saege-500", "Säge-500"),
    ],
)
def test_a_german_word_beside_a_number_is_still_a_word(one: str, other: str) -> None:
    assert tokens(one) == tokens(other)


def test_a_short_word_before_a_bare_number_is_asked_for_as_word_and_as_code() -> None:
    asked = set(tokens("tuer 2000", query=True))
    assert set(tokens("Tür 2000")) <= asked
    assert {"tuer", "2000"} <= asked & set(tokens("TUER-2000"))


def test_a_code_typed_apart_finds_the_joined_one_and_the_other_way_round() -> None:
    assert "wp2706" in tokens("wp 2706") and "wp2706" in tokens("WP-2706")
    for measured in ("pump 1500", "wp 200 w", "wp 200 x 80", "wp 100 mm", "wp 2706-10", "wp 12"):
        assert not any(token.startswith(("wp1", "wp2", "pump1")) for token in tokens(measured)), measured


def test_an_english_word_with_a_digraph_is_no_transcribed_umlaut() -> None:
    assert "shoe" in tokens("shoes")
    assert "blue" in tokens("blue")
    assert "blu" not in tokens("blue", EN)


def test_half_an_inch_is_not_twelve_inches() -> None:
    assert not set(tokens("1/2 zoll")) & set(tokens("12 zoll"))


def test_a_stop_word_is_dropped_from_words_and_kept_beside_a_code() -> None:
    assert "for" not in tokens("hose for pump", EN)
    assert "in" in tokens("IN 2110A", EN)


def test_words_that_negate_are_never_stop_words() -> None:
    assert {"no", "without"} <= set(tokens("dress no sleeve without hood", EN))


def test_the_trades_abbreviation_is_expanded_in_queries_only() -> None:
    assert {"stainless", "steel", "ss"} <= set(tokens("m12 ss nut", EN, query=True))
    assert "stainless" not in tokens("m12 ss nut", EN)


def test_the_command_prints_the_tokens_of_a_query() -> None:
    printed = json.loads(analyse("M 12x50 A2-70", "en"))
    assert {"m12x50", "m12", "50", "a2-70"} <= {token["token"] for token in printed["tokens"]}
    assert all(token["specification"] for token in printed["tokens"])


@given(st.text(max_size=120))
def test_any_text_is_analysed_and_bounded(text: str) -> None:
    found = tokens(text)
    assert all(0 < len(token) <= MAX_TOKEN + 8 for token in found)
    assert found == tokens(text)


@given(st.from_regex(r"[A-Z]{2,3}-[0-9]{3,5}", fullmatch=True))
def test_every_code_is_found_without_its_hyphen_and_with_a_lower_case(code: str) -> None:
    assert set(tokens(code.replace("-", "").lower())) <= set(tokens(code))
