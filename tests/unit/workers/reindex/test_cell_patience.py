"""Patience with a cell: what is tried again, how long is waited, and what is given up at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import looptime
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops_workers.reindex.patience import ATTEMPTS, LONGEST_ASKED, PATIENCE, is_full, patiently

if TYPE_CHECKING:
    from collections.abc import Sequence


def answered(status: int, body: str = "no") -> UnexpectedResponse:
    return UnexpectedResponse(status, "reason", body.encode(), httpx.Headers())


def tried(failures: Sequence[Exception]) -> tuple[int, float, BaseException | None]:
    """How often a call was made, after how many seconds it ended, and how."""
    left = list(failures)
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        if left:
            raise left.pop(0)
        return "done"

    async def timed() -> tuple[float, BaseException | None]:
        loop = asyncio.get_running_loop()
        began, error = loop.time(), None
        try:
            assert await patiently(lambda: call()) == "done"
        except (UnexpectedResponse, ResourceExhaustedResponse, ResponseHandlingException, ValueError) as failure:
            error = failure
        return loop.time() - began, error

    loop = looptime.new_event_loop(idle_timeout=None)
    try:
        seconds, error = loop.run_until_complete(timed())
    finally:
        loop.close()
    return calls, seconds, error


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_cell_is_asked_again(status: int) -> None:
    calls, seconds, error = tried([answered(status)] * 3)
    assert (calls, error) == (4, None)
    assert seconds >= 3


@pytest.mark.parametrize("error", [answered(507), answered(500, "error: No space left on device: WAL buffer")])
def test_a_full_cell_is_not_asked_again(error: Exception) -> None:
    assert tried([error]) == (1, 0.0, error)
    assert is_full(error)


@pytest.mark.parametrize(
    "error",
    [answered(400, "Max points count limit of 9 reached!"), answered(429, "Write rate limit exceeded"), OSError("no")],
)
def test_one_collections_own_limits_are_no_full_cell(error: Exception) -> None:
    assert not is_full(error)


def test_no_answer_is_asked_again() -> None:
    assert tried([ResponseHandlingException(httpx.ReadTimeout("late"))])[0] == 2


def test_the_cell_says_how_long() -> None:
    calls, seconds, error = tried([ResourceExhaustedResponse("slow down", 17)])
    assert (calls, error) == (2, None)
    assert 17 <= seconds < 19


def test_who_asks_for_more_than_is_waited_for_is_left_at_once() -> None:
    asked = ResourceExhaustedResponse("come back tomorrow", 86_400)
    assert tried([asked]) == (1, 0.0, asked)
    assert tried([ResourceExhaustedResponse("wait", int(LONGEST_ASKED))])[:2] == (2, LONGEST_ASKED)


def test_all_waits_together_are_bounded() -> None:
    failures = [ResourceExhaustedResponse("wait", int(LONGEST_ASKED)) for _ in range(ATTEMPTS)]
    calls, seconds, error = tried(failures)
    assert error is failures[calls - 1]
    assert PATIENCE - LONGEST_ASKED < seconds <= PATIENCE


@pytest.mark.parametrize("error", [answered(400), answered(403), answered(404), answered(422), ValueError("ours")])
def test_what_is_wrong_is_never_repeated(error: Exception) -> None:
    calls, _, ended = tried([error])
    assert (calls, ended) == (1, error)


def test_patience_ends_with_the_last_error() -> None:
    failures = [answered(503) for _ in range(ATTEMPTS + 5)]
    calls, _, ended = tried(failures)
    assert calls == ATTEMPTS
    assert ended is failures[ATTEMPTS - 1]
