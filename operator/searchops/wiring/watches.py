"""Kopf as the host of watches, and the wait for their beginning."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

import kopf

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

WORKERS = 256
"""Of kopf, which has one for each object that an event came for: 10,000 at once, when the watch begins, took 7 KB each.
An event takes a worker well below a millisecond, so that none waits long for its turn."""
WORKER_IDLE_SECONDS = 0.02
"""For which a worker waits for another event of its object, and takes up its place."""


class NothingKept(kopf.DiffBaseStorage):
    """No essence of objects: kopf copies and compares one at each event, for change handlers, of which we have none."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Nothing."""
        del body, extra_fields
        return cast("kopf.BodyEssence", {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is written to an object."""
        del body, patch, essence


async def watch(registry: kopf.OperatorRegistry, ready: asyncio.Event, *, namespaces: Sequence[str]) -> None:
    """Watch for ever: no scanning, no peering, no posting; it writes nothing.

    Args:
        registry: the handlers.
        ready: set once the watches have begun.
        namespaces: where to watch; none means the whole cluster.
    """
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NothingKept()
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = WORKER_IDLE_SECONDS
    settings.queueing.worker_limit = WORKERS
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=ready,
    )


async def all_set(flags: list[asyncio.Event], watches: list[asyncio.Task[None]]) -> bool:
    """Wait for every flag; False where a watch ends first: nothing would ever set its flag then."""
    waiting: asyncio.Future[Any] = asyncio.gather(*(flag.wait() for flag in flags))
    parts: list[asyncio.Future[Any]] = [waiting, *watches]
    await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        return True
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for watch in watches:
        if watch.done() and not watch.cancelled() and (error := watch.exception()) is not None:
            logger.critical("a watch failed at its start", exc_info=error)
    return False
