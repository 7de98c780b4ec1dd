"""Every policy, every fault: whatever happens to a deletion, nothing goes that was not to go, and nothing hangs.

The tenant is Ready with documents on two generations' worth of names; beside it stand a stranger's collection with the
tenant's own prefix, a namesake of another namespace uid, and a collection of nobody. Then it is deleted, the sweep
runs, and either nobody comes back or a tenant of the name does within the window.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.observed import CollectionDesign
from searchops.planning.names import (
    ABANDON_ANNOTATION,
    KEY_DELETED_AT,
    KEY_DROP_AFTER,
    KEY_FLEET,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_NAMESPACE_UID,
    KEY_POLICY,
    KEY_UID,
    KEY_WAS_LIVE,
)
from searchops.runtime.errors import Transient
from unit.controllers.fakes_cells import FakeCollection, FakePoint
from unit.controllers.fakes_faults import ProcessKilled
from unit.controllers.fakes_tenant_world import ALIAS, TENANT, TenantWorld, revision

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.api.observed import CellRegistration, CollectionState
    from unit.controllers.fakes_faults import When

G1, A, B = f"{ALIAS}@g1", f"{ALIAS}@a", f"{ALIAS}@b"
STRANGERS = ("prod.shop.other@g1", "prod.shop.acme.x@g1", "theirs")
POLICIES = ("Retain", "Snapshot", "Delete")
WINDOW = timedelta(hours=72)


@dataclass(slots=True)
class FakeSnapshots:
    """Stores what it is asked for at the second time of asking; `refuses` never does."""

    world: TenantWorld
    refuses: bool = False
    begun: set[str] = field(default_factory=set)
    kept: dict[str, dict[int, FakePoint]] = field(default_factory=dict)

    async def stored(self, cell: CellRegistration, collection: CollectionState) -> bool:
        def act() -> bool:
            if self.refuses:
                raise Transient("no space is left in the artifact store")
            if collection.name not in self.begun:
                self.begun.add(collection.name)
                return False
            points = self.world.cells.cell(cell).collections[collection.name].points
            self.kept[collection.name] = copy.deepcopy(points)
            return True

        return self.world.faults.through("snapshot", act)


class Death:
    """A tenant with a past, its deletion, and what comes after."""

    def __init__(self, policy: str, *, protected: bool = False, finalizers: tuple[str, ...] = ()) -> None:
        self.policy, self.protected, self.finalizers = policy, protected, finalizers
        self.world = TenantWorld()
        self.snapshots = FakeSnapshots(self.world)
        self.started = 0

    @property
    def spec(self) -> dict[str, Any]:
        return {"deletionPolicy": self.policy, "deletionProtection": self.protected}

    async def born(self) -> Death:
        world = self.world
        world.set_model()
        world.apply_tenant(**self.spec)
        await world.settle()
        for product in range(4):
            world.write_document(product)
        world.set_model(revision(1))
        await world.settle()
        for name, metadata in zip(STRANGERS, _metadata_of_strangers(), strict=True):
            design = CollectionDesign(name, (), (), (), 1, 1, world.server.collections[G1].design.strict, ())
            world.server.collections[name] = FakeCollection(design, metadata, {}, None, points={1: FakePoint({"": 1})})
            world.server.aliases[f"alias-of-{name}"] = name
        if self.finalizers:
            assert world.raw is not None
            held = {**world.raw["metadata"], "finalizers": [*self.finalizers, *world.raw["metadata"]["finalizers"]]}
            world.api.put("searchtenants", {**world.raw, "metadata": held})
        world.api.deliver()
        self.started = len(world.faults.calls)
        return self

    # -- turns that survive a killed process -----------------------------------------------------------------

    async def step(self) -> float | None:
        try:
            return await self.world.step()
        except ProcessKilled:
            self.world.start()
            self.world.api.deliver()
            return 0.0

    async def sweep(self) -> None:
        sweep = self.world.sweeper(snapshots=self.snapshots)
        try:
            await sweep.run_once()
        except ProcessKilled:
            self.world.start()

    async def settle(self) -> None:
        """Passes until one writes nothing and asks for none soon."""
        world = self.world
        for _ in range(40):
            before = len(world.api.writes), len(world.cells.writes), self.struck()
            wait = await self.step()
            after = len(world.api.writes), len(world.cells.writes), self.struck()
            if before == after and (wait is None or wait >= 60):
                return
            world.now += timedelta(seconds=min(wait or 0.0, 60.0))
        raise AssertionError("no end after 40 passes")

    def struck(self) -> bool:
        """Whether the fault has come."""
        faults = self.world.faults
        return faults.at is not None and faults.at < len(faults.calls)

    # -- what happens ----------------------------------------------------------------------------------------

    def delete(self) -> None:
        self.world.api.delete("searchtenants", TENANT)
        self.world.api.deliver()

    async def gone(self) -> None:
        for _ in range(12):
            if self.world.raw is None or not self.ours_holds():
                break
            wait = await self.step()
            self.world.now += timedelta(seconds=wait or 0.0)
        assert not self.ours_holds(), "the finalizer is stuck"
        if self.world.raw is not None:  # whoever else held it lets go now
            self.world.api._gone("searchtenants", TENANT)
            self.world.api.deliver()

    def ours_holds(self) -> bool:
        raw = self.world.raw
        return raw is not None and "searchops.dev/finalizer" in raw["metadata"].get("finalizers", [])

    async def after(self, *, back: bool) -> None:
        """An hour later somebody comes back or not; then the window passes and the sweep runs a few times."""
        self.world.now += timedelta(hours=1)
        await self.sweep()
        if back:
            self.world.apply_tenant(uid="uid-2", **self.spec)
            await self.settle()
        self.world.now += WINDOW
        for _ in range(4):
            await self.sweep()
        if back:
            await self.settle()

    # -- what is left ----------------------------------------------------------------------------------------

    @property
    def kept_for_good(self) -> bool:
        return self.policy == "Retain" or self.protected

    def check(self, *, back: bool, noted: bool = True) -> None:
        world = self.world
        assert world.cells.broken == []
        for name, metadata in zip(STRANGERS, _metadata_of_strangers(), strict=True):
            found = world.server.collections[name]
            assert (found.metadata, set(found.points)) == (metadata, {1}), name
            assert world.server.aliases[f"alias-of-{name}"] == name
        created = {name for name in world.cells.writes if name.startswith("create ")}
        assert created == {f"create {G1}"}, "something was created beside the data that was there"
        if back:
            self._check_back()
        else:
            self._check_gone(noted=noted)

    def _check_back(self) -> None:
        world = self.world
        assert world.condition("Ready") == ("True", "Ready")
        found = world.server.collections[G1]
        assert {product: point.versions["d-s1"] for product, point in found.points.items()} == world.documents
        keys = (KEY_UID, KEY_DELETED_AT, KEY_DROP_AFTER, KEY_POLICY, KEY_WAS_LIVE)
        assert [found.metadata.get(key) for key in keys] == ["uid-2", None, None, None, None]
        assert {world.server.aliases.get(name) for name in (ALIAS, B)} == {G1}
        assert {secret.owner_uid for secret in world.secrets.secrets.values()} == {"uid-2"}
        assert self.snapshots.kept == {}

    def _check_gone(self, *, noted: bool) -> None:
        world = self.world
        assert world.raw is None
        found = world.server.collections.get(G1)
        if noted and not self.kept_for_good:
            assert found is None, "past its window and still there"
            if self.policy == "Snapshot":
                assert set(self.snapshots.kept[G1]) == set(world.documents)
        else:
            assert found is not None
            assert set(found.points) == set(world.documents)
            assert KEY_DROP_AFTER not in found.metadata
        if noted:
            assert not {ALIAS, A, B} & set(world.server.aliases)
        assert bool(world.secrets.secrets) is self.kept_for_good


def _metadata_of_strangers() -> tuple[dict[str, str], ...]:
    other = {KEY_FLEET: "prod", KEY_UID: "uid-other", KEY_NAMESPACE: "shop", KEY_NAME: "other"}
    namesake = {
        KEY_FLEET: "prod",
        KEY_UID: "uid-0",
        KEY_NAMESPACE: "shop",
        KEY_NAME: "acme",
        KEY_NAMESPACE_UID: "before",
        KEY_DELETED_AT: "2026-11-24T11:00:00Z",
        KEY_POLICY: "Retain",
    }
    return other, namesake, {}


KINDS = [(policy, False) for policy in POLICIES] + [("Delete", True)]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("policy", "protected"), KINDS)
@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_one_fault_anywhere_in_death_and_return(
    policy: str, when: When, *, protected: bool, kills: bool, back: bool
) -> None:
    """Each call fails once, or takes the process with it, before or after its effect."""
    plain = await Death(policy, protected=protected).born()
    plain.delete()
    await plain.gone()
    await plain.after(back=back)
    plain.check(back=back)
    calls = plain.world.faults.calls[plain.started :]
    assert len(calls) > 10
    for number, name in enumerate(calls):
        death = await Death(policy, protected=protected).born()
        faults = death.world.faults
        faults.at, faults.when, faults.kills = death.started + number, when, kills
        death.delete()
        await death.gone()
        await death.after(back=back)
        try:
            death.check(back=back)
        except AssertionError as error:
            raise AssertionError(f"call {number} ({name}) {'killed' if kills else 'failed'} {when}: {error}") from error


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("policy", "protected"), KINDS)
async def test_a_cell_that_is_down_is_waited_for_and_then_the_policy_holds(
    policy: str, *, protected: bool, back: bool
) -> None:
    death = await Death(policy, protected=protected).born()
    death.world.server.reachable = False
    death.delete()
    for _ in range(5):
        await death.step()
    assert death.ours_holds()
    assert death.world.condition("Ready") == ("False", "Deleting")
    death.world.server.reachable = True
    await death.gone()
    await death.after(back=back)
    death.check(back=back)


def abandon(death: Death) -> None:
    death.world.server.reachable = False
    raw = death.world.raw
    assert raw is not None
    metadata = {**raw["metadata"], "annotations": {**raw["metadata"]["annotations"], ABANDON_ANNOTATION: "true"}}
    death.world.api.put("searchtenants", {**raw, "metadata": metadata})
    death.delete()


def forget_cell(death: Death) -> None:
    del death.world.directory.registered["eu-1"]
    death.delete()


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("policy", "protected"), KINDS)
@pytest.mark.parametrize("way", [abandon, forget_cell])
async def test_what_was_given_up_without_a_note_is_never_dropped_and_can_be_taken_back(
    way: Callable[[Death], None], policy: str, *, protected: bool, back: bool
) -> None:
    death = await Death(policy, protected=protected).born()
    registration = death.world.directory.registered["eu-1"]
    way(death)
    await death.gone()
    death.world.directory.registered["eu-1"] = registration
    death.world.server.reachable = True
    await death.after(back=back)
    assert set(death.world.server.collections[G1].points) == set(death.world.documents)
    death.check(back=back, noted=False)


@pytest.mark.parametrize("policy", POLICIES)
async def test_foreground_deletion_holds_the_object_and_not_the_finalizer(policy: str) -> None:
    """As Argo CD prunes: the garbage collector's finalizer stays beside ours until the ReindexJobs are gone."""
    death = await Death(policy, finalizers=("foregroundDeletion",)).born()
    death.delete()
    for _ in range(3):
        await death.step()
    raw = death.world.raw
    assert raw is not None
    assert raw["metadata"]["finalizers"] == ["foregroundDeletion"]
    writes = len(death.world.cells.writes)
    await death.step()
    assert len(death.world.cells.writes) == writes
    await death.gone()
    await death.after(back=False)
    death.check(back=False)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_namespace_that_is_made_anew_gets_nothing_of_the_former_ones_data(policy: str) -> None:
    death = await Death(policy).born()
    world = death.world
    death.delete()
    await death.gone()
    world.secrets.secrets.clear()
    world.api.namespace_uids["shop"] = "made-anew"
    world.set_model()
    world.now += timedelta(minutes=5)
    world.start()
    world.apply_tenant(uid="uid-2", **death.spec)
    await death.settle()
    assert world.server.aliases[ALIAS] == f"{ALIAS}@g2"
    assert world.server.collections[f"{ALIAS}@g2"].points == {}
    assert set(world.server.collections[G1].points) == set(world.documents)
    assert world.server.collections[G1].metadata[KEY_UID] == "uid-1"
    assert world.cells.broken == []


async def test_a_snapshot_that_cannot_be_stored_keeps_the_collection_and_is_told() -> None:
    death = await Death("Snapshot").born()
    death.snapshots.refuses = True
    death.delete()
    await death.gone()
    death.world.now += WINDOW * 10
    overdue: dict[str, int] = {}
    sweep = death.world.sweeper(snapshots=death.snapshots, overdue=overdue.__setitem__)
    for _ in range(3):
        assert await sweep.run_once() == 0
    assert overdue == {"eu-1": 1}
    assert set(death.world.server.collections[G1].points) == set(death.world.documents)
    death.snapshots.refuses = False
    await sweep.run_once()
    assert await sweep.run_once() == 1
    assert (overdue, set(death.snapshots.kept)) == ({"eu-1": 0}, {G1})
