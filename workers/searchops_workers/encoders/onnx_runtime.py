"""Encoding inside this process with ONNX Runtime, from an artifact folder that a build made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.encoders.errors import EncoderRefused, EncoderUnavailable
from searchops_workers.encoders.protocol import Vectors, check_vectors
from searchops_workers.encoders.settings import (
    ATTENTION_MASK,
    INPUT_IDS,
    MODEL_FILE,
    OUTPUT,
    TOKENIZER_FILE,
    EncoderSettings,
    read_settings,
)
from searchops_workers.encoders.tokenise import TextTokeniser

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnxruntime


class OnnxEncoder:
    """One ONNX Runtime session on the CPU; calls wait for each other, so that results do not depend on load."""

    def __init__(self, folder: Path, settings: EncoderSettings, *, threads: int = 1, model: Path | None = None) -> None:
        self._settings = settings
        self._tokeniser = TextTokeniser(folder / TOKENIZER_FILE, settings)
        self._source = str(model or folder / MODEL_FILE)
        self._session = open_session(model or folder / MODEL_FILE, threads=threads)
        self._turn = asyncio.Lock()

    @classmethod
    def open(cls, folder: Path, *, threads: int = 1) -> OnnxEncoder:
        """The encoder in an artifact folder (``manifest.json``, ``model.onnx``, ``tokenizer.json``).

        Raises:
            EncoderRefused: where the folder holds no readable encoder.
        """
        return cls(folder, read_settings(folder), threads=threads)

    @property
    def settings(self) -> EncoderSettings:
        """Buckets, cut and prompt."""
        return self._settings

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._settings.dimension

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut."""
        return self._settings.max_tokens

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text; raises `EncoderError`."""
        async with self._turn:
            return await asyncio.to_thread(self.encode_now, texts)

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """The same in the calling thread."""
        raw = self.encode_raw(texts)
        return check_vectors(raw, count=len(texts), dimension=self.dimension, source=self._source)

    def encode_raw(self, texts: Sequence[str]) -> Vectors:
        """What the graph answers, unchecked: for reports that must show how bad it is."""
        out: Vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for batch in self._tokeniser.batches(texts):
            feed = {INPUT_IDS: batch.input_ids, ATTENTION_MASK: batch.attention_mask}
            try:
                answer = self._session.run([OUTPUT], feed)[0]
            except Exception as error:  # onnxruntime raises its own classes, all plain Exceptions
                raise EncoderUnavailable(f"{self._source} failed on {batch.input_ids.shape} tokens: {error}") from error
            out[list(batch.rows)] = np.asarray(answer, dtype=np.float32)
        return out

    async def close(self) -> None:
        """Waits for a call under way."""
        async with self._turn:
            return


def open_session(model: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with a fixed number of threads.

    Raises:
        EncoderRefused: where the file is missing or the runtime cannot run the graph.
    """
    import onnxruntime

    if not model.is_file():
        raise EncoderRefused(f"{model} does not exist; wanted an ONNX encoder: build the checkpoint first")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, all plain Exceptions
        raise EncoderRefused(f"{model} cannot be run by ONNX Runtime {onnxruntime.__version__}: {error}") from error
