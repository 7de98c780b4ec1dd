"""Which revision becomes the candidate, what is refused, what is taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from searchops.api.v1alpha1.embedding_model_status import AttemptStatus, EmbeddingModelStatus, HistoryEntry
from searchops.planning.model_facts import AddFinalizer, ModelPlan, WriteState
from searchops.planning.rollout import plan_model
from searchops.planning.rollout_choice import earlier_attempts, with_attempt
from unit.planning import rollout_cases as case


def test_the_finalizer_comes_before_everything() -> None:
    model = case.make_model(metadata={"finalizers": []})
    assert plan_model(model, case.facts_of(model), case.NOW) == ModelPlan((AddFinalizer(),), None, 0.0)


def test_the_first_candidate_is_kept_in_the_config_map_before_anything_else() -> None:
    model = case.make_model()
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event CandidateChosen"]
    status = case.status_of(plan)
    assert status.candidate == case.chosen()
    assert (status.next_number, status.phase, status.observed_generation) == (2, "Pending", 7)
    assert plan.requeue_after == 0.0
    written = plan.actions[0]
    assert isinstance(written, WriteState)
    assert (written.status.candidate, written.status.next_number) == (status.candidate, status.next_number)
    assert case.condition(plan, "Ready") == ("False", "Progressing")


def test_a_superseded_candidate_starts_again_from_the_promoted_revision() -> None:
    model = case.make_model("c", case.rolling())
    plan = plan_model(model, case.facts_of(model, tenants=(case.tenant("t", case.built("b", 2)),)), case.NOW)
    status = case.status_of(plan)
    assert case.told(plan.actions) == ["WriteState", "event CandidateChosen"]
    assert status.candidate == case.chosen("c", 3)
    assert (status.active, status.wave, status.verdict, status.next_number) == (case.promoted(), None, None, 4)
    assert status.history == (
        HistoryEntry(revision=case.built("b", 2).revision, event="Superseded", at=case.at(), message="Pass"),
    )


def test_a_superseded_candidate_stays_loaded_while_a_tenant_is_bound_to_it() -> None:
    model = case.make_model("c", case.rolling(candidate=case.chosen("c", 3), wave=None, verdict=None))
    names = (case.promoted().revision, case.built("b", 2).revision)
    facts = case.facts_of(model, serving=case.pool("default", case.server("s1", *names)))
    bound = replace(facts, tenants=(case.tenant("t", case.built("b", 2)),))
    assert [line for line in case.told(plan_model(model, bound, case.NOW).actions) if "load" in line] == []
    assert [line for line in case.told(plan_model(model, facts, case.NOW).actions) if "load" in line] == [
        f"unload s1 {names[1]}",
        f"unload s1 {names[1]}-tok",
        f"unload s1 {names[1]}-enc",
    ]


@pytest.mark.parametrize("building", [True, False])
def test_going_back_to_the_active_revision_is_ready_at_once(building: bool) -> None:
    candidate = case.chosen("b", 2) if building else case.built("b", 2)
    model = case.make_model("a", case.rolling(candidate=candidate))
    facts = case.facts_of(model)
    facts = replace(facts, build=case.job(facts.build)) if building else replace(facts, gate=None)
    plan = plan_model(model, facts, case.NOW)
    assert case.told(plan.actions) == ["WriteState", *(["DeleteJob"] if building else []), "event Superseded"]
    status = case.status_of(plan)
    assert (status.candidate, status.wave, status.phase) == (None, None, "Promoted")
    assert case.condition(plan, "Ready") == ("True", "Promoted")
    settled = case.steady(case.after(model, plan), case.facts_of(case.after(model, plan)))
    assert (settled.actions, settled.requeue_after) == ((), timedelta(hours=24).total_seconds())


def test_a_job_that_was_never_made_is_not_deleted() -> None:
    model = case.make_model("a", case.rolling(candidate=case.chosen("b", 2), wave=None, verdict=None))
    assert case.told(plan_model(model, case.facts_of(model, build=None), case.NOW).actions) == [
        "WriteState",
        "event Superseded",
    ]
    assert case.told(plan_model(model, case.facts_of(model), case.NOW).actions) == ["WriteState", "event Superseded"]


def test_going_back_to_a_warm_revision_skips_build_and_gate() -> None:
    warm = case.promoted("a", 1, retire_after=case.at(hours=40))
    model = case.make_model("a", EmbeddingModelStatus(active=case.promoted("b", 2), retiring=(warm,), next_number=3))
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event CandidateChosen"]
    model = case.after(model, plan)
    assert (model.status.candidate, model.status.retiring) == (warm, ())
    assert model.status.next_number == 3
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["event WaveStarted"]
    assert case.condition(plan, "GatePassed") == ("True", "SkippedStillWarm")


@pytest.mark.parametrize("asked", ["another gate", "another try"])
def test_what_was_taken_back_is_gated_again_however_warm_it_is(asked: str) -> None:
    warm = case.promoted("b", 2, retire_after=case.at(hours=40), evidence="s3://e/2")
    status = EmbeddingModelStatus(
        active=case.promoted("a", 1), retiring=(warm,), rejected=(case.refused("b", 2),), next_number=3
    )
    model = case.make_model("b", status)
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).candidate is None
    changed: dict[str, Any] = (
        {"gate": {"holdouts": [case.HOLDOUT], "reevaluateEvery": "24h", "margins": {"modelLoss": "0.04"}}}
        if asked == "another gate"
        else {"rollout": {"retryToken": "again"}}
    )
    model = case.make_model("b", status, **changed)
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event CandidateChosen"]
    found = case.status_of(plan)
    assert (found.candidate, found.retiring) == (case.chosen("b", 3), (warm,)), "under another name, so gated like new"


def test_a_warm_candidate_that_is_dropped_stays_warm() -> None:
    warm = case.promoted("a", 1, retire_after=case.at(hours=40))
    status = EmbeddingModelStatus(active=case.promoted("b", 2), candidate=warm, next_number=3)
    model = case.make_model("b", status)
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).retiring == (warm,)
    model = case.make_model("a", status, metadata={"annotations": {"searchops.dev/rollback": warm.revision}})
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).retiring == (warm,)


def test_a_revision_past_its_window_is_built_again() -> None:
    cold = case.promoted("a", 1, retire_after=case.at(hours=-1))
    model = case.make_model("a", EmbeddingModelStatus(active=case.promoted("b", 2), retiring=(cold,), next_number=3))
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).candidate == case.chosen("a", 3)


def test_a_refused_commit_that_is_synced_again_does_nothing() -> None:
    status = EmbeddingModelStatus(active=case.promoted(), rejected=(case.refused("b", 2),), next_number=3)
    model = case.make_model("b", status)
    plan = case.steady(model, case.facts_of(model))
    assert plan.actions == ()
    assert (case.status_of(plan).phase, case.condition(plan, "Ready")) == ("RolledBack", ("False", "Rejected"))
    assert "25 lost" in case.message(plan, "Ready")
    assert f"{case.promoted().revision} stays active" in case.message(plan, "Ready")


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "c"},
        {"rollout": {"retryToken": "again"}},
        {"metadata": {"annotations": {"searchops.dev/retry": "x"}}},
        {"gate": {"margins": {"modelLoss": "0.04"}}},
    ],
    ids=["digest", "token", "annotation", "gate"],
)
def test_something_new_tries_a_refused_commit_again(change: dict[str, Any]) -> None:
    status = EmbeddingModelStatus(active=case.promoted(), rejected=(case.refused("b", 2),), next_number=3)
    digest = change.get("digest", "b")
    model = case.make_model(**{"digest": "b", **change}, status=status)
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).candidate == case.chosen(digest, 3)


def test_a_new_worker_or_policy_is_not_another_question() -> None:
    status = EmbeddingModelStatus(active=case.promoted(), rejected=(case.refused("b", 2),), next_number=3)
    model = case.make_model("b", status, gate={"mode": "DryRun", "onInconclusive": "Rollback"})
    assert plan_model(model, case.facts_of(model), case.NOW).actions == ()


def test_the_rollback_annotation_takes_the_candidate_back_and_is_remembered() -> None:
    annotated = {"annotations": {"searchops.dev/rollback": case.built("b", 2).revision}}
    model = case.make_model("b", case.rolling(), metadata=annotated)
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event CandidateRejected"]
    status = case.status_of(plan)
    assert (status.candidate, status.wave, status.phase) == (None, None, "RolledBack")
    assert [(entry.digest, entry.outcome) for entry in status.rejected] == [(case.DIGESTS["b"], "RolledBack")]
    assert status.verdict == case.PASS
    settled = case.after(model, plan)
    assert case.told(case.steady(settled, case.facts_of(settled)).actions) == []


def test_an_annotation_for_another_revision_takes_nothing_back() -> None:
    model = case.make_model(
        "b", case.rolling(), metadata={"annotations": {"searchops.dev/rollback": case.built("b", 9).revision}}
    )
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).candidate is None
    assert case.status_of(plan_model(model, case.facts_of(model), case.NOW)).rejected == ()


@pytest.mark.parametrize("warm", [True, False])
def test_the_rollback_annotation_takes_a_promoted_revision_back(warm: bool) -> None:
    earlier = case.promoted("a", 1, retire_after=case.at(hours=40))
    status = EmbeddingModelStatus(active=case.promoted("b", 2), retiring=(earlier,) if warm else (), next_number=3)
    annotated = {"annotations": {"searchops.dev/rollback": case.promoted("b", 2).revision}}
    model = case.make_model("b", status, metadata=annotated)
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event RolledBack"]
    result = case.status_of(plan)
    assert result.active == (case.promoted("a", 1) if warm else None)
    assert result.retiring == (case.promoted("b", 2, retire_after=case.at(hours=72)),)
    assert result.candidate is None
    settled = case.steady(case.after(model, plan), case.facts_of(case.after(model, plan)))
    assert settled.actions == ()
    assert case.condition(settled, "Ready") == ("False", "Rejected")


def test_a_paused_model_changes_no_candidate_and_keeps_its_servers() -> None:
    for paused in ({"paused": True}, {"metadata": {"annotations": {"searchops.dev/pause": ""}}}):
        model = case.make_model("c", case.rolling(), **paused)
        facts = case.facts_of(model, serving=case.pool("default", case.server("s1", case.built("b", 2).revision)))
        plan = case.steady(model, facts)
        assert case.told(plan.actions) == [
            f"load s1 {case.promoted().revision}-enc",
            f"load s1 {case.promoted().revision}-tok",
            f"load s1 {case.promoted().revision}",
        ]
        status = case.status_of(plan)
        halted = case.WAVE.model_copy(update={"halted": "Paused"})
        assert (status.candidate, status.wave, status.phase) == (case.built("b", 2), halted, "Paused")
        assert case.condition(plan, "Progressing") == ("False", "Paused")


def test_a_wave_that_was_paused_goes_on() -> None:
    model = case.make_model("b", case.rolling(wave=case.WAVE.model_copy(update={"halted": "Paused"})))
    facts = case.facts_of(model, gate=None, tenants=(case.tenant("t", case.promoted()),))
    assert case.status_of(case.steady(model, facts)).wave == case.WAVE


def test_a_paused_model_without_a_candidate_says_so() -> None:
    model = case.make_model("b", EmbeddingModelStatus(active=case.promoted(), next_number=2), paused=True)
    plan = case.steady(model, case.facts_of(model))
    assert (plan.actions, case.status_of(plan).phase) == ((), "Paused")
    assert case.condition(plan, "Ready") == ("False", "Paused")


def test_a_pause_does_not_hold_back_the_way_back_that_a_person_asks_for() -> None:
    warm = case.promoted("a", 1, promoted_at=case.at(days=-3), retire_after=case.at(hours=40))
    active = case.promoted("b", 2)
    status = EmbeddingModelStatus(active=active, retiring=(warm,), next_number=3)
    model = case.make_model(
        "b", status, paused=True, metadata={"annotations": {"searchops.dev/rollback": active.revision}}
    )
    plan = plan_model(model, case.facts_of(model), case.NOW)
    assert case.told(plan.actions) == ["WriteState", "event RolledBack"]
    assert case.status_of(plan).active == case.promoted("a", 1, promoted_at=case.at(days=-3))


def test_attempts_are_kept_once_for_each_digest_and_within_a_bound() -> None:
    status = EmbeddingModelStatus()
    for number in range(120):
        attempt = AttemptStatus(
            digest=f"sha256:{number % 60:064x}", at=case.at(hours=number), evidence=f"s3://e/{number}"
        )
        status = with_attempt(status, attempt)
    assert [item.evidence for item in status.attempts] == [f"s3://e/{number}" for number in range(70, 120)]
    own = status.attempts[-1].digest
    assert own not in {item.digest for item in earlier_attempts(status, own)}
    assert len(earlier_attempts(status, own)) == 49
