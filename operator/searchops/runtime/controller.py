"""The worker loop: takes keys off the queue, runs the reconcile, and maps whatever comes out to the key's next turn.

This is the one edge where exceptions are caught. Cancellation passes through; a key that was being worked on when its
worker died or was cancelled goes back to the queue first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from searchops.runtime.cache import CachedObject, Freshness, ObjectCache
from searchops.runtime.dependency import Dependencies, Dependency, DependencyBusy, current_holder
from searchops.runtime.errors import Conflict, NotReady, ReconcileError, Terminal, Transient
from searchops.runtime.instruments import NoReconcileMetrics, ReconcileMetrics, ReconcileOutcome
from searchops.runtime.queue import QueueClosed, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from searchops.runtime.key import Key
    from searchops.runtime.result import Result

logger = logging.getLogger(__name__)

BEHIND_DELAY = 1.0
CONFLICT_DELAY = 0.1


class Gate(Protocol):
    """Something that has to be open before any worker runs, such as the full-cache barrier."""

    async def wait(self) -> None:
        """Return once it is open."""
        ...


class OnTerminal(Protocol):
    """Writes a terminal error down where people see it: a condition, and an event."""

    async def __call__(self, key: Key, error: Terminal) -> None:
        """Write it; what it raises is handled as if the reconcile had raised it."""
        ...


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Bounds of one controller; times in seconds.

    Attributes:
        workers: keys worked on at once.
        deadline: how long one reconcile may take; past it, its effect is unknown and the key backs off.
        grace: how long running reconciles may go on after the controller was told to stop.
    """

    workers: int = 10
    deadline: float = 120.0
    grace: float = 5.0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.deadline <= 0 or self.grace < 0:
            raise ValueError(f"{self!r}: wanted at least one worker, a deadline > 0 and a grace >= 0")


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a key goes back to the queue."""

    outcome: ReconcileOutcome | None = None
    after: float | None = None
    failed: bool = False
    first_delay: float | None = None
    keep_failures: bool = False
    park_on: Dependency | None = None


def _scope(controller: str, key: Key) -> AbstractContextManager[object]:
    del controller, key
    return nullcontext()


class Controller:
    """Workers of one kind.

    Args:
        name: label of its logs and metrics.
        queue: its keys.
        cache: its kind's cache: the guard skips keys whose cached object is older than our last write.
        reconcile: one pass over one key.
        read: the live object, or None on 404; used when the guard waited too long, and after a Conflict.
        on_terminal: see `OnTerminal`. The key is then left alone until its generation, annotations or labels change,
            or it is deleted.
        dependencies: where busy reconciles are parked.
        gate: open before any worker runs.
        fatal: told when a worker died; it ends the process, since nobody else would notice.
        scope: entered around each reconcile, to bind its id in logs.
    """

    def __init__(
        self,
        name: str,
        queue: WorkQueue[Key],
        cache: ObjectCache[Any],
        reconcile: Callable[[Key], Awaitable[Result]],
        *,
        read: Callable[[Key], Awaitable[Mapping[str, Any] | None]],
        fatal: Callable[[BaseException], None],
        options: ControllerOptions | None = None,
        on_terminal: OnTerminal | None = None,
        dependencies: Dependencies | None = None,
        gate: Gate | None = None,
        metrics: ReconcileMetrics | None = None,
        scope: Callable[[str, Key], AbstractContextManager[object]] = _scope,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._queue = queue
        self._cache = cache
        self._reconcile = reconcile
        self._fatal = fatal
        self._options = options or ControllerOptions()
        self._read = read
        self._on_terminal = on_terminal
        self._dependencies = dependencies or Dependencies(now=now)
        self._gate = gate
        self._metrics: ReconcileMetrics = metrics or NoReconcileMetrics()
        self._scope = scope
        self._now = now
        self._given_up: dict[Key, object] = {}

    async def run(self) -> None:
        """Work until `stop`, or until cancelled; in both cases keys that were being worked on go back to the queue.

        Raises:
            BaseException: what killed a worker, after `fatal` was told.
        """
        if self._gate is not None:
            await self._gate.wait()
        self._metrics.workers(self.name, self._options.workers)
        workers = [
            asyncio.create_task(self._work(), name=f"{self.name}-worker-{number}")
            for number in range(self._options.workers)
        ]
        try:
            done, running = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            if running and self._queue.closed and not _crash(done):
                more, running = await asyncio.wait(running, timeout=self._options.grace)
                done |= more
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        crash = _crash(done)
        if crash is None and not self._queue.closed:
            crash = RuntimeError(f"{self.name}: a worker ended while its queue was open; wanted it to run until stop()")
        if crash is not None:
            logger.critical("a worker died; the process ends", exc_info=crash, extra={"controller": self.name})
            self._fatal(crash)
            raise crash

    def stop(self) -> None:
        """Hand out no more keys; `run` returns when those being worked on are finished, or the grace has passed."""
        self._queue.close()

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except QueueClosed:
                return
            turn: _Turn | None = None
            self._metrics.busy(self.name, 1)
            try:
                turn = await self._take_turn(key)
            finally:
                self._metrics.busy(self.name, -1)
                self._give_back(key, turn)

    async def _take_turn(self, key: Key) -> _Turn:
        if self._waits_for_change(key):
            return _Turn()
        match self._cache.freshness(key):
            case Freshness.BEHIND:
                return _Turn(after=BEHIND_DELAY, keep_failures=True)
            case Freshness.OVERDUE if not await self._reread(key):
                return _Turn(failed=True)
        start = self._now()
        holder = current_holder.set((self.name, key))
        try:
            with self._scope(self.name, key):
                turn = await self._attempt(key)
        finally:
            current_holder.reset(holder)
        if turn.outcome is not None:
            self._metrics.reconciled(self.name, turn.outcome, self._now() - start)
        return turn

    async def _attempt(self, key: Key) -> _Turn:
        """Reconcile under the deadline; a terminal error is written down in the same way."""
        try:
            async with asyncio.timeout(self._options.deadline):
                try:
                    result = await self._reconcile(key)
                except Terminal as error:
                    await self._give_up(key, error)
                    return _Turn(outcome="error")
        except DependencyBusy as busy:
            return _Turn(park_on=busy.dependency)
        except NotReady as wait:
            logger.info(
                "waiting", extra={"reason": wait.reason, "detail": wait.message, "retry_after": wait.retry_after}
            )
            return _Turn(outcome="requeue_after", after=wait.retry_after)
        except Conflict as conflict:
            logger.info("somebody else wrote first; reading again", extra={"detail": conflict.message})
            await self._reread(key)
            return _Turn(outcome="requeue", failed=True, first_delay=CONFLICT_DELAY)
        except Transient as error:
            return self._failure(_Turn(outcome="error", failed=True, after=error.retry_after), error)
        except TimeoutError as error:
            return self._failure(_Turn(outcome="error", failed=True), error)
        except Exception as error:
            logger.exception("a reconcile failed in a way that nobody foresaw; it backs off", exc_info=error)
            self._metrics.failed(self.name, terminal=False)
            return _Turn(outcome="error", failed=True)
        if result.requeue_after is None:
            return _Turn(outcome="success")
        return _Turn(outcome="requeue_after", after=result.requeue_after)

    def _failure(self, turn: _Turn, error: Exception) -> _Turn:
        detail = str(error) or f"no end within {self._options.deadline:g} s; its effect is unknown and is read back"
        logger.warning("a reconcile failed; it backs off", extra={"detail": detail, "retry_after": turn.after})
        self._metrics.failed(self.name, terminal=False)
        return turn

    async def _give_up(self, key: Key, error: Terminal) -> None:
        """Write the error down, then leave the key alone until its object changes."""
        logger.error("trying again cannot help", extra={"reason": error.reason, "detail": error.message})
        self._metrics.failed(self.name, terminal=True)
        seen = _fingerprint(self._cache.get(key))
        if self._on_terminal is not None:
            await self._on_terminal(key, error)
        if seen is not None:
            self._given_up[key] = seen

    def _waits_for_change(self, key: Key) -> bool:
        given_up = self._given_up.get(key)
        if given_up is None:
            return False
        if given_up == _fingerprint(self._cache.get(key)):
            return True
        del self._given_up[key]
        return False

    async def _reread(self, key: Key) -> bool:
        """Read the object live into the cache; False where that failed and the cache is as it was."""
        cached = self._cache.get(key)
        if cached is None:
            return True
        try:
            async with asyncio.timeout(self._options.deadline):
                live = await self._read(key)
        except (ReconcileError, TimeoutError) as error:
            logger.warning("a live read failed", extra={"key": str(key), "detail": str(error) or "timed out"})
            return False
        self._cache.accept_live(key, cached.uid, live)
        return True

    def _give_back(self, key: Key, turn: _Turn | None) -> None:
        """Return the key; no turn means that the worker died or was cancelled, so the key has to run again."""
        holder = (self.name, key)
        if turn is not None and turn.park_on is not None:
            self._queue.park(key)
            self._dependencies.enlist(turn.park_on, holder, lambda: self._queue.unpark(key))
            return
        if turn is None:
            self._queue.add(key)
        elif turn.failed:
            self._queue.retry(key, turn.after, first=turn.first_delay)
        else:
            if not turn.keep_failures:
                self._queue.forget(key)
            if turn.after is not None:
                self._queue.add_after(key, turn.after)
        self._queue.done(key)
        self._dependencies.withdraw(holder)


def _fingerprint(cached: CachedObject | None) -> object | None:
    """What a person can change of an object: generation covers the spec, the rest lives beside it."""
    if cached is None:
        return None
    return cached.uid, cached.generation, cached.deleting, dict(cached.annotations), dict(cached.labels)


def _crash(done: set[asyncio.Task[None]]) -> BaseException | None:
    for worker in done:
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            return error
    return None
