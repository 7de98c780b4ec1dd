"""Patience with a cell that is busy: every read and write of a rebuild may be repeated, so it is, within bounds.

A cell that is out of disk or memory is another thing: it has no room a second later either, and asking on would keep
it from those who could free some. That is raised at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tenacity.stop import stop_base

from searchops.api.room import says_full

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")

ATTEMPTS = 8
LONGEST_WAIT = 30.0
"""Seconds of a back-off of our own."""
LONGEST_ASKED = 120.0
"""Seconds that the cell may ask for (429); who asks for more is not waited for: a fresh worker comes later."""
PATIENCE = 600.0
"""Seconds that one call may be waited for in all."""
BUSY = frozenset({429, 500, 502, 503, 504})
_backoff = wait_exponential_jitter(max=LONGEST_WAIT)


async def patiently(call: Callable[[], Awaitable[Result]], *, attempts: int = ATTEMPTS) -> Result:
    """The result of an idempotent call; tried again where the cell is busy or gave no answer.

    Raises:
        Exception: the last one of qdrant-client's, unchanged.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_attempt(attempts) | _OutOfPatience(),
        wait=_wait,
        reraise=True,
    )

    async def attempt() -> Result:  # tenacity tells a coroutine function by its looks, which a lambda has not
        return await call()

    return await retrying(attempt)


def is_full(error: BaseException) -> bool:
    """Whether the cell says that it is out of disk or memory."""
    if not isinstance(error, UnexpectedResponse):
        return False
    return says_full(error.status_code, (error.content or b"").decode(errors="replace"))


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed soon; a request that the server refuses as wrong never does."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s) <= LONGEST_ASKED
    if isinstance(error, UnexpectedResponse):
        return error.status_code in BUSY and not is_full(error)
    return isinstance(error, ResponseHandlingException)


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for, at least the back-off."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = float(error.retry_after_s) if isinstance(error, ResourceExhaustedResponse) else 0.0
    return max(asked, _backoff(state))


class _OutOfPatience(stop_base):
    """Stops before a wait that would make all of them together too long."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.idle_for + retry_state.upcoming_sleep > PATIENCE
