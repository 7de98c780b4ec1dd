"""A worker that its queue holds back: whenever it begins, the token in its Secret outlasts its whole run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from searchops.adapters.kube_jobs import KubeJobs
from searchops.api.meta import format_time
from searchops.runtime.errors import ReconcileError, Transient
from unit.adapters.test_guarded_writes import Server
from unit.controllers.fakes_reindex import ReindexWorld, raw_job

DEADLINE = timedelta(hours=2)
SECRET = "/api/v1/namespaces/system/secrets/reindex-1"


async def held_back() -> ReindexWorld:
    """A ReindexJob whose worker Job is made and waits in its queue."""
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job(budget={"deadline": "2h"}))
    for _ in range(3):
        await world.once()
    next(iter(world.jobs.values()))["ended"] = {"suspended": True}
    return world


def left(world: ReindexWorld) -> timedelta:
    return datetime.fromtimestamp(world.claims[-1]["exp"], UTC) - world.now


def renewals(world: ReindexWorld) -> int:
    return world.faults.calls.count("secrets.renew")


async def test_whenever_the_queue_lets_it_go_the_token_outlasts_the_deadline() -> None:
    world = await held_back()
    first = world.claims[-1]
    for minute in range(0, 360, 5):
        world.now += timedelta(minutes=5)
        await world.once()
        assert left(world) > DEADLINE, f"after {minute + 5} minutes in the queue"
    assert 10 <= renewals(world) <= 12, "once in half an hour, not on every pass"
    assert {key: value for key, value in first.items() if key != "exp"} == {
        key: value for key, value in world.claims[-1].items() if key != "exp"
    }
    assert list(world.created.values()) == [1]


async def test_a_job_that_runs_at_once_is_never_signed_for_again() -> None:
    world = await held_back()
    job = next(iter(world.jobs.values()))
    job["ended"] = {"active": 2, "start_time": format_time(world.now)}
    for _ in range(10):
        world.now += timedelta(minutes=10)
        await world.once()
    assert renewals(world) == 0


async def test_a_new_process_signs_for_a_run_that_began_long_after_the_job_was_made() -> None:
    world = await held_back()
    world.now += timedelta(hours=5)
    next(iter(world.jobs.values()))["ended"] = {"active": 2, "start_time": format_time(world.now)}
    world.restart()
    for _ in range(5):
        await world.once()
    assert (renewals(world), left(world) > DEADLINE) == (1, True)


async def test_a_side_that_cannot_be_read_signs_nothing_and_the_job_waits() -> None:
    world = await held_back()
    world.now += timedelta(hours=1)
    world.reachable = False
    await world.once()
    assert renewals(world) == 0
    world.reachable = True
    await world.once()
    assert renewals(world) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_renewal_without_an_answer_is_done_again(when: str) -> None:
    world = await held_back()
    world.now += timedelta(hours=1)
    real, lost = world.renew_secret, [when]

    async def once_lost(name: str, uid: str, secret: dict[str, str]) -> None:
        if lost == ["after"]:
            await real(name, uid, secret)
        if lost:
            raise Transient(f"no answer: {lost.pop()}")
        await real(name, uid, secret)

    world.renew_secret = once_lost  # type: ignore[method-assign, assignment]
    assert isinstance(await world.once(), ReconcileError)
    await world.once()
    await world.once()
    assert (lost, renewals(world)) == ([], 2 if when == "after" else 1)
    assert left(world) > DEADLINE


def secret(*owners: str) -> dict[str, object]:
    references = [{"kind": "Job", "uid": uid} for uid in owners]
    return {"metadata": {"uid": "s", "resourceVersion": "7", "ownerReferences": references}, "data": {"token": "b2xk"}}


async def test_the_secret_of_an_earlier_job_of_that_name_is_neither_used_nor_written() -> None:
    server = Server(**{SECRET: secret("job-0")})
    jobs = KubeJobs(server, "system", template=lambda _: None)  # type: ignore[arg-type]
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "reindex-1"}}
    with pytest.raises(Transient, match=r"belongs to.*job-0"):
        await jobs.renew_secret("reindex-1", "job-1", {"token": "new"})
    with pytest.raises(Transient, match=r"belongs to.*job-0"):
        await jobs.create(manifest, {"token": "new"})
    assert server.objects[SECRET]["data"] == {"token": "b2xk"}
    del server.objects[SECRET]
    await jobs.create(manifest, {"token": "new"})
    assert server.objects[SECRET]["data"] == {"token": "bmV3"}


async def test_the_jobs_own_secret_is_patched_as_it_was_read() -> None:
    server = Server(**{SECRET: secret("job-1")})
    jobs = KubeJobs(server, "system", template=lambda _: None)  # type: ignore[arg-type]
    await jobs.renew_secret("reindex-1", "job-1", {"token": "new"})
    assert server.objects[SECRET]["data"] == {"token": "bmV3"}
