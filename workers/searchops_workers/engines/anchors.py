"""Anchors: the texts and vectors by which a space is recognised.

Equal dimensions prove nothing, and neither does an equal fingerprint: a candidate belongs to a founder's space when it
encodes every one of the founder's anchor texts to a vector within cosine 0.999 of the founder's own.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.engines.accuracy import special_texts
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.encoders.protocol import Vectors

FEWEST = 256
SAME_SPACE = 0.999
_GIVEN = 192
_WORDS = {
    "en": (
        ("stainless", "galvanised", "black", "brass", "waterproof", "merino", "cast iron", "children's"),
        ("hex bolt", "circulation pump", "winter jacket", "frying pan", "wood screw", "ball valve", "t-shirt", "lamp"),
        ("for outdoor use", "with washer", "size L", "230 V", "pack of 100", "replacement part", "cheap", "DN 50"),
    ),
    "de": (
        ("rostfreie", "verzinkte", "schwarze", "messingfarbene", "wasserdichte", "leise", "gusseiserne", "kleine"),
        (
            "Sechskantschraube",
            "Umwälzpumpe",
            "Winterjacke",
            "Bratpfanne",
            "Holzschraube",
            "Kugelhahn",
            "Leuchte",
            "Mütze",
        ),
        ("für draußen", "mit Scheibe", "Größe L", "230 V", "100 Stück", "als Ersatzteil", "günstig", "DN 50"),
    ),
    "fi": (
        ("ruostumaton", "sinkitty", "musta", "messinkinen", "vedenpitävä", "hiljainen", "valurautainen", "pieni"),
        (
            "kuusioruuvi",
            "kiertovesipumppu",
            "talvitakki",
            "paistinpannu",
            "puuruuvi",
            "palloventtiili",
            "valaisin",
            "pipo",
        ),
        ("ulkokäyttöön", "aluslevyllä", "koko L", "230 V", "100 kpl", "varaosaksi", "edullinen", "DN 50"),
    ),
}


@dataclass(frozen=True, slots=True)
class Anchors:
    """Texts with a founder's vectors, row by row."""

    texts: tuple[str, ...]
    vectors: Vectors

    def to_bytes(self) -> bytes:
        """The content of the ``.npz`` file: the vectors, and the texts as JSON (no pickles)."""
        sink = io.BytesIO()
        texts = np.frombuffer(json.dumps(self.texts, ensure_ascii=False).encode(), dtype=np.uint8)
        np.savez(sink, texts=texts, vectors=self.vectors)
        return sink.getvalue()


def read_anchors(content: bytes, *, source: str) -> Anchors:
    """Anchors from the content of their file.

    Raises:
        BuildError: stage RETRY, where the content is no anchors file: nothing is known about the space then.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            texts = tuple(json.loads(archive["texts"].tobytes().decode()))
            vectors = np.asarray(archive["vectors"], dtype=np.float32)
        if vectors.ndim != 2 or len(texts) != vectors.shape[0] or not np.isfinite(vectors).all():
            raise ValueError(f"{len(texts)} texts with vectors of shape {vectors.shape}")
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BuildError(
            BuildStage.RETRY,
            f"{source}: seen {error}, wanted the founder's anchors; restore the artifact store, or start a new space",
        ) from error
    return Anchors(texts, vectors)


def choose_anchor_texts(queries: Sequence[str], documents: Sequence[str]) -> tuple[str, ...]:
    """At least 256 texts, always the same for the same input.

    Half of up to 192 come from the queries and half from the documents (every language is in there in its own share);
    products in three languages, codes, the special cases and over-length texts are always added.
    """
    given = [*_sample(queries, _GIVEN // 2), *_sample(documents, _GIVEN // 2)]
    codes = [f"{letters}-{number}" for letters in ("TN", "BX", "6204") for number in (2110, 77, 40815)]
    long = [" ".join([*row, *row] * 60) for row in (words[1] for words in _WORDS.values())]
    texts = list(dict.fromkeys([*special_texts(), *codes, *long, *given]))
    for text in generated_texts():
        if len(texts) >= FEWEST:
            break
        if text not in texts:
            texts.append(text)
    return tuple(texts)


def min_cosine(first: Anchors, second: Anchors) -> float:
    """Smallest cosine of any anchor; 0 where dimensions differ, because then the spaces cannot be one.

    Raises:
        ValueError: where the two were made of different texts.
    """
    if first.texts != second.texts:
        raise ValueError("the anchors were made of different texts, so their vectors cannot be compared")
    if first.vectors.shape != second.vectors.shape:
        return 0.0
    a, b = first.vectors.astype(np.float64), second.vectors.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.einsum("ij,ij->i", a, b) / np.maximum(lengths, 1e-12)
    return float(min(cosines.min(), 1.0)) if np.isfinite(cosines).all() else 0.0


def _sample(texts: Sequence[str], most: int) -> list[str]:
    distinct = sorted(set(texts))
    if len(distinct) <= most:
        return distinct
    return sorted(random.Random(len(distinct)).sample(distinct, most))  # noqa: S311 - a sample, not a secret


def generated_texts() -> list[str]:
    """Products of every language in turn, so that any prefix holds all languages, queries and documents."""
    columns = [[" ".join(words) for words in itertools.product(*parts)] for parts in _WORDS.values()]
    step = 7
    mixed = [[column[(position * step) % len(column)] for position in range(len(column))] for column in columns]
    return [text for row in zip(*mixed, strict=True) for text in row]
