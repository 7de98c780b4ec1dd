"""Wear over real evidence files: counted family by family, across versions, however old."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from searchops.api.retrieval import BUILTIN_PROFILES
from searchops.api.tasks import Arm, EarlierAttempt, EvaluateTask
from searchops.api.v1alpha1.embedding_model import HoldoutReference, Margins
from searchops_workers.digests import bytes_digest
from searchops_workers.engines.stages import BuildError
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.earlier import wear_before
from searchops_workers.holdout.evidence import evidence_document
from searchops_workers.holdout.format import Holdout, load, write_holdout
from searchops_workers.holdout.multiplicity import MAX_ATTEMPTS, Wear
from searchops_workers.holdout.records import CatalogueRef
from searchops_workers.holdout.report.markdown import markdown_report
from unit.workers.holdout.gate_samples import CREATED, GAINS, judgment, query

if TYPE_CHECKING:
    from pathlib import Path

    from unit.workers.holdout.gate_samples import World

NOW, SINCE, RECENT, OLD = (f"2026-{day}T00:00:00Z" for day in ("11-25", "10-26", "11-20", "03-01"))


@pytest.fixture
def holdout(tmp_path: Path) -> Holdout:
    write_holdout(
        tmp_path / "holdout",
        name="core",
        version="2.0.0",
        gains=GAINS,
        licence="MIT",
        created=CREATED,
        queries=[query(0), query(1)],
        judgments=[judgment("q0", "nut", 3), judgment("q1", "shirt", 3)],
        catalogue=CatalogueRef(uri="s3://c", sha256=bytes_digest(b"")),
    )
    return load(tmp_path / "holdout")


def evidence(folder: Path, name: str, *families: str, holdout: str = "core") -> str:
    path = folder / name
    path.write_text(json.dumps({"holdout": {"name": holdout}, "queries": [{"family": one} for one in families]}))
    return f"file://{path}"


def attempt(number: int, at: str, uri: str) -> EarlierAttempt:
    return EarlierAttempt(digest=f"sha256:{number:064x}", at=at, evidence=uri)


def wear(holdout: Holdout, *earlier: EarlierAttempt) -> Wear:
    task = EvaluateTask(
        model="m",
        change="Model",
        incumbent=Arm(revision="one"),
        candidate=Arm(revision="two"),
        servers=(),
        holdouts=(HoldoutReference(name="main", uri="s3://h", digest=f"sha256:{'0' * 64}"),),
        margins=Margins(),
        profile=BUILTIN_PROFILES["plain"],
        earlier=earlier,
        recent_since=SINCE,
        embeddings="s3://e",
        evidence_uri="s3://e/1.json",
        result_uri="s3://r/1.json",
    )
    return wear_before(task, "main", holdout)


def test_an_attempt_of_long_ago_wears_for_good_and_only_a_recent_one_lowers_the_level(
    tmp_path: Path, holdout: Holdout
) -> None:
    family = holdout.gated[0].family
    old = attempt(1, OLD, evidence(tmp_path, "1.json", family))
    assert wear(holdout, old) == Wear(recent=0, total=1)
    assert wear(holdout, old, attempt(2, RECENT, evidence(tmp_path, "2.json", family))) == Wear(recent=1, total=2)
    worn = tuple(attempt(number, OLD, evidence(tmp_path, f"{number}.json", family)) for number in range(MAX_ATTEMPTS))
    assert wear(holdout, *worn).worn
    assert not wear(holdout, *worn[1:]).worn


def test_families_that_nobody_was_tried_on_are_fresh(tmp_path: Path, holdout: Holdout) -> None:
    first, second = holdout.gated[0].family, holdout.gated[1].family
    assert first != second
    earlier = (
        attempt(1, RECENT, evidence(tmp_path, "1.json", "rotated-out")),
        attempt(2, RECENT, evidence(tmp_path, "2.json", first)),
        attempt(3, RECENT, evidence(tmp_path, "3.json", second)),
    )
    assert wear(holdout, earlier[0]) == Wear()
    assert wear(holdout, *earlier) == Wear(recent=1, total=1), "the most used family counts, not the sum"


def test_evidence_of_another_holdout_wears_nothing_and_that_of_a_second_one_is_found(
    tmp_path: Path, holdout: Holdout
) -> None:
    family = holdout.gated[0].family
    other = evidence(tmp_path, "1.json", family, holdout="other")
    assert wear(holdout, attempt(1, RECENT, other)) == Wear()
    evidence(tmp_path, "1-main.json", family)
    assert wear(holdout, attempt(1, RECENT, other)) == Wear(recent=1, total=1)


def test_an_attempt_whose_evidence_is_lost_wears_every_family(tmp_path: Path, holdout: Holdout) -> None:
    lost = f"file://{tmp_path}/lost.json"
    assert wear(holdout, attempt(1, RECENT, lost)) == Wear(recent=1, total=1, lost=(lost,))


def test_a_store_that_does_not_answer_is_no_answer(holdout: Holdout) -> None:
    with pytest.raises(BuildError):
        wear(holdout, attempt(1, RECENT, "nowhere://bucket/1.json"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"holdout": {"name": "core"}, "queries": [',
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"holdout": {"name": "core"}}',
        b'{"queries": []}',
        b'{"holdout": {"name": "core"}, "queries": ["text"]}',
        b'{"holdout": {"name": "core"}, "queries": [{"family": 3}]}',
    ],
)
@pytest.mark.parametrize("name", ["1.json", "1-main.json"])
def test_damaged_evidence_wears_every_family_and_is_said(
    tmp_path: Path, holdout: Holdout, content: bytes, name: str
) -> None:
    whole = evidence(tmp_path, "1.json", "rotated-out")
    (tmp_path / name).write_bytes(content)
    assert wear(holdout, attempt(1, RECENT, whole)) == Wear(recent=1, total=1, lost=(whole,))


def test_a_worn_holdout_names_the_lost_evidence_in_its_evidence(tmp_path: Path, world: World) -> None:
    lost = tuple(f"file://{tmp_path}/{number}.json" for number in range(MAX_ATTEMPTS))
    question = replace(world.ask(world.perfect), wear=Wear(total=MAX_ATTEMPTS, lost=lost))
    verdict = decide(question)
    document = evidence_document(question, verdict)
    assert document["question"]["lostAttempts"] == list(lost)
    assert f"evidence is lost or damaged ({lost[0]} first): restore it" in verdict.message
    assert lost[3] in markdown_report(document).replace("\\", "")
