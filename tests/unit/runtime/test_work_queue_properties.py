"""The work queue against a naive model of it, driven by random histories."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from searchops.runtime.queue import Priority, WorkQueue

KEYS = st.sampled_from(["a", "b", "c", "d"])
PRIORITIES = st.sampled_from(list(Priority))
PARKING = 60.0


class QueueAgainstModel(RuleBasedStateMachine):
    """`ready`, `again`, `parked` and `due` say for each key what the queue still owes it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.queue: WorkQueue[str] = WorkQueue(
            "test", rng=random.Random(7), now=lambda: self.now, patience=float("inf")
        )
        self.running: dict[str, Priority] = {}
        self.ready: dict[str, Priority] = {}
        self.again: dict[str, Priority] = {}
        self.parked: dict[str, tuple[Priority, float]] = {}
        self.due: dict[str, tuple[float, Priority]] = {}

    def want(self, key: str, priority: Priority, *, unparks: bool) -> None:
        if key in self.running:
            self.again[key] = min(priority, self.again.get(key, priority))
        elif key in self.parked and not unparks:
            return
        else:
            parked = self.parked.pop(key, None)
            if parked is not None and priority is not Priority.CHANGE:
                priority = min(priority, parked[0])
            self.ready[key] = min(priority, self.ready.get(key, priority))

    def mature(self) -> None:
        for key, (moment, priority) in list(self.due.items()):
            if moment <= self.now:
                del self.due[key]
                self.want(key, priority, unparks=True)
        for key, (priority, until) in list(self.parked.items()):
            if until <= self.now:
                del self.parked[key]
                self.ready[key] = min(priority, self.ready.get(key, priority))

    def delay(self, key: str, seconds: float, priority: Priority) -> None:
        moment, known = self.due.get(key, (float("inf"), priority))
        self.due[key] = (min(moment, self.now + seconds), min(known, priority))

    @rule(key=KEYS, priority=PRIORITIES)
    def add(self, key: str, priority: Priority) -> None:
        assert self.queue.add(key, priority)
        self.want(key, priority, unparks=priority is Priority.CHANGE)

    @rule(key=KEYS, seconds=st.floats(0.1, 100), priority=PRIORITIES)
    def add_after(self, key: str, seconds: float, priority: Priority) -> None:
        assert self.queue.add_after(key, seconds, priority)
        self.delay(key, seconds, priority)

    @rule()
    def take(self) -> None:
        self.mature()
        key = self.queue.try_get()
        if key is None:
            assert not self.ready, "a key was ready and was not handed out"
            return
        assert key not in self.running, "a key ran twice at once"
        assert key in self.ready, "a key ran that nobody asked for"
        priority = self.ready.pop(key)
        if priority is Priority.RESYNC:
            assert Priority.CHANGE not in self.ready.values(), "a resync went before a change"
        self.running[key] = priority

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["done", "retry", "crash", "park"]))
    def give_back(self, data: st.DataObject, how: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        priority = self.running.pop(key)
        if how == "retry":
            self.delay(key, self.queue.retry(key), priority)
        elif how == "crash":
            self.queue.add(key)
            self.again[key] = Priority.CHANGE
        else:
            self.queue.forget(key)
        again = self.again.pop(key, None)
        if how == "park":
            self.queue.park(key, PARKING)
            if again is not Priority.CHANGE:
                self.parked[key] = (priority, self.now + PARKING)
                again = None
        else:
            self.queue.done(key)
        if again is not None:
            self.ready[key] = again

    @rule(key=KEYS)
    def unpark(self, key: str) -> None:
        self.queue.unpark(key)
        if key in self.parked:
            priority, _ = self.parked.pop(key)
            self.ready[key] = priority

    @rule(seconds=st.floats(0.0, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def owes_what_the_model_owes(self) -> None:
        for key in ("a", "b", "c", "d"):
            owed = any(key in owing for owing in (self.ready, self.again, self.parked, self.due))
            assert self.queue.pending(key) == owed
            assert self.queue.is_running(key) == (key in self.running)

    def teardown(self) -> None:
        """Everything that is owed runs in the end."""
        owed = {key for owing in (self.ready, self.again, self.parked, self.due) for key in owing}
        for key in list(self.running):
            self.queue.done(key)
        self.now += 1_000.0
        ran = set()
        while (taken := self.queue.try_get()) is not None:
            ran.add(taken)
            self.queue.done(taken)
        assert owed <= ran
        snapshot = self.queue.snapshot()
        assert (snapshot.depth, snapshot.delayed, snapshot.parked, snapshot.running) == (0, 0, 0, 0)


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
