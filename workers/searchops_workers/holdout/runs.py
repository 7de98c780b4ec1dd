"""Result lists of one model over the holdout, and the TREC run files they are kept in.

A line is ``qid Q0 docid rank score tag``. Results are in order of rank; equal scores are therefore ordered as the file
says. A score that rises with the rank is refused, because other tools order by score and would see another run. Two
conventions are added, since silence must never be read as an answer:

* ``qid Q0 - 0 0 tag`` says that the query was searched and nothing was found; a query without a line is missing.
* the tag ``lexical`` marks a query that was answered by the lexical legs alone, ``hybrid`` one that was not; with any
  other tag the legs are unknown and the check of lexical-only lists does not apply to the query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from searchops_workers.digests import bytes_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NOTHING_FOUND = "-"
MAX_RUN_BYTES = 256 << 20
"""Five million rows or so: far above what a gate looks at, and what fits in the memory of a worker."""
_FIELDS = 6


class Legs(StrEnum):
    """Which retrieval legs answered a query."""

    LEXICAL = "lexical"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Ranking:
    """The results of one query, best first; empty when the search found nothing."""

    products: tuple[str, ...]
    legs: Legs | None = None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Run:
    """All result lists of one side.

    Attributes:
        name: of the revision or file, as it shall appear in evidence.
        rankings: by query id; a query that is not there was not answered.
    """

    name: str
    rankings: Mapping[str, Ranking]

    @cached_property
    def digest(self) -> str:
        """Of the lists (products, order, legs), whatever the scores and the name are."""
        lines = (
            "\0".join((query, ranking.legs or "", *ranking.products))
            for query, ranking in sorted(self.rankings.items())
        )
        return bytes_digest("\n".join(lines).encode())


class RunFileError(ValueError):
    """A run file that cannot be read without guessing."""


def read_run(path: Path, name: str | None = None) -> Run:
    """Read a TREC run file.

    Raises:
        RunFileError: naming file and line, what was seen, what was wanted and what to do.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > MAX_RUN_BYTES:
        raise RunFileError(f"{path}: seen more than {MAX_RUN_BYTES} bytes; wanted the top results only; cut the run")
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            return parse_run(lines, name=name or path.name, where=str(path))
    except UnicodeDecodeError as error:
        raise RunFileError(
            f"{path}: seen bytes that are not UTF-8 ({error.reason}); wanted a TREC run; write the run as UTF-8"
        ) from error


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    product: str
    rank: int
    score: float
    tag: str


def parse_run(lines: Iterable[str], *, name: str, where: str = "run") -> Run:
    """Read the lines of a TREC run.

    Raises:
        RunFileError: naming the line, what was seen, what was wanted and what to do.
    """
    found: dict[str, list[_Line]] = {}
    for number, text in enumerate(lines, start=1):
        if text.strip():
            query, line = _parse(text, number, where)
            found.setdefault(query, []).append(line)
    return Run(name, {query: _ranking(query, rows, where) for query, rows in found.items()})


def _parse(text: str, number: int, where: str) -> tuple[str, _Line]:
    fields = text.split()
    at = f"{where}:{number}"
    if len(fields) != _FIELDS:
        raise RunFileError(
            f"{at}: seen {len(fields)} fields; wanted six, 'qid Q0 docid rank score tag'; ids and tags hold no blanks"
        )
    query, _, product, rank_text, score_text, tag = fields
    if not (rank_text.isascii() and rank_text.isdigit()):
        raise RunFileError(f"{at}: seen rank {rank_text!r}; wanted a whole number from 0; correct the line")
    try:
        score = float(score_text)
    except ValueError as error:
        raise RunFileError(f"{at}: seen score {score_text!r}; wanted a number; correct the line") from error
    if not math.isfinite(score):
        raise RunFileError(f"{at}: seen score {score_text!r}; wanted a finite number; look for broken vectors")
    return query, _Line(number, product, int(rank_text), score, tag)


def _ranking(query: str, rows: list[_Line], where: str) -> Ranking:
    rows = sorted(rows, key=lambda row: (row.rank, row.number))
    tags = {row.tag for row in rows}
    legs = Legs(rows[0].tag) if rows[0].tag in tuple(Legs) else None
    if len(tags) > 1 and tags & set(Legs):
        raise RunFileError(
            f"{where}:{rows[-1].number}: seen tags {sorted(tags)} for query {query!r}; wanted one; correct it"
        )
    if rows[0].product == NOTHING_FOUND:
        if len(rows) > 1:
            raise RunFileError(
                f"{where}:{rows[1].number}: seen a result for query {query!r}; "
                f"wanted none, as line {rows[0].number} says; keep one of them"
            )
        return Ranking((), legs)
    seen: set[str] = set()
    for before, row in zip((None, *rows), rows, strict=False):
        at = f"{where}:{row.number}: query {query!r}:"
        if row.product in seen or row.product == NOTHING_FOUND:
            raise RunFileError(
                f"{at} seen product {row.product!r} twice or out of place; wanted it once; remove the line"
            )
        if before is not None and row.rank == before.rank:
            raise RunFileError(
                f"{at} seen rank {row.rank} also on line {before.number}; wanted each rank once; renumber"
            )
        if before is not None and row.score > before.score:
            raise RunFileError(
                f"{at} seen score {row.score} at rank {row.rank}, above {before.score} at rank {before.rank}; "
                "wanted scores that do not rise with the rank; sort the run or renumber it"
            )
        seen.add(row.product)
    return Ranking(tuple(row.product for row in rows), legs, tuple(row.score for row in rows))


def format_run(run: Run, *, tag: str = "searchops") -> str:
    """The run as a TREC run file, queries sorted by id; rankings without scores get 1/rank.

    The order is what a run says: a fused score that lies above the one before it, as it may by its last bit, is written
    as that one, since a reader refuses scores that rise.
    """
    lines: list[str] = []
    for query, ranking in sorted(run.rankings.items()):
        mark = ranking.legs.value if ranking.legs is not None else tag
        if not ranking.products:
            lines.append(f"{query} Q0 {NOTHING_FOUND} 0 0 {mark}")
        given = ranking.scores or tuple(1 / rank for rank in range(1, len(ranking.products) + 1))
        scores = accumulate(given, min)
        for rank, (product, score) in enumerate(zip(ranking.products, scores, strict=True), start=1):
            lines.append(f"{query} Q0 {product} {rank} {score!r} {mark}")
    return "".join(f"{line}\n" for line in lines)


def write_run(path: Path, run: Run, *, tag: str = "searchops") -> None:
    """Write a TREC run file."""
    path.write_text(format_run(run, tag=tag), encoding="utf-8")
