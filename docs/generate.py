"""Writes the reference pages; with --check it writes nothing and exits 1 where a page is stale."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from searchops.api.crdgen import differences, write_files
from searchops.api.docgen import NOTICE, conditions_reference, crd_reference, settings_table
from searchops.settings import OperatorSettings
from searchops_workers.gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[1]
PAGES = "docs"


def pages(root: Path) -> dict[str, str]:
    """Path and content of every generated page."""
    meanings = yaml.safe_load((root / "operator/searchops/api/reasons.yaml").read_text(encoding="utf-8"))
    settings = [
        NOTICE,
        "# Settings\n",
        "Environment variables. The charts set them from `values.yaml`; lists and maps are JSON.\n",
        "## Operator\n",
        settings_table(OperatorSettings, "SEARCHOPS_"),
        "## Gateway\n",
        settings_table(GatewaySettings, "SEARCHOPS_GATEWAY_"),
    ]
    return {
        "docs/crds.md": crd_reference(),
        "docs/conditions.md": conditions_reference(meanings),
        "docs/settings.md": "\n".join(settings),
    }


def main(arguments: list[str]) -> int:
    """Write or check the pages; 0 where nothing is stale."""
    wanted = pages(ROOT)
    if "--check" not in arguments:
        write_files(ROOT, wanted)
        return 0
    stale = differences(ROOT, wanted, ())
    if stale:
        print("\n".join(stale))
        print("stale: run `python docs/generate.py` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
