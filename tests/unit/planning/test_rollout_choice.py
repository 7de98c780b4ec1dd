"""Which revision becomes the candidate, what is refused, what is taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.v1alpha1.embedding_model import (
    EmbeddingModelStatus,
    HistoryEntry,
    RejectedStatus,
    VerdictStatus,
    WaveStatus,
)
from searchops.planning.model_facts import AddFinalizer, ModelPlan, RemoveFinalizer, WriteState
from searchops.planning.rollout import plan_model
from searchops.planning.rollout_choice import desired_of, wear_attempts

if TYPE_CHECKING:
    from tests.unit.planning.rollout_facts import (
        DIGESTS,
        NOW,
        after,
        at,
        build_result,
        built,
        chosen,
        condition,
        facts_of,
        job,
        later,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
        verdict,
    )
else:
    from unit.planning.rollout_facts import (
        DIGESTS,
        NOW,
        after,
        at,
        build_result,
        built,
        chosen,
        condition,
        facts_of,
        job,
        later,
        make_model,
        message,
        pool,
        promoted,
        server,
        status_of,
        steady,
        tenant,
        told,
        verdict,
    )


WAVE = WaveStatus(name="all", index=0, started_at=at(), fraction="1")
PASS = VerdictStatus(revision=built("b", 2).revision, outcome="Pass", message="it is Pass")


def rolling(**update: Any) -> EmbeddingModelStatus:
    """r1 is active, r2 is in its wave."""
    fields: dict[str, Any] = {
        "active": promoted(),
        "candidate": built("b", 2),
        "verdict": PASS,
        "wave": WAVE,
        "next_number": 3,
    }
    return EmbeddingModelStatus.model_validate({**fields, **update})


def refused(digest: str, number: int, token: str = "") -> RejectedStatus:
    return RejectedStatus(
        revision=built(digest, number).revision,
        digest=DIGESTS[digest],
        gate=desired_of(make_model()).gate,
        outcome="Regressed",
        reason="25 lost",
        retry_token=token,
        at=at(),
    )


def test_the_finalizer_comes_before_everything() -> None:
    model = make_model(metadata={"finalizers": []})
    assert plan_model(model, facts_of(model), NOW) == ModelPlan((AddFinalizer(),), None, 0.0)


def test_the_first_candidate_is_kept_in_the_config_map_before_anything_else() -> None:
    model = make_model()
    plan = plan_model(model, facts_of(model), NOW)
    assert told(plan.actions) == ["WriteState", "event CandidateChosen"]
    status = status_of(plan)
    assert status.candidate == chosen()
    assert (status.next_number, status.phase, status.observed_generation) == (2, "Pending", 7)
    assert plan.requeue_after == 0.0
    written = plan.actions[0]
    assert isinstance(written, WriteState)
    assert (written.status.candidate, written.status.next_number) == (status.candidate, status.next_number)
    assert condition(plan, "Ready") == ("False", "Progressing")


def test_a_superseded_candidate_starts_again_from_the_promoted_revision() -> None:
    model = make_model("c", rolling())
    plan = plan_model(model, facts_of(model, tenants=(tenant("t", built("b", 2)),)), NOW)
    status = status_of(plan)
    assert told(plan.actions) == ["WriteState", "event CandidateChosen"]
    assert status.candidate == chosen("c", 3)
    assert (status.active, status.wave, status.verdict, status.next_number) == (promoted(), None, None, 4)
    assert status.history == (
        HistoryEntry(revision=built("b", 2).revision, event="Superseded", at=at(), message="Pass"),
    )


def test_a_superseded_candidate_stays_loaded_while_a_tenant_is_bound_to_it() -> None:
    model = make_model("c", rolling(candidate=chosen("c", 3), wave=None, verdict=None))
    names = (promoted().revision, built("b", 2).revision)
    facts = facts_of(model, serving=pool("default", server("s1", *names)))
    bound = replace(facts, tenants=(tenant("t", built("b", 2)),))
    assert [line for line in told(plan_model(model, bound, NOW).actions) if "load" in line] == []
    assert [line for line in told(plan_model(model, facts, NOW).actions) if "load" in line] == [
        f"unload s1 {names[1]}",
        f"unload s1 {names[1]}-tok",
        f"unload s1 {names[1]}-enc",
    ]


@pytest.mark.parametrize("building", [True, False])
def test_going_back_to_the_active_revision_is_ready_at_once(building: bool) -> None:
    candidate = chosen("b", 2) if building else built("b", 2)
    model = make_model("a", rolling(candidate=candidate))
    facts = facts_of(model)
    facts = replace(facts, build=job(facts.build)) if building else replace(facts, gate=None)
    plan = plan_model(model, facts, NOW)
    assert told(plan.actions) == ["WriteState", *(["DeleteJob"] if building else []), "event Superseded"]
    status = status_of(plan)
    assert (status.candidate, status.wave, status.phase) == (None, None, "Promoted")
    assert condition(plan, "Ready") == ("True", "Promoted")
    settled = steady(after(model, plan), facts_of(after(model, plan)))
    assert (settled.actions, settled.requeue_after) == ((), None)


def test_a_job_that_was_never_made_is_not_deleted() -> None:
    model = make_model("a", rolling(candidate=chosen("b", 2), wave=None, verdict=None))
    assert told(plan_model(model, facts_of(model, build=None), NOW).actions) == ["WriteState", "event Superseded"]
    assert told(plan_model(model, facts_of(model), NOW).actions) == ["WriteState", "event Superseded"]


def test_going_back_to_a_warm_revision_skips_build_and_gate() -> None:
    warm = promoted("a", 1, retire_after=at(hours=40))
    model = make_model("a", EmbeddingModelStatus(active=promoted("b", 2), retiring=(warm,), next_number=3))
    plan = plan_model(model, facts_of(model), NOW)
    assert told(plan.actions) == ["WriteState", "event CandidateChosen"]
    model = after(model, plan)
    assert (model.status.candidate, model.status.retiring) == (warm, ())
    assert model.status.next_number == 3
    plan = plan_model(model, facts_of(model), NOW)
    assert told(plan.actions) == ["event WaveStarted"]
    assert condition(plan, "GatePassed") == ("True", "SkippedStillWarm")


def test_a_warm_candidate_that_is_dropped_stays_warm() -> None:
    warm = promoted("a", 1, retire_after=at(hours=40))
    status = EmbeddingModelStatus(active=promoted("b", 2), candidate=warm, next_number=3)
    model = make_model("b", status)
    assert status_of(plan_model(model, facts_of(model), NOW)).retiring == (warm,)
    model = make_model("a", status, metadata={"annotations": {"searchops.dev/rollback": warm.revision}})
    assert status_of(plan_model(model, facts_of(model), NOW)).retiring == (warm,)


def test_a_revision_past_its_window_is_built_again() -> None:
    cold = promoted("a", 1, retire_after=at(hours=-1))
    model = make_model("a", EmbeddingModelStatus(active=promoted("b", 2), retiring=(cold,), next_number=3))
    assert status_of(plan_model(model, facts_of(model), NOW)).candidate == chosen("a", 3)


def test_a_refused_commit_that_is_synced_again_does_nothing() -> None:
    status = EmbeddingModelStatus(active=promoted(), rejected=(refused("b", 2),), next_number=3)
    model = make_model("b", status)
    plan = steady(model, facts_of(model))
    assert plan.actions == ()
    assert (status_of(plan).phase, condition(plan, "Ready")) == ("RolledBack", ("False", "Rejected"))
    assert "25 lost" in message(plan, "Ready")
    assert f"{promoted().revision} stays active" in message(plan, "Ready")


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
    status = EmbeddingModelStatus(active=promoted(), rejected=(refused("b", 2),), next_number=3)
    digest = change.get("digest", "b")
    model = make_model(**{"digest": "b", **change}, status=status)
    assert status_of(plan_model(model, facts_of(model), NOW)).candidate == chosen(digest, 3)


def test_a_new_worker_or_policy_is_not_another_question() -> None:
    status = EmbeddingModelStatus(active=promoted(), rejected=(refused("b", 2),), next_number=3)
    model = make_model("b", status, gate={"mode": "DryRun", "onInconclusive": "Rollback"})
    assert plan_model(model, facts_of(model), NOW).actions == ()


def test_the_rollback_annotation_takes_the_candidate_back_and_is_remembered() -> None:
    annotated = {"annotations": {"searchops.dev/rollback": built("b", 2).revision}}
    model = make_model("b", rolling(), metadata=annotated)
    plan = plan_model(model, facts_of(model), NOW)
    assert told(plan.actions) == ["WriteState", "event CandidateRejected"]
    status = status_of(plan)
    assert (status.candidate, status.wave, status.phase) == (None, None, "RolledBack")
    assert [(entry.digest, entry.outcome) for entry in status.rejected] == [(DIGESTS["b"], "RolledBack")]
    assert status.verdict == PASS
    settled = after(model, plan)
    assert told(steady(settled, facts_of(settled)).actions) == []


def test_an_annotation_for_another_revision_takes_nothing_back() -> None:
    model = make_model("b", rolling(), metadata={"annotations": {"searchops.dev/rollback": built("b", 9).revision}})
    assert status_of(plan_model(model, facts_of(model), NOW)).candidate is None
    assert status_of(plan_model(model, facts_of(model), NOW)).rejected == ()


@pytest.mark.parametrize("warm", [True, False])
def test_the_rollback_annotation_takes_a_promoted_revision_back(warm: bool) -> None:
    earlier = promoted("a", 1, retire_after=at(hours=40))
    status = EmbeddingModelStatus(active=promoted("b", 2), retiring=(earlier,) if warm else (), next_number=3)
    annotated = {"annotations": {"searchops.dev/rollback": promoted("b", 2).revision}}
    model = make_model("b", status, metadata=annotated)
    plan = plan_model(model, facts_of(model), NOW)
    assert told(plan.actions) == ["WriteState", "event RolledBack"]
    result = status_of(plan)
    assert result.active == (promoted("a", 1) if warm else None)
    assert result.retiring == (promoted("b", 2, retire_after=at(hours=72)),)
    assert result.candidate is None
    settled = steady(after(model, plan), facts_of(after(model, plan)))
    assert settled.actions == ()
    assert condition(settled, "Ready") == ("False", "Rejected")


def test_a_paused_model_changes_no_candidate_and_keeps_its_servers() -> None:
    for paused in ({"paused": True}, {"metadata": {"annotations": {"searchops.dev/pause": ""}}}):
        model = make_model("c", rolling(), **paused)
        facts = facts_of(model, serving=pool("default", server("s1", built("b", 2).revision)))
        plan = steady(model, facts)
        assert told(plan.actions) == [
            f"load s1 {promoted().revision}-enc",
            f"load s1 {promoted().revision}-tok",
            f"load s1 {promoted().revision}",
        ]
        status = status_of(plan)
        assert (status.candidate, status.wave, status.phase) == (built("b", 2), WAVE, "Paused")
        assert condition(plan, "Progressing") == ("False", "Paused")


def test_a_paused_model_without_a_candidate_says_so() -> None:
    model = make_model("b", EmbeddingModelStatus(active=promoted(), next_number=2), paused=True)
    plan = steady(model, facts_of(model))
    assert (plan.actions, status_of(plan).phase) == ((), "Paused")
    assert condition(plan, "Ready") == ("False", "Paused")


def test_a_lost_status_comes_back_from_the_config_map() -> None:
    stored = EmbeddingModelStatus(
        active=promoted(),
        retiring=(promoted("c", 3, retire_after=at(hours=9)),),
        rejected=(refused("b", 2),),
        history=(HistoryEntry(revision=promoted().revision, event="Promoted", at=at(days=-2)),),
        next_number=4,
    )
    model = make_model("b")
    plan = plan_model(model, facts_of(model, stored=stored, bindings_of_this_model=True), NOW)
    status = status_of(plan)
    assert (status.active, status.retiring, status.rejected, status.next_number, status.history) == (
        stored.active,
        stored.retiring,
        stored.rejected,
        4,
        stored.history,
    )
    assert condition(plan, "Ready") == ("False", "Rejected")


def test_with_neither_record_nothing_is_demoted() -> None:
    model = make_model("b")
    bound = (tenant("t", promoted()),)
    names = (promoted().revision,)
    facts = facts_of(model, tenants=bound, bindings_of_this_model=True, serving=pool("default", server("s1", *names)))
    plan = steady(model, facts)
    assert plan.actions == ()
    status = status_of(plan)
    assert (status.active, status.candidate, status.next_number, status.phase) == (None, None, None, "Paused")
    assert condition(plan, "Ready") == ("False", "StateUnknown")
    assert "searchops-model-shop" in message(plan, "Ready")


def test_a_model_is_not_taken_for_new_while_bindings_are_unread() -> None:
    model = make_model("b")
    plan = steady(model, facts_of(model, unread_tenants=2))
    assert plan.actions == ()
    assert (status_of(plan).phase, condition(plan, "Ready")) == ("Pending", ("Unknown", "Waiting"))
    assert plan.requeue_after == 5.0


def test_a_retiring_revision_is_kept_to_the_end_of_its_window_and_then_released() -> None:
    warm = promoted("a", 1, retire_after=at(hours=1))
    model = make_model("b", EmbeddingModelStatus(active=promoted("b", 2), retiring=(warm,), next_number=3))
    plan = steady(model, facts_of(model))
    assert (plan.actions, plan.requeue_after) == ((), 3600.0)
    assert condition(plan, "RollbackReady") == ("True", "Warm")
    plan = plan_model(model, facts_of(model), later(hours=1))
    assert told(plan.actions)[0] == "WriteState"
    assert told(plan.actions)[1:] == [
        f"unload {url} {warm.revision}{part}" for url in ("s1", "s2") for part in ("", "-tok", "-enc")
    ]
    assert status_of(plan).retiring == ()
    assert condition(plan, "RollbackReady") == ("False", "NoEarlierRevision")


def test_a_deleted_model_is_kept_while_a_tenant_names_it_and_goes_on_serving() -> None:
    gone = {"deletionTimestamp": at()}
    model = make_model("a", EmbeddingModelStatus(active=promoted(), next_number=2), metadata=gone)
    facts = facts_of(model, tenants=(tenant("t", promoted()),), serving=pool("default", server("s1")))
    plan = steady(model, facts)
    assert told(plan.actions) == [
        f"load s1 {promoted().revision}-enc",
        f"load s1 {promoted().revision}-tok",
        f"load s1 {promoted().revision}",
    ]
    assert condition(plan, "Ready") == ("False", "InUse")
    assert "1 tenants" in message(plan, "Ready")


def test_a_deleted_model_is_kept_while_a_binding_of_another_models_tenant_names_it() -> None:
    model = make_model(
        "a", EmbeddingModelStatus(active=promoted(), next_number=2), metadata={"deletionTimestamp": at()}
    )
    plan = steady(model, facts_of(model, bound_elsewhere=(promoted().revision,)))
    assert plan.actions == ()
    assert condition(plan, "Ready") == ("False", "InUse")


def test_a_deleted_model_is_unloaded_everywhere_before_it_is_let_go() -> None:
    name = promoted().revision
    model = make_model(
        "b",
        EmbeddingModelStatus(active=promoted(), candidate=chosen("b", 2), next_number=3),
        metadata={"deletionTimestamp": at()},
    )
    facts = facts_of(model)
    facts = replace(facts, build=job(facts.build), serving=pool("default", server("s1", name)), canary=pool("canary"))
    plan = plan_model(model, facts, NOW)
    assert told(plan.actions) == ["DeleteJob", f"unload s1 {name}", f"unload s1 {name}-tok", f"unload s1 {name}-enc"]
    assert plan.status is None
    facts = replace(facts, build=None, serving=pool("default", server("s1")))
    assert plan_model(model, facts, NOW) == ModelPlan((RemoveFinalizer(),), None)
    released = make_model("b", metadata={"deletionTimestamp": at(), "finalizers": []})
    assert plan_model(released, facts, NOW) == ModelPlan((), None)


def test_wear_counts_other_digests_that_were_decided_within_thirty_days() -> None:
    def entry(digest: str, number: int, event: str, days: float, outcome: str | None = None) -> HistoryEntry:
        return HistoryEntry(revision=built(digest, number).revision, event=event, at=at(days=days), message=outcome)

    history = (
        entry("a", 1, "Promoted", -31),
        entry("b", 2, "Rejected", -29),
        entry("b", 3, "Rejected", -20),
        entry("c", 4, "Superseded", -10),
        entry("d", 5, "Superseded", -9, "Inconclusive"),
        entry("e", 6, "Promoted", -1),
    )
    status = EmbeddingModelStatus(history=history)
    assert wear_attempts(status, DIGESTS["f"], NOW) == 3
    assert wear_attempts(status, DIGESTS["e"], NOW) == 2


def test_the_fixtures_are_what_build_and_gate_answer() -> None:
    """The tests' `built` and verdict go through the same models as a worker's answers do."""
    assert build_result(built().revision).exit_code == 0
    assert verdict(built().revision, "Pass").outcome == "Pass"
