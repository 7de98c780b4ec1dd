"""What the fault tables have run is counted from their reports: rows that passed, and no kind without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops_sandbox.fault_table import ROWS, counted, main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CASES = """<testsuites><testsuite>
<testcase classname="tests.unit.test_faults" name="one"/>
<testcase classname="tests.unit.test_faults" name="two"><failure/></testcase>
<testcase classname="tests.unit.test_faults" name="three"><skipped/></testcase>
<testcase classname="tests.e2e.test_deletion_faults" name="four"/>
</testsuite></testsuites>"""


def test_rows_that_passed_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fault-table-units.xml").write_text(CASES)
    (tmp_path / ROWS).write_text("{}\n{}\n{}\n")
    assert counted(tmp_path) == {"units": 1, "deletions": 3}
    assert main(tmp_path) == 0
    assert capsys.readouterr().out == "4 rows of fault tables passed: units 1, deletions 3\n"


def test_a_kind_without_a_row_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "fault-table-units.xml").write_text(CASES)
    assert main(tmp_path) == 1
