"""What outlives a rollout: a lost status, a window that ends, a model that is deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, HistoryEntry
from searchops.planning.model_facts import ModelPlan, RemoveFinalizer
from searchops.planning.rollout import plan_model
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel


def test_a_lost_status_comes_back_from_the_config_map() -> None:
    stored = EmbeddingModelStatus(
        active=case.promoted(),
        retiring=(case.promoted("c", 3, retire_after=case.at(hours=9)),),
        rejected=(case.refused("b", 2),),
        history=(HistoryEntry(revision=case.promoted().revision, event="Promoted", at=case.at(days=-2)),),
        next_number=4,
    )
    model = case.make_model("b")
    plan = plan_model(model, case.facts_of(model, stored=stored, bindings_of_this_model=True), case.NOW)
    status = case.status_of(plan)
    assert (status.active, status.retiring, status.rejected, status.next_number, status.history) == (
        stored.active,
        stored.retiring,
        stored.rejected,
        4,
        stored.history,
    )
    assert case.condition(plan, "Ready") == ("False", "Rejected")


def test_with_neither_record_nothing_is_demoted() -> None:
    model = case.make_model("b")
    bound = (case.tenant("t", case.promoted()),)
    names = (case.promoted().revision,)
    facts = case.facts_of(
        model, tenants=bound, bindings_of_this_model=True, serving=case.pool("default", case.server("s1", *names))
    )
    plan = case.steady(model, facts)
    assert plan.actions == ()
    status = case.status_of(plan)
    assert (status.active, status.candidate, status.next_number, status.phase) == (None, None, None, "Paused")
    assert case.condition(plan, "Ready") == ("False", "StateUnknown")
    assert "searchops-model-shop" in case.message(plan, "Ready")


def test_a_model_is_not_taken_for_new_while_bindings_are_unread() -> None:
    model = case.make_model("b")
    plan = case.steady(model, case.facts_of(model, unread_tenants=2))
    assert plan.actions == ()
    assert (case.status_of(plan).phase, case.condition(plan, "Ready")) == ("Pending", ("Unknown", "Waiting"))
    assert plan.requeue_after == 5.0


def test_a_retiring_revision_is_kept_to_the_end_of_its_window_and_then_released() -> None:
    warm = case.promoted("a", 1, retire_after=case.at(hours=1))
    model = case.make_model("b", EmbeddingModelStatus(active=case.promoted("b", 2), retiring=(warm,), next_number=3))
    plan = case.steady(model, case.facts_of(model))
    assert (plan.actions, plan.requeue_after) == ((), 3600.0)
    assert case.condition(plan, "RollbackReady") == ("True", "Warm")
    plan = plan_model(model, case.facts_of(model), case.later(hours=1))
    assert case.told(plan.actions)[0] == "WriteState"
    assert case.told(plan.actions)[1:] == [
        f"unload {url} {warm.revision}{part}" for url in ("s1", "s2") for part in ("", "-tok", "-enc")
    ]
    assert case.status_of(plan).retiring == ()
    assert case.condition(plan, "RollbackReady") == ("False", "NoEarlierRevision")


def test_a_deleted_model_is_kept_while_a_tenant_names_it_and_goes_on_serving() -> None:
    gone = {"deletionTimestamp": case.at()}
    model = case.make_model("a", EmbeddingModelStatus(active=case.promoted(), next_number=2), metadata=gone)
    facts = case.facts_of(
        model, tenants=(case.tenant("t", case.promoted()),), serving=case.pool("default", case.server("s1"))
    )
    plan = case.steady(model, facts)
    assert case.told(plan.actions) == [
        f"load s1 {case.promoted().revision}-enc",
        f"load s1 {case.promoted().revision}-tok",
        f"load s1 {case.promoted().revision}",
    ]
    assert case.condition(plan, "Ready") == ("False", "InUse")
    assert "1 tenants" in case.message(plan, "Ready")


def test_a_deleted_model_is_kept_while_a_binding_of_another_models_tenant_names_it() -> None:
    model = case.make_model(
        "a", EmbeddingModelStatus(active=case.promoted(), next_number=2), metadata={"deletionTimestamp": case.at()}
    )
    plan = case.steady(model, case.facts_of(model, bound_elsewhere=(case.promoted().revision,)))
    assert plan.actions == ()
    assert case.condition(plan, "Ready") == ("False", "InUse")


def test_a_deleted_model_is_unloaded_everywhere_before_it_is_let_go() -> None:
    name = case.promoted().revision
    model = case.make_model(
        "b",
        EmbeddingModelStatus(active=case.promoted(), candidate=case.chosen("b", 2), next_number=3),
        metadata={"deletionTimestamp": case.at()},
    )
    facts = case.facts_of(model)
    facts = replace(
        facts,
        build=case.job(facts.build),
        serving=case.pool("default", case.server("s1", name)),
        canary=case.pool("canary"),
    )
    plan = plan_model(model, facts, case.NOW)
    assert case.told(plan.actions) == [
        "DeleteJob",
        f"unload s1 {name}",
        f"unload s1 {name}-tok",
        f"unload s1 {name}-enc",
    ]
    assert case.condition(plan, "Ready") == ("False", "Deleting")
    assert f"s1 holds {name} READY" in case.message(plan, "Ready")
    facts = replace(facts, build=None, serving=case.pool("default", case.server("s1")))
    assert plan_model(model, facts, case.NOW) == ModelPlan((RemoveFinalizer(),), None)
    released = case.make_model("b", metadata={"deletionTimestamp": case.at(), "finalizers": []})
    assert plan_model(released, facts, case.NOW) == ModelPlan((), None)


def deleted(**annotations: str) -> EmbeddingModel:
    metadata = {"deletionTimestamp": case.at(), "annotations": annotations}
    return case.make_model("a", EmbeddingModelStatus(active=case.promoted(), next_number=2), metadata=metadata)


def test_a_server_that_is_stuck_or_silent_is_waited_for_by_name_with_what_to_do() -> None:
    name = case.promoted().revision
    stuck = case.server("s1", models={f"{name}-enc": "LOADING"})
    silent = case.server("s2", reachable=False, error="connect: Connection refused (111)")
    model = deleted()
    facts = case.facts_of(model, serving=case.pool("default", stuck, silent), canary=case.pool("canary"))
    plan = case.steady(model, facts)
    assert case.told(plan.actions) == [f"unload s1 {name}-enc"]
    assert (case.condition(plan, "Ready"), plan.requeue_after) == (("False", "Deleting"), 1.0)
    said = case.message(plan, "Ready")
    assert f"2 servers: s1 holds {name}-enc LOADING; s2 does not answer (refused)" in said
    assert 'searchops.dev/abandon: "true"' in said
    assert "out of its pool's Secret" in said
    assert case.status_of(plan).active == model.status.active, "nothing else of the status is touched"
    assert plan_model(model, facts, case.later(minutes=5)).requeue_after == 10.0


def test_what_an_unload_was_refused_with_is_told() -> None:
    name = case.promoted().revision
    pool = replace(case.pool("default", case.server("s1", name)), refusals={("s1", name): "it is in use"})
    model = deleted()
    plan = case.steady(model, case.facts_of(model, serving=pool, canary=case.pool("canary")))
    assert "(it is in use)" in case.message(plan, "Ready")


def test_an_abandoned_model_is_let_go_and_what_is_left_behind_is_told() -> None:
    name = case.promoted().revision
    silent = case.server("s2", reachable=False, error="refused")
    pools = {"serving": case.pool("default", case.server("s1", name), silent), "canary": case.pool("canary")}
    model = deleted(**{"searchops.dev/abandon": "true"})
    plan = plan_model(model, case.facts_of(model, **pools), case.NOW)
    assert case.told(plan.actions)[:3] == [f"unload s1 {name}{part}" for part in ("", "-tok", "-enc")]
    assert case.told(plan.actions)[3:] == ["event Abandoned", "RemoveFinalizer"]
    assert plan.status is None
    model = deleted(**{"searchops.dev/abandon": "yes"})
    plan = plan_model(model, case.facts_of(model, **pools), case.NOW)
    assert RemoveFinalizer() not in plan.actions
    bound = (case.tenant("t", case.promoted()),)
    model = deleted(**{"searchops.dev/abandon": "true"})
    plan = plan_model(model, case.facts_of(model, tenants=bound, **pools), case.NOW)
    assert (RemoveFinalizer() in plan.actions, case.condition(plan, "Ready")) == (False, ("False", "InUse"))


def test_the_fixtures_are_what_build_and_gate_answer() -> None:
    """The tests' `built` and verdict go through the same models as a worker's answers do."""
    assert case.build_result(case.built().revision).exit_code == 0
    assert case.verdict(case.built().revision, "Pass").outcome == "Pass"
