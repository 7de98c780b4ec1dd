"""Draws the tenants' figures: ``PYTHONPATH=tests python -m scale.plot``; writes a PNG and a table into docs.

On the left, each promised figure as a share of its target, so that one line in the middle says what holds; on the
right, the peer beside this operator. The last line of a figure counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

from scale.figures import BENCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- tenants' figures: written by scale.plot -->", "<!-- end of tenants' figures -->"
KEPT, BROKEN, OTHER, INK = "#2a7f62", "#c0392b", "#7a8793", "#22303c"
COLOURS: Final = {True: KEPT, False: BROKEN, None: OTHER}
"""As promised, not as promised, and promised of more tenants than these."""
LEAST = 1e-3
"""Where a bar of nothing ends: the axis is logarithmic."""


def newest(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The last line of each figure, in the order in which the figures came first."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        figure = json.loads(line)
        found[figure["figure"]] = figure
    return list(found.values())


def share_of_target(figure: dict[str, Any], value: float) -> float:
    """How much of what is allowed was used; below one is as promised, whichever way the promise points.

    A figure that is promised to be zero has used nothing, or more than everything.
    """
    comparison, limit = figure["target"].split()
    if float(limit) == 0:
        return LEAST if value == 0 else 10.0
    share = value / float(limit)
    return 1 / max(share, LEAST) if comparison == ">=" else share


def draw(figures: list[dict[str, Any]], out: Path) -> None:
    """Both panels into one PNG."""
    promised = [one for one in figures if one["target"] is not None]
    beside = [one for one in figures if one["peer"] is not None]
    if not promised:
        raise ValueError("no figure has a target: run the benchmark first")
    sheet, (left, right) = plt.subplots(
        1,
        2,
        figsize=(14, 0.8 + 0.55 * max(len(promised), 2 * len(beside))),
        width_ratios=(1.3, 1),
        layout="constrained",
    )
    _promises(left, promised)
    _peer(right, beside)
    machine = promised[-1]["machine"]
    sheet.supxlabel(
        f"{machine['cores']} cores of {machine['cpu']}, load {machine['load'][0]} when the last figure was taken",
        fontsize=8,
        color=OTHER,
    )
    sheet.savefig(out, dpi=110)
    plt.close(sheet)


def _promises(axes: Axes, figures: list[dict[str, Any]]) -> None:
    for row, one in enumerate(figures):
        share = max(LEAST, share_of_target(one, one["value"]))
        least, most = sorted(max(LEAST, share_of_target(one, end)) for end in one["spread"])
        axes.barh(row, share, color=COLOURS[one["holds"]], height=0.55)
        axes.hlines(row, least, most, color=INK, linewidth=1.5)
        text = f" {one['value']:.4g} {one['unit']} (promised {one['target']})"
        axes.text(max(share, most), row, text, va="center", fontsize=8, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, max(30.0, axes.get_xlim()[1] * 30))
    axes.axvline(1.0, color=INK, linewidth=1)
    axes.set_yticks(range(len(figures)), [one["figure"] for one in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_title("share of what is allowed; left of the line is as promised", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _peer(axes: Axes, figures: list[dict[str, Any]]) -> None:
    for row, one in enumerate(figures):
        for step, (value, colour) in enumerate(((one["value"], KEPT), (one["peer"]["value"], OTHER))):
            place = row + 0.4 * step - 0.2
            axes.barh(place, max(LEAST, value), color=colour, height=0.36)
            axes.text(max(LEAST, value), place, f" {value:.4g} {one['unit']}", va="center", fontsize=8, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, axes.get_xlim()[1] * 30)
    names = [one["figure"].partition(": ")[2] for one in figures]
    axes.set_yticks(range(len(figures)), names, fontsize=8)
    axes.invert_yaxis()
    if figures:
        label = figures[0]["figure"].partition(": ")[0]
        axes.set_title(f"{label} (grey: {figures[0]['peer']['name']})", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def table(figures: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table, with the load that there was when each was taken."""
    rows = ["| figure | seen | promised | holds | load |", "|---|---|---|---|---|"]
    for one in figures:
        least, most = one["spread"]
        spread = f" ({least:.4g}–{most:.4g})" if one["repeats"] > 1 else ""
        beside = f"; {one['peer']['name']}: {one['peer']['value']:.4g}" if one["peer"] else ""
        holds = {True: "yes", False: "**no**", None: "–"}[one["holds"]]
        seen = f"{one['value']:.4g} {one['unit']}{spread}{beside}"
        rows.append(f"| {one['figure']} | {seen} | {one['target'] or '–'} | {holds} | {one['machine']['load'][0]} |")
    return "\n".join(rows)


def put_between(text: str, content: str, begin: str = BEGIN, end: str = END) -> str:
    """The text with what stands between the two marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the marks {begin} and {end} are not both there; put them where the table belongs")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def main() -> None:
    """``python -m scale.plot [LINES]``: ``docs/tenants.png`` and the table in ``docs/performance.md``."""
    lines = Path(sys.argv[1]) if len(sys.argv) > 1 else BENCH / "tenants.jsonl"
    figures = newest(lines.read_text(encoding="utf-8").splitlines())
    draw(figures, DOCS / "tenants.png")
    page = DOCS / "performance.md"
    page.write_text(put_between(page.read_text(encoding="utf-8"), table(figures)), encoding="utf-8")


if __name__ == "__main__":
    main()
