"""The sweep of worker Jobs: it ends what nobody owns, proved by a live read, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import OwnedJob
from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob
from searchops.controllers.job_sweep import JobSweep
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import ReconcileError, Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Callable

REINDEX = OwnedJob("reindex-1", "uid-job", "ReindexJob", "uid-rj", "shops", "acme-1")
BUILD = OwnedJob("build-1", "uid-build", "EmbeddingModel", "uid-model", "", "shop")


class World:
    """Worker Jobs, the live objects by plural and name, and what the caches know of them."""

    def __init__(self, *jobs: OwnedJob, fails: dict[str, ReconcileError] | None = None) -> None:
        self.jobs = list(jobs)
        self.fails = fails or {}
        self.live: dict[tuple[str, str, str], str] = {}
        self.calls: list[str] = []
        self.stopped: list[tuple[str, str]] = []
        self.lease = 15.0
        self.caches: dict[str, ObjectCache[Any]] = {
            "ReindexJob": ObjectCache("reindexjobs", ReindexJob.model_validate),
            "EmbeddingModel": ObjectCache("embeddingmodels", EmbeddingModel.model_validate),
        }

    def own(self, job: OwnedJob, *, uid: str = "", cached: bool = True, live: bool = True) -> None:
        cache = self.caches[job.owner_kind]
        metadata = {"name": job.owner_name, "uid": uid or job.owner_uid, "resourceVersion": "1"}
        if job.owner_namespace:
            metadata["namespace"] = job.owner_namespace
        if cached:
            cache.apply("ADDED", {"metadata": metadata, "spec": {}})
        if live:
            self.live[cache.plural, job.owner_namespace, job.owner_name] = metadata["uid"]

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    async def all_owned(self) -> tuple[OwnedJob, ...]:
        self._call("list")
        return tuple(self.jobs)

    async def stop(self, name: str, uid: str) -> None:
        self._call(f"stop {name}")
        self.stopped.append((name, uid))

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        self._call(f"get {name}")
        uid = self.live.get((plural, namespace, name))
        return None if uid is None else {"metadata": {"name": name, "uid": uid}}

    async def cluster_uid(self) -> str:
        raise AssertionError("the sweep needs no cluster")

    async def namespace_uid(self, namespace: str) -> str:
        raise AssertionError("the sweep needs no namespace")

    async def run(self) -> int:
        return await JobSweep(jobs=self, objects=self, caches=self.caches, lease_left=lambda: self.lease).run_once()


@pytest.mark.parametrize("job", [REINDEX, BUILD])
async def test_a_job_whose_owner_is_gone_is_ended_by_its_uid(job: OwnedJob) -> None:
    world = World(job)
    assert (await world.run(), world.stopped) == (1, [(job.name, job.uid)])


@pytest.mark.parametrize("job", [REINDEX, BUILD])
async def test_an_owner_that_was_made_anew_under_the_name_is_another(job: OwnedJob) -> None:
    world = World(job)
    world.own(job, uid="uid-of-a-later-one")
    assert (await world.run(), world.stopped) == (1, [(job.name, job.uid)])


async def test_an_owner_in_the_cache_costs_no_read_and_keeps_its_job() -> None:
    world = World(REINDEX, BUILD)
    world.own(REINDEX)
    world.own(BUILD)
    assert (await world.run(), world.calls) == (0, ["list"])


async def test_an_owner_that_only_the_live_read_shows_keeps_its_job() -> None:
    world = World(REINDEX)
    world.own(REINDEX, cached=False)
    assert (await world.run(), world.stopped, world.calls) == (0, [], ["list", "get acme-1"])


async def test_a_job_of_a_kind_that_is_not_watched_or_without_a_name_is_left_alone() -> None:
    strangers = [
        OwnedJob("snapshot-1", "u", "SomethingElse", "uid-x", "shops", "x"),
        OwnedJob("unnamed-1", "u", "ReindexJob", "uid-x", "shops", ""),
        OwnedJob("unowned-1", "u", "ReindexJob", "", "shops", "x"),
    ]
    world = World(*strangers)
    assert (await world.run(), world.calls) == (0, ["list"])


FAULTS: list[tuple[str, ReconcileError]] = [
    (name, error)
    for name in ("get acme-1", "stop reindex-1")
    for error in (Transient("no answer"), Terminal("Forbidden", "403"))
]


@pytest.mark.parametrize(("name", "error"), FAULTS)
async def test_a_call_that_fails_ends_nothing_and_holds_no_other_back(name: str, error: ReconcileError) -> None:
    world = World(REINDEX, BUILD, fails={name: error})
    assert (await world.run(), world.stopped) == (1, [(BUILD.name, BUILD.uid)])
    world.fails.clear()
    world.jobs.remove(BUILD)
    assert await world.run() == 1


async def test_a_list_that_fails_ends_nothing() -> None:
    world = World(REINDEX, fails={"list": Transient("no answer")})
    assert (await world.run(), world.stopped) == (0, [])


async def test_nothing_is_ended_with_too_little_of_the_lease_left() -> None:
    world = World(REINDEX)
    world.lease = 3.0
    assert (await world.run(), world.stopped) == (0, [])


owners = st.tuples(st.sampled_from(["same", "other", "none"]), st.sampled_from(["same", "other", "none"]))


@given(st.lists(owners, max_size=6))
async def test_exactly_the_jobs_that_no_live_owner_and_no_cache_knows_are_ended(states: list[tuple[str, str]]) -> None:
    jobs = [OwnedJob(f"j{n}", f"u{n}", "ReindexJob", f"o{n}", "shops", f"rj{n}") for n in range(len(states))]
    world = World(*jobs)
    put: Callable[..., None] = world.own
    for job, (cached, live) in zip(jobs, states, strict=True):
        for state, where in ((cached, "cached"), (live, "live")):
            if state != "none":
                flags = {"cached": where == "cached", "live": where == "live"}
                put(job, uid=job.owner_uid if state == "same" else "later", **flags)
    await world.run()
    orphans = [job.name for job, pair in zip(jobs, states, strict=True) if "same" not in pair]
    assert [name for name, _ in world.stopped] == orphans
