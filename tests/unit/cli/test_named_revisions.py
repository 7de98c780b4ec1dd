"""Words that approve and rollback take, and what they say of others."""

from __future__ import annotations

from typing import Any

import pytest

from searchops.cli.revisions import Verb, refusal

CANDIDATE, ACTIVE = "enc-r2-bbbbbbbb", "enc-r1-aaaaaaaa"


def model(*, candidate: str | None = CANDIDATE, active: str | None = ACTIVE) -> dict[str, Any]:
    named = {"candidate": candidate, "active": active}
    status = {kind: {"revision": revision} for kind, revision in named.items() if revision is not None}
    waves = [{"name": "canary"}, {"name": "all"}]
    return {"metadata": {"name": "enc"}, "spec": {"rollout": {"waves": waves}}, "status": status}


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        ("approve", CANDIDATE),
        ("approve", f"{CANDIDATE}/0"),
        ("approve", f"{CANDIDATE}/1"),
        ("rollback", CANDIDATE),
        ("rollback", ACTIVE),
    ],
)
def test_what_the_operator_heeds_is_taken(verb: Verb, word: str) -> None:
    assert refusal(verb, model(), word) == ""


@pytest.mark.parametrize(
    ("verb", "word", "said"),
    [
        ("approve", ACTIVE, "no such revision to approve"),
        ("approve", "enc-r3-cccccccc", f"its candidate is {CANDIDATE}, its active revision {ACTIVE}"),
        ("approve", f"{CANDIDATE}/2", f"wanted {CANDIDATE}, or {CANDIDATE}/0 to {CANDIDATE}/1"),
        ("approve", f"{CANDIDATE}/all", f"wanted {CANDIDATE}, or"),
        ("rollback", f"{ACTIVE}/1", f"wanted {ACTIVE}"),
        ("rollback", "", "wanted its candidate or its active revision; nothing was annotated"),
    ],
)
def test_any_other_word_is_named_with_what_there_is(verb: Verb, word: str, said: str) -> None:
    found = refusal(verb, model(), word)
    assert said in found
    assert repr(word) in found


@pytest.mark.parametrize("verb", ["approve", "rollback"])
def test_a_model_without_revisions_takes_no_word(verb: Verb) -> None:
    found = refusal(verb, {"metadata": {"name": "enc"}}, "")
    assert "its candidate is none, its active revision none" in found
