"""A candidate on the servers: loaded in order on every one, and believed only after an inference."""

from __future__ import annotations

from dataclasses import replace

from unit.planning import rollout_cases as case


def test_the_candidate_is_loaded_on_every_canary_server_in_order() -> None:
    model = case.make_model("b", case.gating())
    name = case.built("b", 2).revision
    down = case.server("c3", reachable=False, error="refused")
    canary = case.pool(
        "canary", case.server("c1", case.promoted().revision), case.server("c2", case.promoted().revision, name), down
    )
    plan = case.steady(model, case.facts_of(model, canary=canary))
    assert case.told(plan.actions) == [f"load c1 {name}-enc", f"load c1 {name}-tok", f"load c1 {name}"]
    assert (case.status_of(plan).phase, plan.requeue_after) == ("Loading", 3.0)
    assert case.condition(plan, "Loaded") == ("False", "Loading")
    assert "c3 does not answer (refused)" in case.message(plan, "ServersInSync")
    servers = case.status_of(plan).servers
    assert servers is not None
    assert (servers.total, servers.in_sync) == (5, 3)


def test_an_unregistered_pool_is_named() -> None:
    model = case.make_model("b", case.gating())
    plan = case.steady(model, case.facts_of(model, canary=None))
    assert case.condition(plan, "Loaded") == ("False", "PoolNotFound")
    assert "'canary'" in case.message(plan, "Loaded")


def test_ready_is_not_believed_before_an_inference() -> None:
    model = case.make_model("b", case.gating())
    name = case.built("b", 2).revision
    canary = case.pool("canary", case.server("c1", case.promoted().revision, name))
    unproved = replace(canary, inference={("c1", case.promoted().revision): ""})
    plan = case.steady(model, case.facts_of(model, canary=unproved))
    assert (plan.actions, case.condition(plan, "Verified")) == ((), ("False", "VerifyFailed"))
    assert "reference vectors cannot be read" in case.message(plan, "Verified")
    wrong = replace(canary, inference={**canary.inference, ("c1", name): "cosine 0.31"})
    plan = case.steady(model, case.facts_of(model, canary=wrong))
    assert case.told(plan.actions) == [
        f"unload c1 {name}",
        f"unload c1 {name}-tok",
        f"unload c1 {name}-enc",
        f"load c1 {name}-enc",
        f"load c1 {name}-tok",
        f"load c1 {name}",
    ]
    assert case.status_of(plan).phase == "Verifying"
    assert "cosine 0.31" in case.message(plan, "Verified")
