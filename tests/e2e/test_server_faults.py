"""Servers that come, go, hang, fail and lie: each named in ServersInSync, each converges; no search sees any of it.

One promoted model, one merchant who is searched throughout, and real Triton servers: the pool's own and three replicas
with disks of their own, so that each can be broken alone. The last stories belong together: a candidate meets a full
volume, then a server that serves it wrongly, then the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import pytest_asyncio
import yaml

from searchops_sandbox.demo.buckets import EXAMPLES
from searchops_sandbox.fleet import Fleet, condition_of, tenant_manifest
from searchops_sandbox.replicas import FAILS, NEVER_READY, WRONG_VECTORS, Replica, mend, spoil
from searchops_sandbox.searches import PAUSE_SECONDS, Searches
from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.digests import directory_digest
from searchops_workers.engines.repository import model_names, staging_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

NAME = "replicated"
TENANT = "searched"
QUERIES = ("M12 hex nut A2-70", "wood screw for decking", "stainless washer", "anchor for concrete")
TOLD_SECONDS = 90.0
UNLOADED_SECONDS = 30.0
NEIGHBOUR = "neighbour-tok"
SMALL_FILE = 64 * 1024
"""Bytes: more than a worker's log and answer, less than any graph."""


@dataclass
class Promoted:
    """The model that is served, and who is searched with it."""

    revision: str
    searches: Searches
    manifest: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def promoted(fleet: Fleet) -> AsyncIterator[Promoted]:
    """A model that has passed the gate, and a merchant bound to it whose searches go on until the last story."""
    buckets = fleet.platform.buckets
    await asyncio.to_thread(buckets.fill, ("r1",))
    manifest = yaml.safe_load(buckets.localise((EXAMPLES / "models" / "shop-encoder-r1.yaml").read_text()))
    manifest["metadata"]["name"] = NAME
    manifest["spec"]["rollout"] = {"waves": [{"name": "all", "percent": 100}], "rollbackWindow": "1h"}
    await fleet.apply(tenant_manifest(TENANT, region="us", model=NAME), manifest)
    await fleet.condition("searchtenants", TENANT, "Searchable", "True")
    assert (await fleet.index(TENANT))[0] == 200
    await fleet.condition("embeddingmodels", NAME, "Ready", "True", "Promoted", seconds=300)
    await fleet.condition("searchtenants", TENANT, "ModelBound", "True", seconds=300)
    await _in_sync(fleet, 2)
    revision = (await fleet.get("embeddingmodels", NAME))["status"]["active"]["revision"]
    searches = Searches(fleet, TENANT, QUERIES)

    async def answered() -> bool:
        found = {query: await searches.ask(query) for query in QUERIES}
        searches.first = {query: answer for query, (answer, _) in found.items()}
        return all(answer and not degraded for answer, degraded in found.values())

    await fleet.until("the merchant is searched with the model", answered)
    task = asyncio.create_task(searches.go_on())
    try:
        yield Promoted(revision, searches, manifest)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await fleet.delete("searchtenants", TENANT)
    await fleet.delete("embeddingmodels", NAME)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(fleet: Fleet, promoted: Promoted) -> AsyncIterator[dict[str, Replica]]:
    """Three new members of the serving pool: one in order, one that serves wrong vectors, one that never gets ready."""
    sandbox = fleet.platform.sandbox
    pool = sandbox.pools["default"]
    made = {
        name: Replica(f"default-{name}", folder=sandbox.folder / "triton", repository=sandbox.repositories["default"])
        for name in ("good", "wrong", "stuck")
    }
    for replica in made.values():
        await asyncio.to_thread(replica.copy, promoted.revision)
    made["wrong"].spoil(promoted.revision, WRONG_VECTORS)
    made["stuck"].spoil(promoted.revision, NEVER_READY)
    made["stuck"].neighbour(promoted.revision, NEIGHBOUR)
    try:
        await asyncio.gather(*(replica.server.start() for replica in made.values()))
        pool.extend(replica.server for replica in made.values())
        await sandbox.register_cells_and_pools()
        yield made
    finally:
        for replica in made.values():
            await replica.server.kill()
            if replica.server in pool:
                pool.remove(replica.server)
        await sandbox.register_cells_and_pools()
    await _in_sync(fleet, 2)


async def _trouble(fleet: Fleet, url: str, *reasons: str, saying: str = "") -> dict[str, Any]:
    """The entry of a server in the model's status, which ServersInSync names, once it says so."""

    async def named() -> dict[str, Any] | None:
        model = await fleet.get("embeddingmodels", NAME)
        failing = model["status"]["servers"].get("failing", [])
        found = next((one for one in failing if one["server"] == url and one["reason"] in reasons), None)
        said = condition_of(model, "ServersInSync")
        if found is None or saying not in found["message"] or said.get("status") != "False":
            return None
        for word in (url, found["reason"], found["revision"], f"since {found['since']}"):
            assert word in said["message"]
        return {**found, "told": said["message"]}

    found = await fleet.until(f"ServersInSync says {reasons} {saying!r} of {url}", named, seconds=TOLD_SECONDS)
    assert found is not None
    return found


async def _forgotten(fleet: Fleet, url: str) -> None:
    """A server is in no trouble any more."""

    async def fine() -> bool:
        model = await fleet.get("embeddingmodels", NAME)
        return url not in {one["server"] for one in model["status"]["servers"].get("failing", [])}

    await fleet.until(f"{url} holds what it should", fine, seconds=TOLD_SECONDS)


async def _in_sync(fleet: Fleet, servers: int) -> None:
    async def all_of_them() -> bool:
        model = await fleet.get("embeddingmodels", NAME)
        said = condition_of(model, "ServersInSync")
        return said.get("status") == "True" and f"{servers} of {servers} servers" in said["message"]

    await fleet.until(f"{servers} servers are in sync", all_of_them)


async def _states(fleet: Fleet, url: str, revision: str) -> set[str]:
    states = await fleet.served(url)
    return {states.get(name, "") for name in model_names(revision)}


async def test_a_new_replica_is_named_until_it_has_loaded_by_itself(
    fleet: Fleet, promoted: Promoted, replicas: dict[str, Replica]
) -> None:
    url = replicas["good"].url
    found = await _trouble(fleet, url, "NotLoaded")
    assert found["revision"] == promoted.revision
    await _forgotten(fleet, url)
    assert await _states(fleet, url, promoted.revision) == {"READY"}


async def test_a_server_that_says_ready_and_answers_wrongly_is_named_and_reloaded(
    fleet: Fleet, promoted: Promoted, replicas: dict[str, Replica]
) -> None:
    wrong = replicas["wrong"]
    found = await _trouble(fleet, wrong.url, "WrongVectors")
    assert f"says {promoted.revision} is ready, but cosine" in found["message"]
    assert "wanted at least 0.999" in found["message"]
    assert "restart or replace this server" in found["told"]
    await asyncio.to_thread(wrong.copy, promoted.revision)
    await _forgotten(fleet, wrong.url)
    assert await _states(fleet, wrong.url, promoted.revision) == {"READY"}


async def test_a_load_that_never_ends_holds_nobody_back_and_ends_with_the_servers_restart(
    fleet: Fleet, promoted: Promoted, replicas: dict[str, Replica]
) -> None:
    stuck = replicas["stuck"]
    found = await _trouble(fleet, stuck.url, "Loading")
    assert f"{promoted.revision}-enc" in found["message"]
    assert "where it stays so, restart this server" in found["told"]
    for name in ("good", "wrong"):
        assert await _states(fleet, replicas[name].url, promoted.revision) == {"READY"}
    async with fleet.session.post(f"{stuck.url}/v2/repository/models/{NEIGHBOUR}/load") as answer:
        assert answer.status == 200, await answer.text()
    text = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["m8 nut"]}
    async with fleet.session.post(f"{stuck.url}/v2/models/{NEIGHBOUR}/infer", json={"inputs": [text]}) as answer:
        assert answer.status == 200, await answer.text()
    again = await _trouble(fleet, stuck.url, "Loading")
    assert again["since"] == found["since"], "since when is the first time, not the last"
    await stuck.server.kill()
    await asyncio.to_thread(stuck.copy, promoted.revision)
    await stuck.server.start()
    await _in_sync(fleet, 5)
    assert await _states(fleet, stuck.url, promoted.revision) == {"READY"}


async def test_loads_that_fail_are_told_in_tritons_words_and_tried_ever_more_rarely(
    fleet: Fleet, promoted: Promoted, replicas: dict[str, Replica]
) -> None:
    failing, cut, hollow = replicas["wrong"], replicas["stuck"], replicas["good"]
    await asyncio.gather(*(replica.server.kill() for replica in replicas.values()))
    failing.spoil(promoted.revision, FAILS)
    cut.cut_short(promoted.revision)
    hollow.hollow(promoted.revision)
    await asyncio.gather(*(replica.server.start() for replica in replicas.values()))
    started = time.monotonic()
    await _trouble(fleet, failing.url, "NotLoaded", saying="no room on the device for 91 MB of weights")
    found = await _trouble(fleet, cut.url, "NotLoaded", saying="INVALID_PROTOBUF")
    assert f"does not serve {promoted.revision}-enc" in found["message"]
    assert "put right what it names" in found["told"]
    await _trouble(fleet, hollow.url, "NotLoaded", "Loading", "NoAnswer")

    async def tried_again() -> bool:
        return bool((await _trouble(fleet, failing.url, "NotLoaded"))["attempts"] >= 2)

    await fleet.until("the failed load is tried again", tried_again)
    waits = time.monotonic() - started
    assert failing.loads() <= 3 + waits / 5, "the first waits are 5, 10 and 20 s"
    for replica in (failing, cut):
        assert (await fleet.served(replica.url)).get(f"{promoted.revision}-enc") != "READY"
    await hollow.server.kill()
    for replica in replicas.values():
        await asyncio.to_thread(replica.copy, promoted.revision)
    await hollow.server.start()
    await _in_sync(fleet, 5)


async def test_no_search_was_answered_differently_meanwhile(promoted: Promoted) -> None:
    searches = promoted.searches
    assert searches.changed == []
    assert searches.asked > len(QUERIES)
    assert searches.degraded < searches.asked / 4, "the model answers; the lexical legs alone say so"


@dataclass(frozen=True)
class Candidate:
    """A worse model on its way, whose canary server is down until it is published."""

    revision: str
    repository: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def candidate(fleet: Fleet, promoted: Promoted) -> Candidate:
    """Random weights under the promoted model's name; it waits for the lock with which it publishes."""
    root = fleet.platform.sandbox.folder / "server-faults"
    checkpoint = await asyncio.to_thread(write_tiny_checkpoint, root, seed=29)
    digest = directory_digest(checkpoint)
    manifest = {**promoted.manifest, "spec": {**promoted.manifest["spec"]}}
    manifest["spec"]["source"] = {"uri": f"file://{checkpoint}", "digest": digest}
    manifest["spec"]["engine"] = {**manifest["spec"]["engine"], "buckets": [16, 48]}
    revision = f"{NAME}-r2-{digest.removeprefix('sha256:')[:8]}"
    repository = fleet.platform.sandbox.repositories["canary"]
    (canary,) = fleet.platform.sandbox.pools["canary"]
    await canary.kill()
    with _publishing_held(repository, revision):
        await fleet.apply(manifest)
        publisher = await fleet.until("the build publishes", lambda: _publisher(repository, revision))
        assert publisher is not None
        publisher.rlimit(psutil.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
    await asyncio.to_thread(publisher.wait, TOLD_SECONDS)
    return Candidate(revision, repository)


@contextlib.contextmanager
def _publishing_held(repository: Path, revision: str) -> Iterator[None]:
    """Whoever publishes the revision waits, as it does for another publisher."""
    staging = staging_folder(repository)
    staging.mkdir(exist_ok=True)
    with (staging / f"{revision}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def _publisher(repository: Path, revision: str) -> psutil.Process | None:
    """The build's process, once it waits for the lock."""
    lock = staging_folder(repository) / f"{revision}.lock"
    own = os.getpid()

    def found() -> psutil.Process | None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != own and any(file.path == str(lock) for file in process.open_files()):
                    return process
        return None

    return await asyncio.to_thread(found)


async def test_a_volume_without_room_is_named_and_the_next_try_publishes_whole_models(
    fleet: Fleet, promoted: Promoted, candidate: Candidate
) -> None:
    """RLIMIT_FSIZE stands for a full disk: the kernel refuses the write in its middle, for this one process alone."""
    repository, revision = candidate.repository, candidate.revision
    active = {path.name for path in repository.iterdir() if path.name.startswith(promoted.revision)}

    async def named() -> str | None:
        model = await fleet.get("embeddingmodels", NAME)
        said = condition_of(model, "EngineBuilt").get("message", "")
        return said if "exit code" in said else None

    with _publishing_held(repository, revision):
        said = await fleet.until("the failed try is told", named)
        assert said is not None
        assert "exit code 47: cannot publish" in said
        assert "File too large" in said
        assert "check the volume" in said
        assert active == set(model_names(promoted.revision))
        assert {path.name for path in repository.iterdir()} & set(model_names(revision)) == set()
        left = [path.name for path in staging_folder(repository).iterdir() if path.name.startswith(f"{revision}.stage")]
        assert left == []
    await fleet.condition("embeddingmodels", NAME, "EngineBuilt", "True", "Built")
    assert {path.name for path in repository.iterdir()} >= set(model_names(revision))
    ready = condition_of(await fleet.get("embeddingmodels", NAME), "Loaded")
    assert ready.get("status") != "True", "its only canary server is down"


async def test_a_candidate_is_not_judged_by_a_server_that_answers_wrongly(fleet: Fleet, candidate: Candidate) -> None:
    (canary,) = fleet.platform.sandbox.pools["canary"]
    spoil(candidate.repository, candidate.revision, WRONG_VECTORS)
    await canary.start()
    found = await fleet.condition("embeddingmodels", NAME, "Verified", "False", "VerifyFailed")
    assert f"{canary.http_url} says {candidate.revision} is ready, but cosine" in found["message"]
    await _trouble(fleet, canary.http_url, "WrongVectors")
    async with fleet.platform.sandbox.api() as api:
        jobs = await api.get("/apis/batch/v1/namespaces/searchops-system/jobs")
    gates = [
        item
        for item in jobs["items"]
        if item["metadata"]["labels"].get("searchops.dev/task") == "evaluate" and candidate.revision in json.dumps(item)
    ]
    assert gates == []
    mend(candidate.repository, candidate.revision)
    await fleet.condition("embeddingmodels", NAME, "Verified", "True", "Verified")


async def test_a_refused_candidate_leaves_every_server_within_half_a_minute_and_no_answer_changes(
    fleet: Fleet, promoted: Promoted, candidate: Candidate
) -> None:
    servers = [server for pool in fleet.platform.sandbox.pools.values() for server in pool]
    asked, degraded = promoted.searches.asked, promoted.searches.degraded

    async def verdict() -> bool:
        said = (await fleet.get("embeddingmodels", NAME))["status"].get("verdict", {})
        return (said.get("revision"), said.get("outcome")) == (candidate.revision, "Regressed")

    await fleet.until("the verdict is Regressed", verdict, seconds=400, every=0.1)
    reached = time.monotonic()

    async def unloaded() -> bool:
        states = [await _states(fleet, server.http_url, candidate.revision) for server in servers]
        return all(found <= {"", "UNAVAILABLE"} for found in states)

    await fleet.until("no server holds the candidate", unloaded, seconds=UNLOADED_SECONDS, every=0.1)
    seconds = time.monotonic() - reached
    assert seconds <= UNLOADED_SECONDS
    await fleet.condition("embeddingmodels", NAME, "Ready", "False", "Rejected")
    for server in servers:
        assert await _states(fleet, server.http_url, promoted.revision) == {"READY"}
    await asyncio.sleep(2 * PAUSE_SECONDS * len(QUERIES))
    searches = promoted.searches
    assert searches.changed == []
    assert searches.asked - asked > searches.degraded - degraded
    print(f"unloaded {seconds:.1f} s after the verdict; {searches.asked} searches, {searches.degraded} by words alone")
