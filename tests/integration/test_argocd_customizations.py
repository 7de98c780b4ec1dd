"""Health in Lua, judged by Argo CD itself: every reason and every phase."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import pytest

from integration.argocd_objects import (
    PHASES,
    SETTLED,
    ArgoCd,
    Json,
    condition,
    job,
    model,
    tenant,
)
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, Phase, ServersStatus, ServerTrouble
from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexReason
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.rollout import plan_model
from searchops.planning.server_troubles import MAX_RELOADS
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelFacts

pytestmark = pytest.mark.integration

DEGRADED_MODEL = {
    ModelReason.ACCURACY_FAILED,
    ModelReason.BAD_CHECKPOINT,
    ModelReason.BREAKER_OPEN,
    ModelReason.BUILD_FAILED,
    ModelReason.DIGEST_MISMATCH,
    ModelReason.GATE_INVALID,
    ModelReason.INVALID_SPEC,
    ModelReason.LOAD_FAILED,
    ModelReason.POD_TEMPLATE_NOT_ALLOWED,
    ModelReason.POD_TEMPLATE_NOT_FOUND,
    ModelReason.POOL_NOT_FOUND,
    ModelReason.REGRESSED,
    ModelReason.REJECTED,
    ModelReason.ROLLED_BACK,
    ModelReason.SIGNAL_DEGRADED,
    ModelReason.SOURCE_NOT_ALLOWED,
    ModelReason.STATE_UNKNOWN,
    ModelReason.VERIFY_FAILED,
}
#: In a stage's own condition: waited for until the condition Progressing says that the operator has given up.
TRIED_AGAIN = {
    ModelReason.BUILD_FAILED,
    ModelReason.GATE_INVALID,
    ModelReason.LOAD_FAILED,
    ModelReason.VERIFY_FAILED,
}
SUSPENDED_MODEL = {
    ModelReason.AWAITING_APPROVAL,
    ModelReason.DRY_RUN,
    ModelReason.INCONCLUSIVE,
    ModelReason.PAUSED,
}
DEGRADED_TENANT = {
    TenantReason.ADOPTION_REFUSED,
    TenantReason.CELL_IDENTITY_MISMATCH,
    TenantReason.CELL_KEY_TOO_WEAK,
    TenantReason.CELL_MISSING,
    TenantReason.CELL_TOO_OLD,
    TenantReason.COLLECTION_LOST,
    TenantReason.CONFLICT,
    TenantReason.INVALID_SPEC,
    TenantReason.ISOLATION_BROKEN,
    TenantReason.MODEL_NOT_FOUND,
    TenantReason.NO_CAPACITY,
    TenantReason.NO_MATCHING_CELL,
    TenantReason.NOT_SUPPORTED,
    TenantReason.PINNED_QUERIES_INVALID,
    TenantReason.PINNED_QUERIES_LOST,
    TenantReason.PINNED_QUERIES_UNDECIDED,
    TenantReason.REBUILD_FAILED,
    TenantReason.SEARCH_FAILED,
    TenantReason.SECRET_CONFLICT,
}
DEGRADED_JOB = {
    ReindexReason.INVALID_SPEC,
    ReindexReason.NOT_SUPPORTED,
    ReindexReason.POD_TEMPLATE_NOT_ALLOWED,
    ReindexReason.POD_TEMPLATE_NOT_FOUND,
    ReindexReason.SOURCE_NOT_ALLOWED,
    ReindexReason.TENANT_NOT_FOUND,
}
SUSPENDED_JOB = {ReindexReason.AWAITING_APPROVAL, ReindexReason.SUSPENDED}


def test_every_phase_of_a_model(argocd: ArgoCd) -> None:
    assert set(PHASES) == set(get_args(Phase))
    seen = argocd.health([document for document, _ in PHASES.values()])
    assert {name: status for name, (status, _) in zip(PHASES, seen, strict=True)} == {
        name: wanted for name, (_, wanted) in PHASES.items()
    }


@pytest.mark.parametrize("kind", ["Ready", "Progressing", "ServersInSync"])
def test_every_reason_of_a_model(argocd: ArgoCd, kind: str) -> None:
    """Whatever condition carries it; on the way it is Progressing unless it says that a person is needed."""
    told = DEGRADED_MODEL | SUSPENDED_MODEL | {ModelReason.OUT_OF_SYNC, ModelReason.LOADING, ModelReason.WAITING}
    reasons = list(ModelReason) if kind == "Ready" else sorted(told)
    on_its_way = () if kind == "Ready" else (condition("Ready", "False", "Progressing", "on its way"),)
    seen = argocd.health([model(*on_its_way, condition(kind, "False", reason)) for reason in reasons])
    for reason, (status, message) in zip(reasons, seen, strict=True):
        wanted = "Degraded" if reason in DEGRADED_MODEL else "Suspended" if reason in SUSPENDED_MODEL else "Progressing"
        if kind == "ServersInSync" and reason in TRIED_AGAIN:
            wanted = "Progressing"
        assert status == wanted, reason
        if wanted != "Progressing":
            assert message == f"{reason}: said so"


def as_planned(model_of: EmbeddingModel, facts: ModelFacts) -> Json:
    """The object with the status that the planner writes for it, as the API server gives it."""
    plan = plan_model(model_of, facts, case.NOW)
    assert plan.status is not None
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "shop", "generation": 7},
        "spec": model_of.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "status": plan.status.to_wire(),
    }


def with_trouble(reason: str, *, attempts: int = 0, reloads: int = 0) -> EmbeddingModel:
    """A candidate that one canary server does not serve."""
    trouble = ServerTrouble(
        server="c1",
        revision=case.built("b", 2).revision,
        reason=reason,
        message="seen before",
        since=case.at(minutes=-9),
        attempts=attempts,
        reloads=reloads,
    )
    return case.make_model("b", case.gating(servers=ServersStatus(total=3, in_sync=2, failing=(trouble,))))


def unserved(gating: EmbeddingModel, outcome: str | None) -> ModelFacts:
    """Facts in which the canary server lacks the candidate, or answers an inference with this outcome."""
    names = [case.promoted().revision, *([case.built("b", 2).revision] if outcome is not None else [])]
    canary = case.pool("canary", case.server("c1", *names))
    if outcome is not None:
        canary = replace(canary, inference={**canary.inference, ("c1", names[-1]): outcome})
    return case.facts_of(gating, canary=canary)


def test_what_the_operator_tries_again_by_itself_is_waited_for_until_it_gives_up(argocd: ArgoCd) -> None:
    gating, building = case.make_model("b", case.gating()), case.make_model(status=case.building())
    facts, third = case.facts_of(building), case.make_model(status=case.building(candidate=case.chosen(attempt=3)))
    last = case.facts_of(third)
    judging, judging_facts = case.make_model("b", case.gating()), case.facts_of(case.make_model("b", case.gating()))
    timed_out, wrong = "inference fails: timed out", "cosine 0.31"
    rows = [
        (as_planned(gating, unserved(gating, timed_out)), "Progressing"),
        (as_planned(gating, unserved(gating, wrong)), "Progressing"),
        (as_planned(spent := with_trouble("WrongVectors", reloads=MAX_RELOADS), unserved(spent, wrong)), "Degraded"),
        (as_planned(gating, unserved(gating, None)), "Progressing"),
        (as_planned(spent := with_trouble("NotLoaded", attempts=2), unserved(spent, None)), "Degraded"),
        (as_planned(building, replace(facts, build=case.job(facts.build, complete=True))), "Progressing"),
        (as_planned(third, replace(last, build=case.job(last.build, complete=True))), "Degraded"),
        (as_planned(judging, replace(judging_facts, gate=case.job(judging_facts.gate, complete=True))), "Progressing"),
        (as_planned(gating, case.facts_of(gating, canary=None)), "Degraded"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [(number, status) for number, (status, _) in enumerate(seen)] == [
        (number, wanted) for number, (_, wanted) in enumerate(rows)
    ], seen
    assert seen[2][1].startswith("VerifyFailed: servers were tried in vain")
    assert seen[4][1].startswith("LoadFailed: servers were tried in vain")


def test_a_held_tenant_cannot_stand_in_for_one_that_is_not_bound(argocd: ArgoCd) -> None:
    active = case.promoted()
    settled = case.make_model("a", EmbeddingModelStatus(active=active, next_number=2))
    held = tuple(case.tenant(f"held{n}", active, held=True) for n in range(2))
    unbound = tuple(case.tenant(f"free{n}") for n in range(2))
    bound = tuple(case.tenant(f"free{n}", active) for n in range(2))
    rows = [as_planned(settled, case.facts_of(settled, tenants=tenants)) for tenants in (held + unbound, held + bound)]
    waited, whole = argocd.health(rows)
    assert waited[0] == "Progressing"
    assert waited[1].startswith("0 of 2 tenants are bound")
    assert whole[0] == "Healthy"


def test_a_model_whose_pool_is_gone_is_degraded_also_while_nothing_is_rolled_out(argocd: ArgoCd) -> None:
    settled = case.make_model("a", EmbeddingModelStatus(active=case.promoted(), next_number=2))
    gone = as_planned(settled, case.facts_of(settled, serving=None, canary=None))
    ((status, message),) = argocd.health([gone])
    assert (status, message.startswith("PoolNotFound: ")) == ("Degraded", True)


def test_a_worse_condition_wins_and_what_speaks_of_no_rollout_is_passed_over(argocd: ArgoCd) -> None:
    rows = [
        (model(condition("Ready", "False", "Paused"), condition("ServersInSync", "False", "PoolNotFound")), "Degraded"),
        (
            model(condition("GatePassed", "True", "Regressed"), condition("Ready", "False", "Progressing")),
            "Progressing",
        ),
        (model(SETTLED, condition("RollbackReady", "False", "NoEarlierRevision"), candidate=None), "Healthy"),
        (model(SETTLED, condition("ServersInSync", "False", "OutOfSync"), candidate=None), "Healthy"),
        (model(SETTLED, candidate=None, tenants={"total": 6, "bound": 3, "held": 2}), "Progressing"),
        (model(condition("Ready", "Unknown", "Unreachable")), "Progressing"),
        (model(condition("Ready", "False", "ReasonOfALaterVersion")), "Progressing"),
        (model(condition("Ready", "True", "Promoted"), seen=2), "Progressing"),
        (model(), "Progressing"),
        ({**model(), "status": {}}, "Progressing"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [status for status, _ in seen] == [wanted for _, wanted in rows]
    assert "3 of 4 tenants are bound" in seen[4][1]
    assert "acted on generation 2" in seen[7][1]
    assert "acted on generation 0" in seen[9][1]


def test_every_reason_of_a_tenant(argocd: ArgoCd) -> None:
    reasons = list(TenantReason)
    seen = argocd.health([tenant(condition("Ready", "False", reason)) for reason in reasons])
    for reason, (status, message) in zip(reasons, seen, strict=True):
        wanted = (
            "Degraded" if reason in DEGRADED_TENANT else "Suspended" if reason == TenantReason.PAUSED else "Progressing"
        )
        assert status == wanted, reason
        assert message.endswith("said so")


def test_a_tenant_is_healthy_only_when_it_is_ready_in_this_generation(argocd: ArgoCd) -> None:
    ready = condition("Ready", "True", "Ready")
    rows = [
        (tenant(ready, condition("BackupFresh", "False", "BackupStale"), phase="Ready"), "Healthy"),
        (tenant(ready, phase="Ready", seen=2), "Progressing"),
        (tenant(ready, phase="Paused", paused=True), "Suspended"),
        (tenant(condition("Ready", "False", "IsolationBroken"), phase="Paused", paused=True), "Degraded"),
        (tenant(condition("Ready", "Unknown", "CellUnreachable")), "Progressing"),
        (tenant(condition("Placed", "True", "Placed")), "Progressing"),
        ({**tenant(), "status": {}}, "Progressing"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [status for status, _ in seen] == [wanted for _, wanted in rows]


def test_every_phase_and_reason_of_a_reindex_job(argocd: ArgoCd) -> None:
    ends = {"Switched": "Healthy", "Failed": "Degraded", "Cancelled": "Degraded"}
    phases = list(get_args(JobPhase))
    seen = argocd.health([job(phase, condition("Ready", "False", "Waiting", "the message")) for phase in phases])
    for phase, (status, message) in zip(phases, seen, strict=True):
        assert status == ends.get(phase, "Progressing"), phase
        if phase != "Switched":
            assert message == "Waiting: the message"
    reasons = list(ReindexReason)
    seen = argocd.health([job("Embedding", condition("Ready", "False", reason)) for reason in reasons])
    for reason, (status, _) in zip(reasons, seen, strict=True):
        wanted = "Degraded" if reason in DEGRADED_JOB else "Suspended" if reason in SUSPENDED_JOB else "Progressing"
        assert status == wanted, reason
    rest = [job(None), job("Switched", seen=2), {**job(None), "status": {}}]
    assert [status for status, _ in argocd.health(rest)] == ["Progressing"] * 3
