"""Which answers say that a whole cell is out of room, and which are one tenant's own quota."""

from __future__ import annotations

import pytest

from searchops.api.room import says_full

NO_SPACE = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"


@pytest.mark.parametrize(
    ("status", "body"), [(507, ""), (507, "Quota exceeded"), (500, NO_SPACE), (503, f"shard: {NO_SPACE}")]
)
def test_the_cell_is_full(status: int, body: str) -> None:
    assert says_full(status, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, "Bad request: Max points count limit of 1000 reached!"),
        (400, "Bad request: Max vector storage size limit of 4MB reached!"),
        (429, "Rate limiting exceeded: Write rate limit exceeded: Operation requires 3 tokens"),
        (400, NO_SPACE),
        (413, "payload too large"),
        (500, "Service internal error: the engine panicked"),
        (None, NO_SPACE),
    ],
)
def test_a_tenants_own_quota_and_other_faults_are_not_the_cells(status: int | None, body: str) -> None:
    assert not says_full(status, body)
