"""What `searchops plan` prints: every figure with its basis, and the unknown as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from searchops.cli.plan import behind, plan_lines, rollout_lines

SAMPLES = Path(__file__).parents[1] / "api/full_documents"
TENANT: dict[str, Any] = yaml.safe_load((SAMPLES / "searchtenants.yaml").read_text(encoding="utf-8"))
MODEL: dict[str, Any] = yaml.safe_load((SAMPLES / "embeddingmodels.yaml").read_text(encoding="utf-8"))


def with_plan(**changes: Any) -> dict[str, Any]:
    plan = {**TENANT["status"]["plan"], **changes}
    return {"metadata": {"generation": 3}, "status": {"plan": {k: v for k, v in plan.items() if v is not None}}}


def test_a_whole_plan_for_people() -> None:
    assert plan_lines(TENANT) == [
        "rebuild    is under way; this is what was foreseen before it started",
        "change     analyser 41c09be2 → 7b95f9c8 (spec.languages)",
        "change     revision shop-encoder-r3-4be1c7aa → shop-encoder-r4-0c77d1e9 "
        "(vector d-9f31c2ab77e0 → d-0c77d1e90000)",
        "strategy   BlueGreen: what differs cannot change in place: another generation is filled while this one serves",
        "fills      prod.merchants-eu.acme-fasteners@g3 d-0c77d1e90000",
        "revision   shop-encoder-r4-0c77d1e9",
        "documents  18231 (estimated)",
        "time       59 s (measured on 3 jobs of shop-encoder-r3-4be1c7aa, another revision of the model, "
        "slowest 640/s)",
        "GPU time   42 s (measured on 3 jobs of shop-encoder-r3-4be1c7aa, another revision of the model)",
        "cost       0.02 EUR (1.10 EUR a GPU-hour of a10)",
        "storage    29 MB of dense vectors more until the rollback window ends (estimated)",
        "room       for one more collection: yes; the cell holds 311 of 1000 collections, memory maps at 34 %, "
        "open files at 21 %",
        "ReindexJob acme-fasteners-7f3a91c2de",
    ]


def test_what_is_not_known_is_said_without_a_number() -> None:
    found = with_plan(
        state="Paused",
        revision=None,
        vector=None,
        seconds=None,
        secondsBasis="unknown: no ReindexJob has finished",
        gpuSeconds=None,
        gpuSecondsBasis="unknown: none has counted",
        cost=None,
        costBasis="no cost: settings.gpuHourPrices is empty",
        room={"needed": False, "fits": True, "collections": 3, "maxCollections": 10},
    )
    lines = plan_lines(found)
    assert lines[0] == "rebuild    waits: spec.paused is true; set it to false to start"
    assert lines[4:] == [
        "fills      prod.merchants-eu.acme-fasteners@g3",
        "revision   none: only the lexical vectors are made",
        "documents  18231 (estimated)",
        "time       unknown: no ReindexJob has finished",
        "GPU time   unknown: none has counted",
        "cost       no cost: settings.gpuHourPrices is empty",
        "storage    29 MB of dense vectors more until the rollback window ends (estimated)",
        "room       none is needed: nothing is made beside what is there (the cell holds 3 of 10 collections)",
    ]


def test_long_times_are_told_in_minutes_and_hours_too() -> None:
    found = {line[:10].strip(): line[11:] for line in plan_lines(with_plan(seconds=1800, gpuSeconds=9000))}
    assert found["time"].startswith("1800 s, about 30 min (measured")
    assert found["GPU time"].startswith("9000 s, about 2.5 h (measured")


def test_no_room_says_so() -> None:
    room = {"needed": True, "fits": False, "collections": 10, "maxCollections": 10}
    lines = plan_lines(with_plan(state="NoRoom", room=room))
    assert lines[0].startswith("rebuild    waits: its cell has no room; raise maxCollections")
    assert lines[-1] == "room       for one more collection: no; the cell holds 10 of 10 collections"


def test_without_a_plan_there_is_nothing_and_a_spec_not_seen_yet_is_said() -> None:
    assert plan_lines({"metadata": {"generation": 1}}) == []
    assert behind({"metadata": {"generation": 3}, "status": {"observedGeneration": 3}}) == ""
    assert behind({"metadata": {"generation": 4}, "status": {"observedGeneration": 3}}) == (
        "the operator has seen generation 3 and the object is at 4: this may not be of its present spec"
    )


def test_the_plan_of_a_rollout_for_people() -> None:
    assert rollout_lines(MODEL) == [
        "candidate  shop-encoder-r4-0c77d1e9",
        "rollout    wave ten is under way; this is what was foreseen before the first",
        "vectors    change: a tenant that lacks them is embedded before it switches",
        "tenants    10410",
        "documents  18231000 (estimated)",
        "wave       canary: 12 tenants, 31000 documents, at most 120 s, about 2 min; ends 120 s, about 2 min after the "
        "start",
        "wave       ten: 1029 tenants, 1800000 documents, at most 3900 s, about 65 min; ends 7700 s, about 2.1 h after "
        "the start",
        "wave       all: 9369 tenants, 16400000 documents, at most 35000 s, about 9.7 h; ends 46300 s, about 12.9 h "
        "after the start",
        "time       46300 s, about 12.9 h (measured on 5 jobs of shop-encoder-r3-4be1c7aa, another revision of the "
        "model, slowest 640/s)",
        "GPU time   29000 s, about 8.1 h (measured on 5 jobs of shop-encoder-r3-4be1c7aa, another revision of the "
        "model)",
        "cost       8.87 EUR (1.10 EUR a GPU-hour of a10)",
        "storage    57000 MB of dense vectors more until the rollback window ends (estimated)",
    ]


def test_what_was_never_measured_of_a_rollout_is_said_so_and_has_no_figure() -> None:
    waves = [{"name": "all", "tenants": 3, "documents": 500}]
    plan = {**MODEL["status"]["plan"], "waves": waves, "secondsBasis": "unknown: none has finished"}
    del plan["seconds"]
    lines = rollout_lines({"status": {"phase": "AwaitingApproval", "plan": plan}})
    assert "rollout    has not started: the model is AwaitingApproval" in lines
    assert "wave       all: 3 tenants, 500 documents" in lines
    assert "time       unknown: none has finished" in lines
    assert rollout_lines({"status": {"phase": "Promoted"}}) == []
