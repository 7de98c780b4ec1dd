"""The Job that tries a tenant's own pinned queries, with lexical sides, which need no server."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from searchops.api.meta import ArtifactReference
from searchops.api.retrieval import BUILTIN_PROFILES, Binding, FieldRoles
from searchops.api.tasks import EXIT_OK, EXIT_RETRY, TASK, TASK_VARIABLE, PinnedResult, PinnedTask
from searchops_workers.cli import app
from searchops_workers.digests import bytes_digest, directory_digest
from searchops_workers.holdout import pinned
from searchops_workers.holdout.format import write_holdout
from searchops_workers.holdout.inputs import VectorReport
from searchops_workers.holdout.pinned import decide_pinned, run_pinned
from searchops_workers.holdout.records import CatalogueRef, Split
from searchops_workers.holdout.verdicts import Outcome, Reason
from unit.workers.holdout.gate_samples import CREATED, GAINS, judgment, make_world, query

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.holdout.records import QueryRow
    from unit.workers.holdout.gate_samples import World

PRODUCTS = (
    {"id": "nut", "title": "Hex nut M12", "note": "blue"},
    {"id": "shirt", "title": "White shirt", "note": "cotton"},
    {"id": "bolt", "title": "Anchor bolt", "note": "white shirt hex nut"},
)


def by(field: str) -> Binding:
    """The lexical binding that searches one field."""
    return Binding(profile=BUILTIN_PROFILES["plain"], fields=FieldRoles(title=(field,)), document=f"{{{field}}}")


class Trial:
    """A set under ``holdouts/shop``, tried with the incumbent by title."""

    def __init__(self, folder: Path, catalogue: str = "../catalogue.jsonl") -> None:
        self.folder = folder
        self.prefix = f"file://{folder}/holdouts/shop/"
        self.content = content = b"".join(json.dumps(product).encode() + b"\n" for product in PRODUCTS)
        for place in (folder / "holdouts" / "shop", folder / "holdouts" / "rival"):
            place.mkdir(parents=True)
            (place / "catalogue.jsonl").write_bytes(content)
        self.directory = folder / "holdouts" / "shop" / "1.0.0"
        write_holdout(
            self.directory,
            name="acme-pinned",
            version="1.0.0",
            gains=GAINS,
            licence="MIT",
            created=CREATED,
            queries=[query(0, text="hex nut"), query(1, text="white shirt", weight=5.0)],
            judgments=[
                judgment(f"q{number}", str(product["id"]), 3 if product["id"] == right else 0)
                for number, right in enumerate(("nut", "shirt"))
                for product in PRODUCTS
            ],
            catalogue=CatalogueRef(uri=catalogue, sha256=bytes_digest(content)),
        )
        self.digest = directory_digest(self.directory)

    def run(self, candidate: Binding, **changes: Any) -> PinnedResult:
        task = PinnedTask(
            field="spec.gate.pinned",
            pinned=ArtifactReference(uri=f"file://{self.directory}", digest=self.digest),
            within=(self.prefix,),
            incumbent=by("title"),
            candidate=candidate,
            servers=(),
            evidence_uri=f"file://{self.folder}/evidence.json",
            result_uri=f"file://{self.folder}/result.json",
        ).model_copy(update=changes)
        assert TASK.validate_json(task.model_dump_json(by_alias=True)) == task
        self.task = task
        self.code = run_pinned(task)
        return PinnedResult.model_validate_json((self.folder / "result.json").read_bytes())


def test_queries_that_hold_are_a_pass_with_evidence_and_a_report(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    result = trial.run(by("title"))
    assert trial.code == EXIT_OK
    assert (result.outcome, result.lost, result.of) == ("Pass", (), 2)
    assert result.message == "2 pinned queries, none lost"
    assert result.evidence_digest == bytes_digest((tmp_path / "evidence.json").read_bytes())
    assert "pinned queries are a hard rule" in (tmp_path / "evidence.html").read_text()


def test_the_workers_command_runs_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.run(by("title"))
    (tmp_path / "result.json").unlink()
    done = CliRunner().invoke(app, ["run"], env={TASK_VARIABLE: trial.task.model_dump_json(by_alias=True)})
    assert (done.exit_code, done.stdout) == (EXIT_OK, "Pass: 2 pinned queries, none lost\n")
    assert PinnedResult.model_validate_json((tmp_path / "result.json").read_bytes()).outcome == "Pass"


def test_a_query_that_is_lost_is_regressed_however_it_was_flagged_and_named_by_its_traffic(tmp_path: Path) -> None:
    result = Trial(tmp_path).run(by("note"))
    assert (result.outcome, result.lost, result.lost_total, result.of) == ("Regressed", ("q1", "q0"), 2, 2)
    assert "2 pinned queries lost" in result.message
    report = (tmp_path / "evidence.html").read_text()
    assert report.index('id="loss-1" data-query="q1"') < report.index('id="loss-2" data-query="q0"')


def test_another_set_and_one_that_does_not_verify_are_invalid_and_named(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    wrong = trial.run(
        by("title"), pinned=ArtifactReference(uri=f"file://{trial.directory}", digest="sha256:" + "0" * 64)
    )
    assert (trial.code, wrong.outcome) == (EXIT_OK, "Invalid")
    assert wrong.message.startswith(f"spec.gate.pinned.digest: seen {trial.digest}")
    (trial.directory / "notes.txt").write_text("mine")
    trial.digest = directory_digest(trial.directory)
    broken = trial.run(by("title"))
    assert (broken.outcome, "notes.txt" in broken.message) == ("Invalid", True)


@pytest.mark.parametrize("uri", ["../../rival/catalogue.jsonl", "{folder}/holdouts/rival/catalogue.jsonl"])
def test_a_catalogue_of_another_namespace_is_not_read(tmp_path: Path, uri: str) -> None:
    trial = Trial(tmp_path, uri.replace("{folder}", f"file://{tmp_path}"))
    result = trial.run(by("title"))
    assert result.outcome == "Invalid"
    assert "wanted a file that this namespace may read" in result.message
    assert "catalogue.ref uri" in result.message


def test_a_prefix_is_not_climbed_out_of(tmp_path: Path) -> None:
    trial = Trial(tmp_path, f"file://{tmp_path}/holdouts/shop/../rival/catalogue.jsonl")
    assert "wanted a file that this namespace may read" in trial.run(by("title")).message


def test_a_set_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(tmp_path)
    monkeypatch.setattr(pinned, "MOST_QUERIES", 1)
    assert trial.run(by("title")).message == "spec.gate.pinned: seen 2 queries; wanted at most 1"
    monkeypatch.setattr(pinned, "MOST_BYTES", 100)
    assert "wanted at most 100: make the set smaller" in trial.run(by("title")).message


def test_a_set_that_is_not_there_is_tried_again_and_no_verdict(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.run(by("title"))
    gone = ArtifactReference(uri=f"file://{tmp_path}/holdouts/shop/9.9.9", digest=trial.digest)
    trial.run(by("title"), pinned=gone)
    assert trial.code == EXIT_RETRY


def test_missing_labels_leave_it_inconclusive_and_broken_vectors_are_regressed(world: World, tmp_path: Path) -> None:
    gone = [f"p3-{place}" for place in range(5, 11)]
    unlabelled = make_world(tmp_path / "h", 330, {3: {"pinned": True}}, unjudged=gone)
    verdict = decide_pinned(unlabelled.ask(unlabelled.losing(["q3"])))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.UNJUDGED_RESULTS)
    assert {query for query, _ in verdict.settlements[0].pairs} == {"q3"}
    broken = VectorReport("candidate", 10, 3, (384,), 384, 1.0, 1.0)
    verdict = decide_pinned(replace(world.ask(world.perfect), vectors=broken))
    assert (verdict.outcome, verdict.reason) == (Outcome.REGRESSED, Reason.VECTORS_BROKEN)
    assert decide_pinned(world.ask(world.perfect)).outcome == Outcome.PASS


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ([query(0, text="hex nut", split=Split.DEV)], "seen no query but of split dev"),
        ([query(0, text="hex nut"), query(2, text="gloves")], "seen 1 of 2 queries without a right product (q2)"),
    ],
)
def test_a_set_that_could_never_lose_anything_is_no_pass(tmp_path: Path, queries: list[QueryRow], said: str) -> None:
    trial = Trial(tmp_path)
    shutil.rmtree(trial.directory)
    write_holdout(
        trial.directory,
        name="acme-pinned",
        version="1.0.0",
        gains=GAINS,
        licence="MIT",
        created=CREATED,
        queries=queries,
        judgments=[judgment(item.id, "nut", 3 if item.id == "q0" else 0) for item in queries],
        catalogue=CatalogueRef(uri="../catalogue.jsonl", sha256=bytes_digest(trial.content)),
    )
    trial.digest = directory_digest(trial.directory)
    result = trial.run(by("title"))
    assert (trial.code, result.outcome) == (EXIT_OK, "Invalid")
    assert said in result.message
