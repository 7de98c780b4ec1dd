"""The pipeline of one slice, on fakes: bounded, exact, poison one by one, and failures that come out as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import looptime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops_workers.encoders.errors import BadVectors, EncoderRefused, EncoderUnavailable
from searchops_workers.reindex.pipeline import IN_FLIGHT, MAX_PASSES, PAGES_AHEAD, WRITERS, WRITES_AHEAD, Pipeline
from searchops_workers.reindex.sides import Work, in_slice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PAGE = 10


class MemorySide:
    """A side in memory: what lacks, what was written and how often."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.lacking = {number: Work(number, {"_id": f"p{number}"}, text) for number, text in enumerate(texts)}
        self.written: list[tuple[Any, Any]] = []
        self.passes = 0
        self.pages_out = 0
        self.arrivals: list[Work] = []
        self.failure: Exception | None = None
        self.counted: list[int] | None = None

    async def pending(self) -> AsyncIterator[list[Work]]:
        self.passes += 1
        left = list(self.lacking.values())
        for start in range(0, len(left), PAGE):
            self.pages_out += 1
            yield left[start : start + PAGE]

    async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        for work, vector in batch:
            self.written.append((work.id, vector))
            self.lacking.pop(work.id, None)
        while self.arrivals:
            work = self.arrivals.pop()
            self.lacking[work.id] = work

    async def settled(self, dead: int) -> bool:
        if self.counted is None:
            return False
        self.counted.append(len(self.lacking))
        return len(self.lacking) <= dead

    async def left_out(self, dead: set[str]) -> int:
        del dead
        return 0

    async def sample(self, count: int) -> list[tuple[str, list[float]]]:
        return [("", [0.0])] * min(count, 0)

    async def documents(self) -> int:
        return len(self.lacking)


class CountingEncoder:
    """A labelled double: a vector of the text's length; a text with `bad` is refused, with its whole batch."""

    def __init__(self, error: type[Exception] = EncoderRefused) -> None:
        self.error = error
        self.batches: list[int] = []
        self.gate: asyncio.Event | None = None

    async def encode(self, texts: Sequence[str]) -> list[list[float]]:
        self.batches.append(len(texts))
        if self.gate is not None:
            await self.gate.wait()
        if any("bad" in text for text in texts):
            raise self.error("this text is refused")
        return [[float(len(text))] for text in texts]


texts = st.lists(st.sampled_from(["nut", "white shirt", "bad", "", "  ", "a much longer product text"]), max_size=40)


@given(texts, st.integers(1, 16), st.sampled_from([EncoderRefused, BadVectors]))
def test_every_document_is_embedded_once_or_dead_lettered_once(
    wanted: list[str], batch: int, error: type[Exception]
) -> None:
    side, encoder = MemorySide(wanted), CountingEncoder(error)
    tally = asyncio.run(Pipeline(side, encoder, batch=batch).run())
    good = {number for number, text in enumerate(wanted) if text.strip() and "bad" not in text}
    bad = {f"p{number}" for number in range(len(wanted))} - {f"p{number}" for number in good}
    assert sorted(number for number, _ in side.written) == sorted(good)
    assert all(vector == [float(len(wanted[number]))] for number, vector in side.written)
    assert sorted(name for name, _ in tally.failed) == sorted(bad)
    assert (tally.embedded, len(tally.dead)) == (len(good), len(bad))
    assert all(size <= batch for size in encoder.batches)


async def test_reasons_say_why_a_document_is_dead() -> None:
    side = MemorySide(["", "bad"])
    tally = await Pipeline(side, CountingEncoder(), batch=4).run()
    assert dict(tally.failed) == {
        "p0": "the document is empty: none of the fields that the template names is there",
        "p1": "this text is refused",
    }


async def test_what_arrives_while_a_pass_runs_is_found_by_the_next() -> None:
    side = MemorySide(["nut", "bad"])
    side.arrivals = [Work(99, {"_id": "late"}, "came late")]
    tally = await Pipeline(side, CountingEncoder(), batch=4).run()
    assert {number for number, _ in side.written} == {0, 99}
    assert (side.passes, len(tally.failed)) == (3, 1)


async def test_a_side_that_counts_is_not_read_again_once_nothing_can_be_lacking() -> None:
    side = MemorySide(["nut", "bad", "bolt"])
    side.counted = []
    tally = await Pipeline(side, CountingEncoder(), batch=4).run()
    assert (tally.embedded, side.passes, side.counted) == (2, 1, [1])
    side = MemorySide(["nut"])
    side.counted = []
    side.arrivals = [Work(99, {"_id": "late"}, "came late")]
    assert (await Pipeline(side, CountingEncoder(), batch=4).run()).embedded == 2
    assert (side.passes, side.counted) == (2, [1, 0])


@pytest.mark.parametrize("in_flight", [1, 2, 5])
async def test_the_encoder_has_the_next_batches_before_it_answers_and_no_more(in_flight: int) -> None:
    side, encoder = MemorySide(["nut"] * 200), CountingEncoder()
    encoder.gate = asyncio.Event()
    running = asyncio.create_task(Pipeline(side, encoder, batch=5, in_flight=in_flight).run())
    for _ in range(200):
        await asyncio.sleep(0)
    assert encoder.batches == [5] * in_flight
    encoder.gate.set()
    assert (await running).embedded == 200


async def test_vectors_come_out_number_by_number_as_they_were_made() -> None:
    made = np.random.default_rng(3).standard_normal((64, 384)).astype(np.float32)

    class Bulk(CountingEncoder):
        async def encode(self, texts: Sequence[str]) -> Any:
            return made[[int(text) for text in texts]]

    side = MemorySide([str(number) for number in range(64)])
    await Pipeline(side, Bulk(), batch=16).run()
    assert {type(value) for _, vector in side.written for value in vector} == {float}
    assert all(np.float32(vector).tobytes() == made[number].tobytes() for number, vector in side.written)


async def test_a_side_that_never_ends_is_given_up_after_some_passes() -> None:
    side = MemorySide(["nut"])

    class Endless(MemorySide):
        async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
            self.written += [(work.id, vector) for work, vector in batch]

    endless = Endless(["nut"])
    await Pipeline(endless, CountingEncoder(), batch=4).run()
    assert endless.passes == MAX_PASSES
    await Pipeline(side, CountingEncoder(), batch=4).run()
    assert side.passes == 2


async def test_without_an_encoder_only_the_lexical_vectors_are_made() -> None:
    side = MemorySide(["nut", "", "bad"])
    tally = await Pipeline(side, None, batch=2).run()
    assert (tally.embedded, tally.failed) == (3, [])
    assert {vector for _, vector in side.written} == {None}


@pytest.mark.parametrize("error", [EncoderUnavailable("down"), OSError("gone"), ValueError("wrong")], ids=repr)
async def test_a_failure_comes_out_as_it_is_and_leaves_no_task(error: Exception) -> None:
    side = MemorySide(["nut"] * 200)
    side.failure = error
    with pytest.raises(type(error)) as caught:
        await Pipeline(side, CountingEncoder(), batch=2).run()
    assert caught.value is error
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_nothing_is_read_far_ahead_of_the_encoder() -> None:
    side, encoder = MemorySide(["nut"] * 1000), CountingEncoder()
    encoder.gate = asyncio.Event()
    running = asyncio.create_task(Pipeline(side, encoder, batch=5).run())
    for _ in range(200):
        await asyncio.sleep(0)
    assert side.pages_out <= PAGES_AHEAD + 3, "one more was read, one is being split, one is at the encoder"
    encoder.gate.set()
    tally = await running
    assert tally.embedded == 1000


async def test_nothing_is_encoded_far_ahead_of_the_writers() -> None:
    released = asyncio.Event()

    class Stuck(MemorySide):
        async def write(self, batch: Sequence[tuple[Work, Sequence[float] | None]]) -> None:
            await released.wait()
            await super().write(batch)

    side, encoder = Stuck(["nut"] * 1000), CountingEncoder()
    running = asyncio.create_task(Pipeline(side, encoder, batch=5).run())
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(encoder.batches) <= WRITES_AHEAD + WRITERS + IN_FLIGHT
    released.set()
    assert (await running).embedded == 1000


@pytest.mark.parametrize("rate", [50.0, 200.0])
def test_the_rate_is_kept_on_average(rate: float) -> None:
    async def paced() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        pipeline = Pipeline(
            MemorySide(["nut"] * 100), CountingEncoder(), batch=10, points_per_second=rate, now=loop.time
        )
        await pipeline.run()
        return loop.time() - began

    loop = looptime.new_event_loop(idle_timeout=None)
    try:
        seconds = loop.run_until_complete(paced())
    finally:
        loop.close()
    assert seconds == pytest.approx(100 / rate, rel=0.15)


@given(st.lists(st.uuids(), max_size=60, unique=True), st.integers(1, 16))
def test_slices_are_disjoint_and_complete(ids: list[Any], total: int) -> None:
    for point in ids:
        assert [in_slice(point, index, total) for index in range(total)].count(True) == 1
        assert [in_slice(str(point), index, total) for index in range(total)] == [
            in_slice(point, index, total) for index in range(total)
        ]
