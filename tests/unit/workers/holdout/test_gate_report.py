"""What the gate's report says: in bounds, in order of traffic, the same as the evidence, in both forms."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.evidence import evidence_bytes, evidence_document
from searchops_workers.holdout.report.axes import axis, round_up
from searchops_workers.holdout.report.content import (
    GAINS_SHOWN,
    LOSSES_SHOWN,
    PAIRS_SHOWN,
    TEXT_LIMIT,
    changed_list,
    label_list,
    shown,
)
from searchops_workers.holdout.report.markdown import markdown_report
from searchops_workers.holdout.report.page import html_report
from searchops_workers.holdout.report.plots import MARKS_SHOWN, distribution, graded_forest, scatter, share_forest
from searchops_workers.holdout.runs import Ranking, Run
from searchops_workers.holdout.verdicts import Outcome
from unit.workers.holdout.gate_samples import make_world, products

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.holdout.inputs import GateInput
    from unit.workers.holdout.gate_samples import World


def document_of(question: GateInput) -> dict[str, Any]:
    return evidence_document(question, decide(question))


def test_both_forms_are_the_same_for_the_document_and_its_json(world: World) -> None:
    question = world.ask(world.losing(["q1", "q2", "q7"]), repeat=world.perfect)
    first, again = document_of(question), document_of(question)
    reread = json.loads(evidence_bytes(first))
    assert html_report(first) == html_report(again) == html_report(reread)
    assert markdown_report(first) == markdown_report(again) == markdown_report(reread)


def test_a_measurement_that_is_not_valid_has_a_report_without_plots(world: World) -> None:
    question = world.ask(world.perfect, failures=("the canary pool went away",))
    document = document_of(question)
    page, text = html_report(document), markdown_report(document)
    assert document["verdict"]["outcome"] == Outcome.INVALID
    assert distribution(document) is None
    assert scatter(document) is None
    assert share_forest(document).axis is None
    for form in (page, text):
        assert "the canary pool went away" in form
        assert "not evaluated: the measurement is not valid" in form
    assert "data-plot" not in page
    assert "#bounds" not in page, "where no bound was computed none is spoken of"


def test_a_report_is_bounded_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    world = make_world(tmp_path / "h", 900, {number: {"weight": float(number)} for number in range(900)})
    lost = [f"q{number}" for number in range(450)]
    won = [f"q{number}" for number in range(450, 900)]
    question = replace(world.ask(world.losing(lost)), incumbent=world.losing(won))
    document = document_of(question)
    losses, gains = (
        changed_list(document, "losses", LOSSES_SHOWN),
        changed_list(document, "gains", GAINS_SHOWN),
    )
    assert [one.query for one in losses.shown] == [f"q{number}" for number in range(449, 399, -1)]
    assert (losses.total, losses.left_out, gains.left_out) == (450, 400, 430)
    total = sum(range(900))
    assert losses.left_share == pytest.approx(sum(range(400)) / total)
    assert gains.share == pytest.approx(sum(range(450, 900)) / total)
    assert losses.summary == (
        "450 queries, 25.0% of traffic; the 50 with most traffic are shown. "
        "400 more, with 19.7% of traffic, are in the JSON document."
    )
    points = scatter(document)
    assert points is not None
    assert sum(mark.kind != "other" for mark in points.marks) == MARKS_SHOWN
    assert (points.lost, points.won) == (450, 450)
    assert len(html_report(document)) < 600_000
    assert losses.summary in html_report(document)
    assert losses.summary in markdown_report(document)


def test_a_product_says_where_it_went(world: World) -> None:
    own = products(4)
    rankings = dict(world.perfect.rankings) | {"q4": Ranking((own[1], own[9], own[5], "p4-x", own[8], own[6]))}
    document = document_of(world.ask(Run("moved", rankings)))
    entry = changed_list(document, "losses", LOSSES_SHOWN).shown[0]
    assert entry.query == "q4"
    assert len(entry.rows) == 10
    before, after = zip(*entry.rows, strict=True)
    assert [one and (one.name, one.grade, one.right, one.moved) for one in before[:3]] == [
        ("p4-0", 3, True, "gone"),
        ("p4-1", 3, True, "up 1"),
        ("p4-2", 2, True, "gone"),
    ]
    assert [one and (one.name, one.grade, one.moved) for one in after] == [
        ("p4-1", 3, "up 1"),
        ("p4-9", 0, "up 8"),
        ("p4-5", 0, "up 3"),
        ("p4-x", None, "new"),
        ("p4-8", 0, "up 4"),
        ("p4-6", 0, "up 1"),
        None,
        None,
        None,
        None,
    ]
    assert "p4-x (unjudged, new)" in markdown_report(document)
    assert "no result" in html_report(document)


def test_pairs_to_label_are_named_once_with_their_gates(tmp_path: Path) -> None:
    gone = [f"p{number}-{place}" for number in range(0, 330, 3) for place in range(5, 11)]
    world = make_world(tmp_path / "h", 330, {0: {"text": "hex bolt | m8"}}, unjudged=gone)
    document = document_of(world.ask(world.losing([f"q{number}" for number in range(0, 330, 3)])))
    pairs = {tuple(pair) for one in document["settlements"] for pair in one["pairs"]}
    labels = label_list(document)
    assert labels.total == len(pairs) > PAIRS_SHOWN
    assert sum(len(row.products) for row in labels.rows) == labels.shown == PAIRS_SHOWN
    assert f"{len(pairs) - PAIRS_SHOWN} more are in the JSON document" in labels.summary
    assert "<h2>Labels needed</h2>" in html_report(document)
    assert "## Labels needed" in markdown_report(document)
    assert "hex bolt \\| m8" in markdown_report(document)


def test_every_gate_and_slice_is_in_the_forest_with_its_bounds(world: World) -> None:
    document = document_of(world.ask(world.losing([f"q{number}" for number in range(0, 330, 11)])))
    gates = {gate["gate"]: gate["figures"] for gate in document["gates"]}
    shares, graded = share_forest(document), graded_forest(document)
    assert shares.axis is not None
    assert graded.axis is not None
    rows = {row.name: row for row in shares.rows}
    assert set(rows) == {"A", "A′", *(row["name"] for row in gates["C"]["slices"])}
    assert rows["A"].lower == shares.axis.at(gates["A"]["lower"])
    assert rows["A"].upper == shares.axis.at(gates["A"]["upper"])
    assert rows["A"].margins == (shares.axis.at(0.05),)
    assert rows["A′"].note
    assert rows["zero-results"].note.startswith("0 of 330 families newly find nothing")
    part = next(row for row in gates["C"]["slices"] if row["name"] == "lang:de")
    assert part["lower"] < part["lost"] / part["families"] < part["upper"]
    assert rows["lang:de"].observed == shares.axis.at(part["lost"] / part["families"])
    assert [row.name for row in graded.rows] == ["B", "A/A"]
    assert graded.rows[0].margins == (graded.axis.at(-0.02),)


def test_texts_are_cut_and_control_characters_pictured() -> None:
    assert shown("a\x00b\x1b[31m\x7f\tc\n") == "a\u2400b\u241b[31m\u2421\tc\n"
    cut = shown("x" * 10_000)
    assert cut.startswith("x" * TEXT_LIMIT + "…")
    assert cut.endswith("(8,800 more characters)")


def test_axes_have_round_ticks_and_keep_marks_inside() -> None:
    line = axis(0.0, 0.1, lambda value: f"{value:.0%}")
    assert [tick.label for tick in line.ticks] == ["0%", "2%", "4%", "6%", "8%", "10%"]
    assert (line.at(0.0), line.at(0.05), line.at(0.1), line.at(7.0)) == (5.0, 50.0, 95.0, 95.0)
    assert not line.holds(7.0)
    assert [round_up(0.113), round_up(30), round_up(31, 4)] == pytest.approx([0.125, 30, 40])
    with pytest.raises(ValueError, match="low < high"):
        axis(1.0, 1.0, str)
