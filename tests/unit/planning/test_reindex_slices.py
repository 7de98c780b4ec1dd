"""A rebuild from or to a slice of a shared collection: the same plan, with where the points stand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import RecallSample
from searchops.api.shared import SliceAddress
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_facts import CreateWorker, MeasureRecall
from unit.planning.reindex_facts import (
    ALIAS,
    NOW,
    collection,
    condition,
    done,
    embedding,
    later,
    make_facts,
    make_job,
    message,
    slices,
    status_of,
)

if TYPE_CHECKING:
    from searchops.planning.jobs import JobOrder
    from searchops.planning.reindex_facts import ReindexFacts

ONE = SliceAddress("Shared", "prod@shared-1", "slice-0001")
TWO = SliceAddress("Shared", "prod@shared-1", "slice-0002")
KEYED = SliceAddress("ShardKey", "prod@keyed-1", "slice-0003")
PLACES = (None, ONE, TWO, KEYED)


def ordered(facts: ReindexFacts) -> JobOrder:
    (action,) = plan_reindex(make_job(budget={"deadline": "2h"}), facts, NOW).actions
    assert isinstance(action, CreateWorker)
    return action.order


def told(address: SliceAddress | None) -> dict[str, str] | None:
    if address is None:
        return None
    return {"tier": address.tier, "collection": address.collection, "key": address.key}


@pytest.mark.parametrize(
    ("source", "target", "access"),
    [
        (None, ONE, [("prod@shared-1", "prw"), (f"{ALIAS}@g1", "r")]),
        (None, KEYED, [("prod@keyed-1", "prw"), (f"{ALIAS}@g1", "r")]),
        (ONE, None, [(f"{ALIAS}@g2", "prw"), ("prod@shared-1", "r")]),
        (ONE, TWO, [("prod@shared-1", "prw")]),
        (ONE, KEYED, [("prod@keyed-1", "prw"), ("prod@shared-1", "r")]),
        (KEYED, ONE, [("prod@shared-1", "prw"), ("prod@keyed-1", "r")]),
    ],
)
def test_a_new_generation_says_where_the_points_stand_and_opens_that_alone(
    source: SliceAddress | None, target: SliceAddress | None, access: list[tuple[str, str]]
) -> None:
    order = ordered(make_facts(source=collection(1, slice=source), target=collection(2, slice=target)))
    task = json.loads(order.task.model_dump_json(by_alias=True))
    assert task.pop("target")["vector"] == "d-space"
    assert task == {
        "kind": "reindex",
        "tenant": "shops/acme",
        "strategy": "BlueGreen",
        "cell": {"url": "http://cell:6333", "others": [], "grpcPort": 6334, "caCert": None, "name": "eu-1"},
        "sourceCollection": f"{ALIAS}@g1" if source is None else source.collection,
        "sourceSlice": told(source),
        "sourceUri": None,
        "targetCollection": f"{ALIAS}@g2" if target is None else target.collection,
        "targetSlice": told(target),
        "manifestDigest": "m" * 8,
        "servers": ["triton:8001"],
        "slices": 2,
        "batch": 64,
        "maxPointsPerSecond": 0,
        "maxFailedPercent": "0.5",
        "state": "s3://artifacts/reindex/uid-rj",
        "resultUri": "s3://artifacts/reindex/uid-rj/results",
    }
    assert order.secret_claims == {
        "exp": int(later(hours=3).timestamp()),
        "access": [{"collection": name, "access": right} for name, right in access],
        "subject": "uid-rj/worker",
        "cell": "eu-1",
    }


@pytest.mark.parametrize("address", [ONE, KEYED])
def test_a_second_vector_of_a_slice_is_one_of_the_same_name(address: SliceAddress) -> None:
    side = collection(1, slice=address)
    facts = make_facts(source=side, target=side)
    order = ordered(facts)
    task = json.loads(order.task.model_dump_json(by_alias=True))
    assert (task["strategy"], task["targetCollection"]) == ("NamedVector", address.collection)
    assert (task["sourceSlice"], task["targetSlice"]) == (told(address), told(address))
    assert order.secret_claims is not None
    assert order.secret_claims["access"] == [{"collection": address.collection, "access": "prw"}]
    status = status_of(plan_reindex(make_job(), facts, NOW))
    assert status.target is not None
    assert status.target.collection == f"{ALIAS}@g1", "people and the tenant know it by the name of its generation"


def test_two_slices_of_one_collection_are_two_sides() -> None:
    facts = make_facts(source=collection(1, slice=ONE), target=collection(2, slice=TWO))
    status = status_of(plan_reindex(make_job(), facts, NOW))
    assert status.strategy is not None
    assert status.strategy.chosen == "BlueGreen"
    refused = plan_reindex(make_job(strategy="NamedVector"), facts, NOW)
    assert (refused.actions, condition(refused, "Ready")) == ((), ("False", "NotSupported"))


@given(st.sampled_from(PLACES), st.sampled_from(PLACES), st.booleans())
def test_a_worker_may_write_its_target_and_no_other_and_every_name_once(
    source: SliceAddress | None, target: SliceAddress | None, catalogue: bool
) -> None:
    spec: dict[str, Any] = {"source": {"uri": "s3://catalogues/shops/c.jsonl"}} if catalogue else {}
    facts = make_facts(source=collection(1, slice=source), target=collection(2, slice=target))
    (action,) = plan_reindex(make_job(**spec), facts, NOW).actions
    assert isinstance(action, CreateWorker)
    assert action.order.secret_claims is not None
    task = action.order.task.model_dump()
    access = [(entry["collection"], entry["access"]) for entry in action.order.secret_claims["access"]]
    names = {task["source_collection"], task["target_collection"]}
    assert {name for name, _ in access} == names
    assert len(access) == len(names)
    assert [name for name, right in access if right == "prw"] == [task["target_collection"]]
    for side in ("source", "target"):
        address = task[f"{side}_slice"]
        assert address is None or address["collection"] == task[f"{side}_collection"]


def test_recall_is_measured_under_the_name_of_the_generation_and_its_advice_is_of_the_shared_graph() -> None:
    target = collection(2, slice=KEYED)
    facts = done(source=collection(1), target=target, recall=None)
    plan = plan_reindex(embedding(), facts, NOW)
    assert plan.actions == (MeasureRecall(f"{ALIAS}@g2", "d-space"),)
    low = done(source=collection(1), target=target, recall=RecallSample(50, 10, 500, 300), slices=slices({}, {}))
    plan = plan_reindex(embedding(), low, NOW)
    assert condition(plan, "Verified") == ("False", "RecallTooLow")
    assert "raise hnsw_config.payload_m or ef_construct of prod@keyed-1, then try again" in message(plan, "Verified")


def test_a_slice_that_is_filled_is_verified_as_a_collection_is() -> None:
    slices_of_it = done(source=collection(1, slice=ONE), target=collection(2, slice=TWO))
    own = done()
    assert plan_reindex(embedding(), slices_of_it, NOW) == plan_reindex(embedding(), own, NOW)


@pytest.mark.parametrize(
    ("minutes", "state", "phase"),
    [
        (9, {"status": "yellow"}, "Indexing"),
        (9, {"pending_updates": 3}, "Indexing"),
        (11, {"status": "yellow"}, "Verified"),
        (11, {"pending_updates": 3}, "Verified"),
        (11, {"status": "yellow", "optimizer_error": "no space left"}, "Indexing"),
        (11, {"status": "grey"}, "Indexing"),
        (11, {"status": "red"}, "Indexing"),
    ],
)
def test_a_shared_collection_that_its_other_tenants_keep_busy_is_waited_for_a_while(
    minutes: int, state: dict[str, Any], phase: str
) -> None:
    facts = done(target=collection(2, slice=KEYED, **state))
    plan = plan_reindex(embedding(), facts, later(minutes=minutes))
    assert status_of(plan).phase == phase
    assert condition(plan, "Indexed")[0] == ("True" if phase == "Verified" else "False")
    if phase == "Verified":
        assert "prod@keyed-1 is shared and was not waited for any longer: status " in message(plan, "Indexed")
    own = done(target=collection(2, **state))
    assert status_of(plan_reindex(embedding(), own, later(minutes=minutes))).phase == "Indexing"


def test_of_a_busy_shared_collection_recall_is_measured_before_anything_is_verified() -> None:
    busy = collection(2, slice=ONE, status="yellow")
    plan = plan_reindex(embedding(), done(target=busy, recall=None), later(minutes=11))
    assert plan.actions == (MeasureRecall(f"{ALIAS}@g2", "d-space"),)
    low = done(target=busy, recall=RecallSample(50, 10, 500, 300))
    assert condition(plan_reindex(embedding(), low, later(minutes=11)), "Verified") == ("False", "RecallTooLow")
