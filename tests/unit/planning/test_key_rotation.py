"""Rotation of a cell's key as a table: every state, every fault, and what may be done next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import format_time
from searchops.planning.key_rotation import RotationFacts, RotationPhase, RotationPlan, RotationRecord, plan_rotation
from searchops.planning.tenant_access import key_id

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LIFE = timedelta(days=30)
OLD, NEW, OTHER = (key_id(name * 40) for name in "onx")
NODES = ("https://a:6333", "https://b:6333", "https://c:6333")
ALL = dict.fromkeys(NODES, True)
IDLE = RotationRecord(signing=OLD)
STARTED = RotationRecord(signing=NEW, previous=OLD)
SWAPPED = RotationRecord(signing=NEW, previous=OLD, since=format_time(NOW))
TAKEN_BACK = RotationRecord(signing=OLD, previous=NEW, since=format_time(NOW), taken_back=True)
Phase = RotationPhase


def facts(**changes: object) -> RotationFacts:
    base = RotationFacts("eu-1", OLD, None, True, IDLE, {}, {OLD: 6}, 0)
    return replace(base, **changes)  # type: ignore[arg-type]


def plan(given: RotationFacts, *, at: datetime = NOW) -> RotationPlan:
    return plan_rotation(given, at, LIFE)


BEGUN = facts(alternative=NEW, nodes=ALL)
UNDER_WAY = facts(alternative=NEW, nodes=ALL, record=STARTED)
AFTER = facts(primary=NEW, alternative=OLD, nodes=ALL, record=STARTED, tokens={NEW: 6})

TABLE: dict[str, tuple[RotationFacts, Phase, str | None, RotationRecord | None]] = {
    "one key": (facts(), Phase.IDLE, OLD, IDLE),
    "one key, nothing kept yet": (facts(record=None), Phase.IDLE, OLD, IDLE),
    "a new key, no node has it": (replace(BEGUN, nodes=dict.fromkeys(NODES, False)), Phase.SPREADING, OLD, IDLE),
    "a new key, one node has not": (replace(BEGUN, nodes={**ALL, NODES[1]: False}), Phase.SPREADING, OLD, IDLE),
    "a new key, one node is silent": (replace(BEGUN, nodes={**ALL, NODES[1]: None}), Phase.SPREADING, OLD, IDLE),
    "a new key, the cell has no node": (replace(BEGUN, nodes={}), Phase.SPREADING, OLD, IDLE),
    "a new key that is short": (replace(BEGUN, alternative_strong=False), Phase.REFUSED, OLD, IDLE),
    "a new key that every node has": (BEGUN, Phase.RESIGNING, NEW, STARTED),
    "some are signed anew": (replace(UNDER_WAY, tokens={OLD: 2, NEW: 4}), Phase.RESIGNING, NEW, STARTED),
    "one tenant was not read": (replace(UNDER_WAY, tokens={NEW: 6}, unseen=1), Phase.RESIGNING, NEW, STARTED),
    "a node is silent meanwhile": (
        replace(UNDER_WAY, nodes={**ALL, NODES[0]: None}, tokens={OLD: 2, NEW: 4}),
        Phase.RESIGNING,
        NEW,
        STARTED,
    ),
    "a node refuses the new key again": (
        replace(UNDER_WAY, nodes={**ALL, NODES[0]: False}, tokens={OLD: 2, NEW: 4}),
        Phase.SPREADING,
        OLD,
        IDLE,
    ),
    "all are signed anew": (replace(UNDER_WAY, tokens={NEW: 6}), Phase.READY_TO_SWAP, NEW, STARTED),
    "swapped": (AFTER, Phase.DRAINING, NEW, SWAPPED),
    "swapped, the alternative left out": (replace(AFTER, alternative=None, nodes={}), Phase.DRAINING, NEW, SWAPPED),
    "swapped before all were signed": (replace(AFTER, tokens={OLD: 1, NEW: 5}), Phase.RESIGNING, NEW, SWAPPED),
    "given up: the new key is taken out": (
        replace(UNDER_WAY, alternative=None, nodes={}, tokens={NEW: 6}),
        Phase.RESIGNING,
        OLD,
        TAKEN_BACK,
    ),
    "the key was replaced at a blow": (
        facts(primary=NEW, tokens={OLD: 6}),
        Phase.RESIGNING,
        NEW,
        RotationRecord(signing=NEW, previous=OLD, since=format_time(NOW)),
    ),
    "record lost, all of the old key: before or after?": (replace(BEGUN, record=None), Phase.UNDECIDED, None, None),
    "record lost, both keys in use": (
        replace(UNDER_WAY, record=None, tokens={OLD: 2, NEW: 4}),
        Phase.UNDECIDED,
        None,
        None,
    ),
    "record lost, not all were read": (
        replace(UNDER_WAY, record=None, tokens={NEW: 4}, unseen=2),
        Phase.UNDECIDED,
        None,
        None,
    ),
    "record lost, all of the alternative": (
        replace(UNDER_WAY, record=None, tokens={NEW: 6}),
        Phase.READY_TO_SWAP,
        NEW,
        STARTED,
    ),
    "a new cell with two keys": (
        replace(BEGUN, record=None, tokens={}),
        Phase.READY_TO_SWAP,
        NEW,
        STARTED,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_state_and_fault(name: str) -> None:
    given_facts, phase, signing, record = TABLE[name]
    found = plan(given_facts)
    assert (found.phase, found.signing, found.record) == (phase, signing, record)
    assert found.message


def test_the_old_key_is_needed_for_one_lifetime_after_the_swap() -> None:
    swapped = replace(AFTER, record=SWAPPED)
    assert plan(swapped, at=NOW + LIFE - timedelta(seconds=1)).phase is Phase.DRAINING
    done = plan(swapped, at=NOW + LIFE)
    assert (done.phase, done.signing, done.record) == (Phase.READY_TO_DROP, NEW, SWAPPED)
    dropped = plan(replace(swapped, alternative=None, nodes={}), at=NOW + LIFE)
    assert (dropped.phase, dropped.record) == (Phase.IDLE, RotationRecord(signing=NEW))


def test_the_old_key_is_never_taken_for_a_new_one_after_the_swap() -> None:
    found = plan(replace(AFTER, record=SWAPPED), at=NOW + LIFE * 3)
    assert found.signing == NEW


def test_progress_is_counted_in_tokens() -> None:
    found = plan(replace(UNDER_WAY, tokens={OLD: 2, NEW: 4}))
    assert (found.resigned, found.total) == (4, 6)
    assert found.message.startswith("4 of 6 tokens are of the new key")


def test_who_is_waited_for_is_named_a_few_and_the_rest_counted() -> None:
    holders = {OLD: tuple(f"shop/t{number}" for number in range(6)), NEW: ("shop/done",)}
    waiting = replace(UNDER_WAY, tokens={OLD: 6, NEW: 1}, holders=holders, unread=("shop/new",), unseen=1)
    said = plan(waiting).message
    assert said == (
        "1 of 7 tokens are of the new key, 1 tenants' Secrets not read yet; waiting for shop/new, shop/t0, shop/t1, "
        "shop/t2, shop/t3 and 2 more; change no key meanwhile"
    )


def test_a_key_that_is_taken_back_halfway_is_said_to_be_until_none_of_its_tokens_is_valid() -> None:
    left = facts(record=STARTED, tokens={OLD: 2, NEW: 4}, holders={NEW: ("shop/one", "shop/two")})
    first = plan(left)
    assert (first.phase, first.signing, first.record, first.resigned, first.total) == (
        Phase.RESIGNING,
        OLD,
        TAKEN_BACK,
        2,
        6,
    )
    assert first.message == (
        "altApiKey was taken out of the Secret before the swap, so the new key is given up; 2 of 6 tokens are of "
        "apiKey; waiting for shop/one, shop/two; the servers must go on accepting the key that was given up as "
        "alt_api_key"
    )
    resigned = replace(left, record=TAKEN_BACK, tokens={OLD: 6}, holders={})
    draining = plan(resigned, at=NOW + LIFE - timedelta(seconds=1))
    assert (draining.phase, draining.record) == (Phase.DRAINING, TAKEN_BACK)
    assert "the new key is given up; tokens that the key that was given up signed end by" in draining.message
    over = plan(resigned, at=NOW + LIFE)
    assert (over.phase, over.record) == (Phase.IDLE, IDLE)
    assert (
        over.message == "no token of the key that was given up is valid any more; remove alt_api_key from the servers"
    )


def test_a_key_that_is_given_up_is_tried_again_as_a_new_one_only_after_every_node_takes_it() -> None:
    again = facts(alternative=NEW, record=TAKEN_BACK, nodes={**ALL, NODES[0]: False}, tokens={OLD: 6})
    assert plan(again).signing == OLD
    other = facts(alternative=OTHER, record=TAKEN_BACK, nodes=ALL, tokens={OLD: 6})
    assert plan(other).signing == OTHER


def test_a_node_that_refuses_takes_back_what_was_signed_and_says_how_many_tokens_are_left() -> None:
    refusing = replace(UNDER_WAY, nodes={**ALL, NODES[0]: False}, tokens={OLD: 2, NEW: 4}, holders={NEW: ("shop/one",)})
    left = "; 4 tokens of the new key are out and are being signed with apiKey again; waiting for shop/one"
    back = plan(refusing)
    assert back.message.endswith(left)
    following = plan(replace(refusing, record=back.record))
    assert (following.phase, following.signing) == (Phase.SPREADING, OLD)
    assert following.message.endswith(f"tokens go on being signed with apiKey{left}")
    clean = plan(replace(refusing, record=back.record, tokens={OLD: 6}, holders={OLD: ("shop/one",)}))
    assert clean.message.endswith("tokens go on being signed with apiKey")


KEYS = st.sampled_from([OLD, NEW, OTHER])


@given(
    primary=KEYS,
    alternative=st.none() | KEYS,
    record=st.none()
    | st.builds(RotationRecord, signing=KEYS, previous=st.none() | KEYS, since=st.none() | st.just("x")),
    answers=st.lists(st.sampled_from([True, False, None]), max_size=3),
    tokens=st.dictionaries(KEYS, st.integers(0, 5)),
    unseen=st.integers(0, 2),
    strong=st.booleans(),
)
def test_nothing_is_signed_with_a_key_that_a_node_was_not_seen_to_take(
    primary: str,
    alternative: str | None,
    record: RotationRecord | None,
    answers: list[bool | None],
    tokens: dict[str, int],
    unseen: int,
    strong: bool,
) -> None:
    alternative = None if alternative == primary else alternative
    nodes = dict(zip(NODES, answers, strict=False)) if alternative else {}
    given_facts = RotationFacts("eu-1", primary, alternative, strong, record, nodes, tokens, unseen)
    found = plan(given_facts)
    assert found.signing in (primary, alternative, None)
    if found.signing is None:
        assert record is None
    if found.signing == alternative and alternative is not None:
        assert False not in nodes.values()
        already = record is not None and record.signing == alternative
        guessed = record is None and not unseen and {key for key, n in tokens.items() if n} == {alternative}
        assert already or guessed or (strong and nodes and all(nodes.values()))
    if found.record is not None:
        assert found.record.signing == found.signing
        following = plan(replace(given_facts, record=found.record))
        assert following.signing == found.signing, "a plan that is looked at twice must not swing"
