"""SIGKILL to the operator at random moments of the story; the moments follow from a seed."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from searchops_sandbox.demo.story import CHAPTERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from searchops_sandbox.demo.platform import Platform
    from searchops_sandbox.demo.story import View

LOOK_SECONDS: Final = 0.1
ANY: Final = "any"
WAVES: Final = ("wave canary", "wave half", "wave all")
#: Chapter → steps of the model that a moment is drawn from, and how many moments.
DRAWN: Final[Mapping[str, tuple[tuple[str, ...], int]]] = {
    "tenants": ((ANY,), 1),
    "r1": (("Gating", *WAVES), 2),
    "r2": (("Building", "Gating", "wave canary", "wave half"), 2),
    "r3": (("Building", "Gating", *WAVES), 3),
    "r4": (("Building", "Gating"), 1),
    "reverted": ((ANY,), 1),
    "again": ((ANY,), 1),
}
#: The longest time from the beginning of a step to the kill: the steps of the demo last a few seconds to half a minute.
DELAY_SECONDS: Final[Mapping[str, float]] = {"Building": 6.0, "Gating": 8.0, **dict.fromkeys(WAVES, 8.0), ANY: 3.0}

#: A wave that flips without re-embedding is over sooner.
FLIP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """So many seconds after a step of a chapter has begun."""

    chapter: str
    step: str
    delay: float

    def __str__(self) -> str:
        return f"{self.chapter}, {self.step} + {self.delay:.1f} s"


def draw(seed: int) -> tuple[Moment, ...]:
    """Eleven moments, spread over every chapter, the step and the delay at random; in the order in which they come."""
    rng = random.Random(seed)
    moments = []
    for chapter, (steps, count) in DRAWN.items():
        chosen = sorted(rng.sample(range(len(steps)), count))
        for step in (steps[n] for n in chosen):
            flips = chapter == "r2" and step in WAVES
            moments.append(Moment(chapter, step, rng.uniform(0.0, FLIP_SECONDS if flips else DELAY_SECONDS[step])))
    return tuple(moments)


@dataclass
class Killer:
    """Kills and starts the operator at each moment; one whose step passed unseen comes when the story is beyond it.

    Attributes:
        done: the moments that came, in order, each with what the model was at when the signal was sent.
    """

    platform: Platform
    view: View
    moments: Sequence[Moment]
    done: list[tuple[Moment, str]] = field(default_factory=list)

    async def run(self) -> None:
        """Until every moment has come."""
        for moment in self.moments:
            await self._until(moment)
            await asyncio.sleep(moment.delay)
            seen = f"{self.view.chapter}, {_steps(self.view)}"
            await self.platform.kill_operator()
            self.done.append((moment, seen))
            await self.platform.start_operator()

    async def _until(self, moment: Moment) -> None:
        while True:
            if self._reached(moment):
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _reached(self, moment: Moment) -> bool:
        now, wanted = CHAPTERS.index(self.view.chapter), CHAPTERS.index(moment.chapter)
        return now > wanted or (now == wanted and moment.step in (ANY, *_steps(self.view)))


def _steps(view: View) -> tuple[str, str]:
    """The step that the candidate is at; a candidate of an earlier chapter is at none."""
    status = view.model.get("status", {})
    candidate = (status.get("candidate") or {}).get("revision", "")
    if f"-{view.chapter}-" not in candidate:
        return ("none", "none")
    wave = (status.get("wave") or {}).get("name", "none")
    return (str(status.get("phase")), f"wave {wave}")


@asynccontextmanager
async def killed(platform: Platform, view: View, moments: Sequence[Moment]) -> AsyncIterator[Killer]:
    """The operator is killed at these moments while the body runs; the end waits for those that are left."""
    killer = Killer(platform, view, moments)
    task = asyncio.create_task(killer.run())
    try:
        yield killer
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
