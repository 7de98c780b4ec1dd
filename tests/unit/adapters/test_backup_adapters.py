"""Jobs of backups read as what they are for, and the one token that may manage a cell."""

from __future__ import annotations

from typing import Any, cast

import jwt
import pytest

from searchops.adapters.kube_backup_jobs import SELECTOR, KubeBackupJobs
from searchops.adapters.tokens import CellKeySigner
from searchops.api.backup import BackupRun
from searchops.api.observed import CellRegistration
from searchops.runtime.errors import Terminal

KEY = "k" * 40


class Listing:
    """An API server that lists Jobs."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = items
        self.asked: list[tuple[str, str]] = []

    async def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        self.asked.append((path, label_selector))
        return list(self.items)


def job(name: str, kind: str, conditions: list[dict[str, str]], **notes: str) -> dict[str, Any]:
    annotations = {f"searchops.dev/{key.replace('_', '-')}": value for key, value in notes.items()}
    labels = {"searchops.dev/task": kind, "searchops.dev/owner-uid": "u"}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels, "annotations": annotations}
    return {"metadata": metadata, "status": {"conditions": conditions, "completionTime": "2026-11-24T03:20:00Z"}}


async def test_what_a_job_is_for_is_read_from_its_annotations() -> None:
    notes = {"owner_namespace": "shop", "owner_name": "acme", "cell": "eu-1", "backup": "20261124T030000Z"}
    failed = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    api = Listing(job("b", "backup", [], **notes, attempt="3"), job("p", "prove", failed, **notes, attempt="x"))
    jobs = KubeBackupJobs(cast("Any", api), "system", template=lambda _: None)
    shared = ("u", "shop", "acme", "eu-1", "20261124T030000Z")
    running = BackupRun("b", "backup", *shared, 3, ended_at="2026-11-24T03:20:00Z")
    ended = BackupRun("p", "prove", *shared, 1, False, "BackoffLimitExceeded", "2026-11-24T03:20:00Z")
    assert await jobs.runs() == (running, ended)
    assert (running.running, ended.running) == (True, False)
    assert api.asked == [("/apis/batch/v1/namespaces/system/jobs", SELECTOR)]


def cell(key: str = KEY) -> CellRegistration:
    return CellRegistration("eu-1", {}, ("https://eu-1:6333",), 6334, 100, api_key=key)


def test_a_token_that_manages_a_cell_says_so_and_ends() -> None:
    claims = {"access": "m", "exp": 4_000_000_000, "subject": "u/prove", "cell": "eu-1"}
    assert jwt.decode(CellKeySigner().sign_manage(cell(), claims), KEY, algorithms=["HS256"]) == claims


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 4_000_000_000},
        {"access": "m"},
        {"access": "r", "exp": 4_000_000_000},
        {"access": [{"collection": "c", "access": "rw"}], "exp": 4_000_000_000},
    ],
)
def test_no_other_token_is_signed_that_way(claims: dict[str, Any]) -> None:
    with pytest.raises(Terminal, match="has access m and an exp"):
        CellKeySigner().sign_manage(cell(), claims)


def test_a_weak_key_signs_nothing() -> None:
    with pytest.raises(Terminal, match="shorter than 32 bytes"):
        CellKeySigner().sign_manage(cell("short"), {"access": "m", "exp": 4_000_000_000})
