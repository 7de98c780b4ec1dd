"""`searchops-worker`: the lines that others build on, and what it says where it cannot go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from searchops.api.tasks import EXIT_BAD_TASK, TASK_VARIABLE
from searchops_workers.cli import app
from searchops_workers.holdout.runs import read_run
from unit.workers.holdout import gate_samples

if TYPE_CHECKING:
    from pathlib import Path

RUNNER = CliRunner()
GRADES = {"hex nut": "nut", "white shirt": "shirt", "winter jacket": "jacket", "TN-2110": "code"}


def test_analyse_prints_one_line_of_json() -> None:
    result = RUNNER.invoke(app, ["analyse", "M 12x50 A2-70", "--lang", "en"])
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout)
    assert list(document) == ["text", "language", "tokens"]
    assert (document["text"], document["language"]) == ("M 12x50 A2-70", "en")
    assert list(document["tokens"][0]) == ["token", "source", "specification"]
    assert [token["token"] for token in document["tokens"]] == ["m12x50", "m12", "50", "a2-70", "a270", "a2", "70"]


def test_analyse_names_the_languages_that_there_are() -> None:
    result = RUNNER.invoke(app, ["analyse", "nut", "--lang", "klingon"])
    assert result.exit_code == 2
    assert "'klingon'" in result.stderr
    assert "en, de, fr, es, it, nl, sv, fi" in result.stderr


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (None, "no task"),
        ("not json", "Invalid JSON"),
        ("{}", "kind"),
        ('{"kind": "cook"}', "cook"),
        ('{"kind": "reindex", "tenant": "a", "strategy": "Both"}', "reindex.strategy"),
    ],
)
def test_run_refuses_what_is_no_task(monkeypatch: pytest.MonkeyPatch, task: str | None, said: str) -> None:
    monkeypatch.delenv(TASK_VARIABLE, raising=False)
    if task is not None:
        monkeypatch.setenv(TASK_VARIABLE, task)
    result = RUNNER.invoke(app, ["run"])
    assert result.exit_code == EXIT_BAD_TASK
    assert result.stderr.startswith("SEARCHOPS_TASK is no task (")
    assert said in result.stderr
    assert "wanted the JSON that the operator gives" in result.stderr


def catalogue(folder: Path) -> tuple[Path, Path]:
    products = [
        {"id": "nut", "title": "Hex nut M12"},
        {"id": "shirt", "title": "White shirt"},
        {"id": "jacket", "title": "Winter jacket"},
        {"id": "code", "title": "Toner TN-2110", "sku": "TN-2110"},
    ]
    lines, queries = folder / "products.jsonl", folder / "queries.jsonl"
    lines.write_text("".join(json.dumps(product) + "\n" for product in products))
    wanted = [{"id": f"q{number}", "text": text} for number, text in enumerate(GRADES)]
    queries.write_text("".join(json.dumps(query) + "\n" for query in wanted))
    return lines, queries


def retrieve(folder: Path, out: Path, *extra: str) -> tuple[int, str]:
    lines, queries = catalogue(folder)
    arguments = ["--catalogue", str(lines), "--queries", str(queries), "--out", str(out), *extra]
    result = RUNNER.invoke(app, ["retrieve", *arguments])
    return result.exit_code, result.output


def test_retrieve_writes_a_trec_run(tmp_path: Path) -> None:
    out = tmp_path / "a.run"
    code, said = retrieve(tmp_path, out, "--profile", "default")
    rows = [line.split(" ") for line in out.read_text().splitlines()]
    assert (code, said) == (0, f"{len(rows)} rows in {out}\n")
    assert all(len(row) == 6 and row[1] == "Q0" and float(row[4]) > 0 for row in rows)
    firsts = {row[0]: row[2] for row in rows if row[3] == "1"}
    assert firsts == {f"q{number}": wanted for number, wanted in enumerate(GRADES.values())}
    again = tmp_path / "b.run"
    retrieve(tmp_path, again, "--profile", "default")
    assert again.read_bytes() == out.read_bytes(), "a run is the same on every machine and in every run"


def test_retrieve_says_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    out = tmp_path / "a.run"
    code, said = retrieve(tmp_path, out, "--profile", "none-such")
    assert (code, "profile 'none-such' is not built in; wanted one of default, plain" in said) == (2, True)
    folder = tmp_path / "empty"
    folder.mkdir()
    code, said = retrieve(tmp_path, out, "--encoder", str(folder))
    assert (code, "neither model.onnx nor modules.json is there" in said) == (2, True)
    (tmp_path / "products.jsonl").write_text("{}\n")
    lines, queries = tmp_path / "products.jsonl", tmp_path / "queries.jsonl"
    arguments = ["--catalogue", str(lines), "--queries", str(queries), "--out", str(out)]
    result = RUNNER.invoke(app, ["retrieve", *arguments])
    assert (result.exit_code, f"{lines}:1: id is None" in result.stderr) == (2, True)
    assert not out.exists(), "a run that is not whole is not written"


def test_a_query_that_finds_nothing_is_said_and_not_left_out(tmp_path: Path) -> None:
    lines, queries = catalogue(tmp_path)
    queries.write_text('{"id": "nothing", "text": "zzqqxxww"}\n{"id": 7, "text": "hex nut"}\n')
    out = tmp_path / "a.run"
    result = RUNNER.invoke(app, ["retrieve", "--catalogue", str(lines), "--queries", str(queries), "--out", str(out)])
    rows = out.read_text().splitlines()
    assert (result.exit_code, rows[0].split(" ")[:4]) == (0, ["nothing", "Q0", "-", "0"])
    assert rows[1].startswith("7 Q0 nut 1 ")
    read = read_run(out)
    assert (read.rankings["nothing"].products, read.rankings["7"].products[0]) == ((), "nut")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "queries.jsonl: seen no query; wanted objects with id and text, one a line"),
        (b'{"id": "a"}\n', 'queries.jsonl:1: seen \'{"id": "a"}\' (KeyError); wanted an object with id and text'),
        (b"\xff\n", "queries.jsonl:1: seen '\ufffd' (UnicodeDecodeError); wanted an object with id and text"),
        (b'{"id": "a b", "text": "x"}\n', "queries.jsonl:1: seen id 'a b'"),
        (b'{"id": "a", "text": null}\n', "queries.jsonl:1: seen id 'a' and text 'None'; wanted two texts"),
        (b'{"id": "a", "text": "x"}\n\n{"id": "a", "text": "y"}\n', "queries.jsonl:3: seen id 'a' again"),
    ],
)
def test_retrieve_names_the_line_of_a_query_that_it_cannot_use(tmp_path: Path, content: bytes, said: str) -> None:
    lines, queries = catalogue(tmp_path)
    queries.write_bytes(content)
    out = tmp_path / "a.run"
    result = RUNNER.invoke(app, ["retrieve", "--catalogue", str(lines), "--queries", str(queries), "--out", str(out)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_retrieve_refuses_an_empty_catalogue_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    lines, queries = catalogue(tmp_path)
    arguments = ["retrieve", "--catalogue", str(lines), "--queries", str(queries), "--out"]
    result = RUNNER.invoke(app, [*arguments, str(tmp_path / "none" / "a.run")])
    assert (result.exit_code, "seen no directory" in result.stderr, result.stderr.count("\n")) == (2, True, 1)
    lines.write_text("\n")
    result = RUNNER.invoke(app, [*arguments, str(tmp_path / "a.run")])
    assert (result.exit_code, "products.jsonl: seen no product" in result.stderr) == (2, True)
    result = RUNNER.invoke(app, ["retrieve", "--catalogue", str(tmp_path / "no"), "--queries", "x", "--out", "y"])
    assert result.exit_code == 2
    assert "does not exist" in result.stderr.strip().splitlines()[-1]


def test_a_run_of_retrieve_is_accepted_by_the_gate(tmp_path: Path) -> None:
    """The same run on both arms of a holdout of its own: nothing is lost, and the gate reads every line."""
    runs = tmp_path / "a.run"
    code, _ = retrieve(tmp_path, runs)
    assert code == 0
    queries = [gate_samples.query(number, text=text) for number, text in enumerate(GRADES)]
    labels = [gate_samples.judgment(f"q{number}", product, 3) for number, product in enumerate(GRADES.values())]
    holdout = tmp_path / "holdout"
    gate_samples.save(holdout, queries, labels)
    arguments = ["--incumbent", str(runs), "--candidate", str(runs), "--change", "repackage", "--json"]
    result = RUNNER.invoke(app, ["gate", "decide", "--holdout", str(holdout), *arguments])
    answer = json.loads(result.stdout)
    assert answer["outcome"] in {"Inconclusive", "Pass"}, answer
    assert answer["lost"] == 0
    assert answer["of"] > 0, "the hits were counted as Good before the change"
