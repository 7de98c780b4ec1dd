"""A holdout in memory: frozen, indexed, and only ever made from a directory that verifies."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.records import (
    REST_OF_CATALOGUE,
    CatalogueRef,
    GoodRule,
    Incumbent,
    JudgmentRow,
    Manifest,
    QueryRow,
    Split,
)
from searchops_workers.holdout.verification import (
    CATALOGUE,
    CONTENT_FILES,
    JUDGMENTS,
    MANIFEST,
    QUERIES,
    Problem,
    read_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class HoldoutError(Exception):
    """A directory that is no holdout, or is one no longer; the message is one line and has the first problem."""

    def __init__(self, directory: Path, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0] if self.problems else "seen nothing that could be read; wanted a holdout"
        more = len(self.problems) - 1
        rest = f" (and {more} more: `searchops-worker holdout verify {directory}` lists them)" if more > 0 else ""
        where = "" if str(first).startswith(f"{directory}:") else f"{directory}: "
        super().__init__(f"{where}{first}{rest}")


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known about one query's products.

    Attributes:
        grades: product -> grade.
        rest: the grade of every other product, where a rule has graded the whole catalogue; else they are unjudged.
        disputed: product -> (lowest, highest) grade that its raters gave, where they differ.
    """

    grades: Mapping[str, int]
    rest: int | None = None
    disputed: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def grade(self, product: str) -> int | None:
        """The grade, or None where nobody has judged the product."""
        return self.grades.get(product, self.rest)


NO_LABELS = Labels(MappingProxyType({}))


@dataclass(frozen=True)
class Holdout:
    """Queries, labels and the rules they were made for.

    Attributes:
        digest: of the directory, `sha256:<hex>`.
    """

    manifest: Manifest
    queries: tuple[QueryRow, ...]
    labels: Mapping[str, Labels]
    catalogue: CatalogueRef
    digest: str

    @property
    def k(self) -> int:
        """Depth of nDCG and judged@k."""
        return self.manifest.k

    @property
    def good(self) -> GoodRule:
        """When a query counts as Good."""
        return self.manifest.good

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Gain by grade."""
        return tuple(self.manifest.gains[str(grade)] for grade in range(len(self.manifest.gains)))

    @cached_property
    def gated(self) -> tuple[QueryRow, ...]:
        """The queries that the gate may look at: all but the `dev` part."""
        return tuple(query for query in self.queries if query.split is not Split.DEV)

    def labels_of(self, query_id: str) -> Labels:
        """The labels of a query."""
        return self.labels.get(query_id, NO_LABELS)

    def right_products(self, query_id: str) -> int:
        """R: how many products are graded as Good asks."""
        return sum(grade >= self.good.grade for grade in self.labels_of(query_id).grades.values())


def verify(directory: Path) -> tuple[Problem, ...]:
    """Everything that is wrong with a holdout directory; empty when it is whole and unchanged."""
    return tuple(read_directory(directory).problems)


def load(directory: Path) -> Holdout:
    """Read a holdout.

    Raises:
        HoldoutError: it does not verify; the error lists each problem with file and line.
    """
    reading = read_directory(directory)
    if reading.problems or reading.manifest is None or reading.catalogue is None:
        raise HoldoutError(directory, reading.problems)
    return Holdout(
        manifest=reading.manifest,
        queries=tuple(located.row for located in reading.queries),
        labels=_index(located.row for located in reading.judgments),
        catalogue=reading.catalogue,
        digest=reading.digest,
    )


def _index(rows: Iterable[JudgmentRow]) -> Mapping[str, Labels]:
    grades: dict[str, dict[str, int]] = {}
    disputed: dict[str, dict[str, tuple[int, int]]] = {}
    rest: dict[str, int] = {}
    for row in rows:
        own = grades.setdefault(row.query_id, {})
        if row.product_id == REST_OF_CATALOGUE:
            rest[row.query_id] = row.grade
            continue
        own[row.product_id] = row.grade
        seen = (row.grade, *row.rater_grades())
        if min(seen) != max(seen):
            disputed.setdefault(row.query_id, {})[row.product_id] = (min(seen), max(seen))
    return MappingProxyType(
        {
            query: Labels(MappingProxyType(own), rest.get(query), MappingProxyType(disputed.get(query, {})))
            for query, own in grades.items()
        }
    )


def write_holdout(
    directory: Path,
    *,
    name: str,
    version: str,
    gains: Mapping[int, float],
    licence: str,
    created: str,
    queries: Iterable[QueryRow],
    judgments: Iterable[JudgmentRow],
    catalogue: CatalogueRef,
    good: GoodRule | None = None,
    k: int = 10,
    incumbent: Incumbent | None = None,
    description: str = "",
) -> str:
    """Write a holdout directory, byte-identical for equal arguments, and verify what was written.

    Returns:
        the digest of the directory.

    Raises:
        FileExistsError: the directory holds something already: a holdout is immutable, a change is a new version.
        HoldoutError: the arguments make no valid holdout; what was written stays to be looked at.
    """
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(
            f"{directory}: seen files, wanted an empty directory; a changed holdout is a new version elsewhere"
        )
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        QUERIES: b"".join(_line(row.model_dump(mode="json", by_alias=True)) for row in queries),
        JUDGMENTS: b"".join(_line(row.model_dump(mode="json")) for row in judgments),
        CATALOGUE: _line(catalogue.model_dump(mode="json")),
    }
    manifest = Manifest(
        name=name,
        version=version,
        sha256={file: bytes_digest(contents[file]) for file in CONTENT_FILES},
        gains={str(grade): float(gain) for grade, gain in sorted(gains.items())},
        good=good or GoodRule(),
        k=k,
        licence=licence,
        created=created,
        incumbent=incumbent,
        description=description,
    )
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=2, sort_keys=True)
    (directory / MANIFEST).write_bytes(text.encode() + b"\n")
    return load(directory).digest


def _line(row: dict[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
