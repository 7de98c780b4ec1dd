"""The generated pages: complete, in step with the code, and unable to hide a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from searchops.api.docgen import REASONS, UndocumentedReasonError, conditions_reference, crd_reference, settings_table
from searchops.settings import OperatorSettings

ROOT = Path(__file__).parents[3]


def meanings() -> dict[str, dict[str, str]]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "operator/searchops/api/reasons.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_committed_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_table_row_has_as_many_cells_as_its_header() -> None:
    for page in (crd_reference(), conditions_reference(meanings()), settings_table(OperatorSettings, "SEARCHOPS_")):
        width = 0
        for line in page.splitlines():
            cells = line.replace("\\|", "").count("|") if line.startswith("|") else 0
            assert not cells or not width or cells == width, line
            width = cells


def test_the_reference_names_fields_bounds_defaults_and_rules() -> None:
    page = crd_reference()
    assert "| `spec.fields[].role` | string | required | one of `Code`, `Title`, `Body`, `Filter` |" in page
    assert '| `spec.undeleteWindow` | string | `"72h"` |' in page
    assert "| `spec.rollout.waves[]` | a wave takes exactly one of selector and percent |" in page
    assert "short name `stn`" in page


@pytest.mark.parametrize("kind", sorted(REASONS))
def test_a_reason_without_a_meaning_is_refused(kind: str) -> None:
    known = meanings()
    del known[kind]["InvalidSpec"]
    with pytest.raises(UndocumentedReasonError, match=f"{kind}: InvalidSpec"):
        conditions_reference(known)
    known = meanings()
    known[kind]["Moonlight"] = "never"
    with pytest.raises(UndocumentedReasonError, match="Moonlight"):
        conditions_reference(known)


def test_the_settings_table_shows_variable_default_and_meaning() -> None:
    page = settings_table(OperatorSettings, "SEARCHOPS_")
    assert "| `SEARCHOPS_ARTIFACTS` | `str` | required | URI prefix" in page
    assert "| `SEARCHOPS_ALLOW_FILE_URIS` | `bool` | `false` |" in page
    for name in OperatorSettings.model_fields:
        assert f"`SEARCHOPS_{name.upper()}`" in page
