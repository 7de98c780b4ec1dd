"""The reindex controller over a world that answers late, loses answers and changes its mind."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from searchops.api.shared import SliceAddress
from searchops.api.tasks import EXIT_CELL_FULL
from searchops.planning.cell_room import begun
from searchops.planning.names import KEY_PENDING
from unit.controllers.fakes_numbered_faults import Faults
from unit.controllers.fakes_reindex import ALIAS, NEW, REVISION, UNTOUCHED, ReindexWorld, raw_job, raw_tenant


async def verified(faults: Faults | None = None) -> ReindexWorld:
    world = ReindexWorld(faults)
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    return world


def condition(world: ReindexWorld, kind: str, name: str = "acme-1") -> tuple[str, str]:
    conditions = world.status(name)["conditions"]
    return next((one["status"], one["reason"]) for one in conditions if one["type"] == kind)


async def test_a_job_ends_at_verified_and_moves_nothing_itself() -> None:
    world = await verified()
    assert (world.status()["phase"], condition(world, "Verified")) == ("Verified", ("True", "Verified"))
    assert list(world.created.values()) == [1]
    assert world.events == ["Verified"]
    writes = world.api.status_writes
    for _ in range(3):
        await world.once()
    assert world.api.status_writes == writes


async def test_the_worker_gets_a_token_for_its_two_collections_in_a_secret_of_its_own() -> None:
    world = await verified()
    assert world.claims[0]["access"] == [
        {"collection": f"{ALIAS}@g2", "access": "prw"},
        {"collection": f"{ALIAS}@g1", "access": "r"},
    ]
    assert list(world.secrets.values()) == [{"token": "signed"}]
    assert "signed" not in json.dumps([made["task"] for made in world.jobs.values()])


async def test_a_move_into_a_shared_collection_is_told_to_the_worker_and_signed_for_it_alone() -> None:
    world = ReindexWorld()
    world.slices = {f"{ALIAS}@g2": SliceAddress("ShardKey", "prod@keyed-1", "slice-0002")}
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    assert world.status()["phase"] == "Verified"
    (made,) = world.jobs.values()
    assert made["task"]["targetSlice"] == {"tier": "ShardKey", "collection": "prod@keyed-1", "key": "slice-0002"}
    assert (made["task"]["sourceCollection"], made["task"]["sourceSlice"]) == (f"{ALIAS}@g1", None)
    assert [claims["access"] for claims in world.claims] == [
        [{"collection": "prod@keyed-1", "access": "prw"}, {"collection": f"{ALIAS}@g1", "access": "r"}]
    ]
    assert world.status()["target"]["collection"] == f"{ALIAS}@g2"


async def test_a_side_within_the_live_collection_is_a_named_vector() -> None:
    world = ReindexWorld()
    world.metadata[KEY_PENDING] = NEW.model_copy(update={"side": f"{ALIAS}@b"}).to_metadata()
    world.put_tenant()
    world.api.put(raw_job())
    await world.once()
    await world.once()
    assert world.status()["strategy"]["chosen"] == "NamedVector"
    assert world.claims[0]["access"] == [{"collection": f"{ALIAS}@g1", "access": "prw"}]


@pytest.mark.parametrize("side", [f"{ALIAS}@g2", "prod.shops.other@a", "prod.shops.other"])
async def test_a_side_of_another_tenant_is_never_signed_for(side: str) -> None:
    """Whoever wrote it into the metadata: a worker's token is on its own tenant's collections."""
    world = ReindexWorld()
    world.metadata[KEY_PENDING] = NEW.model_copy(update={"side": side}).to_metadata()
    assert await world.refused() == UNTOUCHED


@pytest.mark.parametrize("whose", ["source", "target"])
@pytest.mark.parametrize("key", ["searchops.dev/uid", "searchops.dev/fleet"])
async def test_a_collection_of_another_owner_behind_our_alias_is_never_signed_for(whose: str, key: str) -> None:
    world = ReindexWorld()
    (world.metadata if whose == "source" else world.owner)[key] = "another"
    assert await world.refused() == UNTOUCHED


async def test_a_side_that_is_still_being_indexed_is_waited_for_and_not_searched_for_recall() -> None:
    world = ReindexWorld()
    world.colour = "yellow"
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    assert (world.status()["phase"], condition(world, "Indexed")) == ("Indexing", ("False", "Indexing"))
    assert "cell.recall" not in world.faults.calls
    world.colour = "green"
    await world.settle()
    assert (world.status()["phase"], world.faults.calls.count("cell.recall")) == ("Verified", 1)


async def test_low_recall_ends_the_job_before_any_switch() -> None:
    world = ReindexWorld()
    world.hits = 470
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    assert (world.status()["phase"], condition(world, "Verified")) == ("Failed", ("False", "RecallTooLow"))
    assert world.faults.calls.count("cell.recall") == 1


async def test_a_failure_is_kept_until_a_new_word_or_a_new_spec_tries_again() -> None:
    world = ReindexWorld()
    world.hits = 0
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    world.jobs.clear()  # the Job's own time to live
    world.now += timedelta(days=30)
    for _ in range(3):
        await world.once()
    assert (world.status()["phase"], list(world.created.values())) == ("Failed", [1])
    assert "acme-1" in world.api.objects, "deleting it would make the tenant try again in silence"
    world.hits = 500
    raw = world.api.objects["acme-1"]
    raw["metadata"].setdefault("annotations", {})["searchops.dev/retry"] = "disk-is-bigger"
    world.api.put(raw)
    world.filled = 0
    await world.settle()
    assert (world.status()["phase"], list(world.created.values())) == ("Verified", [2])
    assert (world.status()["retries"], world.status()["retryToken"]) == (1, "disk-is-bigger")
    uris = {uri.rsplit("/", 2)[1] for uri in world.store}
    assert uris == {"results", "results-1"}, "answers of the first try are not taken for the second's"


async def test_a_failure_that_nobody_waits_for_goes_after_its_time() -> None:
    world = ReindexWorld()
    world.hits = 0
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    world.put_tenant(named="acme-2")
    world.now += timedelta(hours=73)
    for _ in range(3):
        if "acme-1" in world.api.objects:
            await world.once()
    assert world.api.objects == {}


async def test_a_budget_that_is_spent_stops_the_worker_and_a_greater_one_goes_on() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job(budget={"maxGpuHours": "0.1"}))
    await world.once()
    await world.once()
    (name,) = world.jobs
    world.jobs[name]["ended"] = {"active": 2, "start_time": "2026-11-24T12:00:00Z"}
    world.filled = 30
    world.now += timedelta(minutes=2)
    await world.once()
    assert world.status()["phase"] == "Embedding"
    world.now += timedelta(minutes=1)
    await world.once()
    assert (world.status()["phase"], world.jobs) == ("Pending", {})
    assert condition(world, "Ready") == ("False", "BudgetExceeded")
    held = world.api.objects["acme-1"]
    held["spec"]["budget"]["maxGpuHours"] = "4"
    world.api.put(held)
    await world.settle()
    assert (world.status()["phase"], world.created[name]) == ("Verified", 2)


async def test_the_rate_of_other_rebuilds_to_the_revision_says_what_a_start_would_cost() -> None:
    world = ReindexWorld()
    world.put_tenant()
    done = raw_job("other-1", "other")
    done["status"] = {"phase": "Switched", "cost": {"gpuSeconds": 100, "documentsPerGpuSecond": "0.010"}}
    world.reindexes.apply("ADDED", {**done, "metadata": {**done["metadata"], "resourceVersion": "1"}})
    world.api.put(done)
    world.api.put(raw_job(budget={"maxGpuHours": "1"}))
    for _ in range(3):
        await world.once()
    assert (world.jobs, condition(world, "Ready")) == ({}, ("False", "BudgetExceeded"))
    message = next(one["message"] for one in world.status()["conditions"] if one["type"] == "Ready")
    assert "0.00 GPU-hours are spent, 100 of 100 documents remain and need about 2.78 more" in message


async def test_a_manual_cutover_says_how_to_go_on() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job(cutover="Manual"))
    await world.settle()
    assert (world.status()["phase"], condition(world, "Switched")) == ("Verified", ("False", "AwaitingApproval"))
    raw = world.api.objects["acme-1"]
    raw["metadata"].setdefault("annotations", {})["searchops.dev/approve"] = REVISION
    world.api.put(raw)
    await world.settle()
    assert condition(world, "Switched") == ("False", "Waiting")
    world.put_tenant(named=None, bound=REVISION)
    await world.settle()
    assert world.status()["phase"] == "Switched"


async def test_switched_is_said_once_the_tenant_is_bound() -> None:
    world = await verified()
    world.put_tenant(named=None, bound=REVISION)
    await world.settle()
    assert (world.status()["phase"], condition(world, "Ready")) == ("Switched", ("True", "Complete"))
    assert world.events == ["Verified", "Switched"]


async def test_a_job_that_is_no_longer_wanted_stops_its_worker() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job())
    await world.once()
    await world.once()
    assert world.status()["phase"] == "Embedding"
    world.put_tenant(named="acme-2")
    await world.settle()
    assert (world.status()["phase"], world.jobs) == ("Cancelled", {})
    assert world.deleted == list(world.created)


async def test_a_tenant_that_is_gone_stops_the_worker_and_one_that_does_not_parse_does_not() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job())
    await world.once()
    await world.once()
    raw = raw_tenant()
    raw["metadata"]["resourceVersion"] = "77"
    raw["spec"]["fields"] = 3
    world.tenants.apply("MODIFIED", raw)
    await world.once()
    assert (world.status()["phase"], len(world.jobs)) == ("Embedding", 1)
    world.tenants.apply("DELETED", raw)
    await world.once()
    assert (world.status()["phase"], world.jobs) == ("Cancelled", {})


async def test_the_limit_of_the_model_holds_across_jobs_that_start_at_once() -> None:
    world = ReindexWorld()
    world.limit = 1
    world.restart()
    for number in (1, 2):
        world.put_tenant(name="acme", named="acme-1")
        world.api.put(raw_job(f"acme-{number}", "acme" if number == 1 else "other"))
    world.put_tenant(name="other", named="acme-2")
    world.api.deliver()
    for name in ("acme-1", "acme-2"):
        await world.once(name)
    await world.once("acme-1")
    await world.once("acme-2")
    assert world.status()["phase"] == "Embedding"
    assert world.status("acme-2")["phase"] in ("Queued", "Pending")
    assert len(world.jobs) == 1


async def test_a_cell_that_does_not_answer_stops_nothing_that_runs() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job())
    await world.once()
    await world.once()
    world.reachable = False
    await world.once()
    assert (world.status()["phase"], condition(world, "Ready")) == ("Embedding", ("False", "CellUnreachable"))
    world.reachable = True
    await world.settle()


async def test_a_catalogue_outside_the_namespaces_prefix_is_refused() -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job(source={"uri": "s3://c/others/x.jsonl"}))
    await world.settle()
    assert (world.jobs, condition(world, "Ready")) == ({}, ("False", "SourceNotAllowed"))


@pytest.mark.parametrize("answer", [b"not json", b'{"kind": "evaluate", "revision": "x", "outcome": "Pass"}'])
async def test_an_answer_that_is_none_verifies_nothing(answer: bytes) -> None:
    world = ReindexWorld()
    world.put_tenant()
    world.api.put(raw_job())
    await world.once()
    await world.once()
    world.work()
    world.store["s3://artifacts/reindex/uid-acme-1/results/slice-1.json"] = answer
    await world.settle()
    assert (world.status()["phase"], condition(world, "Ready")) == ("Failed", ("False", "WorkerFailed"))


async def test_a_spec_that_does_not_parse_is_a_condition() -> None:
    world = ReindexWorld()
    world.api.put(raw_job(slices=0))
    await world.once()
    assert condition(world, "Ready") == ("False", "InvalidSpec")


async def test_a_finished_job_is_deleted_after_its_time_with_its_worker() -> None:
    world = await verified()
    world.put_tenant(named=None, bound=REVISION)
    await world.settle()
    world.now += timedelta(hours=73)
    for _ in range(3):
        if "acme-1" in world.api.objects:
            await world.once()
    assert (world.api.objects, world.jobs) == ({}, {})


async def test_every_external_call_may_fail_once_before_or_after_taking_effect() -> None:
    calls = (await story(None)).faults.calls
    kinds = {
        "jobs.create",
        "secrets.create",
        "jobs.get",
        "cell.survey",
        "cell.describe",
        "cell.count",
        "cell.recall",
        "artifacts.read",
    }
    assert kinds | {"status", "metadata", "jobs.delete", "reindexjobs.delete"} <= set(calls)
    for index, name in enumerate(calls):
        for after in (False, True):
            world = await story(Faults(index, after=after))
            assert world.faults.failed, f"call {index} {name} was not reached"
            assert list(world.created.values()) == [1], (index, name, after)


async def story(faults: Faults | None) -> ReindexWorld:
    """Verified, switched, past its time and gone."""
    world = await verified(faults)
    seen: list[Any] = [world.status()["phase"]]
    world.put_tenant(named=None, bound=REVISION)
    await world.settle()
    seen.append(world.status()["phase"])
    assert seen == ["Verified", "Switched"]
    world.now += timedelta(hours=73)
    for _ in range(6):
        if "acme-1" in world.api.objects:
            await world.once()
    assert (world.api.objects, world.jobs, world.secrets) == ({}, {}, {})
    return world


class FullCellWorld(ReindexWorld):
    """Workers meet a full cell until it has room."""

    room = False

    def work(self) -> None:
        if self.room:
            super().work()
            return
        for name, made in self.jobs.items():
            if name not in self.secrets or made["done"]:
                continue
            answer = {"kind": "reindex", "slice": 0, "exitCode": EXIT_CELL_FULL, "message": "cell eu-1: 507"}
            self.store[f"{made['task']['resultUri']}/slice-0.json"] = json.dumps(answer).encode()
            made["ended"] = {"failure": "exit code 55", "failure_reason": "PodFailurePolicy"}
            self.rooms.held["eu-1"] = begun("cell eu-1: 507", 1, self.now)


async def through_a_full_cell(faults: Faults | None = None) -> FullCellWorld:
    world = FullCellWorld(faults)
    world.put_tenant()
    world.api.put(raw_job())
    await world.settle()
    assert (world.status()["phase"], condition(world, "Prepared")) == ("Queued", ("False", "CellFull"))
    assert (world.jobs, set(world.rooms.told)) == ({}, {("eu-1", "cell eu-1: 507")})
    world.room = True
    world.rooms.held.clear()
    await world.settle()
    return world


async def test_a_full_cell_stops_the_worker_holds_the_cell_and_the_work_goes_on_with_the_room() -> None:
    world = await through_a_full_cell()
    assert (world.status()["phase"], world.status()["retries"]) == ("Verified", 1)
    assert list(world.created.values()) == [2]
    assert world.events == ["Verified"]


@pytest.mark.parametrize("after", [False, True])
async def test_one_failure_anywhere_on_the_way_through_a_full_cell_changes_nothing_in_the_end(after: bool) -> None:
    plain = await through_a_full_cell()
    for at in range(len(plain.faults.calls)):
        world = await through_a_full_cell(Faults(at, after=after))
        ended = world.status()["phase"], list(world.created.values())
        assert ended == ("Verified", [2]), f"call {at} ({plain.faults.calls[at]}) failed, after its effect: {after}"
