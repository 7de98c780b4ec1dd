"""A de-duplicating work queue: a key never runs twice at once, and nothing that was added is lost.

The shape is client-go's (dirty and processing sets, delayed adds, per-key back-off) with two priorities, as
controller-runtime has them now, and with *parking*: a key that needs a busy dependency leaves its worker and comes
back when that dependency has room. All bookkeeping is synchronous; only `get` waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

from searchops.runtime.backoff import BackOff
from searchops.runtime.due_times import DueTimes
from searchops.runtime.instruments import NoQueueMetrics
from searchops.runtime.queue_entry import Entry, Priority, QueueSnapshot, more_urgent

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from searchops.runtime.instruments import QueueMetrics

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Priority", "QueueClosed", "QueueSnapshot", "WorkQueue"]

DEFAULT_CAPACITY = 200_000
DEFAULT_PATIENCE = 300.0
DEFAULT_PARKING = 60.0


class QueueClosed(Exception):  # noqa: N818 - a state, not a fault
    """The queue hands out nothing any more: the worker ends."""


class WorkQueue(Generic[K]):
    """The queue of one controller.

    Args:
        name: label of its metrics.
        capacity: most keys known at once. A key beyond it is refused and counted; the resync brings it back, since
            its object is still in the cache.
        patience: seconds after which a waiting resync goes before changes, so that steady changes cannot starve it.
        now: monotonic seconds; has to run at the rate of the event loop's clock.
    """

    def __init__(
        self,
        name: str,
        *,
        back_off: BackOff | None = None,
        rng: random.Random | None = None,
        now: Callable[[], float] = time.monotonic,
        metrics: QueueMetrics | None = None,
        capacity: int = DEFAULT_CAPACITY,
        patience: float = DEFAULT_PATIENCE,
    ) -> None:
        self.name = name
        self._back_off = back_off or BackOff()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._now = now
        self._metrics: QueueMetrics = metrics or NoQueueMetrics()
        self._capacity = capacity
        self._patience = patience
        self._entries: dict[K, Entry] = {}
        self._lines: dict[Priority, OrderedDict[K, None]] = {priority: OrderedDict() for priority in Priority}
        self._due: DueTimes[K] = DueTimes(self._stands_for)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._closed = False
        self._refused = 0

    # -- adding ------------------------------------------------------------------------------------------------

    def add(self, key: K, priority: Priority = Priority.CHANGE) -> bool:
        """Ask for the key to run; a key that already waits keeps its place and takes the more urgent priority.

        A key that runs now runs again afterwards. A parked key is brought back by a change, not by a resync.

        Returns:
            False where the key was refused: the queue is closed or at its capacity.
        """
        entry = self._admit(key)
        if entry is None:
            return False
        self._metrics.added(self.name)
        self._want(key, entry, priority)
        return True

    def add_after(self, key: K, seconds: float, priority: Priority | None = None) -> bool:
        """Ask for the key to run after so many seconds; of several such wishes the earliest counts.

        Without a priority, a key that runs now keeps the one it runs at, and any other counts as a change.
        """
        if seconds <= 0:
            return self.add(key, self._kept_priority(key) if priority is None else priority)
        entry = self._admit(key)
        if entry is None:
            return False
        self._delay(key, entry, seconds, self._kept_priority(key) if priority is None else priority)
        return True

    def retry(self, key: K, retry_after: float | None = None, *, first: float | None = None) -> float:
        """Count a failure of a running key and put it off by its back-off, or by `retry_after` where that is longer.

        Args:
            key: a key that runs now.
            retry_after: seconds that the dependency asked for.
            first: seconds instead of the back-off for the first failure in a row.

        Returns:
            The delay in seconds.
        """
        entry = self._running(key)
        entry.failures += 1
        self._metrics.retried(self.name)
        delay = self._back_off.delay(entry.failures, self._rng)
        if first is not None and entry.failures == 1:
            delay = first
        delay = max(delay, retry_after or 0.0)
        self._delay(key, entry, delay, self._kept_priority(key))
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its back-off starts anew."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.failures = 0
            self._drop_if_idle(key, entry)

    def failures(self, key: K) -> int:
        """Failures of the key in a row."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.failures

    # -- working -----------------------------------------------------------------------------------------------

    async def get(self) -> K:
        """The next key; it is the caller's until `done` or `park`.

        Raises:
            QueueClosed: the queue hands out nothing any more.
        """
        while True:
            key = self.try_get()
            if key is not None:
                return key
            if self._closed:
                raise QueueClosed(self.name)
            await self._wait()

    def try_get(self) -> K | None:
        """The next key if one is ready now."""
        if self._closed:
            return None
        self._release_due()
        line = self._next_line()
        if line is None:
            return None
        key, _ = line.popitem(last=False)
        entry = self._entries[key]
        moment = self._now()
        entry.running, entry.ready, entry.running_since = entry.ready, None, moment
        self._metrics.started(self.name, max(0.0, moment - entry.ready_since))
        return key

    def done(self, key: K) -> None:
        """The worker gives the key back; it runs again at once where it was added meanwhile."""
        entry = self._stop_running(key)
        again, entry.again = entry.again, None
        if again is not None:
            self._make_ready(key, entry, again)
        self._drop_if_idle(key, entry)

    def park(self, key: K, timeout: float = DEFAULT_PARKING) -> None:
        """The worker gives the key back until `unpark`, a change, or so many seconds have passed."""
        priority = self._running(key).running
        entry = self._stop_running(key)
        again, entry.again = entry.again, None
        if again is Priority.CHANGE or priority is None:
            self._make_ready(key, entry, Priority.CHANGE)
            return
        entry.parked, entry.parked_until = priority, self._now() + timeout
        self._schedule(key, entry.parked_until)

    def unpark(self, key: K) -> None:
        """What a parked key waited for is there: it goes to the head of its line. Any other key is left as it is."""
        entry = self._entries.get(key)
        if entry is not None and entry.parked is not None:
            priority, entry.parked = entry.parked, None
            self._make_ready(key, entry, priority, first=True)

    def close(self) -> None:
        """Hand out nothing any more and end every `get`; keys that run may still be given back."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._wake_one()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # -- looking -----------------------------------------------------------------------------------------------

    def pending(self, key: K) -> bool:
        """Whether the key waits, is put off, parked, or will run again."""
        entry = self._entries.get(key)
        return entry is not None and not (entry.ready is entry.again is entry.parked is entry.due is None)

    def is_running(self, key: K) -> bool:
        """Whether a worker has the key."""
        entry = self._entries.get(key)
        return entry is not None and entry.running is not None

    def snapshot(self) -> QueueSnapshot:
        """Depths and times now; walks every known key, so it is for scrapes, not for the hot path."""
        moment = self._now()
        running = [moment - entry.running_since for entry in self._entries.values() if entry.running is not None]
        return QueueSnapshot(
            changes=len(self._lines[Priority.CHANGE]),
            resyncs=len(self._lines[Priority.RESYNC]),
            delayed=sum(entry.due is not None and entry.parked is None for entry in self._entries.values()),
            parked=sum(entry.parked is not None for entry in self._entries.values()),
            running=len(running),
            unfinished_seconds=sum(running),
            longest_running_seconds=max(running, default=0.0),
            refused=self._refused,
        )

    # -- inside ------------------------------------------------------------------------------------------------

    def _admit(self, key: K) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.running is not None:
            return entry
        if self._closed:
            return None
        if entry is None:
            if len(self._entries) >= self._capacity:
                self._refused += 1
                return None
            entry = self._entries[key] = Entry()
        return entry

    def _running(self, key: K) -> Entry:
        entry = self._entries.get(key)
        if entry is None or entry.running is None:
            raise ValueError(f"queue {self.name}: {key} is not running; give back only keys that get handed out, once")
        return entry

    def _stop_running(self, key: K) -> Entry:
        entry = self._running(key)
        self._metrics.finished(self.name, max(0.0, self._now() - entry.running_since))
        entry.running = None
        return entry

    def _kept_priority(self, key: K) -> Priority:
        entry = self._entries.get(key)
        return Priority.CHANGE if entry is None or entry.running is None else entry.running

    def _want(self, key: K, entry: Entry, priority: Priority) -> None:
        if entry.running is not None:
            entry.again = more_urgent(entry.again, priority)
        elif entry.ready is not None:
            if priority < entry.ready:
                del self._lines[entry.ready][key]
                entry.ready = priority
                self._lines[priority][key] = None
        elif entry.parked is None or priority is Priority.CHANGE:
            entry.parked = None
            self._make_ready(key, entry, priority)

    def _make_ready(self, key: K, entry: Entry, priority: Priority, *, first: bool = False) -> None:
        entry.ready, entry.ready_since = priority, self._now()
        line = self._lines[priority]
        line[key] = None
        if first:
            line.move_to_end(key, last=False)
        self._wake_one()

    def _next_line(self) -> OrderedDict[K, None] | None:
        changes, resyncs = self._lines[Priority.CHANGE], self._lines[Priority.RESYNC]
        if changes and resyncs:
            oldest = self._entries[next(iter(resyncs))].ready_since
            return resyncs if self._now() - oldest > self._patience else changes
        return changes or resyncs or None

    def _drop_if_idle(self, key: K, entry: Entry) -> None:
        if entry.idle:
            self._entries.pop(key, None)

    def _delay(self, key: K, entry: Entry, seconds: float, priority: Priority) -> None:
        due = self._now() + seconds
        entry.due_priority = priority if entry.due is None else min(entry.due_priority, priority)
        if entry.due is not None and entry.due <= due:
            return
        entry.due = due
        self._schedule(key, due)

    def _schedule(self, key: K, moment: float) -> None:
        self._due.add(key, moment, keys=len(self._entries))
        self._arm()

    def _stands_for(self, key: K, moment: float) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.stands_for(moment)

    def _release_due(self) -> None:
        for key, moment in self._due.until(self._now()):
            entry = self._entries.get(key)
            if entry is None:
                continue
            if entry.parked is not None and entry.parked_until == moment:
                priority, entry.parked = entry.parked, None
                self._make_ready(key, entry, priority)
            if entry.due == moment:
                entry.due = None
                if entry.parked is not None:
                    entry.due_priority, entry.parked = min(entry.parked, entry.due_priority), None
                self._want(key, entry, entry.due_priority)

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._arm()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.done() and not waiter.cancelled():
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """Keep one timer, for the earliest wish, while a worker waits."""
        due = self._due.earliest
        if not self._waiters or due is None or self._closed:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._now()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._release_due()
        self._arm()
