"""A Triton server that dies while it loads: named in a condition; the restarted server converges by itself."""

from __future__ import annotations

import asyncio

import pytest

from searchops_sandbox.fixtures.output import COMMITTED, HOLDOUT
from searchops_sandbox.fleet import Fleet, condition_of, model_manifest
from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.digests import directory_digest

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

NAME = "dies-loading"


async def test_a_server_that_dies_mid_load_is_named_and_converges(fleet: Fleet) -> None:
    root = fleet.platform.sandbox.folder / "dies-loading"
    checkpoint = await asyncio.to_thread(write_tiny_checkpoint, root, seed=11)
    holdout = COMMITTED / HOLDOUT
    digests = {"digest": directory_digest(checkpoint), "holdout_digest": directory_digest(holdout)}
    (canary,) = fleet.platform.sandbox.pools["canary"]
    await fleet.apply(model_manifest(NAME, checkpoint=checkpoint, holdout=holdout, **digests))

    async def loading() -> bool:
        return any(
            name.startswith(NAME) and state == "LOADING"
            for name, state in (await fleet.served(canary.http_url)).items()
        )

    await fleet.until("the canary server loads the candidate", loading, every=0.005)
    await canary.kill()
    try:
        found = await fleet.condition("embeddingmodels", NAME, "Loaded", "False")
        assert canary.http_url in found["message"]
        model = await fleet.get("embeddingmodels", NAME)
        assert condition_of(model, "ServersInSync")["status"] == "False"
        assert canary.http_url in condition_of(model, "ServersInSync")["message"]
        assert "active" not in model["status"]
        attempt = model["status"]["candidate"]
    finally:
        await canary.start()
    await fleet.condition("embeddingmodels", NAME, "Loaded", "True")
    model = await fleet.get("embeddingmodels", NAME)
    assert model["status"]["candidate"]["revision"] == attempt["revision"], "nothing is built anew"
    revision = attempt["revision"]
    states = await fleet.served(canary.http_url)
    assert {states.get(f"{revision}{part}") for part in ("", "-tok", "-enc")} == {"READY"}
    await fleet.delete("embeddingmodels", NAME)
    left = [
        name
        for name, state in (await fleet.served(canary.http_url)).items()
        if name.startswith(NAME) and state == "READY"
    ]
    assert left == []
