"""What a cell's metrics tell of its room: only what they say, and nothing where they are silent."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import httpx
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from searchops.adapters.aiohttp_transport import Answer
from searchops.adapters.cell_reads import load
from searchops.api.observed import CellLoad, CellRegistration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops.adapters.cell_connections import Connection

CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), None, 100, api_key="k" * 40)
GAUGES = 'process_open_mmaps 700\nsystem_max_mmaps 1000\ncollection_points{id="one"} 7\n'


SILENT = httpx.ConnectError("refused")
REFUSED = Answer(403, "Forbidden", (), b"not this key")


class Nodes:
    """Each node's answer: its metrics, another answer, or none."""

    def __init__(self, *nodes: str | Answer | httpx.TransportError) -> None:
        self._said = [Answer(200, "OK", (), node.encode()) if isinstance(node, str) else node for node in nodes]

    async def ask_each(self, path: str, headers: Sequence[tuple[str, str]]) -> list[Answer | httpx.TransportError]:
        assert (path, list(headers)) == ("/metrics", [("api-key", CELL.api_key)])
        return self._said


class Told:
    """A connection of which nothing but its nodes is used."""

    def __init__(self, *nodes: str | Answer | httpx.TransportError) -> None:
        self.nodes = Nodes(*nodes)


async def read(*nodes: str | Answer | httpx.TransportError) -> CellLoad:
    connection: Connection = Told(*nodes)  # type: ignore[assignment]
    return await load(connection, CELL)


def gauges(maps: int, files: int, **points: int) -> str:
    lines = [f"process_open_mmaps {maps}", "system_max_mmaps 1000", f"process_open_fds {files}", "process_max_fds 100"]
    return "\n".join([*lines, *(f'collection_points{{id="{name}"}} {count}' for name, count in points.items())])


async def test_each_limit_is_that_of_the_node_which_is_nearest_to_it() -> None:
    nodes = gauges(700, 10, one=7, two=1), gauges(100, 80, one=9), f"{gauges(50, 5)}\nquota_exceeded 1\n"
    expected = CellLoad({"one": 9, "two": 1}, 70, 80, "its metrics say quota_exceeded 1")
    for order in permutations(nodes):
        assert await read(*order) == expected


@pytest.mark.parametrize("other", [SILENT, REFUSED, Answer(503, "X", (), b""), ""])
async def test_a_node_that_tells_nothing_is_left_out(other: str | Answer | httpx.TransportError) -> None:
    assert await read(other, gauges(700, 10, one=7)) == CellLoad({"one": 7}, 70, 10)
    assert await read(gauges(700, 10, one=7), other) == CellLoad({"one": 7}, 70, 10)


async def test_where_no_node_tells_anything_the_read_fails() -> None:
    with pytest.raises(ResponseHandlingException, match="refused"):
        await read(SILENT, SILENT)
    for nodes in ((REFUSED, SILENT), (SILENT, REFUSED)):
        with pytest.raises(UnexpectedResponse, match="403"):
            await read(*nodes)


@pytest.mark.parametrize(
    "line", ["quota_exceeded 1", 'quota_exceeded{resource="disk"} 1', 'quota_exceeded{resource="memory"} 1.0']
)
async def test_a_quota_that_is_used_up_is_told_in_its_own_words(line: str) -> None:
    assert await read(f"{GAUGES}{line}\n") == CellLoad({"one": 7}, 70, None, f"its metrics say {line}")


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "quota_exceeded 0\n",
        'quota_exceeded{resource="disk"} 0\nquota_exceeded{resource="memory"} 0.0\n',
        "# HELP quota_exceeded 1 where a quota is used up\n# TYPE quota_exceeded gauge\n",
        "other_quota_exceeded 1\n",
    ],
)
async def test_where_none_is_used_up_or_nothing_is_said_there_is_nothing_to_tell(lines: str) -> None:
    assert await read(GAUGES + lines) == CellLoad({"one": 7}, 70, None)
