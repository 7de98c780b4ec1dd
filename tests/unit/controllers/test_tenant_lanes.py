"""A burst on a busy cell: no tenant reads more often than it needs to, and a silent cell holds back nobody."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from searchops.controllers.tenant_lanes import READS, WRITES, Lanes, limits_for
from searchops.runtime.dependency import BreakerState, Dependencies, DependencyBusy, current_holder
from searchops.runtime.errors import Transient
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ONE, TWO = Key("shop", "one"), Key("shop", "two")


@pytest.fixture
def dependencies() -> Iterator[Dependencies]:
    made = Dependencies(limits_for(20), rng=random.Random(1))
    yield made
    made.close()


@asynccontextmanager
async def as_holder(key: Key) -> AsyncIterator[None]:
    token = current_holder.set(("searchtenant", key))
    try:
        yield
    finally:
        current_holder.reset(token)


def test_a_tenant_without_a_collection_stands_in_line_first_and_reads_then(dependencies: Dependencies) -> None:
    lanes = Lanes(dependencies)
    assert lanes.writes_first(ONE, "eu-1", provisioned=False)
    lanes.wrote(ONE, whole=True)
    assert not lanes.writes_first(ONE, "eu-1", provisioned=False)
    lanes.wrote(ONE, whole=False)
    assert lanes.writes_first(ONE, "eu-1", provisioned=False)
    assert not lanes.writes_first(ONE, "eu-1", provisioned=True)
    assert not lanes.writes_first(ONE, None, provisioned=False)


async def test_a_pass_that_was_parked_comes_back_with_its_slot_and_reads_under_it(dependencies: Dependencies) -> None:
    lanes = Lanes(dependencies)
    async with as_holder(ONE), lanes.writing(ONE, "eu-1"):
        async with as_holder(TWO):
            with pytest.raises(DependencyBusy):
                async with lanes.writing(TWO, "eu-1"):
                    pass
        assert lanes.writes_first(TWO, "eu-1", provisioned=True)
    async with as_holder(TWO), lanes.writing(TWO, "eu-1"):
        pass
    assert not lanes.writes_first(TWO, "eu-1", provisioned=True)


async def test_what_fails_while_reading_under_a_slot_says_nothing_of_the_cell(dependencies: Dependencies) -> None:
    lanes = Lanes(dependencies)
    for _ in range(9):
        with pytest.raises(Transient):
            async with as_holder(ONE), lanes.writing(ONE, "eu-1") as held:
                held.judges = False
                raise Transient("the API server did not answer")
    assert dependencies.get(f"{WRITES}eu-1").state is BreakerState.CLOSED
    for _ in range(5):
        with pytest.raises(Transient):
            async with as_holder(ONE), lanes.writing(ONE, "eu-1"):
                raise Transient("the cell did not answer")
    assert dependencies.get(f"{WRITES}eu-1").state is BreakerState.OPEN
    assert not lanes.writes_first(ONE, "eu-1", provisioned=False), "that the cell is silent is said without a slot"


async def test_reads_of_one_cell_take_a_fifth_of_the_workers_and_leave_the_others_to_its_peers(
    dependencies: Dependencies,
) -> None:
    lanes, stuck, seen = Lanes(dependencies), asyncio.Event(), Counter[str]()

    async def read(number: int, cell: str) -> None:
        async with as_holder(Key("shop", f"{cell}-{number}")):
            try:
                async with lanes.reading(cell):
                    seen[f"{cell} reading"] += 1
                    if cell == "silent":
                        await stuck.wait()
            except DependencyBusy as busy:
                assert busy.dependency.name == f"{READS}silent"
                seen["parked"] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(read(number, "silent"))
        await asyncio.sleep(0)
        for number in range(4):
            await read(number, "healthy")
        assert seen == {"silent reading": 4, "parked": 8, "healthy reading": 4}
        stuck.set()
