"""A pipeline, not a loop: scroll ahead, encode in length-sorted batches, write with several streams; bounded buffers.

The encoder is the only thing that should ever be waited for, so it always has the next batch before it has answered the
last. A document that cannot be encoded is dead-lettered, one by one, and the rest of its batch goes on.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from searchops_workers.encoders.errors import BadVectors, EncoderRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from searchops_workers.reindex.sides import Side, Work

    Pages = asyncio.Queue[list[Work] | None]
    Writes = asyncio.Queue[Sequence[tuple[Work, Sequence[float] | None]] | None]

PAGES_AHEAD = 2
WRITES_AHEAD = 4
WRITERS = 2
IN_FLIGHT = 2
"""Batches at the encoder at one time: one that it works on, one that waits for it there."""
MAX_PASSES = 5


class BulkEncoder(Protocol):
    """What the pipeline needs of an encoder."""

    async def encode(self, texts: Sequence[str]) -> ArrayLike:
        """One vector a text, all or an error."""
        ...


@dataclass(slots=True)
class Tally:
    """What a slice did."""

    embedded: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)


class Pipeline:
    """One slice.

    Args:
        encoder: None where the target has no dense vector (only the lexical ones are made anew).
        batch: documents of one encoding and one write.
        in_flight: encodings under way at one time, at least one.
        points_per_second: bound of this slice; 0 means none.
        now: monotonic seconds.
    """

    def __init__(
        self,
        side: Side,
        encoder: BulkEncoder | None,
        *,
        batch: int,
        in_flight: int = IN_FLIGHT,
        points_per_second: float = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._side = side
        self._encoder = encoder
        self._batch = batch
        self._in_flight = in_flight
        self._encoding = 0
        self._rate = points_per_second
        self._tally = Tally()
        self._encoded_so_far = 0
        self._now = now
        self._started = now()

    async def run(self) -> Tally:
        """Pass over what is lacking until nothing can be, or a pass finds nothing new (live writes move under it).

        Raises:
            Exception: the first failure of any part, as it is.
        """
        for _ in range(MAX_PASSES):
            before = self._tally.embedded
            try:
                await self._pass()
            except BaseExceptionGroup as group:
                raise _first(group) from group
            if self._tally.embedded == before or await self._side.settled(len(self._tally.dead)):
                break
        return self._tally

    async def _pass(self) -> None:
        pages: Pages = asyncio.Queue(PAGES_AHEAD)
        parts: Pages = asyncio.Queue(1)
        writes: Writes = asyncio.Queue(WRITES_AHEAD)
        self._encoding = self._in_flight
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(pages))
            group.create_task(self._split(pages, parts))
            for _ in range(self._in_flight):
                group.create_task(self._encode(parts, writes))
            for _ in range(WRITERS):
                group.create_task(self._write(writes))

    async def _read(self, pages: Pages) -> None:
        async for page in self._side.pending():
            fresh = [work for work in page if str(work.id) not in self._tally.dead]
            if fresh:
                await pages.put(fresh)
        await pages.put(None)

    async def _split(self, pages: Pages, parts: Pages) -> None:
        """Batches of documents of about one length, at the pace that is allowed."""
        while (page := await pages.get()) is not None:
            page.sort(key=lambda work: len(work.text))
            for start in range(0, len(page), self._batch):
                part = page[start : start + self._batch]
                await self._throttle(len(part))
                await parts.put(part)
        for _ in range(self._in_flight):
            await parts.put(None)

    async def _encode(self, parts: Pages, writes: Writes) -> None:
        while (part := await parts.get()) is not None:
            encoded = await self._encoded(part)
            if encoded:
                await writes.put(encoded)
        self._encoding -= 1
        if self._encoding == 0:  # the last one closes
            for _ in range(WRITERS):
                await writes.put(None)

    async def _encoded(self, part: list[Work]) -> Sequence[tuple[Work, Sequence[float] | None]]:
        if self._encoder is None:
            return [(work, None) for work in part]
        good = [work for work in part if work.text.strip()]
        for work in part:
            if not work.text.strip():
                self._bury(work, "the document is empty: none of the fields that the template names is there")
        if not good:
            return []
        try:
            vectors = await self._encoder.encode([work.text for work in good])
        except (EncoderRefused, BadVectors) as error:
            if len(good) == 1:
                self._bury(good[0], str(error))
                return []
            half = len(good) // 2
            return [*await self._encoded(good[:half]), *await self._encoded(good[half:])]
        rows: list[list[float]] = np.asarray(vectors).tolist()  # row by row in Python it costs as much as a small batch
        return list(zip(good, rows, strict=True))

    def _bury(self, work: Work, reason: str) -> None:
        self._tally.dead.add(str(work.id))
        self._tally.failed.append((str(work.payload.get("_id", work.id)), reason[:300]))

    async def _write(self, writes: Writes) -> None:
        while (batch := await writes.get()) is not None:
            await self._side.write(batch)
            self._tally.embedded += len(batch)

    async def _throttle(self, count: int) -> None:
        """Sleep so that the average rate stays below the bound."""
        if self._rate <= 0:
            return
        self._encoded_so_far += count
        due = self._encoded_so_far / self._rate
        await asyncio.sleep(max(0.0, due - (self._now() - self._started)))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
