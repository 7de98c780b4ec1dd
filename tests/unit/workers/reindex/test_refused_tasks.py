"""Tasks that no try can do: refused by name before anything is read or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.api.retrieval import BUILTIN_PROFILES, AnalyserSettings, Binding
from searchops.api.tasks import EXIT_BAD_TASK, SLICE_VARIABLE, CellAddress, ReindexTask
from searchops_workers.reindex.worker import run_reindex

if TYPE_CHECKING:
    import pytest


def test_an_analyser_version_that_is_not_known_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    target = Binding(profile=BUILTIN_PROFILES["default"], analyser=AnalyserSettings(version="3"))
    task = ReindexTask(
        tenant="shops/acme",
        strategy="BlueGreen",
        cell=CellAddress(url="http://127.0.0.1:1", grpc_port=None),
        source_collection="g1",
        target_collection="g2",
        target=target,
        slices=1,
        state="file:///nowhere",
        result_uri="file:///nowhere/results",
    )
    assert run_reindex(task, {SLICE_VARIABLE: "0"}) == EXIT_BAD_TASK
    assert "target.analyser version '3' is not known here, wanted one of 1, 2" in capsys.readouterr().out
