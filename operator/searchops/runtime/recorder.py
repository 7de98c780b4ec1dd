"""Kubernetes events, on transitions only: from a closed list, de-duplicated, rate-limited, and never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchops.runtime.errors import ReconcileError, describe
from searchops.runtime.instruments import EventMetrics, NoEventMetrics
from searchops.runtime.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

logger = logging.getLogger(__name__)

MAX_MESSAGE = 1024
"""Characters that the API server takes as an event's note."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `reference` names the object by apiVersion, kind, namespace, name and uid."""

    reference: Mapping[str, str]
    reason: str
    message: str
    warning: bool


class EventSink(Protocol):
    """Where events are written."""

    async def publish(self, event: Event) -> None:
        """Write one event; raises `Transient` or another of the taxonomy where that failed."""
        ...


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Bounds: events in the queue, objects remembered, events a second and at once, of all and of one object."""

    queue: int = 1_000
    remembered: int = 10_000
    rate: float = 5.0
    burst: int = 100
    object_rate: float = 1 / 60
    object_burst: int = 25
    repeat_after: float = 300.0


@dataclass(slots=True)
class _Memory:
    bucket: TokenBucket
    said: dict[str, tuple[str, float]]


class EventRecorder:
    """Takes events without waiting and writes them one after another.

    The same reason and message of the same object is written again only after `repeat_after` seconds, or when the
    reason came with another message in between. What is over a limit is dropped and counted: conditions hold the state.

    Args:
        sink: the API server.
        reasons: the closed list.
        redact: takes secrets out of a message.
        metrics: told of what is dropped.
        now: monotonic seconds; has to run at the rate of the event loop's clock.
    """

    def __init__(
        self,
        sink: EventSink,
        reasons: Collection[str],
        *,
        limits: RecorderLimits | None = None,
        redact: Callable[[str], str] = lambda message: message,
        metrics: EventMetrics | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._reasons = frozenset(str(reason) for reason in reasons)
        self._limits = limits or RecorderLimits()
        self._redact = redact
        self._metrics: EventMetrics = metrics or NoEventMetrics()
        self._now = now
        self._bucket = TokenBucket(self._limits.rate, self._limits.burst, now=now)
        self._memories: OrderedDict[str, _Memory] = OrderedDict()
        self._queue: deque[Event] = deque()
        self._something = asyncio.Event()

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        """Queue an event; never blocks.

        Raises:
            ValueError: the reason is not in the closed list.
        """
        if reason not in self._reasons:
            wanted = "one of the list given to the recorder"
            raise ValueError(describe(f"event reason {reason!r}", wanted=wanted, next_step="Add it to the list."))
        text = self._redact(message)
        text = text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
        memory = self._remember(reference.get("uid") or repr(sorted(reference.items())))
        said = memory.said.get(reason)
        moment = self._now()
        if said is not None and said[0] == text and moment - said[1] < self._limits.repeat_after:
            self._metrics.dropped("repeated")
        elif not memory.bucket.try_acquire():
            self._metrics.dropped("rate")
        elif len(self._queue) >= self._limits.queue:
            self._metrics.dropped("full")
        else:
            memory.said[reason] = (text, moment)
            self._queue.append(Event(dict(reference), str(reason), text, warning))
            self._something.set()

    async def run(self) -> None:
        """Write events for ever; one that cannot be written is dropped."""
        while True:
            await self._something.wait()
            while self._queue:
                await self._bucket.acquire()
                await self._publish(self._queue.popleft())
            self._something.clear()

    async def flush(self, seconds: float) -> None:
        """Write what is queued, for so many seconds at most; for the end of the process."""
        try:
            async with asyncio.timeout(seconds):
                while self._queue:
                    await self._publish(self._queue.popleft())
        except TimeoutError:
            logger.warning("events were not written before the end", extra={"left": len(self._queue)})

    async def _publish(self, event: Event) -> None:
        try:
            await self._sink.publish(event)
        except (ReconcileError, TimeoutError) as error:
            self._metrics.dropped("refused")
            logger.warning("an event was not written", extra={"reason": event.reason, "detail": str(error)})

    def _remember(self, subject: str) -> _Memory:
        memory = self._memories.get(subject)
        if memory is None:
            bucket = TokenBucket(self._limits.object_rate, self._limits.object_burst, now=self._now)
            memory = self._memories[subject] = _Memory(bucket, {})
            if len(self._memories) > self._limits.remembered:
                self._memories.popitem(last=False)
        self._memories.move_to_end(subject)
        return memory
