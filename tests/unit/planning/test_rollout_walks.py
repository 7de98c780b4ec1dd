"""Random walks through everything that may be seen: nothing unjudged is promoted, nothing unknown is acted on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.planning.model_facts import CreateJob, LoadModel, ModelFacts, UnloadModel
from searchops.planning.names import is_revision_of
from searchops.planning.rollout import plan_model
from searchops.planning.servers import wanted_on_canary, wanted_on_serving
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel

OUTCOMES = ("Pass", "Better", "Regressed", "Inconclusive", "Invalid")
JOBS: tuple[dict[str, object], ...] = ({}, {"complete": True}, {"failure": "stopped"}, {"suspended": True})
SPECS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"paused": True},
    {"rollout": {"retryToken": "t"}},
    {"gate": {"mode": "DryRun"}},
    {"gate": {"onInconclusive": "Rollback"}},
    {"metadata": {"annotations": {"searchops.dev/rollback": "shop-r2-bbbbbbbb"}}},
    {"rollout": {"approval": "BeforeFirstWave"}},
)
steps = st.fixed_dictionaries(
    {
        "job": st.sampled_from((*JOBS, None)),
        "answer": st.sampled_from((0, 0, 0, 0, None, 41)),
        "outcome": st.sampled_from((*OUTCOMES, "Pass", None)),
        "servers": st.sampled_from((*["good"] * 7, "empty", "down", "broken", "unproved", "none")),
        "bound": st.sampled_from(("candidate", "candidate", "active", "none")),
        "failed": st.sampled_from((False, False, False, True)),
        "unread": st.sampled_from((0, 0, 1)),
        "hours": st.sampled_from((0, 0, 1, 50)),
    }
)
segments = st.tuples(st.sampled_from("aabc"), st.sampled_from(SPECS), st.lists(steps, min_size=2, max_size=12))


def facts_at(model: EmbeddingModel, step: dict[str, object]) -> ModelFacts:
    """What a pass might see in this step."""
    facts = case.facts_of(model)
    status = model.status
    names = {"candidate": status.candidate, "active": status.active}.get(str(step["bound"]))
    facts = replace(
        facts, tenants=(case.tenant("t", names, failed=bool(step["failed"])),), unread_tenants=int(str(step["unread"]))
    )
    state, code, outcome = step["job"], step["answer"], step["outcome"]
    candidate = status.candidate
    if isinstance(state, dict):
        facts = replace(
            facts,
            build=case.job(facts.build, **state) if facts.build else None,
            gate=case.job(facts.gate, **state) if facts.gate else None,
            reevaluation=case.job(facts.reevaluation, **state) if facts.reevaluation else None,
        )
    if candidate is not None and facts.build is not None and code is not None:
        answer = case.build_result(
            candidate.revision,
            exit_code=code,
            engine_key=f"e{candidate.number}",
            fingerprint=candidate.digest,
        )
        facts = replace(facts, build_result=answer)
    if candidate is not None and facts.gate is not None and outcome is not None:
        facts = replace(facts, gate_result=case.verdict(candidate.revision, str(outcome)))
    if status.active is not None and facts.reevaluation is not None and outcome is not None:
        facts = replace(facts, reevaluation_result=case.verdict(status.active.revision, str(outcome)))
    return with_servers(model, facts, str(step["servers"]))


def with_servers(model: EmbeddingModel, facts: ModelFacts, kind: str) -> ModelFacts:
    if kind == "none":
        return replace(facts, serving=None, canary=None)
    on_serving = wanted_on_serving(model, model.status, facts)
    on_canary = wanted_on_canary(model, model.status, facts)
    if kind == "empty":
        return replace(
            facts, serving=case.pool("default", case.server("s1")), canary=case.pool("canary", case.server("c1"))
        )
    if kind == "down":
        down = case.server("s1", reachable=False, error="refused")
        return replace(facts, serving=case.pool("default", down), canary=case.pool("canary", down))
    serving, canary = (
        case.pool("default", case.server("s1", *on_serving)),
        case.pool("canary", case.server("c1", *on_canary)),
    )
    if kind == "broken":
        broken = {("c1", name): "cosine 0.1" for name in on_canary}
        canary = replace(canary, inference={**canary.inference, **broken})
    if kind == "unproved":
        serving, canary = replace(serving, inference={}), replace(canary, inference={})
    return replace(facts, serving=serving, canary=canary)


@settings(max_examples=150, deadline=None)
@given(st.lists(segments, min_size=1, max_size=5))
def test_a_walk_through_whatever_may_be_seen(
    walk: list[tuple[str, dict[str, Any], list[dict[str, object]]]],
) -> None:
    model = case.make_model("a")
    now = case.NOW
    let_through: set[str] = set()
    jobs: set[str] = set()
    numbers: dict[int, str] = {}
    for digest, spec, step in [(digest, spec, step) for digest, spec, passes in walk for step in passes]:
        now += timedelta(hours=int(str(step["hours"])), seconds=1)
        model = case.make_model(digest, model.status, **spec)
        facts = facts_at(model, step)
        plan = plan_model(model, facts, now)
        assert plan == plan_model(model.model_validate({**model.to_wire()}), facts, now), "restarts from status alone"
        if facts.gate_result is not None and facts.gate_result.outcome in ("Pass", "Better"):
            let_through.add(facts.gate_result.revision)
        assert plan.status is not None
        before, model = model.status, case.after(model, plan)
        status = model.status
        if status.active is not None and status.active != before.active:
            assert status.active.revision in let_through
            assert str(step["servers"]) not in ("down", "empty", "broken", "unproved", "none") or (
                before.active is not None and status.active.revision in {item.revision for item in before.retiring}
            )
        if status.wave is not None and before.wave is None:
            assert status.candidate is not None
            assert status.candidate.revision in let_through
            assert spec.get("gate", {}).get("mode") != "DryRun"
        for item in (status.active, status.candidate, *status.retiring):
            if item is not None:
                assert numbers.setdefault(item.number, item.revision) == item.revision
        for action in plan.actions:
            if isinstance(action, CreateJob):
                assert step["job"] is None
                jobs.add(action.order.name)
            if isinstance(action, LoadModel | UnloadModel):
                assert action.server.reachable
                assert is_revision_of("shop", action.model)
            if isinstance(action, UnloadModel) and not any(
                isinstance(other, LoadModel) and other.model == action.model for other in plan.actions
            ):
                bound = facts.tenants[0].bound
                assert not facts.unread_tenants
                assert bound is None or not action.model.startswith(bound) or action.server.url == "c1"
        assert len(status.retiring) <= 10


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(OUTCOMES), st.sampled_from("bc"))
def test_good_facts_end_as_the_verdict_says(outcome: str, digest: str) -> None:
    """With everything in order a candidate is promoted in a handful of passes, or it is not promoted at all."""
    model, now = case.make_model(digest), case.NOW
    for _ in range(12):
        step: dict[str, object] = {
            "job": {"complete": True},
            "answer": 0,
            "outcome": outcome,
            "servers": "good",
            "bound": "candidate",
            "failed": False,
            "unread": 0,
        }
        now += timedelta(seconds=1)
        model = case.after(model, plan_model(model, facts_at(model, step), now))
    active = model.status.active
    assert (active is not None) is (outcome in ("Pass", "Better"))
    assert active is None or active.digest == case.DIGESTS[digest]
    assert model.status.phase == {"Pass": "Promoted", "Better": "Promoted", "Regressed": "RolledBack"}.get(
        outcome, "Paused"
    )
