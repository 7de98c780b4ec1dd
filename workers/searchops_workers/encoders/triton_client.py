"""One Triton server over gRPC, with deadlines, bounded concurrency and typed errors."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc.aio as grpcclient
from pydantic import ValidationError
from tritonclient.utils import InferenceServerException

from searchops_workers.encoders.errors import EncoderError, EncoderRefused, EncoderUnavailable, ModelNotLoaded
from searchops_workers.encoders.settings import MANIFEST_PARAMETER, SETTINGS_PARAMETER, EncoderSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MESSAGE_BYTES = 64 * 1024 * 1024
_CHANNEL = [
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_UNAVAILABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "ABORTED")
_NOT_LOADED = ("unknown model", "is not ready", "is not found", "has no available versions", "not at ready state")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a server says about a model of ours."""

    name: str
    manifest_digest: str
    settings: EncoderSettings


class TritonConnection:
    """A channel to one server.

    Args:
        url: ``host:port`` of the gRPC API.
        deadline: seconds for each call; a call that takes longer is `EncoderUnavailable`.
        concurrency: calls in flight at once; others wait.
    """

    def __init__(self, url: str, *, deadline: float = 10.0, concurrency: int = 4) -> None:
        self.url = url
        self.deadline = deadline
        self._client = grpcclient.InferenceServerClient(url, channel_args=_CHANNEL)
        self._slots = asyncio.Semaphore(concurrency)

    async def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """One inference.

        Raises:
            EncoderUnavailable: no answer in time, or the model's process is broken.
            ModelNotLoaded: the server does not serve the model.
            EncoderRefused: the request is wrong in itself.
        """
        tensors = []
        for name, array in inputs.items():
            kind = {"i": "INT64", "O": "BYTES", "f": "FP32"}[array.dtype.kind]
            tensor = grpcclient.InferInput(name, list(array.shape), kind)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [grpcclient.InferRequestedOutput(name) for name in outputs]
        async with self._slots:
            try:
                result = await self._client.infer(model, tensors, outputs=wanted, client_timeout=self.deadline)
            except InferenceServerException as error:
                raise translate(error, model, self.url) from error
        answers: dict[str, NDArray[Any]] = {}
        for name in outputs:
            array = result.as_numpy(name)
            if array is None:
                raise EncoderUnavailable(f"{model} on {self.url} answered without its output {name}")
            answers[name] = array
        return answers

    async def describe(self, model: str) -> ServedModel:
        """The manifest digest and the settings that a model was published with.

        Raises:
            EncoderUnavailable: the server does not answer.
            ModelNotLoaded: it does not serve the model.
            EncoderRefused: the model is none of ours.
        """
        try:
            async with self._slots:
                answer = await self._client.get_model_config(model, client_timeout=self.deadline)
        except InferenceServerException as error:
            raise translate(error, model, self.url) from error
        parameters = answer.config.parameters
        try:
            settings = EncoderSettings.model_validate(json.loads(parameters[SETTINGS_PARAMETER].string_value))
        except (ValueError, ValidationError) as error:
            raise EncoderRefused(
                f"{model} on {self.url} carries no parameter {SETTINGS_PARAMETER}: it was not published by a searchops "
                "build; name a revision's model"
            ) from error
        return ServedModel(model, parameters[MANIFEST_PARAMETER].string_value, settings)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()


def translate(error: InferenceServerException, model: str, url: str) -> EncoderError:
    """The typed form of what the client library raised.

    An INTERNAL status that speaks of a model that is not ready comes from inside ours: one of its parts is broken.
    """
    status = str(error.status() or "").removeprefix("StatusCode.")
    message = error.message() or "no message"
    if status == "NOT_FOUND" or (status != "INTERNAL" and any(mark in message for mark in _NOT_LOADED)):
        return ModelNotLoaded(f"{url} does not serve {model}: {message}; load it, or ask another server of the pool")
    if status in _UNAVAILABLE or not status:
        return EncoderUnavailable(f"{model} on {url} does not answer ({status or 'no status'}): {message}")
    return EncoderRefused(f"{model} on {url} refused the request ({status}): {message}")


def as_bytes(texts: Sequence[str]) -> NDArray[np.object_]:
    """Texts in the shape [n, 1] that a batching text model takes."""
    column: NDArray[np.object_] = np.empty((len(texts), 1), dtype=np.object_)
    for row, text in enumerate(texts):
        column[row, 0] = text.encode("utf-8", errors="replace")
    return column
