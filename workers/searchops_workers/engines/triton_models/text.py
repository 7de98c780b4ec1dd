"""Triton python model ``<revision>``: texts in, unit vectors out.

Triton merges only requests of one shape, so batching happens here, where every text has the shape [1]: all texts that
wait are tokenised together, sorted by length, and sent to the encoder in buckets.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """Calls ``<revision>-tok`` and ``<revision>-enc`` on the same server."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the settings."""
        config = json.loads(args["model_config"])
        settings = json.loads(config["parameters"]["searchops_encoder"]["string_value"])
        self._name = config["name"]
        self._dimension = settings["dimension"]
        self._buckets = settings["buckets"]
        self._max_batch = settings["max_batch"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; where the batch fails, every request gets the reason."""
        columns = [pb_utils.get_input_tensor_by_name(request, "text").as_numpy() for request in requests]
        texts = np.concatenate([column.reshape(-1, 1) for column in columns])
        try:
            vectors = self._encode(texts)
        except RuntimeError as error:
            failure = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(output_tensors=[], error=failure) for _ in requests]
        responses = []
        start = 0
        for column in columns:
            tensor = pb_utils.Tensor("sentence_embedding", vectors[start : start + column.shape[0]])
            responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
            start += column.shape[0]
        return responses

    def _encode(self, texts: Any) -> Any:
        vectors = np.empty((texts.shape[0], self._dimension), dtype=np.float32)
        for start in range(0, texts.shape[0], self._max_batch):
            piece = texts[start : start + self._max_batch]
            ids, mask = self._call("-tok", {"text": piece}, ["input_ids", "attention_mask"])
            lengths = mask.sum(axis=1)
            widths = np.array([next(bucket for bucket in self._buckets if bucket >= length) for length in lengths])
            for width in np.unique(widths):
                rows = np.flatnonzero(widths == width)
                feed = {
                    "input_ids": np.ascontiguousarray(ids[rows, :width]),
                    "attention_mask": np.ascontiguousarray(mask[rows, :width]),
                }
                (answer,) = self._call("-enc", feed, ["sentence_embedding"])
                vectors[start + rows] = answer
        return vectors

    def _call(self, suffix: str, feed: dict[str, Any], outputs: list[str]) -> list[Any]:
        model = self._name + suffix
        inputs = [pb_utils.Tensor(name, array) for name, array in feed.items()]
        request = pb_utils.InferenceRequest(
            model_name=model,
            requested_output_names=outputs,
            inputs=inputs,
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{model} failed: {response.error().message()}")
        return [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]
