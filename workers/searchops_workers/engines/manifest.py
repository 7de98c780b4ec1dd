"""The manifest of a built revision: what it was made of, by what, for what, and how exact it is.

It carries no times: equal inputs give equal bytes, so that a repeated build publishes the same directories.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from searchops_workers.encoders.settings import EncoderSettings
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from pathlib import Path

EngineBackend = Literal["ONNXRuntime", "TensorRT"]


class AccuracySummary(BaseModel):
    """The built graph against FP32 torch.

    Attributes:
        texts: how many were compared; those of the padded batch count again.
        worst: the text with the smallest cosine, cut.
        norm_error: largest distance of a vector's length from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: int
    min_cosine: float
    mean_cosine: float
    worst: str
    norm_error: float
    threshold: float


class Manifest(BaseModel):
    """One built revision.

    Attributes:
        engine_digest: of the file that is served; equals `onnx_digest` for ONNX Runtime.
        runtimes: versions of what exported and built it.
        hardware: what the engine was built for.
        encoder: how inputs are cut, padded and batched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    checkpoint_digest: str
    fingerprint: str
    tokenizer_digest: str
    onnx_digest: str
    engine_digest: str
    engine_key: str
    backend: EngineBackend
    backend_reason: str
    precision: str
    precision_reason: str
    pooling: tuple[str, ...]
    normalise: bool
    prompts: tuple[tuple[str, str], ...]
    runtimes: dict[str, str]
    hardware: str
    encoder: EncoderSettings
    accuracy: Annotated[AccuracySummary | None, Field()] = None

    def to_bytes(self) -> bytes:
        """The file's content: JSON, two blanks, keys in the order of the class."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @property
    def digest(self) -> str:
        """``sha256:…`` of the file's content; the served models carry it."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file.

    Raises:
        BuildError: stage PUBLISH, where the file is missing or no manifest.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BuildError(
            BuildStage.PUBLISH, f"{path}: seen {error}, wanted the manifest of a build; build the revision again"
        ) from error
