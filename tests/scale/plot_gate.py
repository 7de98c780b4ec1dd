"""Draws the gate's calibration: ``PYTHONPATH=tests:tests/sandbox python -m scale.plot_gate``.

Takes the figures of ``build/bench/gate.jsonl`` (the last line of each counts), keeps what is shown of them in the file
``docs/gate-calibration.json``, and makes the two pictures and the tables of ``docs/statistics.md`` from it alone, so
that a test can say whether the page is what the figures say.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

from scale.figures import BENCH
from scale.gate_tables import tables
from scale.plot import DOCS, INK, KEPT, OTHER, newest, put_between

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURES: Final = DOCS / "gate-calibration.json"
PAGE: Final = DOCS / "statistics.md"
COLOURS: Final = (OTHER, "#c98a2b", KEPT, "#2d6ca2", "#7a3f8f", "#b5483a")
SHOWN: Final = 4
"""Digits kept of a share."""

Row = dict[str, Any]


def kept(lines: Iterable[str], on: str) -> dict[str, Any]:
    """What the page shows of the benchmark's lines.

    Args:
        lines: of ``gate.jsonl``.
        on: the day of the run.
    """
    figures = [one for one in newest(lines) if one["figure"].startswith("gate, ")]
    if not figures:
        raise ValueError("seen no figure of the calibration; wanted those of make bench-gate; run it first")
    machine = figures[-1]["machine"]
    return {
        "on": on,
        "machine": f"{machine['cores']} shared cores of {machine['cpu']}, load {machine['load'][0]}",
        "rows": [_rounded(one["details"]) for one in figures if "curve" in one["details"]],
        "promises": [
            {"figure": one["figure"], "value": one["value"], "target": one["target"], "holds": one["holds"]}
            for one in figures
            if one["target"] is not None and one["unit"].startswith("P(")
        ],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, SHOWN)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


def curves(figures: dict[str, Any], curve: str) -> dict[str, list[Row]]:
    """The points of a curve by label, from left to right."""
    found: dict[str, list[Row]] = {}
    for row in figures["rows"]:
        if row["curve"] == curve:
            found.setdefault(row["label"], []).append(row)
    return {label: sorted(rows, key=lambda row: float(row.get("x", 0))) for label, rows in found.items()}


def draw_errors(figures: dict[str, Any], out: Path) -> None:
    """How often the whole rule is right and wrong: by loss, size, gains, queries a family, attempts, real models."""
    sheet, axes = plt.subplots(2, 3, figsize=(14, 7.6), layout="constrained")
    _shares(axes[0][0], curves(figures, "loss"), "passed", "P(Pass) by true loss; lines: Good families")
    _shares(axes[0][1], curves(figures, "loss with gains"), "passed", "P(Pass), 30 % of the rest gained")
    _shares(axes[0][2], curves(figures, "loss"), "regressed", "P(Regressed) by true loss")
    _shares(
        axes[1][0], curves(figures, "queries"), "passed", "P(Pass) at a loss of δ by queries a family, counted as", 1
    )
    _attempts(axes[1][1], figures)
    _shares(axes[1][2], curves(figures, "resampled"), "passed", "P(Pass), resampled from real models")
    for one in (axes[0][0], axes[0][1], axes[1][2], axes[1][0]):
        one.axhline(0.05, color=INK, linewidth=0.8, linestyle=":")
    axes[0][2].axhline(0.02, color=INK, linewidth=0.8, linestyle=":")
    _save(sheet, figures, out)


def draw_rules(figures: dict[str, Any], out: Path) -> None:
    """What each rule avoids and costs; what erosion and unjudged products do to it."""
    sheet, axes = plt.subplots(1, 3, figsize=(16, 5.6), width_ratios=(1.3, 1, 1), layout="constrained")
    _rules(axes[0], curves(figures, "rules"))
    _former(axes[1], curves(figures, "erosion"), "former A'", "P(Pass) by loss of promotions (dashed: former A′)")
    _former(axes[2], curves(figures, "unjudged"), "former judged", "P(Pass) by share unjudged (dashed: former rule)")
    _save(sheet, figures, out)


def _save(sheet: Any, figures: dict[str, Any], out: Path) -> None:
    sheet.supxlabel(f"{figures['on']}, {figures['machine']}; bars: 95 % intervals", fontsize=8, color=OTHER)
    sheet.savefig(out, dpi=100)
    plt.close(sheet)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, loc="left")
    axes.set_ylim(-0.03, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _shares(axes: Axes, lines: dict[str, list[Row]], what: str, title: str, unit: float = 100) -> None:
    for (label, rows), colour in zip(lines.items(), COLOURS, strict=False):
        places = [row["x"] * unit for row in rows]
        values = [row[what] for row in rows]
        below = [max(0.0, row[what] - row[f"{what}Interval"][0]) for row in rows]
        above = [max(0.0, row[f"{what}Interval"][1] - row[what]) for row in rows]
        axes.errorbar(
            places, values, yerr=(below, above), color=colour, label=label, marker="o", markersize=3, linewidth=1.2
        )
    axes.set_xlabel("true loss in %" if unit == 100 else "queries a family", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    _title(axes, title)


def _attempts(axes: Axes, figures: dict[str, Any]) -> None:
    for (label, (row,)), colour in zip(curves(figures, "attempts").items(), (KEPT, COLOURS[-1]), strict=False):
        shares = row["shares"]
        axes.plot(range(1, len(shares) + 1), shares, color=colour, label=label, marker="o", markersize=3)
    axes.axhline(0.1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("candidates tried, each losing δ", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    _title(axes, "P(any was let through)")
    axes.set_ylim(-0.01, 0.5)


def _rules(axes: Axes, lines: dict[str, list[Row]]) -> None:
    left_out = ("A", "A'", "B", "C", "D")
    for place, (row,) in enumerate(lines.values()):
        axes.barh(place, row["passed"], color=OTHER, height=0.8, alpha=0.45)
        for step, rule in enumerate(left_out):
            value = row["without"][rule]["passed"]
            axes.plot(value, place + 0.3 - 0.15 * step, "o", color=COLOURS[step + 1], markersize=4)
    for step, rule in enumerate(left_out):
        axes.plot([], [], "o", color=COLOURS[step + 1], label=f"without {rule.replace(chr(39), '′')}")
    axes.set_yticks(range(len(lines)), list(lines), fontsize=8)
    axes.invert_yaxis()
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.06), ncol=5)
    axes.set_title("P(Pass) of the whole rule (bar) and without one of its gates", fontsize=9, loc="left")
    axes.set_xlim(-0.02, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _former(axes: Axes, lines: dict[str, list[Row]], former: str, title: str) -> None:
    for (label, rows), colour in zip(lines.items(), COLOURS, strict=False):
        places = [row["x"] * 100 for row in rows]
        axes.plot(places, [row["passed"] for row in rows], color=colour, label=label, marker="o", markersize=3)
        axes.plot(places, [row["without"][former]["passed"] for row in rows], color=colour, linestyle="--", linewidth=1)
    axes.set_xlabel("%", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2)
    _title(axes, title)


def page_of(text: str, figures: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    for name, table in tables(figures).items():
        text = put_between(text, table, f"<!-- {name}: written by scale.plot_gate -->", f"<!-- end of {name} -->")
    return text


def main() -> None:
    """``python -m scale.plot_gate [LINES]``: the kept figures, both pictures and the tables."""
    lines = Path(sys.argv[1]) if len(sys.argv) > 1 else BENCH / "gate.jsonl"
    on = datetime.fromtimestamp(lines.stat().st_mtime, UTC).date().isoformat()
    figures = kept(lines.read_text(encoding="utf-8").splitlines(), on)
    FIGURES.write_text(json.dumps(figures, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    draw_errors(figures, DOCS / "gate-errors.png")
    draw_rules(figures, DOCS / "gate-rules.png")
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
