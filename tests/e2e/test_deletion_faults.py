"""Whatever fails while a tenant goes, it goes as its policy says, and who lives beside it on the cell keeps everything.

A row is a policy and a fault; the rows of one fault are played at once, and each is written as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from searchops.api.backup import BackupManifest
from searchops_sandbox.demo.buckets import REPOSITORY
from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.fleet import MERCHANTS, Fleet, alias_of, tenant_manifest
from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from searchops_sandbox.qdrant.cell import QdrantCell

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

POLICIES: Final = ("Retain", "Snapshot", "Delete")
NEIGHBOUR: Final = "alpha"
PRODUCTS: Final = 56
TABLE: Final = REPOSITORY / "build" / "fault-table.jsonl"
TENANTS: Final = f"/apis/searchops.dev/v1alpha1/namespaces/{MERCHANTS}/searchtenants"
LOST: Final = "after-effect"


@dataclass(frozen=True)
class Leaving:
    """A tenant of one row before it goes."""

    policy: str
    name: str
    collection: str
    aliases: frozenset[str]


async def test_a_cell_that_answers_nothing_holds_every_deletion_until_it_recovers(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["eu-1"]
    leaving, before = await _with_products(fleet, "silent"), await _seen_of_neighbour(fleet)
    await cell.inject({"path": ".*", "status": 503, "count": None})
    began = time.monotonic()
    try:
        await _ask_to_delete(fleet, leaving)
        for one in leaving:
            said = await fleet.condition("searchtenants", one.name, "Ready", "False", "Deleting")
            assert (
                "deletion waits for cell eu-1, which " in said["message"]
            )  # by the survey, or by one request of a pass
            assert "annotate the tenant with" in said["message"], "a person has no way out"
            assert await _secret_is_there(fleet, f"{one.name}-storefront"), "taken before its cell let go"
    finally:
        await cell.clear_faults()
    await _each_ends_as_its_policy_says(fleet, "cell answers 503", leaving, began)
    await _neighbour_is_untouched(fleet, before)


async def test_answers_that_are_lost_after_their_effect_end_as_if_they_had_come(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    """Each alias removal, each note and each drop happens, and its answer never comes; the retained has no drop."""
    cell = fleet.platform.sandbox.cells["eu-1"]
    leaving, before = await _with_products(fleet, "unheard"), await _seen_of_neighbour(fleet)
    faults: list[dict[str, object]] = [
        {"method": method, "path": re.escape(f"/collections/{one.collection}"), "drop": LOST}
        for one in leaving
        for method in ("PATCH", "DELETE")
        if (one.policy, method) != ("Retain", "DELETE")
    ]
    removals = sum(len(one.aliases) for one in leaving)
    faults.append({"method": "POST", "path": "/collections/aliases", "drop": LOST, "count": removals})
    await cell.inject(*faults)
    began = time.monotonic()
    try:
        await _ask_to_delete(fleet, leaving)
        await _each_ends_as_its_policy_says(fleet, "answers lost after their effect", leaving, began)
        assert await _faults_left(fleet, cell) == [], "these never came to pass"
    finally:
        await cell.clear_faults()
    await _neighbour_is_untouched(fleet, before)


async def test_an_operator_that_is_killed_once_the_deletion_was_accepted_ends_it_when_it_is_back(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    leaving, before = await _with_products(fleet, "killed"), await _seen_of_neighbour(fleet)
    # Each note takes a second, so that none of the three has gone before the signal.
    notes = [
        {"method": "PATCH", "path": re.escape(f"/collections/{one.collection}"), "latency": 1.0} for one in leaving
    ]
    await fleet.platform.sandbox.cells["eu-1"].inject(*notes)
    began = time.monotonic()
    try:
        await _ask_to_delete(fleet, leaving)
        await fleet.platform.kill_operator()
        for one in leaving:
            assert (await fleet.get("searchtenants", one.name))["metadata"]["deletionTimestamp"]
    finally:
        await fleet.platform.sandbox.cells["eu-1"].clear_faults()
        await fleet.platform.start_operator()
    await _each_ends_as_its_policy_says(fleet, "operator killed", leaving, began)
    await _neighbour_is_untouched(fleet, before)


async def _with_products(fleet: Fleet, fault: str) -> list[Leaving]:
    """One tenant a policy, each with every product."""
    names = {policy: f"{policy.lower()}-{fault}" for policy in POLICIES}
    await fleet.apply(
        *(tenant_manifest(name, region="eu", policy=policy, undelete_window="1s") for policy, name in names.items())
    )
    for name in names.values():
        await fleet.condition("searchtenants", name, "Ready", "True")
    for status, answer in await asyncio.gather(*(fleet.index(name) for name in names.values())):
        assert status == 200, answer
    aliases = await fleet.aliases(fleet.platform.sandbox.cells["eu-1"])
    return [
        Leaving(policy, name, aliases[alias_of(name)], frozenset(_of_tenant(name, aliases)))
        for policy, name in names.items()
    ]


async def _ask_to_delete(fleet: Fleet, leaving: list[Leaving]) -> None:
    """All at once; back as soon as the API server has accepted each."""
    async with fleet.platform.sandbox.api() as api:
        await asyncio.gather(*(api.delete(f"{TENANTS}/{one.name}") for one in leaving))


async def _each_ends_as_its_policy_says(fleet: Fleet, fault: str, leaving: list[Leaving], began: float) -> None:
    ends = {"Retain": _kept_with_its_note, "Snapshot": _stored_and_dropped, "Delete": _dropped}

    async def end(one: Leaving) -> dict[str, Any]:
        await fleet.until(f"{one.name} is gone", lambda: _is_gone(fleet, one.name))
        outcome = await ends[one.policy](fleet, one)
        seconds = round(time.monotonic() - began, 1)
        return {"policy": one.policy, "fault": fault, "outcome": outcome, "seconds": seconds}

    rows = await asyncio.gather(*(end(one) for one in leaving))
    aliases = await fleet.aliases(fleet.platform.sandbox.cells["eu-1"])
    for one in leaving:
        assert _of_tenant(one.name, aliases) == set()
        assert one.collection not in aliases.values()
        for entry in ("storefront", "indexer"):
            assert await _secret_is_there(fleet, f"{one.name}-{entry}") == (one.policy == "Retain")
    await asyncio.to_thread(_write, fault, rows)


async def _kept_with_its_note(fleet: Fleet, one: Leaving) -> str:
    answer = await fleet.ask_cell(fleet.platform.sandbox.cells["eu-1"], "GET", f"/collections/{one.collection}")
    metadata = answer["result"]["config"]["metadata"]
    assert metadata["searchops.dev/policy"] == "Retain"
    assert "searchops.dev/deleted-at" in metadata
    assert "searchops.dev/drop-after" not in metadata
    assert answer["result"]["points_count"] == PRODUCTS
    return "kept with its note"


async def _dropped(fleet: Fleet, one: Leaving) -> str:
    async def gone() -> bool:
        return one.collection not in await fleet.collections(fleet.platform.sandbox.cells["eu-1"])

    await fleet.until(f"{one.collection} is dropped", gone)
    return "dropped"


async def _stored_and_dropped(fleet: Fleet, one: Leaving) -> str:
    """As soon as it is seen to be gone, the manifest of the whole collection is there."""
    folder = fleet.platform.sandbox.artifacts / "backups" / FLEET / MERCHANTS / one.name
    await _dropped(fleet, one)
    (path,) = folder.glob("*/manifest.json")
    manifest = BackupManifest.model_validate_json(path.read_bytes())
    assert (manifest.reason, manifest.collection, manifest.points) == ("Deletion", one.collection, PRODUCTS)
    assert manifest.is_complete
    assert all((path.parent / part.file).stat().st_size == part.size for part in manifest.parts)
    return "stored, then dropped"


async def _is_gone(fleet: Fleet, name: str) -> bool:
    return not await fleet.get("searchtenants", name)


async def _secret_is_there(fleet: Fleet, name: str) -> bool:
    async with fleet.platform.sandbox.api() as api:
        try:
            await api.get(f"/api/v1/namespaces/{MERCHANTS}/secrets/{name}")
        except ApiError as error:
            assert error.status == 404
            return False
    return True


async def _seen_of_neighbour(fleet: Fleet) -> tuple[list[str], dict[str, str], list[str]]:
    """Its point ids, its aliases and the ids of a search."""
    cell = fleet.platform.sandbox.cells["eu-1"]
    body = {"limit": 10 * PRODUCTS, "with_payload": False}
    scrolled = await fleet.ask_cell(cell, "POST", f"/collections/{alias_of(NEIGHBOUR)}/points/scroll", body=body)
    points = sorted(str(point["id"]) for point in scrolled["result"]["points"])
    assert len(points) >= PRODUCTS
    aliases = await fleet.aliases(cell)
    own = {alias: aliases[alias] for alias in _of_tenant(NEIGHBOUR, aliases)}
    assert own
    return points, own, await fleet.hits(NEIGHBOUR)


async def _neighbour_is_untouched(fleet: Fleet, before: tuple[list[str], dict[str, str], list[str]]) -> None:
    await fleet.condition("searchtenants", NEIGHBOUR, "Ready", "True")
    assert "deletionTimestamp" not in (await fleet.get("searchtenants", NEIGHBOUR))["metadata"]
    assert await _seen_of_neighbour(fleet) == before


def _of_tenant(name: str, aliases: dict[str, str]) -> set[str]:
    return {alias for alias in aliases if alias == alias_of(name) or alias.startswith(f"{alias_of(name)}@")}


async def _faults_left(fleet: Fleet, cell: QdrantCell) -> list[dict[str, Any]]:
    async with fleet.session.get(f"{cell.rest_url}/__sandbox/faults", headers={"api-key": cell.api_key}) as answer:
        found = await answer.json()
    return list(found["result"])


def _write(fault: str, rows: list[dict[str, Any]]) -> None:
    """The rows of this fault in place of those of an earlier run."""
    TABLE.parent.mkdir(exist_ok=True)
    kept = TABLE.read_text().splitlines() if TABLE.exists() else []
    kept = [line for line in kept if json.loads(line)["fault"] != fault]
    staging = TABLE.with_name(f".{TABLE.name}.{os.getpid()}")
    staging.write_text("".join(f"{line}\n" for line in [*kept, *(json.dumps(row) for row in rows)]))
    staging.replace(TABLE)
