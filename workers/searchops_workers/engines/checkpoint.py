"""Reads a sentence-transformers checkpoint: which modules, how it pools, where it cuts; refuses what it does not know.

Nothing is executed: only JSON and safetensors are accepted, no pickles, no code that comes with the checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from searchops_workers.engines.stages import BuildError, BuildStage

PoolingMode = Literal["mean", "cls", "max", "mean_sqrt_len_tokens"]
POOLING_MODES: tuple[PoolingMode, ...] = ("cls", "max", "mean", "mean_sqrt_len_tokens")
"""In the order in which several modes are concatenated."""
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
_LEGACY_POOLING: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_mpnet_config.json",
    "sentence_xlm-roberta_config.json",
)


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer after the pooling."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an export needs to know.

    Attributes:
        folder: the checkpoint.
        transformer: folder with ``config.json``, weights and tokeniser.
        pooling: modes, concatenated where there are several.
        dense: layers after the pooling, in order.
        normalise: whether the checkpoint itself normalises; what is served always does.
        max_tokens: where the checkpoint cuts a text.
        hidden: width of the transformer.
        truncate_dim: only the first dimensions are kept, before the normalisation.
        pad_token_id: from the transformer's configuration.
        prompts: named prompts of the checkpoint, for the manifest.
        default_prompt: text put before every input, mostly empty.
    """

    folder: Path
    transformer: Path
    pooling: tuple[PoolingMode, ...]
    dense: tuple[DenseLayer, ...]
    normalise: bool
    max_tokens: int
    hidden: int
    truncate_dim: int | None
    pad_token_id: int
    prompts: tuple[tuple[str, str], ...]
    default_prompt: str

    @property
    def dimension(self) -> int:
        """Length of a served vector."""
        width = self.dense[-1].out_features if self.dense else self.hidden * len(self.pooling)
        return min(self.truncate_dim, width) if self.truncate_dim else width

    @property
    def tokenizer(self) -> Path:
        """The tokeniser's file."""
        return self.transformer / "tokenizer.json"


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder.

    Raises:
        BuildError: stage BAD_CHECKPOINT, naming the file, what was seen, what was wanted and what to do next.
    """
    if not folder.is_dir():
        raise _bad(folder, "no folder there", "a sentence-transformers checkpoint", "check source.uri")
    modules = _modules(folder)
    transformer = folder / modules[0][1]
    config = _object(transformer / "config.json")
    _check_transformer(transformer, config)
    hidden = _integer(transformer / "config.json", config, "hidden_size", "dim", "d_model")
    pooling = _pooling(folder / modules[1][1] / "config.json", hidden)
    dense: list[DenseLayer] = []
    width = hidden * len(pooling)
    for kind, path in modules[2:]:
        if kind == "Dense":
            dense.append(_dense(folder / path, width))
            width = dense[-1].out_features
    library = _optional_object(folder / "config_sentence_transformers.json")
    prompts = _prompts(folder / "config_sentence_transformers.json", library)
    default = library.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise _bad(
            folder / "config_sentence_transformers.json",
            f"default_prompt_name {default!r}",
            f"one of its prompts {sorted(prompts)}",
            "add the prompt or remove the name",
        )
    return Checkpoint(
        folder=folder,
        transformer=transformer,
        pooling=pooling,
        dense=tuple(dense),
        normalise=modules[-1][0] == "Normalize",
        max_tokens=_max_tokens(transformer, config),
        hidden=hidden,
        truncate_dim=_truncation(folder / "config_sentence_transformers.json", library, width),
        pad_token_id=int(config.get("pad_token_id") or 0),
        prompts=tuple(sorted(prompts.items())),
        default_prompt=prompts[default] if default else "",
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    path = folder / "modules.json"
    content = _json(path)
    order = "Transformer, Pooling, then any Dense, then at most one Normalize"
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise _bad(
            path, f"a {type(content).__name__}", "a list of modules", "save the model with sentence-transformers"
        )
    found: list[tuple[str, str]] = []
    for entry in content:
        full, where = str(entry.get("type", "")), str(entry.get("path", ""))
        kind = full.rsplit(".", 1)[-1]
        if not full.startswith("sentence_transformers.") or kind not in _MODULES:
            raise _bad(
                path,
                f"module type {full!r}",
                f"one of {', '.join(_MODULES)} of sentence_transformers",
                "export a model without that module: code of a checkpoint is never run",
            )
        if Path(where).is_absolute() or ".." in Path(where).parts:
            raise _bad(path, f"module path {where!r}", "a folder inside the checkpoint", "save the model again")
        found.append((kind, where))
    kinds = [kind for kind, _ in found]
    tail = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in tail):
        raise _bad(path, f"modules {kinds}", order, "save a model of that shape")
    return found


def _check_transformer(folder: Path, config: dict[str, Any]) -> None:
    if "auto_map" in config:
        raise _bad(
            folder / "config.json",
            "auto_map, which names code inside the checkpoint",
            "an architecture that transformers itself has",
            "choose a checkpoint without remote code: it is never run",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        raise _bad(
            folder,
            f"no *.safetensors{f' but {pickles}' if pickles else ''}",
            "weights as safetensors",
            "save the model with safe_serialization=True: pickles can run code and are not read",
        )
    for weight in weights:
        _check_safetensors(weight)
    if not (folder / "tokenizer.json").is_file():
        raise _bad(
            folder / "tokenizer.json",
            "no such file",
            "a fast tokeniser",
            "save the tokeniser with transformers' AutoTokenizer(use_fast=True)",
        )
    _check_vocabulary(folder / "tokenizer.json", _integer(folder / "config.json", config, "vocab_size"))


def _check_vocabulary(path: Path, rows: int) -> None:
    """A token without a row in the embedding table stops the encoder at the first text that has it."""
    content = _object(path)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        greatest = len(vocabulary) - 1
    elif isinstance(vocabulary, dict):
        greatest = max((number for number in vocabulary.values() if isinstance(number, int)), default=-1)
    else:
        raise _bad(path, "no model.vocab", "a tokeniser with a vocabulary", "save the tokeniser again")
    added = content.get("added_tokens") or []
    numbers = [entry.get("id") for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    greatest = max([greatest, *(number for number in numbers if isinstance(number, int))])
    if greatest >= rows:
        raise _bad(
            path,
            f"token {greatest}",
            f"tokens below {rows}, the rows of the embedding table",
            "copy the tokeniser that belongs to the weights: this one is another model's",
        )


def _check_safetensors(path: Path) -> None:
    """The header's length is its first eight bytes; a cut download is found before torch reads it."""
    size = path.stat().st_size
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if size < 8 or length > size - 8:
            raise _bad(path, f"{size} bytes that are no whole header", "a safetensors file", "copy the file again")
        try:
            header = json.loads(source.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _bad(path, f"an unreadable header ({error})", "a safetensors file", "copy the file again") from error
    if ends and max(ends) != size - 8 - length:
        raise _bad(path, f"{size} bytes", f"{8 + length + max(ends)} bytes", "copy the file again: it is cut")


def _pooling(path: Path, hidden: int) -> tuple[PoolingMode, ...]:
    config = _object(path)
    for key in ("embedding_dimension", "word_embedding_dimension"):
        if config.get(key, hidden) != hidden:
            raise _bad(
                path, f"{key} {config[key]!r}", f"{hidden}, the width of the transformer", "save the model again"
            )
    if not config.get("include_prompt", True):
        raise _bad(path, "include_prompt false", "pooling over all tokens", "save the model with include_prompt true")
    stated = config.get("pooling_mode")
    if stated is not None:
        names = [stated] if isinstance(stated, str) else list(stated)
    else:
        names = [
            _LEGACY_POOLING.get(key, key.removeprefix("pooling_mode_"))
            for key, on in config.items()
            if key.startswith("pooling_mode_") and on is True
        ]
    unknown = [name for name in names if name not in POOLING_MODES]
    if unknown or not names:
        raise _bad(path, f"pooling {names}", f"one or more of {', '.join(POOLING_MODES)}", "choose one of those modes")
    return tuple(mode for mode in POOLING_MODES if mode in names)


def _dense(folder: Path, width: int) -> DenseLayer:
    path = folder / "config.json"
    config = _object(path)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS:
        raise _bad(path, f"activation_function {activation!r}", f"one of {', '.join(ACTIVATIONS)}", "use one of those")
    seen = _integer(path, config, "in_features")
    if seen != width:
        raise _bad(path, f"in_features {seen}", f"{width}, the width of what comes before", "save the model again")
    if not (folder / "model.safetensors").is_file():
        raise _bad(folder / "model.safetensors", "no such file", "the layer's weights", "save the model again")
    _check_safetensors(folder / "model.safetensors")
    return DenseLayer(folder, seen, _integer(path, config, "out_features"), bool(config.get("bias", True)), activation)


def _max_tokens(transformer: Path, config: dict[str, Any]) -> int:
    candidates: list[int] = []
    for name in _TRANSFORMER_CONFIGS:
        value = _optional_object(transformer / name).get("max_seq_length")
        if isinstance(value, int):
            candidates.append(value)
    limit = config.get("max_position_embeddings")
    if isinstance(limit, int):
        offset = 2 if config.get("model_type") in {"roberta", "xlm-roberta", "mpnet", "camembert"} else 0
        candidates.append(limit - offset)
    length = _optional_object(transformer / "tokenizer_config.json").get("model_max_length")
    if isinstance(length, int) and length < 1_000_000:
        candidates.append(length)
    if not candidates or min(candidates) < 2:
        raise _bad(
            transformer / "sentence_bert_config.json",
            f"max_seq_length {min(candidates) if candidates else 'nowhere'}",
            "a length of at least 2 tokens",
            "save the model with its max_seq_length",
        )
    return min(candidates)


def _prompts(path: Path, library: dict[str, Any]) -> dict[str, str]:
    prompts = library.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(value, str) for value in prompts.values()):
        raise _bad(path, f"prompts {prompts!r}", "names with texts", "save the model with its prompts")
    return {str(name): str(text) for name, text in prompts.items()}


def _truncation(path: Path, library: dict[str, Any], width: int) -> int | None:
    value = library.get("truncate_dim")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 < value <= width:
        raise _bad(path, f"truncate_dim {value!r}", f"a whole number from 1 to {width}", "correct or remove it")
    return value


def _integer(path: Path, config: dict[str, Any], *keys: str) -> int:
    for key in keys:
        if isinstance(config.get(key), int) and config[key] > 0:
            return int(config[key])
    raise _bad(path, f"no {' or '.join(keys)}", "a positive whole number there", "save the model again")


def _optional_object(path: Path) -> dict[str, Any]:
    return _object(path) if path.exists() else {}


def _object(path: Path) -> dict[str, Any]:
    content = _json(path)
    if not isinstance(content, dict):
        raise _bad(path, f"a {type(content).__name__}", "a JSON object", "save the model again")
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _bad(
            path,
            "no such file",
            "a sentence-transformers checkpoint",
            "save the model with sentence-transformers, and point source.uri at the folder with modules.json",
        ) from None
    except (OSError, ValueError) as error:
        raise _bad(path, f"unreadable JSON ({error})", "a JSON file", "copy the checkpoint again") from error


def _bad(path: Path, seen: str, wanted: str, what_next: str) -> BuildError:
    return BuildError(BuildStage.BAD_CHECKPOINT, f"{path}: seen {seen}, wanted {wanted}; {what_next}")
