"""A semaphore and a circuit breaker for each thing outside that reconciles depend on.

A reconcile takes a slot around its calls: ``async with dependencies.slot("cell/eu-1"): …``. Where no slot is free, or
the breaker is open, the slot raises `DependencyBusy`; the controller parks the key on the dependency's own line, so
that it holds no worker, and the key comes back with a slot kept for it. One dependency that stops answering thus holds
back only the keys that need it. Outside a reconcile (a sweep, say) a slot is waited for in place, for a bounded time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from searchops.runtime.backoff import BackOff
from searchops.runtime.errors import NotReady, Transient, describe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable

current_holder: ContextVar[Hashable | None] = ContextVar("searchops_runtime_holder", default=None)
"""Who asks for slots in this context: set by the controller around each reconcile."""


class BreakerState(StrEnum):
    """Closed lets everyone through, open nobody, half-open one at a time until it is known to answer again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Held:
    """A slot that is held.

    Attributes:
        judges: whether what happens under it says anything of the dependency; False while something else is read.
    """

    judges: bool = True


class DependencyBusy(Exception):  # noqa: N818 - a state, not a fault
    """No slot is free now: the controller parks the key. Reconciles let it pass."""

    def __init__(self, dependency: Dependency) -> None:
        super().__init__(f"{dependency.name} has no slot free ({dependency.state})")
        self.dependency = dependency


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls at once, after how many failures in a row the breaker opens, and for how long."""

    concurrency: int = 1
    failures_to_open: int = 5
    open_for: BackOff = field(default_factory=lambda: BackOff(base=1.0, cap=60.0))

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.failures_to_open < 1:
            raise ValueError(f"{self!r}: wanted at least one call at once and at least one failure to open")


@dataclass(frozen=True, slots=True)
class DependencySnapshot:
    """One dependency at one moment."""

    name: str
    state: BreakerState
    in_use: int
    waiting: int


class Dependency:
    """One thing outside, with its slots, its line of parked holders and its breaker."""

    def __init__(
        self, name: str, limits: Limits, *, rng: random.Random, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._limits = limits
        self._rng = rng
        self._now = now
        self._in_use = 0
        self._line: OrderedDict[Hashable, Callable[[], None]] = OrderedDict()
        self._kept: dict[Hashable, Callable[[], None]] = {}
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._openings = 0
        self._open_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> BreakerState:
        """The breaker as it is now."""
        if self._state is BreakerState.OPEN and self._now() >= self._open_until:
            self._state = BreakerState.HALF_OPEN
        return self._state

    @property
    def idle(self) -> bool:
        """Nobody uses it, waits for it, or has a slot kept."""
        return not (self._in_use or self._line or self._kept)

    def snapshot(self) -> DependencySnapshot:
        """State and counts for metrics."""
        return DependencySnapshot(self.name, self.state, self._in_use, len(self._line))

    @asynccontextmanager
    async def slot(self, *, patience: float = 30.0) -> AsyncGenerator[Held]:
        """Hold one slot. A `Transient`, a timeout or a cancellation inside counts as no answer; anything else as one.

        A `Transient` that knows of an answer, or of no call, counts as what it says. Nothing counts while
        `Held.judges` is False.

        Args:
            patience: seconds to wait in place, where no controller is there to park the caller.

        Raises:
            DependencyBusy: inside a reconcile, where no slot is free.
            NotReady: outside a reconcile, where none got free in time.
        """
        holder = current_holder.get()
        if holder is None:
            await self._wait_in_place(patience)
        elif not self._take(holder):
            raise DependencyBusy(self)
        answered: bool | None = False
        held = Held()
        try:
            yield held
            answered = True
        except Transient as error:
            answered = error.answered
            raise
        except (TimeoutError, asyncio.CancelledError):
            raise
        except BaseException:
            answered = True
            raise
        finally:
            self._release(answered=answered if held.judges else None)

    def enlist(self, holder: Hashable, wake: Callable[[], None]) -> None:
        """Queue up for a slot; `wake` is called once when one is kept. A known holder keeps its place."""
        if holder not in self._kept:
            self._line[holder] = wake
            self._pump()

    def withdraw(self, holder: Hashable) -> None:
        """Leave the line and give back a slot that was kept but is not needed."""
        self._line.pop(holder, None)
        if self._kept.pop(holder, None) is not None:
            self._pump()

    def close(self) -> None:
        """Stop the timer that ends an open breaker's rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _free(self) -> int:
        match self.state:
            case BreakerState.OPEN:
                capacity = 0
            case BreakerState.HALF_OPEN:
                capacity = 1
            case BreakerState.CLOSED:
                capacity = self._limits.concurrency
        return capacity - self._in_use - len(self._kept)

    def _take(self, holder: Hashable) -> bool:
        self._pump()
        wake = self._kept.pop(holder, None)
        if wake is not None and self.state is BreakerState.OPEN:
            self._line[holder] = wake
            self._line.move_to_end(holder, last=False)
            self._arm()
            return False
        if wake is None and self._free() <= 0:
            return False
        self._in_use += 1
        return True

    def _release(self, *, answered: bool | None) -> None:
        self._in_use -= 1
        state = self.state
        if answered is None:
            pass
        elif answered:
            self._failures = 0
            if state is not BreakerState.OPEN:
                self._state = BreakerState.CLOSED
                self._openings = 0
        elif state is not BreakerState.OPEN:
            self._failures += 1
            if state is BreakerState.HALF_OPEN or self._failures >= self._limits.failures_to_open:
                self._open()
        self._pump()

    def _open(self) -> None:
        self._openings += 1
        self._failures = 0
        self._state = BreakerState.OPEN
        self._open_until = self._now() + self._limits.open_for.delay(self._openings, self._rng)

    def _pump(self) -> None:
        """Keep free slots for those at the head of the line and wake them."""
        while self._line and self._free() > 0:
            holder, wake = self._line.popitem(last=False)
            self._kept[holder] = wake
            wake()
        self._arm()

    def _arm(self) -> None:
        if not self._line or self._timer is not None or self._state is not BreakerState.OPEN:
            return
        delay = max(0.0, self._open_until - self._now())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    async def _wait_in_place(self, patience: float) -> None:
        holder = object()
        if self._take(holder):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.enlist(holder, lambda: None if turn.done() else turn.set_result(None))
        try:
            async with asyncio.timeout(patience):
                await turn
            if self._take(holder):
                return
        except TimeoutError:
            pass
        finally:
            self.withdraw(holder)
        seen = f"{self.name} had no slot free for {patience:g} s ({self.state}, {self._in_use} in use)"
        raise NotReady("DependencyBusy", describe(seen, wanted="one", next_step="It is tried again by itself."))


class Dependencies:
    """Every dependency by name, made when first asked for.

    Args:
        limits: the limits of a name; called once for each.
    """

    def __init__(
        self,
        limits: Callable[[str], Limits] = lambda _: Limits(),
        *,
        rng: random.Random | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._now = now
        self._known: dict[str, Dependency] = {}
        self._lines: dict[Hashable, set[Dependency]] = {}

    def get(self, name: str) -> Dependency:
        """The dependency of that name."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = Dependency(name, self._limits(name), rng=self._rng, now=self._now)
        return found

    @asynccontextmanager
    async def slot(self, name: str, *, patience: float = 30.0) -> AsyncGenerator[Held]:
        """Hold one slot of the dependency of that name; see `Dependency.slot`."""
        async with self.get(name).slot(patience=patience) as held:
            yield held

    def enlist(self, dependency: Dependency, holder: Hashable, wake: Callable[[], None]) -> None:
        """Queue the holder up at this dependency and take it off every other line."""
        self.withdraw(holder, keep=dependency)
        self._lines.setdefault(holder, set()).add(dependency)
        dependency.enlist(holder, wake)

    def withdraw(self, holder: Hashable, *, keep: Dependency | None = None) -> None:
        """Take the holder off every line but one, and give back what was kept for it."""
        lines = self._lines.pop(holder, None)
        if lines is None:
            return
        for dependency in lines:
            if dependency is keep:
                self._lines.setdefault(holder, set()).add(dependency)
            else:
                dependency.withdraw(holder)

    def retain(self, wanted: Callable[[str], bool]) -> None:
        """Forget idle dependencies whose name is not wanted any more."""
        for name in [name for name, known in self._known.items() if known.idle and not wanted(name)]:
            self._known.pop(name).close()

    def snapshots(self) -> list[DependencySnapshot]:
        """Every dependency for metrics."""
        return [dependency.snapshot() for dependency in self._known.values()]

    def close(self) -> None:
        """Stop every timer."""
        for dependency in self._known.values():
            dependency.close()
