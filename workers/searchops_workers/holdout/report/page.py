"""The report as one HTML page: no script, nothing loaded, every text from outside escaped by the template engine."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from searchops_workers.holdout.evidence import rounded
from searchops_workers.holdout.outcomes import LOSS_DROP
from searchops_workers.holdout.report import content
from searchops_workers.holdout.report.plots import distribution, graded_forest, scatter, share_forest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

    from searchops_workers.holdout.report.content import Document

_FOLDER = Path(__file__).parent


def html_report(document: Document) -> str:
    """The report as one HTML page, byte-identical for equal documents and for what reads back from their JSON."""
    document = rounded(document)
    style = (_FOLDER / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    verdict = document["verdict"]
    losses = content.changed_list(document, "losses", content.LOSSES_SHOWN)
    labels = content.label_list(document)
    return _template().render(
        verdict=verdict,
        title=_title(document),
        message=content.shown(verdict["message"]),
        style=Markup(style),  # noqa: S704 - ours, and part of the package
        style_digest=f"sha256-{digest}",
        facts=_facts(document, losses, labels),
        settlements=_texts(document["settlements"], "text"),
        gates=_texts(document["gates"], "message"),
        checks=_texts(_checks(document), "message"),
        shares=share_forest(document),
        graded=graded_forest(document),
        spread=distribution(document),
        points=scatter(document),
        drop=LOSS_DROP,
        losses=losses,
        gains=content.changed_list(document, "gains", content.GAINS_SHOWN),
        labels=labels,
        failures=content.known_failures(document),
        provenance=content.provenance(document),
        share=content.percent,
    )


@cache
def _template() -> Template:
    engine = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return engine.get_template("page.html.j2")


def _title(document: Document) -> str:
    holdout, runs = document["holdout"], document["runs"]
    return content.shown(f"{runs['candidate']['name']} on {holdout['name']} {holdout['version']}")


def _facts(document: Document, losses: content.ChangedList, labels: content.LabelList) -> list[tuple[str, str]]:
    verdict, holdout, question = document["verdict"], document["holdout"], document["question"]
    lost = f"{verdict['lost']} of {verdict['of']}"
    if verdict["lossBound"] is not None:
        bound = f"bound {content.percent(verdict['lossBound'], 2)}, allowed {content.percent(question['lossMargin'])}"
        lost += f" Good families; {bound}"
    interval = verdict["ndcgInterval"]
    graded = "no traffic was compared" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
    facts = [
        ("Candidate", document["runs"]["candidate"]["name"]),
        ("Incumbent", document["runs"]["incumbent"]["name"]),
        ("Holdout", f"{holdout['name']} {holdout['version']}"),
        ("Change", question["change"]),
        ("Lost", lost),
        ("Traffic of lost queries", content.percent(losses.share)),
        ("ΔnDCG on traffic", graded.replace("-", "−")),
        ("Labels needed", f"{labels.total} pairs" if labels.total else "none"),
    ]
    return [(name, content.shown(value)) for name, value in facts]


def _checks(document: Document) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = next(
        (gate["figures"].get("checks", []) for gate in document["gates"] if gate["gate"] == "D"), []
    )
    return found


def _texts(rows: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows whose text may hold what others wrote, cut as a report shows it."""
    return [{**row, key: content.shown(row[key])} for row in rows]
