"""Counts the rows that the fault tables have run, from the reports of their tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROWS: Final = "fault-table.jsonl"
REPORTS: Final = "fault-table-*.xml"

#: These tests play a row a policy each and write them to `ROWS`.
PLAYED_AT_ONCE: Final = "test_deletion_faults"


def counted(folder: Path) -> dict[str, int]:
    """Rows by the report they come from; a test of a table is a row, and a skipped or failed one is none.

    Args:
        folder: with one JUnit report a kind of test, and the rows that were played at once.
    """
    rows: dict[str, int] = {}
    for report in sorted(folder.glob(REPORTS)):
        cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - written by pytest
        kind = report.stem.removeprefix("fault-table-")
        rows[kind] = sum(PLAYED_AT_ONCE not in case.get("classname", "") and _passed(case) for case in cases)
    table = folder / ROWS
    rows["deletions"] = len(table.read_text().splitlines()) if table.exists() else 0
    return rows


def _passed(case: ElementTree.Element) -> bool:
    return not any(case.find(end) is not None for end in ("skipped", "failure", "error"))


def main(folder: Path) -> int:
    """Print the sum; 1 where a kind of table has run no row."""
    rows = counted(folder)
    parts = ", ".join(f"{kind} {count}" for kind, count in rows.items())
    sys.stdout.write(f"{sum(rows.values())} rows of fault tables passed: {parts}\n")
    return int(not all(rows.values()))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
