"""The isolation canary: whose turn it is, what the answers prove, and that its cost is bounded and even."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import Trial
from searchops.planning.isolation_canary import Answers, Resident, Visit, judge, of_all, round_of, visits_due

PERIOD = 3600.0
OPENED, REFUSED, UNKNOWN = Trial.OPENED, Trial.REFUSED, Trial.UNKNOWN


def resident(number: int, cell: str = "eu-1") -> Resident:
    name = f"t{number}"
    return Resident("shop", name, f"uid-{number}", cell, f"prod.shop.{name}", (f"{name}-storefront",))


VISIT = Visit(resident(1), resident(2))


@pytest.mark.parametrize(("own", "cell", "gateway"), list(product(Trial, [*Trial, None], [*Trial, None])))
def test_only_what_was_opened_is_a_breach_and_only_refusals_of_a_living_token_are_proof(
    own: Trial, cell: Trial | None, gateway: Trial | None
) -> None:
    found = judge(VISIT, Answers(own, cell, gateway))
    assert bool(found.broken) == (OPENED in (cell, gateway))
    tried = [trial for trial in (cell, gateway) if trial is not None]
    assert found.held == (own is OPENED and tried != [] and set(tried) == {REFUSED})


@pytest.mark.parametrize("trials", [list(found) for size in range(4) for found in product(Trial, repeat=size)])
def test_several_names_are_one_answer_that_is_never_better_than_its_worst(trials: list[Trial]) -> None:
    found = of_all(trials)
    assert (found is OPENED) == (OPENED in trials)
    assert (found is REFUSED) == (trials != [] and all(trial is REFUSED for trial in trials))


def test_a_breach_names_both_tenants_the_place_and_what_to_do() -> None:
    message = judge(VISIT, Answers(OPENED, OPENED, REFUSED)).broken
    for part in ("shop.t1 opened shop.t2", "its database", "eu-1", "jwt_rbac"):
        assert part in message
    assert "the gateway" not in message
    assert "at its database and the gateway" in judge(VISIT, Answers(UNKNOWN, OPENED, OPENED)).broken


def test_everyone_is_visited_once_a_period_spread_over_it() -> None:
    residents = [resident(number) for number in range(500)]
    last: dict[str, int] = {}
    assert visits_due(residents, last, 0.0, PERIOD, most=1000) == ()
    turns = []
    seen: Counter[str] = Counter()
    for now in range(60, int(PERIOD) + 60, 60):
        due = visits_due(residents, last, float(now), PERIOD, most=1000)
        turns.append(len(due))
        for visit in due:
            seen[visit.guest.uid] += 1
            last[visit.guest.uid] = round_of(visit.guest, float(now), PERIOD)
            assert visit.guest.uid != visit.host.uid
            assert visit.guest.cell == visit.host.cell
    assert set(seen.values()) == {1}
    assert len(seen) == 500
    assert max(turns) < 500 / 60 * 3


def test_a_turn_is_bounded_and_takes_the_longest_overdue_first() -> None:
    residents = [resident(number) for number in range(100)]
    last = {item.uid: round_of(item, 0.0, PERIOD) for item in residents}
    last["uid-7"] -= 5
    due = visits_due(residents, last, PERIOD, PERIOD, most=10)
    assert len(due) == 10
    assert due[0].guest.uid == "uid-7"


def test_a_tenant_alone_on_its_cell_has_nobody_to_visit() -> None:
    residents = [resident(1, "eu-1"), resident(2, "us-1")]
    assert visits_due(residents, {"uid-1": 0, "uid-2": 0}, PERIOD * 9, PERIOD, most=10) == ()


@given(count=st.integers(2, 12), start=st.integers(0, 1000))
def test_in_time_each_token_is_tried_on_every_neighbour(count: int, start: int) -> None:
    residents = [resident(number) for number in range(count)]
    met: dict[str, set[str]] = {item.uid: set() for item in residents}
    for step in range(count - 1):
        now = (start + step + 1) * PERIOD
        last = {item.uid: round_of(item, now, PERIOD) - 1 for item in residents}
        for visit in visits_due(residents, last, now, PERIOD, most=100):
            met[visit.guest.uid].add(visit.host.uid)
    everyone = {item.uid for item in residents}
    assert all(hosts == everyone - {uid} for uid, hosts in met.items())
