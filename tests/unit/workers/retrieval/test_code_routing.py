"""Queries that look like codes go lexical-only; words and measures do not."""

from __future__ import annotations

import pytest

from searchops.api.retrieval import CodeRouting
from searchops_workers.retrieval.routing import route

ALL = ("en", "de", "fi")


@pytest.mark.parametrize("text", ["TN-2110", "tn2110", "C4963A", "0882780756847", "HB-1234", "m12x50 a2-70"])
def test_a_code_goes_to_the_lexical_legs(text: str) -> None:
    routed = route(text, CodeRouting())
    assert routed.lexical_only
    assert "code" in routed.reason


@pytest.mark.parametrize("text", ["red shirt", "2hp pump", "1000 l water tank", "m12 ss nut", "whiite shrt", "2 hp"])
def test_words_and_measures_take_every_leg(text: str) -> None:
    assert not route(text, CodeRouting(), ("en",)).lexical_only


@pytest.mark.parametrize("text", ["wp 2706", "WP 2706", "hn  1234", "aez 000", "RAL 9010", "wp 2706 pump", "wp 27061"])
def test_an_article_number_typed_apart_is_a_code(text: str) -> None:
    routed = route(text, CodeRouting(), ALL)
    assert routed.lexical_only
    assert "code" in routed.reason


@pytest.mark.parametrize(
    "text",
    [
        "white 2000", "w 500", "hp 2000", "ps 1500", "pump 1500", "nut 933", "ss 304", "oel 500", "öl 500", "tuer 2000",
        "für 933", "oel 500 ml", "wp 200 w", "wp 12", 'wp 100"', "best wp 2706 for garden",
        "no 2000", "x 2000",
    ],
)  # fmt: skip
def test_letters_that_mean_something_before_a_number_are_no_code(text: str) -> None:
    assert not route(text, CodeRouting(), ALL).lexical_only


def test_a_code_typed_apart_is_as_long_as_its_letters_and_digits() -> None:
    assert route("wp 2706", CodeRouting(min_length=6), ALL).lexical_only
    assert not route("wp 2706", CodeRouting(min_length=7), ALL).lexical_only


def test_routing_can_be_switched_off() -> None:
    assert not route("TN-2110", CodeRouting(enabled=False)).lexical_only


def test_a_query_without_words_is_not_encoded() -> None:
    assert route(" - ?! ", CodeRouting()).lexical_only
