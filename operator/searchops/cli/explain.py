"""Why an object is not ready, and what to do next, from its own conditions and the meaning of each reason."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

WARNINGS = frozenset({"NearQuota"})
"""Reasons of conditions that hold and that somebody has to act on before they do not."""


@cache
def meanings() -> dict[str, dict[str, str]]:
    """What each reason of each kind means and what to do: the text of the reference page."""
    found: dict[str, dict[str, str]] = yaml.safe_load(
        files("searchops.api").joinpath("reasons.yaml").read_text(encoding="utf-8")
    )
    return found


def condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of an object, or nothing."""
    found = [one for one in item.get("status", {}).get("conditions", []) if one["type"] == kind]
    return found[0] if found else {}


def reasons(item: dict[str, Any]) -> list[str]:
    """What does not hold or will soon not, Ready first; and whether the operator has seen this generation at all."""
    metadata, own = item["metadata"], item.get("status", {})
    lines = []
    if own.get("observedGeneration") != metadata.get("generation"):
        seen = own.get("observedGeneration", "none")
        lines.append(f"the operator has seen generation {seen}, the object is at {metadata.get('generation')}")
    for one in _failing(item):
        lines.append(f"{one['type']}={one['status']} {one['reason']}: {one.get('message', '')}")
    return lines or ["everything holds"]


def next_actions(item: dict[str, Any]) -> list[str]:
    """What to do about each of these conditions, once for each reason; and about deletions that wait."""
    known = meanings().get(item.get("kind", ""), {})
    lines = []
    for reason in dict.fromkeys(one["reason"] for one in _failing(item)):
        if reason in known:
            lines.append(f"{reason}: {known[reason]}")
    if item["metadata"].get("deletionTimestamp"):
        lines.append(
            "it is being deleted; if its cell is gone for good, the annotation searchops.dev/abandon=true lets it go "
            "and leaves whatever is on the cell"
        )
    return lines


def _failing(item: dict[str, Any]) -> list[dict[str, Any]]:
    conditions = item.get("status", {}).get("conditions", [])
    failing = [one for one in conditions if one["status"] != "True" or one["reason"] in WARNINGS]
    return sorted(failing, key=lambda one: (one["type"] != "Ready", one["type"]))
