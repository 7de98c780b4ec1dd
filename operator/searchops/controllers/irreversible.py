"""What cannot be taken back is begun only while this process is certainly the only one that acts, to its very end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

IRREVERSIBLE_SECONDS = 8.0
"""What one such call may take; a lease of 15 s that is renewed every 2 s has 13 s left at its lowest."""
RETRY_SECONDS = 2.0


@asynccontextmanager
async def irreversible(what: str, lease_left: Callable[[], float]) -> AsyncIterator[None]:
    """Run one drop, removal or alias action within the lease.

    Args:
        what: the action, for people.
        lease_left: seconds for which no other replica can act.

    Raises:
        Transient: less of the lease is left than the call may take, or the call took all of it: its effect is unknown
            and is read by the next pass.
    """
    left = lease_left()
    if left <= IRREVERSIBLE_SECONDS:
        raise Transient(
            f"only {left:.0f} s of the lease are left, too few to {what}; it is tried after the renewal",
            RETRY_SECONDS,
            answered=None,
        )
    try:
        async with asyncio.timeout(IRREVERSIBLE_SECONDS):
            yield
    except TimeoutError as error:
        raise Transient(f"no answer within {IRREVERSIBLE_SECONDS:.0f} s to {what}; its effect is read back") from error
