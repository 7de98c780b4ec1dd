"""What a cell's metrics tell of its room: only what they say, and nothing where they are silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from searchops.adapters.aiohttp_transport import Answer
from searchops.adapters.cell_reads import load
from searchops.api.observed import CellLoad, CellRegistration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops.adapters.cell_connections import Connection

CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), None, 100, api_key="k" * 40)
GAUGES = 'process_open_mmaps 700\nsystem_max_mmaps 1000\ncollection_points{id="one"} 7\n'


class Nodes:
    def __init__(self, text: str) -> None:
        self._text = text

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> Answer:
        assert (method, path, body) == ("GET", "/metrics", b"")
        return Answer(200, "OK", (), self._text.encode())


class Told:
    """A connection of which nothing but its nodes is used."""

    def __init__(self, text: str) -> None:
        self.nodes = Nodes(text)


async def read(text: str) -> CellLoad:
    connection: Connection = Told(text)  # type: ignore[assignment]
    return await load(connection, CELL)


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
