"""How far a built graph is from FP32 torch, on given texts and on the cases that break encoders."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from searchops_workers.encoders.protocol import NORM_TOLERANCE, Vectors
from searchops_workers.encoders.tokenise import pad_batch
from searchops_workers.engines.manifest import AccuracySummary
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from searchops_workers.encoders.settings import EncoderSettings
    from searchops_workers.encoders.tokenise import TextTokeniser

THRESHOLD = 0.999
"""Smallest cosine with FP32 torch that a served vector may have. FP16 stays above 0.99999 on healthy models."""
MOST_TEXTS = 192
_SHOWN = 60
_LONG_WORDS = 400


class GraphRunner(Protocol):
    """Runs a built graph on one padded batch."""

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[Any]:
        """One row a text."""
        ...


def special_texts() -> tuple[str, ...]:
    """Empty, one token, over-length, emoji and other characters that a vocabulary may lack."""
    long = " ".join(f"stainless hexagon bolt M{size % 24 + 3}" for size in range(_LONG_WORDS))
    return ("", "a", "?", long, "🔩🔧 Schraube 🪛", "Ünïcödé naïve ﬁne", "ruuvi\u00a0M8\tA2-70\n", "螺栓 болт برغي")


def choose_texts(texts: Sequence[str], *, most: int = MOST_TEXTS) -> tuple[str, ...]:
    """The special texts and a fixed sample of the others."""
    others = sorted(set(texts) - set(special_texts()))
    if len(others) > most:
        others = sorted(random.Random(len(others)).sample(others, most))  # noqa: S311 - a sample, not a secret
    return (*special_texts(), *others)


def run_texts(runner: GraphRunner, tokeniser: TextTokeniser, texts: Sequence[str], dimension: int) -> Vectors:
    """What the graph answers for the texts, in their order, unchecked."""
    out: Vectors = np.zeros((len(texts), dimension), dtype=np.float32)
    for batch in tokeniser.batches(texts):
        out[list(batch.rows)] = runner.run(batch.input_ids, batch.attention_mask)
    return out


def measure(
    runner: GraphRunner,
    tokeniser: TextTokeniser,
    settings: EncoderSettings,
    texts: Sequence[str],
    reference: Vectors,
) -> AccuracySummary:
    """Compare in the buckets that serving uses, and the special texts again in one batch padded to the widest bucket.

    Raises:
        BuildError: stage ACCURACY, on values that are not finite, a length that is not 1, or a cosine below the
            threshold.
    """
    served = run_texts(runner, tokeniser, texts, settings.dimension)
    special = [row for row, text in enumerate(texts) if text in set(special_texts())][: settings.max_batch]
    ids = tokeniser.tokenise([texts[row] for row in special])
    batch = pad_batch(ids, tuple(range(len(ids))), settings.buckets[-1], settings.pad_token_id)
    padded = np.asarray(runner.run(batch.input_ids, batch.attention_mask), dtype=np.float32)
    return compare(
        [*texts, *(texts[row] for row in special)],
        np.concatenate([reference, reference[special]]),
        np.concatenate([served, padded]),
    )


def compare(texts: Sequence[str], reference: Vectors, served: Vectors) -> AccuracySummary:
    """Row by row; see `measure` for what is raised."""
    if reference.shape != served.shape:
        raise BuildError(
            BuildStage.ACCURACY,
            f"the graph answers with shape {served.shape}, FP32 torch with {reference.shape}; the checkpoint's modules "
            "disagree about the dimension",
        )
    check_finite("the checkpoint under FP32 torch", texts, reference)
    check_finite("the built graph", texts, served)
    norms = np.linalg.norm(served.astype(np.float64), axis=1)
    norm_error = float(np.abs(norms - 1.0).max())
    if norm_error > NORM_TOLERANCE:
        row = int(np.abs(norms - 1.0).argmax())
        raise BuildError(
            BuildStage.ACCURACY,
            f"the built graph gives {_shown(texts[row])} a vector of length {norms[row]:.4f}, wanted 1 within "
            f"{NORM_TOLERANCE:g}; the precision is too narrow for this model: set engine.precision to FP32",
        )
    lengths = norms * np.linalg.norm(reference.astype(np.float64), axis=1)
    cosines = np.einsum("ij,ij->i", reference.astype(np.float64), served.astype(np.float64)) / lengths
    worst = int(cosines.argmin())
    if not cosines[worst] >= THRESHOLD:
        raise BuildError(
            BuildStage.ACCURACY,
            f"smallest cosine with FP32 torch is {cosines[worst]:.6f} at {_shown(texts[worst])} (mean "
            f"{cosines.mean():.6f} over {len(texts)} texts), wanted at least {THRESHOLD:g}; try another "
            "engine.precision, or check that tokenizer.json belongs to the checkpoint",
        )
    return AccuracySummary(
        texts=len(texts),
        min_cosine=round(min(float(cosines[worst]), 1.0), 6),
        mean_cosine=round(min(float(cosines.mean()), 1.0), 6),
        worst=texts[worst][:_SHOWN],
        norm_error=round(norm_error, 6),
        threshold=THRESHOLD,
    )


def check_finite(name: str, texts: Sequence[str], vectors: Vectors) -> None:
    """Refuse NaN and infinity.

    Raises:
        BuildError: stage ACCURACY, naming the first text.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise BuildError(
            BuildStage.ACCURACY,
            f"{name} gives values that are not finite for {bad.size} of {len(texts)} texts, first "
            f"{_shown(texts[bad[0]])}; the weights or the precision are broken: check the checkpoint, or set "
            "engine.precision to FP32",
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
