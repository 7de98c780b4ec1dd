"""One cell for the gateway's tests of a module, and its administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from integration.gateway.gateway_parts import KEY
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    started = QdrantCell("gateway", folder=tmp_path_factory.mktemp("cell"), api_key=KEY, cluster=True)
    await started.start()
    yield started
    await started.stop()


@pytest_asyncio.fixture
async def admin(cell: QdrantCell) -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(url=cell.rest_url, headers={"api-key": KEY}, check_compatibility=False, timeout=30)
    yield client
    await client.close()
