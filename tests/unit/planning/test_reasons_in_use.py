"""A reason that is documented is one that somebody can meet: each is used where conditions and events are made."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.reindex_job import ReindexReason
from searchops.api.v1alpha1.search_tenant import TenantReason

if TYPE_CHECKING:
    from enum import StrEnum

SOURCE = Path(__file__).parents[3] / "operator" / "searchops"
ROOMS = ("planning", "controllers", "adapters")
TERMINAL = ("Terminal", "NotReady")


def used_in(text: str) -> set[str]:
    """Members as ``Enum.NAME``, and the words that errors are raised with."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TERMINAL and node.args:
            words = [one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)]
            found |= {str(word) for word in words}
    return found


@pytest.mark.parametrize("reasons", [TenantReason, ModelReason, ReindexReason])
def test_every_reason_is_used(reasons: type[StrEnum]) -> None:
    files = [path for room in ROOMS for path in sorted((SOURCE / room).glob("*.py"))]
    used = set().union(*(used_in(path.read_text(encoding="utf-8")) for path in files))
    unused = [item for item in reasons if f"{reasons.__name__}.{item.name}" not in used and str(item) not in used]
    assert unused == []


def test_only_what_is_said_counts_as_used() -> None:
    text = 'raise Terminal("InvalidSpec", "x")\nphase = "Verifying"\nno("Ready", ModelReason.LOADED, "m")'
    assert used_in(text) == {"InvalidSpec", "ModelReason.LOADED"}
