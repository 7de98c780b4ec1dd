"""The reindex worker against a real Triton server: a tiny published model, a kill, and vectors that agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
from qdrant_client import models

from integration import reindex_parts as parts
from searchops.adapters.triton import TritonServers
from searchops.api.observed import ServerState
from searchops.api.retrieval import point_id
from searchops.api.tasks import EXIT_BAD_MODEL
from searchops_sandbox.published_model import publish
from searchops_sandbox.tiny_checkpoint import HIDDEN, write_tiny_checkpoint
from searchops_sandbox.triton import TritonServer
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.encoders.triton_client import TritonConnection
from searchops_workers.engines.repository import model_names
from searchops_workers.retrieval.documents import render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from searchops_sandbox.qdrant.cell import QdrantCell

pytestmark = [pytest.mark.triton, pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

REVISION = "tiny-r1-0123abcd"
PRODUCTS = 600


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def published(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[TritonServer, Path]]:
    """One server that serves a tiny model, and the model's artifact folder."""
    folder = tmp_path_factory.mktemp("published")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    _, artifact = await publish(checkpoint, REVISION, folder, repository=folder / "repository")
    server = TritonServer("reindex", folder=folder, repository=folder / "repository")
    await server.start()
    try:
        ports = TritonServers()
        for model in model_names(REVISION):
            await ports.load(ServerState(server.http_url, server.grpc_url, True), model)
        await ports.close()
        yield server, artifact
    finally:
        await server.stop()


async def test_a_killed_rebuild_ends_with_the_vectors_of_the_served_model(
    published: tuple[TritonServer, Path], cell: QdrantCell, tmp_path: Path
) -> None:
    server, artifact = published
    connection = TritonConnection(server.grpc_url)
    digest = (await connection.describe(REVISION)).manifest_digest
    await connection.close()
    tenant = parts.Tenant(cell, parts.FakeTriton(), tmp_path)
    try:
        old = tenant.binding("r1")
        target = await tenant.create(0, [old])
        points = [
            models.PointStruct(
                id=point_id(product["id"]),
                vector={"d-r1": parts.encoded("r1", product["title"])},
                payload={**product, "_id": product["id"]},
            )
            for product in parts.products(PRODUCTS)
        ]
        for start in range(0, PRODUCTS, 300):
            await tenant.admin.upsert(target, points[start : start + 300], wait=True)
        new = old.model_copy(update={"encoder": REVISION, "vector": "d-tiny", "dimension": HIDDEN})
        await tenant.ports.add_vector(tenant.registration, target, "d-tiny", HIDDEN)
        before = await tenant.points(target)

        async def lacking() -> int:
            return await tenant.ports.count(tenant.registration, target, lacking="d-tiny")

        wrong = tenant.task("NamedVector", new, servers=(server.grpc_url,))
        (answer,) = await parts.run_slices(tenant, wrong)
        assert answer.code == EXIT_BAD_MODEL, answer.output
        assert await lacking() == PRODUCTS

        task = tenant.task("NamedVector", new, servers=(server.grpc_url,), manifest_digest=digest)
        worker = await parts.Worker(task, 0, tenant.scoped(task), tenant.folder).start()

        async def begun() -> bool:
            return await lacking() < PRODUCTS

        await worker.until(begun)
        await worker.kill()
        left = await lacking()
        assert 0 < left < PRODUCTS
        (answer,) = await parts.run_slices(tenant, task)
        assert answer.code == 0, answer.output
        assert answer.result is not None
        assert answer.result.embedded == left
        assert (answer.result.sample_min_cosine or 0) >= 0.99999

        after = await tenant.points(target)
        assert {name: point.payload for name, point in after.items()} == {n: p.payload for n, p in before.items()}
        names = list(after)
        fresh = await OnnxEncoder.open(artifact).encode([render(new.document, after[n].payload) for n in names])
        stored = np.array([parts.stored(after[name])["d-tiny"] for name in names])
        assert np.einsum("ij,ij->i", stored, fresh).min() >= 0.99999
        assert all(parts.stored(after[name])["d-r1"] == parts.stored(before[name])["d-r1"] for name in names)
    finally:
        await tenant.close()
