"""TREC run files: what is read is what was written, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops_workers.holdout.runs import Legs, Ranking, Run, RunFileError, format_run, parse_run

IDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=8).filter(
    lambda text: text != "-" and not any(mark.isspace() for mark in text)
)
RANKINGS = st.builds(
    Ranking, st.lists(IDS, max_size=12, unique=True).map(tuple), st.sampled_from([Legs.LEXICAL, Legs.HYBRID, None])
)


@settings(deadline=None)
@given(st.dictionaries(IDS, RANKINGS, max_size=5))
def test_a_run_comes_back_as_it_was(rankings: dict[str, Ranking]) -> None:
    run = Run("one", rankings)
    again = parse_run(format_run(run).split("\n"), name="other")
    assert {query: (ranking.products, ranking.legs) for query, ranking in again.rankings.items()} == {
        query: (ranking.products, ranking.legs) for query, ranking in rankings.items()
    }
    assert again.digest == run.digest


def test_equal_scores_stay_in_the_order_of_the_ranks() -> None:
    run = parse_run(["q Q0 z 2 1.0 t", "q Q0 b 1 1.0 t", "q Q0 a 3 1.0 t"], name="run")
    assert run.rankings["q"].products == ("b", "z", "a")


def test_an_empty_answer_is_said_and_a_missing_one_is_missing() -> None:
    run = parse_run(["q1 Q0 - 0 0 lexical", ""], name="run")
    assert run.rankings["q1"] == Ranking((), Legs.LEXICAL)
    assert "q2" not in run.rankings


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["q Q0 a 1 1.0"], "run:1: seen 5 fields"),
        (["q Q0 a one 1.0 t"], "run:1: seen rank 'one'"),
        (["q Q0 a -1 1.0 t"], "run:1: seen rank '-1'"),
        (["q Q0 a 1 high t"], "run:1: seen score 'high'"),
        (["q Q0 a 1 nan t"], "look for broken vectors"),
        (["q Q0 a 1 2 t", "q Q0 a 2 1 t"], "run:2: query 'q': seen product 'a' twice"),
        (["q Q0 a 1 2 t", "q Q0 b 1 1 t"], "run:2: query 'q': seen rank 1 also on line 1"),
        (["q Q0 a 1 1 t", "q Q0 b 2 2 t"], "wanted scores that do not rise"),
        (["q Q0 - 0 0 t", "q Q0 a 1 1 t"], "run:2: seen a result for query 'q'"),
        (["q Q0 a 1 2 lexical", "q Q0 b 2 1 hybrid"], "seen tags ['hybrid', 'lexical']"),
    ],
)
def test_what_cannot_be_read_without_guessing_is_refused(lines: list[str], said: str) -> None:
    with pytest.raises(RunFileError) as caught:
        parse_run(lines, name="run")
    assert said in str(caught.value)


def test_scores_that_rise_in_their_last_bit_are_written_so_that_the_run_can_be_read_again() -> None:
    scores = (0.25, 0.25 + 2**-54, 0.125)
    assert scores[1] > scores[0]
    run = Run("r", {"q": Ranking(("b", "a", "c"), Legs.HYBRID, scores)})
    read = parse_run(format_run(run).splitlines(), name="r")
    assert read.rankings["q"] == Ranking(("b", "a", "c"), Legs.HYBRID, (0.25, 0.25, 0.125))
    assert read.digest == run.digest
