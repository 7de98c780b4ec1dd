"""What the commands say of input that cannot be used: one line with what was seen, wanted and to be done; exit 12."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from searchops_workers.holdout import runs
from searchops_workers.holdout.commands import gate_app, holdout_app
from searchops_workers.holdout.runs import Run, write_run
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

    from unit.workers.holdout.gate_samples import World

RUNNER = CliRunner()
GOOD = "q0 Q0 p0-0 1 2.0 hybrid\nq0 Q0 p0-1 2 1.0 hybrid\n"


def decide(world: World, folder: Path, *more: str, candidate: Path | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; the incumbent is the perfect run."""
    write_run(folder / "a.run", world.perfect)
    chosen = candidate if candidate is not None else folder / "b.run"
    arguments = ["decide", "--holdout", str(world.directory), "--incumbent", str(folder / "a.run")]
    result = RUNNER.invoke(gate_app, [*arguments, "--candidate", str(chosen), "--change", "model", *more])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD + GOOD.splitlines()[0] + "\n", "b.run:3: query 'q0': seen product 'p0-0' twice"),
        (GOOD.replace("2.0", "nan"), "b.run:1: seen score 'nan'; wanted a finite number; look for broken vectors"),
        (GOOD.replace("2.0", "inf"), "b.run:1: seen score 'inf'; wanted a finite number"),
        (GOOD.replace(" hybrid", ""), "b.run:1: seen 5 fields; wanted six, 'qid Q0 docid rank score tag'"),
        (GOOD.replace(" hybrid", " hybrid more"), "b.run:1: seen 7 fields; wanted six"),
        (GOOD.replace("1.0", "3.0"), "seen score 3.0 at rank 2, above 2.0 at rank 1; wanted scores that do not rise"),
        ('{"id": "q0"}\n', "b.run:1: seen 2 fields; wanted six"),
        (b"\xff\xfe\n", "b.run: seen bytes that are not UTF-8 (invalid start byte); wanted a TREC run"),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line_and_invalid(
    world: World, tmp_path: Path, content: str | bytes, said: str
) -> None:
    (tmp_path / "b.run").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = decide(world, tmp_path)
    assert (code, out) == (12, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_that_is_not_there_or_is_none_is_named_with_its_option(
    world: World, tmp_path: Path, as_json: bool
) -> None:
    more = ["--json"] if as_json else []
    code, out, err = decide(world, tmp_path, *more)
    wanted = f"--candidate {tmp_path}/b.run: seen 'no such file or directory'; wanted a TREC run file; check the path"
    assert (code, err) == (12, f"{wanted} and its rights\n")
    if as_json:
        assert json.loads(out) == {"outcome": "Invalid", "reason": "UnreadableInput", "message": err.strip()}
    _, _, err = decide(world, tmp_path, *more, candidate=tmp_path)
    assert err.startswith(f"--candidate {tmp_path}: seen 'is a directory'; wanted a TREC run file")
    _, _, err = decide(world, tmp_path, "--anchored", str(tmp_path / "none"), candidate=tmp_path / "a.run")
    assert err.startswith(f"--anchored {tmp_path}/none: seen 'no such file or directory'; wanted the evidence.json")
    code, _, err = decide(world, tmp_path, "--anchored", str(tmp_path / "a.run"), candidate=tmp_path / "a.run")
    assert (code, "anchored[0]: seen no evidence document" in err, err.count("\n")) == (12, True, 1)


def test_a_run_that_is_too_large_is_refused_before_it_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "b.run").open("wb") as sparse:
        sparse.truncate(runs.MAX_RUN_BYTES + 1)
    code, _, err = decide(world, tmp_path)
    assert code == 12
    assert f"b.run: seen more than {runs.MAX_RUN_BYTES} bytes; wanted the top results only; cut the run" in err
    monkeypatch.setattr(runs, "MAX_RUN_BYTES", (tmp_path / "a.run").stat().st_size)
    assert decide(world, tmp_path, candidate=tmp_path / "a.run")[0] == 0


@pytest.mark.parametrize(
    ("rename", "reason", "said"),
    [
        (lambda _: None, "MissingResults", "b.run: seen no result for 330 of 330 queries (q0, q1"),
        (lambda name: f"x-{name}", "MissingResults", "330 that the holdout does not have (x-q0, x-q1"),
        (lambda name: None if name == "q7" else name, "MissingResults", "seen no result for 1 of 330 queries (q7)"),
    ],
)
def test_an_empty_run_or_one_of_another_holdout_is_invalid_and_says_which(
    world: World, tmp_path: Path, rename: object, reason: str, said: str
) -> None:
    assert callable(rename)
    named = {rename(name): ranking for name, ranking in world.perfect.rankings.items()}
    write_run(tmp_path / "b.run", Run("b", {name: ranking for name, ranking in named.items() if name}))
    code, out, _ = decide(world, tmp_path, "--json")
    answer = json.loads(out)
    assert (code, answer["outcome"], answer["reason"]) == (12, "Invalid", reason)
    assert said in answer["message"]
    assert "\n" not in answer["message"]


def test_a_query_that_the_holdout_does_not_have_is_named(world: World, tmp_path: Path) -> None:
    rankings = {**world.perfect.rankings, "q-new": world.perfect.rankings["q0"]}
    write_run(tmp_path / "b.run", Run("b", rankings))
    code, out, _ = decide(world, tmp_path, "--json")
    answer = json.loads(out)
    assert (code, answer["reason"]) == (12, "UnknownQueries")
    assert (
        "b.run: seen results for 1 queries unknown to the holdout (q-new); wanted a run over this" in answer["message"]
    )


def test_evidence_that_cannot_be_written_is_no_verdict(world: World, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    arguments = ["--evidence", str(tmp_path / "taken")]
    write_run(tmp_path / "b.run", world.perfect)
    code, out, err = decide(world, tmp_path, *arguments)
    assert (code, out) == (12, "")
    assert err == (
        f"--evidence {tmp_path}/taken: seen 'file exists'; wanted a directory to write to; check the path and its "
        "rights\n"
    )


def test_a_word_that_is_no_kind_of_change_is_a_usage_error_that_ends_with_the_choices(
    world: World, tmp_path: Path
) -> None:
    code, _, err = decide(world, tmp_path, "--change", "other")
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert "'other' is not one of 'repackage', 'model', 'first'" in last


def test_a_directory_that_is_no_holdout_is_one_problem_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    wanted = f"{nowhere}: seen no directory; wanted a holdout directory; check the path, or fetch the holdout\n"
    verified = RUNNER.invoke(holdout_app, ["verify", str(nowhere)])
    assert (verified.exit_code, verified.stdout) == (1, wanted)
    power = RUNNER.invoke(holdout_app, ["power", str(nowhere)])
    assert (power.exit_code, power.stdout, power.stderr) == (12, "", wanted)


def test_several_problems_are_the_first_and_where_to_read_the_rest(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 3)
    (world.directory / "catalogue.ref").unlink()
    (world.directory / "notes.txt").write_text("mine")
    result = RUNNER.invoke(holdout_app, ["power", str(world.directory)])
    assert result.exit_code == 12
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{world.directory}: notes.txt: seen an entry that a holdout does not have")
    assert f"and 1 more: `searchops-worker holdout verify {world.directory}` lists them" in result.stderr


@pytest.mark.parametrize("margin", ["0", "1", "2", "nan", "-0.1"])
def test_a_margin_that_is_no_share_is_named(world: World, margin: str) -> None:
    result = RUNNER.invoke(holdout_app, ["power", str(world.directory), "--margin", margin])
    assert result.exit_code == 12
    assert result.stderr.startswith(f"--margin: seen {float(margin):g}; wanted a share between 0 and 1")


def test_power_counts_no_family_on_a_run_of_another_holdout(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty.run").write_text("")
    result = RUNNER.invoke(holdout_app, ["power", str(world.directory), "--incumbent", str(tmp_path / "empty.run")])
    assert (result.exit_code, result.stdout) == (12, "")
    assert result.stderr.startswith("empty.run: seen no result for 330 of 330 queries")
