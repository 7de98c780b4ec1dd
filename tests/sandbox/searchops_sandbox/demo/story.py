"""The story, step by step; each step waits for what the platform says of itself, and fails with what was seen."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from searchops.cli.plan import rollout_lines
from searchops_sandbox.demo.buckets import EXAMPLES
from searchops_sandbox.demo.shoppers import Shoppers
from searchops_sandbox.fixtures.products import catalogue
from searchops_sandbox.fixtures.tenants import DEMO_TENANTS, demo_searches
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from searchops_sandbox.demo.platform import Platform
    from searchops_sandbox.fixtures.tenants import DemoSearch

MODEL = "shop-encoder"
STEP_SECONDS = 600.0
POLL_SECONDS = 0.5
SHOWN_HITS = 3
UNLOADED_SECONDS = 30.0
KILLED_SECONDS = 30.0
"""What a kill of the operator may add, until another one has its Lease."""
CHAPTERS = ("", "tenants", "r1", "r2", "r3", "r4", "reverted", "again", "told")


@dataclass(slots=True)
class Outcome:
    """What the demo's last line says."""

    tenants_ready: int = 0
    promoted: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    searches_ok: int = 0
    searches_total: int = 0
    lost_searches_during_flips: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class View:
    """What a watcher is shown: the objects as they are, and what the story is doing.

    Attributes:
        chapter: one of `CHAPTERS`.
        step: the same, for people.
    """

    chapter: str = CHAPTERS[0]
    step: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    tenants: list[dict[str, Any]] = field(default_factory=list)
    reindexes: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Story:
    """Tells the story on a running platform.

    Args:
        say: called with each line for people.
        show: called with the view whenever it was read anew.
        patient: an operator that is not running is no reason to stop: somebody starts it again.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        say: Callable[[str], None],
        show: Callable[[View], None] = lambda _: None,
        patient: bool = False,
    ) -> None:
        self._platform = platform
        self._patient = patient
        self._say = say
        self._show = show
        self.view = View()
        self.outcome = Outcome()
        self.searches: tuple[DemoSearch, ...] = demo_searches(catalogue())
        self.shoppers = Shoppers(platform)

    async def tell(self) -> Outcome:
        """The whole story.

        Raises:
            SandboxError: it did not hold; with what was seen and the end of the logs.
        """
        started = time.monotonic()
        await asyncio.to_thread(self._platform.buckets.fill)
        async with self.shoppers:
            await self.tenants_serve_lexically()
            async with self._browsing():
                await self.first_model()
                await self.repackaged_model()
                await self.better_model()
                await self.worse_model()
                await self.reverted()
                await self.evaluated_again()
        self.view.chapter = CHAPTERS[-1]
        self.outcome.lost_searches_during_flips = len(self.shoppers.failed)
        self.outcome.seconds = round(time.monotonic() - started, 1)
        if self.shoppers.failed:
            raise SandboxError(f"{len(self.shoppers.failed)} searches were lost, the first: {self.shoppers.failed[0]}")
        return self.outcome

    # -- steps -------------------------------------------------------------------------------------------------

    async def tenants_serve_lexically(self) -> None:
        """Tenants and the first model are applied together; tenants serve the lexical legs at once."""
        self._step("tenants", "tenants are provisioned; the lexical legs serve while the first model is built")
        await self._apply("platform.yaml")
        await self._apply("models/shop-encoder-r1.yaml")
        await self._apply("tenants.yaml")
        await self._until("6 tenants are Ready", lambda: self._ready_tenants() == len(DEMO_TENANTS))
        for tenant in DEMO_TENANTS:
            written = await self.shoppers.index(tenant.name)
            self._line(f"{tenant.name}: {written} products indexed through the gateway")
        lexical = [one for one in self.searches if not one.needs_model]
        await self.check_searches(lexical)

    async def first_model(self) -> None:
        """r1 is built, gated against the lexical legs, and bound."""
        await self._promoted("r1 is built, gated against the lexical legs, rolled out in waves", "r1")
        await self.check_searches(self.searches)

    async def repackaged_model(self) -> None:
        """r2 is the same space: it flips without re-embedding."""
        before = {item["metadata"]["uid"] for item in await self._platform.objects("reindexjobs")}
        await self._apply("models/shop-encoder-r2.yaml")
        await self._promoted("r2 (repackaged, same space) flips without re-embedding", "r2")
        made = {item["metadata"]["uid"] for item in await self._platform.objects("reindexjobs")} - before
        if made:
            raise SandboxError(f"r2 is the same space, yet {len(made)} ReindexJobs were made")
        await self.check_searches(self.searches)

    async def better_model(self) -> None:
        """r3 rolls through three waves, re-embedding tenant by tenant."""
        await self._apply("models/shop-encoder-r3.yaml")
        await self._promoted("r3 (a better model) rolls through three waves with ReindexJobs", "r3")
        await self.check_searches(self.searches)

    async def worse_model(self) -> None:
        """r4 is Regressed; nothing that shoppers see changes."""
        self._step("r4", "r4 (a worse model) meets the gate")
        before = await self._answers()
        await self._apply("models/shop-encoder-r4.yaml")
        await self._until("r4 is refused", lambda: self._refused() is not None)
        refused = self._refused()
        verdict = self.view.model.get("status", {}).get("verdict", {})
        self._line(f"{refused} is {verdict.get('outcome')}: lost {verdict.get('lost')} of {verdict.get('of')} families")
        self.outcome.rejected.append(str(refused))
        await self._unloaded(str(refused))
        after = await self._answers()
        self.outcome.searches_total += len(before)
        self.outcome.searches_ok += sum(before[key] == after[key] for key in before)
        changed = [key for key in before if before[key] != after[key]]
        if changed:
            raise SandboxError(
                f"{len(changed)} searches answer differently after r4 was refused, the first: {changed[0]}"
            )

    async def reverted(self) -> None:
        """The commit is reverted: Healthy at once."""
        self._step("reverted", "the commit is reverted")
        await self._apply("models/shop-encoder-r3.yaml")
        await self._until("the model is Ready", lambda: _condition(self.view.model, "Ready") == "True", seconds=60)
        self._line("reverted: Ready at once, nothing was built")
        self.outcome.tenants_ready = self._ready_tenants()

    async def evaluated_again(self) -> None:
        """What is active is judged once more, on the servers that tenants are served by."""
        self._step("again", "a new retry token has the active model evaluated again, against what tenants had before")
        text = await asyncio.to_thread((EXAMPLES / "models/shop-encoder-r3.yaml").read_text)
        manifest = yaml.safe_load(self._platform.buckets.localise(text))
        manifest["spec"]["rollout"]["retryToken"] = "again"
        await self._platform.apply(yaml.safe_dump(manifest))
        await self._until("the model is evaluated again", lambda: self._evaluated_again() is not None)
        known = self._evaluated_again() or {}
        outcome = known["verdict"]["outcome"]
        self._line(f"{known['revision']} against {known['against']}: {outcome}; it stays active")
        if outcome not in ("Pass", "Better"):
            raise SandboxError(f"evaluated again, {known['revision']} is {outcome}:\n{self._state()}")

    # -- within ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _browsing(self) -> AsyncIterator[None]:
        """Shoppers search without a stop while models come and go."""
        done = asyncio.Event()
        easy = [one for one in self.searches if not one.needs_model]
        task = asyncio.create_task(self.shoppers.browse(easy, done))
        try:
            yield
        finally:
            done.set()
            await task

    def _step(self, chapter: str, text: str) -> None:
        self.view.chapter, self.view.step = chapter, text
        self._say(f"▶ {text}")

    def _line(self, text: str) -> None:
        self.view.lines = [*self.view.lines, text][-12:]
        self._say(f"  {text}")

    async def _apply(self, name: str) -> None:
        text = await asyncio.to_thread((EXAMPLES / name).read_text)
        await self._platform.apply(self._platform.buckets.localise(text))

    async def _promoted(self, step: str, source: str) -> None:
        """Wait until the checkpoint of this source is active and every tenant is bound to it."""
        self._step(source, step)
        digest = await self._spec_digest()
        await self._until(f"{source} is foreseen", lambda: self._foreseen() or self._active_digest() == digest)
        for line in rollout_lines(self.view.model):
            self._line(line)
        await self._until(f"{source} is promoted", lambda: self._active_digest() == digest or self._stopped())
        if self._active_digest() != digest:
            raise SandboxError(f"{source} was not promoted:\n{self._state()}")
        revision = self.view.model["status"]["active"]["revision"]
        await self._until(f"6 tenants are bound to {revision}", lambda: self._bound(revision) == len(DEMO_TENANTS))
        verdict = self.view.model["status"].get("verdict") or {}
        said = f"{verdict.get('outcome')}, lost {verdict.get('lost')} of {verdict.get('of')}"
        self._line(f"{revision} is active ({said}, upper bound {verdict.get('lossBound')})")
        self.outcome.promoted.append(revision)

    async def _spec_digest(self) -> str:
        await self._read()
        return str(self.view.model["spec"]["source"]["digest"])

    def _foreseen(self) -> bool:
        """Whether the plan of a built candidate is there, or the rollout has ended before it was seen."""
        return bool(self.view.model.get("status", {}).get("plan")) or self._stopped()

    def _active_digest(self) -> str:
        return str((self.view.model.get("status", {}).get("active") or {}).get("digest", ""))

    def _stopped(self) -> bool:
        """Whether the rollout has come to an end that is no promotion."""
        return self._refused() is not None or self.view.model.get("status", {}).get("phase") == "Paused"

    def _refused(self) -> str | None:
        status = self.view.model.get("status", {})
        digest = self.view.model.get("spec", {}).get("source", {}).get("digest")
        found = [item for item in status.get("rejected", []) if item["digest"] == digest]
        return found[-1]["revision"] if found else None

    def _evaluated_again(self) -> dict[str, Any] | None:
        known: dict[str, Any] = self.view.model.get("status", {}).get("reevaluation") or {}
        return known if known.get("verdict") and not known.get("asked") else None

    def _ready_tenants(self) -> int:
        return sum(_condition(item, "Ready") == "True" for item in self.view.tenants)

    def _bound(self, revision: str) -> int:
        bound = [item.get("status", {}).get("binding", {}).get("revision") for item in self.view.tenants]
        ready = [_condition(item, "Ready") == "True" for item in self.view.tenants]
        return sum(one == revision and fine for one, fine in zip(bound, ready, strict=True))

    async def _unloaded(self, revision: str) -> None:
        """The refused candidate leaves every server."""
        import aiohttp

        servers = [server for pool in self._platform.sandbox.pools.values() for server in pool]

        async def loaded() -> bool:
            async with aiohttp.ClientSession() as session:
                for server in servers:
                    async with session.get(f"{server.http_url}/v2/models/{revision}/ready") as answer:
                        if answer.status == 200:
                            return True
            return False

        most = UNLOADED_SECONDS + (KILLED_SECONDS if self._patient else 0.0)
        started = time.monotonic()
        while await loaded():
            if time.monotonic() > started + most:
                raise SandboxError(f"{revision} is still served {most:g} s after it was refused")
            await asyncio.sleep(POLL_SECONDS)
        self._line(f"{revision} is unloaded from {len(servers)} servers {time.monotonic() - started:.1f} s later")

    async def check_searches(self, searches: tuple[DemoSearch, ...] | list[DemoSearch]) -> None:
        """A sensible product stands among the first three hits."""
        for one in searches:
            answer = await self.shoppers.search(one.tenant, one.query)
            hits = answer["hits"]
            sensible = next((hit for hit in hits[:SHOWN_HITS] if one.holds(hit["product"])), None)
            shown = sensible or (hits[0] if hits else None)
            self.outcome.searches_total += 1
            self.outcome.searches_ok += sensible is not None
            title = shown["product"].get("title", "?") if shown else "nothing"
            legs = "+".join(shown["legs"]) if shown else "-"
            self._line(f"{'✓' if sensible else '✗'} {one.tenant:13} {one.query!r:38} → {title} [{legs}]")
            if sensible is None:
                wanted = f"among the first {SHOWN_HITS}; wanted {dict(one.wanted)} ({one.why})"
                raise SandboxError(
                    f"{one.tenant}: {one.query!r} found no sensible product {wanted}; first was {title!r}"
                )

    async def _answers(self) -> dict[str, list[tuple[str, float]]]:
        found = {}
        for one in self.searches:
            answer = await self.shoppers.search(one.tenant, one.query, limit=10)
            found[f"{one.tenant} {one.query}"] = [(hit["id"], hit["score"]) for hit in answer["hits"]]
        return found

    async def _read(self) -> None:
        models = await self._platform.objects("embeddingmodels")
        self.view.model = next((item for item in models if item["metadata"]["name"] == MODEL), {})
        self.view.tenants = await self._platform.objects("searchtenants")
        self.view.reindexes = await self._platform.objects("reindexjobs")
        self._show(self.view)

    async def _until(self, what: str, holds: Callable[[], bool], *, seconds: float = STEP_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            await self._read()
            if holds():
                return
            if not self._patient and not self._platform.operator.running:
                raise SandboxError(f"the operator ended while the story waited until {what}:\n{self._platform.tail()}")
            if time.monotonic() > deadline:
                raise SandboxError(f"not within {seconds:g} s: {what}\n{self._state()}\n{self._platform.tail()}")
            await asyncio.sleep(POLL_SECONDS)

    def _state(self) -> str:
        """The conditions that are not True, of every object."""
        lines = []
        for item in [self.view.model, *self.view.tenants, *self.view.reindexes]:
            if not item:
                continue
            lines.append(f"{item['kind']} {item['metadata']['name']}: {item.get('status', {}).get('phase')}")
            for condition in item.get("status", {}).get("conditions", []):
                if condition["status"] != "True":
                    lines.append(
                        f"    {condition['type']}={condition['status']} {condition['reason']}: {condition['message']}"
                    )
        return "\n".join(lines)


def _condition(item: dict[str, Any], kind: str) -> str:
    """A condition's status, where it was seen for the current generation."""
    status = item.get("status", {})
    if status.get("observedGeneration") != item.get("metadata", {}).get("generation"):
        return "Unknown"
    return next((one["status"] for one in status.get("conditions", []) if one["type"] == kind), "Unknown")
