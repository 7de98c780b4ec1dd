"""Patience with one server: each kind of try counted for itself, bounded, and told in words that stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import parse_time
from searchops.planning.conditions import MAX_MESSAGE
from searchops.planning.rollout import plan_model
from searchops.planning.server_troubles import (
    HURRIED_SECONDS,
    LONGEST_RETRY_SECONDS,
    MAX_RELOADS,
    Patience,
    cause,
    hurried,
    steady,
    told,
    told_together,
)
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model_status import ServerTrouble
    from searchops.planning.server_troubles import TroubleReason

ONE = case.promoted().revision
REFUSED_BY_GRPC = (
    "[StatusCode.UNAVAILABLE] failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:8001: Failed to "
    "connect to remote host: connect: Connection refused (111)",
    "[StatusCode.UNAVAILABLE] connections to all backends failing; last error: UNAVAILABLE: ipv6:%5B::1%5D:8001: "
    "Failed to connect to remote host: Connection refused",
    "[StatusCode.UNAVAILABLE] failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:8001: connect: "
    'Connection refused (111) {created_time:"2026-11-24T12:00:03.141592+00:00"}',
)


def known(reason: TroubleReason, **update: object) -> ServerTrouble:
    return Patience(case.NOW).trouble("s1", ONE, reason, "seen").model_copy(update=update)


def seen_after(trouble: ServerTrouble, seconds: float = 1.0) -> Patience:
    return Patience(case.later(seconds=seconds), {("s1", ONE): trouble})


@given(st.integers(min_value=0, max_value=10**6), st.sampled_from(["NotLoaded", "WrongVectors"]))
def test_however_often_a_server_was_tried_the_next_wait_is_within_its_bound(count: int, reason: TroubleReason) -> None:
    before = known(reason, attempts=count, reloads=min(count, MAX_RELOADS - 2))
    after = seen_after(before).trouble("s1", ONE, reason, "seen", tried=True)
    assert after.retry_at is not None
    wait = (parse_time(after.retry_at) - case.later(seconds=1)).total_seconds()
    assert 5.0 <= wait <= LONGEST_RETRY_SECONDS


def test_loads_that_failed_leave_all_reloads_to_vectors_that_are_wrong() -> None:
    patience = seen_after(known("NotLoaded", attempts=9, retry_at=case.at(seconds=300)))
    assert patience.due("s1", ONE, "WrongVectors")
    assert not patience.due("s1", ONE, "NotLoaded")
    assert not patience.exhausted("s1", ONE)
    trouble = patience.trouble("s1", ONE, "WrongVectors", "cosine 0.1", tried=True)
    assert (trouble.attempts, trouble.reloads, trouble.since) == (0, 1, case.at(seconds=1))
    assert trouble.retry_at == case.at(seconds=6)


@pytest.mark.parametrize("between", ["Loading", "NotLoaded", "NoAnswer"])
def test_a_reload_that_passes_through_another_state_still_counts(between: TroubleReason) -> None:
    trouble, second = known("WrongVectors"), 0
    for _ in range(MAX_RELOADS):
        second += 400
        assert not seen_after(trouble, second).exhausted("s1", ONE)
        trouble = seen_after(trouble, second).trouble("s1", ONE, "WrongVectors", "cosine 0.1", tried=True)
        trouble = seen_after(trouble, second + 1).trouble("s1", ONE, between, "seen", tried=between == "NotLoaded")
    assert seen_after(trouble, second + 2).exhausted("s1", ONE)


def test_a_load_under_way_makes_no_failed_load_begin_anew() -> None:
    trouble = known("NotLoaded", attempts=4, retry_at=case.at(seconds=80))
    for second, reason in enumerate(("Loading", "NoAnswer", "Loading", "NotLoaded"), 1):
        trouble = seen_after(trouble, second).trouble("s1", ONE, reason, "seen")  # type: ignore[arg-type]
    assert (trouble.attempts, trouble.retry_at) == (4, case.at(seconds=80))
    assert not seen_after(trouble, 79).due("s1", ONE, "NotLoaded")
    assert seen_after(trouble, 80).due("s1", ONE, "NotLoaded")


@pytest.mark.parametrize("reason", ["NoAnswer", "Loading", "NotLoaded", "WrongVectors"])
def test_nobody_hurries_for_what_has_been_so_for_long(reason: TroubleReason) -> None:
    assert hurried([known(reason)], case.later(seconds=HURRIED_SECONDS - 1))
    assert not hurried([known(reason)], case.later(seconds=HURRIED_SECONDS))
    back = seen_after(known("NoAnswer"), 3600).trouble("s1", ONE, reason, "seen")
    assert hurried([back], case.later(seconds=3601)) == (reason != "NoAnswer"), "a server that is back is news"


def test_a_dead_server_is_looked_at_calmly_and_writes_no_status_by_other_words() -> None:
    model = case.make_model("b", case.gating())
    for number, words in enumerate((*REFUSED_BY_GRPC, *REFUSED_BY_GRPC)):
        dead = case.server("c1", reachable=False, error=words)
        facts = case.facts_of(model, canary=case.pool("canary", dead))
        now = case.later(seconds=number * 70)
        plan = plan_model(model, facts, now)
        assert plan.requeue_after == (3.0 if number == 0 else 30.0)
        if number:
            assert case.status_of(plan).to_wire() == model.status.to_wire()
        assert "c1 does not answer (refused)" in case.message(plan, "ServersInSync")
        assert "take it out of its pool's Secret" in case.message(plan, "ServersInSync")
        model = case.after(model, plan)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        *((text, "refused") for text in REFUSED_BY_GRPC),
        ("[StatusCode.DEADLINE_EXCEEDED] Deadline Exceeded", "timed out"),
        ("DNS resolution failed for triton-3:8001: C-ares status is not ARES_SUCCESS", "its name does not resolve"),
        ("Handshake read failed", "the TLS handshake failed"),
        (
            "Internal: RuntimeError: no room\n\nAt:\n  model.py(58): initialize\n",
            "Internal: RuntimeError: no room At: model.py(58): initialize",
        ),
        ("failed at 2026-11-24T12:00:03Z after 12.5 ms in 0x7f00ab", "failed at … after … in …"),
    ],
)
def test_a_cause_is_the_same_in_every_pass(said: str, words: str) -> None:
    assert cause(said) == words


def test_names_and_figures_of_ours_are_kept() -> None:
    said = f"http://10.0.0.7:8000 does not serve {ONE}-enc (out of memory: 512 MiB wanted), cosine 0.31000"
    assert steady(said) == said


def test_many_servers_that_say_much_are_all_named_with_what_to_do() -> None:
    long = "load failed: " + "w" * 300
    reasons: tuple[TroubleReason, ...] = ("NotLoaded", "Loading", "NotLoaded", "WrongVectors")
    troubles = [
        Patience(case.NOW).trouble(f"http://triton-{number}:8000", ONE, reason, long)
        for number, reason in enumerate(reasons)
    ]
    said = told_together(troubles)
    assert len(said) <= MAX_MESSAGE
    assert said == (
        "what each server said is in status.servers.failing; "
        f"Loading: http://triton-1:8000 ({ONE} since {case.at()}); where it stays so, restart this server; "
        f"NotLoaded: http://triton-0:8000 ({ONE} since {case.at()}), http://triton-2:8000 ({ONE} since {case.at()}); "
        "where it stays so, put right what it names, in the pool's repository or on this server; "
        f"WrongVectors: http://triton-3:8000 ({ONE} since {case.at()}); it counts for no promotion; where reloads do "
        "not mend it, restart or replace this server"
    )
    assert told_together(troubles[:1]) == told(troubles[0])
