"""The moments of the killed story: eleven, in every chapter, the same for a seed; none is left out."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops_sandbox.demo.kept_engines import KEPT_SECONDS, kept_engines, share_engines
from searchops_sandbox.demo.kills import DELAY_SECONDS, DRAWN, WAVES, Killer, Moment, draw, killed
from searchops_sandbox.demo.story import CHAPTERS, View

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(0, 2**32))
def test_eleven_moments_in_the_storys_order_with_every_chapter_and_a_wave_of_the_better_model(seed: int) -> None:
    moments = draw(seed)
    assert len(moments) == 11
    assert moments == draw(seed)
    order = [CHAPTERS.index(moment.chapter) for moment in moments]
    assert order == sorted(order)
    assert {moment.chapter for moment in moments} == set(DRAWN) == set(CHAPTERS[1:-1])
    assert {moment.step for moment in moments if moment.chapter == "r3"} & set(WAVES)
    assert len({(moment.chapter, moment.step) for moment in moments}) == 11
    assert all(0 <= moment.delay <= DELAY_SECONDS[moment.step] for moment in moments)


def test_seeds_draw_other_moments() -> None:
    assert len({draw(seed) for seed in range(20)}) == 20


class _Platform:
    """Counts what is asked of the operator."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def kill_operator(self) -> None:
        self.asked.append("kill")

    async def start_operator(self) -> None:
        self.asked.append("start")


def _at(view: View, chapter: str, revision: str, phase: str, wave: str | None = None) -> None:
    view.chapter = chapter
    status: dict[str, Any] = {"candidate": {"revision": revision}, "phase": phase}
    view.model = {"status": status | ({"wave": {"name": wave}} if wave else {})}


async def test_a_moment_waits_for_its_step_and_one_that_passed_unseen_comes_later() -> None:
    platform, view = _Platform(), View()
    moments = (Moment("r1", "Gating", 0.0), Moment("r1", "wave half", 0.0), Moment("r2", "Building", 0.0))
    killer = Killer(platform, view, moments)  # type: ignore[arg-type]
    task = asyncio.create_task(killer.run())
    _at(view, "r1", "m-r1-00000000", "Building")
    await asyncio.sleep(0.3)
    assert platform.asked == []
    _at(view, "r1", "m-r1-00000000", "Gating")
    await asyncio.sleep(0.3)
    assert platform.asked == ["kill", "start"]
    _at(view, "r2", "m-r1-00000000", "Building")
    await asyncio.sleep(0.3)
    assert platform.asked == ["kill", "start"] * 2, "the wave passed unseen; the candidate is still the old one"
    _at(view, "r2", "m-r2-00000000", "Building")
    await asyncio.wait_for(task, 2)
    assert platform.asked == ["kill", "start"] * 3
    assert [moment for moment, _ in killer.done] == list(moments)


async def test_the_end_waits_for_every_moment_that_is_left() -> None:
    platform, view = _Platform(), View()
    drawn = draw(1)
    async with killed(platform, view, drawn) as killer:  # type: ignore[arg-type]
        killer.moments = tuple(Moment(moment.chapter, moment.step, 0.0) for moment in killer.moments)
        view.chapter = "told"
    assert platform.asked == ["kill", "start"] * len(drawn)


def test_engines_are_shared_between_sandboxes_and_old_ones_go(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for name, age in (("young", 60.0), ("old", KEPT_SECONDS + 60.0)):
        (shared / name).mkdir(parents=True)
        os.utime(shared / name, (1e9 - age, 1e9 - age))
    for name in ("first", "second"):
        artifacts = tmp_path / name
        artifacts.mkdir()
        share_engines(artifacts, shared, now=1e9)
        assert sorted(path.name for path in (artifacts / "engines").iterdir()) == ["young"]
    share_engines(tmp_path / "first", shared, now=1e9)
    assert (tmp_path / "first/engines").resolve() == shared


def test_engines_are_counted_and_references_are_not(tmp_path: Path) -> None:
    for name, description in (("one", {"engine": "model.onnx", "files": {}}), ("two", {"files": {}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine.json").write_text(json.dumps(description))
    assert kept_engines(tmp_path) == 1
    assert kept_engines(tmp_path / "nothing") == 0


@pytest.mark.parametrize("step", ["Gating", "any"])
def test_a_moment_says_when_it_comes(step: str) -> None:
    assert str(Moment("r1", step, 1.25)) == f"r1, {step} + 1.2 s"
