"""A merchant's rates: never more than the bucket allows, an honest Retry-After, and memory that does not grow."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.rates import RATES_KEY, MerchantRates
from searchops.api.retrieval import BINDING_KEY, Binding, RetrievalProfile
from searchops_workers.gateway.bindings import parse_bindings
from searchops_workers.gateway.callers import Caller
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.rates import MINUTE, RateExceeded, Rates

if TYPE_CHECKING:
    from searchops_workers.gateway.rates import Kind

BOUND = Binding(profile=RetrievalProfile(name="plain")).to_metadata()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def caller(tenant: str = "m.acme", *, cell: str = "eu-1", token: str = "t") -> Caller:  # noqa: S107 - no secret
    return Caller(tenant, f"prod.{tenant}", cell, {f"prod.{tenant}": "prw"}, token)


def limits(searches: int = 0, writes: int = 0) -> MerchantRates:
    return MerchantRates(searches_per_minute=searches, writes_per_minute=writes)


def admitted(rates: Rates, who: Caller, allowed: MerchantRates, tries: int, kind: Kind = "searches") -> int:
    passed = 0
    for _ in range(tries):
        try:
            rates.take(who, allowed, kind)
        except RateExceeded:
            continue
        passed += 1
    return passed


@settings(deadline=None)
@given(
    limit=st.integers(1, 5000),
    steps=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 5000)), min_size=1, max_size=60),
)
def test_it_admits_what_a_bucket_counted_in_exact_fractions_admits(limit: int, steps: list[tuple[int, int]]) -> None:
    """Steps are (sixty-fourths of a second that pass, items wanted); the oracle keeps tokens, not moments."""
    clock = Clock()
    rates = Rates(clock=clock)
    tokens = Fraction(limit)
    for passed, cost in steps:
        clock.now += passed / 64
        tokens = min(Fraction(limit), tokens + Fraction(passed, 64) * Fraction(limit, 60))
        want = min(cost, limit)
        try:
            rates.take(caller(), limits(writes=limit), "writes", want)
        except RateExceeded:
            assert tokens < want + Fraction(1, 1000)
        else:
            assert tokens > want - Fraction(1, 1000)
            tokens -= want


def test_one_minutes_worth_passes_at_once_and_then_the_even_rate() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    assert admitted(rates, caller(), limits(120), 500) == 120
    clock.now += 10
    assert admitted(rates, caller(), limits(120), 500) == 20
    clock.now += 10 * MINUTE
    assert admitted(rates, caller(), limits(120), 500) == 120, "what was not used for long is not saved up"


@settings(deadline=None)
@given(limit=st.integers(1, 10_000_000), cost=st.integers(1, 20_000))
def test_after_retry_after_the_request_passes_and_a_second_earlier_it_does_not(limit: int, cost: int) -> None:
    clock = Clock()
    rates, allowed = Rates(clock=clock), limits(writes=limit)
    cost = min(cost, limit)
    for _ in range(limit // cost):
        rates.take(caller(), allowed, "writes", cost)
        if limit // cost > 1000:
            break
    else:
        with pytest.raises(RateExceeded) as refused:
            rates.take(caller(), allowed, "writes", cost)
        wait = refused.value.retry_after
        assert wait is not None
        clock.now += wait - 1
        if wait > 1:
            with pytest.raises(RateExceeded):
                rates.take(caller(), allowed, "writes", cost)
        clock.now += 1
        rates.take(caller(), allowed, "writes", cost)


def test_a_refusal_names_tenant_limit_and_what_to_do_and_takes_nothing() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    rates.take(caller(), limits(writes=100), "writes", 60)
    for _ in range(5):
        with pytest.raises(RateExceeded) as refused:
            rates.take(caller(), limits(writes=100), "writes", 60)
    document = refused.value.document()
    assert (document["status"], document["type"]) == (429, "urn:searchops:problem:rate-limited")
    assert document["tenant"] == "m.acme"
    assert document["limit"] == {"field": "spec.quotas.writesPerMinute", "perMinute": 100}
    assert document["detail"] == (
        "tenant m.acme has used up its writesPerMinute, which is 100; send the request again in 12 s, or have "
        "spec.quotas.writesPerMinute of its SearchTenant raised"
    )
    assert refused.value.response().headers["Retry-After"] == "12"
    rates.take(caller(), limits(writes=100), "writes", 40)


def test_a_request_larger_than_a_minutes_worth_is_413_since_it_would_be_refused_on_every_try() -> None:
    rates = Rates(clock=Clock())
    with pytest.raises(Problem) as refused:
        rates.take(caller(), limits(writes=100), "writes", 101)
    assert (refused.value.status, refused.value.retry_after) == (413, None)
    assert "101 items in one request" in refused.value.detail
    assert "at most 100 items at once" in refused.value.detail
    assert len(rates) == 0


def test_tenants_cells_and_kinds_have_buckets_of_their_own_and_tokens_of_one_tenant_share_one() -> None:
    rates = Rates(clock=Clock())
    allowed = limits(searches=1, writes=1)
    assert admitted(rates, caller(), allowed, 2) == 1
    assert admitted(rates, caller(token="another"), allowed, 2) == 0
    assert admitted(rates, caller("m.other"), allowed, 2) == 1
    assert admitted(rates, caller(cell="us-1"), allowed, 2) == 1
    assert admitted(rates, caller(), allowed, 2, kind="writes") == 1


def test_no_limit_keeps_no_bucket() -> None:
    rates = Rates(clock=Clock())
    assert admitted(rates, caller(), limits(), 10_000) == 10_000
    assert len(rates) == 0


def test_a_changed_rate_applies_at_once() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    assert admitted(rates, caller(), limits(60), 100) == 60
    clock.now += 30
    assert admitted(rates, caller(), limits(600), 1000) == 300
    clock.now += 30
    assert admitted(rates, caller(), limits(6), 100) == 3


def test_buckets_that_are_full_again_are_forgotten_and_lose_nothing() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    for number in range(1000):
        rates.take(caller(f"m.t{number}"), limits(60), "searches")
    assert len(rates) == 1000
    clock.now += 2
    for number in range(1000):
        rates.take(caller(f"m.n{number}"), limits(60), "searches")
    assert len(rates) == 1000
    assert admitted(rates, caller("m.t0"), limits(60), 100) == 60


def test_ten_thousand_tenants_fit_in_megabytes_and_no_number_of_tenants_grows_it_further() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    tracemalloc.start()
    try:
        for number in range(10_000):
            rates.take(caller(f"merchants-eu.tenant-{number}"), limits(60, 60), "searches")
            rates.take(caller(f"merchants-eu.tenant-{number}"), limits(60, 60), "writes")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rates) == 20_000
    assert used < 10_000_000
    bounded = Rates(clock=clock, kept=100)
    for number in range(10_000):
        bounded.take(caller(f"m.t{number}"), limits(60), "searches")
    assert len(bounded) == 100
    assert admitted(bounded, caller("m.t9999"), limits(60), 100) == 59, "the most recently used are the ones kept"
    bounded.take(caller("m.t9901"), limits(60), "searches")
    for number in range(98):
        bounded.take(caller(f"m.other{number}"), limits(60), "searches")
    assert admitted(bounded, caller("m.t9901"), limits(60), 100) == 58, "used again, so kept before older ones"


def test_rates_come_with_the_binding_and_are_unbounded_where_an_older_operator_wrote_none() -> None:
    wanted = limits(60, 3000)
    assert parse_bindings({BINDING_KEY: BOUND, RATES_KEY: wanted.to_metadata()}).rates == wanted
    assert parse_bindings({BINDING_KEY: BOUND}).rates == limits()
    with pytest.raises(Problem, match=r"binding or rates cannot be read \(searchesPerMinute") as refused:
        parse_bindings({BINDING_KEY: BOUND, RATES_KEY: '{"searchesPerMinute": "many"}'})
    assert (refused.value.status, refused.value.code) == (503, "binding-unreadable")
