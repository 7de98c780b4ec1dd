"""A token bucket: bounds the rate of writes to the API server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenBucket:
    """`rate` tokens a second, at most `burst` at once; callers are served in the order in which they asked."""

    def __init__(self, rate: float, burst: int, *, now: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"token bucket with rate {rate} and burst {burst}: wanted a rate > 0 and a burst >= 1")
        self._rate = rate
        self._burst = float(burst)
        self._now = now
        self._tokens = float(burst)
        self._at = now()

    def _refill(self) -> None:
        moment = self._now()
        self._tokens = min(self._burst, self._tokens + max(0.0, moment - self._at) * self._rate)
        self._at = moment

    def try_acquire(self) -> bool:
        """Take a token if one is there now."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def reserve(self) -> float:
        """Take a token, on credit if need be, and tell how many seconds to wait before it may be used."""
        self._refill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)

    async def acquire(self) -> None:
        """Wait for a token. A caller that is cancelled while it waits gives its token back."""
        wait = self.reserve()
        if wait <= 0:
            return
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._tokens = min(self._burst, self._tokens + 1.0)
            raise
