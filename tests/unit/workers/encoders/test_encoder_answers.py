from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from searchops_workers.encoders.errors import (
    BadVectors,
    EncoderError,
    EncoderRefused,
    EncoderUnavailable,
    ModelNotLoaded,
)
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.encoders.protocol import check_vectors
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder
from searchops_workers.encoders.triton_client import translate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors


def _unit(rows: int) -> Vectors:
    return np.full((rows, 4), 0.5, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:1], r"shape \(1, 4\), wanted \(2, 4\)"),
        (
            lambda v: v * np.array([[1.0], [np.nan]]),
            r"1 of 2 vectors with values that are not finite \(first: text 1\)",
        ),
        (lambda v: v * np.array([[1.0], [1.5]]), "text 1 with a vector of length 1.5000"),
        (lambda v: v * 0, "text 0 with a vector of length 0.0000"),
    ],
)
def test_vectors_that_must_not_be_stored_are_refused(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(BadVectors, match=message):
        check_vectors(change(_unit(2)), count=2, dimension=4, source="m on h:1")


def test_good_vectors_come_back_as_float32() -> None:
    assert check_vectors(_unit(2).astype(np.float64), count=2, dimension=4, source="m").dtype == np.float32


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("StatusCode.UNAVAILABLE", "failed to connect", EncoderUnavailable),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", EncoderUnavailable),
        ("StatusCode.INTERNAL", "Stub process is unhealthy", EncoderUnavailable),
        ("StatusCode.INTERNAL", "shop-r1-enc failed: Model 'shop-r1-enc' is not ready.", EncoderUnavailable),
        ("StatusCode.NOT_FOUND", "Request for unknown model: 'x' is not found", ModelNotLoaded),
        ("StatusCode.UNAVAILABLE", "Request for unknown model: 'x' has no available versions", ModelNotLoaded),
        ("StatusCode.INVALID_ARGUMENT", "unexpected shape for input 'text'", EncoderRefused),
        (None, "", EncoderUnavailable),
    ],
)
def test_what_the_server_says_becomes_a_type(status: str | None, message: str, kind: type[EncoderError]) -> None:
    error = translate(InferenceServerException(message, status=status), "shop-r1", "h:8001")
    assert type(error) is kind
    assert "shop-r1" in str(error)
    assert "h:8001" in str(error)


async def test_a_server_that_is_not_there_is_unavailable_within_the_deadline() -> None:
    with pytest.raises(EncoderUnavailable, match=r"127\.0\.0\.1:9"):
        await TritonTextEncoder.connect("127.0.0.1:9", "shop-r1", deadline=0.5)


class _Member:
    def __init__(self, failure: EncoderError | None, dimension: int = 4) -> None:
        self.failure = failure
        self.dimension = dimension
        self.max_tokens = 8
        self.calls = 0
        self.closed = False

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        if self.failure:
            raise self.failure
        return _unit(len(texts))

    async def close(self) -> None:
        self.closed = True


async def test_a_pool_goes_on_to_the_next_server() -> None:
    broken, good = _Member(EncoderUnavailable("down")), _Member(None)
    pool = PooledEncoder([broken, good])
    for _ in range(4):
        assert (await pool.encode(["a"])).shape == (1, 4)
    assert good.calls == 4
    await pool.close()
    assert broken.closed
    assert good.closed


async def test_a_pool_asks_each_server_once_and_then_says_why() -> None:
    members = [_Member(ModelNotLoaded("not here")), _Member(EncoderUnavailable("down"))]
    with pytest.raises(EncoderUnavailable, match="down"):
        await PooledEncoder(members).encode(["a"])
    assert [member.calls for member in members] == [1, 1]


async def test_a_refused_request_is_not_sent_to_every_server() -> None:
    members = [_Member(EncoderRefused("too wide")), _Member(None)]
    with pytest.raises(EncoderRefused):
        await PooledEncoder(members).encode(["a"])
    assert members[1].calls == 0


def test_servers_of_different_models_are_no_pool() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        PooledEncoder([_Member(None), _Member(None, dimension=5)])
    with pytest.raises(ValueError, match="at least one"):
        PooledEncoder([])


def test_a_folder_that_is_no_artifact_says_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(EncoderRefused, match=r"is no built encoder: manifest\.json with an `encoder` part was wanted"):
        OnnxEncoder.open(tmp_path)
