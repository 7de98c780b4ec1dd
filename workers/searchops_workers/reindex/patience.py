"""Patience with a cell that is busy: every read and write of a rebuild may be repeated, so it is, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")

ATTEMPTS = 8
LONGEST_WAIT = 30.0
BUSY = frozenset({429, 500, 502, 503, 504, 507})
_backoff = wait_exponential_jitter(max=LONGEST_WAIT)


async def patiently(call: Callable[[], Awaitable[Result]], *, attempts: int = ATTEMPTS) -> Result:
    """The result of an idempotent call; tried again where the cell is busy, full for now, or gave no answer.

    Raises:
        Exception: the last one of qdrant-client's, unchanged.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing), stop=stop_after_attempt(attempts), wait=_wait, reraise=True
    )

    async def attempt() -> Result:  # tenacity tells a coroutine function by its looks, which a lambda has not
        return await call()

    return await retrying(attempt)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later; a request that the server refuses as wrong never does."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in BUSY
    return isinstance(error, ResourceExhaustedResponse | ResponseHandlingException)


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for, at least the back-off, at most the bound."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = float(error.retry_after_s) if isinstance(error, ResourceExhaustedResponse) else 0.0
    return min(LONGEST_WAIT, max(asked, _backoff(state)))
