"""A new process's first pass over a tenant in order asks nothing of its own; one that is not in order is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from searchops.controllers.tenant_first_look import MAP, FirstLook, build_of
from searchops.runtime.errors import Transient
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from searchops.controllers.tenant_gather import TenantPorts
    from searchops.planning.tenant_facts import TenantSettings

OWN_READS = {"read Secret", "describe", "probe"}


class Maps:
    """ConfigMaps, which may be out of reach."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {}
        self.down = False

    async def read(self, name: str) -> dict[str, str] | None:
        if self.down:
            raise Transient("no answer")
        return self.held.get(name)

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        if self.down:
            raise Transient("no answer")
        self.held.setdefault(name, {}).update(data)


class World(TenantWorld):
    """A tenant that is Ready, and what a process finds out that starts now."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = Maps()
        self.build = "one"
        self.first = self.first_look
        self.start()

    def is_marked(self) -> bool:
        """Whether it is kept that every tenant of the cell was looked at."""
        return bool(self.maps.held.get(MAP, {}).get("eu-1"))

    def first_look(self, ports: TenantPorts, settings: TenantSettings) -> FirstLook:
        return FirstLook(
            self.cells,
            self.maps,
            ports,
            settings,
            tenants=self.tenants,
            clock=lambda: self.now,
            build=self.build,
        )

    async def restarted(self) -> Counter[str]:
        """Calls of the first pass of a new process."""
        self.start()
        self.faults.calls.clear()
        await self.step()
        return Counter(self.faults.calls)


async def ready() -> World:
    world = World()
    world.set_model()
    world.apply_tenant()
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    return world


async def test_a_tenant_in_order_costs_no_read_of_its_own() -> None:
    world = await ready()
    before = len(world.api.writes), len(world.cells.writes), dict(world.keys.seen)
    assert before[2]
    world.keys.seen.clear()
    calls = await world.restarted()
    assert not OWN_READS & calls.keys()
    assert calls["bulk read"] == 1
    assert (len(world.api.writes), len(world.cells.writes), world.keys.seen) == before, "its tokens are known too"
    world.faults.calls.clear()
    await world.step()
    assert set(world.faults.calls) >= OWN_READS, "the next pass is an ordinary one"


def no_alias(world: World) -> None:
    del world.server.aliases[ALIAS]


def no_collection(world: World) -> None:
    world.server.collections.clear()
    world.server.aliases.clear()


def other_limits(world: World) -> None:
    live = world.live
    assert live is not None
    assert live.strict is not None
    live.strict = replace(live.strict, max_points=7)


def other_owner(world: World) -> None:
    live = world.live
    assert live is not None
    live.metadata["searchops.dev/uid"] = "somebody"


def no_grant(world: World) -> None:
    assert world.server.grants is not None
    world.server.grants.clear()


def no_register(world: World) -> None:
    world.server.grants = None


def other_spec(world: World) -> None:
    world.apply_tenant(quotas={"maxPoints": 7})


def another_key(world: World) -> None:
    found = world.directory.registered["eu-1"]
    world.directory.registered["eu-1"] = replace(found, alt_api_key="n" * 40)


def new_key(world: World) -> None:
    found = world.directory.registered["eu-1"]
    world.directory.registered["eu-1"] = replace(found, api_key="n" * 40)


def moved(world: World) -> None:
    found = world.directory.registered["eu-1"]
    world.directory.registered["eu-1"] = replace(found, urls=("https://elsewhere.example:6333",))


def silent(world: World) -> None:
    world.server.reachable = False


def never_looked_at(world: World) -> None:
    world.maps.held.clear()


def other_settings(world: World) -> None:
    world.gateway = "https://other.example"


def unknown(world: World) -> None:
    world.maps.down = True


CHANGES: dict[str, Callable[[World], None]] = {
    change.__name__: change
    for change in (
        no_alias, no_collection, other_limits, other_owner, no_grant, no_register, other_spec, another_key,
        new_key, moved, silent, never_looked_at, other_settings, unknown,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
async def test_whatever_differs_is_found_as_by_an_ordinary_pass(name: str) -> None:
    """The end is that of a process that has no first look at all."""
    ends = []
    for looks in (True, False):
        world = await ready()
        CHANGES[name](world)
        world.first = world.first_look if looks else None
        calls = await world.restarted()
        assert name == "silent" or OWN_READS & calls.keys(), "it was looked at itself"
        for _ in range(6):
            await world.step()
        server = world.server
        made = {name: (found.metadata, found.strict, found.indexes) for name, found in server.collections.items()}
        conditions = {kind: world.condition(kind) for kind in ("Ready", "Provisioned", "AccessReady", "SchemaInSync")}
        secrets = {key: (state.inputs_digest, state.key_id) for key, state in world.secrets.secrets.items()}
        ends.append((made, server.aliases, sorted(server.grants or {}), secrets, conditions))
        assert world.cells.broken == []
    assert ends[0] == ends[1]


async def test_other_settings_reach_every_secret_before_a_first_look_is_enough_again() -> None:
    world = await ready()
    before = dict(world.secrets.data)
    world.gateway = "https://other.example"
    await world.restarted()
    await world.settle()
    assert {data["gateway"] for data in world.secrets.data.values()} == {"https://other.example"}
    assert world.secrets.data.keys() == before.keys()
    assert not OWN_READS & (await world.restarted()).keys()


async def test_a_change_that_was_rolled_back_half_way_leaves_no_mark() -> None:
    """Who dies over other settings has changed some tenants: the process before it looked at none of that."""
    world = await ready()
    assert world.is_marked()
    world.gateway = "https://other.example"
    world.start()
    await world.controller.reconcile(TENANT._replace(name="nobody"))
    raw = dict(world.raw or {})
    world.api.put("searchtenants", {**raw, "metadata": {**raw["metadata"], "name": "other", "uid": "uid-2"}})
    world.api.deliver()
    await world.step()  # one of two tenants is written anew, and the process is gone
    world.gateway = "https://search.example"
    calls = await world.restarted()
    assert calls.keys() >= OWN_READS
    await world.settle()
    assert {data["gateway"] for data in world.secrets.data.values()} == {"https://search.example"}


async def test_a_directory_that_fills_late_costs_no_mark() -> None:
    world = await ready()
    cells = dict(world.directory.registered)
    world.directory.registered.clear()
    world.start()
    await world.step()
    assert world.is_marked(), "a cell that is not registered yet says nothing about its mark"
    world.directory.registered.update(cells)
    world.faults.calls.clear()
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.is_marked()


async def test_a_mark_that_cannot_be_taken_back_lets_nothing_be_changed() -> None:
    world = await ready()
    before = dict(world.secrets.data)
    world.gateway = "https://other.example"
    world.start()
    raw = dict(world.raw or {})
    metadata = {**raw["metadata"], "name": "other", "uid": "uid-2", "annotations": {}}
    world.api.put("searchtenants", {**raw, "metadata": metadata, "status": {}})
    world.api.deliver()
    world._live_uids |= {"uid-2"}
    await world.controller.reconcile(TENANT._replace(name="other"))  # with it what was kept is read
    assert world.is_marked(), "this one has no cell yet"
    world.maps.down = True
    await world.step()
    assert world.secrets.data == before
    world.maps.down = False
    await world.settle()
    assert {data["gateway"] for data in world.secrets.data.values()} == {"https://other.example"}


async def test_a_tenant_that_is_new_to_a_cell_takes_its_former_mark_back_too() -> None:
    world = await ready()
    world.gateway = "https://other.example"
    world.start()
    await world.controller.reconcile(TENANT._replace(name="nobody"))
    raw = dict(world.raw or {})
    metadata = {**raw["metadata"], "name": "new", "uid": "uid-3"}
    world._live_uids |= {"uid-3"}
    world.api.put("searchtenants", {**raw, "metadata": metadata, "status": {}})
    world.api.deliver()
    await world.controller.reconcile(TENANT._replace(name="new"))
    assert not world.is_marked()


async def test_another_build_looks_at_every_tenant_whole() -> None:
    world = await ready()
    world.build = "another"
    assert OWN_READS & (await world.restarted()).keys()
    assert not OWN_READS & (await world.restarted()).keys()


def test_a_build_is_known_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "one.py").write_text("a = 1\n")
    first = build_of(tmp_path)
    assert build_of(tmp_path) == first
    (tmp_path / "part" / "one.py").write_text("a = 2\n")
    assert build_of(tmp_path) != first


async def test_a_tenant_that_nobody_has_looked_at_keeps_the_mark_away() -> None:
    world = await ready()
    raw = dict(world.raw or {})
    world.api.put("searchtenants", {**raw, "metadata": {**raw["metadata"], "name": "other", "uid": "uid-2"}})
    world.api.deliver()
    world.maps.held.clear()
    await world.restarted()
    assert not world.is_marked(), "the other tenant says Ready and was not looked at"
    world.api.delete("searchtenants", TENANT._replace(name="other"))
    for _ in range(2):  # its finalizer goes, and then it is gone
        world.api.deliver()
        await world.controller.reconcile(TENANT._replace(name="other"))
    assert world.is_marked(), "it is gone"


async def test_a_bulk_read_that_fails_leaves_an_ordinary_pass() -> None:
    world = await ready()
    await world.restarted()
    world.faults.at = world.faults.calls.index("bulk read")
    assert (await world.restarted()).keys() >= OWN_READS
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_secret_that_is_changed_while_the_process_runs_takes_the_mark_away() -> None:
    """A crash now, and the Secret as it was before: some tenants' Secrets would be of the other."""
    world = await ready()
    assert world.is_marked()
    before = world.directory.registered["eu-1"]
    moved(world)
    await world.step()
    assert not world.is_marked()
    world.directory.registered["eu-1"] = before
    assert OWN_READS & (await world.restarted()).keys()
    await world.settle()
    assert world.is_marked()
