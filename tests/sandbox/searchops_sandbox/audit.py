"""What ServiceAccounts wrote to our kinds, by the API server's own audit log: spec belongs to people and to Git."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUP: Final = "searchops.dev"
OURS: Final = frozenset({"searchtenants", "embeddingmodels"})
"""Kinds that only people make. A ReindexJob is made by the operator too, whole, and never changed afterwards."""
POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Request",
            "userGroups": ["system:serviceaccounts"],
            "verbs": ["create", "update", "patch"],
            "resources": [{"group": GROUP}],
        },
        {"level": "None"},
    ],
}


def recorded(log: Path) -> Iterator[dict[str, Any]]:
    """Every write that succeeded; a line that is still being written is left for the next look."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else ():
        if line.endswith("\n"):
            event = json.loads(line)
            if 200 <= event.get("responseStatus", {}).get("code", 0) < 300:
                yield event


def spec_writes(log: Path) -> list[str]:
    """Writes that touch a field of spec, each as who did what to which object."""
    found = []
    for event in recorded(log):
        target = event["objectRef"]
        if target.get("subresource") == "status":
            continue  # the API server takes nothing but status there
        if _touches_spec(event["verb"], target["resource"], event.get("requestObject")):
            where = "/".join(part for part in (target.get("namespace"), target.get("name")) if part)
            found.append(f"{event['user']['username']}: {event['verb']} {target['resource']} {where}")
    return found


def _touches_spec(verb: str, resource: str, body: Any) -> bool:
    """A whole object that is put in the place of another counts: nobody sees which of its fields were meant."""
    if verb == "create":
        return resource in OURS
    if verb == "update" or body is None:
        return True
    if isinstance(body, list):
        return any(str(step.get(key, "")).startswith("/spec") for step in body for key in ("path", "from"))
    return "spec" in body
