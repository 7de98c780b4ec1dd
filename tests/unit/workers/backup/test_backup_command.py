"""The Job's entry: its answer first in the store, why it stopped as termination message, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
import pytest
from typer.testing import CliRunner

from searchops.api.tasks import (
    ANSWER,
    EXIT_NOT_OURS,
    EXIT_OK,
    EXIT_RETRY,
    TASK_VARIABLE,
    TERMINATION_VARIABLE,
    BackupResult,
)
from searchops_workers.backup import commands
from searchops_workers.cli import app
from unit.workers.backup import fakes_cell as fake

if TYPE_CHECKING:
    from pathlib import Path

    from searchops.api.tasks import BackupTask, ProveTask


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> fake.FakeCell:
    """The cell behind every address."""
    made = fake.FakeCell.with_tenant()
    monkeypatch.setattr(commands, "open_nodes", lambda *_: made.nodes())
    return made


def run(task: BackupTask | ProveTask, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[int, BackupResult]:
    """Exit code and termination message of the worker's own command."""
    message = folder / "termination-log"
    message.unlink(missing_ok=True)
    monkeypatch.setenv(TERMINATION_VARIABLE, str(message))
    monkeypatch.setenv(TASK_VARIABLE, task.model_dump_json(by_alias=True))
    done = CliRunner().invoke(app, ["run"])
    answer = ANSWER.validate_json(message.read_text())
    assert isinstance(answer, BackupResult)
    return done.exit_code, answer


def test_a_backup_and_its_proof_answer(
    cell: fake.FakeCell, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task, proof = fake.backup_task(prefix), fake.prove_task(prefix)
    code, answer = run(task, monkeypatch, tmp_path)
    assert (code, answer.kind, answer.ok, answer.points) == (EXIT_OK, "backup", True, 5)
    system, path = fsspec.core.url_to_fs(task.result_uri)
    assert ANSWER.validate_json(system.cat_file(path)) == answer
    cell.loses = 1
    code, answer = run(proof, monkeypatch, tmp_path)
    assert (code, answer.kind, answer.ok) == (EXIT_OK, "prove", False), "a verdict is an answer, not a failure"
    assert "4 points came back, wanted 5" in answer.message


def test_why_it_stopped_is_the_termination_message(
    cell: fake.FakeCell, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = fake.backup_task(prefix)
    cell.down = {0}
    code, answer = run(task, monkeypatch, tmp_path)
    assert (code, answer.ok, answer.exit_code) == (EXIT_RETRY, False, EXIT_RETRY)
    assert "gave no answer" in answer.message
    cell.down = set()
    cell.collections[fake.COLLECTION].metadata["searchops.dev/fleet"] = "dev"
    code, answer = run(task, monkeypatch, tmp_path)
    assert (code, answer.exit_code) == (EXIT_NOT_OURS, EXIT_NOT_OURS)
    assert "nothing was taken" in answer.message
    code, answer = run(fake.backup_task("ftp://nowhere/x"), monkeypatch, tmp_path)
    assert code == EXIT_RETRY
    assert "wanted a URI that begins with s3://" in answer.message
