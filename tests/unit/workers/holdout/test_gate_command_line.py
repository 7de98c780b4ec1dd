"""The command lines, with the exit code of every outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.commands import gate_app, holdout_app
from searchops_workers.holdout.runs import Run, write_run
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

    from unit.workers.holdout.gate_samples import World

RUNNER = CliRunner()


def decide_arguments(world: World, tmp_path: Path, candidate: Run) -> list[str]:
    write_run(tmp_path / "a.run", world.perfect)
    write_run(tmp_path / "b.run", candidate)
    runs = ["--incumbent", str(tmp_path / "a.run"), "--candidate", str(tmp_path / "b.run")]
    return ["decide", "--holdout", str(world.directory), *runs, "--change", "model"]


@pytest.mark.parametrize(("lost", "code", "outcome"), [(0, 0, "Pass"), (12, 11, "Inconclusive"), (60, 10, "Regressed")])
def test_decide_exits_as_the_verdict_says(world: World, tmp_path: Path, lost: int, code: int, outcome: str) -> None:
    arguments = decide_arguments(world, tmp_path, world.losing([f"q{number}" for number in range(lost)]))
    result = RUNNER.invoke(gate_app, [*arguments, "--json"])
    assert result.exit_code == code
    answer = json.loads(result.stdout)
    assert answer["outcome"] == outcome
    assert answer["lost"] == lost
    assert answer["evidence"]["verdict"]["outcome"] == outcome


def test_decide_is_better_with_exit_zero(world: World, tmp_path: Path) -> None:
    arguments = decide_arguments(world, tmp_path, world.perfect)
    write_run(tmp_path / "a.run", world.losing([f"q{number}" for number in range(30)]))
    result = RUNNER.invoke(gate_app, arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("# Better: BetterOnTraffic")


def test_missing_results_are_invalid(world: World, tmp_path: Path) -> None:
    result = RUNNER.invoke(gate_app, [*decide_arguments(world, tmp_path, Run("none", {})), "--json"])
    assert result.exit_code == 12
    assert json.loads(result.stdout)["reason"] == "MissingResults"


def test_what_cannot_be_read_is_invalid_and_said(world: World, tmp_path: Path) -> None:
    arguments = decide_arguments(world, tmp_path, world.perfect)
    (tmp_path / "b.run").write_text("q0 Q0 p0-0 1\n")
    result = RUNNER.invoke(gate_app, [*arguments, "--json"])
    assert result.exit_code == 12
    assert json.loads(result.stdout)["outcome"] == "Invalid"
    assert "b.run:1: seen 4 fields" in result.stderr
    (tmp_path / "b.run").unlink()
    assert RUNNER.invoke(gate_app, arguments).exit_code == 12


def test_a_changed_holdout_is_invalid(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 5)
    arguments = decide_arguments(world, tmp_path, world.perfect)
    with (world.directory / "judgments.jsonl").open("a") as stream:
        stream.write("\n")
    result = RUNNER.invoke(gate_app, arguments)
    assert result.exit_code == 12
    assert "judgments.jsonl: seen sha256:" in result.stderr


def test_evidence_is_written_with_the_digest_that_is_printed(world: World, tmp_path: Path) -> None:
    arguments = [*decide_arguments(world, tmp_path, world.losing(["q1"])), "--evidence", str(tmp_path / "e"), "--json"]
    first = RUNNER.invoke(gate_app, arguments)
    content = (tmp_path / "e" / "evidence.json").read_bytes()
    assert json.loads(first.stdout)["evidenceDigest"] == bytes_digest(content)
    assert RUNNER.invoke(gate_app, arguments).stdout == first.stdout
    assert (tmp_path / "e" / "evidence.json").read_bytes() == content
    assert (tmp_path / "e" / "evidence.html").read_text().startswith("<!doctype html>")
    anchored = RUNNER.invoke(gate_app, [*arguments, "--anchored", str(tmp_path / "e" / "evidence.json")])
    gates = json.loads(anchored.stdout)["evidence"]["gates"]
    assert next(gate["state"] for gate in gates if gate["gate"] == "A'") == "Pass"


def test_verify_prints_what_it_is_or_each_problem(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 5)
    result = RUNNER.invoke(holdout_app, ["verify", str(world.directory)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["digest"] == world.holdout.digest
    (world.directory / "catalogue.ref").unlink()
    broken = RUNNER.invoke(holdout_app, ["verify", str(world.directory)])
    assert broken.exit_code == 1
    assert "catalogue.ref: seen no such file" in broken.stdout


def test_power_says_the_smallest_loss_that_can_be_shown(world: World, tmp_path: Path) -> None:
    result = RUNNER.invoke(holdout_app, ["power", str(world.directory), "--margin", "0.05"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["smallestLossShown"] == pytest.approx(1 - 0.05 ** (1 / 330), abs=1e-6)
    assert report["goodFamiliesAssumed"] is True
    write_run(tmp_path / "a.run", world.losing([f"q{number}" for number in range(100)]))
    counted = RUNNER.invoke(holdout_app, ["power", str(world.directory), "--incumbent", str(tmp_path / "a.run")])
    assert json.loads(counted.stdout)["goodFamilies"] == 230
    assert RUNNER.invoke(holdout_app, ["power", str(world.directory), "--margin", "2"]).exit_code == 12
