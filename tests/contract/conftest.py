"""Servers under contract: the sandbox's double always, a real server where `QDRANT_URL` names one."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from contract.wire import Wire
from searchops_sandbox.qdrant.cell import QdrantCell
from searchops_sandbox.qdrant.contract import IN_CLUSTER_MODE, Rest, servers
from searchops_sandbox.qdrant.replay import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# pytest-asyncio asks for "the current loop" before the first async test: Python would open one that nobody closes.
asyncio.set_event_loop(None)

API_KEY = "contract-suite-key-of-32-characters!"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=servers())
async def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    if request.param == "real":
        url = os.environ["QDRANT_URL"].rstrip("/")
        port = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
        yield Server(url, port, os.environ.get("QDRANT_API_KEY", ""), double=False)
        return
    clustered = request.param == IN_CLUSTER_MODE
    cell = QdrantCell("contract", folder=tmp_path_factory.mktemp("cell"), api_key=API_KEY, cluster=clustered)
    await cell.start()
    try:
        yield Server(cell.rest_url, cell.grpc_port, cell.api_key, double=cell.is_double)
    finally:
        await cell.stop()


@pytest.fixture
def rest(server: Server) -> Iterator[Rest]:
    client = Rest(server, {"api-key": server.api_key})
    yield client
    for name in client.names:
        client.raw("DELETE", f"/collections/{name}")
    client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    """The sandbox's double alone, for what no real server can be told to do."""
    cell = QdrantCell("double", folder=tmp_path_factory.mktemp("cell"), api_key=API_KEY)
    await cell.start()
    yield cell
    await cell.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def wire(double: QdrantCell) -> AsyncIterator[Wire]:
    made = Wire(double.rest_url)
    await made.start()
    yield made
    await made.stop()
