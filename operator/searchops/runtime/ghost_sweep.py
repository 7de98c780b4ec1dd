"""Finds what the watch has missed: objects deleted during a gap (ghosts), and objects or versions that never came.

A relist after 410 tells nothing of deletions, so a ghost would be reconciled for ever. A ghost is dropped only after a
complete LIST without it *and* a live GET that answers 404 or another uid; a read that fails leaves it where it is.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops.runtime.cache import compare_versions
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.runtime.cache import CachedObject
    from searchops.runtime.key import Identity, Key
    from searchops.runtime.source import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep of one kind did."""

    plural: str
    ghosts: int = 0
    refreshed: int = 0
    unknown: int = 0
    """Objects whose live read failed: left as they are, looked at by the next sweep."""
    left: int = 0
    """Suspects beyond the bound of live reads, left to the next sweep."""
    listed: bool = True
    """False where the LIST failed and nothing was looked at."""

    @property
    def complete(self) -> bool:
        """Whether everything was looked at and answered."""
        return self.listed and not self.unknown and not self.left


class GhostSweep:
    """Sweeps every kind each `interval` seconds, and soon after `kick`.

    Args:
        sources: every watched kind.
        interval: seconds between sweeps.
        settle_seconds: how long after a `kick` the sweep starts, so that one relist of many objects is one sweep.
        retry_seconds: seconds until the next sweep where one could not look at everything.
        read_timeout: seconds that one LIST or GET may take.
        max_reads: live reads of one sweep and kind.
        concurrency: live reads at once.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        interval: float = 3600.0,
        settle_seconds: float = 5.0,
        retry_seconds: float = 60.0,
        read_timeout: float = 60.0,
        max_reads: int = 2_000,
        concurrency: int = 10,
    ) -> None:
        self._sources = tuple(sources)
        self._interval = interval
        self._settle_seconds = settle_seconds
        self._retry_seconds = retry_seconds
        self._read_timeout = read_timeout
        self._max_reads = max_reads
        self._concurrency = concurrency
        self._kicked = asyncio.Event()

    def kick(self) -> None:
        """Sweep soon: the watch has listed anew, so deletions may have been missed."""
        self._kicked.set()

    async def run(self) -> None:
        """Sweep for ever; what could not be looked at is looked at again after a shorter while."""
        wait = self._interval
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._kicked.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(self._settle_seconds)
            self._kicked.clear()
            reports = [await self.sweep(source) for source in self._sources]
            complete = all(report.complete for report in reports)
            wait = self._interval if complete else min(self._interval, self._retry_seconds)

    async def sweep(self, source: Source) -> SweepReport:
        """One sweep of one kind, now."""
        plural = source.cache.plural
        before = {cached.key: cached for cached in source.cache}
        try:
            async with asyncio.timeout(self._read_timeout):
                listed = {identity.key: identity for identity in await source.list_metadata()}
        except (ReconcileError, TimeoutError) as error:
            logger.warning("sweep: listing failed", extra={"plural": plural, "error": str(error) or "timed out"})
            return SweepReport(plural, listed=False)
        suspects = self._suspects(source, before, listed)
        limit = asyncio.Semaphore(self._concurrency)
        checked = suspects[: self._max_reads]
        verdicts = await asyncio.gather(*(self._check(source, key, limit) for key in checked))
        report = SweepReport(
            plural,
            ghosts=verdicts.count("ghost"),
            refreshed=verdicts.count("refreshed"),
            unknown=verdicts.count("unknown"),
            left=len(suspects) - len(checked),
        )
        if suspects:
            logger.info("sweep found what the watch has missed", extra={"plural": plural, "report": repr(report)})
        return report

    @staticmethod
    def _suspects(
        source: Source, before: Mapping[Key, CachedObject], listed: Mapping[Key, Identity]
    ) -> list[tuple[Key, str]]:
        """Keys to read live, each with the uid that is cached under it, or an empty one."""
        suspects: list[tuple[Key, str]] = []
        for key, cached in before.items():
            identity = listed.get(key)
            if identity is None or identity.uid != cached.uid:
                suspects.append((key, cached.uid))
        for key, identity in listed.items():
            now = source.cache.get(key)
            if now is None and key not in before:
                suspects.append((key, ""))
            elif (
                now is not None
                and now.uid == identity.uid
                and compare_versions(now.resource_version, identity.resource_version) in (-1, None)
            ):
                suspects.append((key, now.uid))
        return suspects

    async def _check(self, source: Source, suspect: tuple[Key, str], limit: asyncio.Semaphore) -> str:
        key, uid = suspect
        try:
            async with limit, asyncio.timeout(self._read_timeout):
                live = await source.read(key)
        except (ReconcileError, TimeoutError) as error:
            extra = {"plural": source.cache.plural, "key": str(key), "error": str(error) or "timed out"}
            logger.warning("sweep: live read failed; the object is kept", extra=extra)
            return "unknown"
        return self._settle(source, key, uid, live)

    @staticmethod
    def _settle(source: Source, key: Key, uid: str, live: Mapping[str, Any] | None) -> str:
        if live is None:
            if not (uid and source.cache.drop(key, uid)):
                return "fine"
            source.enqueue(key)
            return "ghost"
        version = (live.get("metadata") or {}).get("resourceVersion")
        cached = source.cache.get(key)
        if cached is not None and cached.resource_version == version:
            return "fine"
        source.cache.apply("MODIFIED", live)
        source.enqueue(key)
        return "refreshed" if (live.get("metadata") or {}).get("uid") == uid or not uid else "ghost"
