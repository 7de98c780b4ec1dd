"""A holdout is whole and unchanged, or every problem is one line that says where and what to do."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from searchops_workers.digests import bytes_digest, directory_digest
from searchops_workers.holdout.format import HoldoutError, load, verify
from searchops_workers.holdout.records import Manifest, Rater
from unit.workers.holdout.gate_samples import judgment, make_world, query, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rewrite(directory: Path, name: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change a file's lines and its hash in the manifest, so that only the content is wrong."""
    lines = (directory / name).read_text().split("\n")[:-1]
    content = "".join(f"{line}\n" for line in change(lines)).encode()
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["sha256"][name] = bytes_digest(content)
    (directory / "manifest.json").write_text(json.dumps(manifest))


def edited(line: str, **changes: Any) -> str:
    return json.dumps({**json.loads(line), **changes})


def test_a_written_holdout_verifies_and_has_the_digest_of_its_directory(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 5)
    assert verify(world.directory) == ()
    files = sorted(path.name for path in world.directory.iterdir())
    lines = sorted(
        f"{name}\0{(world.directory / name).stat().st_size}\0"
        f"{hashlib.sha256((world.directory / name).read_bytes()).hexdigest()}\n".encode()
        for name in files
    )
    assert world.holdout.digest == directory_digest(world.directory) == bytes_digest(b"".join(lines))


def test_equal_arguments_write_equal_bytes(tmp_path: Path) -> None:
    one, other = make_world(tmp_path / "a", 4), make_world(tmp_path / "b", 4)
    assert one.holdout.digest == other.holdout.digest
    assert make_world(tmp_path / "c", 5).holdout.digest != one.holdout.digest


def test_a_holdout_is_never_overwritten(tmp_path: Path) -> None:
    make_world(tmp_path / "h", 2)
    with pytest.raises(FileExistsError, match="new version"):
        make_world(tmp_path / "h", 2)


def test_a_changed_file_is_named_with_both_hashes(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 3)
    path = world.directory / "judgments.jsonl"
    path.write_text(path.read_text().replace('"grade":3', '"grade":0', 1))
    (problem,) = verify(world.directory)
    assert str(problem).startswith("judgments.jsonl: seen sha256:")
    assert world.holdout.manifest.sha256["judgments.jsonl"] in problem.wanted
    with pytest.raises(HoldoutError, match=r"judgments\.jsonl"):
        load(world.directory)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("judgments.jsonl", lambda lines: [*lines, edited(lines[0], query_id="q99")], ":37: seen query_id 'q99'"),
        ("judgments.jsonl", lambda lines: [*lines, lines[0]], ":37: seen ('q0', 'p0-0'), also on line 1"),
        ("judgments.jsonl", lambda lines: [edited(lines[0], grade=4), *lines[1:]], ":1: seen grade 4; wanted a grade"),
        ("judgments.jsonl", lambda lines: ["{", *lines[1:]], ":1: seen no JSON"),
        (
            "judgments.jsonl",
            lambda lines: [lines[0][:-1] + ',"grade":1}', *lines[1:]],
            ":1: seen no JSON (the key 'grade' twice)",
        ),
        ("judgments.jsonl", lambda lines: [edited(lines[0], grade="3"), *lines[1:]], ':1: seen grade = "3"'),
        (
            "judgments.jsonl",
            lambda lines: [edited(lines[0], product_id="*"), *lines[1:]],
            "wanted method rule and grade 0",
        ),
        ("queries.jsonl", lambda lines: [*lines, lines[0]], ":4: seen id 'q0', also on line 1"),
        (
            "queries.jsonl",
            lambda lines: [*lines, edited(lines[0], id="q9", split="dev")],
            ":4: seen family 'f0' in split dev",
        ),
        ("queries.jsonl", lambda lines: [edited(lines[0], pined=True), *lines[1:]], ":1: seen pined = true"),
        ("queries.jsonl", lambda lines: [edited(lines[0], split="test"), *lines[1:]], ":1: seen split ="),
        ("queries.jsonl", lambda lines: [edited(lines[0], text=""), *lines[1:]], ":1: seen text ="),
        ("catalogue.ref", lambda lines: ["{}"], "catalogue.ref: seen uri = nothing"),
    ],
)
def test_each_problem_names_file_and_line(
    tmp_path: Path, name: str, change: Callable[[list[str]], list[str]], said: str
) -> None:
    world = make_world(tmp_path / "h", 3)
    rewrite(world.directory, name, change)
    lines = [str(problem) for problem in verify(world.directory)]
    assert any(said in line and line.startswith(name) for line in lines), lines
    assert all("; wanted " in line and "\n" not in line for line in lines)


def test_missing_and_foreign_files_are_problems(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 3)
    (world.directory / "catalogue.ref").unlink()
    (world.directory / "notes.txt").write_text("hello")
    said = "\n".join(str(problem) for problem in verify(world.directory))
    assert "catalogue.ref: seen no such file" in said
    assert "notes.txt: seen an entry that a holdout does not have" in said
    assert "seen no directory" in str(verify(tmp_path / "nowhere")[0])


@pytest.mark.parametrize("gains", [{"0": 0, "2": 1}, {"0": 1, "1": 2}, {"0": 0, "1": 5, "2": 1}, {"0": 0, "1": 1}])
def test_gains_rise_from_zero_and_reach_the_good_grade(tmp_path: Path, gains: dict[str, float]) -> None:
    world = make_world(tmp_path / "h", 1)
    with pytest.raises(ValidationError):
        Manifest.model_validate({**world.holdout.manifest.model_dump(), "gains": gains})


def test_a_rule_may_label_the_rest_of_the_catalogue_and_raters_may_dispute(tmp_path: Path) -> None:
    raters = [Rater(id="ann", grade=1), Rater(id="bob", grade=3)]
    rows = [judgment("q0", "a", 2, raters=raters), judgment("q0", "*", 0, method="rule"), judgment("q1", "b", 3)]
    save(tmp_path / "h", [query(0), query(1)], rows)
    holdout = load(tmp_path / "h")
    assert holdout.labels_of("q0").grade("never seen") == 0
    assert holdout.labels_of("q1").grade("never seen") is None
    assert holdout.labels_of("q0").disputed == {"a": (1, 3)}
    assert holdout.right_products("q0") == 1


def test_directory_digest_follows_file_links_and_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "sub" / "a").write_text("x")
    plain = directory_digest(tmp_path / "d")
    (tmp_path / "store").write_text("x")
    (tmp_path / "d" / "sub" / "a").unlink()
    (tmp_path / "d" / "sub" / "a").symlink_to(tmp_path / "store")
    assert directory_digest(tmp_path / "d") == plain
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    with pytest.raises(ValueError, match="link to a directory"):
        directory_digest(tmp_path / "d")
    with pytest.raises(NotADirectoryError):
        directory_digest(tmp_path / "store")
