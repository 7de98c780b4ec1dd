"""Whose limit a refusal is about: the merchant's rate, the merchant's quota, or the whole cell's room."""

from __future__ import annotations

from typing import Any

import pytest

from searchops_workers.gateway.limits import PAUSE_SECONDS, CellFull, Room, exhausted, refused, require_points
from searchops_workers.gateway.problems import Problem

LIMITED = "Rate limiting exceeded: {} rate limit exceeded: Operation requires 3 tokens but only 0.0 were available."


def document(status: int, body: str, after: float | None = None) -> dict[str, Any]:
    problem = refused("eu-1", status, body, after, shared=False)
    assert problem is not None
    answer = problem.response()
    assert answer.status_code == problem.status
    assert answer.headers["content-type"] == "application/problem+json"
    return {**problem.document(), "after": answer.headers.get("retry-after")}


@pytest.mark.parametrize(("kind", "field"), [("Read", "searchesPerMinute"), ("Write", "writesPerMinute")])
def test_a_rate_is_named_by_its_field_and_says_when_to_come_back(kind: str, field: str) -> None:
    said = document(429, LIMITED.format(kind), 30)
    assert (said["status"], said["type"], said["after"]) == (429, "urn:searchops:problem:rate-limited", "30")
    assert said["limit"] == {"field": f"spec.quotas.{field}", "enforcedBy": "Database"}
    assert "in 30 s" in said["detail"]


def test_a_rate_that_is_not_named_is_still_one_and_asks_for_a_moment() -> None:
    said = document(429, "slow down")
    assert (said["status"], said["after"], "limit" in said) == (429, "1", False)


def test_what_no_waiting_helps_is_not_answered_by_a_wait() -> None:
    body = "Write rate limit exceeded: Operation requires 9 tokens but the maximum is 6. Please, split the request"
    said = document(429, body)
    assert (said["status"], said["type"], said["after"]) == (413, "urn:searchops:problem:batch-above-rate", None)
    assert said["limit"]["field"] == "spec.quotas.writesPerMinute"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("Bad request: Max points count limit of 1000 reached!", "maxPoints"),
        ("Bad request: Max vector storage size limit of 4MB reached!", "maxVectorMegabytes"),
    ],
)
def test_a_merchants_own_quota_is_named_and_is_never_the_cells(body: str, field: str) -> None:
    said = document(400, body)
    assert (said["status"], said["type"], said["after"]) == (422, "urn:searchops:problem:quota-exceeded", None)
    assert (said["limit"]["field"], "cell" in said) == (f"spec.quotas.{field}", False)


@pytest.mark.parametrize(("status", "body"), [(507, "Quota exceeded"), (500, "No space left on device: WAL buffer")])
def test_a_full_cell_is_said_to_be_the_cell_and_asks_for_patience(status: int, body: str) -> None:
    said = document(status, body)
    assert (said["status"], said["type"], said["after"]) == (507, "urn:searchops:problem:cell-full", "60")
    assert (said["cell"], "limit" in said) == ("eu-1", False)
    assert "no quota of the tenant" in said["detail"]
    assert "searches go on" in said["detail"]


@pytest.mark.parametrize(
    ("status", "body"), [(429, LIMITED.format("Write")), (400, "Max points count limit of 9 reached!")]
)
def test_a_limit_of_a_shared_collection_is_no_field_of_one_merchant(status: int, body: str) -> None:
    problem = refused("eu-1", status, body, 3, shared=True)
    assert problem is not None
    assert "a limit of the shared collection" in problem.detail
    assert problem.document()["limit"] == {"enforcedBy": "Database"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 502, 503, 504])
def test_what_is_no_limit_is_left_to_others(status: int) -> None:
    assert refused("eu-1", status, "something else", None, shared=False) is None


@pytest.mark.parametrize(
    ("details", "after", "status"),
    [
        (LIMITED.format("Write"), "3", 429),
        (LIMITED.format("Write"), None, 429),
        ("anything", "3", 429),
        ("Received message larger than max (5 vs. 4)", None, 413),
        ("Quota exceeded: disk", None, 507),
    ],
)
def test_one_code_of_grpc_stands_for_three(details: str, after: str | None, status: int) -> None:
    assert exhausted(details, after) == status


def test_a_full_cell_is_asked_again_after_a_moment_only_and_no_other_cell_is_held() -> None:
    now = [100.0]
    room = Room(clock=lambda: now[0])
    room.require("eu-1")
    room.met("eu-1", CellFull("eu-1", "Quota exceeded"))
    room.require("eu-2")
    now[0] += 2
    with pytest.raises(CellFull) as refusal:
        room.require("eu-1")
    room.met("eu-1", refusal.value)
    assert (refusal.value.retry_after, "Quota exceeded" in refusal.value.detail) == (PAUSE_SECONDS - 2, True)
    now[0] += PAUSE_SECONDS - 2
    room.require("eu-1")
    room.met("eu-1", CellFull("eu-1", "still"))
    with pytest.raises(CellFull, match="still"):
        room.require("eu-1")


@pytest.mark.parametrize(("points", "maximum"), [(0, 0), (10**9, 0), (9, 10)])
def test_points_below_the_bound_or_without_one_are_taken(points: int, maximum: int) -> None:
    said: list[str] = []
    try:
        require_points(points, maximum)
    except Problem as refusal:
        said.append(str(refusal))
    assert said == []


@pytest.mark.parametrize("points", [10, 11])
def test_a_full_slice_is_refused_as_a_full_collection_is(points: int) -> None:
    with pytest.raises(Problem) as caught:
        require_points(points, 10)
    said = caught.value.document()
    assert (said["status"], said["type"]) == (422, "urn:searchops:problem:quota-exceeded")
    assert said["limit"] == {"field": "spec.quotas.maxPoints", "enforcedBy": "Gateway"}
    assert f"{points} points, 10 allowed" in said["detail"]
