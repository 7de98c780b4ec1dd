"""A published model under load in a real Triton: requests are batched, and a queue that is full refuses."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio

from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_sandbox.triton import TritonServer
from searchops_workers.digests import directory_digest
from searchops_workers.encoders.errors import EncoderUnavailable
from searchops_workers.encoders.triton import TritonTextEncoder
from searchops_workers.engines.build import BuildRequest, build
from searchops_workers.engines.repository import model_names
from searchops_workers.engines.storage import UriArtifacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.triton, pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

REVISION = "busy-r1-0123abcd"
MAX_BATCH = 32
QUEUE = 2048
SHORT = "short-r1-0123abcd"
SHORT_QUEUE = 16
ASKED = 120
SLOWLY = """

def _slowly(self, requests, execute=TritonPythonModel.execute):
    import time

    time.sleep(0.8)
    return execute(self, requests)


TritonPythonModel.execute = _slowly
"""
CLIENTS = 24
SEARCHES = 25
LEAST_MEAN_BATCH = 1.5
TEXTS = ("m8 nut", "white shirt with long sleeves", "Küchenmesser 20 cm", "pump for 5 bar", "")


@dataclass(frozen=True)
class Busy:
    """One server with one revision."""

    server: TritonServer

    async def counts(self, model: str) -> tuple[int, int]:
        """Texts and executions so far."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.server.http_url}/v2/models/{model}/stats") as answer,
        ):
            (stats,) = (await answer.json())["model_stats"]
        return stats["inference_count"], stats["execution_count"]

    async def load(self, revision: str) -> None:
        """Load the three models of a revision."""
        async with aiohttp.ClientSession() as session:
            for model in model_names(revision):
                async with session.post(f"{self.server.http_url}/v2/repository/models/{model}/load") as answer:
                    assert answer.status == 200, await answer.text()

    async def shorten(self) -> None:
        """The same revision under another name, whose queue is short and bears nobody for long."""
        for name in model_names(REVISION):
            copy = self.server.repository / name.replace(REVISION, SHORT)
            shutil.copytree(self.server.repository / name, copy)
            config = copy / "config.pbtxt"
            content = config.read_text().replace(f'name: "{name}"', f'name: "{copy.name}"')
            if name == REVISION:
                assert f"max_queue_size: {QUEUE}" in content
                content = content.replace(f"max_queue_size: {QUEUE}", f"max_queue_size: {SHORT_QUEUE}")
                content = content.replace(
                    "default_timeout_microseconds: 30000000", "default_timeout_microseconds: 300000"
                )
            config.write_text(content)
        code = self.server.repository / model_names(SHORT)[0] / "1" / "model.py"
        code.write_text(code.read_text() + SLOWLY)
        await self.load(SHORT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Busy]:
    folder = tmp_path_factory.mktemp("busy")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    repository = folder / "repository"
    request = BuildRequest(
        revision=REVISION,
        checkpoint=checkpoint,
        expected_digest=directory_digest(checkpoint),
        backend="Auto",
        precision="Auto",
        max_batch=MAX_BATCH,
        buckets=(16, 48),
        accelerator="cpu",
        work=folder,
        repositories=(repository,),
    )
    artifacts = UriArtifacts(f"file://{folder}/artifacts/{REVISION}", f"file://{folder}/engines")
    await asyncio.to_thread(build, request, artifacts, lambda line: None)
    server = TritonServer("busy", folder=folder, repository=repository)
    try:
        await server.start()
        busy = Busy(server)
        await busy.load(REVISION)
        yield busy
    finally:
        await server.stop()


async def test_single_texts_of_many_clients_are_encoded_in_batches(busy: Busy) -> None:
    """Texts of any length are batched where they have one shape, before they are tokenised."""
    encoders = [await TritonTextEncoder.connect(busy.server.grpc_url, REVISION, deadline=60) for _ in range(CLIENTS)]

    async def client(number: int, encoder: TritonTextEncoder) -> None:
        for search in range(SEARCHES):
            assert len(await encoder.encode([TEXTS[(number + search) % len(TEXTS)]])) == 1

    texts, executions = await busy.counts(REVISION)
    try:
        await asyncio.gather(*(client(number, encoder) for number, encoder in enumerate(encoders)))
    finally:
        await asyncio.gather(*(encoder.close() for encoder in encoders))
    after, executed = await busy.counts(REVISION)
    assert after - texts == CLIENTS * SEARCHES
    assert (after - texts) / (executed - executions) > LEAST_MEAN_BATCH


async def test_a_full_queue_refuses_at_once_and_nothing_waits_in_it_for_ever(busy: Busy) -> None:
    """The published policy with smaller figures, before an encoder that takes longer than anybody may wait."""
    await busy.shorten()
    encoder = await TritonTextEncoder.connect(busy.server.grpc_url, SHORT, deadline=60, concurrency=ASKED)
    try:
        ends = await asyncio.gather(*(_end(encoder) for _ in range(ASKED)))
        assert await _end(encoder) == "", "it takes requests as before"
    finally:
        await encoder.close()
    full = [said for said in ends if "Exceeds maximum queue size" in said]
    late = [said for said in ends if "Request timeout expired" in said]
    assert len(full) >= ASKED - 2 * (SHORT_QUEUE + MAX_BATCH), "what finds no room is refused"
    assert 0 < len(late) <= SHORT_QUEUE, "what waits too long is refused"
    assert len(full) + len(late) + ends.count("") == ASKED, set(ends)
    assert "" in ends, "what was under way is answered"


async def _end(encoder: TritonTextEncoder) -> str:
    """Why a search was refused; empty where it was answered."""
    try:
        await encoder.encode(["m8 nut"])
    except EncoderUnavailable as error:
        return str(error)
    return ""
