"""Is a directory a holdout, whole and unchanged? Each problem is one line: where, what is seen, wanted, to be done."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from searchops_workers.digests import bytes_digest, lines_digest
from searchops_workers.holdout.records import CatalogueRef, JudgmentRow, Manifest, QueryRow, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

MANIFEST = "manifest.json"
QUERIES = "queries.jsonl"
JUDGMENTS = "judgments.jsonl"
CATALOGUE = "catalogue.ref"
CONTENT_FILES = (QUERIES, JUDGMENTS, CATALOGUE)
MAX_FILE_BYTES = 512 << 20
MAX_QUERIES = 200_000
MAX_JUDGMENTS = 10_000_000
MAX_LINE_BYTES = 64 << 10
MAX_PROBLEMS = 1_000

Row = TypeVar("Row", bound=Record)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a holdout."""

    file: str
    line: int | None
    seen: str
    wanted: str
    todo: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: seen {self.seen}; wanted {self.wanted}; {self.todo}"


@dataclass(frozen=True, slots=True)
class Located(Generic[Row]):
    """A row and the line it stands on."""

    line: int
    row: Row


@dataclass(slots=True)
class Reading:
    """What was read of a directory, and what was wrong with it.

    Attributes:
        digest: of the whole directory, from the very bytes that were parsed.
    """

    manifest: Manifest | None = None
    catalogue: CatalogueRef | None = None
    queries: list[Located[QueryRow]] = field(default_factory=list)
    judgments: list[Located[JudgmentRow]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    digest: str = ""

    def report(self, file: str, line: int | None, *, seen: str, wanted: str, todo: str) -> None:
        """Note a problem; the list is bounded, because a wrong file can be wrong on every line."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(file, line, seen, wanted, todo))


def read_directory(directory: Path) -> Reading:
    """Read and check everything that a holdout's files say; nothing is raised for bad content."""
    reading = Reading()
    contents = _contents(directory, reading)
    reading.digest = lines_digest({name: (len(content), bytes_digest(content)) for name, content in contents.items()})
    if MANIFEST in contents:
        reading.manifest = _document(contents[MANIFEST], MANIFEST, Manifest, reading)
    if reading.manifest is not None:
        _check_hashes(reading.manifest, contents, reading)
    if CATALOGUE in contents:
        reading.catalogue = _document(contents[CATALOGUE], CATALOGUE, CatalogueRef, reading)
    reading.queries = _rows(contents.get(QUERIES, b""), QUERIES, QueryRow, MAX_QUERIES, reading)
    reading.judgments = _rows(contents.get(JUDGMENTS, b""), JUDGMENTS, JudgmentRow, MAX_JUDGMENTS, reading)
    _check_queries(reading, contents)
    _check_judgments(reading)
    return reading


def _contents(directory: Path, reading: Reading) -> dict[str, bytes]:
    if not directory.is_dir():
        reading.report(
            str(directory),
            None,
            seen="no directory",
            wanted="a holdout directory",
            todo="check the path, or fetch the holdout",
        )
        return {}
    contents: dict[str, bytes] = {}
    for path in sorted(directory.iterdir()):
        if path.name not in (MANIFEST, *CONTENT_FILES):
            reading.report(
                path.name,
                None,
                seen="an entry that a holdout does not have",
                wanted=f"only {MANIFEST}, {', '.join(CONTENT_FILES)}",
                todo="remove it: a holdout is immutable and its digest covers every file",
            )
        elif not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            reading.report(
                path.name,
                None,
                seen="no regular file of bounded size",
                wanted=f"a file of at most {MAX_FILE_BYTES} bytes",
                todo="replace it",
            )
        else:
            contents[path.name] = path.read_bytes()
    for name in (MANIFEST, *CONTENT_FILES):
        if name not in contents and not (directory / name).exists():
            reading.report(
                name,
                None,
                seen="no such file",
                wanted="all four files of a holdout",
                todo="restore it from where the holdout came",
            )
    return contents


def _check_hashes(manifest: Manifest, contents: dict[str, bytes], reading: Reading) -> None:
    for name in sorted(set(manifest.sha256) | set(CONTENT_FILES)):
        wanted = manifest.sha256.get(name)
        if name not in CONTENT_FILES:
            reading.report(
                MANIFEST,
                None,
                seen=f"sha256 of {name!r}",
                wanted=f"exactly {', '.join(CONTENT_FILES)}",
                todo="remove that entry",
            )
        elif wanted is None:
            reading.report(
                MANIFEST, None, seen=f"no sha256 of {name}", wanted="one for each file", todo="write the holdout again"
            )
        elif name in contents and (seen := bytes_digest(contents[name])) != wanted:
            reading.report(
                name,
                None,
                seen=seen,
                wanted=f"{wanted} (from {MANIFEST})",
                todo="restore the file; a changed label needs a new version",
            )


def _document(content: bytes, name: str, model: type[Row], reading: Reading) -> Row | None:
    try:
        return model.model_validate(_json(content), context=None)
    except (ValueError, ValidationError) as error:
        _report_invalid(name, None, error, reading)
        return None


def _rows(content: bytes, name: str, model: type[Row], limit: int, reading: Reading) -> list[Located[Row]]:
    rows: list[Located[Row]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        if len(rows) >= limit:
            reading.report(
                name, number, seen=f"more than {limit} rows", wanted=f"at most {limit}", todo="split the holdout"
            )
            break
        if len(line) > MAX_LINE_BYTES:
            reading.report(
                name, number, seen=f"a line of {len(line)} bytes", wanted=f"at most {MAX_LINE_BYTES}", todo="shorten it"
            )
            continue
        try:
            rows.append(Located(number, model.model_validate(_json(line))))
        except (ValueError, ValidationError) as error:
            _report_invalid(name, number, error, reading)
    return rows


def _json(content: bytes) -> Any:
    return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text}, which is not JSON")


def _report_invalid(name: str, line: int | None, error: ValueError, reading: Reading) -> None:
    if not isinstance(error, ValidationError):
        reading.report(
            name, line, seen=f"no JSON ({error})", wanted="one JSON object in UTF-8", todo="correct the line"
        )
        return
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"]) or "the object"
        seen = json.dumps(detail["input"], default=str, ensure_ascii=False)
        seen = "nothing" if detail["type"] == "missing" else seen if len(seen) <= 120 else seen[:117] + "…"
        reading.report(name, line, seen=f"{path} = {seen}", wanted=detail["msg"], todo=f"correct {path}")


def _check_queries(reading: Reading, present: Collection[str]) -> None:
    first: dict[str, int] = {}
    splits: dict[str, tuple[QueryRow, int]] = {}
    for located in reading.queries:
        row, line = located.row, located.line
        if row.id in first:
            reading.report(
                QUERIES,
                line,
                seen=f"id {row.id!r}, also on line {first[row.id]}",
                wanted="each id once",
                todo="rename or remove one",
            )
            continue
        first[row.id] = line
        other, where = splits.setdefault(row.family, (row, line))
        if other.split is not row.split:
            reading.report(
                QUERIES,
                line,
                seen=f"family {row.family!r} in split {row.split}, on line {where} in {other.split}",
                wanted="a family in one split only",
                todo="move the whole family to one split: related queries would leak between tuning and gate",
            )
    if not reading.queries and QUERIES in present and not any(item.file == QUERIES for item in reading.problems):
        reading.report(QUERIES, None, seen="no query", wanted="at least one", todo="add queries")


def _check_judgments(reading: Reading) -> None:
    known = {located.row.id for located in reading.queries}
    top_grade = len(reading.manifest.gains) - 1 if reading.manifest is not None else None
    first: dict[tuple[str, str], int] = {}
    for located in reading.judgments:
        row, line = located.row, located.line
        pair = (row.query_id, row.product_id)
        if row.query_id not in known:
            reading.report(
                JUDGMENTS,
                line,
                seen=f"query_id {row.query_id!r}",
                wanted=f"an id of {QUERIES}",
                todo="correct it or add the query",
            )
        if pair in first:
            reading.report(
                JUDGMENTS,
                line,
                seen=f"{pair}, also on line {first[pair]}",
                wanted="one grade a pair",
                todo="keep one; raters[] keeps the rest",
            )
        first.setdefault(pair, line)
        highest = max((row.grade, *row.rater_grades()))
        if top_grade is not None and highest > top_grade:
            reading.report(
                JUDGMENTS,
                line,
                seen=f"grade {highest}",
                wanted=f"a grade that gains has (0–{top_grade})",
                todo="correct the grade or the gains",
            )
