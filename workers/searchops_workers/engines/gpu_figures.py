"""Figures of ``make gpu-check``: which batches are run, how they are timed, and one JSON object a figure."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from searchops_workers.encoders.tokenise import TextTokeniser, pad_batch
from searchops_workers.engines.accuracy import THRESHOLD, special_texts
from searchops_workers.engines.anchors import generated_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from searchops_workers.encoders.protocol import Vectors
    from searchops_workers.encoders.settings import EncoderSettings
    from searchops_workers.encoders.tokenise import TokenBatch
    from searchops_workers.engines.accuracy import GraphRunner

ROUNDS = 5
WARM_UP = 5
CALLS = 40


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a call, one value a round.

    Attributes:
        p50: medians of the rounds.
        p99: 99th percentiles of the rounds.
    """

    p50: tuple[float, ...]
    p99: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """What every line says of where it was taken."""

    gpu: str
    versions: dict[str, str]


def bucket_batch(tokenizer: Path, settings: EncoderSettings, bucket: int) -> TokenBatch:
    """A full batch for one bucket: the special texts, then rows from short to as long as the bucket, all padded."""
    narrow = settings.model_copy(update={"max_tokens": bucket, "buckets": (bucket,)})
    tokeniser = TextTokeniser(tokenizer, narrow)
    words = " ".join(generated_texts()).split()
    texts = list(special_texts()[: settings.max_batch])
    while len(texts) < settings.max_batch:
        # No token is shorter than a word, so as many words as the bucket has tokens fill it.
        length = 1 + len(texts) * bucket // settings.max_batch
        start = (len(texts) * 31) % max(len(words) - bucket, 1)
        texts.append(" ".join(words[start : start + length]))
    rows = tokeniser.tokenise(texts)
    return pad_batch(rows, tuple(range(len(rows))), bucket, settings.pad_token_id)


def longest_rows(batch: TokenBatch, rows: int) -> TokenBatch:
    """The last rows of a batch of `bucket_batch`, which are the longest, as a smaller one."""
    return type(batch)(batch.rows[-rows:], batch.input_ids[-rows:], batch.attention_mask[-rows:])


def least_cosine(reference: Vectors, served: Vectors) -> float:
    """Of any row; 0 where a value is not finite."""
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(served, dtype=np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(min((np.einsum("ij,ij->i", a, b) / np.maximum(lengths, 1e-12)).min(), 1.0))


def time_calls(
    runner: GraphRunner, batch: TokenBatch, *, rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Calls one after another, each until its vectors are in the host's memory, after a warm-up that is not counted."""
    for _ in range(WARM_UP):
        runner.run(batch.input_ids, batch.attention_mask)
    middles, tails = [], []
    for _ in range(rounds):
        took = []
        for _ in range(CALLS):
            started = clock()
            runner.run(batch.input_ids, batch.attention_mask)
            took.append((clock() - started) * 1e3)
        middles.append(float(np.percentile(took, 50)))
        tails.append(float(np.percentile(took, 99)))
    return Timing(tuple(middles), tuple(tails))


def figure(
    name: str,
    repeats: Sequence[float],
    unit: str,
    machine: Machine,
    *,
    least: float | None = None,
    **details: Any,
) -> dict[str, Any]:
    """One line, in the form of the benchmarks' figures: the median, and the smallest and the greatest as its spread."""
    value = median(repeats)
    return {
        "figure": name,
        "value": round(value, 6),
        "unit": unit,
        "target": None if least is None else f">= {least:g}",
        "holds": None if least is None else value >= least,
        "repeats": len(repeats),
        "spread": [round(min(repeats), 6), round(max(repeats), 6)],
        "machine": {"gpu": machine.gpu, "python": platform.python_version()},
        "versions": machine.versions,
        **({"details": details} if details else {}),
    }


def missing(runtime: str, reason: str, gpu: str) -> dict[str, Any]:
    """The line of a runtime that is not on the machine: no value is claimed for it."""
    return {"figure": runtime, "value": None, "holds": None, "machine": {"gpu": gpu}, "details": {"missing": reason}}


def failed(runtime: str, reason: str, gpu: str) -> dict[str, Any]:
    """The line of a runtime that is there and does not do its work."""
    return {"figure": runtime, "value": None, "holds": False, "machine": {"gpu": gpu}, "details": {"failed": reason}}


def runtime_figures(
    runtime: str,
    runner: GraphRunner,
    batches: dict[int, tuple[TokenBatch, Vectors]],
    machine: Machine,
    peers: dict[int, float] | None,
) -> tuple[list[dict[str, Any]], dict[int, float]]:
    """Accuracy and speed in every bucket, and the rates alone.

    Args:
        runtime: name of what runs.
        runner: runs it.
        batches: bucket → a full batch with its FP32 vectors.
        machine: of the lines.
        peers: bucket → texts a second of torch, which the rate is compared with; None where this is torch.

    Returns:
        The lines, and bucket → texts a second.
    """
    lines = []
    rates: dict[int, float] = {}
    for bucket, (batch, reference) in batches.items():
        cosine = least_cosine(reference, runner.run(batch.input_ids, batch.attention_mask))
        lines.append(
            figure(
                f"{runtime}, {bucket} tokens: smallest cosine with FP32", [cosine], "cosine", machine, least=THRESHOLD
            )
        )
        one = time_calls(runner, longest_rows(batch, 1))
        lines.append(figure(f"{runtime}, {bucket} tokens, one text: p50", one.p50, "ms", machine))
        lines.append(figure(f"{runtime}, {bucket} tokens, one text: p99", one.p99, "ms", machine))
        full, rows = time_calls(runner, batch), len(batch.rows)
        lines.append(figure(f"{runtime}, {bucket} tokens, {rows} texts: p50", full.p50, "ms", machine))
        each = [rows / (value / 1e3) for value in full.p50]
        rates[bucket] = median(each)
        details = {"times_of_torch": round(rates[bucket] / peers[bucket], 3)} if peers else {}
        lines.append(figure(f"{runtime}, {bucket} tokens, {rows} texts: rate", each, "texts/s", machine, **details))
    return lines, rates
