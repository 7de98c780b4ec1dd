"""Texts to padded token batches: the checkpoint's own tokeniser, sorted by length, padded to buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from searchops_workers.encoders.errors import EncoderRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from searchops_workers.encoders.settings import EncoderSettings

Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One call of the encoder.

    Attributes:
        rows: positions of the texts in the caller's order.
        input_ids: token ids, padded to the bucket.
        attention_mask: 1 where there is a token.
    """

    rows: tuple[int, ...]
    input_ids: Tokens
    attention_mask: Tokens


class TextTokeniser:
    """The checkpoint's ``tokenizer.json`` with our cut and padding instead of the ones stored in it."""

    def __init__(self, path: Path, settings: EncoderSettings) -> None:
        self._settings = settings
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception on any unreadable file
            raise EncoderRefused(f"{path} is no tokenizer.json that `tokenizers` can read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=settings.max_tokens)

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at the settings' `max_tokens`."""
        prompt = self._settings.prompt
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch([prompt + text for text in texts])]

    def segments(self, text: str) -> set[int]:
        """The token types that the tokeniser gives a single text; 0 alone for encoders of one text."""
        return set(self._tokenizer.encode(text).type_ids)

    def batches(self, texts: Sequence[str]) -> list[TokenBatch]:
        """The calls that encode `texts`, as in `batch_tokens`."""
        return batch_tokens(self.tokenise(texts), self._settings)


def batch_tokens(ids: Sequence[Sequence[int]], settings: EncoderSettings) -> list[TokenBatch]:
    """The calls that encode these token ids: every call is one bucket wide and at most `max_batch` high."""
    plan = plan_batches([len(row) for row in ids], settings.buckets, settings.max_batch)
    return [pad_batch(ids, rows, width, settings.pad_token_id) for rows, width in plan]


def plan_batches(lengths: Sequence[int], buckets: Sequence[int], max_batch: int) -> list[tuple[tuple[int, ...], int]]:
    """Which texts go together and how wide: sorted by length, shortest first, one bucket a batch.

    Raises:
        ValueError: where a length exceeds the widest bucket.
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    plan: list[tuple[tuple[int, ...], int]] = []
    group: list[int] = []
    width = 0
    for row in order:
        needed = bucket_for(lengths[row], buckets)
        if group and (needed != width or len(group) == max_batch):
            plan.append((tuple(group), width))
            group = []
        width = needed
        group.append(row)
    if group:
        plan.append((tuple(group), width))
    return plan


def bucket_for(length: int, buckets: Sequence[int]) -> int:
    """The narrowest bucket that holds `length` tokens.

    Raises:
        ValueError: where none does.
    """
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise ValueError(f"a text of {length} tokens fits none of the buckets {tuple(buckets)}")


def pad_batch(ids: Sequence[Sequence[int]], rows: tuple[int, ...], width: int, pad: int) -> TokenBatch:
    """Token ids of `rows` padded to `width`, with their mask."""
    input_ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        input_ids[position, : len(ids[row])] = ids[row]
        mask[position, : len(ids[row])] = 1
    return TokenBatch(rows, input_ids, mask)
