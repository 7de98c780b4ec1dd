"""Triton python model ``<revision>-tok``: texts in, token ids out, padded to the bucket of the longest text."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from tokenizers import Tokenizer


class TritonPythonModel:
    """The checkpoint's own ``tokenizer.json`` with the cut, prompt and buckets that the revision was built with."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokeniser and the settings."""
        parameters = json.loads(args["model_config"])["parameters"]
        settings = json.loads(parameters["searchops_encoder"]["string_value"])
        self._buckets = settings["buckets"]
        self._pad = settings["pad_token_id"]
        self._prompt = settings["prompt"]
        path = os.path.join(args["model_repository"], args["model_version"], "tokenizer.json")
        self._tokenizer = Tokenizer.from_file(path)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=settings["max_tokens"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a failure is that request's error, not the model's end."""
        responses = []
        for request in requests:
            try:
                column = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
                texts = [self._prompt + text.decode("utf-8", errors="replace") for text in column]
                rows = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
                longest = max(len(row) for row in rows)
                width = next(bucket for bucket in self._buckets if bucket >= longest)
                ids = np.full((len(rows), width), self._pad, dtype=np.int64)
                mask = np.zeros((len(rows), width), dtype=np.int64)
                for position, row in enumerate(rows):
                    ids[position, : len(row)] = row
                    mask[position, : len(row)] = 1
                tensors = [pb_utils.Tensor("input_ids", ids), pb_utils.Tensor("attention_mask", mask)]
                responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            except Exception as error:  # whatever the tokeniser raises becomes the error of this request
                failure = pb_utils.TritonError(f"the tokeniser failed: {error}")
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=failure))
        return responses
