"""Rounds over cells: a rotation from its start to its end, each call failing once, and a register that is gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.observed import CellRegistration, CellState
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.cell_access import CellAccess
from searchops.planning.names import CELL_ANNOTATION
from searchops.planning.tenant_access import key_id
from searchops.planning.tenant_facts import TenantSettings
from searchops.runtime.cache import ObjectCache
from searchops.runtime.key import Key
from unit.controllers.fakes_faults import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unit.controllers.fakes_faults import When

OLD, NEW = "o" * 40, "n" * 40
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LIFE = timedelta(days=30)
URLS = ("http://a:6333", "http://b:6333")
TENANTS = [Key("shop", name) for name in ("one", "two", "three")]


class Scene:
    """A cell of two nodes with three tenants, one Secret each."""

    def __init__(self, *, at: int | None = None, when: Any = "before") -> None:
        self.now = START
        self.faults = Faults(at, when)
        self.registration = CellRegistration("eu-1", {}, URLS, 6334, 100, api_key=OLD)
        self.accepted: dict[str, set[str]] = {url: {OLD} for url in URLS}
        self.silent: set[str] = set()
        self.collections = frozenset({"prod@tokens"})
        self.kept: dict[str, dict[str, str]] = {}
        self.woken: list[Key] = []
        self.told: list[tuple[Any, ...]] = []
        self.secrets = dict.fromkeys(TENANTS, key_id(OLD))
        self.cache: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        for number, key in enumerate(TENANTS):
            self.cache.apply("ADDED", _tenant(key, number))
        self.access = self.start()

    def start(self) -> CellAccess:
        self.access = CellAccess(
            settings=TenantSettings("prod", "", LIFE, timedelta(0), revocable=True),
            directory=self,  # type: ignore[arg-type]
            cells=self,  # type: ignore[arg-type]
            probe=self,
            state=self,
            tenants=self.cache,
            wake=self.woken.append,
            metrics=self,
            clock=lambda: self.now,
        )
        return self.access

    def cells(self) -> Mapping[str, CellRegistration]:
        return {"eu-1": self.registration}

    async def survey(self, cell: CellRegistration) -> CellState:
        state = CellState(cell, True, collections=self.collections)
        return self.faults.through("survey", lambda: state)

    async def accepts(self, cell: CellRegistration, url: str, key: str) -> bool | None:
        answer = None if url in self.silent else key in self.accepted[url]
        return self.faults.through("probe", lambda: answer)

    async def read(self, name: str) -> dict[str, str] | None:
        return self.faults.through("read state", lambda: self.kept.get(name))

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        self.faults.through("write state", lambda: self.kept.__setitem__(name, dict(data)))

    def rotation(self, cell: str, phase: str, resigned: int, total: int) -> None:
        self.told.append((cell, phase, resigned, total))

    def register_lost(self, cell: str, *, lost: bool) -> None:
        if lost:
            self.told.append((cell, "lost"))

    def pass_over(self, key: Key) -> None:
        """What a tenant's pass does: it tells what it found, and signs anew where another key signs now."""
        self.access.saw(key, "eu-1", [self.secrets[key]])
        signing = self.access.signing(self.registration)
        if signing is None or self.secrets[key] == key_id(signing.api_key):
            return
        keys = [self.accepted[url] for url in URLS]
        assert all(signing.api_key in accepted for accepted in keys), "signed with a key that a node refuses"
        self.secrets[key] = key_id(signing.api_key)
        self.access.saw(key, "eu-1", [self.secrets[key]])

    async def turn(self, times: int = 1, *, everyone: bool = False) -> str:
        """Rounds, each with a pass over who was woken; returns the phase as the ConfigMap tells it."""
        for _ in range(times):
            await self.access.run_once()
            for key in TENANTS if everyone else list(self.woken):
                self.pass_over(key)
            self.woken.clear()
            valid = {key_id(key) for key in set.intersection(*self.accepted.values())}
            assert set(self.secrets.values()) <= valid, "a tenant holds a token that some node refuses"
        return self.kept.get("searchops-cell-eu-1", {}).get("phase", "")


def _tenant(key: Key, number: int) -> dict[str, Any]:
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "uid": f"uid-{number}",
        "resourceVersion": "1",
        "annotations": {CELL_ANNOTATION: "eu-1"},
    }
    access = [{"name": "storefront", "role": "Search", "secretName": f"{key.name}-storefront"}]
    return {"metadata": metadata, "spec": {"access": access}, "status": {"accessSecrets": [f"{key.name}-storefront"]}}


async def rotate(scene: Scene, rounds: int = 3, *, restart: bool = False) -> list[str]:
    """The whole rotation as people do it, each step when the operator says that it may be done."""
    phases = []

    async def turn() -> None:
        if restart:
            scene.start()
        phases.append(await scene.turn(rounds, everyone=True))

    await turn()
    scene.registration = replace(scene.registration, alt_api_key=NEW)
    scene.accepted[URLS[0]].add(NEW)
    await turn()
    scene.accepted[URLS[1]].add(NEW)
    await turn()
    scene.registration = replace(scene.registration, api_key=NEW, alt_api_key=OLD)
    await turn()
    scene.now += LIFE
    await turn()
    for accepted in scene.accepted.values():
        accepted.discard(OLD)
    scene.registration = replace(scene.registration, alt_api_key="")
    await turn()
    return phases


WANTED = ["Idle", "Spreading", "ReadyToSwap", "Draining", "ReadyToDrop", "Idle"]


async def test_a_rotation_goes_from_end_to_end_and_no_token_is_ever_refused() -> None:
    scene = Scene()
    assert await rotate(scene) == WANTED
    assert set(scene.secrets.values()) == {key_id(NEW)}
    assert scene.told[-1] == ("eu-1", "Idle", 3, 3)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_any_call_that_fails_once_delays_the_rotation_and_breaks_nothing(when: When) -> None:
    plain = Scene()
    await rotate(plain, 4)
    for at in range(len(plain.faults.calls)):
        scene = Scene(at=at, when=when)
        assert await rotate(scene, 4) == WANTED, f"call {at} ({plain.faults.calls[at]}) failed {when} its effect"


async def test_a_new_process_at_every_step_goes_on_where_the_last_one_was() -> None:
    scene = Scene()
    assert await rotate(scene, restart=True) == WANTED


async def test_a_lost_record_after_the_swap_never_turns_the_rotation_round() -> None:
    scene = Scene()
    await scene.turn(everyone=True)
    scene.registration = replace(scene.registration, alt_api_key=NEW)
    for accepted in scene.accepted.values():
        accepted.add(NEW)
    await scene.turn(3, everyone=True)
    scene.registration = replace(scene.registration, api_key=NEW, alt_api_key=OLD)
    scene.kept.clear()
    scene.start()
    assert await scene.turn(3, everyone=True) == "Undecided"
    assert set(scene.secrets.values()) == {key_id(NEW)}


async def test_nothing_is_signed_anew_before_a_new_process_has_read_the_record() -> None:
    scene = Scene()
    scene.registration = replace(scene.registration, alt_api_key=NEW)
    assert scene.access.signing(scene.registration) is None


async def test_an_idle_cell_is_written_once_and_never_probed() -> None:
    scene = Scene()
    await scene.turn(5, everyone=True)
    calls = [name for name in scene.faults.calls if name != "survey"]
    assert calls == ["read state", "write state", "write state"], "once at the start, once when the tokens were counted"


async def test_a_register_that_is_gone_is_told_and_wakes_whoever_holds_a_token() -> None:
    scene = Scene()
    scene.collections = frozenset()
    await scene.access.run_once()
    assert set(scene.woken) == set(TENANTS)
    assert ("eu-1", "lost") in scene.told


async def test_a_cell_that_does_not_answer_is_not_taken_for_one_without_a_register() -> None:
    scene = Scene()

    async def silent(cell: CellRegistration) -> CellState:
        return CellState(cell, reachable=False, error="silent")

    scene.survey = silent  # type: ignore[method-assign]
    await scene.access.run_once()
    assert scene.woken == []
    assert ("eu-1", "lost") not in scene.told


async def test_rounds_that_overlap_end_alike() -> None:
    scene = Scene()
    await asyncio.gather(scene.access.run_once(), scene.access.run_once())
    assert scene.kept["searchops-cell-eu-1"]["phase"] == "Idle"


async def test_a_secret_that_cannot_be_read_moves_nothing_of_a_rotation() -> None:
    """Its keys are unknown then, which is neither a swap nor the end of one."""
    scene = Scene()
    await scene.turn(2, everyone=True)
    good = replace(scene.registration, alt_api_key=NEW)
    scene.accepted = {url: {OLD, NEW} for url in URLS}
    scene.registration = good
    assert await scene.turn(3, everyone=True) == "ReadyToSwap"
    kept, told, calls = dict(scene.kept), list(scene.told), len(scene.faults.calls)
    scene.registration = replace(good, urls=(), api_key="", alt_api_key="", problem="Secret eu-1 cannot be used")
    await scene.access.run_once()
    assert (scene.kept, scene.told, len(scene.faults.calls)) == (kept, told, calls)
    assert scene.access.signing(scene.registration) is None
    scene.registration = good
    assert await scene.turn(2, everyone=True) == "ReadyToSwap"
