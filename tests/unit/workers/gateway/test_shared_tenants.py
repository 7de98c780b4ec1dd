"""Where a tenant of a shared collection stands, who may call, and what is not known is never taken for known."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from searchops.api.rates import RATES_KEY, MerchantRates
from searchops.api.shared import SliceAddress, record_key
from searchops_workers.gateway.callers import Registration, VerifiedCaller
from searchops_workers.gateway.cells import Gone
from searchops_workers.gateway.credentials import CredentialSource
from searchops_workers.gateway.doors import Tenancy, TierMove
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.shared import SharedTenants
from searchops_workers.gateway.tenants import Tenants
from searchops_workers.retrieval.scope import Scope
from unit.workers.gateway.shared_parts import (
    ALIAS,
    CELL_TOKEN,
    COLLECTIONS,
    REGISTER,
    TENANT,
    UID,
    FakeCells,
    binding,
    credentials,
    held,
    record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.gateway.bindings import Bindings
    from searchops_workers.gateway.cells import Cells

ONE, TWO = COLLECTIONS
A, B = f"{ALIAS}@a", f"{ALIAS}@b"
CALLER = VerifiedCaller(TENANT, ALIAS, "eu-1", UID, "indexer", True, Registration(REGISTER, f"{UID}/indexer/1"))
AT_REST = record({2: held("key-of-g2", binding("r1", A))}, {"": (2, 1), "@a": (2, 1)})


def scope(key: str, collection: str = ONE, *, keyed: bool = False) -> Scope:
    return Scope.of(SliceAddress("ShardKey" if keyed else "Shared", collection, key))


def nobody(_: Scope, __: int) -> None:
    raise AssertionError("no point of another tenant comes back here")


class World:
    """The cell, the credentials' file, and the tenants under test."""

    def __init__(self, folder: Path) -> None:
        self.cells = FakeCells()
        self.path = credentials(folder / "credentials.json")
        self.tenants = SharedTenants(
            cast("Cells", self.cells),
            CredentialSource(self.path),
            nobody,
            seconds=2.0,
            clock=lambda: self.cells.now,
        )

    async def read(self, caller: VerifiedCaller = CALLER, *, fresh: bool = False) -> Tenancy:
        return await self.tenants.read(caller, fresh=fresh)

    async def refusal(self, caller: VerifiedCaller = CALLER, *, fresh: bool = False) -> tuple[int, str]:
        with pytest.raises(Problem) as caught:
            await self.read(caller, fresh=fresh)
        return caught.value.status, caught.value.code


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_live_slice_is_searched_with_the_gateways_own_token(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    tenancy = await world.read()
    door = tenancy.door
    assert (door.alias, door.cell, door.token, door.own) == (ALIAS, "eu-1", CELL_TOKEN, True)
    assert door.scope(ALIAS) == door.scope(A) == scope("key-of-g2")
    assert tenancy.bindings.binding.revision == "r1"
    assert CELL_TOKEN not in repr(tenancy)
    assert {used for _, _, used in world.cells.asked} == {CELL_TOKEN}


async def test_each_collection_is_read_once_for_all_its_tenants_and_kept_for_seconds(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    other = replace(CALLER, tenant="m.other", alias="prod.m.other", uid="uid-other")
    record_of_other = record({0: held("key-of-other", binding("r1"))}, {"": (0, 1)}, alias="prod.m.other")
    world.cells.put(TWO, record_of_other, "uid-other")
    await asyncio.gather(*(world.read() for _ in range(10)), *(world.read(other) for _ in range(10)))
    assert sorted(world.cells.asked_for("metadata")) == [ONE, TWO]
    world.cells.now = 1.9
    assert (await world.read(other)).door.scope("prod.m.other") == scope("key-of-other", TWO)
    assert len(world.cells.asked_for("metadata")) == 2
    world.cells.now = 2.0
    await world.read()
    assert sorted(world.cells.asked_for("metadata")) == [ONE, ONE, TWO, TWO]


async def test_a_rebuild_in_the_same_collection_has_two_slices(world: World) -> None:
    slices = {2: held("key-of-g2", binding("r1", A), binding("r2", B)), 3: held("key-of-g3")}
    world.cells.put(ONE, record(slices, {"": (2, 1), "@a": (2, 1), "@b": (3, 2)}))
    door = (await world.read()).door
    assert (door.scope(A), door.scope(B)) == (scope("key-of-g2"), scope("key-of-g3"))


async def test_a_rebuild_into_another_collection_is_followed_by_the_greater_turn(world: World) -> None:
    world.cells.put(ONE, record({2: held("key-of-g2", binding("r1", A), binding("r2", B))}, {"": (2, 1), "@a": (2, 1)}))
    world.cells.put(TWO, record({3: held("key-of-g3")}, {"@b": (3, 2)}, tier="ShardKey"))
    door = (await world.read()).door
    assert (door.scope(ALIAS), door.scope(B)) == (scope("key-of-g2"), scope("key-of-g3", TWO, keyed=True))
    switched = record({3: held("key-of-g3", binding("r2", B), None, binding("r1", A))}, {"": (3, 3), "@b": (3, 2)})
    world.cells.put(TWO, switched)
    tenancy = await world.read(fresh=True)
    assert (tenancy.door.scope(ALIAS), tenancy.door.scope(A)) == (scope("key-of-g3", TWO), scope("key-of-g2"))
    assert tenancy.bindings.binding.revision == "r2"
    back = record({2: held("key-of-g2", binding("r1", A))}, {"": (2, 4), "@a": (2, 1)})
    world.cells.put(ONE, back)
    assert (await world.read(fresh=True)).door.scope(ALIAS) == scope("key-of-g2")


async def test_a_side_in_another_tier_is_no_slice(world: World) -> None:
    world.cells.put(ONE, record({2: held("key-of-g2", binding("r1", A), binding("r2", B))}, {"": (2, 1)}))
    door = (await world.read()).door
    assert door.scope(ALIAS) == door.scope(A) == scope("key-of-g2"), "a binding stands in its own slice's record"
    with pytest.raises(TierMove) as caught:
        door.scope(B)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "tier-move", 60)


async def test_a_record_that_contradicts_itself_is_neither_read_nor_written_by(world: World) -> None:
    bound_elsewhere = record({2: held("key-of-g2", binding("r1", A)), 3: held("key-of-g3")}, {"": (2, 1), "@a": (3, 1)})
    one_for_two = record(
        {2: held("key-of-g2", binding("r1", A), binding("r2", B))}, {"": (2, 1), "@a": (2, 1), "@b": (2, 1)}
    )
    for wrong in (bound_elsewhere, one_for_two):
        world.cells.put(ONE, wrong)
        assert await world.refusal(fresh=True) == (503, "record-unreadable")


async def test_a_tenant_that_is_not_there_or_was_taken_off_is_not_found(world: World) -> None:
    assert await world.refusal() == (404, "no-collection")
    world.cells.put(ONE, record({2: held("key-of-g2", binding("r1", A))}, {"@a": (2, 1)}))
    assert await world.refusal(fresh=True) == (404, "no-collection")
    world.cells.put(ONE, record({}, {"": (2, 1)}))
    assert await world.refusal(fresh=True) == (404, "no-collection")


async def test_a_record_of_another_alias_opens_nothing(world: World) -> None:
    world.cells.put(ONE, record({2: held("key-of-g2", binding("r1"))}, {"": (2, 9)}, alias="prod.m.other"))
    assert await world.refusal() == (403, "other-tenant")
    world.cells.put(TWO, record({2: held("key-of-mine", binding("r1"))}, {"": (2, 1)}))
    assert (await world.read(fresh=True)).door.scope(ALIAS) == scope("key-of-mine", TWO)


async def test_a_record_that_cannot_be_read_is_not_taken_for_none(world: World) -> None:
    world.cells.metadata[ONE][record_key(UID)] = '{"tier": "Newer", "alias": "prod.m.acme"}'
    assert await world.refusal() == (503, "record-unreadable")
    world.cells.put(TWO, AT_REST)
    assert await world.refusal(fresh=True) == (503, "record-unreadable"), "the other may know a greater turn"


async def test_a_slice_without_a_binding_is_not_provisioned_yet(world: World) -> None:
    world.cells.put(ONE, record({2: held("key-of-g2")}, {"": (2, 1)}))
    assert await world.refusal() == (503, "not-bound")


async def test_a_collection_that_is_gone_has_no_record_and_one_that_does_not_answer_may_have_one(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    world.cells.failing = {TWO: Gone(404, "no such collection", code="no-collection")}
    assert (await world.read()).door.scope(ALIAS) == scope("key-of-g2")
    other = World(world.path.parent)
    other.cells.put(ONE, AT_REST)
    other.cells.failing = {TWO: Problem(503, "no answer", code="cell-unreachable")}
    assert await other.refusal() == (503, "cell-unreachable"), "nothing is known of this tenant yet"


async def test_a_tenant_at_rest_is_served_while_a_collection_that_it_never_stood_in_does_not_answer(
    world: World,
) -> None:
    down = {TWO: Problem(503, "no answer", code="cell-unreachable")}
    world.cells.put(ONE, AT_REST)
    await world.read()
    world.cells.now, world.cells.failing = 5.0, down
    assert (await world.read()).door.scope(ALIAS) == scope("key-of-g2")
    assert await world.refusal(fresh=True) == (503, "cell-unreachable"), "what moved must be seen"
    rated = AT_REST.model_copy(deep=True)
    rated.slices[2].metadata[RATES_KEY] = MerchantRates(searches_per_minute=7).to_metadata()
    world.cells.put(ONE, rated)
    world.cells.now = 10.0
    assert (await world.read()).bindings.rates.searches_per_minute == 7
    moving = record({2: held("key-of-g2", binding("r1", A), binding("r2", B))}, {"": (2, 1), "@a": (2, 1)})
    world.cells.put(ONE, moving)
    world.cells.now = 15.0
    assert await world.refusal() == (503, "cell-unreachable"), "it may have been switched to where nobody looks"
    world.cells.put(ONE, None)
    world.cells.now = 20.0
    assert await world.refusal() == (503, "cell-unreachable"), "it may have moved: unknown is not gone"


async def test_a_token_is_revoked_within_the_seconds_that_a_reading_is_kept(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    await world.read()
    world.cells.registered.clear()
    world.cells.now = 1.9
    await world.read()
    assert world.cells.asked_for("register") == [REGISTER]
    world.cells.now = 2.0
    assert await world.refusal() == (401, "token-revoked")
    assert await world.refusal() == (401, "token-revoked")
    world.cells.registered.add(f"{UID}/indexer/1")
    await world.read()


async def test_a_register_that_cannot_be_read_lets_nobody_in(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    for failing in (Gone(404, "no register", code="no-collection"), Problem(503, "no answer", code="cell-unreachable")):
        world.cells.failing = {REGISTER: failing}
        assert await world.refusal() == (503, "register-unreadable")
        assert world.cells.asked_for("metadata") == []


@pytest.mark.parametrize("registration", [None, Registration("prod@other", f"{UID}/indexer/1")])
async def test_a_token_of_no_register_or_another_one_is_refused_where_there_is_a_register(
    world: World, registration: Registration | None
) -> None:
    world.cells.put(ONE, AT_REST)
    assert await world.refusal(replace(CALLER, registration=registration)) == (401, "bad-credentials")
    assert world.cells.asked == []


async def test_where_tokens_are_not_revocable_nothing_is_looked_up_and_a_value_is_not_believed(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    credentials(world.path, registerName="")
    await world.read(replace(CALLER, registration=None))
    assert world.cells.asked_for("register") == []
    assert await world.refusal() == (503, "register-unreadable"), "the register may be lost just now"


async def test_without_a_credential_nothing_is_asked(world: World) -> None:
    assert await world.refusal(replace(CALLER, cell="us-1")) == (503, "no-shared-credential")
    world.path.unlink()
    assert await world.refusal() == (503, "no-shared-credential")
    assert world.cells.asked == []


async def test_a_renewed_credential_is_used_at_once(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    await world.read()
    credentials(world.path, token="renewed-token", collections=[ONE])
    assert (await world.read()).door.token == "renewed-token"


async def test_points_are_counted_exactly_and_seldom(world: World) -> None:
    world.cells.put(ONE, AT_REST)
    door = (await world.read()).door
    assert await asyncio.gather(*(world.tenants.points(door) for _ in range(5))) == [1] * 5
    world.cells.now = 2.0
    assert await world.tenants.points(door) == 2
    assert world.cells.asked_for("count") == [ONE, ONE]


async def test_clients_of_a_tenant_that_is_gone_cost_its_cell_one_look_a_second(world: World) -> None:
    tenants = Tenants(cast("Bindings", None), world.tenants, clock=lambda: world.cells.now)

    async def refused() -> int:
        with pytest.raises(Gone):
            await tenants.read(CALLER)
        return len(world.cells.asked_for("metadata"))

    asked = await asyncio.gather(*(refused() for _ in range(20)))
    assert max(asked) == len(world.cells.asked_for("metadata")) == 2 * len(COLLECTIONS), "what was known, and one look"
    for now in (0.3, 0.6, 0.9):
        world.cells.now = now
        assert await refused() == 2 * len(COLLECTIONS)
    world.cells.now = 1.1
    assert await refused() == 3 * len(COLLECTIONS)


async def test_a_tenant_that_comes_is_found_by_the_next_look(world: World) -> None:
    tenants = Tenants(cast("Bindings", None), world.tenants, clock=lambda: world.cells.now)
    with pytest.raises(Gone):
        await tenants.read(CALLER)
    world.cells.put(ONE, AT_REST)
    world.cells.now = 1.1
    assert (await tenants.read(CALLER)).door.scope(ALIAS) == scope("key-of-g2")
