"""How a built encoder wants its inputs: read from the ``encoder`` part of an artifact folder's ``manifest.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from searchops_workers.encoders.errors import EncoderRefused

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
OUTPUT = "sentence_embedding"
TEXT = "text"
TOKEN_SUFFIX = "-enc"  # noqa: S105 - part of a model's name
TOKENISER_SUFFIX = "-tok"
MANIFEST_PARAMETER = "searchops_manifest"
"""Config parameter of each of a revision's three models: the digest of the manifest it was published with."""
SETTINGS_PARAMETER = "searchops_encoder"
"""Config parameter of each of a revision's three models: `EncoderSettings` as JSON."""


class EncoderSettings(BaseModel):
    """Everything outside the graph that decides what a text's vector is.

    Attributes:
        dimension: length of a vector.
        max_tokens: tokens after which a text is cut, special tokens included.
        buckets: padded lengths, rising; the last one equals `max_tokens`.
        max_batch: most rows of one call.
        pad_token_id: what the rest of a bucket is filled with.
        prompt: put before every text (the checkpoint's default prompt), mostly empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=2)]
    buckets: Annotated[tuple[int, ...], Field(min_length=1)]
    max_batch: Annotated[int, Field(ge=1)]
    pad_token_id: int = 0
    prompt: str = ""


def read_settings(folder: Path) -> EncoderSettings:
    """The settings of a built artifact folder.

    Raises:
        EncoderRefused: where the folder is no artifact folder.
    """
    path = folder / MANIFEST_FILE
    try:
        return EncoderSettings.model_validate(json.loads(path.read_text())["encoder"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise EncoderRefused(
            f"{folder} is no built encoder: {path.name} with an `encoder` part was wanted, but {error}; "
            "build the checkpoint first"
        ) from error
