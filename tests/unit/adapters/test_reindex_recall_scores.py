"""Counting hits of one query: ties are no loss, misses are, and nothing counts twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.qdrant_recall import TOP, compared

scores = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 3))
)


@given(scores)
def test_the_same_answer_is_all_of_it(true: dict[str, float]) -> None:
    wanted, found = compared(true, true)
    assert wanted == found == min(TOP, len(true))


@given(scores, scores)
def test_no_more_is_found_than_is_wanted(near: dict[str, float], true: dict[str, float]) -> None:
    wanted, found = compared(near, true)
    assert 0 <= found <= wanted <= TOP


def test_another_document_of_the_same_score_is_as_good_and_a_lower_one_is_not() -> None:
    true = {str(number): 0.9 for number in range(TOP)}
    assert compared({f"twin-{number}": 0.9 for number in range(TOP)}, true) == (TOP, TOP)
    assert compared({**dict(list(true.items())[:7]), "far": 0.8}, true) == (TOP, 7)
    assert compared({}, true) == (TOP, 0)
