"""Checkpoint to ONNX: transformer, FP32 pooling and FP32 normalisation in one graph with fixed names.

The transformer runs in the asked precision; pooling, any dense layer and the normalisation are always FP32, because a
sum over 256 tokens and a division by a small norm are where FP16 loses digits. ``token_type_ids`` are no input: one
text has only segment 0, which is what the transformer assumes by itself (a tokeniser that says otherwise is refused).
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from searchops_workers.encoders.settings import ATTENTION_MASK, INPUT_IDS, OUTPUT
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.engines.checkpoint import Checkpoint, DenseLayer

GraphPrecision = Literal["FP16", "Mixed", "BF16", "FP32"]
OPSET = 18
_TINY = 1e-9
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
}


class HalfLinear(nn.Module):
    """A linear layer computed in FP16 between FP32 neighbours: residuals and layer norms cannot overflow."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.inner = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None)
        self.inner.load_state_dict(linear.state_dict())
        self.inner.half()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """FP32 in, FP32 out."""
        result: torch.Tensor = self.inner(states.half()).float()
        return result


class SentenceEncoder(nn.Module):
    """What is exported: token ids and mask in, unit vectors out."""

    def __init__(self, checkpoint: Checkpoint, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.modes = checkpoint.pooling
        self.dense = nn.ModuleList([_dense(layer) for layer in checkpoint.dense])
        self.dimension = checkpoint.dimension

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of unit length, FP32."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        tokens = output.last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).float()
        states = torch.cat([_pool(mode, tokens, mask) for mode in self.modes], dim=1)
        for layer in self.dense:
            states = layer(states)
        states = states[:, : self.dimension]
        norm = states.pow(2).sum(dim=1, keepdim=True).sqrt().clamp(min=_TINY)
        return states / norm


def load_module(checkpoint: Checkpoint) -> SentenceEncoder:
    """The FP32 module of a checkpoint.

    Raises:
        BuildError: stage BAD_CHECKPOINT, where transformers cannot load the weights.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    quieten: Any = transformers_logging
    quieten.set_verbosity_error()
    quieten.disable_progress_bar()
    try:
        transformer, report = AutoModel.from_pretrained(
            str(checkpoint.transformer),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise ValueError(f"weights are missing: {', '.join(missing[:5])}")
        module = SentenceEncoder(checkpoint, transformer)
    except Exception as error:  # transformers raises whatever its parts raise
        raise BuildError(
            BuildStage.BAD_CHECKPOINT,
            f"{checkpoint.transformer}: seen weights that transformers cannot load ({error}), wanted weights that fit "
            "config.json; save the model again",
        ) from error
    return module.eval()


def export_onnx(checkpoint: Checkpoint, precision: GraphPrecision, target: Path) -> Path:
    """Write the ONNX graph of a checkpoint; equal inputs give equal bytes.

    Raises:
        BuildError: stage EXPORT or BAD_CHECKPOINT.
    """
    module = load_module(checkpoint)
    transformer: nn.Module = module.transformer
    if precision == "FP16":
        transformer.half()
    elif precision == "BF16":
        transformer.bfloat16()
    elif precision == "Mixed":
        _halve_linears(transformer)
    example = {
        INPUT_IDS: torch.ones((2, 16), dtype=torch.int64),
        ATTENTION_MASK: torch.ones((2, 16), dtype=torch.int64),
    }
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", min=2, max=checkpoint.max_tokens)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                kwargs=example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_IDS, ATTENTION_MASK],
                output_names=[OUTPUT],
                dynamic_shapes={name: {0: batch, 1: sequence} for name in example},
                external_data=False,
                verbose=False,
            )
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        _write(program.model_proto, target)
    except BuildError:
        raise
    except Exception as error:  # the exporter raises whatever torch raises
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BuildError(
            BuildStage.EXPORT,
            f"{checkpoint.folder} cannot be exported to ONNX in {precision}: {first}; try another precision, or a "
            "checkpoint of an architecture that torch.onnx supports",
        ) from error
    return target


def _write(model: Any, target: Path) -> None:
    """Without what differs from machine to machine: stack traces, paths and comments of the exporter."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in graph.value_info:
            del value.metadata_props[:]
    model.graph.name = "sentence_encoder"
    target.write_bytes(model.SerializeToString(deterministic=True))


def _pool(mode: str, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mode == "cls":
        return tokens[:, 0]
    if mode == "max":
        return torch.where(mask > 0, tokens, torch.full_like(tokens, -1e9)).amax(dim=1)
    total = (tokens * mask).sum(dim=1)
    count = mask.sum(dim=1).clamp(min=_TINY)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _dense(layer: DenseLayer) -> nn.Module:
    from safetensors.torch import load_file

    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias)
    state = {
        name.removeprefix("linear."): value for name, value in load_file(layer.folder / "model.safetensors").items()
    }
    linear.load_state_dict(state)
    return nn.Sequential(linear.float(), _ACTIVATIONS[layer.activation]())


def _halve_linears(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, HalfLinear(child))
        else:
            _halve_linears(child)
