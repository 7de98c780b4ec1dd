"""The gate's CPU time: 1,000 queries, 10,000 bootstrap resamples, every gate evaluated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from scale.figures import Bench, Target
from searchops_workers.holdout.bootstrap import RESAMPLES
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.inputs import Anchor
from searchops_workers.holdout.verdicts import Outcome, State
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.scale

QUERIES = 1_000
REPEATS = 5


def test_deciding_on_a_thousand_queries(tmp_path: Path) -> None:
    unjudged = {f"p{number}-{place}" for number in range(0, QUERIES, 10) for place in (7, 8)}
    world = make_world(tmp_path / "core", QUERIES, unjudged=unjudged)
    lost = {f"q{number}" for number in range(101, QUERIES, 101) if number % 5}  # of every class but codes
    anchors = tuple(Anchor(one.id, 1.0) for one in world.holdout.queries)
    question = world.ask(world.losing(lost), resamples=RESAMPLES, anchored=anchors, repeat=world.perfect)
    seconds, verdicts = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        verdicts.append(decide(question))
        seconds.append(time.process_time() - start)
    Bench("gate").record(
        f"gate: one verdict on {QUERIES} queries × {RESAMPLES} resamples",
        seconds,
        "CPU s",
        Target("<=", 5),
        without="reading the holdout and the runs, retrieval, encoding",
    )
    first = verdicts[0]
    assert {gate.gate: gate.state for gate in first.gates}["A/A"] is State.PASS
    assert all(gate.state is not State.NOT_TESTED for gate in first.gates if gate.gate in ("A", "A'", "B", "D", "A/A"))
    assert (first.outcome, first.lost, first.of) == (Outcome.PASS, len(lost), QUERIES)
    assert all(verdict == first for verdict in verdicts)
    assert decide(world.ask(world.losing({f"q{number}" for number in range(200)}))).outcome is Outcome.REGRESSED
