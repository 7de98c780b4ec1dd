"""Triton servers, each on its own: repository index, load, unload, and a real inference.

A 200 to a load proves nothing, so nothing here reports success: the next survey and an inference do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from searchops.api.observed import ServerState
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops.api.observed import PoolRegistration

TEXT_INPUT = "text"
EMBEDDING_OUTPUT = "sentence_embedding"
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000)]
"""gRPC's own back-off grows to two minutes: so long would a server that is back still look gone."""


class TritonServers:
    """Every Triton server of every pool.

    Args:
        timeout: seconds for an index or an inference.
        load_timeout: seconds after which a load is unknown and left to the next survey; it goes on in the server. A
            pass waits for the loads of all servers, so that one which hangs holds back the others for no longer.
    """

    def __init__(self, *, timeout: float = 10.0, load_timeout: float = 15.0) -> None:
        self._timeout = timeout
        self._load_timeout = load_timeout
        self._clients: dict[str, triton.InferenceServerClient] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def survey(self, pool: PoolRegistration) -> tuple[ServerState, ...]:
        """Every server's index; one that does not answer is an answer of its own."""
        pairs = zip(pool.urls, pool.grpc_urls, strict=False)
        return tuple(await asyncio.gather(*(self._survey(url, grpc_url) for url, grpc_url in pairs)))

    async def _survey(self, url: str, grpc_url: str) -> ServerState:
        client = self._client(grpc_url)
        try:
            index, server = await asyncio.gather(
                client.get_model_repository_index(as_json=True, client_timeout=self._timeout),
                client.get_server_metadata(as_json=True, client_timeout=self._timeout),
            )
        except (InferenceServerException, OSError, TimeoutError) as error:
            return ServerState(url, grpc_url, False, _said(error))
        entries: list[dict[str, Any]] = index.get("models", [])
        models = {entry["name"]: entry.get("state", "") for entry in entries}
        reasons = {entry["name"]: entry.get("reason", "") for entry in entries if entry.get("reason")}
        return ServerState(url, grpc_url, True, "", models, reasons, str(server.get("version", "")))

    async def load(self, server: ServerState, model: str) -> None:
        """Ask for a load; a refusal is told by the next survey's reason, a time-out goes on in the server.

        Raises:
            Transient: the server refused or did not answer.
        """
        try:
            await self._client(server.grpc_url).load_model(model, client_timeout=self._load_timeout)
        except (InferenceServerException, OSError, TimeoutError) as error:
            raise Transient(f"Triton {server.url} did not load {model}: {_said(error)}; it is read back") from error

    async def unload(self, server: ServerState, model: str) -> None:
        """Ask for an unload.

        Raises:
            Transient: the server refused or did not answer.
        """
        try:
            await self._client(server.grpc_url).unload_model(model, client_timeout=self._timeout)
        except (InferenceServerException, OSError, TimeoutError) as error:
            raise Transient(f"Triton {server.url} did not unload {model}: {_said(error)}; it is read back") from error

    async def infer(self, server: ServerState, model: str, texts: Sequence[str]) -> list[list[float]]:
        """Encode texts with the text model of one server.

        Raises:
            Transient: the server refused or did not answer.
        """
        batch = np.array([[text.encode()] for text in texts], dtype=np.object_)
        given = triton.InferInput(TEXT_INPUT, list(batch.shape), "BYTES")
        given.set_data_from_numpy(batch)
        wanted = triton.InferRequestedOutput(EMBEDDING_OUTPUT)
        try:
            answer = await self._client(server.grpc_url).infer(
                model, [given], outputs=[wanted], client_timeout=self._timeout
            )
        except (InferenceServerException, OSError, TimeoutError) as error:
            raise Transient(f"Triton {server.url} did not infer with {model}: {_said(error)}") from error
        vectors = answer.as_numpy(EMBEDDING_OUTPUT)
        return [[float(value) for value in row] for row in vectors] if vectors is not None else []

    def _client(self, grpc_url: str) -> triton.InferenceServerClient:
        found = self._clients.get(grpc_url)
        if found is None:
            found = self._clients[grpc_url] = triton.InferenceServerClient(grpc_url, channel_args=CHANNEL)
        return found


def _said(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:300] or type(error).__name__
