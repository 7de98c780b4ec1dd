"""The command `searchops-sandbox` where nothing runs, where a state file is stale, and where it is no state file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from typer.testing import CliRunner

from searchops_sandbox.cli import alive, app, read_state
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path


def state(**changes: Any) -> dict[str, Any]:
    own = psutil.Process()
    return {
        "pid": own.pid,
        "started": own.create_time(),
        "folder": "/nowhere",
        "kubeconfig": "/nowhere/admin.kubeconfig",
        "artifacts": "file:///nowhere/artifacts",
        "parts": {"etcd": own.pid},
        "cells": {"eu-1": {"url": "http://127.0.0.1:1", "grpcPort": 2, "double": True}},
        "pools": {"default": {"urls": ["http://127.0.0.1:3"], "repository": "/nowhere/repository"}},
        **changes,
    }


def invoke(path: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--state", str(path)])


def test_nothing_runs(tmp_path: Path) -> None:
    shown = invoke(tmp_path / "state.json", "status")
    assert shown.exit_code == 1
    assert "nothing runs" in shown.stderr
    assert invoke(tmp_path / "state.json", "down").exit_code == 0


def test_status_shows_addresses_and_export_lines(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state()))
    shown = invoke(path, "status")
    assert shown.exit_code == 0
    assert "cell eu-1: http://127.0.0.1:1 gRPC 2 (double)" in shown.stdout
    assert "export KUBECONFIG=/nowhere/admin.kubeconfig" in shown.stdout


def test_a_part_that_died_fails_the_status(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state(parts={"etcd": 2**22 + 1})))
    shown = invoke(path, "status")
    assert shown.exit_code == 1
    assert "died" in shown.stdout


def test_a_second_start_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state()))
    refused = invoke(path, "up")
    assert refused.exit_code == 1
    assert f"already runs as process {os.getpid()}" in refused.stderr


def test_a_process_id_that_came_round_again_is_not_stopped(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    stale = state(started=1.0)
    path.write_text(json.dumps(stale))
    assert not alive(stale)
    assert invoke(path, "down").exit_code == 0
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 1}', "not json"])
def test_another_file_is_no_state_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(SandboxError, match="is no state file of a sandbox"):
        read_state(path)
