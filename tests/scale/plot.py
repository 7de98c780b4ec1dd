"""Draws the tenants' figures: ``PYTHONPATH=tests python -m scale.plot``; reads the JSON lines, writes a PNG into docs.

On the left, each promised figure as a share of its target, so that one line in the middle says what holds; on the
right, the peer beside this operator. The last line of a figure counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from tests.scale.figures import BENCH
else:
    from scale.figures import BENCH

mpl.use("Agg")
from matplotlib import pyplot as plt

OUT: Final = Path(__file__).resolve().parents[2] / "docs" / "tenants.png"
KEPT, BROKEN, OTHER, INK = "#2a7f62", "#c0392b", "#7a8793", "#22303c"
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
        raise ValueError("no figure has a target: they are promised at 10,000 tenants; run the whole benchmark first")
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
        axes.barh(row, share, color=KEPT if one["holds"] else BROKEN, height=0.55)
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


def main() -> None:
    """``python -m scale.plot [LINES [PNG]]``."""
    lines = Path(sys.argv[1]) if len(sys.argv) > 1 else BENCH / "tenants.jsonl"
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else OUT
    draw(newest(lines.read_text(encoding="utf-8").splitlines()), out)
    print(out)


if __name__ == "__main__":
    main()
