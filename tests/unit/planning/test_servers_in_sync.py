"""Server by server: what is loaded, what is unloaded, what is repaired, and what is never touched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, VerdictStatus
from searchops.planning.names import model_parts
from searchops.planning.server_troubles import MAX_RELOADS, Patience, told
from searchops.planning.servers import sync_pool, wanted_on_canary, wanted_on_serving
from unit.planning import rollout_cases as case

ONE, TWO, THREE = (case.built(digest, number).revision for number, digest in enumerate("abc", 1))
CALM = Patience(case.NOW)
STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")


def test_models_are_loaded_encoder_first_and_unloaded_in_reverse() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", ONE)), (TWO,), CALM)
    assert case.told(sync.unloads) == [f"unload s1 {ONE}", f"unload s1 {ONE}-tok", f"unload s1 {ONE}-enc"]
    assert case.told(sync.loads) == [f"load s1 {TWO}-enc", f"load s1 {TWO}-tok", f"load s1 {TWO}"]
    assert (sync.total, sync.in_sync, sync.serves(TWO)) == (1, 0, False)


def test_the_text_model_waits_for_what_it_calls_and_the_others_wait_for_nobody() -> None:
    loading = case.server(
        "s1", models={f"{ONE}-enc": "READY", f"{ONE}-tok": "LOADING"}, reasons={ONE: "warm-up failed"}
    )
    sync = sync_pool("shop", case.pool("p", loading), (ONE,), CALM)
    assert (sync.loads, sync.waits_for(ONE)) == ((), (f"s1 does not serve {ONE}-tok (state LOADING)",))
    state = case.server("s1", models={f"{ONE}-enc": "LOADING"})
    assert case.told(sync_pool("shop", case.pool("p", state), (ONE,), CALM).loads) == [f"load s1 {ONE}-tok"]


def test_a_load_that_failed_is_told_with_its_reason() -> None:
    state = case.server("s1", models={f"{ONE}-enc": "UNAVAILABLE"}, reasons={f"{ONE}-enc": "out of memory"})
    sync = sync_pool("shop", case.pool("p", state), (ONE,), CALM)
    assert sync.waits_for(ONE) == (f"s1 does not serve {ONE}-enc (out of memory)",)


def test_a_server_that_is_down_is_asked_for_nothing() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", reachable=False, error="refused")), (ONE,), CALM)
    assert (sync.loads, sync.unloads, sync.in_sync) == ((), (), 0)
    assert sync.waits_for(ONE) == ("s1 does not answer (refused)",)


def test_an_empty_pool_serves_nothing() -> None:
    assert not sync_pool("shop", case.pool("p"), (ONE,), CALM).serves(ONE)


def test_broken_inference_is_repaired_one_server_at_a_time() -> None:
    broken = {("s1", ONE): "inference fails", ("s2", ONE): "inference fails"}
    sync = sync_pool(
        "shop", case.pool("p", case.server("s1", ONE), case.server("s2", ONE), inference=broken), (ONE,), CALM
    )
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
    assert sync_pool("shop", case.pool("p", state), (), CALM).unloads == ()


def test_nothing_is_unloaded_while_bindings_are_unread() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1", ONE)), (), CALM, drop_extras=False)
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
        sync = sync_pool("shop", case.pool("p", case.server("s1", models=dict(models))), (ONE,), CALM)
        models.update({action.model: "UNAVAILABLE" for action in sync.unloads})
        models.update({action.model: "READY" for action in sync.loads})
    assert (sync.loads, sync.unloads, sync.in_sync, sync.serves(ONE)) == ((), (), 1, True)
    assert {name for name, state in models.items() if state == "READY"} == set(model_parts(ONE))


def test_a_refused_load_is_tried_again_with_growing_pauses_and_keeps_its_beginning() -> None:
    state = case.server("s1", models={f"{ONE}-enc": "UNAVAILABLE"}, reasons={f"{ONE}-enc": "out of memory"})
    patience, tried = Patience(case.NOW), []
    for second in range(0, 1200):
        sync = sync_pool("shop", case.pool("p", state), (ONE,), patience)
        if sync.loads:
            tried.append(second)
        (trouble,) = sync.troubles
        patience = Patience(case.later(seconds=second + 1), {("s1", ONE): trouble})
    assert tried == [0, 5, 15, 35, 75, 155, 315, 615, 915]
    assert (trouble.reason, trouble.since, trouble.attempts) == ("NotLoaded", case.at(), 9)
    assert told(trouble) == (
        f"s1 does not serve {ONE}-enc (out of memory), NotLoaded since {case.at()}; tried 9 times, again from "
        f"{case.at(seconds=1215)} on; where it stays so, put right what it names, in the pool's repository or on this "
        "server"
    )


def test_a_server_that_waits_for_its_next_try_holds_back_no_other() -> None:
    known = Patience(case.NOW).trouble("s1", ONE, "NotLoaded", "out of memory", tried=True)
    patience = Patience(case.later(seconds=1), {("s1", ONE): known})
    sync = sync_pool("shop", case.pool("p", case.server("s1"), case.server("s2")), (ONE,), patience)
    assert {action.server.url for action in sync.loads} == {"s2"}


def test_a_second_broken_server_is_repaired_while_the_first_one_waits() -> None:
    broken = {("s1", ONE): "cosine 0.1", ("s2", ONE): "cosine 0.1"}
    pool = case.pool("p", case.server("s1", ONE), case.server("s2", ONE), inference=broken)
    first = sync_pool("shop", pool, (ONE,), CALM)
    known = {(item.server, item.revision): item for item in first.troubles}
    second = sync_pool("shop", pool, (ONE,), Patience(case.later(seconds=3), known))
    assert {action.server.url for action in first.unloads} == {"s1"}
    assert {action.server.url for action in second.unloads} == {"s2"}


def test_a_pass_that_does_not_act_counts_no_attempt() -> None:
    sync = sync_pool("shop", case.pool("p", case.server("s1")), (ONE,), Patience(case.NOW, acting=False))
    assert sync.loads == ()
    assert [(item.attempts, item.retry_at) for item in sync.troubles] == [(0, None)]


def test_a_restarted_server_is_loaded_at_once_whatever_its_vectors_were() -> None:
    known = Patience(case.NOW).trouble("s1", ONE, "WrongVectors", "cosine 0.1")
    spent = known.model_copy(update={"reloads": MAX_RELOADS})
    patience = Patience(case.later(seconds=1), {("s1", ONE): spent})
    broken = case.pool("p", case.server("s1", ONE), inference={("s1", ONE): "cosine 0.1"})
    assert sync_pool("shop", broken, (ONE,), patience).unloads == ()
    assert len(sync_pool("shop", case.pool("p", case.server("s1")), (ONE,), patience).loads) == 3


def test_every_trouble_says_what_a_person_can_do() -> None:
    said = {
        "NoAnswer": "restart it, or take it out of its pool's Secret where it is gone for good",
        "Loading": "where it stays so, restart this server",
        "NotLoaded": "where it stays so, put right what it names, in the pool's repository or on this server",
        "WrongVectors": "it counts for no promotion; where reloads do not mend it, restart or replace this server",
    }
    pool = case.pool(
        "p",
        case.server("s1", reachable=False, error="refused"),
        case.server("s2", models=dict.fromkeys(model_parts(ONE), "LOADING")),
        case.server("s3"),
        case.server("s4", ONE),
        inference={("s4", ONE): "cosine 0.31000 to the FP32 reference, wanted at least 0.999"},
    )
    sync = sync_pool("shop", pool, (ONE,), Patience(case.NOW, acting=False))
    assert [(item.server, item.reason) for item in sync.troubles] == [
        ("s1", "NoAnswer"),
        ("s2", "Loading"),
        ("s3", "NotLoaded"),
        ("s4", "WrongVectors"),
    ]
    for item in sync.troubles:
        assert told(item) == f"{item.message}, {item.reason} since {case.at()}; {said[item.reason]}"


def test_a_server_that_hangs_in_a_load_is_not_asked_again_and_keeps_nobody_from_being_loaded() -> None:
    hanging = case.server("s1", models={f"{ONE}-enc": "LOADING", f"{ONE}-tok": "READY"})
    known = CALM.trouble("s1", ONE, "NotLoaded", "state not loaded", tried=True)
    for minute in (1, 10, 100):
        patience = Patience(case.later(minutes=minute), {("s1", ONE): known})
        sync = sync_pool("shop", case.pool("p", hanging, case.server("s2")), (ONE,), patience)
        assert {action.server.url for action in sync.loads} == {"s2"}
        first = sync.troubles[0]
        assert (first.reason, first.since, first.attempts) == ("Loading", case.at(), 1)
