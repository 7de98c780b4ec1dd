"""The report as Markdown, for a terminal or a comment: what the page says, without its plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchops_workers.holdout.evidence import rounded
from searchops_workers.holdout.report import content
from searchops_workers.holdout.report.plots import distribution, graded_forest, scatter, share_forest

if TYPE_CHECKING:
    from searchops_workers.holdout.report.content import Changed, ChangedList, Document, Product
    from searchops_workers.holdout.report.plots import Forest

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def markdown_report(document: Document) -> str:
    """The report as Markdown, byte-identical for equal documents and for what reads back from their JSON."""
    document = rounded(document)
    verdict = document["verdict"]
    labels = content.label_list(document)
    parts = [f"# {verdict['outcome']}: {verdict['reason']}", _escape(content.shown(verdict["message"]))]
    for title, table in _sections(document):
        parts += [f"## {title}", _table(table)]
    moved = [plot.spoken for plot in (distribution(document), scatter(document)) if plot is not None]
    if moved:
        parts += ["## How nDCG moved", "\n".join(f"- {_escape(line)}" for line in moved)]
    parts += _changes("Losses", content.changed_list(document, "losses", content.LOSSES_SHOWN))
    parts += _changes("Gains", content.changed_list(document, "gains", content.GAINS_SHOWN))
    if labels.total:
        rows = [(one.gates, one.query, one.text, ", ".join(one.products)) for one in labels.rows]
        parts += ["## Labels needed", labels.summary, _table((("gate", "query", "text", "products"), rows))]
    parts += ["## Known failures", _escape(content.known_failures(document))]
    parts += ["## What was compared", _table((("what", "value"), content.provenance(document)))]
    return "\n\n".join(parts) + "\n"


def _sections(document: Document) -> list[tuple[str, Table]]:
    sections: list[tuple[str, Table]] = []
    if document["settlements"]:
        settle = [
            (one["gate"], one["reason"], one["text"], content.number(one["families"]), str(len(one["pairs"])))
            for one in document["settlements"]
        ]
        sections.append(("What would settle it", (("gate", "reason", "what", "more families", "pairs"), settle)))
    gates = [(one["gate"], one["state"], content.shown(one["message"])) for one in document["gates"]]
    sections.append(("Gates", (("gate", "state", "why"), gates)))
    sections.append(("Families lost", _forest(share_forest(document), "share")))
    sections.append(("Mean difference of nDCG", _forest(graded_forest(document), "mean")))
    checks = [
        (check["name"], check["state"], content.shown(check["message"]))
        for gate in document["gates"]
        for check in gate["figures"].get("checks", [])
    ]
    if checks:
        sections.append(("Hard rules", (("rule", "state", "what was seen"), checks)))
    return sections


def _forest(forest: Forest, observed: str) -> Table:
    rows = [
        (row.name, row.state, row.figures, row.share, row.bounds, row.allowed, row.note or row.title)
        for row in forest.rows
    ]
    if forest.left_out:
        rows.append(("…", "", "", "", "", "", f"{forest.left_out} more slices are in the JSON document"))
    return ("what", "state", "counted", observed, "bounds", "allowed", "note"), rows


def _changes(title: str, found: ChangedList) -> list[str]:
    parts = [f"## {title}, most traffic first", found.summary]
    for one in found.shown:
        rows = [
            (str(rank), _product(before), _product(after)) for rank, (before, after) in enumerate(one.rows, start=1)
        ]
        parts += [f"### {one.number}. {_escape(_heading(one))}", _table((("rank", "incumbent", "candidate"), rows))]
    return parts


def _heading(one: Changed) -> str:
    about = ", ".join((one.query, *one.about))
    return f"{one.text} ({content.percent(one.share)} of traffic, {about}; nDCG {one.before:.3f} → {one.after:.3f})"


def _product(one: Product | None) -> str:
    if one is None:
        return ""
    grade = "unjudged" if one.grade is None else f"{'✓ ' if one.right else ''}{one.grade}"
    return f"{one.name} ({grade}, {one.moved})"


def _table(table: Table) -> str:
    header, rows = table
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(text: str) -> str:
    for mark in ("\\", "|", "<", "`", "*", "_", "["):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
