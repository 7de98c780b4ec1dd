"""The FP32 reference: the checkpoint run by sentence-transformers itself, tokeniser included."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from searchops_workers.encoders.errors import EncoderRefused
from searchops_workers.encoders.protocol import Vectors, check_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BATCH = 32


class ReferenceEncoder:
    """FP32 torch on the CPU, offline, without code from the checkpoint.

    Args:
        folder: a sentence-transformers checkpoint.
        max_tokens: cut earlier than the checkpoint does.

    Raises:
        EncoderRefused: where the library cannot load the folder.
    """

    def __init__(self, folder: Path, *, max_tokens: int | None = None) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        quieten: Any = transformers_logging
        quieten.disable_progress_bar()
        self._source = str(folder)
        try:
            self._model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                truncate_dim=read_truncation(folder),
                model_kwargs={"dtype": "float32"},
            )
        except Exception as error:  # the library raises whatever its parts raise
            raise EncoderRefused(f"sentence-transformers cannot load {folder}: {error}") from error
        if max_tokens is not None:
            self._model.max_seq_length = max_tokens
        self._turn = asyncio.Lock()

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut."""
        return int(self._model.max_seq_length or 0)

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text; raises `EncoderError`."""
        async with self._turn:
            return await asyncio.to_thread(self.encode_now, texts)

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """The same in the calling thread."""
        raw = self.encode_raw(texts)
        return check_vectors(raw, count=len(texts), dimension=self.dimension, source=self._source)

    def encode_raw(self, texts: Sequence[str]) -> Vectors:
        """What torch answers, normalised but unchecked."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    async def close(self) -> None:
        """Waits for a call under way."""
        async with self._turn:
            return


def read_truncation(folder: Path) -> int | None:
    """``truncate_dim`` of ``config_sentence_transformers.json``: how many of the first dimensions are kept."""
    try:
        value = json.loads((folder / "config_sentence_transformers.json").read_text()).get("truncate_dim")
    except (OSError, ValueError, AttributeError):
        return None
    return int(value) if value else None
