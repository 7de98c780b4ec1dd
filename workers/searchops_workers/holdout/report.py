"""The evidence document for people: Markdown, and one self-contained HTML page without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchops_workers.holdout.evidence import Document

SHOWN = 10
"""Losses and gains shown in full: ten lines are what a person reads; the JSON has all."""

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #d0d7de;padding:.25rem .6rem;"
    "text-align:left;vertical-align:top}th{background:#f6f8fa}code{font-size:.9em}.Pass,.Better{color:#116329}"
    ".Regressed{color:#a40e26}.Inconclusive{color:#7d4e00}.Invalid{color:#57606a}"
)

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def markdown_report(document: Document) -> str:
    """The report as Markdown."""
    verdict = document["verdict"]
    parts = [f"# {verdict['outcome']}: {verdict['reason']}", _escape_markdown(verdict["message"])]
    for title, table in _sections(document):
        parts.append(f"## {title}")
        parts.append(_markdown_table(table))
    parts.extend(_markdown_lists(document))
    return "\n\n".join(parts) + "\n"


def html_report(document: Document) -> str:
    """The report as one HTML page; every text from outside is escaped."""
    verdict = document["verdict"]
    parts = [
        f'<h1 class="{escape(verdict["outcome"])}">{escape(verdict["outcome"])}: {escape(verdict["reason"])}</h1>',
        f"<p>{escape(verdict['message'])}</p>",
    ]
    for title, table in _sections(document):
        parts.append(f"<h2>{escape(title)}</h2>{_html_table(table)}")
    for title, key in (("Losses", "losses"), ("Gains", "gains")):
        entries = document[key]
        parts.append(f"<h2>{title}: {len(entries)}</h2>")
        for entry in entries[:SHOWN]:
            parts.append(f"<h3>{escape(_heading(entry))}</h3>{_html_table(_tops(entry))}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(verdict["outcome"])}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _sections(document: Document) -> list[tuple[str, Table]]:
    gates: Table = (
        ("gate", "state", "why"),
        [(one["gate"], one["state"], one["message"]) for one in document["gates"]],
    )
    sections = [("Gates", gates)]
    slices = [row for gate in document["gates"] for row in gate["figures"].get("slices", [])]
    if slices:
        rows = [
            (
                row["name"],
                row["state"],
                str(row["families"]),
                str(row["lost"]),
                _number(row["margin"]),
                _number(row["holm"]),
            )
            for row in slices
        ]
        sections.append(("Slices", (("slice", "state", "families", "lost", "allowed", "Holm p"), rows)))
    if document["settlements"]:
        settle = [
            (one["gate"], one["reason"], one["text"], _number(one["families"]), str(len(one["pairs"])))
            for one in document["settlements"]
        ]
        sections.append(("What would settle it", (("gate", "reason", "what", "more families", "pairs"), settle)))
    failures = document["knownFailures"]
    low, high = failures["interval"]
    fixed = [(str(failures["families"]), str(failures["fixed"]), f"{low:.0%}–{high:.0%}")]
    sections.append(("Known failures (reported only)", (("families", "fixed", "95 %"), fixed)))
    sections.append(("What was compared", (("what", "value"), _provenance(document))))
    return sections


def _provenance(document: Document) -> list[tuple[str, ...]]:
    holdout, question, runs = document["holdout"], document["question"], document["runs"]
    return [
        ("holdout", f"{holdout['name']} {holdout['version']} {holdout['digest']}"),
        ("catalogue", f"{holdout['catalogue']['uri']} {holdout['catalogue']['sha256']}"),
        ("incumbent", f"{runs['incumbent']['name']} {runs['incumbent']['digest']}"),
        ("candidate", f"{runs['candidate']['name']} {runs['candidate']['digest']}"),
        ("change", f"{question['change']}: loss ≤ {question['lossMargin']}, nDCG ≥ −{question['ndcgMargin']}"),
        ("alpha", f"{question['alpha']} after {question['recentAttempts']} earlier attempts"),
        *(("lost evidence", f"{lost}: counted as if every family had been asked") for lost in question["lostAttempts"]),
        ("seed, resamples", f"{question['seed']}, {question['resamples']}"),
    ]


def _markdown_lists(document: Document) -> list[str]:
    parts: list[str] = []
    for title, key in (("Losses", "losses"), ("Gains", "gains")):
        entries = document[key]
        parts.append(f"## {title}: {len(entries)}")
        for entry in entries[:SHOWN]:
            parts.append(f"### {_escape_markdown(_heading(entry))}")
            parts.append(_markdown_table(_tops(entry)))
    return parts


def _heading(entry: dict[str, Any]) -> str:
    before, after = entry["ndcg"]
    pinned = ", pinned" if entry["pinned"] else ""
    about = f"{entry['query']}, {entry['lang']}, {entry['class']}{pinned}"
    return f"{entry['text']} ({about}; nDCG {before:.3f} → {after:.3f})"


def _tops(entry: dict[str, Any]) -> Table:
    before, after = entry["incumbent"], entry["candidate"]
    rows = [
        (str(rank + 1), _result(before, rank), _result(after, rank)) for rank in range(max(len(before), len(after)))
    ]
    return ("rank", "incumbent", "candidate"), rows


def _result(top: list[list[Any]], rank: int) -> str:
    if rank >= len(top):
        return ""
    product, grade = top[rank]
    return f"{product} (unjudged)" if grade is None else f"{product} ({grade})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _markdown_table(table: Table) -> str:
    header, rows = table
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_escape_markdown(cell) for cell in line) + " |" for line in lines)


def _escape_markdown(text: str) -> str:
    for mark in ("\\", "|", "<", "`", "*", "_", "["):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _html_table(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
