"""Triton python model ``<revision>-enc``: token ids in, unit vectors out, by ONNX Runtime on one CPU thread."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """Runs requests of one width together, as the server's batcher hands them over."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a failure is that request's error, not the model's end."""
        groups: dict[int, list[int]] = defaultdict(list)
        inputs = []
        for position, request in enumerate(requests):
            ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()
            mask = pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy()
            inputs.append((ids, mask))
            groups[ids.shape[1]].append(position)
        responses: list[Any] = [None] * len(requests)
        for positions in groups.values():
            try:
                ids = np.concatenate([inputs[position][0] for position in positions])
                mask = np.concatenate([inputs[position][1] for position in positions])
                vectors = self._session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
            except Exception as error:  # whatever the runtime raises becomes the error of these requests
                failure = pb_utils.TritonError(f"the encoder failed: {error}")
                for position in positions:
                    responses[position] = pb_utils.InferenceResponse(output_tensors=[], error=failure)
                continue
            start = 0
            for position in positions:
                rows = inputs[position][0].shape[0]
                tensor = pb_utils.Tensor("sentence_embedding", vectors[start : start + rows].astype(np.float32))
                responses[position] = pb_utils.InferenceResponse(output_tensors=[tensor])
                start += rows
        return responses
