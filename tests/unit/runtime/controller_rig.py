"""One controller with a queue, a cache and an API server of its own, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from searchops.runtime.backoff import BackOff
from searchops.runtime.controller import Controller, ControllerOptions
from searchops.runtime.queue import WorkQueue
from unit.runtime.objects import FakeApi, make_cache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from searchops.runtime.errors import Terminal
    from searchops.runtime.key import Key
    from searchops.runtime.result import Result


class Rig:
    """One controller with everything around it; `times` are the moments at which reconciles began."""

    def __init__(self, reconcile: Callable[[Key], Awaitable[Result]], **options: Any) -> None:
        self.now = asyncio.get_running_loop().time
        self.api = FakeApi()
        self.cache = make_cache(now=self.now, guard_seconds=10)
        self.queue: WorkQueue[Key] = WorkQueue("things", back_off=BackOff(jitter=0.0), now=self.now)
        self.times: list[float] = []
        self.fatal: list[BaseException] = []
        self.terminal: list[tuple[Key, str]] = []
        self._reconcile = reconcile
        workers = options.pop("workers", 3)
        deadline = options.pop("deadline", 60.0)
        self.controller = Controller(
            "things",
            self.queue,
            self.cache,
            self.reconcile,
            read=options.pop("read", self.api.read),
            fatal=self.fatal.append,
            options=ControllerOptions(workers=workers, deadline=deadline, grace=5),
            on_terminal=options.pop("on_terminal", self.on_terminal),
            now=self.now,
            **options,
        )

    async def reconcile(self, key: Key) -> Result:
        self.times.append(round(self.now(), 2))
        return await self._reconcile(key)

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        self.terminal.append((key, error.reason))

    def seen(self, name: str = "a", **metadata: Any) -> None:
        self.cache.apply("MODIFIED", self.api.put(name, **metadata))

    async def run(self, seconds: float) -> None:
        task = asyncio.create_task(self.controller.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
