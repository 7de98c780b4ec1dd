"""An operator that is killed at every step of a rollout ends where one that was left alone ends.

The demo's story, shortened to one model that is promoted and one that is refused, is told while the operator is sent
SIGKILL and started again: soon after each new step of the model, and at random moments until it was ten times.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from searchops_sandbox.demo.platform import FLEET, Platform
from searchops_sandbox.demo.shoppers import MERCHANTS
from searchops_sandbox.demo.story import MODEL, POLL_SECONDS, STEP_SECONDS, Story
from searchops_sandbox.fixtures.tenants import DEMO_TENANTS
from searchops_sandbox.leaks import leaks
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.registration import NAMESPACE
from searchops_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1500)]

KILLS = 10
SEED = 20261124
NAMES = sorted(tenant.name for tenant in DEMO_TENANTS)


class ShortStory(Story):
    """r1 is promoted, r4 is refused, the commit is reverted; an operator that is not running is no reason to stop."""

    async def tell_shortly(self) -> None:
        """The steps, with shoppers who search all the while."""
        await asyncio.to_thread(self._platform.buckets.fill, ("r1", "r4"))
        async with self.shoppers:
            await self.tenants_serve_lexically()
            async with self._browsing():
                await self.first_model()
                await self.worse_model()
                await self._apply("models/shop-encoder-r1.yaml")
                await self._until("the model is Ready again", self._model_ready)

    def _model_ready(self) -> bool:
        status = self.view.model.get("status", {})
        seen = status.get("observedGeneration") == self.view.model.get("metadata", {}).get("generation")
        return seen and any(one["type"] == "Ready" and one["status"] == "True" for one in status["conditions"])

    async def _until(self, what: str, holds: Callable[[], bool], *, seconds: float = STEP_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        await self._read()
        while not holds():
            if time.monotonic() > deadline:
                raise SandboxError(f"not within {seconds:g} s: {what}\n{self._state()}\n{self._platform.tail()}")
            await asyncio.sleep(POLL_SECONDS)
            await self._read()


@dataclass
class Killer:
    """Kills the operator soon after each new step of the model, and at random moments until it was often enough."""

    platform: Platform
    story: ShortStory
    rng: random.Random
    kills: list[str] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until the story is told and the operator was killed often enough."""
        seen: set[str] = set()
        while not (self.told.is_set() and len(self.kills) >= KILLS):
            step = self._step()
            if step not in seen or self.told.is_set():
                seen.add(step)
                await asyncio.sleep(self.rng.uniform(0.0, 3.0))
                await self._kill(step)
            else:
                await asyncio.sleep(0.2)

    def _step(self) -> str:
        status: dict[str, Any] = self.story.view.model.get("status", {})
        candidate = (status.get("candidate") or {}).get("revision", "none")
        wave = (status.get("wave") or {}).get("name", "-")
        return f"candidate {candidate}, phase {status.get('phase')}, wave {wave}"

    async def _kill(self, step: str) -> None:
        await self.platform.kill_operator()
        self.kills.append(step)
        await self.platform.start_operator()


@asynccontextmanager
async def _killing(platform: Platform, story: ShortStory) -> AsyncIterator[Killer]:
    killer = Killer(platform, story, random.Random(SEED))
    task = asyncio.create_task(killer.run())
    try:
        yield killer
        killer.told.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_killed_ten_times_nothing_changes_in_the_end_state() -> None:
    sandbox = Sandbox()
    platform = Platform(sandbox)
    said: list[str] = []
    async with platform:
        story = ShortStory(platform, say=said.append)
        async with _killing(platform, story) as killer:
            await story.tell_shortly()
        assert len(killer.kills) >= KILLS
        phases = {step.split("phase ")[1].split(",")[0] for step in killer.kills}
        assert {"Building", "Gating", "Rolling"} <= phases, killer.kills
        await _settled(platform)
        assert story.outcome.promoted == [f"{MODEL}-r1-{_digest8(story, 'active')}"]
        await _model_is_as_undisturbed(platform, story)
        await _tenants_are_as_undisturbed(platform, story.outcome.promoted[0])
        await _nothing_is_there_twice(platform, story)
        await _searches_hold(story)
        assert await leaks(sandbox) == []
        assert story.shoppers.failed == []
        assert story.shoppers.asked > 0
        assert story.outcome.searches_ok == story.outcome.searches_total
    assert _processes_of(sandbox.folder) == []


def _digest8(story: ShortStory, which: str) -> str:
    digest = story.view.model["status"][which]["digest"]
    return str(digest).removeprefix("sha256:")[:8]


async def _searches_hold(story: ShortStory) -> None:
    """The same searches find sensible products after the last kill."""
    async with story.shoppers:
        await story.check_searches(story.searches)


async def _settled(platform: Platform) -> None:
    """The operator that was started last has worked on every object: nothing waits for it any more."""
    deadline = time.monotonic() + 120
    while True:
        tenants = await platform.objects("searchtenants")
        models = await platform.objects("embeddingmodels")
        fine = [_ready(item) for item in [*tenants, *models]]
        if len(fine) == len(NAMES) + 1 and all(fine):
            break
        assert time.monotonic() < deadline, platform.tail()
        await asyncio.sleep(1.0)
    await asyncio.sleep(5.0)


def _ready(item: dict[str, Any]) -> bool:
    status = item.get("status", {})
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))


async def _model_is_as_undisturbed(platform: Platform, story: ShortStory) -> None:
    (model,) = await platform.objects("embeddingmodels")
    status = model["status"]
    assert status["active"]["revision"] == story.outcome.promoted[0]
    assert status["active"]["number"] == 1
    assert status["nextNumber"] == 3, "a number was used twice or left out"
    assert [item["revision"] for item in status["rejected"]] == story.outcome.rejected
    assert story.outcome.rejected[0].startswith(f"{MODEL}-r2-")
    assert "candidate" not in status
    events = [(item["revision"], item["event"]) for item in status["history"]]
    assert [pair for pair, count in Counter(events).items() if count > 1] == []
    assert (story.outcome.promoted[0], "Promoted") in events
    assert (story.outcome.rejected[0], "Rejected") in events


async def _tenants_are_as_undisturbed(platform: Platform, revision: str) -> None:
    tenants = await platform.objects("searchtenants")
    assert sorted(item["metadata"]["name"] for item in tenants) == NAMES
    for item in tenants:
        assert _ready(item), item["status"]
        assert item["status"]["binding"]["revision"] == revision
        assert "rebuild" not in item["status"]


async def _nothing_is_there_twice(platform: Platform, story: ShortStory) -> None:
    reindexes = await platform.objects("reindexjobs")
    assert sorted(item["spec"]["tenant"] for item in reindexes) == NAMES
    assert {item["status"]["phase"] for item in reindexes} == {"Switched"}
    async with platform.sandbox.api() as api:
        jobs = (await api.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"))["items"]
    kinds = Counter(job["metadata"]["labels"]["searchops.dev/task"] for job in jobs)
    assert kinds == {"build": 2, "evaluate": 2, "reindex": len(NAMES)}
    collections: list[str] = []
    for cell in platform.sandbox.cells.values():
        collections += await _collections(cell.rest_url, cell.api_key)
    tenants = sorted(name.split("@")[0] for name in collections if name.startswith(f"{FLEET}."))
    assert tenants == [f"{FLEET}.{MERCHANTS}.{name}" for name in NAMES]


async def _collections(url: str, key: str) -> list[str]:
    import httpx

    async with httpx.AsyncClient(headers={"api-key": key}) as client:
        answer = await client.get(f"{url}/collections")
    return [item["name"] for item in answer.json()["result"]["collections"]]


def _processes_of(folder: Path) -> list[str]:
    """Processes whose command or environment names the sandbox's folder."""
    left = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            left.append(" ".join(process.cmdline())[:200])
    return left
