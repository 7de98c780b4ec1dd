"""How much of its quotas a merchant uses, as the condition and the status tell it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.planning.quotas import moved, quota_finding, usage
from unit.planning import tenant_cases as case

LIVE = case.make_collection(case.dense(1))
"""100 points of 8 dimensions."""


@pytest.mark.parametrize(
    ("points", "reason"),
    [(899, "WithinQuota"), (900, "NearQuota"), (999, "NearQuota"), (1000, "QuotaExceeded"), (5000, "QuotaExceeded")],
)
def test_points_near_and_over_their_quota(points: int, reason: str) -> None:
    tenant = case.make_tenant({"quotas": {"maxPoints": 1000}})
    found = quota_finding(tenant, replace(LIVE, points=points))
    assert found.reason == reason
    assert found.status == ("False" if reason == "QuotaExceeded" else "True")
    if reason != "WithinQuota":
        assert f"{points} points (estimated), spec.quotas.maxPoints allows 1000" in found.message


def test_dense_vectors_over_their_quota_are_said_in_megabytes() -> None:
    tenant = case.make_tenant({"quotas": {"maxVectorMegabytes": 32}})
    found = quota_finding(tenant, replace(LIVE, points=1_000_000))
    assert (found.status, found.reason) == ("False", "QuotaExceeded")
    assert "32 MB of dense vectors (estimated), spec.quotas.maxVectorMegabytes allows 32" in found.message


def test_the_status_has_both_shares_and_the_megabytes() -> None:
    tenant = case.make_tenant({"quotas": {"maxPoints": 2_000_000, "maxVectorMegabytes": 64}})
    found = usage(tenant, replace(LIVE, points=1_000_000))
    assert (found.points, found.points_quota_percent) == (1_000_000, 50)
    assert (found.vector_megabytes, found.vector_quota_percent) == (32, 50)


def test_without_quotas_there_are_no_shares() -> None:
    found = usage(case.make_tenant(), LIVE)
    assert (found.points_quota_percent, found.vector_megabytes, found.vector_quota_percent) == (None, None, None)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_what_did_not_move_by_a_percent_is_not_told_anew(before: int, points: int) -> None:
    tenant = case.make_tenant(status={"usage": {"points": before}})
    told = usage(tenant, replace(LIVE, points=points)).points
    assert told == (points if moved(before, points) else before)
    assert abs(told - points) * 100 < max(before, 1) or told == points
