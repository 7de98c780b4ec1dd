"""Leadership by a coordination.k8s.io Lease: one replica works, the others wait with a warm cache.

The algorithm is client-go's. A contender never compares clocks of two machines: it counts the lease's duration on its
own monotonic clock from when it *saw* the record change. The holder counts from before it *sent* its last successful
renewal. Every write is guarded by resourceVersion. So the holder's time is up no later than a contender's wait is:

    takeover >= seen + duration >= landed + duration >= sent + duration = the holder's end.

A write whose answer is lost is unknown: it never extends the holder's time, and the record is read before the next try.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from searchops.runtime.errors import Conflict, ReconcileError, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease's spec holds; an empty holder means released. Times are UTC and only for people to read."""

    holder: str
    duration_seconds: int
    acquired_at: datetime
    renewed_at: datetime
    transitions: int
    resource_version: str = ""


class LeaseStore(Protocol):
    """The Lease object. Every method raises `Transient` where it cannot tell, and has a deadline of its own."""

    async def get(self) -> LeaseRecord | None:
        """The record, or None where there is no Lease."""
        ...

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Make the Lease; `Conflict` where it exists. Returns it with its resourceVersion."""
        ...

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        """Write the record over the version that it names; `Conflict` where that is not the current one."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds: how long a lease lasts, when a holder that cannot renew gives up, and the time between tries."""

    duration: int = 15
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry > 0:
            wanted = "duration > renew_deadline > retry > 0, so that a holder ends before another begins"
            raise ValueError(describe(f"lease times {self!r}", wanted=wanted))


class LeaseLost(Exception):  # noqa: N818 - an event, not a fault
    """The lease could not be renewed, or somebody else has it: the process ends, because another one works now."""


@dataclass(frozen=True, slots=True)
class Create:
    """There is no Lease: make it."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Write:
    """Take the lease over, or renew it."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else holds it for so many seconds more, as far as this process has seen."""

    holder: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last record that this process saw, when it first saw that version (monotonic), and whether it is gone now."""

    record: LeaseRecord | None = None
    at: float = 0.0
    missing: bool = True


def decide(sighting: Sighting, *, identity: str, now: float, wall: datetime, duration: int) -> Create | Write | Wait:
    """What to do about the lease.

    A Lease that somebody deleted is still waited out by those who saw its holder: the holder may not know yet.

    Args:
        sighting: the Lease as it was seen last.
        identity: who asks; different for every process.
        now: monotonic seconds.
        wall: the time to write down for people.
        duration: seconds that the lease shall last from now on.
    """
    record = sighting.record
    if record is not None and record.holder not in ("", identity):
        left = sighting.at + record.duration_seconds - now
        if left > 0:
            return Wait(record.holder, left)
    if record is None or sighting.missing:
        return Create(LeaseRecord(identity, duration, wall, wall, record.transitions + 1 if record else 0))
    if record.holder == identity:
        return Write(replace(record, duration_seconds=duration, renewed_at=wall))
    return Write(LeaseRecord(identity, duration, wall, wall, record.transitions + 1, record.resource_version))


class LeaderElector:
    """Acquires the Lease, runs the work while it is held, and releases it when the work has ended.

    Args:
        store: the Lease.
        identity: unique to this process, such as the Pod's name and uid.
        times: see `LeaseTimes`.
        now: monotonic seconds; has to run at the rate of the event loop's clock.
        wall: the time to write down for people.
    """

    def __init__(
        self,
        store: LeaseStore,
        identity: str,
        *,
        times: LeaseTimes | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.identity = identity
        self._store = store
        self._times = times or LeaseTimes()
        self._now = now
        self._wall = wall
        self._sighting = Sighting()
        self._current = False
        self._held_from: float | None = None

    def remaining(self) -> float:
        """Seconds for which no other replica can hold the lease; 0 for one that does not hold it.

        An action that must not be done by two starts only with more of it left than its own timeout.
        """
        if self._held_from is None:
            return 0.0
        return max(0.0, self._held_from + self._times.duration - self._now())

    @property
    def is_leader(self) -> bool:
        """Whether the lease is held now."""
        return self.remaining() > 0

    @property
    def holder(self) -> str:
        """Who held the lease when it was read last; empty where nobody did."""
        record = self._sighting.record
        return record.holder if record is not None and not self._sighting.missing else ""

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease, then run `lead` while it is renewed; returns or raises as `lead` does.

        When cancelled, the work is ended first and the lease released afterwards.

        Raises:
            LeaseLost: the lease is lost; `lead` has been cancelled, and the process has to end.
        """
        await self.acquire()
        work = asyncio.create_task(lead(), name="leading")
        renewal = asyncio.create_task(self._keep(), name="lease-renewal")
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end(work)
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            if work.done():
                await self._release()
        if not renewal.cancelled():
            renewal.result()
        work.result()

    async def acquire(self) -> None:
        """Try until the lease is held."""
        while True:
            if await self._try(takeover=True):
                break
            await asyncio.sleep(self._times.retry)
        logger.info("leading", extra={"identity": self.identity})

    async def _keep(self) -> None:
        """Renew until that is impossible.

        Raises:
            LeaseLost: somebody else has the lease, or no renewal has landed for too long.
        """
        while True:
            await asyncio.sleep(self._times.retry)
            if await self._try(takeover=False):
                continue
            if self._current and self.holder != self.identity:
                seen = f"the lease is held by {self.holder!r}" if self.holder else "the lease was released or deleted"
                raise LeaseLost(describe(seen, wanted=f"{self.identity!r}", next_step="The process ends."))
            since = self._now() - (self._held_from or 0.0)
            if since + self._times.retry >= self._times.renew_deadline:
                seen = f"the lease was not renewed for {since:.1f} s"
                wanted = f"a renewal every {self._times.retry:g} s; read the API server's answers above"
                raise LeaseLost(describe(seen, wanted=wanted, next_step="The process ends."))

    async def _try(self, *, takeover: bool) -> bool:
        """One try to acquire or renew; True where a write of ours has certainly landed."""
        try:
            async with asyncio.timeout(self._times.renew_deadline / 2):
                return await self._write(takeover=takeover)
        except Conflict as error:
            logger.info("the lease changed meanwhile", extra={"detail": error.message})
        except (ReconcileError, TimeoutError) as error:
            logger.warning("the lease could not be written", extra={"detail": str(error) or "timed out"})
        self._current = False
        return False

    async def _write(self, *, takeover: bool) -> bool:
        if not self._current:
            self._observe(await self._store.get())
        if not takeover and self.holder != self.identity:
            return False
        step = decide(
            self._sighting,
            identity=self.identity,
            now=self._now(),
            wall=self._wall(),
            duration=self._times.duration,
        )
        sent = self._now()
        match step:
            case Wait():
                self._current = False
                return False
            case Create(record):
                written = await self._store.create(record)
            case Write(record):
                written = await self._store.replace(record)
        self._observe(written)
        self._held_from = sent
        return True

    def _observe(self, record: LeaseRecord | None) -> None:
        self._current = True
        if record is None:
            self._sighting = replace(self._sighting, missing=True)
        elif record != self._sighting.record or self._sighting.missing:
            self._sighting = Sighting(record, self._now(), missing=False)

    async def _end(self, work: asyncio.Task[None]) -> None:
        """Cancel the work and wait for its end, no longer than the lease lasts."""
        work.cancel()
        while not work.done() and (left := self.remaining()) > 0:
            await asyncio.wait({work}, timeout=min(1.0, left))
        if not work.done():
            logger.critical("the work did not end while the lease lasted; the process has to be ended")
        elif not work.cancelled() and (error := work.exception()) is not None:
            logger.error("the work ended with an error", exc_info=error)

    async def _release(self) -> None:
        """Let the next one begin at once; where that fails, it begins when the lease has run out."""
        held, self._held_from = self.remaining() > 0, None
        record = self._sighting.record
        if not held or record is None or self.holder != self.identity:
            return
        try:
            async with asyncio.timeout(self._times.renew_deadline / 2):
                await self._store.replace(replace(record, holder="", duration_seconds=1, renewed_at=self._wall()))
        except (ReconcileError, TimeoutError) as error:
            logger.warning("the lease was not released; it runs out", extra={"detail": str(error) or "timed out"})
        else:
            logger.info("the lease is released", extra={"identity": self.identity})
