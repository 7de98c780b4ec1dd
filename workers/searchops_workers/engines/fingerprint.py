"""What makes two checkpoints the same: weights tensor by tensor, tokeniser, pooling, normalisation, prompts.

The digest of a directory changes with a README; this fingerprint does not, and not with how the weights are sharded.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from searchops_workers.engines.checkpoint import Checkpoint

EXPORTER_VERSION = "1"
"""Of `export`: raised with every change of the graph that it writes. It is here because `export` imports torch."""
_BLOCK = 1 << 20
_IGNORED = ("pooler.", "embeddings.position_ids")


def content_fingerprint(checkpoint: Checkpoint) -> str:
    """``sha256:…`` of everything that decides a text's vector, apart from precision and cut."""
    total = hashlib.sha256()
    for label, digest in sorted(_weights(checkpoint)):
        total.update(f"{label}\0{digest}\n".encode())
    total.update(f"tokenizer\0{tokenizer_digest(checkpoint.tokenizer)}\n".encode())
    rest = {
        "pooling": checkpoint.pooling,
        "dense": [[layer.in_features, layer.out_features, layer.bias, layer.activation] for layer in checkpoint.dense],
        "normalise": checkpoint.normalise,
        "truncate_dim": checkpoint.truncate_dim,
        "prompts": [prompt for prompt in checkpoint.prompts if prompt[1]],
        "default_prompt": checkpoint.default_prompt,
    }
    total.update(json.dumps(rest, sort_keys=True).encode())
    return "sha256:" + total.hexdigest()


def tokenizer_digest(path: Path) -> str:
    """``sha256:…`` of a ``tokenizer.json`` without its stored padding and cut, which are never used.

    Raises:
        BuildError: stage BAD_CHECKPOINT, where the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("padding", None)
        content.pop("truncation", None)
    except (OSError, ValueError, AttributeError) as error:
        raise BuildError(
            BuildStage.BAD_CHECKPOINT, f"{path}: seen {error}, wanted a tokenizer.json; save the tokeniser again"
        ) from error
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _weights(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    for path in sorted(checkpoint.transformer.glob("*.safetensors")):
        yield from _tensors("transformer", path)
    for index, layer in enumerate(checkpoint.dense):
        yield from _tensors(f"dense-{index}", layer.folder / "model.safetensors")


def _tensors(prefix: str, path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        header = json.loads(source.read(length))
        for name, entry in header.items():
            if name == "__metadata__" or any(mark in name for mark in _IGNORED):
                continue
            start, end = entry["data_offsets"]
            source.seek(8 + length + start)
            content = hashlib.sha256(json.dumps([entry["dtype"], entry["shape"]]).encode())
            left = end - start
            while left and (block := source.read(min(_BLOCK, left))):
                content.update(block)
                left -= len(block)
            yield f"{prefix}/{name}", content.hexdigest()
