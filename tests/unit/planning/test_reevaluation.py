"""What is promoted is evaluated again: when, against what, and what follows from the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.tasks import EvaluateTask
from searchops.api.v1alpha1.embedding_model_status import (
    EmbeddingModelStatus,
    ReevaluationQuestion,
    ReevaluationStatus,
    Surroundings,
)
from searchops.planning.jobs import TemplateProblem
from searchops.planning.model_facts import EmitEvent, ModelPlan
from searchops.planning.reevaluation import surroundings_of
from searchops.planning.rollout import plan_model
from searchops.planning.rollout_stages import MAX_ATTEMPTS
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelFacts

DAY = 86400.0
ACTIVE = case.promoted("b", 2, promoted_at=case.at(hours=-2), evidence="s3://e/2")
BEFORE = case.promoted("a", 1, retire_after=case.at(hours=70), evidence="s3://e/1")


def around(**update: str) -> Surroundings:
    model = case.make_model("b", EmbeddingModelStatus(active=ACTIVE, next_number=3))
    seen = surroundings_of(model, case.facts_of(model))
    assert seen is not None
    return seen.model_copy(update=update)


def judged(**update: Any) -> ReevaluationStatus:
    """What is known of the active revision: judged some hours ago, as it is."""
    fields = {"revision": ACTIVE.revision, "at": case.at(hours=-2), "surroundings": around(), **update}
    return ReevaluationStatus.model_validate(fields)


def asking(against: str = BEFORE.revision, **update: Any) -> ReevaluationStatus:
    fields = {"against": against, "why": "Scheduled", "surroundings": around(), "at": case.at(), **update}
    return judged(asked=ReevaluationQuestion.model_validate(fields))


def serving(again: ReevaluationStatus | None = None, **update: Any) -> EmbeddingModelStatus:
    """r2 is active and r1 is warm."""
    fields: dict[str, Any] = {
        "active": ACTIVE,
        "retiring": (BEFORE,),
        "next_number": 3,
        "reevaluation": again or judged(),
        **update,
    }
    return EmbeddingModelStatus.model_validate(fields)


def model_of(
    again: ReevaluationStatus | None = None, *, spec: dict[str, Any] | None = None, **update: Any
) -> EmbeddingModel:
    return case.make_model("b", serving(again, **update), **(spec or {}))


def known(plan: ModelPlan) -> ReevaluationStatus:
    found = case.status_of(plan).reevaluation
    assert found is not None
    return found


def closed(**update: Any) -> dict[str, Any]:
    """The rollback window is over: nothing is warm any more."""
    return {"active": ACTIVE.model_copy(update={"promoted_at": case.at(days=-9), **update}), "retiring": ()}


def answered(model: EmbeddingModel, outcome: str) -> ModelFacts:
    facts = case.facts_of(model)
    assert model.status.active is not None
    result = case.verdict(model.status.active.revision, outcome)
    return replace(facts, reevaluation=case.job(facts.reevaluation, complete=True), reevaluation_result=result)


def test_a_fresh_promotion_is_noted_and_nothing_is_asked() -> None:
    model = case.make_model("b", EmbeddingModelStatus(active=ACTIVE, retiring=(BEFORE,), next_number=3))
    plan = case.steady(model, case.facts_of(model))
    assert (plan.actions, known(plan)) == ((), judged(at=case.at()))
    assert plan.requeue_after == DAY
    assert case.condition(plan, "GatePassed") == ("True", "Passed")
    assert case.condition(plan, "Ready") == ("True", "Promoted")


def test_it_is_asked_when_the_clock_says_so_and_not_a_second_before() -> None:
    early = case.steady(model_of(judged(at=case.at(hours=-24, seconds=2))), case.facts_of(model_of()))
    assert (early.actions, early.requeue_after) == ((), 2.0)
    model = model_of(judged(at=case.at(hours=-24)))
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["event ReevaluationAsked"]
    wanted = ReevaluationQuestion(against=BEFORE.revision, why="Scheduled", surroundings=around(), at=case.at())
    assert (known(plan).asked, plan.requeue_after) == (wanted, 0.0)
    assert case.condition(plan, "Ready") == ("True", "Promoted")


def test_the_clock_can_be_switched_off() -> None:
    model = model_of(judged(at=case.at(days=-400)), spec={"gate": {"reevaluateEvery": "0s"}})
    plan = case.steady(model, case.facts_of(model))
    assert plan.actions == ()
    assert plan.requeue_after == 70 * 3600.0, "only the end of the window wakes it"


@pytest.mark.parametrize(
    ("before", "spec", "why"),
    [
        ({"triton": "2.50.0"}, {}, "TritonChanged"),
        ({"retrieval": "other"}, {}, "RetrievalChanged"),
        ({"gate": "other"}, {}, "GateChanged"),
        ({}, {"rollout": {"retryToken": "again"}}, "RetryToken"),
    ],
)
def test_a_change_of_what_it_answers_with_asks_at_once(before: dict[str, str], spec: dict[str, Any], why: str) -> None:
    model = model_of(judged(surroundings=around(**before)), spec=spec)
    plan = plan_model(model, case.facts_of(model), case.NOW)
    question = known(plan).asked
    assert question is not None
    assert (question.why, question.surroundings) == (why, around())


def test_the_patience_and_the_mode_of_the_gate_are_no_change_of_it() -> None:
    spec = {"gate": {"reevaluateEvery": "1000h", "onInconclusive": "Rollback", "mode": "DryRun"}}
    assert plan_model(model_of(spec=spec), case.facts_of(model_of(spec=spec)), case.NOW).actions == ()


@pytest.mark.parametrize(
    "second",
    [{"version": "2.52.0"}, {"version": ""}, {"reachable": False, "error": "refused", "models": {}}],
)
def test_servers_that_are_being_replaced_are_waited_for(second: dict[str, Any]) -> None:
    model = model_of(judged(surroundings=around(triton="2.50.0")))
    names = (ACTIVE.revision, BEFORE.revision)
    pool = case.pool("default", case.server("s1", *names), case.server("s2", *names, **second))
    plan = plan_model(model, case.facts_of(model, serving=pool), case.NOW)
    assert known(plan).asked is None
    assert "event ReevaluationAsked" not in case.told(plan.actions)


def test_nothing_is_asked_while_a_server_does_not_serve_both_sides() -> None:
    model = model_of(judged(at=case.at(hours=-24)))
    pool = case.pool("default", case.server("s1", ACTIVE.revision, BEFORE.revision), case.server("s2", ACTIVE.revision))
    plan = plan_model(model, case.facts_of(model, serving=pool), case.NOW)
    assert known(plan) == judged(at=case.at(hours=-24))
    assert case.condition(plan, "GatePassed") == ("Unknown", "Waiting")
    assert f"s2 does not serve {BEFORE.revision}" in case.message(plan, "GatePassed")
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 30


def test_paused_asks_nothing() -> None:
    model = model_of(judged(at=case.at(days=-3)), spec={"paused": True})
    assert plan_model(model, case.facts_of(model), case.NOW).actions == ()


def test_the_job_compares_on_the_serving_pool_what_tenants_have_with_what_they_had() -> None:
    model = model_of(asking())
    facts = case.facts_of(model)
    order = case.order_of(plan_model(model, facts, case.NOW))
    assert (order.kind, order.name) == ("evaluate", facts.reevaluation.name if facts.reevaluation else None)
    task = order.task
    assert isinstance(task, EvaluateTask)
    assert (task.change, task.incumbent.revision, task.candidate.revision) == (
        "Model",
        BEFORE.revision,
        ACTIVE.revision,
    )
    assert task.servers == ("s1:8001", "s2:8001")
    assert (task.earlier, task.anchored) == ((), ("s3://e/2", "s3://e/1"))


@pytest.mark.parametrize(
    ("update", "against", "change", "recorded"),
    [
        ({"retiring": (BEFORE.model_copy(update={"space": "spaceb"}),)}, BEFORE.revision, "Repackage", None),
        ({"retiring": ()}, "Lexical", "First", None),
        (closed(), "Itself", "Repackage", "s3://e/2"),
    ],
)
def test_what_it_is_compared_with(update: dict[str, Any], against: str, change: str, recorded: str | None) -> None:
    model = model_of(judged(at=case.at(hours=-24)), **update)
    plan = plan_model(model, case.facts_of(model), case.NOW)
    question = known(plan).asked
    assert question is not None
    assert question.against == against
    model = case.after(model, plan)
    task = case.order_of(plan_model(model, case.facts_of(model), case.NOW)).task
    assert isinstance(task, EvaluateTask)
    assert (task.change, task.incumbent.recorded) == (change, recorded)
    assert task.incumbent.encoder == (BEFORE.revision if against == BEFORE.revision else None)


def test_what_was_taken_back_is_no_place_to_go_back_to() -> None:
    taken_back = case.promoted("a", 3, promoted_at=case.at(hours=-1), retire_after=case.at(hours=70))
    model = model_of(judged(at=case.at(hours=-24)), retiring=(taken_back,))
    question = known(plan_model(model, case.facts_of(model), case.NOW)).asked
    assert question is not None
    assert question.against == "Lexical"


def test_without_evidence_there_is_nothing_to_compare_with_and_it_says_so() -> None:
    model = model_of(judged(at=case.at(hours=-24)), **closed(evidence=None))
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert (known(plan).asked, known(plan).at) == (None, case.at())
    plan = case.steady(case.after(model, plan), case.facts_of(case.after(model, plan)))
    assert case.condition(plan, "GatePassed") == ("Unknown", "GateInvalid")
    assert "no evidence of shop-r2-bbbbbbbb is kept" in case.message(plan, "GatePassed")
    assert case.condition(plan, "Ready") == ("True", "Promoted")


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("Pass", ("True", "Passed")),
        ("Better", ("True", "Passed")),
        ("Inconclusive", ("Unknown", "Inconclusive")),
        ("Invalid", ("Unknown", "GateInvalid")),
    ],
)
def test_an_answer_that_takes_nothing_back_is_shown(outcome: str, told: tuple[str, str]) -> None:
    model = model_of(asking())
    plan = plan_model(model, answered(model, outcome), case.NOW)
    assert case.told(plan.actions) == ["event Reevaluated"]
    model = case.after(model, plan)
    assert known(plan).asked is None
    assert known(plan).against == BEFORE.revision
    plan = case.steady(model, case.facts_of(model))
    assert (plan.actions, plan.requeue_after) == ((), DAY)
    assert (case.condition(plan, "GatePassed"), case.condition(plan, "Ready")) == (told, ("True", "Promoted"))
    assert f"against {BEFORE.revision}: {outcome}" in case.message(plan, "GatePassed")


def lost(**update: Any) -> EmbeddingModel:
    """The answer Regressed has been written."""
    model = model_of(asking(**update))
    return case.after(model, plan_model(model, answered(model, "Regressed"), case.NOW))


def test_worse_than_what_tenants_had_takes_it_back_by_itself() -> None:
    plan = plan_model(lost(), case.facts_of(lost()), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event RolledBack"]
    status = case.status_of(plan)
    assert status.active is not None
    assert (status.active.revision, status.active.retire_after) == (BEFORE.revision, None)
    assert [item.revision for item in status.retiring] == [ACTIVE.revision]
    assert (status.rejected[-1].digest, status.rejected[-1].outcome) == (ACTIVE.digest, "Regressed")
    assert status.rejected[-1].evidence is not None
    assert (status.reevaluation, status.phase) == (None, "RolledBack")
    assert status.verdict is not None
    assert status.verdict.outcome == "Regressed"
    assert case.condition(plan, "Ready") == ("False", "Rejected")
    assert case.condition(plan, "GatePassed") == ("False", "Regressed")
    event = next(action for action in plan.actions if isinstance(action, EmitEvent))
    assert f"{ACTIVE.revision} is Regressed and taken back; tenants go to {BEFORE.revision}" in event.message
    model = case.after(lost(), plan)
    settled = case.steady(model, case.facts_of(model))
    assert settled.actions == (), "syncing the same commit again does nothing"
    assert known(settled).revision == BEFORE.revision


def test_nobody_goes_back_to_a_revision_that_a_server_does_not_serve() -> None:
    model = lost()
    ill = {("s1", BEFORE.revision): "cosine 0.1"}
    names = (ACTIVE.revision, BEFORE.revision)
    pool = case.pool("default", case.server("s1", *names), case.server("s2", *names), inference=ill)
    plan = plan_model(model, case.facts_of(model, serving=pool), case.NOW)
    assert case.status_of(plan).active == ACTIVE
    assert case.condition(plan, "Ready") == ("False", "Regressed")
    assert "nobody goes back to it until every server serves it" in case.message(plan, "Ready")
    assert case.status_of(plan).phase == "Promoted"
    plan = plan_model(case.after(model, plan), case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event RolledBack"]


@pytest.mark.parametrize(
    ("against", "update", "spec"),
    [
        (BEFORE.revision, {}, {"gate": {"mode": "DryRun"}}),
        ("Itself", closed(), {}),
    ],
)
def test_where_nothing_may_be_taken_back_it_is_said_until_another_answer(
    against: str, update: dict[str, Any], spec: dict[str, Any]
) -> None:
    model = model_of(asking(against), spec=spec, **update)
    model = case.after(model, plan_model(model, answered(model, "Regressed"), case.NOW))
    plan = case.steady(model, case.facts_of(model))
    assert plan.actions == ()
    assert case.status_of(plan).active == model.status.active
    assert (case.condition(plan, "GatePassed"), case.condition(plan, "Ready")) == (("False", "Regressed"),) * 2
    assert case.status_of(plan).phase == "Promoted"
    again = model.status.reevaluation
    assert again is not None
    due = again.model_copy(update={"at": case.at(hours=-24)})
    model = model.model_copy(update={"status": model.status.model_copy(update={"reevaluation": due})})
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.condition(plan, "Ready") == ("False", "Regressed"), "a question is no answer"
    model = case.after(model, plan)
    plan = plan_model(model, answered(model, "Pass"), case.NOW)
    assert case.condition(plan, "Ready") == ("True", "Promoted")


def test_a_window_that_ends_while_it_is_asked_changes_the_question() -> None:
    model = model_of(asking(), **closed())
    facts = case.facts_of(model)
    facts = replace(facts, reevaluation=case.job(facts.reevaluation))
    plan = plan_model(model, facts, case.NOW)
    assert (case.told(plan.actions), known(plan).asked) == (["DeleteJob"], None)


def test_a_job_without_an_answer_is_tried_again_and_then_put_down() -> None:
    model = model_of(asking())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        facts = case.facts_of(model)
        facts = replace(facts, reevaluation=case.job(facts.reevaluation, failure="DeadlineExceeded"))
        question = model.status.reevaluation.asked if model.status.reevaluation else None
        assert question is not None
        assert question.attempt == attempt
        plan = plan_model(model, facts, case.NOW)
        model = case.after(model, plan)
    assert case.told(plan.actions) == ["DeleteJob", "event ReevaluationUnanswered"]
    assert (known(plan).asked, known(plan).at) == (None, case.at())
    assert case.condition(plan, "GatePassed") == ("Unknown", "GateInvalid")
    assert "ended without an answer (DeadlineExceeded), as 3 attempts did" in case.message(plan, "GatePassed")
    assert case.condition(plan, "Ready") == ("True", "Promoted")


@pytest.mark.parametrize(
    ("update", "reason", "said"),
    [
        ({"unread": "the store is down"}, "ArtifactsUnreadable", "the store is down"),
        ({"problem": TemplateProblem(True, "there is no PodTemplate 'cpu'")}, "PodTemplateNotFound", "no PodTemplate"),
        ({"problem": TemplateProblem(False, "carries ''")}, "PodTemplateNotAllowed", "carries ''"),
    ],
)
def test_what_keeps_the_job_from_being_asked_is_named(update: dict[str, Any], reason: str, said: str) -> None:
    model = model_of(asking())
    facts = case.facts_of(model)
    assert facts.reevaluation is not None
    plan = case.steady(model, replace(facts, reevaluation=replace(facts.reevaluation, **update)))
    assert plan.actions == ()
    assert case.condition(plan, "GatePassed") == ("Unknown", reason)
    assert said in case.message(plan, "GatePassed")


def test_a_new_candidate_stops_the_question_and_goes_first() -> None:
    model = case.make_model("c", serving(asking()))
    facts = case.facts_of(model)
    plan = plan_model(model, replace(facts, reevaluation=case.job(facts.reevaluation)), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "DeleteJob", "event CandidateChosen"]
