"""``config.pbtxt`` of a revision's three Triton models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from searchops_workers.encoders.settings import (
    ATTENTION_MASK,
    INPUT_IDS,
    MANIFEST_PARAMETER,
    OUTPUT,
    SETTINGS_PARAMETER,
    TEXT,
    TOKEN_SUFFIX,
    TOKENISER_SUFFIX,
)

if TYPE_CHECKING:
    from searchops_workers.encoders.settings import EncoderSettings

ServingBackend = Literal["python", "onnxruntime", "tensorrt_plan"]
"""What runs the encoder: ONNX Runtime inside a python model (CPU), Triton's ONNX Runtime backend, or a plan."""

_QUEUE_SIZE = 2048
_QUEUE_MICROSECONDS = 30_000_000
_DELAY_MICROSECONDS = 200


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model, the batch dimension left out."""

    name: str
    kind: Literal["TYPE_INT64", "TYPE_FP32", "TYPE_STRING"]
    dims: int


@dataclass(frozen=True, slots=True)
class ServedRevision:
    """What the three configurations are made of."""

    revision: str
    manifest_digest: str
    settings: EncoderSettings
    backend: ServingBackend

    def text(self) -> str:
        """Configuration of ``<revision>``."""
        return self._render(
            self.revision,
            'backend: "python"',
            inputs=(Tensor(TEXT, "TYPE_STRING", 1),),
            outputs=(Tensor(OUTPUT, "TYPE_FP32", self.settings.dimension),),
            instances=_CPU,
            warmup=_warmup("text", 1, (Tensor(TEXT, "TYPE_STRING", 1),)),
        )

    def tokeniser(self) -> str:
        """Configuration of ``<revision>-tok``."""
        return self._render(
            self.revision + TOKENISER_SUFFIX,
            'backend: "python"',
            inputs=(Tensor(TEXT, "TYPE_STRING", 1),),
            outputs=(Tensor(INPUT_IDS, "TYPE_INT64", -1), Tensor(ATTENTION_MASK, "TYPE_INT64", -1)),
            instances=_CPU,
            warmup="",
        )

    def encoder(self) -> str:
        """Configuration of ``<revision>-enc``."""
        engine = 'platform: "tensorrt_plan"' if self.backend == "tensorrt_plan" else f'backend: "{self.backend}"'
        sizes = (1,) if self.backend == "python" else (1, self.settings.max_batch)
        warmup = "".join(
            _warmup(
                f"bucket-{bucket}-batch-{size}",
                size,
                (Tensor(INPUT_IDS, "TYPE_INT64", bucket), Tensor(ATTENTION_MASK, "TYPE_INT64", bucket)),
            )
            for bucket in self.settings.buckets
            for size in sizes
        )
        return self._render(
            self.revision + TOKEN_SUFFIX,
            engine,
            inputs=(Tensor(INPUT_IDS, "TYPE_INT64", -1), Tensor(ATTENTION_MASK, "TYPE_INT64", -1)),
            outputs=(Tensor(OUTPUT, "TYPE_FP32", self.settings.dimension),),
            instances=self._encoder_instances(),
            warmup=warmup,
        )

    def _encoder_instances(self) -> str:
        if self.backend == "python":
            return _CPU
        if self.backend == "onnxruntime":
            return "instance_group [ { kind: KIND_GPU count: 1 } ]\n"
        profiles = ", ".join(f'"{index}"' for index in range(len(self.settings.buckets)))
        return f"instance_group [ {{ kind: KIND_GPU count: 1 profile: [ {profiles} ] }} ]\n"

    def _render(
        self,
        name: str,
        engine: str,
        *,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        instances: str,
        warmup: str,
    ) -> str:
        return (
            f"name: {_quote(name)}\n{engine}\nmax_batch_size: {self.settings.max_batch}\n"
            f"input [ {_tensors(inputs)} ]\noutput [ {_tensors(outputs)} ]\n{instances}"
            "version_policy: { specific: { versions: [ 1 ] } }\n"
            f"{_BATCHING}{warmup}"
            f"{_parameter(MANIFEST_PARAMETER, self.manifest_digest)}"
            f"{_parameter(SETTINGS_PARAMETER, self.settings.model_dump_json())}"
        )


_CPU = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
_BATCHING = (
    f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_MICROSECONDS} default_queue_policy {{ "
    f"timeout_action: REJECT default_timeout_microseconds: {_QUEUE_MICROSECONDS} allow_timeout_override: true "
    f"max_queue_size: {_QUEUE_SIZE} }} }}\n"
)


def _tensors(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{{ name: {_quote(t.name)} data_type: {t.kind} dims: [ {t.dims} ] }}" for t in tensors)


def _warmup(name: str, batch: int, inputs: tuple[Tensor, ...]) -> str:
    entries = " ".join(
        f"inputs {{ key: {_quote(t.name)} value: {{ data_type: {t.kind} dims: [ {t.dims} ] zero_data: true }} }}"
        for t in inputs
    )
    return f"model_warmup {{ name: {_quote(name)} batch_size: {batch} {entries} }}\n"


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quote(key)} value: {{ string_value: {_quote(value)} }} }}\n"


def _quote(text: str) -> str:
    """A protobuf text-format string; the escapes that JSON makes for ASCII text are the same."""
    return json.dumps(text, ensure_ascii=False)
