"""Each gate, each reason and the precedence of the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.v1alpha1.embedding_model import Margins
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.format import load
from searchops_workers.holdout.inputs import Anchor, Change, HashCheck, Rules, VectorReport
from searchops_workers.holdout.intervals import clopper_pearson
from searchops_workers.holdout.multiplicity import Wear
from searchops_workers.holdout.outcomes import compare, count_losses
from searchops_workers.holdout.records import Rater, Split
from searchops_workers.holdout.runs import Legs, Ranking, Run
from searchops_workers.holdout.settling import pairs_to_label
from searchops_workers.holdout.verdicts import Outcome, Reason, State
from unit.workers.holdout.gate_samples import (
    GRADES,
    World,
    bad_list,
    good_list,
    judgment,
    make_world,
    products,
    query,
    save,
)

if TYPE_CHECKING:
    from pathlib import Path

    from searchops_workers.holdout.verdicts import GateResult, Verdict


def first(count: int, start: int = 0) -> list[str]:
    return [f"q{number}" for number in range(start, start + count)]


def gate(verdict: Verdict, name: str) -> GateResult:
    return next(one for one in verdict.gates if one.gate == name)


def vectors(**changes: Any) -> VectorReport:
    report = VectorReport("candidate", 1000, 0, (384,), 384, 0.9999, 1.0001)
    return replace(report, **changes)


def reordered(world: World, queries: list[str], name: str = "reordered") -> Run:
    """A run whose named lists have their two best swapped with the two next: better or worse, never lost."""
    rankings = dict(world.perfect.rankings)
    for one in queries:
        own = rankings[one].products
        rankings[one] = Ranking((own[2], own[3], own[0], own[1], *own[4:]))
    return Run(name, rankings)


def test_an_equal_model_passes_with_nothing_lost(world: World) -> None:
    verdict = decide(world.ask(world.perfect))
    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, Reason.ALL_GATES_PASS)
    assert (verdict.lost, verdict.of, verdict.ndcg_interval) == (0, 330, (0.0, 0.0))
    assert verdict.loss_bound == pytest.approx(clopper_pearson(0, 330).upper)


def test_a_model_that_is_better_on_traffic_is_better(world: World) -> None:
    question = replace(world.ask(world.perfect), incumbent=reordered(world, first(330)))
    assert decide(question).outcome is Outcome.BETTER


def test_a_model_that_loses_many_is_regressed_and_says_which(world: World) -> None:
    verdict = decide(world.ask(world.losing(first(40))))
    assert verdict.outcome is Outcome.REGRESSED
    assert gate(verdict, "A").state is State.REGRESSED
    assert gate(verdict, "B").state is State.REGRESSED
    assert verdict.lost == 40
    assert "40 of 330" in verdict.message


def test_a_narrow_loss_asks_for_more_families(world: World) -> None:
    verdict = decide(world.ask(world.losing(first(12)), Change.MODEL))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.TOO_FEW_QUERIES)
    settlement = next(one for one in verdict.settlements if one.gate == "A")
    assert settlement.families is not None
    total = 330 + settlement.families
    lost = -(-12 * total // 330)
    assert clopper_pearson(lost, total).upper <= 0.05


def test_a_repackaged_model_has_the_narrower_margin(world: World) -> None:
    candidate = world.losing(first(3))
    assert gate(decide(world.ask(candidate, Change.MODEL)), "A").state is State.PASS
    assert gate(decide(world.ask(candidate, Change.REPACKAGE)), "A").state is State.INCONCLUSIVE


def test_margins_come_from_the_spec() -> None:
    assert Rules.of(Change.FIRST) == Rules(Change.FIRST, 0.10, 0.02, must_be_better=True, anchored_margin=0.10)
    assert Rules.of(Change.REPACKAGE, Margins(repackage_loss="0.01")).loss_margin == 0.01
    assert Rules.of(Change.REPACKAGE, Margins(model_loss="0.03")).anchored_margin == 0.03
    with pytest.raises(ValueError, match="wanted a share"):
        Rules(Change.MODEL, 0.0, 0.02)


def test_the_first_model_must_be_better(world: World) -> None:
    equal = decide(world.ask(world.perfect, Change.FIRST))
    assert equal.outcome is Outcome.INCONCLUSIVE
    better = decide(replace(world.ask(world.perfect, Change.FIRST), incumbent=reordered(world, first(330))))
    assert better.outcome is Outcome.BETTER


def test_a_family_is_lost_with_any_member(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h", 6, {number: {"family": f"f{number // 3}"} for number in range(6)})
    counts = count_losses(compare(small.holdout, small.perfect, small.losing(["q1", "q2"])))
    assert (counts.of, counts.lost) == (2, 1)


def test_dev_queries_are_never_looked_at(tmp_path: Path) -> None:
    changes = {number: {"split": Split.DEV} for number in range(300, 340)}
    small = make_world(tmp_path / "h", 340, changes)
    without = Run("run", {one: rank for one, rank in small.perfect.rankings.items() if int(one[1:]) < 300})
    assert decide(small.ask(without)).outcome is Outcome.PASS


def test_a_small_traffic_sample_cannot_pass_but_can_reject(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h", 330, {number: {"split": Split.PRESERVATION} for number in range(250, 330)})
    verdict = decide(small.ask(small.perfect))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.TOO_FEW_QUERIES)
    assert verdict.settlements[0].families == 50
    assert decide(small.ask(small.losing(first(60)))).outcome is Outcome.REGRESSED


def test_one_bad_language_is_a_veto(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h", 600, {number: {"lang": "sv" if number < 30 else "en"} for number in range(600)})
    verdict = decide(small.ask(small.losing(first(12))))
    assert (verdict.outcome, verdict.reason) == (Outcome.REGRESSED, Reason.SLICE_LOSS)
    assert "lang:sv: 12 of 30" in verdict.message
    assert gate(verdict, "A").state is State.PASS


def test_a_slice_of_nineteen_is_shown_as_not_tested(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h", 600, {number: {"lang": "sv" if number < 19 else "en"} for number in range(600)})
    verdict = decide(small.ask(small.losing(first(12))))
    rows = json.loads(json.dumps(gate(verdict, "C").figures))["slices"]
    assert [row["state"] for row in rows if row["name"] == "lang:sv"] == ["NotTested"]
    assert gate(verdict, "C").state is State.PASS


def test_new_zero_results_are_a_veto(world: World) -> None:
    rankings = {**world.perfect.rankings, **{one: Ranking(()) for one in first(30)}}
    verdict = decide(world.ask(Run("empty", rankings)))
    assert "zero-results: 30 of 330 families newly find nothing" in gate(verdict, "C").message


def test_a_lost_pinned_query_is_regressed(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h", 330, {7: {"pinned": True}})
    assert decide(small.ask(small.losing(["q8"]))).outcome is Outcome.PASS
    verdict = decide(small.ask(small.losing(["q7"])))
    assert (verdict.outcome, verdict.reason) == (Outcome.REGRESSED, Reason.PINNED_LOST)
    assert "q7" in verdict.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"not_finite": 3}, "3 of 1000 vectors with NaN"),
        ({"dimensions": (384, 256)}, "wanted 384"),
        ({"smallest_norm": 0.5}, "seen norms from 0.5"),
        ({"greatest_norm": float("nan")}, "seen norms"),
        ({"vectors": 0}, "seen no vector"),
    ],
)
def test_broken_vectors_are_regressed_even_with_results_missing(
    world: World, changes: dict[str, Any], said: str
) -> None:
    question = world.ask(Run("broken", {}), vectors=vectors(**changes))
    verdict = decide(question)
    assert (verdict.outcome, verdict.reason) == (Outcome.REGRESSED, Reason.VECTORS_BROKEN)
    assert said in verdict.message
    assert decide(world.ask(world.perfect, vectors=vectors())).outcome is Outcome.PASS


def test_a_broken_incumbent_is_a_broken_measurement(world: World) -> None:
    assert decide(world.ask(world.perfect, incumbent_vectors=vectors(not_finite=1))).outcome is Outcome.INVALID


def test_missing_unknown_and_failed_are_invalid(world: World) -> None:
    missing = Run("missing", {one: rank for one, rank in world.perfect.rankings.items() if one != "q5"})
    verdict = decide(world.ask(missing))
    assert (verdict.outcome, verdict.reason) == (Outcome.INVALID, Reason.MISSING_RESULTS)
    assert "q5" in verdict.message
    assert gate(verdict, "A").state is State.NOT_TESTED
    unknown = Run("unknown", {**world.perfect.rankings, "q999": Ranking(())})
    assert decide(world.ask(unknown)).reason is Reason.UNKNOWN_QUERIES
    failed = decide(world.ask(world.perfect, failures=("timeout after 600 s",)))
    assert (failed.outcome, failed.reason) == (Outcome.INVALID, Reason.EVALUATION_FAILED)


def test_differing_digests_come_before_everything(world: World) -> None:
    hashes = (HashCheck("catalogue", "sha256:a", "sha256:b"),)
    verdict = decide(world.ask(world.losing(first(60)), hashes=hashes, vectors=vectors(not_finite=9)))
    assert (verdict.outcome, verdict.reason) == (Outcome.INVALID, Reason.HASH_MISMATCH)


def with_legs(run: Run, lexical: list[str]) -> Run:
    rankings = {
        one: replace(rank, legs=Legs.LEXICAL if one in lexical else Legs.HYBRID) for one, rank in run.rankings.items()
    }
    return Run(run.name, rankings)


def test_lexical_lists_must_be_equal(world: World) -> None:
    before = with_legs(world.perfect, first(20))
    same = replace(world.ask(with_legs(world.perfect, first(20))), incumbent=before)
    assert decide(same).outcome is Outcome.PASS
    for candidate in (with_legs(reordered(world, ["q3"]), first(20)), with_legs(world.perfect, first(19))):
        verdict = decide(replace(same, candidate=candidate))
        assert (verdict.outcome, verdict.reason) == (Outcome.INVALID, Reason.LEXICAL_LISTS_DIFFER)


def test_the_first_model_is_compared_where_it_is_lexical_itself(world: World) -> None:
    before = with_legs(reordered(world, first(310, 20)), first(330))
    question = replace(world.ask(with_legs(world.perfect, first(20)), Change.FIRST), incumbent=before)
    assert decide(question).outcome is Outcome.BETTER
    wrong = replace(question, candidate=with_legs(reordered(world, ["q3"]), first(20)))
    assert decide(wrong).reason is Reason.LEXICAL_LISTS_DIFFER


def test_an_incumbent_that_does_not_repeat_itself_is_invalid(world: World) -> None:
    assert decide(world.ask(world.perfect, repeat=world.perfect)).outcome is Outcome.PASS
    verdict = decide(world.ask(world.perfect, repeat=world.losing(["q1"])))
    assert (verdict.outcome, verdict.reason) == (Outcome.INVALID, Reason.NOT_REPRODUCIBLE)
    drift = decide(world.ask(world.perfect, repeat=reordered(world, first(330))))
    assert drift.reason is Reason.NOT_REPRODUCIBLE


def test_slow_erosion_is_found_by_what_was_good_before(world: World) -> None:
    """Sixty queries lost at earlier promotions: the incumbent no longer has them, the anchors do."""
    question = replace(world.ask(world.losing(first(61))), incumbent=world.losing(first(60)))
    assert gate(decide(question), "A'").state is State.NOT_TESTED
    anchored = replace(question, anchored=tuple(Anchor(one, 1.0) for one in first(330)))
    verdict = decide(anchored)
    assert (verdict.outcome, verdict.reason) == (Outcome.REGRESSED, Reason.ANCHORED_LOSS)
    assert gate(verdict, "A").state is State.PASS


@pytest.mark.parametrize("change", [Change.REPACKAGE, Change.MODEL])
def test_what_earlier_promotions_lost_is_not_held_against_a_model_that_loses_nothing(
    world: World, change: Change
) -> None:
    eroded = world.losing(first(60))
    anchors = tuple(Anchor(one, 1.0) for one in first(330))
    verdict = decide(replace(world.ask(eroded, change), incumbent=eroded, anchored=anchors))
    assert verdict.outcome is Outcome.PASS
    anchored = gate(verdict, "A'")
    assert (anchored.state, anchored.figures["lost"]) == (State.PASS, 60)
    assert anchored.message.endswith("all of them at earlier promotions, none by this candidate")


def test_a_repackaged_model_is_held_to_what_promotions_may_lose_together(world: World) -> None:
    """Nine of 330 are gone: more than a repackaging may lose, less than all promotions may lose together."""
    incumbent = world.losing(first(8))
    question = replace(world.ask(world.losing(first(9)), Change.REPACKAGE), incumbent=incumbent)
    verdict = decide(replace(question, anchored=tuple(Anchor(one, 1.0) for one in first(330))))
    assert gate(verdict, "A'").state is State.PASS
    assert (gate(verdict, "A'").figures["lost"], gate(verdict, "A'").figures["margin"]) == (9, 0.05)


def test_a_worn_holdout_promotes_nothing_but_still_rejects(world: World) -> None:
    worn = decide(world.ask(world.perfect, wear=Wear(recent=2, total=10)))
    assert (worn.outcome, worn.reason) == (Outcome.INCONCLUSIVE, Reason.HOLDOUT_WORN)
    assert decide(world.ask(world.losing(first(60)), wear=Wear(total=10))).outcome is Outcome.REGRESSED
    assert decide(world.ask(world.perfect, wear=Wear(recent=1))).alpha == 0.025


def test_unjudged_results_name_the_pairs_that_would_settle_it(world: World) -> None:
    rankings = dict(world.perfect.rankings)
    for number in range(12):
        own = products(number)
        rankings[f"q{number}"] = Ranking((*(f"new-{number}-{place}" for place in range(5)), *own[5:10]))
    verdict = decide(world.ask(Run("finder", rankings)))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.UNJUDGED_RESULTS)
    pairs = next(one for one in verdict.settlements if one.gate == "A").pairs
    assert set(pairs) == {(f"q{number}", f"new-{number}-{place}") for number in range(12) for place in range(5)}


def test_what_to_label_before_a_first_model_is_every_unjudged_pair_of_any_run(world: World) -> None:
    finder = Run("finder", {"q1": Ranking(("new-a", "p1-0", "new-b"))})
    other = Run("other", {"q1": Ranking(("new-a",)), "q2": Ranking(("p2-0", "new-c"))})
    assert pairs_to_label(world.holdout, finder, other) == (("q1", "new-a"), ("q1", "new-b"), ("q2", "new-c"))


def test_too_little_judged_is_inconclusive_whatever_the_rest_says(tmp_path: Path) -> None:
    small = make_world(tmp_path / "h")
    rankings = {
        one: Ranking((*rank.products[:7], f"{one}-x", f"{one}-y", f"{one}-z"))
        for one, rank in small.perfect.rankings.items()
    }
    verdict = decide(small.ask(Run("finder", rankings)))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.UNJUDGED_RESULTS)
    assert gate(verdict, "D").reason is Reason.UNJUDGED_RESULTS


def test_what_both_sides_show_at_one_rank_needs_no_label(tmp_path: Path) -> None:
    """A label that is missing at the same rank on both sides cannot change an answer; at another rank it can."""
    hidden = {f"p{number}-{place}" for number in range(330) for place in (5, 6, 7)}
    sparse = make_world(tmp_path / "h", unjudged=hidden)
    verdict = decide(sparse.ask(sparse.perfect, Change.REPACKAGE))
    assert verdict.outcome is Outcome.PASS
    checks = gate(verdict, "D").figures["checks"]
    assert isinstance(checks, list)
    assert "judged@10 70.0% and 70.0%" in [check["message"] for check in checks if isinstance(check, dict)]
    moved = {
        one: Ranking((*rank.products[:5], *rank.products[6:8], rank.products[5], *rank.products[8:]))
        for one, rank in sparse.perfect.rankings.items()
    }
    other = decide(sparse.ask(Run("moved", moved), Change.REPACKAGE))
    assert gate(other, "D").reason is Reason.UNJUDGED_RESULTS


def test_losses_that_hang_on_disputed_labels_are_noisy(tmp_path: Path) -> None:
    disputed = [Rater(id="ann", grade=3), Rater(id="bob", grade=0)]
    rows = []
    for number in range(330):
        for place, (product, grade) in enumerate(zip(products(number), GRADES, strict=True)):
            raters = disputed if number < 12 and place in (5, 6, 7, 8) else []
            rows.append(judgment(f"q{number}", product, grade, raters=raters))
    save(tmp_path / "h", [query(number) for number in range(330)], rows)
    world = World(tmp_path / "h", load(tmp_path / "h"))
    verdict = decide(world.ask(world.losing(first(12))))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.NOISY_LABELS)
    assert ("q0", products(0)[5]) in next(one for one in verdict.settlements if one.gate == "A").pairs


LOST = st.lists(st.integers(0, 329), max_size=60, unique=True)
ORDER = {Outcome.REGRESSED: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2, Outcome.BETTER: 3}


@settings(deadline=None, max_examples=25)
@given(LOST, st.integers(0, 329))
def test_losing_one_more_family_never_makes_the_verdict_better(world: World, lost: list[int], more: int) -> None:
    names = [f"q{number}" for number in lost]
    one = decide(world.ask(world.losing(names)))
    other = decide(world.ask(world.losing([*names, f"q{more}"])))
    assert ORDER[other.outcome] <= ORDER[one.outcome]
    assert (other.loss_bound or 0) >= (one.loss_bound or 0)


@settings(deadline=None, max_examples=15)
@given(LOST)
def test_any_run_against_itself_changes_nothing_and_is_never_regressed(world: World, lost: list[int]) -> None:
    run = world.losing([f"q{number}" for number in lost])
    verdict = decide(replace(world.ask(run), incumbent=run, repeat=run))
    assert verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert verdict.lost == 0
    assert verdict.ndcg_interval == (0.0, 0.0)


@settings(deadline=None, max_examples=15)
@given(LOST)
def test_swapping_the_sides_mirrors_the_differences(world: World, lost: list[int]) -> None:
    run = world.losing([f"q{number}" for number in lost])
    forth = compare(world.holdout, world.perfect, run)
    back = compare(world.holdout, run, world.perfect)
    assert [one.delta.observed for one in forth] == [-one.delta.observed for one in back]


def test_a_list_that_is_bad_is_bad() -> None:
    assert set(bad_list(1)) == set(products(1)) - {products(1)[4], products(1)[11]}
    assert len(good_list(1)) == len(bad_list(1)) == 10


@pytest.mark.parametrize(("families", "state"), [(58, State.INCONCLUSIVE), (59, State.PASS)])
def test_a_holdout_below_59_families_shows_nothing_about_5_percent(tmp_path: Path, families: int, state: State) -> None:
    small = make_world(tmp_path / "small", families)
    verdict = decide(small.ask(small.perfect, Change.MODEL))
    assert gate(verdict, "A").state is state
    assert verdict.outcome is Outcome.INCONCLUSIVE, "and a traffic sample of fewer than 300 promotes nothing"
    wanted = {one.gate: one.families for one in verdict.settlements}
    assert wanted == {"B": 300 - families} | ({"A": 1} if families == 58 else {})
