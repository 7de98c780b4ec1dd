"""A worker whose cell loses a node goes on at another, and sends nothing twice by itself."""

from __future__ import annotations

import json

import httpx
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException

from searchops.api.tasks import CellAddress
from searchops_workers.reindex.cell_nodes import NextNode
from searchops_workers.reindex.worker import cell_client


class Answers(httpx.AsyncBaseTransport):
    """A server at every address but those that are down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.keys: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        self.keys.add(request.headers["api-key"])
        assert request.headers["host"] == request.url.netloc.decode()
        if request.url.host in self.down:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=json.dumps({"result": {"count": 7}, "status": "ok", "time": 0.0}).encode())


async def test_a_node_that_is_down_is_left_for_the_next_and_the_caller_decides_to_try_again() -> None:
    answers = Answers()
    cell = CellAddress(url="http://one", others=("https://two.example:443/qdrant", "http://[::1]:7000"))
    client = cell_client(cell, "token", transport=NextNode([cell.url, *cell.others], answers))
    try:
        assert (await client.count("c")).count == 7
        answers.down = {"one"}
        with pytest.raises(ResponseHandlingException):
            await client.count("c")
        assert (await client.count("c")).count == 7
        answers.down = {"two.example"}
        with pytest.raises(ResponseHandlingException):
            await client.count("c")
        assert (await client.count("c")).count == 7
    finally:
        await client.close()
    assert answers.asked == [
        "http://one:6333/collections/c/points/count",
        "http://one:6333/collections/c/points/count",
        "https://two.example/qdrant/collections/c/points/count",
        "https://two.example/qdrant/collections/c/points/count",
        "http://[::1]:7000/collections/c/points/count",
    ]
    assert answers.keys == {"token"}
