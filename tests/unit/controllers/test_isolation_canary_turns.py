"""Turns of the canary: a breach is told once to both tenants, holds until the same try is refused, and costs little."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from searchops.api.observed import AccessSecretState, CanaryResult, CellRegistration, Trial
from searchops.api.shared import SliceAddress
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.isolation_canary import IsolationCanary, turn_seconds
from searchops.planning.names import ACCESS_SECRET_TYPE, CELL_ANNOTATION
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Transient
from searchops.runtime.key import Key
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CollectionState

PERIOD = 600.0
ALPHA, BETA = Key("shop", "alpha"), Key("shop", "beta")


class Scene:
    """Two tenants of one cell, and a database and a gateway that let in whom a test lets in."""

    def __init__(self, *, gateway: str = "http://gateway") -> None:
        self.now = 0.0
        self.leaky: set[str] = set()
        self.silent: set[str] = set()
        self.tries: list[tuple[str, str, str]] = []
        self.woken: list[Key] = []
        self.told: list[tuple[str, str]] = []
        self.counted: list[str] = []
        self.unreadable = False
        self.unread = False
        self.described: list[str] = []
        self.cache: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        for key in (ALPHA, BETA):
            self.cache.apply("ADDED", tenant(key))
        self.canary = self.start(gateway)

    def start(self, gateway: str = "http://gateway") -> IsolationCanary:
        self.canary = IsolationCanary(
            period=PERIOD,
            gateway_url=gateway,
            directory=self,  # type: ignore[arg-type]
            cells=self,
            secrets=self,  # type: ignore[arg-type]
            trials=self,
            tenants=self.cache,
            wake=self.woken.append,
            events=self,
            metrics=self,
            wall=lambda: self.now,
        )
        return self.canary

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        self.described.append(collection)
        if self.unread:
            raise Transient(f"{SHARED} cannot be read")
        found = case.make_collection(case.lexical())
        return replace(found, slice=SliceAddress("Shared", SHARED, "slice-of-beta"))

    def cells(self) -> Mapping[str, CellRegistration]:
        return {"eu-1": CellRegistration("eu-1", {}, ("http://cell:6333",), None, 100, api_key="k" * 40)}

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        if self.unreadable:
            raise Transient("the API server gave no answer")
        owner = name.partition("-")[0]
        return AccessSecretState(name, ACCESS_SECRET_TYPE, f"uid-{owner}", "", "", f"token of {owner}")

    async def at_cell(self, cell: CellRegistration, alias: str, token: str) -> Trial:
        return self._try("cell", alias, token)

    async def at_gateway(self, url: str, tenant: str, token: str) -> Trial:
        return self._try("gateway", tenant, token)

    def _try(self, where: str, name: str, token: str) -> Trial:
        self.tries.append((where, name, token))
        if where in self.silent:
            return Trial.UNKNOWN
        own = name.rsplit(".", 1)[-1].partition("@")[0] == token.removeprefix("token of ")
        return Trial.OPENED if own or where in self.leaky else Trial.REFUSED

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append((reference["name"], reason))

    def isolation_broken(self) -> None:
        self.counted.append("breach")

    def visited(self, outcome: str) -> None:
        self.counted.append(outcome)

    async def turn(self) -> int:
        """The first turn after a whole period."""
        self.now += PERIOD
        return await self.canary.run_once()


def tenant(key: Key, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "uid": f"uid-{key.name}",
        "resourceVersion": "1",
        "annotations": {CELL_ANNOTATION: "eu-1"},
    }
    access = [
        {"name": "indexer", "role": "Index", "secretName": f"{key.name}-indexer"},
        {"name": "storefront", "role": "Search", "secretName": f"{key.name}-storefront"},
    ]
    return {"metadata": metadata, "spec": {"access": access}, "status": {"alias": f"prod.shop.{key.name}", **status}}


async def test_refusals_at_database_and_gateway_are_the_proof_and_wake_nobody() -> None:
    scene = Scene()
    assert await scene.turn() == 0, "a tenant that is new waits for its own moment"
    assert await scene.turn() == 2
    assert scene.canary.result(ALPHA) == scene.canary.result(BETA) == CanaryResult()
    assert (scene.woken, scene.told) == ([], [])
    assert ("cell", "prod.shop.beta", "token of alpha") in scene.tries
    assert ("gateway", "shop.beta", "token of alpha") in scene.tries
    assert len(scene.tries) == 6


SHARED = "prod@shared-0a1b2c3d-0"


def move(scene: Scene, key: Key, tier: str, *, wish: str | None = None) -> None:
    """What the status says is what counts; the spec may wish for another tier."""
    raw = tenant(key, isolation={"mode": tier}, collection=f"prod.shop.{key.name}@g1")
    raw["metadata"]["resourceVersion"] = "2"
    raw["spec"]["isolation"] = wish or tier
    scene.cache.apply("MODIFIED", raw)


async def test_a_collection_is_tried_by_its_alias_and_by_its_own_name() -> None:
    scene = Scene()
    move(scene, BETA, "Collection", wish="Shared")
    await scene.turn()
    await scene.turn()
    tried = [name for where, name, token in scene.tries if where == "cell" and token == "token of alpha"]
    assert tried == ["prod.shop.alpha", "prod.shop.beta", "prod.shop.beta@g1"]
    assert scene.described == []


async def test_a_shared_host_is_tried_where_its_points_stand_and_a_shared_guest_at_the_database_too() -> None:
    scene = Scene()
    move(scene, BETA, "Shared", wish="Collection")
    await scene.turn()
    assert await scene.turn() == 2
    of = {
        owner: [(where, name) for where, name, token in scene.tries if token == f"token of {owner}"]
        for owner in ("alpha", "beta")
    }
    assert of["alpha"] == [("cell", "prod.shop.alpha"), ("cell", SHARED), ("gateway", "shop.beta")]
    assert of["beta"] == [("cell", "prod.shop.alpha"), ("gateway", "shop.alpha"), ("gateway", "shop.beta")]
    assert scene.described == ["prod.shop.beta@g1"]
    assert scene.canary.result(BETA) == CanaryResult()
    scene.leaky.add("cell")
    await scene.turn()
    for key in (ALPHA, BETA):
        found = scene.canary.result(key)
        assert found is not None
        assert "opened" in found.broken


async def test_where_a_slice_stands_is_not_known_nothing_is_proved() -> None:
    scene = Scene()
    move(scene, BETA, "ShardKey")
    scene.unread = True
    await scene.turn()
    assert await scene.turn() == 1, "beta's token was refused by alpha; alpha's was not tried on beta's points"
    assert sorted(scene.counted) == ["held", "unknown"]
    assert (scene.woken, scene.told) == ([], [])


async def test_a_breach_is_told_once_to_both_and_holds_until_the_same_try_is_refused() -> None:
    scene = Scene()
    await scene.turn()
    scene.leaky.add("cell")
    await scene.turn()
    for key in (ALPHA, BETA):
        found = scene.canary.result(key)
        assert found is not None
        assert "opened" in found.broken
    assert set(scene.woken) == {ALPHA, BETA}
    told = list(scene.told)
    assert {name for name, _ in told} == {"alpha", "beta"}
    assert {reason for _, reason in told} == {"IsolationBroken"}
    await scene.canary.run_once()
    assert scene.told == told
    assert scene.counted.count("breach") == 2, "one for each direction"
    scene.silent.add("cell")
    await scene.canary.run_once()
    still = scene.canary.result(ALPHA)
    assert still is not None
    assert still.broken
    scene.silent.clear()
    scene.leaky.clear()
    scene.woken.clear()
    await scene.canary.run_once()
    assert scene.canary.result(ALPHA) == CanaryResult()
    assert set(scene.woken) == {ALPHA, BETA}


async def test_silence_proves_nothing_either_way() -> None:
    for silent in ("cell", "gateway"):
        scene = Scene()
        scene.silent.add(silent)
        await scene.turn()
        assert await scene.turn() == 0
        assert scene.canary.result(ALPHA) is None
        assert set(scene.counted) == {"unknown"}


async def test_a_secret_that_cannot_be_read_proves_nothing() -> None:
    scene = Scene()
    scene.unreadable = True
    await scene.turn()
    assert await scene.turn() == 0
    assert scene.tries == []


async def test_without_a_gateway_only_the_database_is_asked() -> None:
    scene = Scene(gateway="")
    await scene.turn()
    await scene.turn()
    assert {where for where, _, _ in scene.tries} == {"cell"}
    assert scene.canary.result(ALPHA) == CanaryResult()


async def test_a_new_process_clears_an_old_breach_only_by_proof() -> None:
    scene = Scene()
    broken = {"type": "Isolated", "status": "False", "reason": "IsolationBroken", "message": "m"}
    for key in (ALPHA, BETA):
        scene.cache.apply(
            "MODIFIED",
            {**tenant(key, conditions=[broken]), "metadata": {**tenant(key)["metadata"], "resourceVersion": "2"}},
        )
    await scene.turn()
    assert scene.woken == []
    await scene.turn()
    assert set(scene.woken) == {ALPHA, BETA}


async def test_a_breach_of_a_tenant_that_is_gone_is_forgotten() -> None:
    scene = Scene()
    scene.leaky.add("cell")
    await scene.turn()
    await scene.turn()
    scene.cache.drop(BETA, "uid-beta")
    await scene.canary.run_once()
    assert scene.canary.result(ALPHA) in (None, CanaryResult())


async def test_a_turn_is_a_small_part_of_the_period() -> None:
    assert [turn_seconds(period) for period in (3.0, 600.0, 21_600.0)] == [1.0, 30.0, 60.0]
