"""A tenant loses everything on its cell and comes back on another from its backup alone: the same answers."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.fleet import MERCHANTS, Fleet, alias_of, condition_of, tenant_manifest
from searchops_sandbox.registration import NAMESPACE

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

QUERIES = ("M12 hex nut A2-70", "stainless washer", "DIN 934")


async def searchops(fleet: Fleet, *arguments: str) -> tuple[int, str]:
    """The command line, as an administrator runs it."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(fleet.platform.sandbox.kubeconfig),
        "SEARCHOPS_FLEET": FLEET,
        "SEARCHOPS_NAMESPACE": NAMESPACE,
        "SEARCHOPS_ARTIFACTS": fleet.platform.artifacts,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from searchops.cli.main import main; main()", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_everything_is_dropped_and_comes_back_in_the_other_cell(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    name, alias = "saved", alias_of("saved")
    here, there = (fleet.platform.sandbox.cells[cell] for cell in ("eu-1", "us-1"))
    tenant = tenant_manifest(name, region="eu")
    await fleet.apply(tenant)
    await fleet.condition("searchtenants", name, "Ready", "True")
    status, answer = await fleet.index(name)
    assert status == 200, answer
    before = [await fleet.hits(name, query) for query in QUERIES]
    assert all(before[:2])

    tenant["spec"]["backup"] = {"schedule": "* * * * *", "keep": 2}
    await fleet.apply(tenant)

    async def proved() -> bool:
        found = (await fleet.get("searchtenants", name)).get("status", {})
        last, proof = found.get("lastBackup", {}), found.get("lastProof", {})
        return bool(last.get("points") == 56 and proof.get("ok") is True and proof.get("points") == 56)

    await fleet.until("a backup of all points that was proved", proved, seconds=300)
    fresh = await fleet.condition("searchtenants", name, "BackupFresh", "True", "BackedUp")
    assert "was restored and counted at" in fresh["message"]
    collection = (await fleet.aliases(here))[alias]
    assert not [each for each in await fleet.collections(here) if "@proof-" in each]

    code, said = await searchops(fleet, "restore", name, "-n", MERCHANTS, "--cell", "us-1")
    assert (code, "the tenant lives on cell eu-1" in said) == (2, True), said

    others = await fleet.collections(here) - {collection}
    answer = await fleet.ask_cell(here, "DELETE", f"/collections/{collection}")
    assert answer["result"] is True
    await fleet.condition("searchtenants", name, "Provisioned", "False", "CollectionLost")
    backup = ("--backup", (await fleet.get("searchtenants", name))["status"]["lastBackup"]["id"])
    code, said = await searchops(fleet, "restore", name, "-n", MERCHANTS, "--cell", "us-1", *backup, "--dry-run")
    assert code == 0, said
    assert "would recover 1 snapshots" in said
    assert alias not in await fleet.aliases(there)
    code, said = await searchops(fleet, "restore", name, "-n", MERCHANTS, "--cell", "us-1", *backup)
    assert code == 0, said
    assert "56 points are back" in said

    async def moved() -> bool:
        found = await fleet.get("searchtenants", name)
        cell = found["metadata"]["annotations"]["searchops.dev/cell"]
        return cell == "us-1" and condition_of(found, "Ready").get("status") == "True"

    await fleet.until(f"{name} is ready on us-1", moved)
    fleet.tokens = {key: value for key, value in fleet.tokens.items() if not key.startswith(f"{name}-")}
    assert [await fleet.hits(name, query) for query in QUERIES] == before
    status, answer = await fleet.index(name)
    assert status == 200, answer
    assert await fleet.collections(here) == others, "nothing else on the lost cell was touched"
    await fleet.delete("searchtenants", name)
