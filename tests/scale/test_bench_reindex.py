"""The share of an encoder's own rate that the re-embedding pipeline reaches, with an encoder of fixed cost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scale.figures import SEED, Bench, Target
from searchops_workers.reindex.pipeline import Pipeline
from searchops_workers.reindex.points import PAGE
from searchops_workers.reindex.sides import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from searchops_workers.encoders.protocol import Vectors

pytestmark = pytest.mark.scale

BATCH = 64
DIMENSION = 384
REPEATS = 5
READ_SECONDS = 0.010
"""One scroll of 256 points."""
COUNT_SECONDS = 0.005
"""One exact count."""
WRITE_SECONDS = 0.008
"""One update of 64 vectors that is waited for."""


class FixedCostEncoder:
    """A server elsewhere: one batch after the other, each for so many seconds, whatever its caller does meanwhile.

    Several calls at one time are not any faster: they wait in its queue.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free_at = 0.0
        self._vectors: Vectors = np.random.default_rng(SEED).standard_normal((BATCH, DIMENSION)).astype(np.float32)
        self.encoded = 0

    async def encode(self, texts: Sequence[str]) -> Vectors:
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + self._seconds
        await asyncio.sleep(self._free_at - now)
        self.encoded += len(texts)
        return self._vectors[: len(texts)]


class MemorySide:
    """A side in memory that takes as long as a database.

    Args:
        documents: how many lack a vector.
        filtered: whether the server leaves out what is done, as under NamedVector; under BlueGreen the source is read
            whole on every pass, and two counts say whether another one is needed.
    """

    def __init__(self, documents: int, *, filtered: bool) -> None:
        self._filtered = filtered
        self._works = [
            Work(number, {"_id": str(number)}, "hex bolt " * (1 + number % 9)) for number in range(documents)
        ]
        self.written: dict[int, Sequence[float]] = {}

    async def pending(self) -> AsyncIterator[list[Work]]:
        if self._filtered and len(self.written) == len(self._works):
            await asyncio.sleep(READ_SECONDS)
            return
        for start in range(0, len(self._works), PAGE):
            await asyncio.sleep(READ_SECONDS)
            page = [work for work in self._works[start : start + PAGE] if work.id not in self.written]
            if page:
                yield page

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        await asyncio.sleep(WRITE_SECONDS)
        self.written.update({work.id: vector for work, vector in batch if vector is not None})

    async def settled(self, dead: int) -> bool:
        if self._filtered:
            return False
        await asyncio.sleep(2 * COUNT_SECONDS)
        return len(self.written) + dead >= len(self._works)

    async def left_out(self, dead: set[str]) -> int:
        del dead
        return 0

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        del count
        return []

    async def documents(self) -> int:
        return len(self._works)


@pytest.mark.parametrize(
    ("strategy", "milliseconds", "batches"),
    [("NamedVector", 20, 60), ("BlueGreen", 20, 60), ("NamedVector", 200, 12)],
    ids=["named-gpu", "blue-green-gpu", "named-cpu"],
)
async def test_share_of_the_encoders_rate(strategy: str, milliseconds: int, batches: int) -> None:
    documents = BATCH * batches
    texts = ["hex bolt"] * BATCH
    shares, rates = [], []
    for _ in range(REPEATS):
        raw = FixedCostEncoder(milliseconds / 1_000)
        start = time.perf_counter()
        await asyncio.gather(*(raw.encode(texts) for _ in range(batches)))
        raw_seconds = time.perf_counter() - start
        side, encoder = (
            MemorySide(documents, filtered=strategy == "NamedVector"),
            FixedCostEncoder(milliseconds / 1_000),
        )
        start = time.perf_counter()
        tally = await Pipeline(side, encoder, batch=BATCH).run()
        seconds = time.perf_counter() - start
        assert (tally.embedded, tally.failed) == (documents, [])
        assert len(side.written) == raw.encoded == encoder.encoded == documents
        assert {len(vector) for vector in side.written.values()} == {DIMENSION}
        shares.append(raw_seconds / seconds)
        rates.append(documents / seconds)
    one_by_one = milliseconds / 1_000 / (milliseconds / 1_000 + READ_SECONDS * BATCH / PAGE + WRITE_SECONDS)
    bench = Bench("reindex")
    name = f"reindex {strategy}: {documents} documents, an encoder of {milliseconds} ms a batch of {BATCH}"
    bench.record(
        f"{name}: share of the encoder's own rate",
        shares,
        "ratio",
        Target(">=", 0.95),
        withoutOverlap=round(one_by_one, 3),
        readSeconds=READ_SECONDS,
        writeSeconds=WRITE_SECONDS,
        countSeconds=COUNT_SECONDS,
    )
    bench.record(f"{name}: documents", rates, "documents/s")
