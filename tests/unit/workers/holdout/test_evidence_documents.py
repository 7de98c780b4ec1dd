"""Evidence is byte-identical for equal inputs, fits where it is carried, and is safe to show."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.evidence import (
    SUMMARY_LIMIT,
    anchors_from_evidence,
    evidence_bytes,
    evidence_document,
    summary_bytes,
    verdict_status,
)
from searchops_workers.holdout.format import load
from searchops_workers.holdout.report.markdown import markdown_report
from searchops_workers.holdout.report.page import html_report
from searchops_workers.holdout.runs import Run
from searchops_workers.holdout.verdicts import Outcome
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.holdout.inputs import GateInput
    from unit.workers.holdout.gate_samples import World


def content_of(question: GateInput) -> bytes:
    return evidence_bytes(evidence_document(question, decide(question)))


def test_equal_inputs_give_equal_bytes_and_any_other_input_gives_others(world: World) -> None:
    candidate = world.losing(["q1", "q2"])
    question = world.ask(candidate)
    reread = replace(question, holdout=load(world.directory))
    shuffled = Run(candidate.name, dict(sorted(candidate.rankings.items(), key=lambda item: item[0], reverse=True)))
    first = content_of(question)
    assert first == content_of(reread) == content_of(replace(question, candidate=shuffled))
    assert first != content_of(replace(question, seed=1))
    assert first != content_of(replace(question, candidate=world.losing(["q1", "q3"])))
    assert first == evidence_bytes(json.loads(first))


def test_losses_and_gains_carry_both_lists_with_grades_heaviest_first(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 330, {5: {"weight": 9.0}, 3: {"weight": 2.0}})
    question = replace(world.ask(world.losing(["q3", "q5"])), incumbent=world.losing(["q9"]))
    document = evidence_document(question, decide(question))
    assert [entry["query"] for entry in document["losses"]] == ["q5", "q3"]
    assert [entry["query"] for entry in document["gains"]] == ["q9"]
    assert document["losses"][0]["incumbent"][0] == ["p5-0", 3]
    assert len(document["losses"][0]["candidate"]) == 10
    assert document["holdout"]["digest"] == world.holdout.digest
    assert document["question"]["seed"] == question.seed


def test_the_summary_fits_a_termination_message(world: World) -> None:
    named = Run("ä" * 400, world.perfect.rankings)
    question = replace(world.ask(named), failures=tuple("timeout ü" * 300 for _ in range(9)))
    verdict = decide(question)
    status = verdict_status(question, verdict, evidence_uri="s3://results/" + "x" * 1000)
    content = summary_bytes(status)
    assert verdict.outcome is Outcome.INVALID
    assert len(content) <= SUMMARY_LIMIT
    assert json.loads(content)["outcome"] == "Invalid"


def test_the_summary_has_the_figures_of_the_status(world: World) -> None:
    question = world.ask(world.perfect)
    verdict = decide(question)
    content = content_of(question)
    wire = verdict_status(question, verdict, evidence_uri="s3://results/1", content=content).to_wire()
    assert wire["outcome"] == "Pass"
    assert (wire["lost"], wire["of"], wire["lossBound"]) == (0, 330, "0.0090")
    assert (wire["ndcgDelta"], wire["ndcgInterval"]) == ("+0.000", ["+0.000", "+0.000"])
    assert wire["evidence"] == {"uri": "s3://results/1", "digest": bytes_digest(content)}


def test_reports_escape_what_shoppers_and_merchants_wrote(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 330, {3: {"text": "<script>alert(1)</script> a|b"}})
    question = world.ask(world.losing(["q3"]))
    document = evidence_document(question, decide(question))
    page, text = html_report(document), markdown_report(document)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in text.replace("\\<script>", "")
    assert "| A | Pass |" in text


def test_anchors_are_what_promoted_candidates_had_right(world: World) -> None:
    one = content_of(world.ask(world.losing(["q1", "q2"])))
    other = content_of(world.ask(world.losing(["q2", "q3"])))
    anchors = {anchor.query_id: anchor.ndcg for anchor in anchors_from_evidence([one, other], "core")}
    assert "q2" not in anchors
    assert anchors["q1"] == anchors["q3"] == 1.0
    assert anchors_from_evidence([one], "another holdout") == ()
    with pytest.raises(ValueError, match="no evidence document"):
        anchors_from_evidence([b"{}"], "core")
