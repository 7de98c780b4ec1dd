"""Tiny sentence-transformers checkpoints with random weights: real in every file, built in a second."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Architecture = Literal["bert", "distilbert", "roberta", "mpnet"]
"""Of these BERT alone has token types."""
HIDDEN = 32
MAX_TOKENS = 48
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_tiny_checkpoint(
    folder: Path,
    *,
    architecture: Architecture = "bert",
    pooling: str = "mean",
    layers: int = 2,
    dense: int | None = None,
    truncate_dim: int | None = None,
    prompt: str = "",
    prompts: Mapping[str, str] | None = None,
    nan: bool = False,
    seed: int = 7,
) -> Path:
    """Write a two-layer transformer of width 32 that reads letters and digits one by one.

    Args:
        folder: is made.
        architecture: of the transformer.
        pooling: as sentence-transformers names the mode.
        layers: transformer layers.
        dense: width of a Dense module after the pooling.
        truncate_dim: kept dimensions.
        prompt: a default prompt.
        prompts: named prompts, of which none is the default.
        nan: whether one weight is not a number.
        seed: of the weights.
    """
    folder.mkdir(parents=True)
    vocabulary = _write_tokenizer(folder)
    torch.manual_seed(seed)
    model = _transformer(architecture, vocabulary, layers)
    if nan:
        with torch.no_grad():
            next(tensor for name, tensor in model.named_parameters() if name.endswith("bias"))[0] = float("nan")
    model.save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write(folder / "1_Pooling" / "config.json", {"embedding_dimension": HIDDEN, "pooling_mode": pooling})
    if dense is not None:
        modules.append(("Dense", "2_Dense"))
        _write_dense(folder / "2_Dense", dense)
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    (folder / modules[-1][1]).mkdir()
    _write(folder / "modules.json", _modules(modules))
    _write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    named = {"query": prompt} if prompts is None else dict(prompts)
    library: dict[str, object] = {"prompts": named, "default_prompt_name": "query" if prompt else None}
    if truncate_dim is not None:
        library["truncate_dim"] = truncate_dim
    _write(folder / "config_sentence_transformers.json", library)
    return folder


def _transformer(architecture: Architecture, vocabulary: int, layers: int) -> Any:
    import transformers

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "max_position_embeddings": 64,
    }
    if architecture == "distilbert":
        config: Any = transformers.DistilBertConfig(dim=HIDDEN, n_layers=layers, n_heads=4, hidden_dim=64, **common)
        return transformers.DistilBertModel(config)
    sizes: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    if architecture == "roberta":
        config = transformers.RobertaConfig(type_vocab_size=1, **sizes, **common)
        return transformers.RobertaModel(config, add_pooling_layer=False)
    if architecture == "mpnet":
        return transformers.MPNetModel(transformers.MPNetConfig(**sizes, **common), add_pooling_layer=False)
    return transformers.BertModel(transformers.BertConfig(**sizes, **common), add_pooling_layer=False)


def _modules(modules: list[tuple[str, str]]) -> list[dict[str, object]]:
    return [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(modules)
    ]


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    tokens = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    fast: Any = PreTrainedTokenizerFast
    fast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_TOKENS,
    ).save_pretrained(folder)
    return len(tokens)


def _write_dense(folder: Path, width: int) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    activation = "torch.nn.modules.activation.Tanh"
    content = {"in_features": HIDDEN, "out_features": width, "bias": True, "activation_function": activation}
    _write(folder / "config.json", content)
    state = {"linear.weight": torch.randn(width, HIDDEN) * 0.3, "linear.bias": torch.randn(width) * 0.1}
    save_file(state, folder / "model.safetensors")


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
