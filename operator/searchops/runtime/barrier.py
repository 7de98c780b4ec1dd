"""Nothing acts on a half-filled cache: workers start when every uid of our own LIST of each kind has been cached.

The watch host never tells that listing has ended, hence a list of our own. An object that is deleted between that list
and the watch's would be waited for without end, so the list is repeated, and what is gone from it is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops.runtime.cache import CachedObject, Change
    from searchops.runtime.source import Source

logger = logging.getLogger(__name__)


class Barrier:
    """Opens once, for good, when the cache of each source is full.

    Args:
        sources: every kind that has to be complete.
        recheck_seconds: how often the lists are repeated while something is missing, or after a list failed.
        list_timeout: seconds that one LIST may take.
    """

    def __init__(self, sources: Sequence[Source], *, recheck_seconds: float = 5.0, list_timeout: float = 60.0) -> None:
        self._sources = tuple(sources)
        self._recheck_seconds = recheck_seconds
        self._list_timeout = list_timeout
        self._missing: list[set[str] | None] = [None for _ in self._sources]
        self._complete = asyncio.Event()
        self._opened = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether every cache has been full once."""
        return self._opened.is_set()

    def missing(self) -> dict[str, int | None]:
        """Objects that each kind still lacks, by plural; None where its list has not succeeded yet."""
        return {
            source.cache.plural: None if uids is None else len(uids)
            for source, uids in zip(self._sources, self._missing, strict=True)
        }

    async def wait(self) -> None:
        """Wait until the barrier is open."""
        await self._opened.wait()

    async def run(self) -> None:
        """List, wait for the caches, open. Returns when open; a list that fails is tried again without end."""
        stops = [
            source.cache.subscribe(partial(self._on_event, position)) for position, source in enumerate(self._sources)
        ]
        try:
            while True:
                await asyncio.gather(*(self._list(position) for position in range(len(self._sources))))
                self._check()
                try:
                    async with asyncio.timeout(self._recheck_seconds):
                        await self._complete.wait()
                except TimeoutError:
                    logger.info("waiting for the caches to fill", extra={"missing": self.missing()})
                    continue
                break
        finally:
            for stop in stops:
                stop()
        self._opened.set()
        logger.info("every cache is full", extra={"objects": {s.cache.plural: len(s.cache) for s in self._sources}})

    async def _list(self, position: int) -> None:
        source = self._sources[position]
        try:
            async with asyncio.timeout(self._list_timeout):
                listed = {identity.uid for identity in await source.list_metadata()}
        except (ReconcileError, TimeoutError) as error:
            extra = {"plural": source.cache.plural, "error": str(error) or "timed out"}
            logger.warning("listing failed; no worker starts before it succeeds", extra=extra)
            return
        before = self._missing[position]
        wanted = listed if before is None else before & listed
        self._missing[position] = wanted - source.cache.uids()

    def _on_event(self, position: int, change: Change, seen: CachedObject) -> None:
        del change  # Even an outdated event proves that the watch has got to this object.
        missing = self._missing[position]
        if missing:
            missing.discard(seen.uid)
            self._check()

    def _check(self) -> None:
        if all(uids is not None and not uids for uids in self._missing):
            self._complete.set()
