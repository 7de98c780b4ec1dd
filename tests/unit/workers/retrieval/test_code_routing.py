"""Queries that look like codes go lexical-only; words and measures do not."""

from __future__ import annotations

import pytest

from searchops.api.retrieval import CodeRouting
from searchops_workers.retrieval.routing import route


@pytest.mark.parametrize("text", ["TN-2110", "tn2110", "C4963A", "0882780756847", "HB-1234", "m12x50 a2-70"])
def test_a_code_goes_to_the_lexical_legs(text: str) -> None:
    routed = route(text, CodeRouting())
    assert routed.lexical_only
    assert "code" in routed.reason


@pytest.mark.parametrize("text", ["red shirt", "2hp pump", "1000 l water tank", "m12 ss nut", "whiite shrt", "2 hp"])
def test_words_and_measures_take_every_leg(text: str) -> None:
    assert not route(text, CodeRouting(), ("en",)).lexical_only


def test_routing_can_be_switched_off() -> None:
    assert not route("TN-2110", CodeRouting(enabled=False)).lexical_only


def test_a_query_without_words_is_not_encoded() -> None:
    assert route(" - ?! ", CodeRouting()).lexical_only
