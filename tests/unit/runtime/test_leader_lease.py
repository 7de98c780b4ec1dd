"""The Lease: never two holders at once, whatever the network does; virtual time throughout."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from searchops.runtime.errors import Conflict, Transient
from searchops.runtime.leader import (
    Create,
    LeaderElector,
    LeaseLost,
    LeaseRecord,
    LeaseTimes,
    Sighting,
    Wait,
    Write,
    decide,
)

pytestmark = pytest.mark.looptime
WALL = datetime(2026, 1, 1, tzinfo=UTC)


class FakeLease:
    """One Lease for all; `for_client` gives each contender a line of its own that can be cut."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.version = 0

    def put(self, record: LeaseRecord) -> LeaseRecord:
        self.version += 1
        self.record = replace(record, resource_version=str(self.version))
        return self.record


class Line:
    """A contender's way to the API server: latency, requests lost, answers lost, or all of it down."""

    def __init__(self, lease: FakeLease, rng: random.Random | None = None, trouble: float = 0.0) -> None:
        self.lease = lease
        self.rng = rng or random.Random(0)
        self.trouble = trouble
        self.down = False
        self.stray: set[asyncio.Task[None]] = set()

    async def _travel(self) -> None:
        if self.down:
            await asyncio.sleep(self.rng.random() * 3)
            raise Transient("no answer")
        if self.rng.random() < self.trouble:
            await asyncio.sleep(self.rng.random() * 8)
            raise Transient("no answer")
        if self.trouble:
            await asyncio.sleep(self.rng.random() ** 3 * 6)

    async def get(self) -> LeaseRecord | None:
        await self._travel()
        record = self.lease.record
        await self._travel()
        return record

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        await self._travel()
        if self.lease.record is not None:
            raise Conflict("the Lease exists")
        written = self.lease.put(record)
        await self._travel()
        return written

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        if self.trouble and self.rng.random() < self.trouble:
            late = asyncio.create_task(self._land_late(record))
            self.stray.add(late)
            late.add_done_callback(self.stray.discard)
            await asyncio.sleep(self.rng.random() * 8)
            raise Transient("no answer; the write may land yet")
        await self._travel()
        written = self._put(record)
        await self._travel()
        return written

    async def _land_late(self, record: LeaseRecord) -> None:
        await asyncio.sleep(self.rng.random() * 25)
        if self.lease.record is not None and self.lease.record.resource_version == record.resource_version:
            self.lease.put(record)

    def _put(self, record: LeaseRecord) -> LeaseRecord:
        current = self.lease.record
        if current is None or current.resource_version != record.resource_version:
            raise Conflict("the Lease is at another version")
        return self.lease.put(record)


def elector(line: Line, name: str, times: LeaseTimes | None = None) -> LeaderElector:
    return LeaderElector(line, name, times=times, now=asyncio.get_running_loop().time, wall=lambda: WALL)


class Replica:
    """A process: an elector, and work that notes when it began and ended."""

    def __init__(self, line: Line, name: str) -> None:
        self.line = line
        self.elector = elector(line, name)
        self.working = False
        self.began: list[float] = []
        self.task = asyncio.create_task(self.run())
        # A test that looks at what became of the work alone leaves no exception for the garbage collector to tell of.
        self.task.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def run(self) -> None:
        await self.elector.run(self.work)

    async def work(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        self.working = True
        try:
            await asyncio.sleep(1e9)
        finally:
            self.working = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def record(holder: str, *, duration: int = 15, transitions: int = 3) -> LeaseRecord:
    return LeaseRecord(holder, duration, WALL, WALL, transitions, "7")


def choose(sighting: Sighting, now: float) -> Create | Write | Wait:
    return decide(sighting, identity="me", now=now, wall=WALL, duration=15)


def test_decisions() -> None:
    mine, other, released = record("me"), record("you"), record("")
    assert choose(Sighting(), 0) == Create(LeaseRecord("me", 15, WALL, WALL, 0))
    assert choose(Sighting(mine, 0, missing=False), 100) == Write(replace(mine, renewed_at=WALL))
    assert choose(Sighting(other, 10, missing=False), 24) == Wait("you", 1.0)
    assert choose(Sighting(other, 10, missing=False), 25) == Write(LeaseRecord("me", 15, WALL, WALL, 4, "7"))
    assert choose(Sighting(released, 10, missing=False), 10) == Write(LeaseRecord("me", 15, WALL, WALL, 4, "7"))
    assert choose(Sighting(replace(other, duration_seconds=40), 10, missing=False), 40) == Wait("you", 10.0)
    assert choose(Sighting(other, 10, missing=True), 20) == Wait("you", 5.0)
    assert choose(Sighting(other, 10, missing=True), 26) == Create(LeaseRecord("me", 15, WALL, WALL, 4))


@pytest.mark.parametrize("apart", [-600, 600])
def test_whoever_holds_the_lease_another_clock_neither_takes_it_early_nor_waits_longer(apart: int) -> None:
    """Times in a Lease are written for people: only how long this process has seen the record counts."""
    wall = WALL + timedelta(seconds=apart)
    held = Sighting(LeaseRecord("b", 15, wall, wall, 0), at=100.0, missing=False)
    assert decide(held, identity="a", now=114.0, wall=WALL, duration=15) == Wait("b", 1.0)
    taken = decide(held, identity="a", now=115.0, wall=WALL, duration=15)
    assert isinstance(taken, Write) and taken.record.holder == "a"


def test_times_that_let_two_work_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="duration > renew_deadline"):
        LeaseTimes(duration=10, renew_deadline=10)
    with pytest.raises(ValueError, match="renew_deadline > retry"):
        LeaseTimes(retry=10)


async def test_the_first_one_leads_at_once_and_keeps_leading() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(1)
    two = Replica(Line(lease), "two")
    for _ in range(300):
        await asyncio.sleep(1)
        assert (one.working, two.working) == (True, False)
        assert 12.9 <= one.elector.remaining() <= 15
        assert two.elector.remaining() == 0
    assert two.elector.holder == "one"
    await one.stop()
    await two.stop()


async def test_a_released_lease_is_taken_over_within_a_retry() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(5)
    two = Replica(Line(lease), "two")
    await asyncio.sleep(10)
    await one.stop()
    assert one.elector.remaining() == 0
    assert lease.record is not None
    assert lease.record.holder == ""
    await asyncio.sleep(2.1)
    assert two.working
    assert lease.record.holder == "two"
    await two.stop()


async def test_a_killed_leader_is_replaced_within_twenty_seconds() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(5)
    two = Replica(Line(lease), "two")
    await asyncio.sleep(10)
    one.line.down = True
    cut = asyncio.get_running_loop().time()
    while not two.working:
        await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() < cut + 20
    assert not one.working
    with pytest.raises(LeaseLost, match="not renewed for"):
        await one.task
    await two.stop()


async def test_a_leader_cut_off_ends_its_work_before_the_lease_is_over() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(5)
    one.line.down = True
    while one.working:
        assert one.elector.remaining() > 0
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() < 4 + 15, "the last renewal was sent at 4"
    with pytest.raises(LeaseLost):
        await one.task


async def test_time_on_the_lease_counts_from_before_the_write_was_sent() -> None:
    """The write lands at once and is answered 4 s later: whoever saw it land counts from then."""

    class LateAnswer(Line):
        async def create(self, record: LeaseRecord) -> LeaseRecord:
            written = self.lease.put(record)
            await asyncio.sleep(4)
            return written

    one = elector(LateAnswer(FakeLease()), "one")
    assert one.remaining() == 0
    await one.acquire()
    assert asyncio.get_running_loop().time() == pytest.approx(4, abs=0.05)
    assert one.remaining() == pytest.approx(11, abs=0.05)
    await asyncio.sleep(11.1)
    assert not one.is_leader


async def test_a_short_failure_of_the_api_server_costs_nothing() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    for _ in range(5):
        await asyncio.sleep(20)
        one.line.down = True
        await asyncio.sleep(4)
        one.line.down = False
    await asyncio.sleep(20)
    assert one.working
    assert len(one.began) == 1
    await one.stop()


@pytest.mark.parametrize("thief", ["you", ""])
async def test_a_leader_that_reads_another_holder_ends_at_once(thief: str) -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(5)
    lease.put(record(thief))
    await asyncio.sleep(4.5)
    assert not one.working
    with pytest.raises(LeaseLost, match="held by 'you'" if thief else "released or deleted"):
        await one.task
    assert lease.record is not None
    assert lease.record.holder == thief, "what is not ours is not written"


async def test_a_deleted_lease_ends_the_leader_and_is_waited_out_by_who_saw_it() -> None:
    lease = FakeLease()
    one = Replica(Line(lease), "one")
    await asyncio.sleep(3)
    two = Replica(Line(lease), "two")
    await asyncio.sleep(10)
    lease.record = None
    for _ in range(400):
        await asyncio.sleep(0.1)
        assert not (one.elector.is_leader and two.elector.is_leader)
    assert two.working
    with pytest.raises(LeaseLost):
        await one.task
    await two.stop()


async def test_work_that_ends_or_fails_releases_the_lease() -> None:
    lease = FakeLease()

    async def fail() -> None:
        await asyncio.sleep(3)
        raise RuntimeError("a worker died")

    with pytest.raises(RuntimeError, match="a worker died"):
        await elector(Line(lease), "one").run(fail)
    assert lease.record is not None
    assert lease.record.holder == ""


async def test_work_that_does_not_end_keeps_the_lease_from_being_released() -> None:
    lease = FakeLease()
    stubborn = asyncio.Event()

    async def work() -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue

    line = Line(lease)
    task = asyncio.create_task(elector(line, "one").run(work))
    await asyncio.sleep(5)
    line.down = True
    with pytest.raises((LeaseLost, asyncio.CancelledError)):
        await task
    assert lease.record is not None
    assert lease.record.holder == "one"
    stubborn.set()
    await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(16))
async def test_two_never_hold_the_lease_at_once(seed: int) -> None:
    """Three contenders, slow and lossy lines, late writes, cut lines, kills, restarts and a deleted Lease's absence."""
    rng = random.Random(seed)
    lease = FakeLease()
    number = 0
    replicas: list[Replica] = []
    dead: list[Replica] = []

    def start() -> None:
        nonlocal number
        number += 1
        replicas.append(Replica(Line(lease, rng, trouble=rng.choice([0.0, 0.05, 0.2])), f"r{number}"))

    for _ in range(3):
        start()
    held = 0
    for _ in range(1500):
        await asyncio.sleep(0.4)
        everyone = replicas + dead
        leaders = [replica for replica in everyone if replica.elector.is_leader]
        assert len(leaders) <= 1
        assert all(replica.elector.is_leader for replica in everyone if replica.working)
        held += len(leaders)
        dice = rng.random()
        if dice < 0.02:
            rng.choice(replicas).line.down ^= True
        elif dice < 0.032:
            victim = replicas.pop(rng.randrange(len(replicas)))
            victim.task.cancel()
            dead.append(victim)
            start()
        for ended in [replica for replica in replicas if replica.task.done()]:
            replicas.remove(ended)
            start()
    assert held > 150, "the lease was hardly ever held, so this run shows nothing"
    for replica in replicas + dead:
        replica.task.cancel()
    await asyncio.gather(*(replica.task for replica in replicas + dead), return_exceptions=True)
    strays = [task for replica in replicas + dead for task in replica.line.stray]
    for task in strays:
        task.cancel()
    await asyncio.gather(*strays, return_exceptions=True)
