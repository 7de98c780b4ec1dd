"""Whole fleets through three waves with random failures: what must hold at every step, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from searchops.planning.names import ROLLBACK_ANNOTATION
from unit.planning import rollout_cases as case
from unit.planning.fleet_simulation import ACTIVE, CANDIDATE, Fleet, Shop

CANARY = {"name": "canary", "selector": case.CANARY}
WAVES: list[list[dict[str, Any]]] = [
    [CANARY, {"name": "ten", "percent": 10, "soak": "30m"}, {"name": "all", "percent": 100}],
    [{"name": "one", "percent": 1}, {"name": "half", "percent": 50}, {"name": "all", "percent": 100, "soak": "1h"}],
]
MOST_PASSES = 60
TROUBLES = ("none", "none", "failing", "held", "lost", "paused", "edited", "withdrawn", "taken back")
fleets = st.fixed_dictionaries(
    {
        "cap": st.integers(2, 60),
        "percent": st.integers(0, 30),
        "waves": st.sampled_from(WAVES),
        "seed": st.integers(0, 2**32),
        "late": st.sampled_from((0.0, 0.5)),
        "walk": st.lists(st.sampled_from(TROUBLES), min_size=1, max_size=14),
    }
)


def befall(fleet: Fleet, trouble: str) -> None:
    """What people and machines do between two passes."""
    fleet.chances = (0.5, 0.3, 0.1) if trouble == "failing" else (0.9, 0.01, 0.05)
    fleet.lost = trouble == "lost"
    fleet.spec = {}
    match trouble:
        case "held":
            for shop in fleet.random.sample(fleet.shops, max(1, fleet.count // 20)):
                shop.held = not shop.held
        case "paused":
            fleet.spec = {"paused": True}
        case "edited":
            fleet.waves = [{"name": "all", "percent": 100}]
        case "withdrawn":
            fleet.digest = "a"
        case "taken back":
            fleet.spec = {"metadata": {"annotations": {ROLLBACK_ANNOTATION: CANDIDATE.revision}}}


def ends(fleet: Fleet) -> str:
    """Everything is mended, and passes follow until nothing moves; the revision that everybody is bound to then."""
    fleet.spec = {}
    for _ in range(MOST_PASSES + 3 * fleet.count // fleet.cap):
        fleet.mend()
        fleet.step()
        active = fleet.status.active
        assert active is not None
        if fleet.status.candidate is None and all(shop.binding.revision == active.revision for shop in fleet.shops):
            break
    fleet.step()
    fleet.check_fixed_point()
    active = fleet.status.active
    assert active is not None
    assert {shop.binding.revision for shop in fleet.shops} == {active.revision}
    return active.revision


def lives(count: int, drawn: dict[str, Any]) -> tuple[str, str]:
    """The revision that everybody ends with, and the one that they should: the candidate unless it was taken back."""
    walk = drawn.pop("walk")
    fleet = Fleet(count, **drawn)
    gone = False
    for trouble in walk:
        befall(fleet, trouble)
        fleet.step()
        gone = gone or (fleet.status.candidate is None and fleet.status.active == ACTIVE)
    back = fleet.digest == "a" or gone
    return ends(fleet), ACTIVE.revision if back else CANDIDATE.revision


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 200), drawn=fleets)
def test_a_fleet_never_leaves_what_must_hold_and_comes_to_rest(count: int, drawn: dict[str, Any]) -> None:
    ended, wanted = lives(count, drawn)
    assert ended == wanted


@settings(
    max_examples=2,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)
@given(drawn=fleets)
def test_ten_thousand_tenants_in_three_waves(drawn: dict[str, Any]) -> None:
    ended, wanted = lives(10_000, {**drawn, "cap": 500 + 8 * drawn["cap"]})
    assert ended == wanted


class CapIgnored(Fleet):
    """A queue that counts nothing."""

    def is_full(self, running: int) -> bool:
        return False


class FlipsEarly(Fleet):
    """Tenants that flip before their side is filled."""

    def is_filled(self, shop: Shop, revision: Any) -> bool:
        return True


class HaltIgnored(Fleet):
    """A queue that does not ask whether the wave is halted."""

    def halt_at_queue(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (CapIgnored, "rebuilds at one time"),
        (FlipsEarly, "in a space that its collection does not hold"),
    ],
)
def test_a_fleet_that_breaks_a_rule_is_caught(broken: type[Fleet], said: str) -> None:
    fleet = broken(200, 3, 2, WAVES[1], 7)
    with pytest.raises(AssertionError, match=said):
        for _ in range(20):
            fleet.step()


def test_a_breaker_that_does_not_stop_the_fleet_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchops.planning.rollout_waves._breaker", lambda *_: None)
    fleet = Fleet(200, 20, 2, WAVES[1], 7, chances=(0.5, 0.4, 0.0))
    with pytest.raises(AssertionError, match="failed, and the fleet goes on"):
        for _ in range(20):
            fleet.step()
            fleet.chances = (0.5, 0.4, 0.0)


@pytest.mark.parametrize(("kind", "caught"), [(Fleet, False), (HaltIgnored, True)])
def test_a_queue_that_ignores_the_halt_is_caught_where_passes_come_late(kind: type[Fleet], caught: bool) -> None:
    """A tenant that has passed since the halt wants no rebuild any more; only one that has not is left in the queue."""
    fleet = kind(400, 20, 5, WAVES[1], 7, late=0.5)
    waited = 0
    try:
        for step in range(30):
            fleet.chances = (0.6, 0.25, 0.1) if step > 8 else (1.0, 0.0, 0.0)
            fleet.step()
            waited += bool(fleet.halted()) and sum(shop.rebuild == "queued" for shop in fleet.shops)
    except AssertionError as error:
        assert caught, error
        assert "the wave is halted (BreakerOpen)" in str(error)
    else:
        assert not caught
        assert waited > 0, "nobody waited under the halt, so that nothing was asked of the queue"
