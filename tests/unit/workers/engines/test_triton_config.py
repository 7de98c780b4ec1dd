"""The three configurations as Triton itself parses them, on each of the three backends."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from searchops_workers.encoders.settings import EncoderSettings
from searchops_workers.engines.triton_config import ServedRevision, ServingBackend

SETTINGS = EncoderSettings(dimension=384, max_tokens=128, buckets=(16, 32, 128), max_batch=64)
NAME = "shop-r1-aaaaaaaa"
BACKENDS = get_args(ServingBackend)
IDS_AND_MASK = [("input_ids", "TYPE_INT64", [-1]), ("attention_mask", "TYPE_INT64", [-1])]
VECTOR = [("sentence_embedding", "TYPE_FP32", [384])]
TEXT = [("text", "TYPE_STRING", [1])]


def served(backend: ServingBackend) -> ServedRevision:
    return ServedRevision(NAME, "sha256:1", SETTINGS, backend)


def parsed(text: str) -> Any:
    """As the server reads ``config.pbtxt``: a field that it does not know raises."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(items: Any) -> list[tuple[str, str, list[int]]]:
    return [(item.name, model_config_pb2.DataType.Name(item.data_type), list(item.dims)) for item in items]


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_and_shapes_are_the_same_whatever_runs_the_encoder(backend: ServingBackend) -> None:
    revision = served(backend)
    encoder, tokeniser, text = (parsed(made()) for made in (revision.encoder, revision.tokeniser, revision.text))
    assert [config.name for config in (encoder, tokeniser, text)] == [f"{NAME}-enc", f"{NAME}-tok", NAME]
    assert (tensors(encoder.input), tensors(encoder.output)) == (IDS_AND_MASK, VECTOR)
    assert (tensors(tokeniser.input), tensors(tokeniser.output)) == (TEXT, IDS_AND_MASK)
    assert (tensors(text.input), tensors(text.output)) == (TEXT, VECTOR)
    assert {config.max_batch_size for config in (encoder, tokeniser, text)} == {64}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_queue_is_bounded_in_length_and_in_time(backend: ServingBackend) -> None:
    revision = served(backend)
    for made in (revision.encoder, revision.tokeniser, revision.text):
        batching = parsed(made()).dynamic_batching
        policy = batching.default_queue_policy
        assert batching.max_queue_delay_microseconds == 200
        assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
        assert (policy.max_queue_size, policy.default_timeout_microseconds) == (2048, 30_000_000)
        assert policy.allow_timeout_override


@pytest.mark.parametrize(("backend", "sizes"), [("python", [1]), ("onnxruntime", [1, 64]), ("tensorrt_plan", [1, 64])])
def test_every_bucket_is_warmed_before_the_model_is_ready(backend: ServingBackend, sizes: list[int]) -> None:
    warmups = parsed(served(backend).encoder()).model_warmup
    seen = [(w.batch_size, {name: list(tensor.dims) for name, tensor in w.inputs.items()}) for w in warmups]
    assert seen == [
        (size, {"input_ids": [bucket], "attention_mask": [bucket]}) for bucket in SETTINGS.buckets for size in sizes
    ]
    (whole,) = parsed(served(backend).text()).model_warmup
    assert (whole.batch_size, list(whole.inputs)) == (1, ["text"]), "the way from text to vector is walked once"


@pytest.mark.parametrize(
    ("backend", "platform", "name", "kind", "profiles"),
    [
        ("python", "", "python", "KIND_CPU", []),
        ("onnxruntime", "", "onnxruntime", "KIND_GPU", []),
        ("tensorrt_plan", "tensorrt_plan", "", "KIND_GPU", ["0", "1", "2"]),
    ],
)
def test_only_what_runs_the_encoder_differs(
    backend: ServingBackend, platform: str, name: str, kind: str, profiles: list[str]
) -> None:
    encoder = parsed(served(backend).encoder())
    assert (encoder.platform, encoder.backend) == (platform, name)
    (group,) = encoder.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == kind
    assert list(group.profile) == profiles, "a plan has one optimisation profile a bucket"
    assert served(backend).text() == served("python").text()
    assert served(backend).tokeniser() == served("python").tokeniser()
