"""Models that are not what they claim to be: said in a condition that names it, and nothing is promoted or loaded."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from searchops_sandbox.fixtures.output import COMMITTED, HOLDOUT
from searchops_sandbox.fleet import Fleet, condition_of, model_manifest
from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.digests import directory_digest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

WRONG = "sha256:" + "0" * 64


@dataclass(frozen=True)
class BadModels:
    """The folders that the models name, and the digests that they have."""

    checkpoint: Path
    digest: str
    holdout: Path
    holdout_digest: str
    changed: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bad(fleet: Fleet) -> BadModels:
    """Four models, applied at once: their Jobs run side by side."""
    root = fleet.platform.sandbox.folder / "bad-models"
    checkpoint = await asyncio.to_thread(write_tiny_checkpoint, root / "tiny")
    readme = root / "readme"
    readme.mkdir()
    (readme / "README.md").write_text("the weights are elsewhere\n")
    shop = root / "shop"
    shutil.copytree(COMMITTED, shop)
    holdout = shop / HOLDOUT
    changed = holdout.with_name("9.9.9")
    shutil.copytree(holdout, changed)
    with (changed / "queries.jsonl").open("a") as queries:
        queries.write("\n")
    digest, holdout_digest = directory_digest(checkpoint), directory_digest(holdout)
    good = BadModels(checkpoint, digest, holdout, holdout_digest, changed)
    await fleet.apply(
        _manifest("wrong-digest", replace(good, digest=WRONG)),
        _manifest("no-checkpoint", replace(good, checkpoint=readme, digest=directory_digest(readme))),
        _manifest("other-holdout", replace(good, holdout=changed)),
        _manifest("torn-holdout", replace(good, holdout=changed, holdout_digest=directory_digest(changed))),
    )
    return good


def _manifest(name: str, models: BadModels) -> dict[str, object]:
    return model_manifest(
        name,
        checkpoint=models.checkpoint,
        digest=models.digest,
        holdout=models.holdout,
        holdout_digest=models.holdout_digest,
    )


async def _refused(fleet: Fleet, name: str, reason: str) -> str:
    """The message of the build's condition; nothing was promoted, loaded or published."""
    found = await fleet.condition("embeddingmodels", name, "EngineBuilt", "False", reason)
    model = await fleet.get("embeddingmodels", name)
    assert model["status"]["phase"] == "Paused"
    assert "active" not in model["status"]
    ready = condition_of(model, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    for pool, servers in fleet.platform.sandbox.pools.items():
        assert not [one for one in fleet.platform.sandbox.repositories[pool].iterdir() if one.name.startswith(name)]
        for server in servers:
            assert not [one for one in await fleet.served(server.http_url) if one.startswith(name)]
    return str(found["message"])


async def test_a_digest_that_does_not_match_names_seen_and_wanted(fleet: Fleet, bad: BadModels) -> None:
    message = await _refused(fleet, "wrong-digest", "DigestMismatch")
    assert bad.digest in message
    assert WRONG in message
    assert "spec.source" in message


async def test_a_checkpoint_that_is_none_names_the_file_it_lacks(fleet: Fleet, bad: BadModels) -> None:
    message = await _refused(fleet, "no-checkpoint", "BadCheckpoint")
    assert "modules.json" in message


async def test_a_holdout_with_another_digest_is_named(fleet: Fleet, bad: BadModels) -> None:
    message = await _refused(fleet, "other-holdout", "DigestMismatch")
    assert "gate.holdouts[core].digest" in message
    assert directory_digest(bad.changed) in message
    assert bad.holdout_digest in message


async def test_a_holdout_with_a_changed_file_names_the_file(fleet: Fleet, bad: BadModels) -> None:
    message = await _refused(fleet, "torn-holdout", "DigestMismatch")
    assert "gate.holdouts[core]" in message
    assert "queries.jsonl" in message


async def test_the_corrected_digest_is_built(fleet: Fleet, bad: BadModels) -> None:
    await _refused(fleet, "wrong-digest", "DigestMismatch")
    await fleet.apply(_manifest("wrong-digest", bad))
    await fleet.condition("embeddingmodels", "wrong-digest", "EngineBuilt", "True", "Built")
    model = await fleet.get("embeddingmodels", "wrong-digest")
    assert model["status"]["candidate"]["number"] == 2
    await fleet.delete("embeddingmodels", "wrong-digest")
