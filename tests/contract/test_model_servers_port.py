"""`ModelServers` by the Triton adapter, against real servers that serve a tiny published model.

That a load worked is shown by the next survey and an inference, never by the answer to the load.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from searchops.adapters.triton import TritonServers
from searchops.api.observed import PoolRegistration, ServerState
from searchops.runtime.errors import Transient
from searchops_sandbox.ports import free_port
from searchops_sandbox.published_model import publish
from searchops_sandbox.tiny_checkpoint import HIDDEN, write_tiny_checkpoint
from searchops_sandbox.triton import TritonServer
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.engines.repository import model_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]

REVISION = "tiny-r1-0123abcd"
TEXTS = ["m12 hex nut", "white shirt", "", "Küchenmesser 20 cm"]


@dataclass
class Pool:
    """Two servers of one repository, as the operator knows them."""

    servers: tuple[TritonServer, TritonServer]
    registration: PoolRegistration
    repository: Path
    artifact: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    folder = tmp_path_factory.mktemp("pool")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    repository = folder / "repository"
    _, artifact = await publish(checkpoint, REVISION, folder, repository=repository)
    servers = (
        TritonServer("port-a", folder=folder, repository=repository),
        TritonServer("port-b", folder=folder, repository=repository),
    )
    registration = PoolRegistration(
        "cpu",
        tuple(server.http_url for server in servers),
        tuple(server.grpc_url for server in servers),
        f"file://{repository}",
        "cpu",
    )
    try:
        for server in servers:
            await server.start()
        yield Pool(servers, registration, repository, artifact)
    finally:
        for server in servers:
            await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def ports() -> AsyncIterator[TritonServers]:
    made = TritonServers(timeout=20.0, load_timeout=60.0)
    yield made
    await made.close()


async def first(ports: TritonServers, pool: Pool) -> ServerState:
    return (await ports.survey(pool.registration))[0]


async def test_a_model_goes_through_load_and_unload_on_one_server_alone(ports: TritonServers, pool: Pool) -> None:
    before = await ports.survey(pool.registration)
    assert [(state.url, state.grpc_url, state.reachable) for state in before] == [
        (server.http_url, server.grpc_url, True) for server in pool.servers
    ]
    versions = {state.version for state in before}
    assert len(versions) == 1, "two servers of one program state one version"
    assert re.fullmatch(r"\d+\.\d+\.\d+", versions.pop())
    assert not any(state.ready(model) for state in before for model in model_names(REVISION))
    for _ in range(2):  # a second load is no error
        for model in model_names(REVISION):
            await ports.load(before[0], model)
    one, other = await ports.survey(pool.registration)
    assert all(one.ready(model) for model in model_names(REVISION))
    assert not any(other.ready(model) for model in model_names(REVISION)), "loading is per server"
    vectors = await ports.infer(one, REVISION, TEXTS)
    local = await OnnxEncoder.open(pool.artifact).encode(TEXTS)
    assert np.shape(vectors) == (len(TEXTS), HIDDEN)
    assert np.einsum("ij,ij->i", np.array(vectors), local).min() >= 0.99999
    with pytest.raises(Transient, match=f"did not infer with {REVISION}"):
        await ports.infer(other, REVISION, TEXTS)
    for _ in range(2):  # a second unload is no error
        for model in reversed(model_names(REVISION)):
            await ports.unload(one, model)
    for _ in range(100):
        one = await first(ports, pool)
        if not any(one.ready(model) for model in model_names(REVISION)):
            break
        await asyncio.sleep(0.1)
    assert not any(one.ready(model) for model in model_names(REVISION))


async def test_a_model_that_cannot_load_says_why_in_the_error_and_in_the_survey(
    ports: TritonServers, pool: Pool
) -> None:
    broken = pool.repository / "broken-r1"
    (broken / "1").mkdir(parents=True)
    config = (pool.repository / f"{REVISION}-enc" / "config.pbtxt").read_text()
    (broken / "config.pbtxt").write_text(config.replace(f"{REVISION}-enc", "broken-r1"))
    (broken / "1" / "model.py").write_bytes((pool.repository / f"{REVISION}-enc" / "1" / "model.py").read_bytes())
    (broken / "1" / "model.onnx").write_bytes(b"no graph")
    server = await first(ports, pool)
    with pytest.raises(Transient, match=r"did not load broken-r1: .*; it is read back") as caught:
        await ports.load(server, "broken-r1")
    assert "\n" not in caught.value.message
    server = await first(ports, pool)
    assert not server.ready("broken-r1")
    assert server.models["broken-r1"] == "UNAVAILABLE"
    assert server.reasons["broken-r1"]


@pytest.mark.parametrize("model", ["never-published-r9"])
async def test_a_model_that_was_never_published_is_refused_by_name(
    ports: TritonServers, pool: Pool, model: str
) -> None:
    server = await first(ports, pool)
    with pytest.raises(Transient, match=f"did not load {model}"):
        await ports.load(server, model)
    with pytest.raises(Transient, match=f"did not infer with {model}"):
        await ports.infer(server, model, TEXTS)


async def test_a_server_that_is_down_is_an_answer_beside_the_others(ports: TritonServers, pool: Pool) -> None:
    for model in model_names(REVISION):
        await ports.load(await first(ports, pool), model)
    await pool.servers[1].kill()
    try:
        one, other = await ports.survey(pool.registration)
        assert (one.reachable, other.reachable) == (True, False)
        assert (other.url, dict(other.models)) == (pool.servers[1].http_url, {})
        assert other.error
        assert await ports.infer(one, REVISION, TEXTS[:1])
        for call in (ports.load(other, REVISION), ports.unload(other, REVISION)):
            with pytest.raises(Transient, match="it is read back"):
                await call
    finally:
        await pool.servers[1].start()
    for _ in range(100):
        _, other = await ports.survey(pool.registration)
        if other.reachable:
            break
        await asyncio.sleep(0.1)
    assert other.reachable, "the same connection finds the server again"
    assert not any(other.ready(model) for model in model_names(REVISION)), "it comes back empty"


async def test_a_server_that_accepts_and_says_nothing_is_given_up(pool: Pool) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    port = free_port()
    listener = await asyncio.start_server(silent, "127.0.0.1", port)
    ports = TritonServers(timeout=0.5, load_timeout=0.5)
    hanging = PoolRegistration("cpu", (f"http://127.0.0.1:{port}",), (f"127.0.0.1:{port}",), "", "cpu")
    try:
        async with asyncio.timeout(20):
            (state,) = await ports.survey(hanging)
            assert not state.reachable
            with pytest.raises(Transient, match="did not load tiny"):
                await ports.load(state, "tiny")
    finally:
        await ports.close()
        listener.close()
        await listener.wait_closed()
