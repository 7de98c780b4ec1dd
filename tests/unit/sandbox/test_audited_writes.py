"""Writes to spec are found in an audit log, whatever form they have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from searchops_sandbox.audit import spec_writes

if TYPE_CHECKING:
    from pathlib import Path

USER = "system:serviceaccount:searchops-system:searchops"


def event(verb: str, resource: str, body: Any, *, subresource: str | None = None, code: int = 200) -> dict[str, Any]:
    target = {"resource": resource, "namespace": "shop", "name": "acme", "apiGroup": "searchops.dev"}
    if subresource is not None:
        target["subresource"] = subresource
    return {
        "verb": verb,
        "user": {"username": USER},
        "objectRef": target,
        "responseStatus": {"code": code},
        "requestObject": body,
    }


def found(tmp_path: Path, *events: dict[str, Any], more: str = "") -> list[str]:
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{json.dumps(one)}\n" for one in events) + more)
    return spec_writes(log)


@pytest.mark.parametrize(
    ("verb", "resource", "body"),
    [
        ("patch", "searchtenants", {"spec": {"paused": True}}),
        ("patch", "embeddingmodels", {"metadata": {}, "spec": None}),
        ("patch", "reindexjobs", {"spec": {"tenant": "other"}}),
        ("patch", "searchtenants", [{"op": "replace", "path": "/spec/paused", "value": True}]),
        ("patch", "searchtenants", [{"op": "move", "from": "/spec/model", "path": "/metadata/labels/x"}]),
        ("patch", "searchtenants", None),
        ("update", "searchtenants", {"metadata": {}, "spec": {}}),
        ("create", "searchtenants", {"spec": {}}),
        ("create", "embeddingmodels", {"spec": {}}),
    ],
)
def test_a_write_to_spec_is_named(tmp_path: Path, verb: str, resource: str, body: Any) -> None:
    assert found(tmp_path, event(verb, resource, body)) == [f"{USER}: {verb} {resource} shop/acme"]


@pytest.mark.parametrize(
    "one",
    [
        event("patch", "searchtenants", {"metadata": {"finalizers": []}}),
        event("patch", "searchtenants", [{"op": "add", "path": "/metadata/annotations/x", "value": "y"}]),
        event("patch", "searchtenants", {"status": {}, "spec": {}}, subresource="status"),
        event("update", "embeddingmodels", {"spec": {}, "status": {}}, subresource="status"),
        event("create", "reindexjobs", {"spec": {"tenant": "acme"}}),
        event("patch", "searchtenants", {"spec": {"paused": True}}, code=403),
    ],
)
def test_what_touches_no_spec_or_was_refused_is_not(tmp_path: Path, one: dict[str, Any]) -> None:
    assert found(tmp_path, one) == []


def test_a_line_that_is_still_written_waits_and_no_log_is_no_write(tmp_path: Path) -> None:
    assert found(tmp_path, more='{"verb": "patch", "us') == []
    assert spec_writes(tmp_path / "nowhere.log") == []
