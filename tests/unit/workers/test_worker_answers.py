"""An answer is written whole before anything is said of it, and one that is too long is said nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from searchops.api.tasks import ANSWER, TERMINATION_LIMIT, TERMINATION_VARIABLE, EvaluateResult
from searchops_workers.answers import answer
from searchops_workers.engines.stages import BuildError

if TYPE_CHECKING:
    from pathlib import Path


def result(message: str) -> EvaluateResult:
    return EvaluateResult(revision="shop-r2-bbbbbbbb", outcome="Inconclusive", reason="TooFewQueries", message=message)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv(TERMINATION_VARIABLE, str(path))
    return path


def overhead() -> int:
    return len(result("").model_dump_json(by_alias=True, exclude_none=True).encode())


@pytest.mark.parametrize("room", [0, 1])
def test_an_answer_that_fits_is_in_both_places(tmp_path: Path, log: Path, room: int) -> None:
    given = result("x" * (TERMINATION_LIMIT - overhead() - room))
    answer(given, f"file://{tmp_path}/result.json")
    assert log.read_bytes() == (tmp_path / "result.json").read_bytes()
    assert len(log.read_bytes()) == TERMINATION_LIMIT - room
    assert ANSWER.validate_json(log.read_bytes()) == given


@pytest.mark.parametrize("message", ["x" * TERMINATION_LIMIT, "ä" * (TERMINATION_LIMIT // 2)])
def test_an_answer_of_more_than_4_kib_is_whole_in_the_store_and_never_cut(
    tmp_path: Path, log: Path, message: str
) -> None:
    given = result(message)
    answer(given, f"file://{tmp_path}/result.json")
    assert ANSWER.validate_json((tmp_path / "result.json").read_bytes()) == given
    assert not log.exists(), "half an answer could be read as another one"


def test_an_answer_that_cannot_be_stored_is_not_said(tmp_path: Path, log: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BuildError, match="cannot be written"):
        answer(result("x"), f"file://{tmp_path}/file/result.json")
    assert not log.exists()
