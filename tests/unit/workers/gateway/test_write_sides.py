"""Which sides a write goes to, and versions that never run backwards."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import Binding, RetrievalProfile
from searchops_workers.gateway.bindings import TenantBinding
from searchops_workers.gateway.writes import Versions, plan_sides

PROFILE = RetrievalProfile(name="plain")


def bound(vector: str | None, side: str | None) -> Binding:
    name = vector.replace("d-", "r-") if vector else None
    return Binding(profile=PROFILE, revision=name, encoder=name, vector=vector, dimension=2, side=side)


bindings = st.builds(bound, st.sampled_from([None, "d-1", "d-2", "d-3"]), st.sampled_from([None, "t@a", "t@b"]))


@given(bindings, st.none() | bindings, st.none() | bindings)
def test_every_binding_is_written_and_only_the_previous_may_be_missed(
    binding: Binding, pending: Binding | None, previous: Binding | None
) -> None:
    plans = plan_sides("t", TenantBinding(binding, pending, previous))
    sides = {plan.side: plan for plan in plans}
    assert len(sides) == len(plans)
    for each in (binding, pending):
        if each is not None:
            plan = sides[each.side or "t"]
            assert plan.required
            assert each in plan.bindings
            assert each.vector not in plan.optional_vectors
    if previous is not None:
        assert previous in sides[previous.side or "t"].bindings
    required = [plan.required for plan in plans]
    assert required == sorted(required, reverse=True)


def test_one_side_with_two_vectors_is_one_request() -> None:
    for pending, previous in product([None, bound("d-2", "t@a")], repeat=2):
        plans = plan_sides("t", TenantBinding(bound("d-1", "t@a"), pending, previous))
        assert [plan.side for plan in plans] == ["t@a"]


def test_the_previous_vector_of_the_live_side_may_be_missed_and_the_pending_one_not() -> None:
    (plan,) = plan_sides("t", TenantBinding(bound("d-1", "t@a"), bound("d-2", "t@a"), bound("d-3", "t@a")))
    assert plan.optional_vectors == {"d-3"}
    (plan,) = plan_sides("t", TenantBinding(bound("d-1", "t@a"), None, bound("d-1", "t@a")))
    assert plan.optional_vectors == frozenset()


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=20))
def test_versions_rise_whatever_the_clock_does_and_are_exact_doubles(readings: list[float]) -> None:
    clock = iter(readings)
    versions = Versions(lambda: next(clock))
    given_out = [versions.next() for _ in readings]
    assert given_out == sorted(set(given_out))
    assert all(int(float(version)) == version for version in given_out)
