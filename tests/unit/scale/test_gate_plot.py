"""The page about the gate's errors is what the benchmark's figures say, and the benchmark's points are whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from scale import gate_electronics, gate_points, plot_gate
from scale.figures import Bench, Target
from scale.gate_tables import tables
from scale.plot import DOCS
from searchops_workers.holdout.calibration import tally

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_is_what_the_kept_figures_say() -> None:
    figures = json.loads(plot_gate.FIGURES.read_text(encoding="utf-8"))
    page = plot_gate.PAGE.read_text(encoding="utf-8")
    assert plot_gate.page_of(page, figures) == page


def test_the_kept_figures_keep_the_promises() -> None:
    figures = json.loads(plot_gate.FIGURES.read_text(encoding="utf-8"))
    assert len(figures["promises"]) >= 10
    holds = {one["figure"]: one["holds"] for one in figures["promises"]}
    doubtful = {name.partition(": ")[2] for name, seen in holds.items() if not seen}
    asked_again = {name.partition(": ")[2] for name, seen in holds.items() if name.startswith("gate, again: ") and seen}
    assert doubtful <= asked_again
    promised = [row for row in figures["rows"] if row.get("promise") and row["curve"] not in ("resampled", "again")]
    assert {point.figure for point in gate_points.POINTS if point.promise} == {
        f"gate, {row['curve']}: {row['label']} at {row['x']:g}" for row in promised
    }
    assert all(row["trials"] >= 2000 for row in promised)


def small_run(folder: Path) -> list[str]:
    """One line a curve, measured on a handful of candidates."""
    bench = Bench("gate", folder)
    firsts: dict[str, gate_points.Point] = {}
    for point in gate_points.POINTS:
        firsts.setdefault(point.curve, replace(point, truth=replace(point.truth, good=100)))
    firsts["queries2"] = replace(firsts["queries"], label="queries")
    firsts["gains"] = replace(firsts["loss"], curve="loss with gains")
    firsts["resampled"] = replace(firsts["loss"], curve="resampled")
    firsts["draws"] = replace(firsts["loss"], curve="draws", label="1000")
    for point in firsts.values():
        seen = tally(point.truth, 3)
        bench.record(point.figure, [seen.passed()], "P(Pass)", Target("<=", 0.05), **gate_points.details(point, seen))
    for label in ("with wear", "without wear"):
        shares = [0.0] * 10
        bench.record(f"gate, attempts: {label}", [0.0], "P", curve="attempts", label=label, shares=shares, trials=1)
    step: dict[str, Any] = {"change": "Model", "ndcgDelta": None, "ndcgInterval": None, "outcome": "Pass", "lost": 0}
    bench.record("gate, ladder: a", [1.0], "x", curve="ladder", label="a → b", of=3, wanted="Pass", **step)
    more: dict[str, Any] = {
        "good": 3,
        "gained": 1,
        "judgedShares": [0.5, 0.4],
        "pairsToLabel": 7,
        "reason": "TooFewQueries",
    }
    bench.record("gate, electronics: a", [3.0], "x", curve="electronics", label="a → b", **step, **more)
    return (folder / "gate.jsonl").read_text(encoding="utf-8").splitlines()


def test_every_table_and_picture_is_made_of_lines(tmp_path: Path) -> None:
    figures = plot_gate.kept(small_run(tmp_path), "2026-11-27")
    made = tables(figures)
    assert "| a → b | Model | 3 | 0 | 1 | – | 50.0% and 40.0% | 7 | Pass, TooFewQueries |" in made["electronics"]
    assert made["run"].startswith("Run on 2026-11-27 on ")
    assert all(table.count("\n") >= 2 for name, table in made.items() if name != "run")
    plot_gate.draw_errors(figures, tmp_path / "errors.png")
    plot_gate.draw_rules(figures, tmp_path / "rules.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "rules.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="run it first"):
        plot_gate.kept([], "2026-11-27")


def test_a_machine_without_the_rated_shop_says_so(tmp_path: Path) -> None:
    lines = small_run(tmp_path)
    figures = plot_gate.kept(lines, "2026-11-27")
    figures["rows"] = [row for row in figures["rows"] if row["curve"] != "electronics"]
    figures["rows"].append({"curve": "electronics", "label": "not here"})
    assert tables(figures)["electronics"].startswith("The rated shop was not at hand")


def test_the_rated_shop_is_outside_the_project() -> None:
    assert DOCS.parent not in gate_electronics.PLACE.parents
