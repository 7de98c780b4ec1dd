"""Whole plans of a tenant with pinned queries of its own: tried before it follows, held back alone where they fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from searchops.api.meta import ArtifactReference, format_time
from searchops.api.observed import JobState
from searchops.api.tasks import PinnedResult, PinnedTask
from searchops.api.v1alpha1.search_tenant_status import PinnedStatus
from searchops.planning.jobs import JobOrder, TemplateProblem
from searchops.planning.names import KEY_BINDING, KEY_PENDING, KEY_PREVIOUS, KEY_RELEASED_AT, job_name
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_facts import (
    CreateReindexJob,
    EmitEvent,
    PatchCollection,
    StartTrial,
    StopTrial,
    TenantFacts,
    TenantPlan,
    TrialFacts,
)
from unit.planning import tenant_cases as case

R1, R2, R3 = (case.revision(number).revision for number in (1, 2, 3))
URI, SET = "s3://holdouts/shop/pinned/1.0.0", "sha256:" + "5" * 64
OTHER_SET = "sha256:" + "6" * 64
PINNED = {"gate": {"pinned": {"uri": URI, "digest": SET}}}
FACTS = TrialFacts(
    artifacts="s3://artifacts",
    prefixes=("s3://holdouts/shop/",),
    allowed=True,
    servers=("triton-0:8001",),
    template="gpu",
    most=2,
)
JOB = job_name("pinned", "uid-1", SET, R2, R1, "1")
EVIDENCE = f"s3://artifacts/evidence/{JOB}.json"
TRIED = f"spec.gate.pinned: Job {JOB} tries them on {R2}; the tenant keeps {R1} meanwhile"
LOST = f"spec.gate.pinned: {R2} would lose 2 of 9 pinned queries (q1, q4); evidence: {EVIDENCE}; the tenant keeps {R1}"


def status(outcome: str = "Running", **changes: Any) -> PinnedStatus:
    fields = {"revision": R2, "incumbent": R1, "digest": SET, "outcome": outcome, "job": JOB}
    return PinnedStatus.model_validate({**fields, **changes})


def tenant(pinned: PinnedStatus | None = None, spec: dict[str, Any] | None = None, **more: Any) -> Any:
    known = {"pinned": pinned.to_wire()} if pinned is not None else {}
    return case.make_tenant({**PINNED, **(spec or {})}, status={**known, **more})


def facts(trial: TrialFacts | None = FACTS, *, bound: int = 1, **changes: Any) -> TenantFacts:
    """Revisions 1 and 2 share a space; 2 is a candidate whose wave has reached everybody."""
    changes.setdefault("model", case.make_model(case.revision(1), candidate=case.revision(2, "s1"), fraction="1"))
    return case.make_facts(case.make_collection(case.dense(bound)), trial=trial, **changes)


def held(reason: str, message: str, pinned: PinnedStatus | None, **binding: Any) -> Any:
    bound = binding.pop("bound", case.dense(1))
    said = {
        "ModelBound": ("False", reason, message),
        "Ready": ("False", reason, f"ModelBound: {message}"),
    }
    expected = case.expected_status(bound, conditions=said, phase="Progressing", **binding)
    return expected.model_copy(update={"pinned": pinned})


def order(attempt: int = 1, *, incumbent: Any = None, candidate: Any = None) -> JobOrder:
    before = incumbent or case.dense(1)
    after = candidate or case.dense(2, space="s1", at=case.NOW)
    name = job_name("pinned", "uid-1", SET, after.revision or "", before.revision or "lexical", str(attempt))
    task = PinnedTask(
        field="spec.gate.pinned",
        pinned=ArtifactReference(uri=URI, digest=SET),
        within=("s3://holdouts/shop/",),
        incumbent=before,
        candidate=after,
        servers=("triton-0:8001",),
        evidence_uri=f"s3://artifacts/evidence/{name}.json",
        result_uri=f"s3://artifacts/results/{name}.json",
    )
    return JobOrder(name, "evaluate", task, tenant().metadata, "SearchTenant", timedelta(hours=1))


def plan(who: Any, seen: TenantFacts) -> TenantPlan:
    return plan_tenant(who, seen, case.SETTINGS, case.NOW)


def test_a_tenant_that_may_follow_tries_its_queries_first() -> None:
    expected = held("PinnedQueriesTried", TRIED, status())
    assert plan(tenant(), facts()) == TenantPlan((StartTrial(order(), "gpu"),), expected, 15.0)


def test_it_waits_while_the_job_runs_and_for_a_job_that_was_not_made() -> None:
    running = replace(FACTS, job=JobState(JOB, "job-uid", active=1))
    expected = held("PinnedQueriesTried", TRIED, status())
    assert plan(tenant(status()), facts(running)) == TenantPlan((), expected, 15.0)
    assert plan(tenant(status()), facts()) == TenantPlan((StartTrial(order(), "gpu"),), expected, 15.0)


def test_once_all_hold_that_is_written_first_and_then_the_tenant_follows() -> None:
    answer = PinnedResult(
        revision=R2, outcome="Pass", message="9 hold", of=9, evidence_uri=EVIDENCE, evidence_digest=case.DIGEST
    )
    passed = status("Pass", of=9, message="9 hold", evidence=EVIDENCE, evidenceDigest=case.DIGEST)
    said = f"spec.gate.pinned: all 9 hold on {R2}; the tenant follows; the tenant keeps {R1} meanwhile"
    written = plan(tenant(status()), facts(replace(FACTS, answer=answer)))
    assert written == TenantPlan((), held("PinnedQueriesTried", said, passed), 0.5)
    values = {
        KEY_BINDING: case.dense(2, space="s1", at=case.NOW).to_metadata(),
        KEY_PREVIOUS: case.dense(1).to_metadata(),
        KEY_PENDING: None,
        KEY_RELEASED_AT: case.STAMP,
    }
    followed = (
        PatchCollection(f"{case.ALIAS}@g1", tuple(sorted(values.items()))),
        EmitEvent("BindingSwitched", f"{R1} → {R2} without re-embedding"),
    )
    assert plan(tenant(passed), facts()) == TenantPlan(followed, None, 0.0)


def test_lost_queries_hold_back_this_tenant_and_stay_said() -> None:
    answer = PinnedResult(
        revision=R2,
        outcome="Regressed",
        message="2 pinned queries lost",
        lost=("q1", "q4"),
        lost_total=2,
        of=9,
        evidence_uri=EVIDENCE,
        evidence_digest=case.DIGEST,
    )
    judged = status(
        "Regressed",
        lost=["q1", "q4"],
        lostTotal=2,
        of=9,
        message="2 pinned queries lost",
        evidence=EVIDENCE,
        evidenceDigest=case.DIGEST,
    )
    expected = held("PinnedQueriesLost", LOST, judged)
    event = EmitEvent("PinnedQueriesLost", LOST, warning=True)
    assert plan(tenant(status()), facts(replace(FACTS, answer=answer))) == TenantPlan((event,), expected, None)
    assert plan(tenant(judged), facts()) == TenantPlan((), expected, None)
    promoted = facts(model=case.make_model(case.revision(2, "s1"), retiring=(case.revision(1),)))
    assert plan(tenant(judged), promoted) == TenantPlan((), expected, None), "after the promotion too"


def test_queries_that_hang_on_missing_labels_hold_back_too() -> None:
    undecided = status("Inconclusive", lost=["q1"], lostTotal=1, of=9, evidence=EVIDENCE)
    message = f"spec.gate.pinned: {R2} may lose 1 of 9 pinned queries (q1); evidence: {EVIDENCE}; the tenant keeps {R1}"
    assert plan(tenant(undecided), facts()) == TenantPlan((), held("PinnedQueriesUndecided", message, undecided), None)


@pytest.mark.parametrize(
    ("attempt", "minutes"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 360), (40, 360)], ids=lambda value: str(value)
)
def test_a_set_that_cannot_be_used_is_tried_later_and_later(attempt: int, minutes: int) -> None:
    answer = PinnedResult(revision=R2, outcome="Invalid", message="spec.gate.pinned.digest: seen another")
    found = plan(tenant(status(attempt=attempt)), facts(replace(FACTS, answer=answer)))
    retry = format_time(case.NOW + timedelta(minutes=minutes))
    invalid = status("Invalid", attempt=attempt, message=answer.message, retryAt=retry)
    said = f"spec.gate.pinned: spec.gate.pinned.digest: seen another; tried again at {retry}; the tenant keeps {R1}"
    event = EmitEvent("PinnedQueriesInvalid", said, warning=True)
    assert found == TenantPlan((event,), held("PinnedQueriesInvalid", said, invalid), minutes * 60.0)


def test_a_job_without_an_answer_is_no_verdict_and_is_made_again_when_its_time_has_come() -> None:
    ended = replace(FACTS, job=JobState(JOB, "job-uid", failure="deadline exceeded", failure_reason="DeadlineExceeded"))
    found = plan(tenant(status()), facts(ended))
    assert found.status is not None
    failed = found.status.pinned
    assert failed is not None
    assert (failed.outcome, failed.retry_at) == ("Failed", "2026-11-24T12:05:00Z")
    assert failed.message == f"Job {JOB} ended without an answer (DeadlineExceeded deadline exceeded)"
    assert plan(tenant(failed), facts()).actions == ()
    due = failed.model_copy(update={"retry_at": case.STAMP})
    again = plan(tenant(due), facts())
    assert again.actions == (StartTrial(order(2), "gpu"),)
    assert again.status is not None
    assert again.status.pinned == status(job=order(2).name, attempt=2)
    reasons = {item.type: item.reason for item in again.status.conditions}
    assert reasons["ModelBound"] == "PinnedQueriesInvalid", "nobody waits for a second attempt"


def test_whether_a_job_has_answered_may_be_unknown() -> None:
    message = f"it is unknown whether Job {JOB} has answered: the store is silent"
    unread = replace(FACTS, unread="the store is silent")
    found = plan(tenant(status()), facts(unread))
    expected = case.expected_status(
        case.dense(1),
        conditions={
            "ModelBound": ("Unknown", "PinnedQueriesTried", message),
            "Ready": ("False", "PinnedQueriesTried", f"ModelBound: {message}"),
        },
        phase="Progressing",
    ).model_copy(update={"pinned": status()})
    assert found == TenantPlan((), expected, 15.0)


@pytest.mark.parametrize(
    ("trial", "reason", "said", "requeue"),
    [
        (None, "PinnedQueriesTried", "this process does not try pinned queries yet", 30.0),
        (replace(FACTS, servers=()), "PinnedQueriesTried", "the serving pool of its model is not registered", 30.0),
        (replace(FACTS, running=2), "PinnedQueriesTried", "waits for its turn: 2 trials run, 2 may at one time", 30.0),
        (replace(FACTS, problem=TemplateProblem(True, "no 'gpu'")), "PinnedQueriesInvalid", "no 'gpu'", 30.0),
        (
            replace(FACTS, allowed=False),
            "PinnedQueriesInvalid",
            f"{URI} is outside what this namespace may read (s3://holdouts/shop/); move the set, or ask for a prefix",
            None,
        ),
    ],
)
def test_what_keeps_a_trial_from_being_made_is_said(
    trial: TrialFacts | None, reason: str, said: str, requeue: float | None
) -> None:
    found = plan(tenant(), facts(trial))
    end = f"; the tenant keeps {R1}" + (" meanwhile" if reason == "PinnedQueriesTried" else "")
    assert found == TenantPlan((), held(reason, f"spec.gate.pinned: {said}{end}", None), requeue)


@pytest.mark.parametrize("change", ["set", "incumbent"])
def test_another_set_or_incumbent_is_another_question(change: str) -> None:
    judged = status("Regressed", digest=OTHER_SET) if change == "set" else status("Regressed", incumbent=None)
    found = plan(tenant(judged), facts())
    assert found.actions == (StartTrial(order(), "gpu"),)


def test_the_first_model_is_tried_against_the_lexical_legs() -> None:
    seen = case.make_facts(case.make_collection(case.lexical()), model=case.make_model(case.revision(1)), trial=FACTS)
    found = plan(tenant(), seen)
    wanted = order(incumbent=case.lexical(), candidate=case.dense(1, at=case.NOW))
    assert found.actions == (StartTrial(wanted, "gpu"),)
    assert found.status is not None
    assert {item.type: item.reason for item in found.status.conditions}["ModelBound"] == "PinnedQueriesTried"


def test_nothing_is_tried_for_going_back_or_for_what_a_person_names() -> None:
    back = facts(FACTS, bound=2, model=case.make_model(case.revision(1, "s2")))
    assert not any(isinstance(action, StartTrial) for action in plan(tenant(), back).actions)
    named = tenant(spec={"model": {"name": "enc", "revision": R2}})
    assert plan(named, facts()).actions[-1] == EmitEvent("BindingSwitched", f"{R1} → {R2} without re-embedding")
    without = case.make_tenant()
    assert plan(without, facts()).actions[-1] == EmitEvent("BindingSwitched", f"{R1} → {R2} without re-embedding")


def test_what_was_begun_goes_on_while_it_is_tried_and_is_taken_away_once_it_is_lost() -> None:
    """A set that is declared in the middle of a rebuild."""
    old, new = case.dense(1), case.dense(2, at=case.NOW)
    live = case.make_collection(old, pending=new)
    model = case.make_model(case.revision(1), candidate=case.revision(2), fraction="1")
    rebuild = {"reindexJob": "acme-1", "reason": "SpaceChanged", "targetSpace": "d-s2", "revision": R2}
    seen = case.make_facts(live, model=model, trial=replace(FACTS, job=JobState(JOB, "u", active=1)))
    waiting = plan(tenant(status(), rebuild=rebuild), seen)
    assert waiting.actions == ()
    assert waiting.status is not None
    assert waiting.status.rebuild is not None
    lost = status("Regressed", lost=["q1"], lostTotal=1, of=9, evidence=EVIDENCE)
    taken = plan(tenant(lost, rebuild=rebuild), case.make_facts(live, model=model, trial=FACTS))
    patches = [action for action in taken.actions if isinstance(action, PatchCollection)]
    assert [dict(patch.metadata)[KEY_PENDING] for patch in patches] == [None]


def test_a_tenant_that_is_held_back_still_gets_what_else_it_asks_for() -> None:
    lost = status("Regressed", lost=["q1"], lostTotal=1, of=9, evidence=EVIDENCE)
    german = tenant(lost, {"languages": ["de"]})
    found = plan_tenant(case.foreseen(german, facts()), facts(), case.SETTINGS, case.NOW)
    made = [action for action in found.actions if isinstance(action, CreateReindexJob)]
    assert not made or made[0].revision == R1
    assert found.status is None or found.status.plan is None or found.status.plan.revision == R1


def test_a_trial_that_nobody_waits_for_any_more_is_ended_and_not_counted_as_running() -> None:
    back = facts(model=case.make_model(case.revision(1)))
    found = plan(tenant(status()), back)
    assert found == TenantPlan((StopTrial(status().job or ""),), case.expected_status(case.dense(1)), None)
    kept = plan(tenant(status("Regressed")), back)
    assert kept.status is not None
    assert kept.status.pinned == status("Regressed"), "what came of it stays to be read"


@pytest.mark.parametrize("fraction", ["0", None])
def test_a_wave_that_stands_leaves_the_job_of_a_trial_that_will_be_asked_for_again(fraction: str | None) -> None:
    model = case.make_model(case.revision(1), candidate=case.revision(2, "s1"), fraction=fraction)
    found = plan(tenant(status()), facts(model=model))
    assert found.actions == ()
    assert found.status is not None
    assert found.status.pinned is None, "and its turn is not kept"
    other = plan(tenant(status(digest=OTHER_SET)), facts(model=model))
    assert other.actions == (StopTrial(JOB),), "a trial of another set is ended all the same"
