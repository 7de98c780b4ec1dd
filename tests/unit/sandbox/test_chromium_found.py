"""Which browser the tests take, and what a person is told where there is none."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from searchops_sandbox.chromium import ensure_chromium, launch_flags
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one empty folder, and no browser named."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SEARCHOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEARCHOPS_CHROMIUM", raising=False)
    return folder


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.touch(mode=0o755)
    return path


def test_the_named_browser_wins_then_the_first_on_the_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chrome = program(bare, "google-chrome")
    assert ensure_chromium() == chrome
    debian = program(bare, "chromium")
    assert ensure_chromium() == debian
    monkeypatch.setenv("SEARCHOPS_CHROMIUM", str(chrome))
    assert ensure_chromium() == chrome


def test_a_named_browser_that_cannot_be_run_is_not_replaced_by_another(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare, "chromium")
    for wrong in (bare / "missing", bare):
        monkeypatch.setenv("SEARCHOPS_CHROMIUM", str(wrong))
        with pytest.raises(SandboxError, match="SEARCHOPS_CHROMIUM: seen"):
            ensure_chromium()


def test_who_cannot_install_is_told_what_to_install(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match="apt-get install chromium"):
        ensure_chromium()
    program(bare, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="no chromium, google-chrome, chrome on PATH"):
        ensure_chromium()
    assert "--no-sandbox" not in launch_flags()


def test_root_installs_the_package_of_the_distribution(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(argv[1:])
        if argv[1] == "install":
            program(bare, "chromium")
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert ensure_chromium() == bare / "chromium"
    assert [argv[0] for argv in asked] == ["update", "install"]
    assert "chromium" in asked[1]
    assert "--no-sandbox" in launch_flags()


def test_a_failed_installation_is_an_error_with_its_output(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda argv, **_: subprocess.CompletedProcess(argv, 100, "", "E: Unable to locate package"),
    )
    with pytest.raises(SandboxError, match="Unable to locate package"):
        ensure_chromium()
