"""A revision built for the CPU and published into a repository, as a build Job of the sandbox does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from searchops_workers.digests import directory_digest
from searchops_workers.engines.build import BuildRequest, build
from searchops_workers.engines.storage import UriArtifacts

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.engines.build import BuildOutcome


async def publish(
    checkpoint: Path,
    revision: str,
    folder: Path,
    *,
    repository: Path,
    max_batch: int = 8,
    buckets: tuple[int, ...] = (16, 48),
) -> tuple[BuildOutcome, Path]:
    """Build and publish; what came of it, and the folder of the revision's artifacts.

    Args:
        checkpoint: what is built.
        revision: its name.
        folder: for work, artifacts and engines.
        repository: of the servers that shall serve it.
        max_batch: most texts of one inference.
        buckets: sequence lengths, in tokens.
    """
    artifact = folder / "artifacts" / revision
    request = BuildRequest(
        revision=revision,
        checkpoint=checkpoint,
        expected_digest=directory_digest(checkpoint),
        backend="Auto",
        precision="Auto",
        max_batch=max_batch,
        buckets=buckets,
        accelerator="cpu",
        work=folder,
        repositories=(repository,),
    )
    artifacts = UriArtifacts(f"file://{artifact}", f"file://{folder}/engines")
    return await asyncio.to_thread(build, request, artifacts, lambda line: None), artifact
