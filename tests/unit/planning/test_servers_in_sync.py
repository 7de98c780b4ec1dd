"""Server by server: what is loaded, what is unloaded, what is repaired, and what is never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.v1alpha1.embedding_model import EmbeddingModelStatus, VerdictStatus
from searchops.planning.names import model_parts
from searchops.planning.servers import sync_pool, wanted_on_canary, wanted_on_serving

if TYPE_CHECKING:
    from tests.unit.planning import rollout_cases as case
else:
    from unit.planning import rollout_cases as case


ONE, TWO, THREE = (case.built(digest, number).revision for number, digest in enumerate("abc", 1))
STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")


def test_models_are_loaded_encoder_first_and_unloaded_in_reverse() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", ONE)), (TWO,))
    assert case.told(sync.unloads) == [f"unload s1 {ONE}", f"unload s1 {ONE}-tok", f"unload s1 {ONE}-enc"]
    assert case.told(sync.loads) == [f"load s1 {TWO}-enc", f"load s1 {TWO}-tok", f"load s1 {TWO}"]
    assert (sync.total, sync.in_sync, sync.serves(TWO)) == (1, 0, False)


def test_a_part_that_is_loading_is_waited_for_and_the_others_are_loaded() -> None:
    state = case.server("s1", models={f"{ONE}-enc": "READY", f"{ONE}-tok": "LOADING"})
    assert case.told(sync_pool("shop", case.pool("p", state), (ONE,)).loads) == [f"load s1 {ONE}"]


def test_a_load_that_failed_is_told_with_its_reason() -> None:
    state = case.server("s1", models={f"{ONE}-enc": "UNAVAILABLE"}, reasons={f"{ONE}-enc": "out of memory"})
    sync = sync_pool("shop", case.pool("p", state), (ONE,))
    assert sync.waits_for(ONE) == (f"s1 does not serve {ONE}-enc (out of memory)",)


def test_a_server_that_is_down_is_asked_for_nothing() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", reachable=False, error="refused")), (ONE,))
    assert (sync.loads, sync.unloads, sync.in_sync) == ((), (), 0)
    assert sync.waits_for(ONE) == ("s1 does not answer (refused)",)


def test_an_empty_pool_serves_nothing() -> None:
    assert not sync_pool("shop", case.pool("p"), (ONE,)).serves(ONE)


def test_broken_inference_is_repaired_one_server_at_a_time() -> None:
    broken = {("s1", ONE): "inference fails", ("s2", ONE): "inference fails"}
    sync = sync_pool("shop", case.pool("p", case.server("s1", ONE), case.server("s2", ONE), inference=broken), (ONE,))
    assert case.told((*sync.unloads, *sync.loads)) == [
        f"unload s1 {ONE}",
        f"unload s1 {ONE}-tok",
        f"unload s1 {ONE}-enc",
        f"load s1 {ONE}-enc",
        f"load s1 {ONE}-tok",
        f"load s1 {ONE}",
    ]
    assert len(sync.waits_for(ONE)) == 2


def test_other_models_are_never_touched() -> None:
    foreign = ("shop2-r1-aaaaaaaa", "shop-r1", "shop-r1-zzzzzzzz", "resnet")
    state = case.server("s1", models=dict.fromkeys(foreign, "READY"))
    assert sync_pool("shop", case.pool("p", state), ()).unloads == ()


def test_nothing_is_unloaded_while_bindings_are_unread() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", ONE)), (), drop_extras=False)
    assert (sync.unloads, sync.in_sync) == ((), 1)


def test_one_pool_serves_as_its_own_canary() -> None:
    model = case.make_model(
        "b", EmbeddingModelStatus(active=case.promoted(), candidate=case.built("b", 2), next_number=3)
    )
    one = case.pool("default", case.server("s1"))
    facts = case.facts_of(model, serving=one, canary=one)
    assert wanted_on_serving(model, model.status, facts) == (ONE, TWO)
    assert wanted_on_canary(model, model.status, facts) == (ONE, TWO)


revisions = st.sampled_from([case.promoted("a", 1), case.promoted("b", 2), case.promoted("c", 3), None])


@settings(max_examples=60, deadline=None)
@given(bound=revisions, previous=revisions, elsewhere=revisions, candidate=revisions, passed=st.booleans())
def test_what_a_binding_names_is_always_wanted(
    bound: object, previous: object, elsewhere: object, candidate: object, passed: bool
) -> None:
    verdict = VerdictStatus(revision=TWO, outcome="Pass" if passed else "Invalid")
    warm = case.promoted("d", 4, retire_after=case.at(hours=1))
    status = EmbeddingModelStatus.model_validate(
        {"active": case.promoted(), "candidate": candidate, "retiring": (warm,), "verdict": verdict, "next_number": 9}
    )
    model = case.make_model("b", status)
    names = [getattr(item, "revision", None) for item in (bound, previous, elsewhere)]
    one = case.tenant("t", None)
    one = type(one)(one.namespace, one.name, {}, names[0], names[1])
    facts = case.facts_of(model, tenants=(one,), bound_elsewhere=tuple(name for name in names[2:] if name))
    wanted = wanted_on_serving(model, status, facts)
    assert {name for name in (*names, ONE, warm.revision) if name} <= set(wanted)
    assert len(wanted) == len(set(wanted))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*model_parts(ONE), *model_parts(TWO)]), st.sampled_from(STATES)))
def test_a_server_converges_on_the_wanted_set(models: dict[str, str]) -> None:
    """Doing what is said, again and again, ends with the wanted parts ready and nothing more of ours."""
    settled = {"LOADING": "READY", "UNLOADING": "UNAVAILABLE"}
    for _ in range(4):
        models = {name: settled.get(state, state) for name, state in models.items()}
        sync = sync_pool("shop", case.pool("p", case.server("s1", models=dict(models))), (ONE,))
        models.update({action.model: "UNAVAILABLE" for action in sync.unloads})
        models.update({action.model: "READY" for action in sync.loads})
    assert (sync.loads, sync.unloads, sync.in_sync, sync.serves(ONE)) == ((), (), 1, True)
    assert {name for name, state in models.items() if state == "READY"} == set(model_parts(ONE))
