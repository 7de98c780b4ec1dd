"""What `searchops status` and `searchops orphans` make of the operator's report."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from searchops.cli.cells import cell_rows, cell_table, orphan_lines
from searchops.planning.names import CELL_ANNOTATION

REPORT: dict[str, dict[str, Any]] = {
    "eu-1": {"answers": True, "version": "1.18.3", "collections": 3, "usable": 800, "orphans": ["prod.x.y@g1"]}
    | {"mapsPercent": 71, "filesPercent": 23},
    "eu-2": {"answers": False, "usable": 800, "draining": True},
}


def tenant(cell: str | None, ready: str) -> dict[str, Any]:
    annotations = {} if cell is None else {CELL_ANNOTATION: cell}
    return {
        "metadata": {"annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_tenants_are_counted_by_the_cell_that_their_annotation_names() -> None:
    rows = cell_rows(
        REPORT, [tenant("eu-1", "True"), tenant("eu-1", "False"), tenant(None, "True"), tenant("x", "True")]
    )
    assert [(cell, row["ready"], row["tenants"]) for cell, row in rows.items()] == [
        ("eu-1", 1, 2),
        ("eu-2", 0, 0),
        ("x", 1, 1),
    ]


def test_a_cell_that_nobody_read_is_a_dash_and_one_that_is_drained_says_so() -> None:
    console = Console(width=200, record=True)
    console.print(cell_table(cell_rows(REPORT, [tenant("x", "True")])))
    lines = {line.split()[1]: line for line in console.export_text().splitlines() if line.startswith("│")}
    assert " ".join(lines["eu-1"].replace("│", " ").split()) == "eu-1 yes 1.18.3 3 800 71 % 23 % 0/0 1"
    assert "drained" in lines["eu-2"]
    assert lines["eu-2"].split()[3] == "no"
    assert lines["x"].split()[3] == "-"


def test_an_orphan_is_a_line_with_its_cell() -> None:
    assert orphan_lines(REPORT) == ["eu-1 prod.x.y@g1"]
